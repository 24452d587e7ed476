"""One embedding table for source, target and output, with positions that count real tokens only (as in fairseq).

    x_t = √D E[token_t] + PE(p_t)        p_t = pad + (real tokens so far, this one included)        logits = x Eᵀ    (1)
    PE(p) = [sin(p ω_0), sin(p ω_1), …, cos(p ω_0), cos(p ω_1), …]        ω_k = 10000^(−k / (D/2 − 1))            (2)

Padding has no position, and no vector at first; later its row of E moves as a row of the output does.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def half_and_half(positions, width):
    """Eq. (2): first all sines, then all cosines, float64 [positions, width], for p = 0 … (width even, at least 4).

    Raises: ValueError for another width.
    """
    if width < 4 or width % 2:
        raise ValueError(f"width={width}: wanted an even number from 4 on")
    half = width // 2
    rate = torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10000.0) / (half - 1)))
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)


class TiedEmbedding(nn.Module):
    """Eq. (1): token ids to vectors, and vectors to logits, with one table.

    Args: vocab_size, width: V and D.  pad: id of padding, see above.  max_len: most tokens.
    """

    def __init__(self, vocab_size, width, *, pad=0, max_len=256, dropout=0.0):
        super().__init__()
        if not 0 <= pad < vocab_size:
            raise ValueError(f"pad={pad}: wanted an id from 0 to {vocab_size - 1}")
        self.pad, self.max_len = pad, max_len
        self.weight = nn.Parameter(torch.randn(vocab_size, width) * width**-0.5)
        with torch.no_grad():
            self.weight[pad] = 0.0
        table = half_and_half(max_len + pad + 1, width)
        table[: pad + 1] = 0.0  # row pad + 1 is the first position's, as the authors count
        self.register_buffer("positions", table.to(self.weight.dtype), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def places(self, tokens, start=0):
        """p of ids [B, N], rows of `positions`: real tokens counted from pad + 1 on, padding has row pad."""
        real = tokens != self.pad
        return (real.cumsum(1) + start) * real + self.pad

    def forward(self, tokens, start=0):
        """ids [B, N] to [B, N, D]; start: real tokens that came before, in every row.

        Raises: ValueError for what are no ids, or more than max_len tokens.
        """
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise ValueError(f"tokens {tokens.dtype} {tuple(tokens.shape)}: wanted integer ids [B, N]")
        length = start + tokens.shape[1]
        if length > self.max_len:
            raise ValueError(f"{length} tokens: the table of positions was built with max_len={self.max_len}")
        x = self.weight.shape[1] ** 0.5 * F.embedding(tokens, self.weight, padding_idx=self.pad)
        return self.dropout(x + self.positions[self.places(tokens, start)])

    def logits(self, x):
        """Vectors [..., D] to logits [..., V]: the same table again, no bias."""
        return F.linear(x, self.weight)
