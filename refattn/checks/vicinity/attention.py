"""Lesson 17, build: attention in linear time, and the whole layer with FRA and FPC."""

import torch

from refattn.attention.vicinity import Vicinity, position_factors, vicinity_attention_explicit
from refattn.checks.compare import golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.vicinity import answers

ROOT = 0.5**0.5


def two_tokens():
    """One row of two tokens, all similarities 1, values 0 and 10: the far one weighs 1.707, the near one 2."""
    return rows([1.0], [1.0]), rows([1.0], [1.0]), rows([0.0], [10.0]), rows([1, 0, 1, 0], [1, 0, ROOT, ROOT])


def tokens(grid, d=3, d_v=2):
    n = grid[0] * grid[1]
    q, k, v = (seeded(n, width, seed=seed) for seed, width in enumerate((d, d, d_v)))
    return q, k, v, position_factors(grid)


def by_hand(run):
    y = show(run(*two_tokens()).flatten())
    return f"Two tokens in a row, similarities 1, values 0 and 10: wanted [4.6, 5.39]; you return {y}"


def negative(run):
    return run(rows([1], [-1]), rows([1], [1]), rows([0], [10]), two_tokens()[3]).flatten()


def mixed(run):
    return run(rows([1, 1], [1, 1]), rows([2, -1], [1, 1]), *two_tokens()[2:]).flatten()[0]


def fact_quadratic(run):
    for grid in ((3, 5), (5, 3), (1, 7)):
        q, k, v, F = tokens(grid)
        wanted = vicinity_attention_explicit(q[None, None], k[None, None], v[None, None], grid)[0, 0]
        error = (run(q, k, v, F) - wanted).abs().max().item()
        if not error < 1e-4:
            return f"{grid[0]} × {grid[1]} tokens: you differ from the N × N form by {error:.2g}."


def fact_silent(run):
    q, k, v, F = tokens((2, 3))
    q[1] = -1.0
    y = run(q, k, v, F)
    if not (y[1] == 0).all():
        return f"A query without a positive entry has no similarity to anyone; its output is {show(y[1])}, not 0."


def fact_authors(run):
    """Two images, two heads each: q, k and v of the authors' layer, and what their map gives."""
    stored = golden("golden_vicinity")
    F = position_factors((3, 4))
    heads = [(stored[name][b, h] for name in ("q", "k", "v", "o")) for b in range(2) for h in range(2)]
    errors = [(run(q, k, v, F) - o).abs().max().item() for q, k, v, o in heads]
    if not max(errors) < 5e-5:
        return f"3 × 4 tokens of the authors' layer, four heads: you differ by {max(errors):.2g}."


vicinity_attention = Exercise(
    "vicinity.vicinity_attention",
    answers.vicinity_attention,
    returns="outputs [N, d_v]",
    probes=(
        Probe("Two tokens in a row, similarities 1, values 0 and 10, R = 2 and 1.707.", two_tokens),
        Probe("2 × 3 tokens, d = 3, d_v = 2.", lambda: tokens((2, 3))),
    ),
    variants=(
        Variant(
            "four ratios",
            answers.vicinity_attention_blocks,
            lambda run: f"{by_hand(run)}.",
            """Each block of features is normalised by itself, and the four results are added. A sum of four ratios is
            not the ratio of two sums.
            Try: add the four numerators, add the four denominators, and divide once.""",
        ),
        Variant(
            "mean of four ratios",
            answers.vicinity_attention_blocks_mean,
            lambda run: f"{by_hand(run)}.",
            """Of the right size now, and still four attentions, each with a weight of its own for every pair; one of
            them has no weight at all for the first row.
            Try: one attention with features 4 d wide.""",
        ),
        Variant(
            "scaled similarity",
            answers.vicinity_attention_scaled,
            lambda run: f"q = [1, 1], k = [2, −1] and [1, 1], v = [0, 10]: wanted 4.6; you return {show(mixed(run))}.",
            """relu stands outside of the product, and a product that was negative has become 0. That has no features;
            and the division by √d cancels between numerator and denominator (but for ε).
            Try: relu on q and on k, before anything is multiplied.""",
        ),
        Variant(
            "no relu",
            answers.vicinity_attention_no_relu,
            lambda run: f"With q = [1, −1], k = [1, 1], v = [0, 10]: {show(negative(run))}; wanted [4.6, 0].",
            """Right as long as everything is positive. Without relu similarities are negative, and a row may sum to
            nearly zero.
            Try: relu(q) and relu(k).""",
        ),
        Variant(
            "no nearness",
            answers.vicinity_attention_no_factors,
            lambda run: f"{by_hand(run)}: both keys weigh the same.",
            """Linear attention, whose weights know no place. F is not used.
            Try: multiply features with each of the four columns of F.""",
        ),
        Variant(
            "factors on one side",
            answers.vicinity_attention_queries_only,
            lambda run: f"{by_hand(run)}.",
            """F_i on the query's side only scales a row, and the normaliser takes that out again.
            Try: the key's features need F_j.""",
        ),
        Variant(
            "not divided",
            answers.vicinity_attention_undivided,
            lambda run: f"{by_hand(run)}.",
            """The numerator is right. Its denominator is the same sum with v = 1.
            Try: φ(q) · Σ φ(k), plus ε.""",
        ),
    ),
    properties=(
        Property("it equals the N × N form on every grid", fact_quadratic, "R = F Fᵀ. Try: 1 × 2."),
        Property("a query without a positive entry gets 0", fact_silent, "0 / ε is 0. Try: add ε, do not clamp."),
    ),
    costs=(
        at_most(
            576 * 4 * 4,
            lambda: tokens((24, 24), d=4, d_v=4),
            sizes="24 × 24 tokens, d = d_v = 4",
            says="""The map of all pairs gives the right numbers and costs N². φ(q) (φ(k)ᵀ v) needs no map: φ is
            relu(x) times each column of F, 4 d numbers a token.
            Try: (x.relu()[:, None, :] * F[:, :, None]).flatten(1), then brackets to the right.""",
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Their layer, unclamped. Try: one head."),),
    hints=(
        "Lesson 03 with other features: which vector of 4 d numbers does a token have, so that φ(q)·φ(k) = (q·k) R?",
        "φ(x) = (x.relu()[:, None, :] * F[:, :, None]).flatten(1); M = φ(k)ᵀ v, s = φ(k).sum(0); φ(q) M / (φ(q)·s + ε)",
    ),
    passed="""Exact on every grid, no N × N map, and the authors' own numbers too.
    Next: what would you have to change so that a token may be ignored?""",
)


NAMES = ("query", "key", "value", "output", "down", "up")


def tiny_layer():
    """One token, D = 2, D' = 1: z = [2, 0], and gates of σ(2) and σ(0)."""
    W = {"query": rows([1, 0]), "key": rows([1, 0]), "value": rows([1, 0]), "output": rows([2], [0])}
    W |= {"down": rows([1, 0], [0, 1]), "up": rows([2, 0], [0, 0])}
    b = {"query": torch.zeros(1), "key": torch.zeros(1), "value": torch.zeros(1), "output": rows(0, 0)}
    return rows([1, 3]), W, b, position_factors((1, 1))


def any_layer(grid=(2, 3), D=4, reduced=2):
    shapes = {"output": (D, reduced), "down": (D, D), "up": (D, D)}
    W = {name: seeded(*shapes.get(name, (reduced, D)), seed=seed) for seed, name in enumerate(NAMES)}
    b = {name: seeded(D if name == "output" else reduced, seed=9 + seed) for seed, name in enumerate(NAMES[:4])}
    return seeded(grid[0] * grid[1], D, seed=20), W, b, position_factors(grid)


def gated(run):
    return (
        f"One token [1, 3], attended and mapped to z = [2, 0], gates σ(2) = 0.881 and ½: wanted [3.76, 0]; "
        f"you return {show(run(*tiny_layer()).flatten())}"
    )


def first_rows(run):
    return show(run(*any_layer())[0])


def fact_package(run):
    """The authors' weights in refattn's layer, as a single head."""
    stored = golden("golden_vicinity")
    W = {name: stored[f"W_{name}"] for name in NAMES}
    b = {name: stored[f"b_{name}"] for name in NAMES[:4]}
    ours = Vicinity(8, 1, grid=(3, 4))
    with torch.no_grad():
        for name in NAMES[:4]:
            getattr(ours.projections, name).weight.copy_(W[name])
            getattr(ours.projections, name).bias.copy_(b[name])
        ours.gate.down.weight.copy_(W["down"])
        ours.gate.up.weight.copy_(W["up"])
        wanted, _ = ours(stored["x"])
    errors = [
        (run(x, W, b, position_factors((3, 4))) - y).abs().max().item()
        for x, y in zip(stored["x"], wanted, strict=True)
    ]
    if not max(errors) < 1e-4:
        return f"3 × 4 tokens with the authors' weights, one head: you differ from refattn by {max(errors):.2g}."


layer = Exercise(
    "vicinity.layer",
    answers.layer,
    returns="outputs [N, D]",
    probes=(
        Probe("One token [1, 3], D = 2, D' = 1, z = [2, 0], gates σ(2) and σ(0).", tiny_layer),
        Probe("2 × 3 tokens, D = 4, D' = 2.", any_layer),
    ),
    variants=(
        Variant(
            "gate without the one",
            answers.layer_squeezed,
            lambda run: f"{gated(run)}.",
            """That is squeeze and excitation, which can shut a feature off. Here the gate multiplies by 1 + g, between
            1 and 2: what came through stays.
            Try: z + z * g.""",
        ),
        Variant(
            "input added",
            answers.layer_residual,
            lambda run: f"{gated(run)}.",
            """The name says preserving, and so it looks as if x were added. In the authors' code the gate multiplies
            z; x comes in through its mean only. (The block's own residual adds x.)
            Try: z * (1 + g).""",
        ),
        Variant(
            "gate from the output",
            answers.layer_gate_of_output,
            lambda run: f"{gated(run)}.",
            """z has been through the narrow space, and that is what the gate is to look past: it reads x, which still
            has all D features.
            Try: mean over tokens of x.""",
        ),
        Variant(
            "a gate a token",
            answers.layer_gate_a_token,
            lambda run: f"On 2 × 3 tokens the gates of token 0 and 1 differ; the first row is {first_rows(run)}.",
            """Each token has a gate of its own. The authors' is one a feature for the whole image: 2 D² multiply-adds
            an image, not a token.
            Try: x.mean(0) before the two matrices.""",
        ),
        Variant(
            "no gate",
            answers.layer_ungated,
            lambda run: f"{gated(run)}.",
            """FRA is right: attention in D' features, and W_O back to D. The gate is missing.
            Try: σ(U₂ relu(U₁ x̄)).""",
        ),
    ),
    numbers=(Property("it equals refattn with the authors' weights", fact_package, "Biases as well. Try: N = 1."),),
    hints=(
        "q, k, v of width D'; your vicinity_attention; the output matrix. Then one gate a feature, from the mean of x.",
        """z = o @ W["output"].T + b["output"]; g = sigmoid(relu(x.mean(0) @ W["down"].T) @ W["up"].T); z * (1 + g).""",
    ),
    passed="""Narrow attention, and a gate that has seen all features.
    Next: with κ = 1 the gate has 2 D² parameters, exactly what FRA saves at ρ = 2. Which of both costs time?""",
)
