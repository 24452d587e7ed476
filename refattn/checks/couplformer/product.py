"""Lesson 12, build: the map that two small maps stand for."""

import torch

from refattn.attention.couplformer import kronecker
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.couplformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def by_hand():
    """Two rows, two columns: half and half among rows, all on the first column."""
    return rows([0.5, 0.5], [0.0, 1.0]), rows([1.0, 0.0], [0.25, 0.75])


def maps(h, w):
    """A and Ā of an h × w grid, no two rows alike."""
    return seeded(h, h).softmax(-1), seeded(w, w, seed=1).softmax(-1)


def first_row(run):
    reads = show(run(*by_hand())[0])
    return f"A's first row [0.5, 0.5], Ā's first row [1, 0]: token 0 must read [0.5, 0, 0.5, 0]; yours reads {reads}"


def fact_sums(run):
    sums = run(*maps(3, 4)).sum(-1)
    if not equal([sums], [torch.ones(12)]):
        return f"Rows of A and Ā sum to one, and rows of M must, too; yours sum to {show(sums)}."


def fact_package(run):
    A, A_bar = maps(3, 5)
    error = (run(A, A_bar) - kronecker(A, A_bar)).abs().max().item()
    if not error < 1e-5:
        return f"A grid of 3 × 5: you differ from refattn by {error:.2g}."


kronecker_map = Exercise(
    "couplformer.kronecker_map",
    answers.kronecker_map,
    returns="the map [h·w, h·w]",
    probes=(
        Probe("A = [[½, ½], [0, 1]], Ā = [[1, 0], [¼, ¾]]: row 0 of M is [0.5, 0, 0.5, 0].", by_hand),
        Probe("A grid of 2 × 3.", lambda: maps(2, 3)),
    ),
    variants=(
        Variant(
            "factors swapped",
            answers.kronecker_map_swapped,
            lambda run: f"{first_row(run)}.",
            """A Kronecker product, and rows sum to one. But it is the one for tokens that are read column by column:
            here n = i · w + j, so the column index changes fastest and belongs to the last factor.
            Try: which token is pixel (1, 0) of a 2 × 2 grid?""",
        ),
        Variant(
            "transposed",
            answers.kronecker_map_transposed,
            lambda run: f"{first_row(run)}.",
            """The right numbers in the right blocks, mirrored: keys stand where queries should. Rows are queries.
            Try: the sums of your rows.""",
        ),
        Variant(
            "a mean of the two",
            answers.kronecker_map_mean,
            lambda run: f"{first_row(run)}.",
            """Rows sum to one, too, but a key in the right row or the right column is enough to be heard. A product
            asks for both.
            Try: a key whose column weight is 0. What may its weight be?""",
        ),
    ),
    properties=(Property("rows sum to one", fact_sums, "A product of two distributions is one. Try: one row."),),
    numbers=(Property("it equals refattn", fact_package, "M_(ij)(i'j') = A_ii' Ā_jj'. Try: h = 1."),),
    hints=(
        "Four indices: i, j for the query, i', j' for the key. Where does each factor broadcast?",
        "A[:, None, :, None] * A_bar[None, :, None, :] has the axes [i, j, i', j']; then reshape.",
    ),
    passed="""A key is heard if its row is heard and its column is. Rows sum to one.
    Next: A has rank 2, Ā has rank 3. What is the rank of M?""",
)
