"""Lesson 15, stretch: offsets on a grid, by a 2-D transform."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.rpe_fft import answers


def two_rows():
    """A 2 × 3 grid with a 1 in its corner; c tells the offset: 34 is (0, 0), tens are rows, ones are columns."""
    x = torch.zeros(2, 3)
    x[0, 0] = 1.0
    return rows([22, 23, 24, 25, 26], [32, 33, 34, 35, 36], [42, 43, 44, 45, 46]), x


def grid(h, w):
    return seeded(2 * h - 1, 2 * w - 1, seed=7).exp(), seeded(h, w, seed=8)


def by_hand(run):
    y = show(run(*two_rows()))
    return f"2 × 3, a 1 in the corner: wanted [[34, 33, 32], [24, 23, 22]]; you return {y}"


def fact_square(run):
    c, x = grid(3, 3)
    found, wanted = run(c, x), answers.grid_product(c, x)
    if not equal([found], [wanted]):
        return f"On a 3 × 3 grid Y begins {show(found[0])}; wanted {show(wanted[0])}."


def fact_numbers(run):
    """D₂ of the independent computation: C applied to each feature of the keys, on a 3 × 4 grid."""
    stored = golden("golden_rpe_fft")
    phi_k, D2, b = (stored[f"2d.{name}"] for name in ("phi_k", "D2", "b"))
    h, w = ((n + 1) // 2 for n in b.shape[1:])
    errors = [
        (run(b[head].exp(), phi_k[0, head, :, r].view(h, w)).flatten() - D2[0, head, :, r]).abs().max().item()
        for head in range(len(b))
        for r in range(phi_k.shape[-1])
    ]
    if not max(errors) < 1e-3:
        return f"D₂ of the independent computation on a 3 × 4 grid: you differ by {max(errors):.2g}."


grid_product = Exercise(
    "rpe_fft.grid_product",
    answers.grid_product,
    returns="Y [h, w]",
    probes=(
        Probe("A 2 × 3 grid, a 1 in the corner: Y is [[34, 33, 32], [24, 23, 22]], c by offset.", two_rows),
        Probe("A 3 × 4 grid.", lambda: grid(3, 4)),
    ),
    variants=(
        Variant(
            "transposed",
            answers.grid_product_transposed,
            lambda run: f"{by_hand(run)}.",
            """Both offsets have the wrong sign: i - j. A symmetric c would hide it.
            Try: flip both axes of c.""",
        ),
        Variant(
            "rows and columns swapped",
            answers.grid_product_swapped,
            lambda run: f"{by_hand(run)}.",
            """Right on squares, and only there: tokens are read as if w rows of h stood in memory.
            Try: token n is (n // w, n % w).""",
        ),
        Variant(
            "one offset",
            answers.grid_product_flat,
            lambda run: f"{by_hand(run)}.",
            """A single offset through all h w tokens: the end of a row is next to the start of the following one, far
            away in the picture.
            Try: which two tokens of a 2 × 3 grid have numbers that differ by 1, and no common row?""",
        ),
        Variant(
            "wraps around",
            answers.grid_product_wrapped,
            lambda run: f"{by_hand(run)}.",
            """The axes are right. In h × w places the picture's edges touch, above and below, left and right.
            Try: room for 2h × 2w.""",
        ),
    ),
    properties=(Property("squares are right too", fact_square, "Nothing differs there. Try: 2 × 2."),),
    costs=(
        at_most(
            4 * 32 * 48,
            lambda: grid(32, 48),
            sizes="h = 32, w = 48",
            says="""The matrix in raster order gives the right numbers, and has (h w)² of them.
            Try: rfft2 of the circulant and of x, irfft2 of their product.""",
            slack=4,
        ),
    ),
    numbers=(Property("it equals the independent computation", fact_numbers, "Raster order. Try: one feature."),),
    hints=(
        "Do along each axis what circulant_column does along one: flip, fill up, turn. The zeros make a cross.",
        "g = pad(c.flip(0, 1), (0, 1, 0, 1)).roll((1 - h, 1 - w), (0, 1)); then "
        "irfft2(rfft2(g) · rfft2(x, s=(2h, 2w)))[:h, :w].",
    ),
    passed="""Two offsets, no edge touches another, and grids need not be square.
    Next: where would a class token stand on this grid? (Nowhere: it has no offset.)""",
)
