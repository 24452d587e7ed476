"""Momentum on the residual connection: a layer's step also goes on in the direction of the layers before it.

Paper: Nguyen et al., "Momentum Transformer: Closing the Performance Gap Between Self-attention and Its Linearization",
MSML 2022 (arXiv 2208.00579). A plain residual x + a is a step of gradient descent along −a; heavy ball adds a velocity:

    v_l = β v_{l-1} − a_l        u_l = x_l − γ v_l        v_0 = 0                                            (1)
    u_l = x_l + γ Σ_{s ≤ l} β^{l−s} a_s                   the same, unrolled over the depth                  (2)

On a bowl of curvature λ, heavy ball with step γ is critically damped at β = (1 − √(γλ))². The adaptive connection
estimates λ by the change of the gradient over the change of place, and since x moved by −γ v, γ cancels:

    β_l = clip((1 − √(‖a_l − a_{l-1}‖ / ‖v_{l-1}‖))², 0, 1 − δ)      norms over features: one β per token     (3)

v runs through the depth beside x and is never normalised. No parameters; O(N D) more numbers a layer.
"""

import math
from typing import NamedTuple

import torch

from refattn.layers.residual import Residual

TINY = 1e-12  # norms below count as zero; its square is still a normal number in float32


def guarded_norm(x, dim):
    """Euclidean norm over `dim` (kept), at least `TINY`: where it is smaller its gradient is zero, and never NaN."""
    return x.square().sum(dim, keepdim=True).clamp(min=TINY**2).sqrt()


def adaptive_beta(change, speed, delta):
    """Eq. (3) from ‖a_l − a_{l-1}‖ and ‖v_{l-1}‖, both positive; differentiable, the clip stops gradients."""
    return (1.0 - (change / speed).sqrt()).square().clamp(0.0, 1.0 - delta)


class MomentumResidual(Residual):
    """Eq. (1) with a constant β. Its carry is v_l [..., D].

    Args: those of `Residual`; beta: β in [0, 1];  gamma: γ > 0. β = 0 with γ = 1 is the plain residual.
    Raises: ValueError for a β or γ outside.
    """

    def __init__(self, width, *, beta=0.9, gamma=1.0, **placing):
        super().__init__(width, **placing)
        check_momentum(beta, gamma)
        self.beta, self.gamma = beta, gamma

    def add(self, x, branch, carry):
        """u_l and v_l from x_l, a_l = `branch` and v_{l-1} = `carry` (None before the first layer)."""
        velocity = -branch if carry is None else self.beta * carry - branch
        return x - self.gamma * velocity, velocity


class Moving(NamedTuple):
    """Carry of the adaptive connection: v_l and a_l [..., D], and the β_l [..., 1] that was used."""

    velocity: torch.Tensor
    branch: torch.Tensor
    beta: torch.Tensor


class AdaptiveMomentumResidual(Residual):
    """Eq. (1) with the β of eq. (3), one per token and layer; gradients flow through it. Its carry is `Moving`.

    A token whose velocity is zero gets √D for ‖v‖: whatever β is then, it multiplies zero, but it must be finite. The
    authors do so only if no token moves at all. As with them, ones stand for the branch before the first layer's.

    Args: those of `Residual`; gamma: γ > 0;  delta: δ in (0, 1), how far β stays below 1.
    Raises: ValueError for a γ or δ outside.
    """

    def __init__(self, width, *, gamma=1.0, delta=1e-4, **placing):
        super().__init__(width, **placing)
        check_momentum(0.0, gamma, delta)
        self.gamma, self.delta = gamma, delta

    def add(self, x, branch, carry):
        """u_l and what the next layer needs, from x_l, a_l = `branch` and the carry (None before the first layer)."""
        if carry is None:
            carry = Moving(torch.zeros_like(branch), torch.ones_like(branch), None)
        change, speed = guarded_norm(branch - carry.branch, -1), guarded_norm(carry.velocity, -1)
        speed = torch.where(speed > TINY, speed, math.sqrt(branch.shape[-1]))
        beta = adaptive_beta(change, speed, self.delta)  # [..., 1]
        velocity = beta * carry.velocity - branch
        return x - self.gamma * velocity, Moving(velocity, branch, beta)


def check_momentum(beta, gamma, delta=0.5):
    """Raise a ValueError unless 0 ≤ β ≤ 1, γ > 0 and 0 < δ < 1."""
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta={beta}: wanted a number from 0 to 1")
    if not gamma > 0.0:
        raise ValueError(f"gamma={gamma}: wanted a positive step size")
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta={delta}: wanted a number between 0 and 1")
