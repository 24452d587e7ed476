"""Synthesizer: attention maps that no comparison of two tokens has made.

Paper: Tay et al., "Synthesizer: Rethinking Self-Attention in Transformer Models", ICML 2021 (arXiv 2005.00743).

    y = A V W_O,    A = softmax(Σ_m α_m B^m) over visible keys          α = softmax(mix), or 1 for every part     (1)

The logits B [N, N] of a head are one of these parts, or a mixture of several:

    dense               B_ij = [W₂ relu(W₁ x_i + b₁) + b₂]_j            token i alone decides which places it reads (2)
    random              B = R                                           no token decides: one map for all sequences (3)
    factorized_random   B = R₁ R₂ᵀ                                      the same, of rank k                         (4)
    factorized_dense    B_i,(p·b+q) = a_ip b_iq                         (2) from two short rows, a · b = N_max      (5)
    dot                 B_ij = q_i·k_j / √d                             ordinary attention, to mix with             (6)

All but dot know a key by its place j, not by what stands there: weights exist for N_max places, a sequence of N tokens
uses the first N, and W_Q and W_K are gone. In (5) a_i and b_i are outputs of two networks like that of (2). Only places
beyond i are hidden from a causal query, and that is safe: no logit has read a later token.

Cost for N tokens: no N² d comparison, but A V is one all the same: O(N² d) time, O(N²) memory. Without dense or dot
parts A is the same for all sequences, and is made once for the batch.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, Projections, check_mask, default_scale, visible
from refattn.attention.softmax import masked_softmax

PARTS = ("dense", "random", "factorized_random", "factorized_dense", "dot")


def by_token(x, W1, b1, W2, b2):
    """The two-layer network of eqs. (2) and (5), on every token by itself.

    Args: x [B, N, D];  W1 [H, f, D], b1 [H, f];  W2 [H, m, f], b2 [H, m], f the hidden width.
    Returns: m numbers a head and token, [B, H, N, m].
    """
    hidden = F.relu(x[:, None] @ W1.transpose(-1, -2) + b1[:, None])  # [B, H, N, f]
    return hidden @ W2.transpose(-1, -2) + b2[:, None]


def dense_logits(x, W1, b1, W2, b2):
    """Eq. (2), [B, H, N, N]: a network with N_max outputs, of which N are computed. Args: as `by_token`, m = N_max."""
    tokens = x.shape[1]
    return by_token(x, W1, b1, W2[:, :tokens], b2[:, :tokens])


def random_logits(R, tokens):
    """Eq. (3), [1, H, N, N]: a corner of R [H, N_max, N_max]."""
    return R[None, :, :tokens, :tokens]


def factorized_random_logits(R1, R2, tokens):
    """Eq. (4), [1, H, N, N], from R1 and R2 [H, N_max, k]."""
    return (R1[:, :tokens] @ R2[:, :tokens].transpose(-1, -2))[None]


def factorized_dense_logits(a, b, tokens):
    """Eq. (5), [B, H, N, N], from a [B, H, N, a] and b [B, H, N, b]: place j = p·b + q takes a_p b_q.

    The paper speaks of tiling both rows; only tiling one and stretching the other reaches all a · b pairs.
    """
    a = a[..., : -(-tokens // b.shape[-1])]  # the factors that the first N places use
    return (a[..., :, None] * b[..., None, :]).flatten(-2)[..., :tokens]


def dot_logits(q, k):
    """Eq. (6), [B, H, N, N]."""
    return q @ (k * default_scale(q.shape[-1])).transpose(-1, -2)


def mix_logits(parts, mix=None):
    """The sum of eq. (1): parts, a list of [B or 1, H, N, N], weighted by softmax(mix), or added if mix is None."""
    if mix is not None:
        parts = [weight * part for weight, part in zip(mix.softmax(0), parts, strict=True)]
    return sum(parts[1:], parts[0])


def synthesizer_weights(logits, *, is_causal=False, key_padding_mask=None):
    """A of eq. (1).

    Args:
        logits: [B or 1, H, N, N].
        is_causal: query i sees places j ≤ i only.
        key_padding_mask: [B, N] bool, True where the key is padding.

    Returns: [B or 1, H, N, N], rows sum to one; a row that sees no key is all zero.
    """
    tokens = logits.shape[-1]
    mask = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    return masked_softmax(logits, visible(tokens, tokens, device=logits.device, **mask))


def synthesizer_attention(logits, v, *, dropout_p=0.0, **masks):
    """Eq. (1) before W_O: values v [B, H, N, d_v], the rest as `synthesizer_weights`. Returns: [B, H, N, d_v]."""
    check_mask(masks.get("key_padding_mask"), v.shape[0], v.shape[2])
    weights = synthesizer_weights(logits, **masks)
    if dropout_p:
        weights = F.dropout(weights.expand(v.shape[0], -1, -1, -1), dropout_p)  # each sequence drops its own
    return weights @ v


def synthesizer_attention_explicit(logits, v, *, is_causal=False, key_padding_mask=None):
    """Eq. (1) query by query, over the visible places alone: the sequential twin, without any minus infinity."""
    y = torch.zeros_like(v)
    logits = logits.expand(v.shape[0], -1, -1, -1)
    for n in range(v.shape[0]):
        for i in range(v.shape[2]):
            places = torch.arange(i + 1 if is_causal else v.shape[2], device=v.device)
            if key_padding_mask is not None:
                places = places[~key_padding_mask[n, places]]
            if len(places):
                y[n, :, i] = (logits[n, :, i, places].softmax(-1)[:, None] @ v[n, :, places])[:, 0]
    return y


class TokenNetwork(nn.Module):
    """The weights of `by_token` for all heads. Biases begin at zero, weights are Xavier-uniform a head."""

    def __init__(self, embed_dim, num_heads, hidden_dim, outputs):
        super().__init__()
        self.W1 = nn.Parameter(torch.empty(num_heads, hidden_dim, embed_dim))
        self.b1 = nn.Parameter(torch.zeros(num_heads, hidden_dim))
        self.W2 = nn.Parameter(torch.empty(num_heads, outputs, hidden_dim))
        self.b2 = nn.Parameter(torch.zeros(num_heads, outputs))
        for head in (*self.W1.detach(), *self.W2.detach()):
            nn.init.xavier_uniform_(head)

    def weights(self):
        return self.W1, self.b1, self.W2, self.b2

    def forward(self, x):
        """[B, N, D] to [B, H, N, outputs]."""
        return by_token(x, *self.weights())


class Synthesizer(Attention):
    """Multi-head attention by eq. (1) (Tay et al. 2021).

    Args: those of `Attention`, and
        parts: one or several of "dense", "random", "factorized_random", "factorized_dense", "dot".
        mix: learn the weights of the mixture; without it parts are added.
        max_len: N_max, the most tokens a sequence may have.
        rank: k of factorized_random.
        factors: (a, b) of factorized_dense, a · b ≥ max_len; unless given the nearest to two equal ones.
        hidden_dim: hidden width of the networks of dense and factorized_dense (default head_dim).
        train_random: False keeps R of part random as it was drawn (a buffer), which the paper tries too.
    Queries and keys have projections only if a part is "dot".
    """

    forms = frozenset({"causal", "mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        parts=("dense",),
        mix=False,
        max_len=1024,
        rank=8,
        factors=None,
        hidden_dim=None,
        train_random=True,
        **common,
    ):
        self.parts = check_parts(parts)  # read by make_projections, which the base constructor calls
        super().__init__(embed_dim, num_heads, **common)
        hidden_dim = self.head_dim if hidden_dim is None else hidden_dim
        for name, value in (("max_len", max_len), ("rank", rank), ("hidden_dim", hidden_dim)):
            if value < 1:
                raise ValueError(f"{name}={value}: wanted a positive number")
        self.max_len = max_len
        self.mix = nn.Parameter(torch.zeros(len(self.parts))) if mix else None
        if "dense" in self.parts:
            self.dense = TokenNetwork(embed_dim, num_heads, hidden_dim, max_len)
        if "random" in self.parts:
            R = torch.randn(num_heads, max_len, max_len)
            if train_random:
                self.R = nn.Parameter(R)
            else:
                self.register_buffer("R", R)
        if "factorized_random" in self.parts:
            std = rank**-0.25  # so that entries of R₁ R₂ᵀ have the variance of R's
            self.R1 = nn.Parameter(torch.randn(num_heads, max_len, rank) * std)
            self.R2 = nn.Parameter(torch.randn(num_heads, max_len, rank) * std)
        if "factorized_dense" in self.parts:
            a, b = check_factors(factors, max_len)
            self.a = TokenNetwork(embed_dim, num_heads, hidden_dim, a)
            self.b = TokenNetwork(embed_dim, num_heads, hidden_dim, b)

    def make_projections(self, *, bias, qkv_bias):
        """Values and output, and queries and keys if a part reads them: no matrix without a gradient."""
        projections = Projections(self.embed_dim, self.num_heads, self.head_dim, bias=bias, qkv_bias=qkv_bias)
        if "dot" not in self.parts:
            projections.query = projections.key = None
        return projections

    def check_input(self, x, context=None, key_padding_mask=None):
        """What `Attention` checks, and the length. Raises: ValueError beyond max_len."""
        context = super().check_input(x, context, key_padding_mask)
        if x.shape[1] > self.max_len:
            raise ValueError(f"x has N={x.shape[1]} tokens: wanted at most max_len={self.max_len}")
        return context

    def part_logits(self, x):
        """The logits of every part, {name: [B or 1, H, N, N]}, not yet weighted."""
        tokens, heads = x.shape[1], self.projections
        makers = {
            "dense": lambda: dense_logits(x, *self.dense.weights()),
            "random": lambda: random_logits(self.R, tokens),
            "factorized_random": lambda: factorized_random_logits(self.R1, self.R2, tokens),
            "factorized_dense": lambda: factorized_dense_logits(self.a(x), self.b(x), tokens),
            "dot": lambda: dot_logits(heads.queries(x), heads.split_heads(heads.key(x))),
        }
        return {part: makers[part]() for part in self.parts}

    def logits(self, x):
        """The logits of eq. (1), [B or 1, H, N, N]."""
        return mix_logits(list(self.part_logits(x).values()), self.mix)

    def values(self, x):
        """Values [B, H, N, d] of inputs [B, N, D] (of the keys' projection, if shared ones are tied)."""
        heads = self.projections
        return heads.split_heads((heads.key if heads.value is None else heads.value)(x))

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (1) for every head."""
        self.check_input(x, context, key_padding_mask)
        masks = {"is_causal": self.is_causal, "key_padding_mask": key_padding_mask}
        y = synthesizer_attention(self.logits(x), self.values(x), dropout_p=self.drop, **masks)
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: A of eq. (1), [B, H, N, N]; each part's logits by its name, [B, H, N, N]; α as `"mix"`."""
        self.check_input(x, context, key_padding_mask)
        parts = self.part_logits(x)
        logits = mix_logits(list(parts.values()), self.mix)
        weights = synthesizer_weights(logits, is_causal=self.is_causal, key_padding_mask=key_padding_mask)
        maps = {name: part.expand(len(x), -1, -1, -1) for name, part in (("effective", weights), *parts.items())}
        return maps if self.mix is None else maps | {"mix": self.mix.softmax(0)}


def check_parts(parts):
    """Parts as a tuple. Raises: ValueError unless they are known and all different."""
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    if not parts or not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
        raise ValueError(f"parts={parts}: wanted some of {', '.join(PARTS)}, each once")
    return parts


def check_factors(factors, max_len):
    """(a, b) with a · b ≥ max_len. Raises: ValueError for others."""
    if factors is None:
        a = max(1, round(max_len**0.5))
        return a, -(-max_len // a)
    if len(factors) != 2 or min(factors) < 1 or factors[0] * factors[1] < max_len:
        raise ValueError(f"factors={tuple(factors)}: wanted two numbers whose product is at least max_len={max_len}")
    return tuple(factors)
