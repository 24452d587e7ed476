"""Learnable residual coefficients: stream and branch of a residual connection are weighed by a learned number each.

Paper: Shen et al., "Sliced Recursive Transformer", ECCV 2022 (arXiv 2111.05297). Card: sret.

    u = c₁ x + c₂ f(LN(x))            two scalars a connection, both 1 at first                                 (1)
    P(x) = e₁ x + e₂ (W₂ GELU(W₁ LN(x) + b₁) + b₂)                  the same around a feed-forward net         (2)

A scalar for the whole stream: not LayerScale's gain a feature, and the stream has one, too.
"""

import torch
from torch import nn

from refattn.layers.feed_forward import FeedForward
from refattn.layers.residual import Residual


class CoefficientResidual(Residual):
    """Eq. (1); dropout acts inside the coefficient. Args: those of `Residual`."""

    def __init__(self, width, **placing):
        super().__init__(width, **placing)
        self.stream, self.branch = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))  # c₁ and c₂

    def add(self, x, branch, carry):
        """c₁ x + c₂ branch; nothing is carried to the next layer."""
        return self.stream * x + self.branch * branch, None


class NonLinearProjection(nn.Module):
    """Eq. (2): what stands between two passes through one block, and, with other weights, a block's second half.

    Args: width: D;  hidden: rows of W₁;  residual: makes the connection;  eps: of its LayerNorm.
    """

    def __init__(self, width, hidden, *, residual=CoefficientResidual, eps=1e-6):
        super().__init__()
        self.residual = residual(width, norm="pre", eps=eps)
        self.feed_forward = FeedForward(width, hidden)

    def forward(self, x):
        """[..., D] to [..., D]."""
        return self.residual.around(x, self.feed_forward)
