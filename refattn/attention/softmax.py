"""Softmax attention: every query takes a weighted mean of all values, weights from the exponential of a dot product.

Paper: Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (arXiv 1706.03762), section 3.2.

    A = softmax(Q Kᵀ / √d)          (1)
    Y = A V                         (2)

Cost for N tokens of width d: O(N² d) time; the map A alone has N² entries a head. `F.scaled_dot_product_attention`
computes (2) without storing A, in blocks; the time stays quadratic.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, default_scale, visible


def masked_softmax(logits, seen=None):
    """Softmax over the last axis among the entries that may be seen; a row that sees nothing is all zero, not NaN.

    Args: logits [..., N, M];  seen: bool, broadcastable to them, True = visible, or None: all are.
    """
    if seen is None:
        return logits.softmax(-1)
    # a finite floor, not -inf: a row without any visible key stays a number, and is zeroed below
    logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    return logits.softmax(-1).masked_fill(~seen, 0.0)


def softmax_weights(q, k, *, is_causal=False, key_padding_mask=None, scale=None, allow=None):
    """The attention map, eq. (1), spelled out.

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d].
        is_causal: query i sees keys j ≤ i only (needs N == M).
        key_padding_mask: [B, M] bool, True where the key is padding.
        scale: factor on the logits, 1/√d unless given.
        allow: bool, broadcastable to [B, H, N, M], True where a sparse pattern lets query i see key j.

    Returns: [B, H, N, M], rows sum to one; a row that sees no key is all zero.
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(q, k, k, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    scale = default_scale(q.shape[-1]) if scale is None else scale
    logits = q @ k.transpose(-1, -2) * scale  # [B, H, N, M]
    seen = visible(q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask, device=q.device)
    if allow is not None:
        seen = allow if seen is None else seen & allow
    return masked_softmax(logits, seen)


def softmax_attention_explicit(q, k, v, **options):
    """Eq. (2) with the map in full: the twin of `softmax_attention`, and of every sparse form by its `allow` mask."""
    return softmax_weights(q, k, **options) @ v


def masked_attention(q, k, v, seen, *, scale=None, dropout_p=0.0):
    """Eq. (2) by torch's fused kernel where only pairs in `seen` may talk; a query that sees no key gets zero.

    Args: q, k, v as in `softmax_attention`;  seen: bool, broadcastable to [B, H, N, M], True = visible.
    """
    blind = ~seen.any(-1, keepdim=True)  # queries without any visible key
    # let a blind query see everything, then drop what it saw: no 0/0, and exactly zero gradient
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | blind, scale=scale, dropout_p=dropout_p)
    return y.masked_fill(blind, 0.0)


def softmax_attention(q, k, v, *, is_causal=False, key_padding_mask=None, scale=None, dropout_p=0.0):
    """Eq. (2) by torch's fused kernel, which never stores the map.

    Args: as `softmax_weights`, with values v [B, H, M, d_v] and a dropout rate on the weights.
    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    if key_padding_mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale, dropout_p=dropout_p)
    seen = visible(q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask, device=q.device)
    return masked_attention(q, k, v, seen, scale=scale, dropout_p=dropout_p)


class SoftmaxAttention(Attention):
    """Multi-head softmax attention (Vaswani et al. 2017, section 3.2.2): the baseline of every paper here.

    Its step form is a key/value cache: the state grows with the sequence, the cost of a step too.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    @classmethod
    def from_torch(cls, mha):
        """The same layer with the weights of an `nn.MultiheadAttention` (of equal key, value and model width)."""
        if mha.in_proj_weight is None:
            raise ValueError(
                f"mha has kdim={mha.kdim}, vdim={mha.vdim}: wanted both equal to embed_dim={mha.embed_dim}"
            )
        if mha.bias_k is not None or mha.add_zero_attn:
            raise ValueError("mha was built with add_bias_kv or add_zero_attn: this layer has neither")
        biased = mha.in_proj_bias is not None
        layer = cls(mha.embed_dim, mha.num_heads, dropout=mha.dropout, bias=biased)
        layer.to(mha.in_proj_weight)
        parts = (layer.projections.query, layer.projections.key, layer.projections.value)
        with torch.no_grad():
            for part, weight in zip(parts, mha.in_proj_weight.chunk(3), strict=True):
                part.weight.copy_(weight)
            layer.projections.output.weight.copy_(mha.out_proj.weight)
            if biased:
                for part, bias in zip(parts, mha.in_proj_bias.chunk(3), strict=True):
                    part.bias.copy_(bias)
                layer.projections.output.bias.copy_(mha.out_proj.bias)
        return layer

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (2) for every head. Shapes: see `refattn.attention.base`."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        y = softmax_attention(
            q, k, v, is_causal=self.is_causal, key_padding_mask=key_padding_mask, dropout_p=self.drop
        )  # [B, H, N, d]
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the map of eq. (1), [B, H, N, M]."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        return {"effective": softmax_weights(q, k, is_causal=self.is_causal, key_padding_mask=key_padding_mask)}

    def init_state(self, batch_size, carry=None):
        """An empty cache: keys and values `[B, H, 0, d]`."""
        weight = self.projections.query.weight
        empty = weight.new_zeros(batch_size, self.num_heads, 0, self.head_dim)
        return {"keys": empty, "values": empty}

    def step(self, x_t, state):
        """One token: append its key and value, attend to all so far. O(t d) for token t."""
        q, k, v = self.projections(x_t[:, None])
        state = {"keys": torch.cat([state["keys"], k], 2), "values": torch.cat([state["values"], v], 2)}
        y = softmax_attention(q, state["keys"], state["values"])
        return self.projections.merge(y)[:, 0], state

    def read_context(self, context, key_padding_mask=None):
        """What cross attention keeps of a context [B, M, D]: keys and values [B, H, M, d], and the mask [B, M]."""
        keys, values = self.projections.keys_values(context)
        return {"keys": keys, "values": values, "mask": key_padding_mask}

    def answer(self, x_t, read):
        """Cross attention of one query [B, D] to a context that was read: [B, D], O(M d) a head."""
        q = self.projections.queries(x_t[:, None])
        y = softmax_attention(q, read["keys"], read["values"], key_padding_mask=read["mask"])
        return self.projections.merge(y)[:, 0]


def from_torch(mha: nn.MultiheadAttention) -> SoftmaxAttention:
    """`SoftmaxAttention.from_torch`, for reading as a sentence: `softmax.from_torch(mha)`."""
    return SoftmaxAttention.from_torch(mha)
