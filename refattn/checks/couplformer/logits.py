"""Lesson 12, build: logits of rows and of columns."""

import torch

from refattn.checks.compare import equal, seeded, show
from refattn.checks.couplformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def by_hand():
    """Two rows, two columns, one feature: q = [[1, 2], [3, 4]], k = [[1, 0], [0, 1]]."""
    return torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])


def images(h, w, c):
    return seeded(h, w, c), seeded(h, w, c, seed=1)


def hand(run):
    R, C = run(*by_hand())
    wanted = "R = [[1, 2], [3, 4]], C = [[1, 3], [2, 4]]"
    return f"q = [[1, 2], [3, 4]], k the identity: wanted {wanted}; you return R = {show(R)}, C = {show(C)}"


def wide(run):
    R, C = run(*images(2, 3, 4))
    wanted = answers.logits(*images(2, 3, 4))
    due = f"R_00 = {show(wanted[0][0, 0])} and C_00 = {show(wanted[1][0, 0])}"
    return f"A grid of 2 × 3, c = 4: wanted {due}; you return {show(R[0, 0])} and {show(C[0, 0])}"


def fact_traces(run):
    q, k = images(3, 2, 4)
    S = torch.einsum("ije,yxe->ijyx", q, k)
    R, C = run(q, k)
    wanted = [torch.einsum("ijyj->iy", S) / 4**0.25, torch.einsum("ijix->jx", S) / 4**0.25]
    if not equal([R, C], wanted):
        return f"A grid of 3 × 2: R_01 is {show(R[0, 1])}, the partial trace of Q Kᵀ is {show(wanted[0][0, 1])}."


logits = Exercise(
    "couplformer.logits",
    answers.logits,
    returns="a pair: R [h, h] and C [w, w]",
    probes=(
        Probe("q = [[1, 2], [3, 4]], k the identity, c = 1: R = [[1, 2], [3, 4]], C = [[1, 3], [2, 4]].", by_hand),
        Probe("A grid of 2 × 3, c = 4.", lambda: images(2, 3, 4)),
    ),
    variants=(
        Variant(
            "columns without a swap",
            answers.logits_unswapped,
            lambda run: f"{wide(run)}.",
            """R is right. Reshaping [h, w, c] to [w, h·c] cuts the same run of numbers elsewhere: no row of the result
            is a column of the image. On a square grid it even has the right shape.
            Try: q = arange(6).reshape(2, 3, 1). What is q.reshape(3, 2)?""",
        ),
        Variant(
            "means first",
            answers.logits_means,
            lambda run: f"{hand(run)}.",
            """You compare the mean of a row with the mean of another. What is wanted compares pixels of the *same
            column* and adds that up: who stands above whom matters.
            Try: k with its columns exchanged. Which of the two changes?""",
        ),
        Variant(
            "scale of one map",
            answers.logits_root,
            lambda run: f"{wide(run)}.",
            """The sums are right. 1/√c is what a single map would take; here two maps multiply, and each takes half of
            the exponent.
            Try: c = 16: what should the factor be?""",
        ),
        Variant(
            "rows and columns exchanged",
            answers.logits_exchanged,
            lambda run: f"{hand(run)}.",
            """Both are right, in the other order. R compares rows, and has h × h entries.
            Try: a grid of 1 × 5. Which of the two has one entry?""",
        ),
    ),
    properties=(Property("they are partial traces of Q Kᵀ", fact_traces, "S_(ij)(i'j) summed over j. Try: w = 1."),),
    hints=(
        "A row of the image is one long vector of w·c numbers. What is a column?",
        "C: swap the grid's axes first, q.transpose(0, 1), and only then reshape to [w, h·c]. Both times c**-0.25.",
    ),
    passed="""Both are partial traces of Q Kᵀ, on grids that are not square.
    Next: entries of q and k have variance 1. What is the standard deviation of R on a grid 14 wide, with c = 4?""",
)
