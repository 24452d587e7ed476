"""Lesson 20: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch


def weights(vocab, classes, width, layers, heads, head_width, hidden):
    embedding = vocab * width + width  # with the CLS vector
    attention = layers * 4 * width * heads * head_width
    mlp = layers * (2 * width * hidden + hidden + width)
    norms = layers * 4 * width + 2 * width
    head = width * hidden + hidden + hidden * classes + classes
    return embedding + attention + mlp + norms + head


def weights_narrow(vocab, classes, width, layers, heads, head_width, hidden):
    whole = weights(vocab, classes, width, layers, heads, head_width, hidden)
    return whole + layers * 4 * width * (width - heads * head_width)


def weights_square(vocab, classes, width, layers, heads, head_width, hidden):
    whole = weights(vocab, classes, width, layers, heads, head_width, hidden)
    return whole + layers * width * (width - heads * head_width)


def weights_no_cls(vocab, classes, width, layers, heads, head_width, hidden):
    return weights(vocab, classes, width, layers, heads, head_width, hidden) - width


def weights_one_mlp(vocab, classes, width, layers, heads, head_width, hidden):
    whole = weights(vocab, classes, width, layers, heads, head_width, hidden)
    return whole - (layers - 1) * (2 * width * hidden + hidden + width)


def weights_no_last_norm(vocab, classes, width, layers, heads, head_width, hidden):
    return weights(vocab, classes, width, layers, heads, head_width, hidden) - 2 * width


def attention(z, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).unflatten(-1, (heads, -1)).transpose(0, 1) for W in (W_q, W_k, W_v))  # [H, n, d_h]
    A = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (A @ v).transpose(0, 1).flatten(1) @ W_o.T


def attention_swapped(z, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).unflatten(-1, (-1, heads)).permute(2, 0, 1) for W in (W_q, W_k, W_v))
    A = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (A @ v).permute(1, 2, 0).flatten(1) @ W_o.T


def attention_unmerged(z, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).unflatten(-1, (heads, -1)).transpose(0, 1) for W in (W_q, W_k, W_v))
    A = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (A @ v).reshape(len(z), -1) @ W_o.T


def scaled(square):
    """`attention` whose logits are divided by the root of square(D, H, d_h)."""

    def run(z, W_q, W_k, W_v, W_o, heads):
        head_width = len(W_q) // heads
        return attention(z, W_q * (head_width / square(z.shape[-1], heads, head_width)) ** 0.5, W_k, W_v, W_o, heads)

    return run


attention_stream_scale = scaled(lambda D, H, d_h: D)
attention_inner_scale = scaled(lambda D, H, d_h: H * d_h)
attention_unscaled = scaled(lambda D, H, d_h: 1)


def decompose(x, A, V, W_o, mlp):
    W = W_o.unflatten(1, (len(A), -1))  # [D, H, d_h]
    heads = torch.einsum("hj,hjd,ehd->hje", A, V, W)
    return x, heads, mlp(x + heads.sum((0, 1)))


def decompose_no_start(x, A, V, W_o, mlp):
    _, heads, branch = decompose(x, A, V, W_o, mlp)
    return torch.zeros_like(x), heads, branch


def decompose_no_mlp(x, A, V, W_o, mlp):
    start, heads, _ = decompose(x, A, V, W_o, mlp)
    return start, heads, torch.zeros_like(x)


def decompose_early(x, A, V, W_o, mlp):
    start, heads, _ = decompose(x, A, V, W_o, mlp)
    return start, heads, mlp(x)


def decompose_swapped(x, A, V, W_o, mlp):
    W = W_o.unflatten(1, (-1, len(A)))  # [D, d_h, H]
    heads = torch.einsum("hj,hjd,edh->hje", A, V, W)
    return x, heads, mlp(x + heads.sum((0, 1)))


def decompose_unweighted(x, A, V, W_o, mlp):
    W = W_o.unflatten(1, (len(A), -1))
    heads = torch.einsum("hjd,ehd->hje", V, W)
    return x, heads, mlp(x + heads.sum((0, 1)))


def pooled(x, padding):
    words = x.masked_fill(padding[..., None], 0.0)
    return words.sum(1) / (~padding).sum(1, keepdim=True)


def pooled_over_all(x, padding):
    return x.masked_fill(padding[..., None], 0.0).mean(1)


def pooled_with_padding(x, padding):
    return x.mean(1)


def pooled_padding_only(x, padding):
    return pooled(x, ~padding)


def pooled_one_count(x, padding):
    return x.masked_fill(padding[..., None], 0.0).sum(1) / (~padding).sum(1).max()
