"""The position-wise feed-forward net: the same two-layer network on every token (Vaswani et al. 2017, section 3.3)."""

from functools import partial

from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "silu": F.silu}


class FeedForward(nn.Module):
    """W₂ act(W₁ x + b₁) + b₂ on `[..., D]`.

    Args:
        width: D.  hidden: width between, 4 D unless given.
        activation: one of `ACTIVATIONS`.  dropout: rate after the activation.

    Raises: ValueError for an unknown activation.
    """

    def __init__(self, width, hidden=None, *, activation="gelu", dropout=0.0):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: wanted one of {sorted(ACTIVATIONS)}")
        hidden = 4 * width if hidden is None else hidden
        self.activation = ACTIVATIONS[activation]
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        """`[..., D]` to `[..., D]`."""
        return self.down(self.dropout(self.activation(self.up(x))))
