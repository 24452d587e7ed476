"""Lesson 12, stretch: the Kronecker product that is nearest to a given map."""

import torch

from refattn.checks.compare import equal, seeded, show
from refattn.checks.couplformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant

GHOSTS = torch.zeros(4, 4)
GHOSTS[:, 0], GHOSTS[:, 3] = 0.6, 0.4  # every pixel of a 2 × 2 grid reads two corners, (0, 0) more than (1, 1)


def two_corners():
    return GHOSTS.clone(), (2, 2)


def map_of(h, w):
    return (2 * seeded(h * w, h * w)).softmax(-1), (h, w)


def product(h, w):
    """A map that is a product."""
    return answers.kronecker_map(seeded(h, h).softmax(-1), seeded(w, w, seed=1).softmax(-1)), (h, w)


def corners(run):
    y = show(run(*two_corners())[0])
    return f"Every pixel of 2 × 2 reads [0.6, 0, 0, 0.4]: the nearest product reads [0.6, 0, 0, 0]; you return {y}"


def fact_exact(run):
    M, grid = product(2, 3)
    error = (run(M, grid) - M).abs().max().item()
    if not error < 1e-4:
        return f"A map of 2 × 3 pixels that is a Kronecker product must come back; yours is off by {error:.2g}."


def fact_error(run):
    M, grid = map_of(3, 4)
    found = (run(M, grid) - M).norm().item()
    rest = torch.linalg.svdvals(answers.rearranged(M, grid))[1:].norm().item()
    if not abs(found - rest) < 1e-4:
        return f"A map of 3 × 4 pixels: the error must be √(σ₂² + σ₃² + …) = {rest:.4g}; yours is {found:.4g}."


def fact_shape(run):
    M, grid = map_of(2, 5)
    if not equal([run(M, grid)], [answers.nearest_product(M, grid)]):
        return f"A map of 2 × 5 pixels: entry (0, 0) is {show(run(M, grid)[0, 0])}."


nearest_product = Exercise(
    "couplformer.nearest_product",
    answers.nearest_product,
    returns="the nearest Kronecker product [N, N]",
    probes=(
        Probe("Every pixel of 2 × 2 reads [0.6, 0, 0, 0.4]: the nearest product reads [0.6, 0, 0, 0].", two_corners),
        Probe("A map of 2 × 3 pixels.", lambda: map_of(2, 3)),
    ),
    variants=(
        Variant(
            "low rank",
            answers.nearest_product_low_rank,
            lambda run: f"{corners(run)}.",
            """This is the nearest matrix of rank one, the best that Linformer could do. A product of two maps may have
            full rank; what it lacks is another kind of freedom. Rearrange first, so that (i, i') is a row.
            Try: the identity. Is it a Kronecker product? What is its rank?""",
        ),
        Variant(
            "margins",
            answers.nearest_product_margins,
            lambda run: f"{corners(run)}.",
            """The product of the two marginal maps: it has the right rows and columns, and is not the nearest. All four
            corners get weight, the ghosts with them.
            Try: the error of both, side by side.""",
        ),
        Variant(
            "not rearranged",
            answers.nearest_product_unpermuted,
            lambda run: (
                f"A map of 2 × 3 pixels: entry (0, 0) must be {show(answers.nearest_product(*map_of(2, 3))[0, 0])}; "
                f"you return {show(run(*map_of(2, 3))[0, 0])}."
            ),
            """The sizes are right, the order is not: M has its axes as i, j, i', j', and (i, i') must come together.
            Try: reshape(h, w, h, w), then permute(0, 2, 1, 3).""",
        ),
    ),
    properties=(
        Property("a product comes back exactly", fact_exact, "σ₂ is 0 for it. Try: print the singular values."),
        Property("the error is what the other singular values leave", fact_error, "Keep one of them. Try: 2 × 2."),
        Property("any grid will do", fact_shape, "h² rows, w² columns. Try: 1 × 5."),
    ),
    hints=(
        "An outer product of vec(A) and vec(Ā) has rank one. How must M be rearranged to be one?",
        "M.reshape(h, w, h, w).permute(0, 2, 1, 3).reshape(h*h, w*w); SVD; rank one; and all the way back.",
    ),
    passed="""Products come back, and the error is √(σ₂² + σ₃² + …).
    Next: rows of the nearest product need not sum to one. What would you do about it before you use it?""",
)
