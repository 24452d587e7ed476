"""Lesson 11: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import math

import torch
from torch.nn import functional as F

from refattn.attention.mega import laplace


def kernel(alpha, delta, beta, eta, length):
    phi = 1 - alpha * delta  # [D, h]: what stays from one step to the next
    powers = phi[:, :, None] ** torch.arange(length)  # [D, h, T]
    return ((alpha * beta * eta)[:, :, None] * powers).sum(1) / math.sqrt(alpha.shape[1])  # [D, T]


def taps(gain, phi, length, root=True):
    """`kernel` from another gain or decay [D, h]."""
    powers = phi[:, :, None] ** torch.arange(length)
    return (gain[:, :, None] * powers).sum(1) / (math.sqrt(gain.shape[1]) if root else 1.0)


def kernel_no_root(alpha, delta, beta, eta, length):
    return taps(alpha * beta * eta, 1 - alpha * delta, length, root=False)


def kernel_swapped(alpha, delta, beta, eta, length):
    return taps(delta * beta * eta, 1 - alpha * delta, length)


def kernel_damped_wrongly(alpha, delta, beta, eta, length):
    return taps(alpha * beta * eta, (1 - alpha) * delta, length)


def kernel_undamped(alpha, delta, beta, eta, length):
    return taps(alpha * beta * eta, 1 - alpha, length)


def kernel_no_gain(alpha, delta, beta, eta, length):
    return taps(beta * eta, 1 - alpha * delta, length)


def convolve(x, K):
    n = 2 * len(x)  # room for the tail: shorter, and it would come out at the start
    spectrum = torch.fft.rfft(x.T, n) * torch.fft.rfft(K, n)  # [D, n / 2 + 1]
    return torch.fft.irfft(spectrum, n)[:, : len(x)].T  # [N, D]


def by_spectra(x, K, n, start=0, turn=lambda spectrum: spectrum):
    found = torch.fft.irfft(torch.fft.rfft(x.T, n) * turn(torch.fft.rfft(K, n)), n)
    return found[:, start : start + len(x)].T


def convolve_wrapped(x, K):
    return by_spectra(x, K, len(x))


def convolve_ahead(x, K):
    return by_spectra(x, K, 2 * len(x), turn=torch.conj)


def convolve_tail(x, K):
    return by_spectra(x, K, 2 * len(x), start=len(x))


def convolve_not_itself(x, K):
    return F.pad(convolve(x, K)[:-1], (0, 0, 1, 0))


def laplace_weights(q, k, bias, is_causal=False):
    seen = torch.ones(len(q), len(k), dtype=torch.bool)
    seen = seen.tril() if is_causal else seen
    scores = q @ k.T / seen.sum(-1, keepdim=True) + bias  # [N, M], by the keys that a query sees
    return laplace(scores) * seen


def shares(q, k, bias, is_causal, divide, fill=None):
    """`laplace_weights` with scores divided by `divide(seen)`; hidden ones filled before f, or weights zeroed after."""
    seen = torch.ones(len(q), len(k), dtype=torch.bool)
    seen = seen.tril() if is_causal else seen
    scores = q @ k.T / divide(seen) + bias
    return laplace(scores) * seen if fill is None else laplace(scores.masked_fill(~seen, fill))


def laplace_weights_by_length(q, k, bias, is_causal=False):
    return shares(q, k, bias, is_causal, lambda seen: seen.shape[1])


def laplace_weights_by_root(q, k, bias, is_causal=False):
    return shares(q, k, bias, is_causal, lambda seen: math.sqrt(q.shape[1]))


def laplace_weights_zero_scores(q, k, bias, is_causal=False):
    return shares(q, k, bias, is_causal, lambda seen: seen.sum(-1, keepdim=True), fill=0.0)


def laplace_weights_unmasked(q, k, bias, is_causal=False):
    return shares(q, k, bias, False, lambda seen: seen.shape[1])


def laplace_weights_bias_divided(q, k, bias, is_causal=False):
    seen = torch.ones(len(q), len(k), dtype=torch.bool)
    seen = seen.tril() if is_causal else seen
    return laplace((q @ k.T + bias) / seen.sum(-1, keepdim=True)) * seen


def laplace_weights_shared_out(q, k, bias, is_causal=False):
    A = laplace_weights(q, k, bias, is_causal)
    return A / A.sum(-1, keepdim=True)


def gated(R, X, X_prime, A, W):
    V = F.silu(X @ W["v"].T)  # [N, v], from X
    O = A @ V  # noqa: E741  [N, v]
    gamma, phi = F.silu(X_prime @ W["gamma"].T), (X_prime @ W["phi"].T).sigmoid()  # [N, v], [N, D]
    H = F.silu(X_prime @ W["h"].T + (gamma * O) @ W["u"].T)  # [N, D]
    return phi * H + (1 - phi) * R


def assembled(X_value, X_prime, A, W, carry, update=lambda phi: phi, reset_late=True):
    """`gated` with values from another input, another carry branch, or gates in other places."""
    V = F.silu(X_value @ W["v"].T)
    gamma, phi = F.silu(X_prime @ W["gamma"].T), update((X_prime @ W["phi"].T).sigmoid())
    mixed = gamma * (A @ V) if reset_late else A @ (gamma * V)
    H = F.silu(X_prime @ W["h"].T + mixed @ W["u"].T)
    return phi * H + (1 - phi) * carry


def gated_values_averaged(R, X, X_prime, A, W):
    return assembled(X_prime, X_prime, A, W, R)


def gated_carries_x(R, X, X_prime, A, W):
    return assembled(X, X_prime, A, W, X)


def gated_adds(R, X, X_prime, A, W):
    return R + assembled(X, X_prime, A, W, R) - (1 - (X_prime @ W["phi"].T).sigmoid()) * R


def gated_turned(R, X, X_prime, A, W):
    return assembled(X, X_prime, A, W, R, update=lambda phi: 1 - phi)


def gated_resets_early(R, X, X_prime, A, W):
    return assembled(X, X_prime, A, W, R, reset_late=False)


def stream(q, k, v, x, rel, c, decay, state):
    keys, values, average = (k[:0], v[:0], 0.0) if state is None else state
    keys, values = torch.cat([keys.reshape(-1, len(k)), k[None]]), torch.cat([values.reshape(-1, len(v)), v[None]])
    average = x + decay * average  # never reset: all that a new chunk knows of the old ones
    t = len(keys)
    weights = (keys @ q / math.sqrt(len(q)) + rel[c - t : c]).softmax(-1)  # the last row: lags −(t − 1) … 0
    y = weights @ values + average
    if t == c:  # the last query of the chunk has read it
        keys, values = keys[:0], values[:0]
    return y, (keys, values, average)


def streamer(cut, *, row=lambda rel, c, t: rel[c - t : c], early=False, reset=False):
    """`stream` whose cache goes through `cut(keys or values, c)` after reading (or `early`, before it)."""

    def stream(q, k, v, x, rel, c, decay, state):
        keys, values, average = (k.new_zeros(0, len(k)), v.new_zeros(0, len(v)), 0 * x) if state is None else state
        keys, values = torch.cat([keys, k[None]]), torch.cat([values, v[None]])
        if early and len(keys) == c:
            keys, values = keys[:0], values[:0]
            keys, values = torch.cat([keys, k[None]]), torch.cat([values, v[None]])
        average = x + decay * average
        t = len(keys)
        weights = (keys @ q / math.sqrt(len(q)) + row(rel, c, t)).softmax(-1)
        y = weights @ values + average
        if not early:
            full = t == c
            keys, values = cut(keys, c), cut(values, c)
            average = 0 * average if reset and full else average
        return y, (keys, values, average)

    return stream


def emptied(cache, c):
    return cache[:0] if len(cache) == c else cache


stream_resets = streamer(emptied, reset=True)
stream_first_row = streamer(emptied, row=lambda rel, c, t: rel[c - 1 : c - 1 + t])
stream_early = streamer(emptied, early=True)
stream_slides = streamer(lambda cache, c: cache[max(0, len(cache) + 1 - c) :])


def kernel_of(weights, length, cache):
    return kernel(*weights, length)  # nothing kept: the kernel is made anew whenever it is asked for


def kept_under(key):
    """`kernel_of` that keeps its kernel under key(weights, length)."""

    def kernel_of(weights, length, cache):
        name = key(weights, length)
        if name not in cache:
            cache[name] = kernel(*weights, length).clone()
        return cache[name][:, :length]

    return kernel_of


kernel_of_stale = kept_under(lambda weights, length: "K")
kernel_of_by_length = kept_under(lambda weights, length: length)
kernel_of_by_values = kept_under(
    lambda weights, length: tuple(value for w in weights for value in w.flatten().tolist())
)
