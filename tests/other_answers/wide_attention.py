"""Lesson 20, otherwise; and its newer mistakes, made by other means than the stored ones."""

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


def attention_by_loop(z, padding, W_q, W_k, W_v, W_o, heads):
    texts = []
    for x, hidden in zip(z, padding, strict=True):
        real, found = x[~hidden], 0  # keys and values are of real tokens only
        for q, k, v, o in zip(*(W.chunk(heads) for W in (W_q, W_k, W_v)), W_o.chunk(heads, 1), strict=True):
            weights = torch.softmax((x @ q.T) @ (real @ k.T).T / len(q) ** 0.5, 1)
            found = found + weights @ real @ v.T @ o.T
        texts.append(found)
    return torch.stack(texts)


def attention_by_torch(z, padding, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).view(*z.shape[:2], heads, -1).transpose(1, 2) for W in (W_q, W_k, W_v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=~padding[:, None, None])
    return F.linear(y.transpose(1, 2).reshape(*z.shape[:2], -1), W_o)


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


# ---- Mistakes -------------------------------------------------------------------------------------------------------


def weights_of(layer, outside):
    """A count from shapes: functions of D, H d_h and d_ff, or of V, C, D and d_ff."""

    def count(vocab, classes, width, layers, heads, head_width, hidden):
        own, rest = layer(width, heads * head_width, hidden), outside(vocab, classes, width, hidden)
        return layers * sum(torch.Size(shape).numel() for shape in own) + sum(torch.Size(s).numel() for s in rest)

    return count


def a_layer(D, inner, f):
    return [(4, D, inner), (2, D, f), (f,), (D,), (4, D)]


def outside(V, C, D, f):
    return [(V + 1, D), (2, D), (f, D), (f,), (C, f), (C,)]


def attention_by(weigh):
    """Text by text and head by head; weigh: (logits [n, n], hidden [n]) → weights."""

    def run(z, padding, W_q, W_k, W_v, W_o, heads):
        texts = []
        for x, hidden in zip(z, padding, strict=True):
            parts = zip(*(W.chunk(heads) for W in (W_q, W_k, W_v)), strict=True)
            y = [weigh((x @ q.T) @ (x @ k.T).T / len(q) ** 0.5, hidden) @ (x @ v.T) for q, k, v in parts]
            texts.append(torch.cat(y, 1) @ W_o.T)
        return torch.stack(texts)

    return run


def hidden_keys(logits, hidden):
    return logits + torch.zeros_like(logits).masked_fill(hidden, -torch.inf)


def share(logits, axis=1):
    return logits.exp() / logits.exp().sum(axis, keepdim=True)


def attention_by_view(merge):
    def run(z, padding, W_q, W_k, W_v, W_o, heads):
        B, n, _ = z.shape
        q, k, v = (F.linear(z, W).view(B, heads, n, -1) for W in (W_q, W_k, W_v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=~padding[:, None, None])
        return F.linear(merge(y).reshape(B, n, -1), W_o)

    return run


def attention_narrow(z, padding, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).view(*z.shape[:2], heads, -1).transpose(1, 2) for W in (W_q, W_k, W_v))
    scale = (z.shape[2] / heads) ** -0.5
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=~padding[:, None, None], scale=scale)
    return y.transpose(1, 2).reshape(*z.shape[:2], -1) @ W_o.T


def decompose_with(branch):
    def run(x, A, V, W_o, mlp):
        _, heads, _ = decompose_by_loop(x, A, V, W_o, mlp)
        return x, heads, branch(x, heads.sum(0).sum(0), mlp)

    return run


def pooled_by_numbers(x, padding):
    words = x * ~padding[..., None]
    return torch.stack([text[text.abs().sum(-1) > 0].mean(0) for text in words])


MISTAKES = {
    "wide_attention.weights": {
        "one norm a layer": weights_of(lambda D, i, f: [*a_layer(D, i, f)[:-1], (2, D)], outside),
        "gains only": weights_of(
            lambda D, i, f: [*a_layer(D, i, f)[:-1], (2, D)],
            lambda V, C, D, f: [(V + 1, D), (D,), *outside(V, C, D, f)[2:]],
        ),
        "biases in attention": weights_of(lambda D, i, f: [*a_layer(D, i, f), (3, i), (D,)], outside),
        "no biases in the MLPs": weights_of(lambda D, i, f: [(4, D, i), (2, D, f), (4, D)], outside),
        "no biases at all": weights_of(
            lambda D, i, f: [(4, D, i), (2, D, f), (4, D)],
            lambda V, C, D, f: [(V + 1, D), (2, D), (f, D), (C, f)],
        ),
        "a head of one layer": weights_of(a_layer, lambda V, C, D, f: [(V + 1, D), (2, D), (C, D), (C,)]),
    },
    "wide_attention.attention": {
        "cut as it lies": attention_by_view(lambda y: y.transpose(1, 2)),
        "cut and merged as it lies": attention_by_view(lambda y: y),
        "√(D / H)": attention_narrow,
        "softmax over queries": attention_by(lambda logits, hidden: share(hidden_keys(logits, hidden), 0)),
        "padding is heard": attention_by(lambda logits, hidden: share(logits)),
        "only padding is heard": attention_by(lambda logits, hidden: share(hidden_keys(logits, ~hidden))),
        "padding does not ask": attention_by(lambda logits, hidden: share(hidden_keys(logits.T, hidden).T)),
        "hidden after softmax": attention_by(lambda logits, hidden: share(logits) * ~hidden),
    },
    "wide_attention.decompose": {
        "MLP of the heads alone": decompose_with(lambda x, heard, mlp: mlp(heard)),
        "the residual twice": decompose_with(lambda x, heard, mlp: (x + heard) + mlp(x + heard)),
    },
    "wide_attention.pooled": {"zeros are padding": pooled_by_numbers},
}
