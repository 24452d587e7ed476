"""Reformer: sort tokens by a hash that keeps similar ones together, and compare each with its neighbours in the list.

Paper: Kitaev et al., "Reformer: The Efficient Transformer", ICLR 2020 (arXiv 2001.04451), section 2 and appendix A.

Queries and keys are one projection, keys of unit length, so that "similar" means the same to both:

    h_r(i) = argmax [q_i Ω_r ; −q_i Ω_r]           round r = 1 … R: the nearest of n random directions is the bucket (1)
    L_ij = q_i·k̂_j / √d,    k̂_j = q_j / |q_j|                                                                        (2)

Every round sorts the tokens by (bucket, position) and cuts the list into chunks of m. A query sees the keys of its own
chunk and of the one before; the first chunk of a round looks back at the last of the round before, and the very first
at the very last. Let c_ij be how often query i meets key j so, over all rounds:

    y_i = Σ_j w_ij e^L_ij v_j / Σ_j w_ij e^L_ij                w = c, or 1 where c > 0 without duplicates            (3)

A token finds itself in every round and would mostly read itself, so c_ii counts as zero; only a token that meets nobody
else reads itself. (The authors' code lowers L_ii by 10⁵ instead, which is the same for all smaller logits.)

The paper normalises every round by itself and weighs the rounds by their normalisers; multiplied out, that is the one
softmax (3), and it is computed so here: the rounds share one maximum, and their sums add up.

Cost for N tokens: O(R N m d) time and O(R N m) scores. Padding goes to the end of every round's list, so it changes no
real token's neighbours (`hash_padding=True`, the authors' way, hashes it like any token).
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, Projections, default_scale, working_dtype
from refattn.attention.blocks import check_self_attention
from refattn.attention.hashing import (
    hash_buckets,
    hidden_pairs,
    meetings,
    meetings_in_chunks,
    random_rotations,
    sort_tokens,
    with_chunk_before,
)
from refattn.attention.softmax import masked_softmax


def lsh_weights(
    qk,
    buckets,
    *,
    chunk,
    is_causal=False,
    key_padding_mask=None,
    attend_across_buckets=False,
    allow_duplicates=False,
    hash_padding=False,
    scale=None,
):
    """The N × N map that `lsh_attention` applies, by eq. (3) as it stands: [B, H, N, N]. Args: as there."""
    tokens = qk.shape[2]
    count = meetings(buckets, chunk, key_padding_mask, attend_across_buckets, hash_padding)
    itself = torch.eye(tokens, dtype=torch.bool, device=qk.device)
    seen = (count > 0) & ~itself
    if is_causal:
        seen = seen.tril()
    padded = torch.zeros(1, tokens, dtype=torch.bool) if key_padding_mask is None else key_padding_mask
    padded = padded[:, None, None, :].to(qk.device)
    seen = seen & ~padded & ~padded.transpose(-1, -2)
    logits = qk @ (qk * key_factors(qk, scale)).transpose(-1, -2)
    if allow_duplicates:
        logits = logits + count.clamp(min=1).to(logits.dtype).log()
    alone = ~seen.any(-1, keepdim=True) & ~padded.transpose(-1, -2)
    return masked_softmax(logits, seen | (itself & alone))


def lsh_attention_explicit(qk, v, buckets, **options):
    """Eq. (3) on all N × N scores: the quadratic twin of `lsh_attention`."""
    return lsh_weights(qk, buckets, **options) @ v


def key_factors(qk, scale=None):
    """Factors [B, H, N, 1] that make k̂ of eq. (2), times the scale of the logits, out of qk; zero for a zero vector."""
    length = torch.linalg.vector_norm(qk, dim=-1, keepdim=True)
    length = length.masked_fill(length < torch.finfo(length.dtype).tiny, torch.inf)  # no direction, and no gradient
    return (default_scale(qk.shape[-1]) if scale is None else scale) / length


def take(tokens, order):
    """Tokens [B, H, N, d] in another order [B, H, L]: [B, H, L, d]."""
    return tokens.gather(2, order[..., None].expand(-1, -1, -1, tokens.shape[-1]))


def lsh_attention(
    qk,
    v,
    buckets,
    *,
    chunk,
    is_causal=False,
    key_padding_mask=None,
    attend_across_buckets=False,
    allow_duplicates=False,
    hash_padding=False,
    scale=None,
    dropout_p=0.0,
):
    """Eq. (3) by sorted lists and chunks.

    Args:
        qk: queries, which are the keys too, [B, H, N, d];  v: values [B, H, N, d_v].
        buckets: [B, H, R, N] integers, see `hash_buckets`.
        chunk: m.
        is_causal: query i reads keys j < i, and itself if there is none.
        key_padding_mask: [B, N] bool, True where the token is padding; its row of the result is zero.
        attend_across_buckets: all keys of both chunks are met; otherwise, as in the paper, those of the same bucket.
        allow_duplicates: a key met c times counts c times; otherwise once.
        hash_padding: padding stands among the tokens of its bucket.
        scale: factor on the logits, 1/√d unless given.
        dropout_p: rate on the weights.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_self_attention(qk, qk, v, key_padding_mask)
    tokens, dtype = qk.shape[2], working_dtype(qk)
    rounds = sort_tokens(buckets, chunk, key_padding_mask, hash_padding=hash_padding)
    order, place = rounds.order.flatten(2), rounds.place_in_all().flatten(2)  # [B, H, R·N']
    filled = F.pad(torch.cat([qk, v], -1), (0, 0, 0, rounds.order.shape[-1] - tokens)).to(dtype)  # [B, H, N', d + d_v]
    factors = take(key_factors(filled[..., : qk.shape[-1]], scale), order).unflatten(2, (-1, chunk))
    q, values = take(filled, order).unflatten(2, (-1, chunk)).split([qk.shape[-1], v.shape[-1]], -1)
    k, values = with_chunk_before(q * factors, rounds), with_chunk_before(values, rounds)  # [B, H, R·C, 2m, ·]

    logits = q @ k.transpose(-1, -2)  # [B, H, R·C, m, 2m]
    with torch.no_grad():  # in place and unseen by autograd: constants, and −∞ where the weight has no gradient anyway
        if not allow_duplicates:
            logits -= meetings_in_chunks(rounds, chunk, attend_across_buckets).clamp_(min=1).to(dtype).log_()
        logits.masked_fill_(hidden_pairs(rounds, chunk, is_causal, attend_across_buckets), -torch.inf)
        peak = logits.amax(-1).flatten(2)  # one for all rounds of a token: what they subtract must be the same
        peak = peak.gather(2, place).view_as(rounds.place).amax(2)  # [B, H, N']
        peak = peak.clamp_(min=torch.finfo(peak.dtype).min)  # a token that meets nobody: −∞ − −∞ would not be a number
        logits -= peak.gather(2, order).unflatten(2, (-1, chunk))[..., None]
    weights = logits.exp_()
    total = in_token_order(weights.sum(-1, keepdim=True), place, rounds)[:, :, :tokens]
    y = in_token_order(F.dropout(weights, dropout_p) @ values, place, rounds)[:, :, :tokens]
    alone = total == 0
    y = torch.where(alone, v, y / total.masked_fill(alone, 1.0))
    return (y if key_padding_mask is None else y.masked_fill(key_padding_mask[:, None, :, None], 0.0)).to(v.dtype)


def in_token_order(chunks, place, rounds):
    """Sums over rounds [B, H, N', d] of what the places of the list [B, H, R·C, m, d] hold for a token."""
    return take(chunks.flatten(2, 3), place).unflatten(2, rounds.place.shape[2:]).sum(2)


class Reformer(Attention):
    """Multi-head LSH attention (Kitaev et al. 2020) with shared queries and keys.

    Args: those of `Attention`, and
        chunk: m; a query meets at most 2 m keys a round.
        num_buckets: n, even. It does not follow the length: about N / m is usual.
        num_hashes: R rounds.
        attend_across_buckets, allow_duplicates, hash_padding, scale: see `lsh_attention`.
        seed: of the rotations Ω; without one they are drawn like the layer's other weights, from torch's generator.
    Ω is a buffer: saved with the weights, not trained, and the same at every call until `redraw` makes a new one.
    """

    forms = frozenset({"causal", "mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        chunk=64,
        num_buckets=16,
        num_hashes=4,
        attend_across_buckets=False,
        allow_duplicates=False,
        hash_padding=False,
        scale=None,
        seed=None,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        for name, value in (("chunk", chunk), ("num_hashes", num_hashes)):
            if value < 1:
                raise ValueError(f"{name}={value}: wanted at least one")
        if num_buckets < 2 or num_buckets % 2:
            raise ValueError(f"num_buckets={num_buckets}: wanted an even number, half for each sign of a direction")
        self.num_hashes, self.num_buckets = num_hashes, num_buckets
        self.chosen = {"chunk": chunk, "attend_across_buckets": attend_across_buckets, "scale": scale}
        self.chosen |= {"allow_duplicates": allow_duplicates, "hash_padding": hash_padding}
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        rotations = random_rotations(self.head_dim, num_hashes, num_buckets, generator)
        self.register_buffer("rotations", rotations)

    def make_projections(self, *, bias, qkv_bias):
        """No matrix for keys: they are the queries."""
        projections = Projections(self.embed_dim, self.num_heads, self.head_dim, bias=bias, qkv_bias=qkv_bias)
        projections.key = None
        return projections

    @torch.no_grad()
    def redraw(self, seed):
        """New rotations, drawn from `seed` alone (the authors draw at every call)."""
        generator = torch.Generator().manual_seed(seed)
        self.rotations.copy_(random_rotations(self.head_dim, self.num_hashes, self.num_buckets, generator))

    def parts(self, x):
        """Queries that are keys too [B, H, N, d], values [B, H, N, d] and buckets [B, H, R, N]."""
        heads = self.projections
        qk = heads.queries(x)
        v = qk if heads.value is None else heads.split_heads(heads.value(x))
        return qk, v, hash_buckets(qk, self.rotations)

    def options(self):
        """What every function of this file needs to know of the layer."""
        return self.chosen | {"is_causal": self.is_causal}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (3) for every head."""
        self.check_input(x, context, key_padding_mask)
        y = lsh_attention(*self.parts(x), key_padding_mask=key_padding_mask, dropout_p=self.drop, **self.options())
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """What is read, and how it was found.

        Returns: `"effective"` [B, H, N, N]; `"buckets"` [B, H, R, N]; `"order"` [B, H, R, N], which token stands
        where in each round's list; `"met"` [B, H, N, N], c of eq. (3), before causality and padding hide pairs.
        """
        self.check_input(x, context, key_padding_mask)
        qk, _, buckets = self.parts(x)
        chosen = self.chosen
        how = (chosen["chunk"], key_padding_mask, chosen["attend_across_buckets"], chosen["hash_padding"])
        rounds = sort_tokens(buckets, chosen["chunk"], key_padding_mask, hash_padding=chosen["hash_padding"])
        return {
            "effective": lsh_weights(qk, buckets, key_padding_mask=key_padding_mask, **self.options()),
            "buckets": buckets,
            "order": rounds.order[..., : x.shape[1]],  # what fills the last chunk stands behind
            "met": meetings(buckets, *how),
        }
