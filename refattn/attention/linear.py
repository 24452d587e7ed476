"""Linear attention: softmax's kernel replaced by a feature map, so that sums over keys are shared by all queries.

Paper: Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
ICML 2020 (arXiv 2006.16236).

    y_i = φ(q_i) Σ_j φ(k_j)ᵀ v_j  /  φ(q_i) Σ_j φ(k_j)ᵀ          φ(x) = elu(x) + 1          (1)

The causal form sums over j ≤ i, and is a recurrence with a state of d·d_v + d numbers a head:

    S_i = S_{i-1} + φ(k_i)ᵀ v_i      z_i = z_{i-1} + φ(k_i)      y_i = φ(q_i) S_i / φ(q_i) z_iᵀ     (2)

Cost for N tokens of width d: O(N d²) time and O(d²) state, against O(N² d) and O(N²).
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, visible, working_dtype

CHUNK = 128  # tokens handled at once by the causal form: a [CHUNK, CHUNK] map inside, one d×d_v state between chunks
EPS = 1e-6  # added to the denominator, as the authors do


def elu_feature_map(x):
    """φ(x) = elu(x) + 1: positive, and with a gradient everywhere (the authors' reason to prefer it to relu)."""
    return F.elu(x) + 1.0


def linear_weights(q, k, *, is_causal=False, key_padding_mask=None, feature_map=elu_feature_map, eps=EPS):
    """The map that eq. (1) applies without ever forming it: φ(q_i)·φ(k_j), divided by its row sum + eps.

    Args: as `linear_attention`.
    Returns: [B, H, N, M]; rows sum to one up to eps, a row that sees no key is zero.
    """
    check_heads(q, k, k, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    similarity = feature_map(q) @ feature_map(k).transpose(-1, -2)  # [B, H, N, M], all positive
    seen = visible(q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask, device=q.device)
    if seen is not None:
        similarity = similarity.masked_fill(~seen, 0.0)
    return similarity / (similarity.sum(-1, keepdim=True) + eps)


def linear_attention_explicit(q, k, v, **options):
    """Eq. (1) through the full N × M map: the quadratic twin of `linear_attention`."""
    return linear_weights(q, k, **options) @ v


def linear_attention(q, k, v, *, is_causal=False, key_padding_mask=None, feature_map=elu_feature_map, eps=EPS):
    """Kernelised attention, eq. (1), or eq. (2) when causal; linear in the number of tokens.

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d];  v: values [B, H, M, d_v].
        is_causal: query i sees keys j ≤ i only (needs N == M).
        key_padding_mask: [B, M] bool, True where the key is padding.
        feature_map: φ, applied to the last axis of q and k; must be non-negative.
        eps: added to the denominator.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    phi_q, phi_k = feature_map(q), feature_map(k)
    if key_padding_mask is not None:
        # after φ, not before: φ(0) = 1 would still count a padded key in the denominator
        phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0.0)
    values = F.pad(v, (0, 1), value=1.0)  # [B, H, M, d_v + 1]: the denominator is the same sum with v = 1
    summed = causal_product(phi_q, phi_k, values) if is_causal else full_product(phi_q, phi_k, values)
    numerator, denominator = summed[..., :-1], summed[..., -1:]
    return (numerator / (denominator + eps)).to(v.dtype)


def full_product(q, k, v):
    """Σ_j (q_i · k_j) v_j for every i, bracketed as q (kᵀ v): one d × d_v matrix serves all queries.

    Args: q [B, H, N, d], k [B, H, M, d], v [B, H, M, d_v].
    Returns: [B, H, N, d_v], in float32 for half-precision input.
    """
    q, k, v = (t.to(working_dtype(t)) for t in (q, k, v))
    return q @ (k.transpose(-1, -2) @ v)


def causal_product(q, k, v, *, chunk=CHUNK):
    """Σ_{j ≤ i} (q_i · k_j) v_j for every i in linear time: quadratic inside a chunk, a d × d_v state between chunks.

    The one idea behind every causal linear-time attention here; normalising is the caller's affair.

    Args: q, k [B, H, N, d], v [B, H, N, d_v]; chunk: tokens handled at once.
    Returns: [B, H, N, d_v], in float32 for half-precision input.
    """
    q, k, v = (t.to(working_dtype(t)) for t in (q, k, v))
    tokens = q.shape[2]
    if tokens <= chunk:
        return (q @ k.transpose(-1, -2)).tril() @ v
    short = -tokens % chunk  # zeros fill the last chunk: a zero key adds nothing to any sum
    q, k, v = (F.pad(t, (0, 0, 0, short)).unflatten(2, (-1, chunk)) for t in (q, k, v))  # [B, H, chunks, C, ·]
    added = k.transpose(-1, -2) @ v  # [B, H, chunks, d, d_v]: what each chunk adds to the state
    before = added.cumsum(2) - added  # the state before each chunk
    inside = (q @ k.transpose(-1, -2)).tril() @ v  # [B, H, chunks, C, d_v]
    return (inside + q @ before).flatten(2, 3)[:, :, :tokens]


class LinearAttention(Attention):
    """Multi-head linear attention (Katharopoulos et al. 2020): softmax attention's layer around eq. (1).

    Args: those of `Attention`; `feature_map`: φ; `eps`: added to the denominator.
    Queries and keys are not scaled: φ is not homogeneous, and the authors do not scale either.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    def __init__(self, embed_dim, num_heads, *, feature_map=elu_feature_map, eps=EPS, **common):
        super().__init__(embed_dim, num_heads, **common)
        self.feature_map, self.eps = feature_map, eps

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (1) for every head; dropout acts on the attended values, since there are no weights to drop."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        y = linear_attention(q, k, v, key_padding_mask=key_padding_mask, **self.options())
        return self.projections.merge(F.dropout(y, self.drop)), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the implicit map, [B, H, N, M]."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        return {"effective": linear_weights(q, k, key_padding_mask=key_padding_mask, **self.options())}

    def options(self):
        """What every function of this file needs to know of the layer."""
        return {"is_causal": self.is_causal, "feature_map": self.feature_map, "eps": self.eps}

    def init_state(self, batch_size, carry=None):
        """Eq. (2) before the first token: `S` [B, H, d, d_v] and `z` [B, H, d], zero."""
        weight = self.projections.query.weight
        shape = (batch_size, self.num_heads, self.head_dim)
        dtype = working_dtype(weight)
        return {"S": weight.new_zeros(*shape, self.head_dim, dtype=dtype), "z": weight.new_zeros(shape, dtype=dtype)}

    def step(self, x_t, state):
        """Eq. (2) for one token: O(d d_v) time whatever came before."""
        q, k, v = (t[:, :, 0] for t in self.projections(x_t[:, None]))  # each [B, H, d]
        phi_q, phi_k = (self.feature_map(t).to(state["z"].dtype) for t in (q, k))
        state = {"S": state["S"] + phi_k[..., None] * v[..., None, :], "z": state["z"] + phi_k}
        numerator = (phi_q[..., None, :] @ state["S"])[..., 0, :]  # [B, H, d_v]
        denominator = (phi_q * state["z"]).sum(-1, keepdim=True) + self.eps
        y = (numerator / denominator).to(v.dtype)
        return self.projections.merge(y[:, :, None])[:, 0], state


def prefix_states(k, v, *, feature_map=elu_feature_map):
    """Every state of eq. (2), for pictures and proofs only: it takes O(N d d_v) memory, which the fast form avoids.

    Returns: S [B, H, N, d, d_v] and z [B, H, N, d] after each token.
    """
    phi_k = feature_map(k)
    return torch.einsum("bhnd,bhne->bhnde", phi_k, v).cumsum(2), phi_k.cumsum(2)
