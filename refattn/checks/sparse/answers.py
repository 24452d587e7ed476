"""Lesson 04: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import math

import torch
from torch.nn import functional as F


def strided_patterns(tokens, stride):
    i = torch.arange(tokens)
    distance = i[:, None] - i  # i − j: rows are queries, columns are keys
    near = (distance >= 0) & (distance <= stride)  # l + 1 keys: l earlier ones, and itself
    far = (distance >= 0) & (distance % stride == 0)  # every l-th key, counted back from i
    return near, far


def strided_patterns_short(tokens, stride):
    near, far = strided_patterns(tokens, stride)
    return near.triu(1 - stride), far


def strided_patterns_columns(tokens, stride):
    near, _ = strided_patterns(tokens, stride)
    return near, (torch.arange(tokens) % stride == 0).expand(tokens, -1).tril()


def strided_patterns_both_sides(tokens, stride):
    near, far = strided_patterns(tokens, stride)
    return near | near.T, far | far.T


def strided_patterns_future(tokens, stride):
    near, far = strided_patterns(tokens, stride)
    return near.T, far.T


def fixed_patterns(tokens, stride, summaries):
    j = torch.arange(tokens)
    block = j // stride
    own = (block[:, None] == block).tril()
    summary = (j % stride >= stride - summaries).expand(tokens, -1).tril()  # the last c keys of every block
    return own, summary


def fixed_patterns_first(tokens, stride, summaries):
    own, _ = fixed_patterns(tokens, stride, summaries)
    return own, (torch.arange(tokens) % stride < summaries).expand(tokens, -1).tril()


def fixed_patterns_wrapped(tokens, stride, summaries):
    own, summary = fixed_patterns(tokens, stride, summaries)
    return own, summary | (torch.arange(tokens) % stride == 0).expand(tokens, -1).tril()


def fixed_patterns_fewer(tokens, stride, summaries):
    own, _ = fixed_patterns(tokens, stride, summaries)
    return own, (torch.arange(tokens) % stride > stride - summaries).expand(tokens, -1).tril()


def fixed_patterns_sliding(tokens, stride, summaries):
    _, summary = fixed_patterns(tokens, stride, summaries)
    return torch.ones(tokens, tokens, dtype=torch.bool).tril().triu(1 - stride), summary


def fixed_patterns_both_sides(tokens, stride, summaries):
    own, summary = fixed_patterns(tokens, stride, summaries)
    columns = (torch.arange(tokens) % stride >= stride - summaries).expand(tokens, -1)
    return own | own.T, columns.clone()


def heard(allow, layers):
    found = torch.eye(len(allow), dtype=torch.bool)  # before any layer: everybody holds itself
    for _ in range(layers):
        found = found | (allow.float() @ found.float() > 0)  # what i holds, or what anyone holds whom i reads
    return found


def heard_without_residual(allow, layers):
    found = torch.eye(len(allow), dtype=torch.bool)
    for _ in range(layers):
        found = allow.float() @ found.float() > 0
    return found


def heard_backwards(allow, layers):
    return heard(allow.T, layers)


def heard_paths(allow, layers):
    found = torch.eye(len(allow), dtype=torch.int64)
    for _ in range(layers):
        found = found + allow.long() @ found
    return found


def heard_one_more(allow, layers):
    return heard(allow, layers + 1)


def heard_once(allow, layers):
    return heard(allow, min(layers, 1))


def local_attention(q, k, v, window):
    tokens, n = len(q), -(-len(q) // window)  # n blocks; the last one may be incomplete
    q, k, v = (F.pad(t, (0, 0, 0, n * window - tokens)).reshape(n, window, -1) for t in (q, k, v))  # [n, w, d]
    k, v = (torch.cat([F.pad(t, (0, 0, 0, 0, 1, 0))[:-1], t], 1) for t in (k, v))  # [n, 2w, d]: block u − 1, then u
    logits = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])  # [n, w, 2w]
    i = window + torch.arange(window)  # where a query stands among the 2w keys
    seen = torch.arange(2 * window) <= i[:, None]  # [w, 2w], causal: the same for every block …
    seen = seen.repeat(n, 1, 1)
    seen[0, :, :window] = False  # … but that there is no block before block 0
    return (logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v).reshape(n * window, -1)[:tokens]


def by_mask(q, k, v, allow):
    logits = q @ k.T / math.sqrt(q.shape[-1])
    return logits.masked_fill(~allow, torch.finfo(logits.dtype).min).softmax(-1) @ v


def local_attention_masked(q, k, v, window):
    """Right, through N × N."""
    block = torch.arange(len(q)) // window
    behind = block[:, None] - block
    return by_mask(q, k, v, ((behind == 0) | (behind == 1)).tril())


def local_attention_grouped(q, k, v, window):
    """Reshaped to [w, n]: neighbours in a group stand n tokens apart."""
    tokens, n = len(q), -(-len(q) // window)
    order = torch.arange(n * window).reshape(window, n).T.flatten()
    q, k, v = (F.pad(t, (0, 0, 0, n * window - tokens))[order] for t in (q, k, v))
    y = local_attention(q, k, v, window)
    return torch.empty_like(y).index_copy(0, order, y)[:tokens]


def local_attention_own(q, k, v, window):
    block = torch.arange(len(q)) // window
    return by_mask(q, k, v, (block[:, None] == block).tril())


def local_attention_sliding(q, k, v, window):
    distance = torch.arange(len(q))[:, None] - torch.arange(len(q))
    return by_mask(q, k, v, (distance >= 0) & (distance <= window))


def local_attention_future(q, k, v, window):
    block = torch.arange(len(q)) // window
    behind = block[:, None] - block
    return by_mask(q, k, v, (behind == 0) | (behind == 1))


def before_the_first(q, k, v, window, block):
    """`local_attention` whose block 0 reads `block(keys by block)` as if it stood before it."""
    tokens, n = len(q), -(-len(q) // window)
    q, k, v = (F.pad(t, (0, 0, 0, n * window - tokens)).reshape(n, window, -1) for t in (q, k, v))
    k, v = (torch.cat([torch.cat([block(t)[None], t[:-1]]), t], 1) for t in (k, v))
    seen = torch.arange(2 * window) <= window + torch.arange(window)[:, None]
    logits = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return (logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v).reshape(n * window, -1)[:tokens]


def local_attention_zeros(q, k, v, window):
    return before_the_first(q, k, v, window, lambda blocks: torch.zeros_like(blocks[0]))


def local_attention_wrapped(q, k, v, window):
    return before_the_first(q, k, v, window, lambda blocks: blocks[-1])


def block_attention(q, k, v, padded, window):
    q, k, v = (t.reshape(-1, window, t.shape[-1]) for t in (q, k, v))  # [n, w, d]: cut the sequence, block after block
    hidden = padded.reshape(-1, 1, window)  # [n, 1, w], cut in the same way
    logits = torch.einsum("nad,nbd->nab", q, k) / math.sqrt(q.shape[-1])
    logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
    return torch.einsum("nab,nbd->nad", logits.softmax(-1), v).reshape(-1, v.shape[-1])


def block_attention_grouped(q, k, v, padded, window):
    """As it came: tokens by [w, n], the mask by [n, w]."""
    q, k, v = (t.reshape(window, -1, t.shape[-1]) for t in (q, k, v))
    hidden = padded.reshape(-1, window)[:, None, :]
    logits = torch.einsum("and,bnd->nab", q, k) / math.sqrt(q.shape[-1])
    logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
    return torch.einsum("nab,bnd->and", logits.softmax(-1), v).reshape(-1, v.shape[-1])


def block_attention_grouped_mask(q, k, v, padded, window):
    """Tokens and mask by [w, n]: consistent, and still not blocks."""
    order = torch.arange(len(q)).reshape(window, -1).T.flatten()
    y = block_attention(q[order], k[order], v[order], padded[order], window)
    return torch.empty_like(y).index_copy(0, order, y)


def block_attention_mask_left(q, k, v, padded, window):
    """Blocks are right, the mask is cut by [w, n]."""
    order = torch.arange(len(q)).reshape(window, -1).T.flatten()
    return block_attention(q, k, v, padded[order], window)


def block_attention_scrambled(q, k, v, padded, window):
    """Blocks are right, and put back by [w, n]."""
    y = block_attention(q, k, v, padded, window)
    return y.reshape(-1, window, y.shape[-1]).transpose(0, 1).reshape(len(q), -1)


def block_attention_unmasked(q, k, v, padded, window):
    return block_attention(q, k, v, torch.zeros_like(padded), window)


def lsh_attention(qk, v, buckets, chunk):
    tokens, rounds = len(qk), len(buckets)
    order = buckets.argsort(dim=-1, stable=True)  # [R, N]: tokens by (bucket, position)
    place = order.argsort(-1)  # [R, N]: where a token stands in each list
    shown = order.reshape(rounds, -1, chunk)  # [R, C, m]
    keys = torch.cat([shown.roll(1, 1), shown], -1)  # [R, C, 2m]: the chunk before, and the own one
    i, j = shown[..., None], keys[..., None, :]  # [R, C, m, 1] and [R, C, 1, 2m]
    met = torch.zeros(rounds, tokens // chunk, chunk, 2 * chunk)  # c: rounds in which i meets j
    for own, where in zip(buckets, place // chunk, strict=True):
        near = (where[i] == where[j]) | ((where[i] - 1) % (tokens // chunk) == where[j])
        met += near & (own[i] == own[j])
    r = torch.arange(rounds)[:, None, None, None]
    seen = (buckets[r, i] == buckets[r, j]) & (j <= i)
    logits = torch.einsum("rcmd,rcnd->rcmn", qk[shown], F.normalize(qk, dim=-1)[keys]) / math.sqrt(qk.shape[-1])
    logits = (logits - met.clamp(min=1).log()).masked_fill(i == j, -1e4)  # itself, only where nobody else is met
    logits = logits.masked_fill(~seen, -1e9)
    peak = logits.amax(-1)  # [R, C, m]
    weights = (logits - peak[..., None]).exp()
    y, z = weights @ v[keys], weights.sum(-1)  # not yet divided: [R, C, m, d_v] and [R, C, m]
    y, z, peak = (t.flatten(1, 2)[torch.arange(rounds)[:, None], place] for t in (y, z, peak))  # unsorted: [R, N, …]
    share = (peak - peak.amax(0)).exp()  # every round's sum on one scale
    return (share[..., None] * y).sum(0) / (share * z).sum(0)[:, None]


def met_in_rounds(buckets, chunk, look_back=True, same_bucket=True, sort=True):
    """How often query i meets key j in each round, [R, N, N]."""
    tokens = buckets.shape[-1]
    order = buckets.argsort(dim=-1, stable=True) if sort else torch.arange(tokens).expand_as(buckets)
    where = order.argsort(-1) // chunk
    near = where[:, :, None] == where[:, None, :]
    if look_back:
        near = near | ((where[:, :, None] - 1) % (tokens // chunk) == where[:, None, :])
    return near & (buckets[:, :, None] == buckets[:, None, :]) if same_bucket else near


def by_pairs(qk, v, met, *, itself=False, normalise=True, once=True):
    """The definition on N × N scores, with one thing or another wrong."""
    keys = F.normalize(qk, dim=-1) if normalise else qk
    logits = qk @ keys.T / math.sqrt(qk.shape[-1])
    count = met.sum(0)
    if not once:
        logits = logits + count.clamp(min=1).log()
    logits = logits.masked_fill(~(count > 0).tril(), -1e9)
    if not itself:
        logits = logits.masked_fill(torch.eye(len(qk), dtype=torch.bool), -1e4)
    return logits.softmax(-1) @ v


def lsh_attention_pairs(qk, v, buckets, chunk):
    """Right, through N × N."""
    return by_pairs(qk, v, met_in_rounds(buckets, chunk))


def lsh_attention_itself(qk, v, buckets, chunk):
    return by_pairs(qk, v, met_in_rounds(buckets, chunk), itself=True)


def lsh_attention_twice(qk, v, buckets, chunk):
    return by_pairs(qk, v, met_in_rounds(buckets, chunk), once=False)


def lsh_attention_no_look_back(qk, v, buckets, chunk):
    return by_pairs(qk, v, met_in_rounds(buckets, chunk, look_back=False))


def lsh_attention_across(qk, v, buckets, chunk):
    return by_pairs(qk, v, met_in_rounds(buckets, chunk, same_bucket=False))


def lsh_attention_long_keys(qk, v, buckets, chunk):
    return by_pairs(qk, v, met_in_rounds(buckets, chunk), normalise=False)


def lsh_attention_unsorted(qk, v, buckets, chunk):
    return by_pairs(qk, v, met_in_rounds(buckets, chunk, sort=False))


def lsh_attention_mean(qk, v, buckets, chunk):
    return torch.stack([by_pairs(qk, v, met[None]) for met in met_in_rounds(buckets, chunk)]).mean(0)


def lsh_attention_left_sorted(qk, v, buckets, chunk):
    met = met_in_rounds(buckets, chunk)
    order = buckets.argsort(dim=-1, stable=True)
    return by_pairs(qk, v, met)[order[0]]
