"""Lesson 20, otherwise."""

import torch
from torch.nn import functional as F


def weights_by_shapes(vocab, classes, width, layers, heads, head_width, hidden):
    inner = heads * head_width
    layer = [(inner, width)] * 3 + [(width, inner), (hidden, width), (hidden,), (width, hidden), (width,)]
    layer += [(width,)] * 4
    outside = [(vocab + 1, width), (width,), (width,), (hidden, width), (hidden,), (classes, hidden), (classes,)]
    return sum(torch.Size(shape).numel() for shape in layer * layers + outside)


def weights_per_layer(vocab, classes, width, layers, heads, head_width, hidden):
    total = (vocab + 3) * width + (width + 1) * hidden + (hidden + 1) * classes
    for _ in range(layers):
        total += 4 * heads * width * head_width + hidden * (2 * width + 1) + 5 * width
    return total


def attention_by_loop(z, W_q, W_k, W_v, W_o, heads):
    found = 0
    for q, k, v, o in zip(*(W.chunk(heads) for W in (W_q, W_k, W_v)), W_o.chunk(heads, 1), strict=True):
        weights = torch.softmax((z @ q.T) @ (z @ k.T).T / len(q) ** 0.5, 1)
        found = found + weights @ z @ v.T @ o.T
    return found


def attention_by_torch(z, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).view(1, len(z), heads, -1).transpose(1, 2) for W in (W_q, W_k, W_v))
    return F.linear(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).reshape(len(z), -1), W_o)


def decompose_by_loop(x, A, V, W_o, mlp):
    heads = torch.stack([(a[:, None] * v) @ o.T for a, v, o in zip(A, V, W_o.chunk(len(A), 1), strict=True)])
    return x.clone(), heads, mlp(x + heads.sum(0).sum(0))


def decompose_by_matmul(x, A, V, W_o, mlp):
    by_head = W_o.T.reshape(len(A), -1, len(x))  # [H, d_h, D]
    heads = A.unsqueeze(-1) * (V @ by_head)
    return x, heads, mlp(heads.flatten(0, 1).sum(0) + x)


def pooled_text_by_text(x, padding):
    return torch.stack([text[~hidden].mean(0) for text, hidden in zip(x, padding, strict=True)])


def pooled_by_product(x, padding):
    share = (~padding).to(x.dtype)
    return (share / share.sum(1, keepdim=True))[:, None].bmm(x)[:, 0]


ANSWERS = {
    "wide_attention.weights": (weights_by_shapes, weights_per_layer),
    "wide_attention.attention": (attention_by_loop, attention_by_torch),
    "wide_attention.decompose": (decompose_by_loop, decompose_by_matmul),
    "wide_attention.pooled": (pooled_text_by_text, pooled_by_product),
}
