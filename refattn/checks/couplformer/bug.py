"""Lesson 12, find the bug: which side of the column map meets the values."""

import torch

from refattn.checks.compare import rows, seeded, show
from refattn.checks.couplformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def by_hand():
    """One row of two columns: the first pixel reads only itself, the second both."""
    return torch.ones(1, 1), rows([1.0, 0.0], [0.5, 0.5]), torch.tensor([[[4.0], [8.0]]])


def grid(h, w, d=2):
    return seeded(h, h).softmax(-1), seeded(w, w, seed=1).softmax(-1), seeded(h, w, d, seed=2)


def hand(run):
    y = show(run(*by_hand()).flatten())
    return f"One row, Ā = [[1, 0], [½, ½]], values 4 and 8: wanted 4 and 6; you return {y}"


def fact_ones(run):
    A, A_bar, V = grid(3, 4)
    y = run(A, A_bar, torch.ones_like(V))
    if not (y - 1).abs().max() < 1e-4:
        return f"All values are 1, every mean is 1; you return {show(y[0, :, 0])} in row 0."


def fact_product(run):
    A, A_bar, V = grid(3, 4)
    wanted = (answers.kronecker_map(A, A_bar) @ V.reshape(12, -1).to(A)).reshape(3, 4, -1)
    error = (run(A, A_bar, V) - wanted).abs().max().item()
    if not error < 1e-4:
        return f"A grid of 3 × 4: you differ from (A ⊗ Ā) V by {error:.2g}."


mixed = Exercise(
    "couplformer.mixed",
    answers.mixed,
    returns="mixed values [h, w, d]",
    probes=(
        Probe("One row, Ā = [[1, 0], [½, ½]], values 4 and 8: outputs 4 and 6.", by_hand),
        Probe("A grid of 2 × 3.", lambda: grid(2, 3)),
    ),
    variants=(
        Variant(
            "no transpose",
            answers.mixed_untransposed,
            lambda run: f"{hand(run)}.",
            """Still the bug. Rows are mixed as they should be. From the right, V Ā takes a *column* of Ā as weights,
            and columns sum to nothing in particular; with a symmetric map nobody would notice.
            Try: which index of Ā belongs to the query?""",
        ),
        Variant(
            "the other map transposed",
            answers.mixed_row_transposed,
            lambda run: (
                f"A = [[½, ½], …] on 2 × 3 pixels: {show(run(*grid(2, 3))[0, 0])} at (0, 0), wanted "
                f"{show(answers.mixed(*grid(2, 3))[0, 0])}."
            ),
            """Columns are right now. But A stands on the left, where its rows are the weights already: it needs no
            transpose.
            Try: w = 1, and two rows.""",
        ),
        Variant(
            "rows only",
            answers.mixed_rows_only,
            lambda run: f"{hand(run)}.",
            """Rows are right; columns are not mixed at all.
            Try: h = 1.""",
        ),
    ),
    properties=(
        Property("means of equal values are those values", fact_ones, "Rows of Ā sum to one. Try: v = 1."),
        Property("it is (A ⊗ Ā) V", fact_product, "Y = A V Āᵀ. Try: one feature."),
    ),
    hints=(
        "Feed values that are all 1. In which direction are the outputs off?",
        "Y = A V Āᵀ: the einsum needs Ā_jj', query first, so 'jx' where 'xj' stands.",
    ),
    passed="""Equal values stay equal, and the result is (A ⊗ Ā) V.
    Next: for which maps Ā would the bug have shown nothing?""",
)
