"""Lesson 02, otherwise."""

import math
from statistics import median

import numpy as np
import torch
from scipy import stats
from torch.nn import functional as F

from refattn.attention.linear import elu_feature_map


def exponent_by_sums(ns, values):
    x, y = [math.log(n) for n in ns], [math.log(value) for value in values]
    n, total_x, total_y = len(x), sum(x), sum(y)
    together = sum(a * b for a, b in zip(x, y, strict=True))
    return (n * together - total_x * total_y) / (n * sum(a * a for a in x) - total_x**2)


def exponent_by_lstsq(ns, values):
    x, y = (torch.tensor(numbers, dtype=torch.float64).log() for numbers in (ns, values))
    return torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[0, 0]


def map_through_logarithms(phi_q, phi_k):
    return (phi_q @ phi_k.T).log().softmax(-1)


def linear_by_einsum(phi_q, phi_k, v):
    S = torch.einsum("md,me->de", phi_k, v)
    return torch.einsum("nd,de->ne", phi_q, S) / torch.einsum("nd,md->n", phi_q, phi_k.sum(0, keepdim=True))[:, None]


def linear_with_a_column_of_ones(phi_q, phi_k, v):
    summed = phi_q @ (phi_k.T @ F.pad(v, (0, 1), value=1.0))
    return summed[:, :-1] / summed[:, -1:]


def linear_key_by_key(phi_q, phi_k, v):
    S, z = 0.0, 0.0
    for key, value in zip(phi_k, v, strict=True):
        S, z = S + torch.outer(key, value), z + key
    return phi_q @ S / (phi_q @ z).unsqueeze(1)


def chunks_with_a_column_of_ones(q, k, v, chunk):
    q, k, v = elu_feature_map(q), elu_feature_map(k), F.pad(v, (0, 1), value=1.0)
    state, summed = v.new_zeros(k.shape[1], v.shape[1]), torch.empty_like(v)
    for start in range(0, len(q), chunk):
        part = slice(start, start + chunk)
        summed[part] = q[part] @ state + torch.tril(q[part] @ k[part].T) @ v[part]
        state = state + k[part].T @ v[part]
    return summed[:, :-1] / summed[:, -1:], state[:, :-1], state[:, -1]


def chunks_at_once(q, k, v, chunk):
    short = -len(q) % chunk
    parts = (elu_feature_map(q), elu_feature_map(k), F.pad(v, (0, 1), value=1.0))
    q_c, k_c, v_c = (F.pad(t, (0, 0, 0, short)).unflatten(0, (-1, chunk)) for t in parts)  # padded after φ, with zeros
    states = (k_c.mT @ v_c).cumsum(0)  # [chunks, d, d_v + 1], each chunk's own included
    before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
    summed = (q_c @ before + (q_c @ k_c.mT).tril() @ v_c).flatten(0, 1)[: len(q)]
    return summed[:, :-1] / summed[:, -1:], states[-1, :, :-1], states[-1, :, -1]


def seconds_one_by_one(function, make_input, synchronize, clock, repeats=5):
    x, seconds = make_input(), []
    for _ in range(repeats + 1):
        synchronize()
        start = clock()
        function(x)
        synchronize()
        seconds.append(clock() - start)
    return median(seconds[1:])


def seconds_warmed_up_twice(function, make_input, synchronize, clock, repeats=5):
    x = make_input()
    for _ in range(2):
        function(x)
        synchronize()
    start = clock()
    [function(x) for _ in range(repeats)]
    synchronize()
    stop = clock()
    return torch.tensor((stop - start) / repeats)


ANSWERS = {
    "cost.fit_exponent": (
        lambda ns, values: np.polyfit(np.log10(ns), np.log10(values), 1)[0],
        lambda ns, values: stats.linregress(np.log2(ns), np.log2(values)).slope,
        exponent_by_sums,
        exponent_by_lstsq,
    ),
    "cost.kernel_map": (
        lambda phi_q, phi_k: F.normalize(torch.einsum("nd,md->nm", phi_q, phi_k), p=1, dim=1),
        lambda phi_q, phi_k: phi_q @ phi_k.T / (phi_q @ phi_k.sum(0))[:, None],
        map_through_logarithms,
    ),
    "cost.linear_attention": (linear_by_einsum, linear_with_a_column_of_ones, linear_key_by_key),
    "cost.chunked_causal": (chunks_with_a_column_of_ones, chunks_at_once),
    "cost.seconds_per_call": (seconds_one_by_one, seconds_warmed_up_twice),
}
