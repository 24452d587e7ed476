"""Sliced group attention: tokens cut into G slices, each attending to itself alone; shuffled before, put back after.

Paper: Shen et al., "Sliced Recursive Transformer", ECCV 2022 (arXiv 2111.05297). Card: sret. Place p of the shuffled
sequence holds token π(p); s = N / G tokens make a slice.

    allow_ij = 1  ⟺  ⌊π⁻¹(i) / s⌋ = ⌊π⁻¹(j) / s⌋                    who is in one slice                       (1)
    GA_G^π(q, k, v) = Π⁻¹ ‖_g softmax(q_g k_gᵀ / √d) v_g,   q_g = rows g s … (g + 1) s − 1 of Π q              (2)
    2 N² C / G  multiply-adds for C = H d; T passes with G_1 … G_T cost one global attention iff  Σ_t 1/G_t = 1  (3)

Maps that act on each token alone (projections, feed-forward nets) commute with cutting and shuffling. So any mechanism
can be sliced from outside, projections and all: `Sliced`. Without shuffling (π = None) slices are stretches of the
sequence; of an image read row by row they are bands, and may end in the middle of a row.
"""

import torch
from torch import nn

from refattn.attention.base import check_heads, check_mask
from refattn.attention.blocks import block_attention
from refattn.attention.softmax import softmax_attention_explicit


def inverse(permutation):
    """π⁻¹: at which place of the shuffled sequence each token stands. int64 [N] to [N]."""
    return permutation.argsort()


def cut(x, groups, permutation=None):
    """Π x in slices: [..., N, D] to [..., G, s, D].

    Raises: ValueError if `groups` does not divide N, or for a permutation of another length.
    """
    tokens = x.shape[-2]
    if groups < 1 or tokens % groups:
        raise ValueError(f"groups={groups}: wanted a divisor of the N={tokens} tokens")
    if permutation is not None:
        if permutation.shape != (tokens,):
            raise ValueError(f"permutation has shape {tuple(permutation.shape)}: wanted [N={tokens}]")
        x = x.index_select(-2, permutation)
    return x.unflatten(-2, (groups, tokens // groups))


def check_permutation(permutation, tokens):
    """The permutation. Raises: ValueError unless it holds each of 0 … N − 1 once (under torch.compile: N numbers)."""
    fits = permutation is not None and tuple(permutation.shape) == (tokens,)
    if fits and not torch.compiler.is_compiling():
        fits = sorted(permutation.tolist()) == list(range(tokens))
    if not fits:
        came = None if permutation is None else f"of shape {tuple(permutation.shape)}"
        raise ValueError(f"permutation {came}: wanted [N={tokens}] with each of 0 … {tokens - 1} once")
    return permutation


def put_back(slices, permutation=None):
    """What `cut` undoes: slices [..., G, s, D] to a sequence [..., N, D] in its first order, by π⁻¹."""
    x = slices.flatten(-3, -2)
    return x if permutation is None else x.index_select(-2, inverse(permutation))


def slice_mask(tokens, groups, permutation=None, *, device=None):
    """Eq. (1): bool [N, N], True where query i may read key j."""
    places = torch.arange(tokens, device=device) if permutation is None else inverse(permutation)
    slices = places // (tokens // groups)  # number of each token's slice
    return slices[:, None] == slices


def sliced_attention_explicit(q, k, v, groups, *, permutation=None):
    """Eq. (2) by the mask of eq. (1) on all N × N scores: the quadratic twin of `sliced_attention`."""
    return softmax_attention_explicit(q, k, v, allow=slice_mask(q.shape[2], groups, permutation, device=q.device))


def sliced_attention(q, k, v, groups, *, permutation=None):
    """Eq. (2): N² / G scores a head, the scale 1/√d whatever G is.

    Args: q, k: [B, H, N, d];  v: [B, H, N, d_v];  groups: G, a divisor of N;  permutation: π, int64 [N], or None.
    Returns: [B, H, N, d_v], in the order of the queries.
    Raises: ValueError if shapes do not fit.
    """
    check_heads(q, k, v)
    return put_back(block_attention(*(cut(t, groups, permutation) for t in (q, k, v))), permutation)


class Sliced(nn.Module):
    """Any mechanism under the attention contract, on slices; how many, and how shuffled, every call says anew.

    Args: attention: the mechanism, of self-attention. If its layers form a chain, it must begin and end one: slices of
        another cut have no use for its carry.
    """

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def slices(self, x, groups, permutation, key_padding_mask):
        """x as [B·G, s, D], and its mask as [B·G, s]: a slice is a sequence of its own."""
        check_mask(key_padding_mask, *x.shape[:2])
        if key_padding_mask is not None:
            key_padding_mask = cut(key_padding_mask[..., None], groups, permutation)[..., 0].flatten(0, 1)
        return cut(x, groups, permutation).flatten(0, 1), key_padding_mask

    def forward(self, x, *, groups=1, permutation=None, key_padding_mask=None):
        """x and result [B, N, D]; groups: G;  permutation: π, int64 [N], or None;  key_padding_mask [B, N]."""
        slices, mask = self.slices(x, groups, permutation, key_padding_mask)
        y, _ = self.attention(slices, key_padding_mask=mask)  # [B·G, s, D]
        return put_back(y.unflatten(0, (len(x), groups)), permutation)

    def attention_maps(self, x, *, groups=1, permutation=None, key_padding_mask=None):
        """`"effective"` [B, H, N, N], zero between slices; `"allow"` [N, N], eq. (1)."""
        slices, mask = self.slices(x, groups, permutation, key_padding_mask)
        maps = self.attention.attention_maps(slices, key_padding_mask=mask)["effective"]  # [B·G, H, s, s]
        maps = maps.unflatten(0, (len(x), groups)).transpose(1, 2)  # [B, H, G, s, s]
        whole = maps.new_zeros(*maps.shape[:2], *(groups, maps.shape[-1]) * 2)  # [B, H, G, s, G, s]
        for g in range(groups):
            whole[:, :, g, :, g] = maps[:, :, g]
        whole = whole.flatten(4, 5).flatten(2, 3)  # [B, H, N, N], both sides shuffled
        if permutation is not None:
            whole = whole.index_select(2, inverse(permutation)).index_select(3, inverse(permutation))
        return {"effective": whole, "allow": slice_mask(x.shape[1], groups, permutation, device=x.device)}
