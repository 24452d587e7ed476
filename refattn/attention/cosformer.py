"""cosFormer: attention weights from a product of ReLUs and a cosine of the distance, both of which factorise.

Paper: Qin et al., "cosFormer: Rethinking Softmax in Attention", ICLR 2022 (arXiv 2202.08791).

    s_ij = relu(q_i)·relu(k_j) cos(π/2 · (i − j) / M*)                   y_i = Σ_j s_ij v_j / Σ_j s_ij       (1)
    cos(a − b) = cos a cos b + sin a sin b                               Ptolemy's identity                  (2)
    φ(x_i) = [relu(x_i) cos θ_i, relu(x_i) sin θ_i]    θ_i = π i / 2M*   s_ij = φ(q_i)·φ(k_j)                (3)

So (1) is kernel attention (see `linear.py`) with features twice as wide as a head. The authors name two properties that
make softmax work, and (1) has both: no weight is negative, and weights concentrate, here on near tokens. The cosine
stays positive because no two tokens are M* apart: the authors take the longer of both sequences, max(N, M). That length
is unknown while a sequence grows, and padding changes it; so M* is a constant here, and theirs is an option.

Cost for N tokens of width d: O(N d²) time and O(d²) state, twice those of linear attention.
"""

import math

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, working_dtype
from refattn.attention.linear import add_token, empty_sums, kernel_similarity, kernel_sums

MAX_LEN = 1024
EPS = 1e-6  # no denominator is smaller, as the authors do: it bounds the gradient of a query that is hardly active


def cosine_reach(longest, max_len=MAX_LEN):
    """M* of eq. (1): `max_len`, or, if that is None, the longer of both sequences (`longest`), as the authors do.

    Raises: ValueError beyond max_len, where the cosine would turn negative.
    """
    if max_len is not None and longest > max_len:
        raise ValueError(f"{longest} tokens with max_len={max_len}: wanted at most {max_len}, or a larger max_len")
    return max(1, longest) if max_len is None else max_len


def cosformer_features(x, reach, *, first=0, feature_map=F.relu):
    """φ of eq. (3) for tokens at positions first, first + 1, …; only differences of positions matter.

    Args: x: queries or keys [B, H, N, d];  reach: M*, see `cosine_reach`;  feature_map: non-negative.
    Returns: [B, H, N, 2d], none negative since 0 ≤ θ < π/2; in float32 for half-precision input.
    """
    dtype = working_dtype(x)
    angles = torch.arange(first, first + x.shape[2], device=x.device, dtype=dtype) * (math.pi / (2 * reach))  # θ [N]
    turn = torch.stack([angles.cos(), angles.sin()], -1)[..., None]  # [N, 2, 1]
    return (feature_map(x).to(dtype)[..., None, :] * turn).flatten(-2)


def cosformer_weights(q, k, *, is_causal=False, key_padding_mask=None, max_len=MAX_LEN, eps=EPS, feature_map=F.relu):
    """The map that `cosformer_attention` applies implicitly, straight from eq. (1).

    Args: as `cosformer_attention`.
    Returns: [B, H, N, M]; rows sum to one, or to less where the sum in eq. (1) is below eps: a query without a positive
        entry, or whose keys have none where it has one, gets a row of zeros.
    """
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    similarity = kernel_similarity(feature_map(q), feature_map(k), **masks)  # [B, H, N, M]
    i, j = (torch.arange(size, device=q.device, dtype=q.dtype) for size in similarity.shape[2:])
    distance = i[:, None] - j  # [N, M]
    similarity = similarity * (distance * (math.pi / 2 / cosine_reach(max(similarity.shape[2:]), max_len))).cos()
    return similarity / similarity.sum(-1, keepdim=True).clamp(min=eps)


def cosformer_attention_explicit(q, k, v, **options):
    """Eq. (1) through the full N × M map: the quadratic twin of `cosformer_attention`."""
    return cosformer_weights(q, k, **options) @ v


def cosformer_attention(
    q, k, v, *, is_causal=False, key_padding_mask=None, max_len=MAX_LEN, eps=EPS, feature_map=F.relu
):
    """Kernel attention with the features of eq. (3): eq. (1), linear in the number of tokens.

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d];  v: values [B, H, M, d_v]. Queries and keys are not scaled:
            eq. (1) does not change with their length.
        is_causal: query i sees keys j ≤ i only (needs N == M).
        key_padding_mask: [B, M] bool, True where the key is padding. It keeps its position.
        max_len: M* of eq. (1); None: the longer of queries and keys, as the authors do, so that early outputs change
            when the sequence grows.
        eps: the least denominator.  feature_map: in the place of relu; must be non-negative.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit, or beyond max_len.
    """
    check_heads(q, k, v, is_causal)
    reach = cosine_reach(max(q.shape[2], k.shape[2]), max_len)
    phi_q, phi_k = (cosformer_features(x, reach, feature_map=feature_map) for x in (q, k))
    numerator, denominator = kernel_sums(phi_q, phi_k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
    return (numerator / denominator.clamp(min=eps)).to(v.dtype)


class CosFormer(Attention):
    """Multi-head cosFormer attention (Qin et al. 2022): softmax attention's layer around eq. (1).

    Args: those of `Attention`; `max_len`, `eps` and `feature_map` as in `cosformer_attention`. A max_len far beyond
        what is read makes the cosine flat: give the length of the task.
    In cross attention both sequences count from their own beginning, so distances align the two beginnings.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    def __init__(self, embed_dim, num_heads, *, max_len=MAX_LEN, eps=EPS, feature_map=F.relu, **common):
        super().__init__(embed_dim, num_heads, **common)
        if max_len is not None and max_len < 1:
            raise ValueError(f"max_len={max_len}: wanted a positive number, or None")
        if eps <= 0:
            raise ValueError(f"eps={eps}: wanted a positive number")
        self.max_len, self.eps, self.feature_map = max_len, eps, feature_map

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (1) for every head; dropout acts on the attended values, since there are no weights to drop."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        y = cosformer_attention(q, k, v, key_padding_mask=key_padding_mask, **self.options())
        return self.projections.merge(F.dropout(y, self.drop)), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the implicit map, [B, H, N, M]."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        return {"effective": cosformer_weights(q, k, key_padding_mask=key_padding_mask, **self.options())}

    def options(self):
        """What every function of this file needs to know of the layer."""
        chosen = {"max_len": self.max_len, "eps": self.eps, "feature_map": self.feature_map}
        return chosen | {"is_causal": self.is_causal}

    def init_state(self, batch_size, carry=None):
        """Before the first token: `S` [B, H, 2d, d_v], `z` [B, H, 2d], and the position, `num_steps`."""
        if self.max_len is None:
            raise ValueError("max_len=None: the length of a sequence is unknown while it is written; wanted a number")
        weight = self.projections.query.weight
        sums = empty_sums(batch_size, self.num_heads, 2 * self.head_dim, self.head_dim, like=weight)
        return sums | {"num_steps": 0}

    def step(self, x_t, state):
        """One token: its features turn with its position; the state does not grow."""
        place = state["num_steps"]
        turned = {"reach": cosine_reach(place + 1, self.max_len), "first": place, "feature_map": self.feature_map}
        q, k, v = self.projections(x_t[:, None])  # each [B, H, 1, d]
        phi_q, phi_k = (cosformer_features(x, **turned)[:, :, 0] for x in (q, k))
        numerator, denominator, state = add_token(phi_q, phi_k, v[:, :, 0], state)
        y = (numerator / denominator.clamp(min=self.eps)).to(v.dtype)
        return self.projections.merge(y[:, :, None])[:, 0], state | {"num_steps": place + 1}
