"""The residual connection around a sub-layer, and where its normalisation stands.

post:  x ← LN(x + drop(f(x)))         Vaswani et al. 2017
pre:   x ← x + drop(f(LN(x)))         the residual stream stays un-normalised; one LN closes the stack
"""

from torch import nn


class Residual(nn.Module):
    """One residual connection with its LayerNorm: `y, carry = r.after(x, f(r.before(x)), carry)`.

    A connection that looks back (the momentum connection) overrides `add`: its carry runs through the depth of a stack,
    one per kind of sub-layer, and begins anew for every token in the step form. The plain one hands on None.

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

    def add(self, x, branch, carry):
        """Stream and branch joined, and what the same connection of the next layer wants to know."""
        return x + branch, None

    def after(self, x, branch, carry=None):
        """The stream after the branch has been added, and the connection's own carry."""
        x, carry = self.add(x, self.dropout(branch), carry)
        return (x if self.is_pre else self.norm(x)), carry

    def around(self, x, branch):
        """The stream after a branch that is given as a function, where nobody wants the carry."""
        return self.after(x, branch(self.before(x)))[0]
