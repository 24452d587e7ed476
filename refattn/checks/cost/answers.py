"""Lesson 02: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import numpy as np
import torch
from torch.nn import functional as F


def fit_exponent(ns, values):
    x, y = np.log(ns), np.log(values)  # value = c N^p is the line log c + p log N
    x, y = x - x.mean(), y - y.mean()  # the intercept, log c, takes the unit away with it
    return (x @ y) / (x @ x)


def fit_exponent_raw(ns, values):
    return np.polyfit(ns, values, 1)[0]


def fit_exponent_half_log(ns, values):
    return np.polyfit(ns, np.log(values), 1)[0]


def fit_exponent_swapped(ns, values):
    return np.polyfit(np.log(values), np.log(ns), 1)[0]


def fit_exponent_no_intercept(ns, values):
    x, y = np.log(ns), np.log(values)
    return (x @ y) / (x @ x)


def fit_exponent_ends(ns, values):
    return np.log(values[-1] / values[0]) / np.log(ns[-1] / ns[0])


def kernel_map(phi_q, phi_k):
    similarity = phi_q @ phi_k.T  # [N, M], all positive
    return similarity / similarity.sum(-1, keepdim=True)


def kernel_map_bare(phi_q, phi_k):
    return phi_q @ phi_k.T


def kernel_map_softmax(phi_q, phi_k):
    return (phi_q @ phi_k.T).softmax(-1)


def kernel_map_mean(phi_q, phi_k):
    return phi_q @ phi_k.T / len(phi_k)


def kernel_map_columns(phi_q, phi_k):
    similarity = phi_q @ phi_k.T
    return similarity / similarity.sum(0, keepdim=True)


def linear_attention(phi_q, phi_k, v):
    S = phi_k.T @ v  # [d, d_v]: one matrix serves all queries
    z = phi_k.sum(0)  # [d]: the same sum with v = 1
    return (phi_q @ S) / (phi_q @ z)[:, None]


def linear_attention_bare(phi_q, phi_k, v):
    return phi_q @ (phi_k.T @ v)


def linear_attention_mean(phi_q, phi_k, v):
    return phi_q @ (phi_k.T @ v) / len(phi_k)


def linear_attention_by_feature(phi_q, phi_k, v):
    return phi_q @ (phi_k.T @ v / phi_k.sum(0)[:, None])


def linear_attention_one_key(phi_q, phi_k, v):
    return phi_q @ (phi_k.T @ v) / (phi_q * phi_k).sum(-1, keepdim=True)


def linear_attention_softmax(phi_q, phi_k, v):
    return (phi_q @ (phi_k.T @ v)).softmax(-1)


def phi(x):
    """elu(x) + 1, the feature map of lesson 03; positive, and 1 at 0."""
    return F.elu(x) + 1.0


def chunked_causal(q, k, v, chunk):
    S, z = v.new_zeros(k.shape[-1], v.shape[-1]), v.new_zeros(k.shape[-1])  # what came before this chunk
    outputs = []
    for q_c, k_c, v_c in zip(phi(q).split(chunk), phi(k).split(chunk), v.split(chunk), strict=True):
        inside = (q_c @ k_c.T).tril()  # [C, C], this chunk's own pairs
        total = inside.sum(-1) + q_c @ z
        outputs.append((inside @ v_c + q_c @ S) / total[:, None])
        S, z = S + k_c.T @ v_c, z + k_c.sum(0)  # only now may the state hold this chunk
    return torch.cat(outputs), S, z


def chunks(q, k, v, chunk, *, mask=torch.tril, inclusive=False, carry_z=True, carry_S=True):
    """`chunked_causal` with one thing or another wrong."""
    S, z = v.new_zeros(k.shape[-1], v.shape[-1]), v.new_zeros(k.shape[-1])
    outputs = []
    for q_c, k_c, v_c in zip(phi(q).split(chunk), phi(k).split(chunk), v.split(chunk), strict=True):
        after = S + k_c.T @ v_c, z + k_c.sum(0)
        S_seen, z_seen = after if inclusive else (S, z)
        inside = mask(q_c @ k_c.T)
        total = inside.sum(-1) + q_c @ z_seen * carry_z
        outputs.append((inside @ v_c + q_c @ S_seen * carry_S) / total[:, None])
        S, z = after
    return torch.cat(outputs), S, z


def chunked_causal_twice(q, k, v, chunk):
    return chunks(q, k, v, chunk, inclusive=True)


def chunked_causal_future(q, k, v, chunk):
    return chunks(q, k, v, chunk, mask=lambda inside: inside)


def chunked_causal_not_itself(q, k, v, chunk):
    return chunks(q, k, v, chunk, mask=lambda inside: inside.tril(-1))


def chunked_causal_alone(q, k, v, chunk):
    return chunks(q, k, v, chunk, carry_S=False, carry_z=False)


def chunked_causal_forgets_z(q, k, v, chunk):
    return chunks(q, k, v, chunk, carry_z=False)


def chunked_causal_padded(q, k, v, chunk):
    short = -len(q) % chunk
    y, S, z = chunks(*(F.pad(t, (0, 0, 0, short)) for t in (q, k, v)), chunk)
    return y[: len(q)], S, z


def chunked_causal_no_tail(q, k, v, chunk):
    whole = len(q) // chunk * chunk
    return chunks(q[:whole], k[:whole], v[:whole], chunk)


def seconds_per_call(function, make_input, synchronize, clock, repeats=5):
    x = make_input()
    function(x)  # warm-up, on the very input: compilation, caches, first touch of its memory
    synchronize()  # the clock starts on an idle device …
    start = clock()
    for _ in range(repeats):
        function(x)
    synchronize()  # … and stops when the work is done, not when it has been ordered
    return (clock() - start) / repeats


def stopwatch(*, warm_up=None, fresh=False, before=True, after=True, per_call=True):
    """`seconds_per_call` with one thing or another wrong. warm_up: None, on "another" input or on the "same"."""

    def seconds_per_call(function, make_input, synchronize, clock, repeats=5):
        x = None if fresh else make_input()
        if warm_up:
            function(x if warm_up == "same" and not fresh else make_input())
        if before:
            synchronize()
        start = clock()
        for _ in range(repeats):
            function(make_input() if fresh else x)
        if after:
            synchronize()
        return (clock() - start) / (repeats if per_call else 1)

    return seconds_per_call


seconds_per_call_cold_and_fresh = stopwatch(fresh=True)
seconds_per_call_fresh = stopwatch(fresh=True, warm_up="same")
seconds_per_call_cold = stopwatch()
seconds_per_call_another = stopwatch(warm_up="another")
seconds_per_call_late_start = stopwatch(warm_up="same", before=False)
seconds_per_call_no_wait = stopwatch(warm_up="same", after=False)
seconds_per_call_total = stopwatch(warm_up="same", per_call=False)
