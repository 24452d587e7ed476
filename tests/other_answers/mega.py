"""Lesson 11, otherwise."""

import math

import torch
from torch.nn import functional as F


def kernel_by_logarithms(alpha, delta, beta, eta, length):
    lag = torch.arange(length, dtype=alpha.dtype)
    powers = (torch.log1p(-alpha * delta)[..., None] * lag).exp()
    return torch.einsum("dh,dht->dt", alpha * beta * eta / alpha.shape[1] ** 0.5, powers)


def kernel_by_recurrence(alpha, delta, beta, eta, length):
    state, found = alpha * beta, []
    for _ in range(length):
        found.append((eta * state).sum(1) / math.sqrt(eta.shape[1]))
        state = state * (1 - alpha * delta)
    return torch.stack(found, 1)


def convolve_by_sums(x, K):
    y = torch.zeros_like(x)
    for lag in range(len(x)):
        y[lag:] += K[:, lag] * x[: len(x) - lag]
    return y


def convolve_by_conv1d(x, K):
    n = len(x)
    return F.conv1d(F.pad(x.T, (n - 1, 0)), K.flip(1)[:, None], groups=x.shape[1]).T


def weights_by_infinity(q, k, bias, is_causal=False):
    n = torch.arange(1, len(q) + 1)[:, None] if is_causal else len(k)
    scores = q @ k.T / n + bias
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return (1 + torch.erf((scores - 0.5**0.5) * (2 * math.pi) ** 0.5)) / 2


def weights_row_by_row(q, k, bias, is_causal=False):
    A = torch.zeros(len(q), len(k), dtype=q.dtype)
    for i in range(len(q)):
        keys = k[: i + 1] if is_causal else k
        scores = keys @ q[i] / len(keys) + bias[i, : len(keys)]
        A[i, : len(keys)] = torch.special.ndtr((scores - math.sqrt(0.5)) * math.sqrt(4 * math.pi))
    return A


def gated_by_lerp(R, X, X_prime, A, W):
    read = F.silu(F.linear(X_prime, W["gamma"])) * (A @ F.silu(F.linear(X, W["v"])))
    return torch.lerp(
        R, F.silu(F.linear(X_prime, W["h"]) + F.linear(read, W["u"])), F.linear(X_prime, W["phi"]).sigmoid()
    )


def gated_token_by_token(R, X, X_prime, A, W):
    silu = lambda u: u * u.sigmoid()  # noqa: E731
    V = silu(X @ W["v"].T)
    rows = []
    for r, x, a in zip(R, X_prime, A, strict=True):
        phi = torch.sigmoid(W["phi"] @ x)
        rows.append(r + phi * (silu(W["h"] @ x + W["u"] @ (silu(W["gamma"] @ x) * (a @ V))) - r))
    return torch.stack(rows)


def stream_with_lists(q, k, v, x, rel, c, decay, state):
    pairs, average = state or ((), torch.zeros_like(x))
    pairs, average = (*pairs, (k, v)), decay * average + x
    scores = [rel[c - len(pairs) + j] + key @ q / math.sqrt(len(q)) for j, (key, _) in enumerate(pairs)]
    weights = torch.stack(scores).softmax(0)
    y = sum(w * value for w, (_, value) in zip(weights, pairs, strict=True)) + average
    return y, (() if len(pairs) == c else pairs, average)


def stream_by_place(q, k, v, x, rel, c, decay, state):
    """Counts tokens, and empties when the next chunk begins."""
    place, keys, values, average = state or (0, k.new_zeros(0, len(k)), v.new_zeros(0, len(v)), 0.0)
    start = place % c == 0
    keys = k[None] if start else torch.cat([keys, k[None]])
    values = v[None] if start else torch.cat([values, v[None]])
    t = place % c + 1
    average = decay * average + x
    bias = torch.stack([rel[c - 1 + j - (t - 1)] for j in range(t)])
    return (keys @ q * len(q) ** -0.5 + bias).softmax(0) @ values + average, (place + 1, keys, values, average)


def kernel_with_a_key(weights, length, cache):
    key = (length, *(value for w in weights for value in w.flatten().tolist()))
    if key not in cache:
        cache.clear()
        cache[key] = kernel_by_logarithms(*weights, length)
    return cache[key]


ANSWERS = {
    "mega.kernel": (kernel_by_logarithms, kernel_by_recurrence),
    "mega.convolve": (convolve_by_sums, convolve_by_conv1d),
    "mega.laplace_weights": (weights_by_infinity, weights_row_by_row),
    "mega.gated": (gated_by_lerp, gated_token_by_token),
    "mega.kernel_of": (kernel_with_a_key, lambda weights, length, cache: kernel_by_recurrence(*weights, length)),
    "mega.stream": (stream_with_lists, stream_by_place),
}
