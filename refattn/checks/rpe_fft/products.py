"""Lesson 15, build: a circulant's first column, and the Toeplitz product by FFT."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.rpe_fft import answers
from refattn.layers.toeplitz import toeplitz_matrix


def five():
    """Offsets −2 … 2 of three places, each number telling its offset: 20 is −2, 21 is −1, …, 24 is 2."""
    return (rows([20, 21, 22, 23, 24])[0],)


def by_place(run):
    return f"c = [20, 21, 22, 23, 24], offsets -2 … 2: wanted [22, 21, 20, 0, 24, 23]; you return {show(run(*five()))}"


def table(n, width=1):
    """A table of 2N − 1 positive numbers, not symmetric, and X [N, e]."""
    return seeded(2 * n - 1, seed=5).exp(), seeded(n, width, seed=6)


def fact_column(run):
    c, x = table(6)
    found = answers.by_spectrum(run(c), x)[:6]
    wanted = toeplitz_matrix(c) @ x
    if not equal([found], [wanted]):
        return f"N = 6: the product with your column is {show(found[:, 0])}; with the matrix {show(wanted[:, 0])}."


circulant_column = Exercise(
    "rpe_fft.circulant_column",
    answers.circulant_column,
    returns="the first column g [2N]",
    probes=(
        Probe("c = [20, 21, 22, 23, 24], offsets -2 … 2: g is [22, 21, 20, 0, 24, 23].", five),
        Probe("Seven offsets of four places.", lambda: table(4)[:1]),
    ),
    variants=(
        Variant(
            "transposed",
            answers.circulant_column_transposed,
            lambda run: f"{by_place(run)}.",
            """Offset 0 comes first, and the zero stands between: right. But going down a column the query moves on
            while the key stays, so j - i falls. Yours is the transposed matrix, which a symmetric c cannot tell.
            Try: which offset has query 1 for key 0?""",
        ),
        Variant(
            "as stored",
            answers.circulant_column_stored,
            lambda run: f"{by_place(run)}.",
            """All numbers are there, and one zero. The first entry is what key 0 gives to query 0: offset 0, which
            stands in the middle of the table.
            Try: rows 0, 1, 2 of column 0 of the 3 × 3 matrix.""",
        ),
        Variant(
            "not turned",
            answers.circulant_column_flipped,
            lambda run: f"{by_place(run)}.",
            """The order is right: offsets fall down a column. But the column starts at offset 0, and what comes before
            it in your list belongs to the end: a circulant is a circle.
            Try: roll it by N - 1 places.""",
        ),
        Variant(
            "folded to N",
            answers.circulant_column_folded,
            lambda run: f"{by_place(run)}.",
            """In N places offsets -1 and N - 1 share an entry, so the last keys reach the first queries.
            Try: how many different offsets are there, and how many entries?""",
        ),
        Variant(
            "second half forwards",
            answers.circulant_column_halves,
            lambda run: f"{by_place(run)}.",
            """The first N entries are right. After the zero the circle comes back to offset 0 from above: the largest
            offset first.
            Try: entry 2N - 1 is one step before entry 0.""",
        ),
    ),
    properties=(
        Property("it multiplies as the matrix does", fact_column, "Y by spectra, cut to N rows. Try: N = 2, by hand."),
    ),
    hints=(
        "Write the 3 × 3 matrix C_ij = c_(j-i). Column 0 is the beginning of g. What must row 0 of the circulant be?",
        "torch.cat([c[:N].flip(0), zero, c[N:].flip(0)]).",
    ),
    passed="""Offsets fall down the column, a zero keeps the ends apart, and the product is the matrix's.
    Next: the zero may be any number. Why does nobody see it?""",
)


def two_places():
    """c = [5, 1, 3] for offsets −1, 0, 1, X = [1, 10]: Y = [1 + 30, 5 + 10]."""
    return rows([5, 1, 3])[0], rows([1], [10])


def by_hand(run):
    return f"c = [5, 1, 3], X = [1, 10]: wanted [31, 15]; you return {show(run(*two_places()).flatten())}"


def fact_ends(run):
    c, x = table(8)
    moved = x.clone()
    moved[-1] += 100.0
    past = torch.cat([c[:8], torch.zeros(7)])  # no offset above 0: nobody reads what comes later
    before, after = run(past, x)[0], run(past, moved)[0]
    if not torch.allclose(before, after, atol=1e-3):
        return f"c is 0 for later keys, and still X_7 + 100 moves Y_0 from {show(before)} to {show(after)}."


def fact_matrix(run):
    c, x = table(33, width=3)
    error = (run(c, x) - toeplitz_matrix(c) @ x).abs().max().item()
    if not error < 1e-3:
        return f"N = 33, three columns: you differ from refattn's matrix by {error:.2g}."


toeplitz_product = Exercise(
    "rpe_fft.toeplitz_product",
    answers.toeplitz_product,
    returns="Y [N, e]",
    probes=(
        Probe("c = [5, 1, 3], X = [1, 10]: Y_0 = 1 · 1 + 3 · 10, Y_1 = 5 · 1 + 1 · 10.", two_places),
        Probe("Five places, two columns.", lambda: table(5, width=2)),
    ),
    variants=(
        Variant(
            "transposed",
            answers.toeplitz_product_transposed,
            lambda run: f"{by_hand(run)}.",
            """Every sum is right for the transposed matrix: c_(i-j). A convolution reads backwards, a Toeplitz matrix
            with c_(j-i) forwards.
            Try: the weight of key 1 for query 0 is c_1, which is 3.""",
        ),
        Variant(
            "wraps around",
            answers.toeplitz_product_wrapped,
            lambda run: f"{by_hand(run)}.",
            """A transform of N places is a circle of N places: the ends of the sequence touch, and nothing stays
            causal. N zeros behind X make room.
            Try: rfft(x, n=2 * N, dim=0).""",
        ),
        Variant(
            "last N rows",
            answers.toeplitz_product_last,
            lambda run: f"{by_hand(run)}.",
            """The spectrum is right. Rows 0 … N - 1 of the result are those of the matrix; you return the rest.
            Try: print all 2N rows.""",
        ),
        Variant(
            "table as stored",
            answers.toeplitz_product_stored,
            lambda run: f"{by_hand(run)}.",
            """The lengths fit. But what is transformed has offset -(N-1) first.
            Try: your circulant_column.""",
        ),
    ),
    properties=(Property("the ends do not touch", fact_ends, "Room for 2N - 1 offsets. Try: N = 2."),),
    costs=(
        at_most(
            2 * 4 * 1024,
            lambda: table(1024, width=4),
            sizes="N = 1024, e = 4",
            says="""The matrix gives the right numbers, and has N² of them. Two transforms and a product of spectra
            are enough.
            Try: rfft of g and of X, their product, irfft, the first N rows.""",
            slack=6,
        ),
    ),
    numbers=(Property("it equals refattn's matrix", fact_matrix, "Every column alike. Try: one column."),),
    hints=(
        "A circulant matrix times a vector is a circular convolution with its first column. Which length has g?",
        "irfft(rfft(g)[:, None] * rfft(x, n=2N, dim=0), n=2N, dim=0)[:N].",
    ),
    passed="""The matrix's numbers without the matrix, and the ends do not touch.
    Next: float32 rounding here is about 10⁻⁷ of the *largest* row. When is that too much for the smallest?""",
)
