"""Two marked pixels: what a query should attend to where no product of rows and columns can.

· · · · · ·
· · 0 · · ·      marks in different rows and columns, never in the first of either; the answer is the mean of their
· · · · · ·      values, read at pixel (0, 0). A product of a row and a column distribution that weighs both marked
· · · · 1 ·      pixels also weighs the two pixels that complete their rectangle.
"""

import torch

CHANNELS = 2  # value and mark


def ghosts(size, grid, generator):
    """So many images as tokens [B, h·w, 2], each a value from N(0, 1) and a mark 0 or 1; targets [B] and marked [B, 2].

    Targets are means of two values: variance 1/2. Raises: ValueError for a grid with fewer than three rows or columns.
    """
    h, w = grid
    if min(grid) < 3:
        raise ValueError(f"grid={grid}: wanted at least 3 rows and 3 columns, for two marks outside the first")
    rows, columns = (1 + pairs(size, lines - 1, generator) for lines in grid)  # [B, 2], different
    marked = rows * w + columns
    values = torch.randn(size, h * w, generator=generator)
    marks = torch.zeros(size, h * w).scatter_(1, marked, 1.0)
    return torch.stack([values, marks], -1), values.gather(1, marked).mean(1), marked


def pairs(size, choices, generator):
    """Two different numbers below `choices`, each order equally likely: [size, 2]."""
    first = torch.randint(choices, (size,), generator=generator)
    step = torch.randint(1, choices, (size,), generator=generator)
    return torch.stack([first, (first + step) % choices], 1)
