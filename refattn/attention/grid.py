"""Tokens of an image: a grid of rows × columns, read row by row, so that token n = i · columns + j is pixel (i, j)."""

import math


def check_grid(grid):
    """`grid` as a tuple (rows, columns), or None. Raises: ValueError unless it is None or two whole numbers above 0."""
    if grid is None:
        return None
    sizes = tuple(grid) if isinstance(grid, (tuple, list)) else ()
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"grid={grid!r}: wanted (rows, columns), two whole numbers above 0, or None")
    return sizes


def grid_of(tokens, grid=None):
    """Rows and columns of N tokens: those given, or of all factorisations the most nearly square one.

    Without a grid a square image is found by its root: 64 tokens are 8 × 8; others had better be named, since 24 tokens
    are taken for 4 × 6, never for 6 × 4, and 7 for a single row.

    Raises: ValueError for a grid that does not hold N tokens.
    """
    if grid is None:
        rows = next(size for size in range(math.isqrt(tokens), 0, -1) if tokens % size == 0)
        return rows, tokens // rows
    rows, columns = grid
    if rows * columns != tokens:
        raise ValueError(f"grid={grid} holds {rows * columns} tokens, and N={tokens} came: wanted rows × columns = N")
    return grid
