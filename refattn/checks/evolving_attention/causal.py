"""Lesson 13, build: kernels that know nothing of the future."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.evolving_attention import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.layers.map_convolution import convolve_maps

HAND = "Rows [1, 50], [2, 3], a 3 × 3 kernel of ones"


def at_seen_cells(attempt):
    """An attempt with zeros above the diagonal of causal maps: what it returns there nobody reads."""

    def run(A, C, kind):
        y = attempt(A, C, kind)
        fits = kind == "causal" and torch.is_tensor(y) and y.dim() >= 2 and y.shape[-2:] == A.shape[-2:]
        return y.tril() if fits else y

    return run


def hand(kind="causal"):
    """One head, two queries, two keys; 50 stands where query 0 may not look."""
    return rows([[1, 50], [2, 3]]), torch.ones(1, 1, 3, 3), kind


def drawn(kind, kernel=(3, 3), N=5, M=5, H=2):
    return seeded(H, N, M), seeded(H, H, *kernel, seed=1), kind


def found(run, kind="causal"):
    return show(run(*hand(kind))[0])


def fact_hand(run):
    return f"{HAND}, causal: wanted [[1, 0], [3, 6]]; you return {found(run)}."


def fact_cross(run):
    return f"{HAND}, cross: wanted [[51, 51], [56, 56]]; you return {found(run, 'cross')}."


def fact_prefix(run):
    """Three layers in a row: rows and columns of a prefix do not change when more tokens come."""
    for kind in ("causal", "cross"):
        A, C, _ = drawn(kind, (3, 5), N=6, M=6)
        short, long = (A[:, :4, :4] if kind == "causal" else A[:, :4]), A
        for _ in range(3):
            short, long = run(short, C, kind), run(long, C, kind)
        kept = long[:, :4, :4] if kind == "causal" else long[:, :4]
        if not equal([short / 100], [kept / 100]):
            before, after = show(short[0, 3, 0]), show(kept[0, 3, 0])
            where = f"{kind}, three layers of 3 × 5: the cell of query 3 and key 0"
            return f"{where} is {before}, and {after} in a longer map."


def fact_package(run):
    for kind, kernel, M in (("causal", (5, 3), 5), ("cross", (3, 5), 7)):
        A, C, _ = drawn(kind, kernel, M=M)
        causal = kind == "causal"
        seen = torch.ones(5, 5, dtype=torch.bool).tril() if causal else None
        wanted = convolve_maps(A[None], C, seen=seen, causal_rows=True, causal_columns=causal)[0]
        error = (run(A, C, kind) - (wanted.tril() if causal else wanted)).abs().max().item()
        if not error < 1e-4:
            return f"{kind}, a {kernel[0]} × {kernel[1]} kernel: you differ from refattn by {error:.2g}."


def fact_brute_force(run):
    stored = golden("golden_evolving")
    A_in, C, b, A = (stored[f"decoder.{name}"] for name in ("A_in", "C", "b", "A"))
    evolved = 0.3 * (run(A_in, C, "causal") + b[:, None, None]).relu() + 0.7 * A_in
    error = (evolved.tril() - A).abs().max().item()
    if not error < 5e-5:
        return f"Two heads, five tokens, by loops over all cells: you differ by {error:.2g}."


causal_convolution = Exercise(
    "evolving_attention.causal_convolution",
    answers.causal_convolution,
    returns="C * A [H, N, M]",
    adapt=at_seen_cells,
    probes=(
        Probe(f"{HAND}, causal: [[1, 0], [3, 6]], where 0 is not read.", hand),
        Probe(f"{HAND}, cross: [[51, 51], [56, 56]].", lambda: hand("cross")),
        Probe("Two heads, five tokens, causal, a 3 × 3 kernel.", lambda: drawn("causal")),
        Probe("Two heads, five queries, seven keys, cross, a 3 × 5 kernel.", lambda: drawn("cross", (3, 5), M=7)),
        Probe("Two heads, five tokens, causal, a 5 × 3 kernel.", lambda: drawn("causal", (5, 3))),
    ),
    variants=(
        Variant(
            "centred",
            answers.causal_convolution_centred,
            fact_hand,
            """Shapes are right, the upper triangle is zero, and a mask at the end would look causal. But a centred
            kernel reads the row below, and that row is made of the *next* token's query.
            Try: change row 1 and look at row 0.""",
        ),
        Variant(
            "upper triangle heard",
            answers.causal_convolution_unmasked,
            fact_hand,
            """The frame is right: rows and columns up to the cell's own. But row p - 1 may hold cells that query p - 1
            may not see, and here they are taken in.
            Try: which value must stand above the diagonal before the kernel comes? (As outside the map.)""",
        ),
        Variant(
            "minus a billion",
            answers.causal_convolution_infinite,
            fact_hand,
            """The frame is right. Large negative numbers are for a softmax; a kernel multiplies them by its weights,
            and one of them drowns the whole neighbourhood (-∞ would make NaN).
            Try: which number does a convolution not notice?""",
        ),
        Variant(
            "columns centred",
            answers.causal_convolution_rows_only,
            fact_hand,
            """Cross maps are right, and rows of causal maps too. But a causal map's columns are in time as well.
            Try: the four numbers of the frame for the causal kind.""",
        ),
        Variant(
            "columns causal in a cross map",
            answers.causal_convolution_both,
            fact_cross,
            """Causal maps are right. A cross map's columns are the source, which is all there from the start: its
            kernels are centred along keys.
            Try: who has to wait for whom?""",
        ),
        Variant(
            "frame turned",
            answers.causal_convolution_turned,
            lambda run: (
                f"Causal, a 5 × 3 kernel: row 1 must begin with "
                f"{show(answers.causal_convolution(*drawn('causal', (5, 3)))[0, 1, 0])}; yours begins with "
                f"{show(run(*drawn('causal', (5, 3)))[0, 1, 0])}."
            ),
            """Square causal kernels are right. F.pad takes the last axis first: left, right, then top, bottom; k_c
            belongs to the first two.
            Try: print the shape of what you hand to conv2d, for a 5 × 3 kernel.""",
        ),
    ),
    properties=(
        Property("nothing of the future in three layers", fact_prefix, "Up to the cell's own. Try: a longer map."),
    ),
    numbers=(
        Property("it equals refattn", fact_package, "k - 1 before, 0 after. Try: 1 × 3."),
        Property("it equals brute force", fact_brute_force, "tril first. Try: two tokens."),
    ),
    hints=(
        "Where may the kernel's last row lie, over a map whose rows are in time? And its last column, for each kind?",
        """F.pad(A, (left, right, top, bottom)), then conv2d without padding: causal (k_c - 1, 0, k_r - 1, 0) after
        A.tril(); cross (k_c // 2, k_c // 2, k_r - 1, 0).""",
    ),
    passed="""Cells know what came before them and nothing else, in every layer, for any odd kernel.
    Next: on the diagonal, how many of nine taps find a cell that is not zero?""",
)
