"""Denoise a region map: which of two regions does each cell of a noisy image belong to? Only neighbours can tell.

label   0 0 1 1        cell   −2.1  0.7  3.9 −0.2        one cell alone is right with probability Φ(1 / σ)
"""

import math

import torch

from refattn.data.task import generated, positive

WAVES = 3


def regions(*, size=10, frequency=0.45, noise=2.0, batch_size=32, test_size=512, seed=0):
    """Cells `[B, size², 1]`, row by row: −1 or 1 by region, plus Gaussian noise. Targets `[B, size²]`: region 0 or 1.

    A region is where a smooth field lies above its median, so both are equally large: a sum of three waves in random
    directions. The task was made for what reads near cells most; it asks nothing else. An answer from the cell alone is
    right with probability Φ(1 / noise): 0.691 for 2.

    Args: size: edge of the image.  frequency: of the waves, cycles an image, as the scale of a normal distribution.
        noise: standard deviation σ.
    Returns: `Task` of real vectors with 2 classes.
    Raises: ValueError for numbers below 1, or a frequency or noise below 0.
    """
    positive(size=size, batch_size=batch_size, test_size=test_size)
    if frequency < 0 or noise < 0:
        raise ValueError(f"frequency={frequency}, noise={noise}: wanted numbers of 0 or more")
    place = torch.arange(size) / size
    rows, columns = place.repeat_interleave(size), place.repeat(size)  # of every cell, [N]

    def draw(count, generator):
        cycles = frequency * torch.randn(count, WAVES, 2, 1, generator=generator)
        phase = 2 * math.pi * torch.rand(count, WAVES, 1, generator=generator)
        waves = 2 * math.pi * (cycles[:, :, 0] * rows + cycles[:, :, 1] * columns) + phase  # [B, waves, N]
        field = waves.cos().sum(1)
        targets = (field > field.median(1, keepdim=True).values).long()
        cells = 2.0 * targets - 1.0 + noise * torch.randn(count, size**2, generator=generator)
        return {"inputs": cells[..., None], "targets": targets}

    facts = {"vocab_size": None, "num_classes": 2, "max_len": size**2}
    about = f"the region of each of {size} × {size} noisy cells"
    return generated("regions", draw, batch_size=batch_size, test_size=test_size, seed=seed, description=about, **facts)
