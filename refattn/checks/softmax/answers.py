"""Lesson 01: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import math

import torch
from einops import rearrange


def weights(q, k):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [..., N, M]
    return logits.softmax(-1)  # each query shares 1 out among the keys


def weights_no_scale(q, k):
    return (q @ k.transpose(-1, -2)).softmax(-1)


def weights_scaled_by_d(q, k):
    return (q @ k.transpose(-1, -2) / q.shape[-1]).softmax(-1)


def weights_scaled_after(q, k):
    return (q @ k.transpose(-1, -2)).softmax(-1) / math.sqrt(q.shape[-1])


def weights_over_queries(q, k):
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-2)


def weights_overflow(q, k):
    powers = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).exp()
    return powers / powers.sum(-1, keepdim=True)


def attend(q, k, v, is_causal=False):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [..., N, M]
    if is_causal:
        seen = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()  # row i: keys 0 … i
        logits = logits.masked_fill(~seen, -torch.inf)  # e^(-inf) = 0, before the softmax shares 1 out
    return logits.softmax(-1) @ v  # [..., N, d_v]


def attend_unmasked(q, k, v, is_causal=False):
    return weights(q, k) @ v


def attend_masked_late(q, k, v, is_causal=False):
    shares = weights(q, k)
    return (shares.tril() if is_causal else shares) @ v


def attend_zeroed_logits(q, k, v, is_causal=False):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (logits.tril() if is_causal else logits).softmax(-1) @ v


def attend_triangle(q, k, v, is_causal, seen):
    """With a mask made by `seen` from a matrix of ones."""
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if is_causal:
        logits = logits.masked_fill(~seen(torch.ones(logits.shape[-2:], dtype=torch.bool)), -torch.inf)
    return logits.softmax(-1) @ v


def attend_future(q, k, v, is_causal=False):
    return attend_triangle(q, k, v, is_causal, torch.triu)


def attend_not_itself(q, k, v, is_causal=False):
    return attend_triangle(q, k, v, is_causal, lambda ones: ones.tril(-1))


def split_heads(x, num_heads):
    batch, tokens, width = x.shape
    x = x.reshape(batch, tokens, num_heads, width // num_heads)  # cut the features first …
    return x.transpose(1, 2)  # … then swap axes: [B, H, N, d]


def split_heads_reshaped(x, num_heads):
    return x.reshape(x.shape[0], num_heads, x.shape[1], -1)


def split_heads_interleaved(x, num_heads):
    return rearrange(x, "b n (d h) -> b h n d", h=num_heads)


def split_heads_not_swapped(x, num_heads):
    return rearrange(x, "b n (h d) -> b n h d", h=num_heads)


def merge_heads(heads):
    batch, num_heads, tokens, head_dim = heads.shape
    return heads.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)  # swap back, then join


def merge_heads_reshaped(heads):
    return heads.reshape(heads.shape[0], heads.shape[2], -1)


def merge_heads_interleaved(heads):
    return rearrange(heads, "b h n d -> b n (d h)")


def merge_heads_averaged(heads):
    return heads.mean(1)


def padded_attention(q, k, v, key_padding_mask):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [B, H, N, M]
    hidden = key_padding_mask[:, None, None, :]  # [B, 1, 1, M]: the key axis, which the softmax runs along
    logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)  # finite: a row of these has no 0/0
    weights = logits.softmax(-1).masked_fill(hidden, 0.0)  # a query that sees no key gets nothing
    return weights @ v


def padded_attention_queries(q, k, v, key_padding_mask):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return logits.masked_fill(key_padding_mask[:, None, :, None], -torch.inf).softmax(-1) @ v


def padded_attention_inverted(q, k, v, key_padding_mask):
    return padded_attention(q, k, v, ~key_padding_mask)


def padded_attention_blind(q, k, v, key_padding_mask):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return logits.masked_fill(key_padding_mask[:, None, None, :], -torch.inf).softmax(-1) @ v


def padded_attention_floor(q, k, v, key_padding_mask):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return logits.masked_fill(key_padding_mask[:, None, None, :], -1e9).softmax(-1) @ v


def padded_attention_zeroed_logits(q, k, v, key_padding_mask):
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return logits.masked_fill(key_padding_mask[:, None, None, :], 0.0).softmax(-1) @ v


def padded_attention_zeroed_values(q, k, v, key_padding_mask):
    return weights(q, k) @ v.masked_fill(key_padding_mask[:, None, :, None], 0.0)


def padded_attention_unmasked(q, k, v, key_padding_mask):
    return weights(q, k) @ v
