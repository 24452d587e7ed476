"""Normalisations by name: what Mega's networks choose from besides LayerNorm.

scale: g x / √(mean(x²) + ε), one gain g for all features      rms: the same with a gain for each feature
batch: every feature over batch and time, by running moments in evaluation (padded tokens are counted, as in the
       authors' code)
"""

import torch
from torch import nn


class ScaleNorm(nn.Module):
    """g x / √(mean(x²) + ε) on [..., D], with a single gain."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(1)), eps

    def forward(self, x):
        return self.weight * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()


class SequenceBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [B, N, D], or of one token [B, D], features last."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2) if x.dim() == 3 else super().forward(x)


NORMS = {"layer": nn.LayerNorm, "scale": ScaleNorm, "rms": nn.RMSNorm, "batch": SequenceBatchNorm}


def make_norm(kind, width, eps=1e-5):
    """A normalisation of width D by its name in `NORMS`. Raises: ValueError for another name."""
    if kind not in NORMS:
        raise ValueError(f"norm_kind={kind!r}: wanted one of {sorted(NORMS)}")
    return NORMS[kind](width, eps=eps)
