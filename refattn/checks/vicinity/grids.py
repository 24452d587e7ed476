"""Lesson 17, build: factors of the re-weighting, and of a sharper one. Any F with the right F Fᵀ is right."""

import torch

from refattn.attention.vicinity import angles, reweighting_matrix
from refattn.checks.compare import as_tensors, equal, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.vicinity import answers


def product_with_itself(attempt):
    """The function that returns R = F Fᵀ for the F of the attempt: which of the many F it is does not matter."""

    def run(*args):
        F = attempt(*args)
        if F is None or F is ...:
            return F
        (F,) = as_tensors(F)
        return F @ F.transpose(-1, -2)

    return run


def first_row(run, *args):
    """R between token 0 and all others."""
    return show(run(*args)[0])


def one_by_three(run):
    return (
        f"A single row of 3 tokens: R between token 0 and all must be [2, 1.87, 1.5]; yours is {first_row(run, 1, 3)}"
    )


def two_by_three(run):
    return (
        f"2 × 3 tokens: R between token 0 and all must be [2, 1.87, 1.5, 1.71, 1.57, 1.21]; yours is "
        f"{first_row(run, 2, 3)}"
    )


def fact_sign(run):
    least = run(4, 9).min()
    if not least > 0:
        return f"4 × 9 tokens: your least R is {show(least)}; no weight may be negative, nor a row's sum zero."


def fact_package(run):
    error = (run(5, 7).double() - reweighting_matrix((5, 7), dtype=torch.float64)).abs().max().item()
    if not error < 1e-5:
        return f"5 × 7 tokens: you differ from refattn by {error:.2g}."


factors = Exercise(
    "vicinity.factors",
    answers.factors,
    returns="factors F [N, 4], a row for each token",
    adapt=product_with_itself,
    probes=(
        Probe("One row of 3 tokens; compared is F Fᵀ.", lambda: (1, 3)),
        Probe("2 × 3 tokens, row by row; compared is F Fᵀ.", lambda: (2, 3)),
        Probe("4 × 3 tokens, row by row; compared is F Fᵀ.", lambda: (4, 3)),
    ),
    variants=(
        Variant(
            "H and W swapped",
            answers.factors_swapped,
            lambda run: f"{two_by_three(run)}.",
            """On every square grid this is right, so squares prove nothing. Rows are counted up to H and divided by W.
            Try: y in units of the height, x in units of the width; then test on 1 × 3.""",
        ),
        Variant(
            "column by column",
            answers.factors_column_by_column,
            lambda run: f"{two_by_three(run)}.",
            """Angles are right, and stand at other tokens. Token i of an image that is read row by row is at row
            i // W, column i % W.
            Try: print row and column of all six tokens of 2 × 3.""",
        ),
        Variant(
            "up to H − 1",
            answers.factors_to_the_end,
            lambda run: f"{one_by_three(run)}.",
            """Now the last token's angle is π/2, and its share of R with the first is cos(π/2) = 0: for the corners
            nothing is left at all, and their weight is zero.
            Try: divide by H and by W.""",
        ),
        Variant(
            "twice the angle",
            answers.factors_full_turn,
            lambda run: f"{one_by_three(run)}.",
            """π, where π/2 is wanted: beyond half of the image the cosine turns negative.
            Try: the largest angle that two tokens can have between them.""",
        ),
        Variant(
            "the product form",
            answers.factors_product,
            lambda run: f"{one_by_three(run)}.",
            """A right factorisation, of cos Δa · cos Δb. The sum of both cosines is asked.
            Try: four columns, two for each axis, side by side.""",
        ),
    ),
    properties=(Property("no weight is negative", fact_sign, "Angles stay below π/2. Try: the far corner."),),
    numbers=(Property("it equals refattn", fact_package, "cos Δa + cos Δb. Try: 2 × 2."),),
    hints=(
        "cos(a − b) = cos a cos b + sin a sin b. Which two numbers of a token does one axis need?",
        "y = i // columns, x = i % columns; a = π/2 · y / rows, b = π/2 · x / columns; F: cos a, sin a, cos b, sin b",
    ),
    passed="""Four numbers a token give all N² weights, on any grid, and none is negative.
    Next: which rank can R have, at most? And why is it 3 on a single row?""",
)


def far(run):
    R = run(1, 4, 2)[0]
    return f"A single row of 4, p = 2: R with token 0 must be [2, 1.85, 1.5, 1.15]; yours is {show(R)}"


def itself(run):
    return show(run(1, 4, 2)[1, 1])


def fact_positive(run):
    R = run(4, 4, 5)
    if not R.min() > 0:
        return f"4 × 4 tokens, p = 5: your least R is {show(R.min())}."


def fact_power(run):
    a, b = angles((3, 5), dtype=torch.float64)
    wanted = (a[:, None] - a).cos() ** 4 + (b[:, None] - b).cos() ** 4
    if not equal([run(3, 5, 4)], [wanted]):
        return f"3 × 5 tokens, p = 4: you differ from the powers by {(run(3, 5, 4).double() - wanted).abs().max():.2g}."


sharper = Exercise(
    "vicinity.sharper",
    answers.sharper,
    returns="factors F [N, m]",
    adapt=product_with_itself,
    probes=(
        Probe(
            "A single row of 4 tokens, p = 2: cos² of the distances, and 1 for the row; compared is F Fᵀ.",
            lambda: (1, 4, 2),
        ),
        Probe("3 × 4 tokens, p = 3; compared is F Fᵀ.", lambda: (3, 4, 3)),
    ),
    variants=(
        Variant(
            "a harmonic",
            answers.sharper_harmonic,
            lambda run: f"{far(run)}.",
            """cos(p Δ) is steeper as well, and it turns negative: then weights are, and a row's sum may vanish.
            Try: cos Δ raised to p has another expansion.""",
        ),
        Variant(
            "powers of the factors",
            answers.sharper_entries,
            lambda run: f"A single row of 4, p = 2: R between token 1 and itself must be 2; yours is {itself(run)}.",
            """(cos a cos b)^p + (sin a sin b)^p is not (cos a cos b + sin a sin b)^p: the mixed terms are missing.
            Try: p = 2, multiplied out.""",
        ),
        Variant(
            "power of the sum",
            answers.sharper_whole,
            lambda run: f"{far(run)}.",
            """An exact factorisation, of (cos Δa + cos Δb)^p: a sharper kernel too, but each axis by itself is asked.
            Try: one axis first, then both side by side.""",
        ),
        Variant(
            "as broad as before",
            answers.sharper_unchanged,
            lambda run: f"{far(run)}.",
            """That is p = 1.
            Try: p = 2: (cos a cos b + sin a sin b)², multiplied out, has three terms.""",
        ),
    ),
    properties=(Property("no weight is negative", fact_positive, "A power of something positive. Try: p = 2."),),
    numbers=(Property("every power fits", fact_power, "The binomial theorem. Try: p = 4."),),
    hints=(
        "(u + w)^p has p + 1 terms. Split each into parts of token i and of token j; where does its coefficient go?",
        "Term t: √C(p, t) · cos(a)^(p−t) · sin(a)^t for either token. p + 1 columns an axis; both axes side by side.",
    ),
    passed="""Exact, positive, and as sharp as you like: p + 1 features an axis buy a kernel of width ~ 1/√p.
    Next: what does p = 8 cost beside p = 1, in features? In the lesson's demo, would you pay it?""",
)
