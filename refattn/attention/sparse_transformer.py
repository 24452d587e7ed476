"""Sparse Transformer: two patterns of about √N keys each, chosen so that two steps connect any two tokens.

Paper: Child et al., "Generating Long Sequences with Sparse Transformers", 2019 (arXiv 1904.10509), section 4.

With a stride l ≈ √N, and j ≤ i if causal:

    strided    A¹_ij = [i − l ≤ j]  (|i − j| ≤ l if not causal)         A²_ij = [(i − j) mod l = 0]                 (1)
    fixed      A¹_ij = [⌊i/l⌋ = ⌊j/l⌋]                                 A²_ij = [j mod l ≥ l − c]                    (2)
    y_i = Σ_j softmax_j(q_i·k_j / √d over allowed j) v_j                                                          (3)

Strided: the last l tokens, and every l-th one. Fixed: one's own block, and the c summary columns that end each block.
(The authors' code has windows of l keys, itself included, not l + 1, and can give every head its own summaries.)
A head reads the union of both ("merged"), or even heads A¹ and odd heads A² ("per_head"), or layers take turns with
"first" and "second". Where a query's part is empty (A² of (2) before the first summary) it reads nothing and gets zero.

No N × N mask is needed: written as rows of l tokens, the window of (1) is a block and its neighbours, and (i − j) mod
l = 0 are columns. So both are small dense attentions, over rows and over columns, under one softmax; pairs in both
parts (j = i and i ± l) are taken from the window alone.

Cost for N tokens: O(N (l + N/l) d) time, O(N (l + N/l)) scores, or with c N/l for N/l in (2): O(N √N) at l = √N.
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, default_scale
from refattn.attention.blocks import (
    as_keys,
    block_attention,
    check_self_attention,
    join,
    real_tokens,
    split,
    window_distance,
    windows,
)
from refattn.attention.softmax import masked_attention, masked_softmax, softmax_attention_explicit, softmax_weights

PATTERNS, MODES = ("strided", "fixed"), ("merged", "per_head", "first", "second")


def component_masks(tokens, *, pattern, stride, num_summary=1, is_causal=False, device=None):
    """A¹ and A² of eq. (1) or (2), each bool [N, N]: the definition. Args: as `sparse_attention`."""
    i, j = torch.arange(tokens, device=device)[:, None], torch.arange(tokens, device=device)
    if pattern == "strided":
        first, second = (i - j).abs() <= stride, (i - j) % stride == 0
    else:
        first, second = i // stride == j // stride, (j % stride >= stride - num_summary).expand(tokens, -1)
    return (first & (j <= i), second & (j <= i)) if is_causal else (first, second)


def sparse_mask(tokens, *, heads=1, mode="merged", key_padding_mask=None, device=None, **pattern):
    """Which pairs may talk in each head: bool [B or 1, H or 1, N, N]. Args: as `sparse_attention`; heads: H."""
    first, second = component_masks(tokens, device=device, **pattern)
    by_mode = {"merged": [first | second], "first": [first], "second": [second]}
    allow = by_mode[mode] if mode in by_mode else [(first, second)[h % 2] for h in range(heads)]
    return torch.stack(allow)[None] & as_keys(real_tokens(tokens, key_padding_mask, device=device))


def sparse_attention_explicit(q, k, v, **options):
    """Eq. (3) by a mask on all N × N scores: the quadratic twin of `sparse_attention`."""
    return softmax_attention_explicit(q, k, v, allow=sparse_mask(q.shape[2], heads=q.shape[1], **options))


def columns(x, stride):
    """Every l-th token together: [..., N, d] to [..., l, n, d], the transpose of `split`."""
    return split(x, stride).transpose(-3, -2)


def strided_attention(q, k, v, real, *, stride, mode, is_causal=False, dropout_p=0.0):
    """Eqs. (1) and (3) for heads of one mode, any but "per_head". real: see `blocks.real_tokens`. Args: see below."""
    tokens, reach = q.shape[2], (stride, 0 if is_causal else stride)
    distance = window_distance(stride, *reach, device=q.device)  # [l, W]
    near = as_keys(windows(real, stride, *reach)) & (distance.abs() <= stride)  # [B or 1, 1, n, l, W]
    near = near & (distance >= 0) if is_causal else near
    if mode == "first":
        k, v = windows(k, stride, *reach), windows(v, stride, *reach)  # [B, H, n, W, d]
        return join(block_attention(split(q, stride), k, v, near, dropout_p=dropout_p), tokens)

    rows = torch.arange(near.shape[2], device=q.device)
    ahead = rows[:, None] - rows  # i − j in rows of l, [n, n]
    allowed = ahead >= 0 if is_causal else torch.ones_like(ahead, dtype=torch.bool)
    if mode == "merged":
        allowed = allowed & (ahead.abs() > 1)  # the window has the others
    far = as_keys(columns(real, stride)) & allowed  # [B or 1, 1, l, n, n]
    q_far, k_far, v_far = (columns(t, stride) for t in (q, k, v))  # [B, H, l, n, d]
    if mode == "second":
        y = block_attention(q_far, k_far, v_far, far, dropout_p=dropout_p)
        return join(y.transpose(2, 3), tokens)

    scale = default_scale(q.shape[-1])
    near_logits = split(q * scale, stride) @ windows(k, stride, *reach).transpose(-1, -2)  # [B, H, n, l, W]
    far_logits = (q_far * scale) @ k_far.transpose(-1, -2)  # [B, H, l, n, n]
    logits = torch.cat([near_logits, far_logits.transpose(2, 3)], -1)  # [B, H, n, l, W + n]
    weights = F.dropout(masked_softmax(logits, torch.cat([near, far.transpose(2, 3)], -1)), dropout_p)
    near_weights, far_weights = weights.split([near.shape[-1], len(rows)], -1)
    y = near_weights @ windows(v, stride, *reach) + (far_weights.transpose(2, 3) @ v_far).transpose(2, 3)
    return join(y, tokens)


def fixed_attention(q, k, v, real, *, stride, num_summary, mode, is_causal=False, dropout_p=0.0):
    """Eqs. (2) and (3) for heads of one mode, any but "per_head". real: see `blocks.real_tokens`. Args: see below."""
    tokens = q.shape[2]
    k, v, real = (split(t, stride) for t in (k, v, real))  # [B, H, n, l, d]
    own = as_keys(real)  # [B or 1, 1, n, 1, l]
    if is_causal:
        own = own & torch.ones(stride, stride, dtype=torch.bool, device=q.device).tril()
    if mode == "first":
        return join(block_attention(split(q, stride), k, v, own, dropout_p=dropout_p), tokens)

    # the c last tokens of every block, [B, H, n·c, d], and where they stand
    summary_k, summary_v, summary_real = (t[..., stride - num_summary :, :].flatten(2, 3) for t in (k, v, real))
    place = torch.arange(k.shape[2] * stride, device=q.device).unflatten(0, (-1, stride))
    place = place[:, stride - num_summary :].flatten()
    if mode == "second":
        seen = as_keys(summary_real)
        if is_causal:
            seen = seen & (place <= torch.arange(tokens, device=q.device)[:, None])
        return masked_attention(q, summary_k, summary_v, seen, dropout_p=dropout_p)

    blocks = torch.arange(k.shape[2], device=q.device)[:, None]
    others = place // stride < blocks if is_causal else place // stride != blocks  # [n, n·c]; its own the block has
    others = as_keys(summary_real)[:, :, None] & others[:, None]  # [B or 1, 1, n, 1, n·c]
    seen = torch.cat([own, others.expand(*own.shape[:4], -1)], -1)  # [B or 1, 1, n, 1 or l, l + n·c]
    k, v = (
        torch.cat([block, summary[:, :, None].expand(-1, -1, len(blocks), -1, -1)], 3)
        for block, summary in ((k, summary_k), (v, summary_v))
    )
    return join(block_attention(split(q, stride), k, v, seen, dropout_p=dropout_p), tokens)


def sparse_attention(
    q,
    k,
    v,
    *,
    pattern="strided",
    stride,
    num_summary=1,
    mode="merged",
    is_causal=False,
    key_padding_mask=None,
    dropout_p=0.0,
):
    """Eq. (3) over rows and columns, without a score for a pair outside the pattern.

    Args:
        q, k: queries and keys [B, H, N, d];  v: values [B, H, N, d_v]; any N ≥ 1.
        pattern: "strided", eq. (1), or "fixed", eq. (2).
        stride: l.  num_summary: c of eq. (2).
        mode: "merged" (every head A¹ or A²), "per_head" (even heads A¹, odd heads A²), "first" (A¹), "second" (A²).
        is_causal: only j ≤ i, as in the paper.
        key_padding_mask: [B, N] bool, True where the key is padding.  dropout_p: rate on the weights.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_self_attention(q, k, v, key_padding_mask)
    real = real_tokens(q.shape[2], key_padding_mask, device=q.device)
    options = {"stride": stride, "is_causal": is_causal, "dropout_p": dropout_p}
    attend = strided_attention if pattern == "strided" else fixed_attention
    if pattern == "fixed":
        options["num_summary"] = num_summary
    if mode != "per_head":
        return attend(q, k, v, real, mode=mode, **options)
    y = torch.empty_like(v)
    for first_head, part in enumerate(("first", "second")[: q.shape[1]]):
        heads = slice(first_head, None, 2)
        y[:, heads] = attend(*(t[:, heads] for t in (q, k, v)), real, mode=part, **options)
    return y


class SparseTransformer(Attention):
    """Multi-head sparse attention (Child et al. 2019): softmax attention's layer around eq. (3).

    Args: those of `Attention`, and
        pattern, mode: see `sparse_attention`.
        stride: l. It does not follow the length: about √N of the longest sequence is usual.
        num_summary: c of the fixed pattern.
    """

    forms = frozenset({"causal", "mask"})

    def __init__(self, embed_dim, num_heads, *, pattern="strided", stride=32, num_summary=4, mode="merged", **common):
        super().__init__(embed_dim, num_heads, **common)
        for name, value, known in (("pattern", pattern, PATTERNS), ("mode", mode, MODES)):
            if value not in known:
                raise ValueError(f"{name}={value!r}: wanted one of {', '.join(known)}")
        if stride < 1:
            raise ValueError(f"stride={stride}: wanted at least one token")
        if pattern == "fixed" and not 1 <= num_summary <= stride:
            raise ValueError(f"num_summary={num_summary}: wanted 1 to stride={stride} of a block's columns")
        self.pattern, self.stride, self.num_summary, self.mode = pattern, stride, num_summary, mode

    def options(self):
        """What `sparse_mask` and both forms of eq. (3) need to know of the layer."""
        return {name: getattr(self, name) for name in ("pattern", "stride", "num_summary", "mode", "is_causal")}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (3) for every head. Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x)
        y = sparse_attention(q, k, v, key_padding_mask=key_padding_mask, dropout_p=self.drop, **self.options())
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the map of eq. (3), [B, H, N, N]; `"allow"`: the pattern, bool [B or 1, H or 1, N, N]."""
        self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x)
        masks = {"heads": self.num_heads, "key_padding_mask": key_padding_mask, "device": x.device}
        allow = sparse_mask(x.shape[1], **masks, **self.options())
        return {"effective": softmax_weights(q, k, allow=allow), "allow": allow}
