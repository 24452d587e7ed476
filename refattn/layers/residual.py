"""The residual connection around a sub-layer, and where its normalisation stands.

post:  x ← LN(x + drop(f(x)))         Vaswani et al. 2017
pre:   x ← x + drop(f(LN(x)))         the residual stream stays un-normalised; one LN closes the stack
"""

from torch import nn


class Residual(nn.Module):
    """One residual connection with its LayerNorm; used as `y = r.after(x, f(r.before(x)))`.

    Args: width: D;  norm: "post" or "pre";  dropout: rate on the branch;  eps: of the LayerNorm.
    Raises: ValueError for another `norm`.
    """

    def __init__(self, width, *, norm="pre", dropout=0.0, eps=1e-5):
        super().__init__()
        if norm not in ("post", "pre"):
            raise ValueError(f"norm={norm!r}: wanted 'post' or 'pre'")
        self.is_pre = norm == "pre"
        self.norm, self.dropout = nn.LayerNorm(width, eps=eps), nn.Dropout(dropout)

    def before(self, x):
        """What the branch reads."""
        return self.norm(x) if self.is_pre else x

    def after(self, x, branch):
        """The stream after the branch has been added."""
        x = x + self.dropout(branch)
        return x if self.is_pre else self.norm(x)
