"""Linformer: attention maps are nearly of low rank, so mix the M keys and values down to k of each, then attend.

Paper: Wang, Li, Khabsa, Fang, Ma, "Linformer: Self-Attention with Linear Complexity", 2020 (arXiv 2006.04768), sec. 4.

    K̄ = E K      V̄ = F V          E, F ∈ R^{k × M}, learned: k mixtures of the M tokens                    (1)
    A = softmax(q K̄ᵀ / √d)        [N, k]                                                                   (2)
    y = A V̄ = (A F) V             A F, [N, M], is the map of rank ≤ k that is applied                       (3)

E and F have a column for each position up to `max_len`; a shorter sequence uses the first M. A padded token adds
nothing to (1). There is no causal form: every mixture holds tokens of all positions.

The layer mixes before it projects, E (X W) = (E X) W: k rows to project for M.
Cost for N tokens: O(N D² + N k D) time and O(N k) scores a head; 2 k · max_len parameters, or half with E = F.
"""

import math

import torch
from torch import nn

from refattn.attention.base import Attention, check_heads, check_mask
from refattn.attention.blocks import real_tokens
from refattn.attention.softmax import softmax_attention, softmax_weights

SHARING = ("none", "per_head", "key_value")


def mix_tokens(mixing, x):
    """Eq. (1): k mixtures of the M tokens of x, by the first M columns of E or F.

    Args: mixing: [k, max_len], or [H, k, max_len] with heads of their own;  x: [B, M, D] or [B, H, M, d].
    Returns: [B, k, D] or [B, H, k, d].
    """
    columns = mixing[..., : x.shape[-2]]
    return columns.expand(*x.shape[: x.dim() - 2], -1, -1) @ x


def hide_padding(x, key_padding_mask=None):
    """x [B, M, D] or [B, H, M, d] with zeros at padded tokens."""
    if key_padding_mask is None:
        return x
    hidden = key_padding_mask[..., None] if x.dim() == 3 else key_padding_mask[:, None, :, None]
    return x.masked_fill(hidden, 0.0)


def linformer_attention(q, k, v, E, F, *, key_padding_mask=None, dropout_p=0.0):
    """Eqs. (1) to (3) on given queries, keys and values.

    Args:
        q: queries [B, H, N, d];  k, v: keys and values [B, H, M, ·].
        E, F: [k, max_len], or [H, k, max_len] with heads of their own; max_len ≥ M.
        key_padding_mask: [B, M] bool, True where the key is padding.  dropout_p: rate on the weights A.

    Returns: [B, H, N, d_v]; zero if no key is real.
    Raises: ValueError if the shapes do not fit.
    """
    keys, values = mixed_keys_values(q, k, v, E, F, key_padding_mask)
    return softmax_attention(q, keys, values, dropout_p=dropout_p)


def mixed_keys_values(q, k, v, E, F, key_padding_mask=None):
    """K̄ and V̄ of eq. (1), [B, H, k, ·]."""
    check_heads(q, k, v)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    check_length(k.shape[2], min(E.shape[-1], F.shape[-1]))
    return tuple(mix_tokens(m, hide_padding(x, key_padding_mask)) for m, x in ((E, k), (F, v)))


def linformer_weights(q, k, E, F, *, key_padding_mask=None):
    """A of eq. (2), [B, H, N, k], and the map A F of eq. (3), [B, H, N, M], which no fast form needs.

    Args: as `linformer_attention`.  Rows of A sum to one; rows of A F need not, as those of F do not.
    """
    A = softmax_weights(q, mixed_keys_values(q, k, k, E, F, key_padding_mask)[0])
    return A, hide_padding((A @ F[..., : k.shape[2]]).mT, key_padding_mask).mT


def linformer_attention_explicit(q, k, v, E, F, **options):
    """Eq. (3) through the map A F: the quadratic twin of `linformer_attention`."""
    return linformer_weights(q, k, E, F, **options)[1] @ v


def check_length(tokens, max_len):
    """Raise a ValueError for more tokens than E and F have columns."""
    if tokens > max_len:
        raise ValueError(f"{tokens} keys: wanted at most max_len={max_len}, the columns of E and F")


class LengthProjection(nn.Module):
    """E and F of eq. (1), to be shared by layers that are given the same one (the paper's layer-wise sharing).

    Args: max_len: columns;  projected_len: k, rows;  num_heads: H for a pair per head, None for one for all heads;
        tied: E = F.
    """

    def __init__(self, max_len, projected_len, *, num_heads=None, tied=False):
        super().__init__()
        if max_len < 1 or projected_len < 1:
            raise ValueError(f"max_len={max_len}, projected_len={projected_len}: wanted 1 or more")
        shape = (projected_len, max_len) if num_heads is None else (num_heads, projected_len, max_len)
        self.E = nn.Parameter(torch.empty(shape))
        self.F = None if tied else nn.Parameter(torch.empty(shape))
        for matrix in self.parameters():
            nn.init.uniform_(matrix, -1 / math.sqrt(projected_len), 1 / math.sqrt(projected_len))

    def matrices(self):
        """E and F; the same tensor twice when tied."""
        return self.E, self.E if self.F is None else self.F


class Linformer(Attention):
    """Multi-head Linformer attention (Wang et al. 2020).

    Args: those of `Attention`, and
        projected_len: k, mixtures of keys and values.
        max_len: most keys that E and F have columns for.
        sharing: "none": one E and one F for all heads; "per_head": a pair for each; "key_value": E = F for all heads.
        length_projection: a `LengthProjection` to use instead; given to several layers, they share it.

    Raises: ValueError for more than `max_len` keys, and for is_causal=True.
    """

    forms = frozenset({"cross", "mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        projected_len=64,
        max_len=1024,
        sharing="none",
        length_projection=None,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        if sharing not in SHARING:
            raise ValueError(f"sharing={sharing!r}: wanted one of {SHARING}, or a length_projection shared by layers")
        if length_projection is None:
            heads = num_heads if sharing == "per_head" else None
            length_projection = LengthProjection(max_len, projected_len, num_heads=heads, tied=sharing == "key_value")
        self.length_projection = length_projection

    def keys_values(self, context, key_padding_mask=None):
        """K̄ and V̄, each [B, H, k, d], without the M keys and values of all tokens unless heads mix them differently."""
        E, F = self.length_projection.matrices()
        check_length(context.shape[1], E.shape[-1])
        if E.dim() == 3:
            heads = self.projections.keys_values(context)
            return tuple(mix_tokens(m, hide_padding(x, key_padding_mask)) for m, x in zip((E, F), heads, strict=True))
        x = hide_padding(context, key_padding_mask)
        real = real_tokens(context.shape[1], key_padding_mask, device=x.device)[:, 0].to(x.dtype)  # [B or 1, M, 1]
        key, value = self.projections.key, self.projections.value or self.projections.key
        for_keys = mix_tokens(E, x), mix_tokens(E, real)  # [B, k, D] and [B or 1, k, 1]
        for_values = for_keys if F is E else (mix_tokens(F, x), mix_tokens(F, real))
        projected = project_mixture(key, *for_keys), project_mixture(value, *for_values)  # [B, k, H·d]
        return tuple(map(self.projections.split_heads, projected))

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (1) to (3) for every head. Shapes: see `refattn.attention.base`."""
        context = self.check_input(x, context, key_padding_mask)
        keys, values = self.keys_values(context, key_padding_mask)
        y = softmax_attention(self.projections.queries(x), keys, values, dropout_p=self.drop)
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"A"`: eq. (2), [B, H, N, k]; `"effective"`: A F of eq. (3), [B, H, N, M], of rank ≤ k."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        A, effective = linformer_weights(q, k, *self.length_projection.matrices(), key_padding_mask=key_padding_mask)
        return {"effective": effective, "A": A}


def project_mixture(linear, mixture, total):
    """A linear map of mixtures [B, k, D] as if it had come before mixing: its bias then counts as often as tokens do.

    Args: total: [B or 1, k, 1], the sum of each mixture's weights over real tokens.
    """
    y = linear(mixture)
    return y if linear.bias is None else y + (total - 1.0) * linear.bias
