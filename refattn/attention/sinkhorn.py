"""Sinkhorn attention: a learned, differentiable sort brings one distant block next to each, then attention is local.

Paper: Tay et al., "Sparse Sinkhorn Attention", ICML 2020 (arXiv 2002.11296), section 3.

The N tokens are n blocks of b. A head describes block u by the sum of its keys, and scores every block w for it:

    p_u = Σ_{t ∈ u} k_t                                     R_uw = (W_w · p_u + β_w + G_uw) / τ                      (1)
    S = e^R; T times: divide rows by their sums, then columns by theirs                                            (2)
    K̃_u = Σ_w S_uw K_w,   Ṽ_u = Σ_w S_uw V_w                token t of block w lands at offset t                     (3)
    y_u = softmax(q_u [K̃_u; K_u]ᵀ / √d) [Ṽ_u; V_u]          combine="concat": one softmax over 2b keys              (4)
    y_u = softmax(q_u K̃_uᵀ / √d) Ṽ_u + softmax(q_u K_uᵀ / √d) V_u         combine="sum_outputs"                      (5)

W [n_max, d] and β are shared by heads; G is Gumbel noise, in training only. (2) tends to a doubly stochastic S, a soft
permutation of blocks; after T rounds its columns sum to one and its rows nearly. (The paper adds the two logits, which
leaves open which values belong to a sum; (4) is our default, (5) what the Long Range Arena's code does.)

Causal: p_u sums all keys up to the first token of block u; only blocks w < u are brought, rows are divided by their sum
over w < u and columns by their sum over rows ≤ u (later rows know later tokens). The first block has its own keys only.

Padding, and what fills up the last block: a block without real tokens takes no part in (2). In (3) an offset holds the
mean over its real tokens, and counts in the softmax in proportion to their share of the row's weight.

Cost for N tokens: O(N b d) for (4) and O(n² b d) = O(N² d / b) for (3); O(N b) scores.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, check_mask, default_scale, working_dtype
from refattn.attention.blocks import as_keys, check_self_attention, join, real_tokens, split
from refattn.attention.softmax import masked_softmax

COMBINE = ("concat", "sum_outputs")


# ---- The sort, eqs. (1) and (2) --------------------------------------------------------------------------------------


def pool_blocks(k, block, is_causal=False):
    """p of eq. (1), [B, H, n, d], of keys k [B, H, N, d] that are zero at padding. Float32 for half-precision input."""
    blocks = split(k.to(working_dtype(k)), block)  # [B, H, n, b, d]
    pooled = blocks.sum(-2)
    if not is_causal:
        return pooled
    earlier = torch.cat([torch.zeros_like(pooled[:, :, :1]), pooled[:, :, :-1]], 2)
    return earlier.cumsum(2) + blocks[..., 0, :]


def sort_logits(pooled, W, b, *, temperature=1.0, gumbel=None):
    """R of eq. (1), [B, H, n, n], of p [B, H, n, d], W [n_max, d], β [n_max] and noise G [B, H, n, n] or None.

    Raises: ValueError for more than n_max blocks.
    """
    n = pooled.shape[2]
    if n > len(W):
        raise ValueError(f"the sequence has n={n} blocks: wanted at most max_blocks={len(W)}")
    R = pooled @ W[:n].to(pooled.dtype).transpose(0, 1) + b[:n].to(pooled.dtype)
    return (R if gumbel is None else R + gumbel) / temperature


def sinkhorn(R, iterations, *, seen=None, is_causal=False):
    """Eq. (2) by logarithms: e^R itself would overflow.

    Args: R [B, H, n, n];  seen: bool, broadcastable to R, other entries are zero;  is_causal: prefix sums of columns.
    Returns: S [B, H, n, n], not negative; rows and columns without a seen entry are zero.
    """
    log_S = hide(R, seen)
    for _ in range(iterations):
        log_S = hide(log_S.log_softmax(-1), seen)  # log_softmax is this: subtract the logarithm of the sum
        log_S = hide(log_S - log_S.logcumsumexp(-2) if is_causal else log_S.log_softmax(-2), seen)
    return log_S.exp()


def hide(log_S, seen):
    """ln 0 where not seen: a finite floor far below everything, so that rows without a seen entry stay numbers."""
    return log_S if seen is None else log_S.masked_fill(~seen, torch.finfo(log_S.dtype).min / 4)


def sort_matrix(k, W, b, *, block, temperature=1.0, iterations=8, is_causal=False, key_padding_mask=None, gumbel=None):
    """S of eq. (2), [B, H, n, n], in float32 for half-precision input: row u says which blocks are brought to block u.

    Args:
        k: keys [B, H, N, d];  W, b: the sort's weights [n_max, d] and [n_max];  block: b tokens.
        temperature: τ.  iterations: T.
        is_causal: only blocks before u.  key_padding_mask: [B, N] bool, True where the key is padding.
        gumbel: G [B, H, n, n], or None.

    Raises: ValueError for more than n_max blocks, or a mask that does not fit.
    """
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    n, seen = -(-k.shape[2] // block), None
    if is_causal:
        seen = torch.ones(n, n, dtype=torch.bool, device=k.device).tril(-1)[None, None]
    if key_padding_mask is not None:
        k = k.masked_fill(key_padding_mask[:, None, :, None], 0.0)
        used = split(real_tokens(k.shape[2], key_padding_mask), block).any(-2)  # [B, 1, n, 1]: has a real token
        seen = used & as_keys(used) if seen is None else seen & used & as_keys(used)
    R = sort_logits(pool_blocks(k, block, is_causal), W, b, temperature=temperature, gumbel=gumbel)
    return sinkhorn(R, iterations, seen=seen, is_causal=is_causal)


# ---- Attention, eqs. (3) to (5) --------------------------------------------------------------------------------------


def bring(S, blocks):
    """Eq. (3): blocks [B, H, n, b, d] mixed by S, offset by offset."""
    return (S @ blocks.flatten(3)).unflatten(3, blocks.shape[3:])


def bring_real(S, k, v, real):
    """Eq. (3) for blocks with padding, which holds zeros: offsets are means over their real tokens.

    Args: S [B, H, n, n];  k, v: [B, H, n, b, ·];  real: bool [B or 1, 1, n, b, 1].
    Returns: K̃ and Ṽ, and for each offset the share of the row's weight on real tokens [B, H, n, b, 1], 1 if there is
    none, and whether there is any [B, H, n, b, 1].
    """
    weight = S.sum(-1)[..., None, None]  # zero for the first block of the causal form
    share = bring(S, real.to(S.dtype).expand(*S.shape[:2], -1, -1, -1)) / weight.masked_fill(weight == 0, 1.0)
    some = share > 0
    share = share.masked_fill(~some, 1.0)
    return bring(S, k) / share, bring(S, v) / share, share, some


def weights_of_both(logits, seen, combine):
    """Weights on the brought and on the own keys, each [B, H, n, b, b]: one softmax, eq. (4), or two, eq. (5).

    Args: logits: both parts, [B, H, n, b, b];  seen: masks that broadcast to them, True = visible; None if all are.
    """
    if combine == "sum_outputs":
        return [masked_softmax(*part) for part in zip(logits, seen or (None, None), strict=True)]
    if seen is not None:
        seen = torch.cat([part.expand_as(logits[0]) for part in seen], -1)
    return masked_softmax(torch.cat(logits, -1), seen).chunk(2, -1)


def sinkhorn_attention(q, k, v, S, *, block, combine="concat", is_causal=False, key_padding_mask=None, dropout_p=0.0):
    """Eqs. (3) and (4), or (5).

    Args:
        q, k: queries and keys [B, H, N, d];  v: values [B, H, N, d_v]; any N ≥ 1.
        S: [B, H, n, n], see `sort_matrix`, made with the same `block`, `is_causal` and `key_padding_mask`.
        combine: "concat" or "sum_outputs".  dropout_p: rate on the weights.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_self_attention(q, k, v, key_padding_mask)
    tokens, S = q.shape[2], S.to(k.dtype)
    filled = key_padding_mask is not None or tokens % block > 0
    real = split(real_tokens(tokens, key_padding_mask, device=k.device), block)  # [B or 1, 1, n, b, 1]
    if key_padding_mask is not None:
        k, v = (t.masked_fill(key_padding_mask[:, None, :, None], 0.0) for t in (k, v))
    q, k, v = (split(t, block) for t in (q, k, v))  # [B, H, n, b, d]
    q = q * default_scale(q.shape[-1])
    own_seen, brought_seen = as_keys(real), torch.ones(1, 1, q.shape[2], 1, block, dtype=torch.bool, device=q.device)
    if is_causal:
        own_seen = own_seen & torch.ones(block, block, dtype=torch.bool, device=q.device).tril()
        brought_seen[:, :, 0] = False
    if filled:
        k_brought, v_brought, share, some = bring_real(S, k, v, real)
        brought_seen = as_keys(some)
        # the softmax counts a key `share` times
        brought_logits = q @ k_brought.transpose(-1, -2) + as_keys(share).log()
    else:
        v_brought, brought_logits = bring(S, v), q @ bring(S, k).transpose(-1, -2)  # [B, H, n, b, b]
    seen = [brought_seen, own_seen] if filled or is_causal else None
    parts = [brought_logits, q @ k.transpose(-1, -2)]
    brought_weights, own_weights = weights_of_both(parts, seen, combine)
    return join(F.dropout(brought_weights, dropout_p) @ v_brought + F.dropout(own_weights, dropout_p) @ v, tokens)


def sinkhorn_weights(q, k, S, *, block, combine="concat", is_causal=False, key_padding_mask=None):
    """The N × N map that `sinkhorn_attention` applies implicitly, [B, H, N, N]. Args: as there.

    A weight on offset t of the brought block is spread over that offset in all blocks, as S mixed them.
    """
    tokens, S, tiny = q.shape[2], S.to(k.dtype), torch.finfo(k.dtype).tiny
    real = split(real_tokens(tokens, key_padding_mask, device=k.device), block)
    q, k = (split(t, block) for t in (q * default_scale(q.shape[-1]), k))
    origin = S[..., None] * real[..., 0][:, :, None].to(S.dtype)  # what offset t of block w gives u: [B, H, u, w, t]
    share = origin.sum(3) / S.sum(-1, keepdim=True).clamp(min=tiny)  # [B, H, u, t]
    brought = origin / share[:, :, :, None].clamp(min=tiny)
    brought_k = torch.einsum("bhuwt,bhwtd->bhutd", brought, k)
    brought_logits = q @ brought_k.transpose(-1, -2) + share.clamp(min=tiny).log()[..., None, :]  # [B, H, u, c, t]
    brought_seen = (share > 0)[..., None, :].expand_as(brought_logits)
    own_seen = as_keys(real).expand_as(brought_logits)
    own_seen = own_seen.tril() if is_causal else own_seen
    parts, seen = [brought_logits, q @ k.transpose(-1, -2)], [brought_seen, own_seen]
    brought_weights, own_weights = weights_of_both(parts, seen, combine)
    weights = torch.einsum("bhuct,bhuwt->bhucwt", brought_weights, brought)  # from query c of u to token t of w
    itself = torch.eye(q.shape[2], dtype=k.dtype, device=k.device)
    weights = weights + torch.einsum("bhuct,uw->bhucwt", own_weights, itself)
    return weights.flatten(4).flatten(2, 3)[:, :, :tokens, :tokens]


def sinkhorn_attention_explicit(q, k, v, S, **options):
    """Eqs. (3) to (5) through the full N × N map: the quadratic twin of `sinkhorn_attention`."""
    return sinkhorn_weights(q, k, S, **options) @ v


class Sinkhorn(Attention):
    """Multi-head Sinkhorn attention (Tay et al. 2020): softmax attention's layer around eqs. (1) to (5).

    Args: those of `Attention`, and
        block: b tokens.
        max_len: the longest sequence; n_max = ⌈max_len / block⌉ blocks can be sorted.
        temperature: τ.  iterations: T.  combine: "concat", eq. (4), or "sum_outputs", eq. (5).
        gumbel_seed: adds Gumbel noise G in training, drawn from this seed and the number of earlier draws, which is
            saved with the weights; None: no noise.
    """

    forms = frozenset({"causal", "mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        block=32,
        max_len=1024,
        temperature=0.75,
        iterations=8,
        combine="concat",
        gumbel_seed=None,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        for name, value in (("block", block), ("max_len", max_len), ("iterations", iterations)):
            if value < 1:
                raise ValueError(f"{name}={value}: wanted at least one")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: wanted a positive number")
        if combine not in COMBINE:
            raise ValueError(f"combine={combine!r}: wanted one of {', '.join(COMBINE)}")
        self.block, self.combine, self.max_len, self.gumbel_seed = block, combine, max_len, gumbel_seed
        self.sorting = {"block": block, "temperature": temperature, "iterations": iterations}
        self.max_blocks = -(-max_len // block)
        self.W_sort = nn.Parameter(torch.empty(self.max_blocks, self.head_dim))
        self.b_sort = nn.Parameter(torch.zeros(self.max_blocks))
        nn.init.xavier_uniform_(self.W_sort)
        if gumbel_seed is not None:
            self.register_buffer("draws", torch.zeros((), dtype=torch.long))

    def check_input(self, x, context=None, key_padding_mask=None):
        """What `Attention` checks, and the length. Raises: ValueError for more than max_blocks blocks."""
        context = super().check_input(x, context, key_padding_mask)
        if x.shape[1] > self.max_blocks * self.block:
            came = f"x has N={x.shape[1]} tokens, {-(-x.shape[1] // self.block)} blocks of {self.block}"
            raise ValueError(f"{came}: wanted at most max_len={self.max_len}, max_blocks={self.max_blocks}")
        return context

    def gumbel(self, like):
        """G of eq. (1) for keys [B, H, N, d], or None where there is no noise."""
        if self.gumbel_seed is None or not self.training:
            return None
        generator = torch.Generator(like.device).manual_seed(self.gumbel_seed + self.draws.item())
        self.draws += 1
        n = -(-like.shape[2] // self.block)
        waiting = torch.empty(*like.shape[:2], n, n, dtype=working_dtype(like), device=like.device)
        return -waiting.exponential_(generator=generator).clamp_(min=1e-20).log_()

    def sort(self, k, key_padding_mask=None):
        """S of eq. (2) for keys [B, H, N, d]: [B, H, n, n]."""
        masks = {"is_causal": self.is_causal, "key_padding_mask": key_padding_mask}
        return sort_matrix(k, self.W_sort, self.b_sort, gumbel=self.gumbel(k), **masks, **self.sorting)

    def options(self):
        """What both forms of eqs. (3) to (5) need to know of the layer."""
        return {"block": self.block, "combine": self.combine, "is_causal": self.is_causal}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (1) to (5) for every head. Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x)
        S = self.sort(k, key_padding_mask)
        masks = {"key_padding_mask": key_padding_mask, "dropout_p": self.drop}
        return self.projections.merge(sinkhorn_attention(q, k, v, S, **masks, **self.options())), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the implicit map, [B, H, N, N]; `"S"`: the soft permutation of blocks, [B, H, n, n]."""
        self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x)
        S = self.sort(k, key_padding_mask)
        return {"effective": sinkhorn_weights(q, k, S, key_padding_mask=key_padding_mask, **self.options()), "S": S}
