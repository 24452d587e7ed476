"""Linear attention: softmax's kernel replaced by a feature map, so that sums over keys are shared by all queries.

Paper: Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
ICML 2020 (arXiv 2006.16236).

    y_i = φ(q_i) Σ_j φ(k_j)ᵀ v_j  /  φ(q_i) Σ_j φ(k_j)ᵀ          φ(x) = elu(x) + 1          (1)

The causal form sums over j ≤ i, and is a recurrence with a state of d·d_v + d numbers a head:

    S_i = S_{i-1} + φ(k_i)ᵀ v_i      z_i = z_{i-1} + φ(k_i)      y_i = φ(q_i) S_i / φ(q_i) z_iᵀ     (2)

Cost for N tokens of width d: O(N d²) time and O(d²) state, against O(N² d) and O(N²).

Other choices of φ share all but φ: **kernel attention is a feature map and one of two products**, `full_product` over
all keys or `causal_product` over those so far. Performer and cosFormer are `kernel_sums` of their own features; what
remains theirs is φ and how they divide.
"""

import math

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, visible, working_dtype

EPS = 1e-6  # added to the denominator, as the authors do


def elu_feature_map(x):
    """φ(x) = elu(x) + 1: positive, and with a gradient everywhere (the authors' reason to prefer it to relu)."""
    return F.elu(x) + 1.0


def linear_weights(q, k, *, is_causal=False, key_padding_mask=None, feature_map=elu_feature_map, eps=EPS):
    """The map that eq. (1) applies without ever forming it: φ(q_i)·φ(k_j), divided by its row sum + eps.

    Args: as `linear_attention`.
    Returns: [B, H, N, M]; rows sum to one up to eps, a row that sees no key is zero.
    """
    phi_q, phi_k = feature_map(q), feature_map(k)
    similarity = kernel_similarity(phi_q, phi_k, is_causal=is_causal, key_padding_mask=key_padding_mask)
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
    phi_q, phi_k = feature_map(q), feature_map(k)
    numerator, denominator = kernel_sums(phi_q, phi_k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
    return (numerator / (denominator + eps)).to(v.dtype)


def kernel_similarity(phi_q, phi_k, *, is_causal=False, key_padding_mask=None, floor=0.0):
    """φ(q_i)·φ(k_j) for every visible pair, zero for the others: what kernel attention never forms, [B, H, N, M]."""
    check_heads(phi_q, phi_k, phi_k, is_causal)
    check_mask(key_padding_mask, phi_k.shape[0], phi_k.shape[2])
    similarity = phi_q @ phi_k.transpose(-1, -2) + floor  # [B, H, N, M], none negative
    sizes, masks = similarity.shape[2:], {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    seen = visible(*sizes, **masks, device=similarity.device)
    return similarity if seen is None else similarity.masked_fill(~seen, 0.0)


def kernel_sums(phi_q, phi_k, v, *, is_causal=False, key_padding_mask=None, floor=0.0):
    """Both sums of eq. (1), or (2), for queries and keys that already are features; dividing is the caller's affair.

    Args:
        phi_q: φ(q) [B, H, N, m];  phi_k: φ(k) [B, H, M, m];  v: values [B, H, M, d_v].
        is_causal, key_padding_mask: as `linear_attention`.
        floor: added to the similarity φ(q)·φ(k) of every visible pair.

    Returns: numerator [B, H, N, d_v] and denominator [B, H, N, 1], in float32 for half-precision input.
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(phi_q, phi_k, v, is_causal)
    check_mask(key_padding_mask, phi_k.shape[0], phi_k.shape[2])
    values = F.pad(v, (0, 1), value=1.0)  # [B, H, M, d_v + 1]: the denominator is the same sum with v = 1
    if key_padding_mask is not None:
        # here, and not a zero key before φ: φ(0) = 1 would still count in the denominator
        values = values.masked_fill(key_padding_mask[:, None, :, None], 0.0)
    summed = causal_product(phi_q, phi_k, values) if is_causal else full_product(phi_q, phi_k, values)
    if floor:
        values = values.to(summed.dtype)
        summed = summed + floor * (values.cumsum(2) if is_causal else values.sum(2, keepdim=True))
    return summed[..., :-1], summed[..., -1:]


def empty_sums(batch_size, num_heads, num_features, head_dim, like):
    """The state of eq. (2) before the first token: `S` [B, H, m, d_v] and `z` [B, H, m], zero; `like` says where."""
    shape, dtype = (batch_size, num_heads, num_features), working_dtype(like)
    return {"S": like.new_zeros(*shape, head_dim, dtype=dtype), "z": like.new_zeros(shape, dtype=dtype)}


def add_token(phi_q, phi_k, v, state):
    """Eq. (2) for one token, φ(q), φ(k) [B, H, m] and v [B, H, d_v]: O(m d_v) time whatever came before.

    Returns: numerator [B, H, d_v], denominator [B, H, 1], and the state with the token in both sums.
    """
    phi_q, phi_k = (phi.to(state["z"].dtype) for phi in (phi_q, phi_k))
    S = state["S"] + phi_k[..., None] * v[..., None, :]
    z = state["z"] + phi_k
    numerator = (phi_q[..., None, :] @ S)[..., 0, :]
    return numerator, (phi_q * z).sum(-1, keepdim=True), state | {"S": S, "z": z}


def full_product(q, k, v):
    """Σ_j (q_i · k_j) v_j for every i, bracketed as q (kᵀ v): one d × d_v matrix serves all queries.

    Args: q [B, H, N, d], k [B, H, M, d], v [B, H, M, d_v].
    Returns: [B, H, N, d_v], in float32 for half-precision input.
    """
    q, k, v = (t.to(working_dtype(t)) for t in (q, k, v))
    return q @ (k.transpose(-1, -2) @ v)


def chunk_size(d, d_v):
    """Tokens a chunk: about √(d d_v), where the map inside a chunk and the state between chunks cost the same."""
    return 2 ** min(7, max(5, round(math.log2(d * d_v) / 2)))  # 32 … 128: smaller products are all overhead


def causal_product(q, k, v, *, chunk=None):
    """Σ_{j ≤ i} (q_i · k_j) v_j for every i in linear time: quadratic inside a chunk, a d × d_v state between chunks.

    The one idea behind every causal linear-time attention here; normalising is the caller's affair.

    Args: q, k [B, H, N, d], v [B, H, N, d_v]; chunk: tokens handled at once, `chunk_size` unless given.
    Returns: [B, H, N, d_v], in float32 for half-precision input.
    """
    q, k, v = (t.to(working_dtype(t)) for t in (q, k, v))
    batch_and_heads, tokens = q.shape[:2], q.shape[2]
    chunk = chunk_size(k.shape[-1], v.shape[-1]) if chunk is None else chunk
    if tokens <= chunk:
        return (q @ k.transpose(-1, -2)).tril() @ v
    chunks, short = -(-tokens // chunk), -tokens % chunk
    if short:  # zeros fill the last chunk: a zero key adds nothing to any sum
        q, k, v = (F.pad(t, (0, 0, 0, short)) for t in (q, k, v))
    q, k, v = (t.reshape(-1, chunk, t.shape[-1]) for t in (q, k, v))  # [B·H·chunks, C, ·]: one batch of small products
    added = (k.transpose(-1, -2) @ v).unflatten(0, (-1, chunks))  # [B·H, chunks, d, d_v], what each adds to the state
    before = F.pad(added.cumsum(1)[:, :-1], (0, 0, 0, 0, 1, 0)).flatten(0, 1)  # the state before each chunk
    inside = (q @ k.transpose(-1, -2)).tril()  # [B·H·chunks, C, C]
    return torch.baddbmm(q @ before, inside, v).reshape(*batch_and_heads, -1, v.shape[-1])[:, :, :tokens]


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
        return empty_sums(batch_size, self.num_heads, self.head_dim, self.head_dim, like=self.projections.query.weight)

    def step(self, x_t, state):
        """Eq. (2) for one token."""
        q, k, v = (t[:, :, 0] for t in self.projections(x_t[:, None]))  # each [B, H, d]
        numerator, denominator, state = add_token(self.feature_map(q), self.feature_map(k), v, state)
        y = (numerator / (denominator + self.eps)).to(v.dtype)
        return self.projections.merge(y[:, :, None])[:, 0], state

    def read_context(self, context, key_padding_mask=None):
        """What cross attention keeps of a context [B, M, D]: the sums of eq. (2), S [B, H, d, d_v] and z [B, H, d]."""
        k, v = self.projections.keys_values(context)
        phi_k = self.feature_map(k)
        if key_padding_mask is not None:
            phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0.0)
        return {"S": phi_k.transpose(-1, -2) @ v, "z": phi_k.sum(2)}

    def answer(self, x_t, read):
        """Cross attention of one query [B, D] to a context that was read: [B, D], O(d d_v) a head whatever M was."""
        phi_q = self.feature_map(self.projections.queries(x_t[:, None]))  # [B, H, 1, d]
        y = phi_q @ read["S"] / (phi_q @ read["z"][..., None] + self.eps)
        return self.projections.merge(y)[:, 0]


def prefix_states(k, v, *, feature_map=elu_feature_map):
    """Every state of eq. (2), for pictures and proofs only: it takes O(N d d_v) memory, which the fast form avoids.

    Returns: S [B, H, N, d, d_v] and z [B, H, N, d] after each token.
    """
    phi_k = feature_map(k)
    return torch.einsum("bhnd,bhne->bhnde", phi_k, v).cumsum(2), phi_k.cumsum(2)
