"""Damped multi-dimensional moving average: every feature remembers its past through h fading averages.

Paper: Ma et al., "Mega: Moving Average Equipped Gated Attention", ICLR 2023 (arXiv 2209.10655), section 3.1.

    s_t = α⊙β x_t + φ⊙s_{t-1},   y_t = ηᵀ s_t / √h       φ = 1 − α⊙δ,  α and δ in (0, 1)^h, s_0 = 0          (1)
    y = K * x,                   K_τ = Σ_i η_i α_i β_i φ_i^τ / √h                                            (2)
    y_t = Σ_{τ≥0} K_τ x_{t−τ} + Σ_{τ≥0} K'_τ x_{t+τ}     both directions: lag 0 counts in both               (3)
    X' = SiLU(y + ω⊙x)                                   the authors' code; the paper has X' = y             (4)

for each of D features by itself. (1) is a loop over tokens. (2) is one convolution, by FFT in O(N log N), but K alone
takes D h N exponentials. `ema_chunked` needs D h C: a small convolution inside chunks of C tokens, and eq. (1) from
chunk to chunk. It is linear in N, exactly causal, and starts from any state.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from refattn.layers.relative_bias import toeplitz

CHUNK = 64  # tokens: shorter chunks hand on more states, longer ones multiply larger matrices


def wide(dtype):
    """Type to sum in: float32 for half precision, whose small increments get lost; else the type itself."""
    return torch.promote_types(dtype, torch.float32)


class Coefficients(NamedTuple):
    """What eq. (1) does with a token, each [D, h]: log φ; the gain α⊙β into the state; the readout η / √h out of it."""

    log_decay: torch.Tensor
    gain: torch.Tensor
    readout: torch.Tensor

    def powers(self, largest):
        """φ^τ for τ = 0 … largest, [D, h, largest + 1]."""
        lag = torch.arange(largest + 1, device=self.gain.device, dtype=self.gain.dtype)
        return (self.log_decay[..., None] * lag).exp()

    def kernel(self, powers):
        """K of eq. (2) from powers [D, h, T] of φ, [D, T]."""
        return ((self.gain * self.readout)[:, None] @ powers)[:, 0]


def coefficients(alpha_raw, delta_raw, beta, eta):
    """Eq. (1)'s coefficients from the parameters, each [D, h]: α = σ(alpha_raw), δ = σ(delta_raw)."""
    alpha, delta = alpha_raw.sigmoid(), delta_raw.sigmoid()
    # φ = 0 only where both sigmoids round to 1, and log 0 has no gradient; log1p keeps the digits of a φ near 1
    damped = (alpha * delta).clamp(max=1.0 - torch.finfo(alpha.dtype).eps)
    return Coefficients(torch.log1p(-damped), alpha * beta, eta / math.sqrt(eta.shape[-1]))


def ema_kernel(coeff, length):
    """K of eq. (2) for lags 0 … length − 1, [D, length]."""
    return coeff.kernel(coeff.powers(length - 1))


def ema_explicit(x, coeff, state=None):
    """Eq. (1) token by token: the sequential twin of everything below.

    Args: x [B, N, D]; coeff: `Coefficients`; state: s_0 [B, D, h], zero unless given.
    Returns: y [B, N, D] and s_N [B, D, h].
    """
    decay, ys = coeff.log_decay.exp(), []
    state = x.new_zeros(len(x), *decay.shape) if state is None else state
    for x_t in x.unbind(1):
        state = coeff.gain * x_t[..., None] + decay * state
        ys.append((coeff.readout * state).sum(-1))
    return torch.stack(ys, 1), state


def ema_fft(x, kernel, backward=None):
    """Eq. (2), or (3) with the backward kernel K', as the authors compute it: one product of spectra.

    Args: x [B, N, D]; kernel, backward: [D, T]; taps beyond N never act.
    Returns: [B, N, D].
    """
    tokens = x.shape[1]
    size = tokens + min(kernel.shape[-1], tokens) - 1  # shorter, and the end of the sequence would wrap to its start
    spectrum = torch.fft.rfft(kernel[:, :tokens], n=size)  # [D, size // 2 + 1]
    if backward is not None:  # reading ahead is the same kernel mirrored in time: the conjugate spectrum
        spectrum = spectrum + torch.fft.rfft(backward[:, :tokens], n=size).conj()
    return torch.fft.irfft(torch.fft.rfft(x.transpose(1, 2), n=size) * spectrum, n=size)[..., :tokens].transpose(1, 2)


def ema_chunked(x, coeff, backward=None, *, state=None, chunk=CHUNK):
    """Eq. (1), or (3) with backward coefficients, in linear time: matrix products over chunks of C tokens.

    Args: x [B, N, D]; coeff, backward: `Coefficients`; state: s_0 [B, D, h] of the forward direction; chunk: C.
    Returns: [B, N, D].
    """
    batch, tokens = x.shape[:2]
    chunk = min(chunk, tokens)
    x = F.pad(x, (0, 0, 0, -tokens % chunk)).unflatten(1, (-1, chunk))  # [B, n, C, D]: zeros feed nothing
    x = x.permute(3, 2, 0, 1).flatten(2)  # [D, C, B·n]: a batch of D products
    powers = coeff.powers(chunk)  # φ^0 … φ^C, [D, h, C + 1]
    taps = coeff.kernel(powers[..., :-1]).flip(-1)  # lags j − i = −(C − 1) … 0
    if backward is None:
        taps = F.pad(taps, (0, chunk - 1))  # nothing from later tokens
    else:
        later = backward.powers(chunk)
        ahead = backward.kernel(later[..., :-1])  # lags 0 … C − 1
        taps = torch.cat([taps[:, :-1], taps[:, -1:] + ahead[:, :1], ahead[:, 1:]], -1)
    y = toeplitz(taps, chunk, chunk) @ x  # [D, C, B·n], inside each chunk
    if x.shape[2] > batch or state is not None:
        # a chunk leaves Σ_t α β φ^{C−1−t} x_t, and token t of a later one reads what arrives times φ^{t+1}
        left = ((coeff.gain[..., None] * powers[..., :-1].flip(-1)) @ x).unflatten(2, (batch, -1))  # [D, h, B, n]
        arrives = before_each(left, coeff.log_decay * chunk, state)
        y = torch.baddbmm(y, (coeff.readout[..., None] * powers[..., 1:]).transpose(1, 2), arrives.flatten(2))
    if x.shape[2] > batch and backward is not None:
        left = ((backward.gain[..., None] * later[..., :-1]) @ x).unflatten(2, (batch, -1))
        arrives = before_each(left.flip(3), backward.log_decay * chunk).flip(3)
        read = (backward.readout[..., None] * later[..., 1:].flip(-1)).transpose(1, 2)
        y = torch.baddbmm(y, read, arrives.flatten(2))
    return y.unflatten(2, (batch, -1)).permute(2, 3, 1, 0).flatten(1, 2)[:, :tokens]


def before_each(left, log_decay, state=None):
    """What has arrived before each chunk: a_{k+1} = φ a_k + left_k from a_0 = `state`, in log₂ n doubling steps.

    Args: left [D, h, B, n], what each of n chunks adds; log_decay [D, h], over a whole chunk; state [B, D, h].
    Returns: [D, h, B, n].
    """
    first = torch.zeros_like(left[..., :1]) if state is None else state.permute(1, 2, 0)[..., None].to(left)
    arrives, reach = torch.cat([first, left[..., :-1]], -1), 1
    while reach < left.shape[-1]:  # each entry holds the sum over the last `reach` chunks, and then twice as many
        fade = (log_decay * reach).exp()[..., None, None]
        arrives = torch.cat([arrives[..., :reach], arrives[..., reach:] + fade * arrives[..., :-reach]], -1)
        reach *= 2
    return arrives


def ema_state(x, coeff, state=None):
    """s_N of eq. (1) after x [B, N, D], from s_0 = `state` [B, D, h]: one sum, no loop."""
    powers = coeff.powers(x.shape[1])  # [D, h, N + 1]
    added = torch.einsum("bnd,dhn->bdh", x, coeff.gain[..., None] * powers[..., :-1].flip(-1))
    return added if state is None else added + powers[..., -1] * state


class DampedEMA(nn.Module):
    """Eq. (4) on [B, N, D].

    Args:
        width: D.  ema_dim: h.  bidirectional: eq. (3), with parameters of its own for each direction.
        truncation: T, the authors' option: K is cut to its first T taps, and the convolution goes by FFT. A step has
            the whole past, so beyond T tokens it no longer equals the parallel form.

    Raises: ValueError for h or T below 1.
    """

    def __init__(self, width, ema_dim=16, *, bidirectional=False, truncation=None):
        super().__init__()
        if ema_dim < 1:
            raise ValueError(f"ema_dim={ema_dim}: wanted at least one dimension")
        if truncation is not None and truncation < 1:
            raise ValueError(f"truncation={truncation}: wanted at least one tap, or None for all")
        self.width, self.bidirectional, self.truncation = width, bidirectional, truncation
        shape = (2 * width if bidirectional else width, ema_dim)
        sign = 1.0 - 2.0 * (torch.arange(ema_dim) % 2)  # +1, −1, +1, …: at first the averages cancel one another
        self.alpha_raw, self.delta_raw = (nn.Parameter(torch.randn(shape) * 0.2) for _ in range(2))
        self.beta = nn.Parameter(sign + torch.randn(shape) * 0.02)
        self.eta = nn.Parameter(torch.randn(shape))
        self.omega = nn.Parameter(torch.randn(width))

    def coefficients(self):
        """`Coefficients` of each direction: one, or two (forward, backward)."""
        parameters = (self.alpha_raw, self.delta_raw, self.beta, self.eta)
        whole = coefficients(*(p.to(wide(p.dtype)) for p in parameters))
        return [Coefficients(*part) for part in zip(*(c.split(self.width) for c in whole), strict=True)]

    def kernels(self, length):
        """K of each direction, cut where the layer cuts it, a list of [D, ≤ length]."""
        taps = length if self.truncation is None else min(length, self.truncation)
        return [ema_kernel(coeff, taps) for coeff in self.coefficients()]

    def average(self, x, key_padding_mask=None):
        """y of eq. (1) or (3), [B, N, D], in float32 for half-precision input; a padded token feeds nothing."""
        if key_padding_mask is not None:
            x = x.masked_fill(key_padding_mask[..., None], 0.0)
        x = x.to(wide(x.dtype))
        if self.truncation is not None and self.truncation < x.shape[1]:
            return ema_fft(x, *self.kernels(x.shape[1]))
        return ema_chunked(x, *self.coefficients())

    def forward(self, x, key_padding_mask=None):
        """X' [B, N, D]."""
        return F.silu(self.average(x, key_padding_mask) + self.omega * x).to(x.dtype)

    def init_state(self, batch_size):
        """s_0 = 0, [B, D, h]. Raises: ValueError in both directions: the future has no state."""
        if self.bidirectional:
            raise ValueError("init_state needs bidirectional=False: an average over later tokens is no recurrence")
        return self.eta.new_zeros(batch_size, *self.eta.shape, dtype=wide(self.eta.dtype))

    def step(self, x_t, state):
        """Eqs. (1) and (4) for one token [B, D]: X' [B, D] and the new state; O(D h), whatever came before."""
        y, state = ema_explicit(x_t[:, None].to(state.dtype), self.coefficients()[0], state)
        return F.silu(y[:, 0] + self.omega * x_t).to(x_t.dtype), state
