"""Lesson 16, build: momentum attention for all tokens at once, without an N × N map."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.momentum import answers


def counting(beta=0.5, gamma=1.0):
    """Three tokens, all similarities 1, values 4, 8, 16."""
    return rows([1], [1], [1]), rows([1], [1], [1]), rows([4], [8], [16]), beta, gamma


def tokens(n, d=4, d_v=2, beta=0.6, gamma=0.9):
    """Positive features and values, the same for the first tokens whatever n is."""
    q, k, v = (seeded(512, width, seed=seed)[:n] for seed, width in enumerate((d, d, d_v)))
    return q.exp(), k.exp(), v, beta, gamma


def by_hand(run):
    y = show(run(*counting()).flatten())
    return f"All similarities 1, values 4, 8, 16, β = ½, γ = 1: wanted [4, 7, 11.7]; you return {y}"


def second(run, followers):
    return run(*tokens(2 + followers))[1]


def fact_length(run):
    one, two = second(run, 1), second(run, 2)
    if not equal([one], [two]):
        return f"Token 2 is {show(one)} when one token follows, {show(two)} when two follow."


def fact_future(run):
    q, k, v, *rest = tokens(4)
    moved = [t.clone() for t in (q, k, v)]
    for t in moved:
        t[3] += 3.0
    before, after = run(q, k, v, *rest)[1], run(*moved, *rest)[1]
    if not equal([before], [after]):
        return f"Token 4 of 4 was changed, and token 2 went from {show(before)} to {show(after)}."


def authors():
    """Heads of the authors' recurrent module: [(φ(q), φ(k), v, wanted)]."""
    stored = golden("golden_momentum")
    feature = {name: torch.nn.functional.elu(stored[name]) + 1 for name in ("q", "k")}
    return [
        tuple(t[b, h] for t in (feature["q"], feature["k"], stored["v"], stored["recurrent"]))
        for b in range(2)
        for h in range(2)
    ]


def fact_authors(run):
    errors = [(run(q, k, v, 0.6, 0.9) - wanted).abs().max().item() for q, k, v, wanted in authors()]
    if not max(errors) < 5e-5:
        return f"Seven tokens of the authors' recurrent module, four heads: you differ by {max(errors):.2g}."


momentum_attention = Exercise(
    "momentum.momentum_attention",
    answers.momentum_attention,
    returns="outputs [N, d_v]",
    probes=(
        Probe("All similarities 1, values 4, 8, 16, β = ½, γ = 1: 4, (6 + 8)/2, (7 + 12 + 16)/3.", counting),
        Probe("Six tokens, d = 4, d_v = 2, β = 0.6, γ = 0.9.", lambda: tokens(6)),
    ),
    variants=(
        Variant(
            "total length",
            answers.momentum_attention_total,
            fact_length,
            """No later token's value leaks in; only their number does. The authors' training code has the same
            weights, and a network trained so is another one when it generates.
            Try: which quantity in your weights knows the sequence length?""",
        ),
        Variant(
            "normaliser with momentum",
            answers.momentum_attention_normalised,
            lambda run: f"{by_hand(run)}. Token 3 divides by 3 equal similarities.",
            """Weights of the numerator are right, and rows now sum to one, which looks tidy. But z has no velocity:
            the output may be larger than any value, and the paper's is.
            Try: eq. 2. Which sum carries w, and which does not?""",
        ),
        Variant(
            "the velocity is read",
            answers.momentum_attention_velocity,
            lambda run: f"{by_hand(run)}.",
            """The first output is right, and so is the normaliser. You read p, whose memory fades by β a token; the
            state that queries see is S, the sum of all steps.
            Try: how much of value 4 is in output 3?""",
        ),
        Variant(
            "newest key left out",
            answers.momentum_attention_newest_zero,
            lambda run: f"{by_hand(run)}. Token 1 has only itself.",
            """Weights grow with the distance, but start at none: the plain sum less the decayed one. β is missing
            before the decayed sum.
            Try: for one token both sums are U. What must be left of it?""",
        ),
        Variant(
            "not divided",
            answers.momentum_attention_undivided,
            lambda run: f"{by_hand(run)}.",
            """The numerator is right. Each row is to be divided by the sum of its similarities.
            Try: token 3 sees three similarities of 1.""",
        ),
    ),
    properties=(
        Property("no later token changes an earlier output", fact_future, "Sums over j ≤ i. Try: two tokens."),
        Property(
            "appended tokens change no earlier output", fact_length, "i - j, not N - j. Try: one token, then two."
        ),
    ),
    costs=(
        at_most(
            512 * 4 * 4,
            lambda: tokens(512, d=4, d_v=4),
            sizes="N = 512, d = d_v = 4",
            says="""The map of all pairs gives the right numbers, and costs N². φ(k)ᵀ v is d × d_v for each token; a
            plain and a decayed running sum of them are all that is needed.
            Try: U = φ(k)[:, :, None] * v[:, None, :], then cumsum(0) and decayed(U, beta).""",
            slack=8,
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Their recurrent module. Try: one head."),),
    hints=(
        """1 + β + … + β^t is (1 - β^(t+1)) / (1 - β): a constant less a power. So S is a plain running sum less a
        decayed one. Which factors stand before each?""",
        """U = φ(k)ᵀ v for each token; S = γ/(1-β) (U.cumsum(0) - β decayed(U, β)); y = φ(q) S / φ(q)·z with z the plain
        running sum of φ(k).""",
    ),
    passed="""Causal, independent of what follows, no N × N map, and the authors' recurrent numbers come out.
    Next: two sums are subtracted. For which β does that lose digits, and what would you sum instead?""",
)
