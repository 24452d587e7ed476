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


def weights_biased_attention(vocab, classes, width, layers, heads, head_width, hidden):
    whole = weights(vocab, classes, width, layers, heads, head_width, hidden)
    return whole + layers * (3 * heads * head_width + width)


def weights_no_mlp_biases(vocab, classes, width, layers, heads, head_width, hidden):
    return weights(vocab, classes, width, layers, heads, head_width, hidden) - layers * (hidden + width)


def weights_no_biases(vocab, classes, width, layers, heads, head_width, hidden):
    return weights_no_mlp_biases(vocab, classes, width, layers, heads, head_width, hidden) - hidden - classes


def weights_one_norm(vocab, classes, width, layers, heads, head_width, hidden):
    return weights(vocab, classes, width, layers, heads, head_width, hidden) - layers * 2 * width


def weights_gains_only(vocab, classes, width, layers, heads, head_width, hidden):
    return weights(vocab, classes, width, layers, heads, head_width, hidden) - layers * 2 * width - width


def weights_flat_head(vocab, classes, width, layers, heads, head_width, hidden):
    whole = weights(vocab, classes, width, layers, heads, head_width, hidden)
    return whole - (width + 1 + classes) * hidden + width * classes


def attention(z, padding, W_q, W_k, W_v, W_o, heads):
    q, k, v = ((z @ W.T).unflatten(-1, (heads, -1)).transpose(1, 2) for W in (W_q, W_k, W_v))  # [B, H, n, d_h]
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(padding[:, None, None], -torch.inf)
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2) @ W_o.T


def stretches(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def side_by_side(y):
    return y.transpose(1, 2).flatten(2)


def every_hth(x, heads):
    return x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)


def back_from_every_hth(y):
    return y.permute(0, 2, 3, 1).flatten(2)


def as_it_lies(x, heads):
    return x.reshape(len(x), heads, x.shape[1], -1)


def back_as_it_lies(y):
    return y.reshape(len(y), y.shape[2], -1)


def over_keys(logits, padding):
    return logits.masked_fill(padding, -torch.inf).softmax(-1)


def over_queries(logits, padding):
    return logits.masked_fill(padding, -torch.inf).softmax(-2)


def over_all_keys(logits, padding):
    return logits.softmax(-1)


def over_padding(logits, padding):
    return over_keys(logits, ~padding)


def hidden_queries(logits, padding):
    return over_keys(logits, padding.mT)


def hidden_late(logits, padding):
    return logits.softmax(-1).masked_fill(padding, 0.0)


def assembled(cut=stretches, weigh=over_keys, merge=side_by_side):
    """`attention` out of three parts."""

    def run(z, padding, W_q, W_k, W_v, W_o, heads):
        q, k, v = (cut(z @ W.T, heads) for W in (W_q, W_k, W_v))
        return merge(weigh(q @ k.mT / q.shape[-1] ** 0.5, padding[:, None, None]) @ v) @ W_o.T

    return run


attention_swapped = assembled(cut=every_hth, merge=back_from_every_hth)
attention_cut_as_it_lies = assembled(cut=as_it_lies)
attention_all_as_it_lies = assembled(cut=as_it_lies, merge=back_as_it_lies)
attention_unmerged = assembled(merge=back_as_it_lies)
attention_over_queries = assembled(weigh=over_queries)
attention_all_keys = assembled(weigh=over_all_keys)
attention_padding_only = assembled(weigh=over_padding)
attention_hidden_queries = assembled(weigh=hidden_queries)
attention_hidden_late = assembled(weigh=hidden_late)


def scaled(square):
    """`attention` whose logits are divided by the root of square(D, H, d_h)."""

    def run(z, padding, W_q, W_k, W_v, W_o, heads):
        head_width = len(W_q) // heads
        times = (head_width / square(z.shape[-1], heads, head_width)) ** 0.5
        return attention(z, padding, W_q * times, W_k, W_v, W_o, heads)

    return run


attention_stream_scale = scaled(lambda D, H, d_h: D)
attention_inner_scale = scaled(lambda D, H, d_h: H * d_h)
attention_narrow_scale = scaled(lambda D, H, d_h: D / H)
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


def decompose_heads_only(x, A, V, W_o, mlp):
    start, heads, _ = decompose(x, A, V, W_o, mlp)
    return start, heads, mlp(heads.sum((0, 1)))


def decompose_whole(x, A, V, W_o, mlp):
    start, heads, branch = decompose(x, A, V, W_o, mlp)
    return start, heads, x + heads.sum((0, 1)) + branch


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


def pooled_over_nonzero(x, padding):
    words = x.masked_fill(padding[..., None], 0.0)
    return words.sum(1) / (words != 0).any(-1).sum(1, keepdim=True)


def pooled_one_count(x, padding):
    return x.masked_fill(padding[..., None], 0.0).sum(1) / (~padding).sum(1).max()
