"""Lesson 04, otherwise."""

import math

import torch
from torch.nn import functional as F

from refattn import reachability
from refattn.attention.local import local_attention
from refattn.attention.reformer import lsh_attention
from refattn.attention.sparse_transformer import component_masks


def strided_of_the_package(tokens, stride):
    return component_masks(tokens, pattern="strided", stride=stride, is_causal=True)


def strided_by_loops(tokens, stride):
    near, far = torch.zeros(2, tokens, tokens)
    for i in range(tokens):
        near[i, max(0, i - stride) : i + 1] = 1.0
        far[i, i % stride : i + 1 : stride] = 1.0
    return near, far


def fixed_of_the_package(tokens, stride, summaries):
    return component_masks(tokens, pattern="fixed", stride=stride, num_summary=summaries, is_causal=True)


def fixed_by_loops(tokens, stride, summaries):
    own, summary = torch.zeros(2, tokens, tokens, dtype=torch.int64)
    for i in range(tokens):
        for j in range(i + 1):
            own[i, j], summary[i, j] = i // stride == j // stride, j % stride in range(stride - summaries, stride)
    return own, summary


def heard_by_sets(allow, layers):
    held = [{i} for i in range(len(allow))]
    for _ in range(layers):
        held = [held[i].union(*(held[j] for j in allow[i].nonzero().flatten().tolist())) for i in range(len(held))]
    return torch.tensor([[j in tokens for j in range(len(allow))] for tokens in held])


def heard_by_a_power(allow, layers):
    step = (allow | torch.eye(len(allow), dtype=torch.bool)).double()
    return (torch.linalg.matrix_power(step, layers) > 0).double()


def local_by_token(q, k, v, window):
    y = []
    for i in range(len(q)):
        first = max(0, (i // window - 1) * window)
        y.append((k[first : i + 1] @ q[i] / math.sqrt(len(q[i]))).softmax(0) @ v[first : i + 1])
    return torch.stack(y)


def local_by_windows(q, k, v, window):
    """Overlapping views, and a finite floor."""
    tokens = len(q)
    q, k, v = (F.pad(t, (0, 0, 0, -tokens % window)) for t in (q, k, v))
    k, v = (F.pad(t, (0, 0, window, 0)).unfold(0, 2 * window, window).mT for t in (k, v))  # [n, 2w, d]
    i, j = torch.arange(len(q)).reshape(-1, window, 1), torch.arange(2 * window) - window
    j = torch.arange(0, len(q), window)[:, None, None] + j
    logits = (q.reshape(-1, window, q.shape[-1]) @ k.mT / math.sqrt(q.shape[-1])).masked_fill((j > i) | (j < 0), -1e9)
    return (logits.softmax(-1) @ v).flatten(0, 1)[:tokens]


def local_of_the_package(q, k, v, window):
    return local_attention(*(t[None, None] for t in (q, k, v)), window=window, look_forward=0, is_causal=True)


def blocks_by_loop(q, k, v, padded, window):
    parts = zip(*(t.split(window) for t in (q, k, v, ~padded)), strict=True)
    return torch.cat([(a @ b[real].T / math.sqrt(q.shape[-1])).softmax(-1) @ c[real] for a, b, c, real in parts])


def blocks_of_the_kernel(q, k, v, padded, window):
    q, k, v = (t.unflatten(0, (-1, window)) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=~padded.view(-1, 1, window)).flatten(0, 1)


def lsh_of_the_package(qk, v, buckets, chunk):
    options = {"chunk": chunk, "is_causal": True, "attend_across_buckets": False}
    return lsh_attention(qk[None, None], v[None, None], buckets[None, None], **options)


def lsh_by_token(qk, v, buckets, chunk):
    """The set of everybody met, for one token after another."""
    keys, count, met = F.normalize(qk, dim=-1), len(qk) // chunk, [set() for _ in qk]
    for own in buckets.tolist():
        order = sorted(range(len(qk)), key=lambda i: (own[i], i))
        where = {i: place // chunk for place, i in enumerate(order)}
        for i in range(len(qk)):
            chunks = (where[i], (where[i] - 1) % count)
            met[i] |= {j for j in range(i) if own[i] == own[j] and where[j] in chunks}
    y = []
    for i, others in enumerate(met):
        others = sorted(others) or [i]
        y.append((keys[others] @ qk[i] / math.sqrt(qk.shape[1])).softmax(0) @ v[others])
    return torch.stack(y)


ANSWERS = {
    "sparse.strided_patterns": (strided_of_the_package, strided_by_loops),
    "sparse.fixed_patterns": (fixed_of_the_package, fixed_by_loops),
    "sparse.heard": (heard_by_sets, heard_by_a_power, reachability.reach),
    "sparse.local_attention": (local_by_token, local_by_windows, local_of_the_package),
    "sparse.block_attention": (blocks_by_loop, blocks_of_the_kernel),
    "sparse.lsh_attention": (lsh_of_the_package, lsh_by_token),
}
