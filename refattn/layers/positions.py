"""Positions: what tells a network the order of its tokens, added to the embeddings.

`sinusoidal`: Vaswani et al. 2017, section 3.5:  p(t, 2i) = sin(t / 10000^{2i/D}),  p(t, 2i+1) = cos(t / 10000^{2i/D}).
"""

import torch
from torch import nn


def sinusoidal(length, width, *, start=0, device=None, dtype=torch.float32):
    """Sine and cosine interleaved, `[length, width]`, for positions start … start + length − 1.

    Raises: ValueError for a width that is not positive.
    """
    if width < 1:
        raise ValueError(f"width={width}: wanted a positive number of features")
    time = torch.arange(start, start + length, device=device, dtype=torch.float64)
    pair = torch.arange(0, width, 2, device=device, dtype=torch.float64)
    angle = time[:, None] / 10000.0 ** (pair / width)  # [length, ⌈width/2⌉]
    waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # sin, cos, sin, cos, …
    return waves[:, :width].to(dtype)


class Positions(nn.Module):
    """Adds positions to embeddings `[B, N, D]`.

    Args:
        kind: "sinusoidal", "learned" (a table of max_len rows), or "none" (the mechanism brings or needs none).
        width: D.  max_len: longest sequence of a learned table.

    Raises: ValueError for another kind, or (learned) for a sequence beyond max_len.
    """

    def __init__(self, kind, width, max_len):
        super().__init__()
        if kind not in ("sinusoidal", "learned", "none"):
            raise ValueError(f"positions={kind!r}: wanted 'sinusoidal', 'learned' or 'none'")
        self.kind, self.max_len = kind, max_len
        self.table = nn.Parameter(torch.randn(max_len, width) * 0.02) if kind == "learned" else None

    def forward(self, x, start=0):
        """`x` plus the positions from `start` on."""
        length = x.shape[-2]
        if self.kind == "none":
            return x
        if self.kind == "sinusoidal":
            return x + sinusoidal(length, x.shape[-1], start=start, device=x.device, dtype=x.dtype)
        if start + length > self.max_len:
            raise ValueError(
                f"sequence of {start + length} tokens: learned positions were built with max_len={self.max_len}"
            )
        return x + self.table[start : start + length]
