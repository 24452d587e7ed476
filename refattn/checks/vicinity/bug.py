"""Lesson 17, find the bug: where keys stand after a spatial reduction."""

import math

import torch

from refattn.attention.vicinity import angles
from refattn.checks.compare import equal, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.vicinity import answers


def degrees(run, *args):
    """Row and column angles as shares of π/2."""
    a, b = (show(torch.as_tensor(angle).double() / (math.pi / 2)) for angle in run(*args))
    return f"rows {a}, columns {b}"


def two_by_five(run):
    return (
        "4 × 5 tokens, r = 2: keys begin at rows 0, 0, 2, 2 of 4 and columns 0, 2, 0, 2 of 5, so in units of π/2 "
        f"rows must be [0, 0, 0.5, 0.5], columns [0, 0.4, 0, 0.4]; yours: {degrees(run, 4, 5, 2)}"
    )


def fact_queries(run):
    """A key and the query at the same place have the same angles."""
    for rows, columns, r in ((6, 9, 3), (7, 5, 2), (5, 8, 4)):
        a, b = angles((rows, columns), dtype=torch.float64)
        where = [y * r * columns + x * r for y in range(rows // r) for x in range(columns // r)]
        a_k, b_k = run(rows, columns, r)
        if not equal([a_k, b_k], [a[where], b[where]]):
            return f"{rows} × {columns} tokens, r = {r}: a key's angles are not those of the query where it begins."


key_angles = Exercise(
    "vicinity.key_angles",
    answers.key_angles,
    returns="row angles and column angles of the keys, [M] each",
    probes=(
        Probe("4 × 5 tokens, r = 2: 2 × 2 keys, a column is left over.", lambda: (4, 5, 2)),
        Probe("5 × 6 tokens, r = 2.", lambda: (5, 6, 2)),
        Probe("4 × 6 tokens, r = 2: nothing is left over.", lambda: (4, 6, 2)),
    ),
    variants=(
        Variant(
            "fractional keys",
            answers.key_angles_fractional,
            lambda run: f"{two_by_five(run)}.",
            """As it came: 2 keys stand in a row, and the code believes in 2.5. Key 2 begins the second row, and is
            taken for the third of the first.
            Try: by how many keys a row, a whole number, must an index be divided?""",
        ),
        Variant(
            "stretched",
            answers.key_angles_stretched,
            lambda run: f"{two_by_five(run)}.",
            """Rows and columns of keys are counted right. But they are stretched over the whole image: a key no longer
            has the angle of the query at its place, and R between the two is not the largest.
            Try: key (y, x) begins at row r y of H.""",
        ),
        Variant(
            "squeezed",
            answers.key_angles_unscaled,
            lambda run: f"{two_by_five(run)}.",
            """Counted right, but in keys, and divided by tokens: all keys crowd in the upper left of the image.
            Try: key (y, x) begins at token row r y.""",
        ),
    ),
    properties=(Property("a key has the angles of its own place", fact_queries, "r y of H, r x of W. Try: r = 1."),),
    hints=(
        "How many keys stand in a row, if 5 columns are read 2 at a time and the rest is dropped?",
        "across = columns // r; y = key // across, x = key % across; angles π/2 · r y / rows and π/2 · r x / columns.",
    ),
    passed="""Queries and keys measure on one scale, and what is left over at the border disturbs nobody.
    Next: refattn refuses grids that r does not divide. Which tokens does nobody attend to, if one does not?""",
)
