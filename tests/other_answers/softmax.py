"""Lesson 01, otherwise."""

import torch
from einops import rearrange
from torch.nn import functional as F


def weights_by_einsum(q, k):
    return F.softmax(torch.einsum("...nd,...md->...nm", q * q.shape[-1] ** -0.5, k), dim=-1)


def weights_by_logsumexp(q, k):
    logits = q @ k.mT / q.shape[-1] ** 0.5
    return (logits - logits.logsumexp(-1, keepdim=True)).exp()


def weights_less_the_largest(q, k):
    logits = q @ k.mT / q.shape[-1] ** 0.5
    powers = (logits - logits.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def attend_by_torch(q, k, v, is_causal=False):
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def attend_by_query(q, k, v, is_causal=False):
    rows = []
    for i in range(q.shape[-2]):
        seen = i + 1 if is_causal else k.shape[-2]
        rows.append(weights_by_einsum(q[..., i : i + 1, :], k[..., :seen, :]) @ v[..., :seen, :])
    return torch.cat(rows, -2)


def attend_shared_out_again(q, k, v, is_causal=False):
    shares = weights_by_logsumexp(q, k)
    if is_causal:
        shares = shares.tril()
        shares = shares / shares.sum(-1, keepdim=True)
    return shares @ v


def attend_by_added_mask(q, k, v, is_causal=False):
    logits = q @ k.mT / q.shape[-1] ** 0.5
    if is_causal:
        logits = logits + torch.full(logits.shape[-2:], -torch.inf).triu(1)
    return logits.softmax(-1) @ v


def padded_by_torch(q, k, v, key_padding_mask):
    hidden = key_padding_mask[:, None, None, :]
    empty = hidden.all(-1, keepdim=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden | empty).masked_fill(empty, 0.0)


def padded_by_sequence(q, k, v, key_padding_mask):
    outputs = []
    for q_b, k_b, v_b, hidden in zip(q, k, v, key_padding_mask, strict=True):
        if hidden.all():
            outputs.append(v.new_zeros(*q_b.shape[:-1], v.shape[-1]))
        else:
            outputs.append(attend_by_torch(q_b, k_b[:, ~hidden], v_b[:, ~hidden]))
    return torch.stack(outputs)


def padded_by_weights(q, k, v, key_padding_mask):
    logits = q @ k.mT / q.shape[-1] ** 0.5
    real = (~key_padding_mask)[:, None, None, :].to(q.dtype)
    powers = (logits - logits.amax(-1, keepdim=True)).exp() * real
    return powers @ v / powers.sum(-1, keepdim=True).clamp_min(1e-9)


def padded_by_replacing(q, k, v, key_padding_mask):
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(key_padding_mask[:, None, None, :], -torch.inf)
    return logits.softmax(-1).nan_to_num() @ v  # NaN stops here; backward, masked_fill lets none through


ANSWERS = {
    "softmax.weights": (weights_by_einsum, weights_by_logsumexp, weights_less_the_largest),
    "softmax.attend": (attend_by_torch, attend_by_query, attend_shared_out_again, attend_by_added_mask),
    "softmax.split_heads": (
        lambda x, num_heads: rearrange(x, "b n (h d) -> b h n d", h=num_heads),
        lambda x, num_heads: torch.stack(x.chunk(num_heads, -1), 1),
        lambda x, num_heads: x.unflatten(-1, (num_heads, -1)).movedim(2, 1),
    ),
    "softmax.merge_heads": (
        lambda heads: rearrange(heads, "b h n d -> b n (h d)"),
        lambda heads: torch.cat(heads.unbind(1), -1),
        lambda heads: heads.movedim(1, 2).flatten(2),
    ),
    "softmax.padded_attention": (padded_by_torch, padded_by_sequence, padded_by_weights, padded_by_replacing),
}
