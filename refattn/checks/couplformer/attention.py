"""Lesson 12, build: the whole coupled attention, with both ways to merge channels."""

import torch

from refattn.checks.compare import golden, seeded, show
from refattn.checks.couplformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most


def images(h, w, c, merge, size=1.0):
    return (*(size * seeded(h, w, c, seed=seed) for seed in range(3)), merge)


def two_rows(merge="concat"):
    """Two rows, one column, c = 2: only rows can be mixed."""
    q, k = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]]), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    return q, k, torch.tensor([[[1.0, 0.0]], [[0.0, 8.0]]]), merge


def small(run, merge):
    y, wanted = run(*images(2, 3, 4, merge)), answers.coupled_attention(*images(2, 3, 4, merge))
    return f"A grid of 2 × 3, c = 4, {merge}: wanted {show(wanted[0, 0])} at pixel (0, 0); you return {show(y[0, 0])}"


def fact_equal(run):
    q, k, v, merge = images(3, 4, 2, "concat")
    y = run(q, k, torch.ones_like(v), merge)
    if not (y - 1).abs().max() < 1e-4:
        return f"All values are 1, so every mean is 1; you return {show(y[0, 0])} at pixel (0, 0)."


def authors():
    """Heads of the authors' two attentions: [(q, k, v, merge, wanted)]."""
    stored = golden("golden_couplformer")
    found = []
    for merge in ("concat", "pooling"):
        arrays = [stored[f"{merge}.{name}"] for name in ("q", "k", "v", "mixed")]
        found += [(q, k, v, merge, y) for q, k, v, y in zip(*(x.flatten(0, 1) for x in arrays), strict=True)]
    return found


def fact_authors(run):
    errors = [(run(q, k, v, merge) - y).abs().max().item() for q, k, v, merge, y in authors()]
    if not max(errors) < 5e-5:
        return f"Ten heads of the authors' code, 3 × 3 and 2 × 4 pixels: you differ by {max(errors):.2g}."


coupled_attention = Exercise(
    "couplformer.coupled_attention",
    answers.coupled_attention,
    returns="outputs [h, w, c]",
    probes=(
        Probe("Two rows of one pixel, q = 2 k, c = 2: a row weighs itself σ(2 / 2^¼) = 0.843.", two_rows),
        Probe("A grid of 2 × 3, c = 4.", lambda: images(2, 3, 4, "concat")),
        Probe("The same, pooling.", lambda: images(2, 3, 4, "pooling")),
    ),
    variants=(
        Variant(
            "mean for maximum",
            answers.coupled_attention_mean,
            lambda run: f"{small(run, 'pooling')}.",
            """Concat is right. Pooling takes the largest feature of a pixel, for queries and for keys, not their mean.
            Try: features [3, -3] and [0, 0]. Which of the two poolings tells them apart?""",
        ),
        Variant(
            "scale of one map",
            answers.coupled_attention_root,
            lambda run: f"{small(run, 'concat')}.",
            """Everything but the scale is right: two maps multiply, so each takes half of the exponent -1/2. (The
            authors' own flat model had -1/2 until August 2022.)
            Try: c**-0.25.""",
        ),
        Variant(
            "softmax over queries",
            answers.coupled_attention_queries,
            lambda run: f"{small(run, 'concat')}.",
            """The logits are right. Each *row* of A and of Ā is to sum to one: softmax runs over the last axis.
            Try: values that are all 1.""",
        ),
        Variant(
            "columns without a swap",
            answers.coupled_attention_unswapped,
            lambda run: f"{small(run, 'concat')}.",
            """A is right; Ā is made of columns that are none. Swap the grid's axes before you flatten.
            Try: the check of logits.""",
        ),
        Variant(
            "scale after pooling",
            answers.coupled_attention_norescale,
            lambda run: f"{small(run, 'pooling')}.",
            """Concat is right. With pooling there is one channel left, so c**-0.25 became 1; the authors keep the
            scale of the head's width.
            Try: take c before you pool.""",
        ),
    ),
    properties=(Property("means of equal values are those values", fact_equal, "Weights sum to one. Try: v = 1."),),
    costs=(
        at_most(
            4096,
            lambda: images(32, 32, 4, "concat"),
            sizes="32 × 32 pixels, c = 4",
            says="""The N × N map gives the right numbers, and has a million of them. Y = A V Āᵀ mixes by columns, then
            by rows.
            Try: two einsums, one index at a time.""",
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Both their classes. Try: one head, concat."),),
    hints=(
        "logits, then softmax over the last axis, then mix by rows and by columns. Where does pooling come in?",
        """Pooling: s = c**-0.25 first; then q.amax(-1, keepdim=True), k likewise, and the same sums times s. Mixing:
        einsum("iy,yxe->ixe", A, v), then einsum("jx,ixe->ije", A_bar, ...).""",
    ),
    passed="""Means stay means, no N × N map, both merges, and the authors' own numbers come out.
    Next: on which grid of 196 pixels are the two maps together smallest, and on which largest?""",
)
