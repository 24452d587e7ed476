"""Biases that depend on the distance of two positions alone: one number a lag, spread along the diagonals of a matrix.

Ma et al., "Mega", ICLR 2023 (arXiv 2209.10655), section 3.3 and appendix B.

    simple   b_ij = rel[M − 1 + j − i]        a learned number for every lag up to M − 1                     (1)
    rotary   b_ij = ⟨R_i a, R_j b⟩            R_m turns feature k and its partner by m θ_k,  θ_k = 10000^{−2k/z}   (2)

Turning both vectors turns neither against the other: (2) is ⟨R_{i−j} a, b⟩, a number a lag as well, for any length.
"""

import torch
from torch import nn


def toeplitz(table, rows, columns):
    """Numbers by lag as a matrix with constant diagonals: entry (i, j) is the one of lag j − i.

    Args: table [..., rows + columns − 1], lags −(rows − 1) … columns − 1.
    Returns: [..., rows, columns].
    """
    return table.unfold(-1, columns, 1).flip(-2)  # row i reads the table from place rows − 1 − i on


def rotary_lags(a, b, first, last):
    """Eq. (2) for lags j − i = first … last, [last − first + 1]; a, b [z] with z even."""
    half = a.shape[0] // 2
    theta = 10000.0 ** (-torch.arange(half, device=a.device, dtype=torch.float64) / half)
    turn = -torch.arange(first, last + 1, device=a.device, dtype=torch.float64)[:, None] * theta  # i − j times θ_k
    cos, sin = turn.cos().to(a.dtype), turn.sin().to(a.dtype)  # [lags, z/2]
    a1, a2, b1, b2 = a[:half], a[half:], b[:half], b[half:]
    return cos @ (a1 * b1 + a2 * b2) + sin @ (a1 * b2 - a2 * b1)


def rotary_bias_explicit(a, b, rows, columns):
    """Eq. (2) as it stands, [rows, columns]: every position turned by itself; the twin of `rotary_lags`."""
    half = a.shape[0] // 2
    theta = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(max(rows, columns), dtype=torch.float64)[:, None] * theta
    cos, sin = angle.cos().to(a.dtype), angle.sin().to(a.dtype)  # [positions, z/2]

    def turned(u):
        return torch.cat([u[:half] * cos - u[half:] * sin, u[half:] * cos + u[:half] * sin], -1)

    return turned(a)[:rows] @ turned(b)[:columns].T


class SimpleBias(nn.Module):
    """Eq. (1). Args: max_len: M, the longest sequence. Raises: ValueError beyond it."""

    def __init__(self, max_len):
        super().__init__()
        self.max_len = max_len
        self.rel = nn.Parameter(torch.randn(2 * max_len - 1) * 0.02)

    def lags(self, first, last):
        """The bias of lags j − i = first … last."""
        if max(-first, last) >= self.max_len:
            raise ValueError(
                f"sequence of {max(-first, last) + 1} tokens: the position bias was built with max_len={self.max_len}"
            )
        return self.rel[self.max_len - 1 + first : self.max_len + last]

    def forward(self, rows, columns):
        """The matrix b, [rows, columns]."""
        return toeplitz(self.lags(1 - rows, columns - 1), rows, columns)


class RotaryBias(nn.Module):
    """Eq. (2). Args: width: z. Raises: ValueError for an odd z, whose last feature has no partner."""

    def __init__(self, width):
        super().__init__()
        if width % 2:
            raise ValueError(f"head_dim={width} with position_bias='rotary': wanted an even width")
        self.rot_a, self.rot_b = (nn.Parameter(torch.randn(width) * 0.02) for _ in range(2))

    def lags(self, first, last):
        """The bias of lags j − i = first … last."""
        return rotary_lags(self.rot_a, self.rot_b, first, last)

    forward = SimpleBias.forward
