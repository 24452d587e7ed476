"""Mega: a moving average tells one gated head where it stands, so that the head may attend within short chunks only.

Paper: Ma et al., "Mega: Moving Average Equipped Gated Attention", ICLR 2023 (arXiv 2209.10655), section 3.

    X' = SiLU(EMA(X) + ω⊙X)                               the moving average, `refattn/layers/ema.py`          (1)
    Z  = SiLU(X' W_z),   Q = κ_q⊙Z + μ_q,   K = κ_k⊙Z + μ_k        one shared representation of width z       (2)
    V  = act(X W_v)                                       from X, not from X'                                 (3)
    A  = f(Q Kᵀ / τ + b),   O = A V                       b_ij depends on i − j alone                         (4)
    γ  = SiLU(X' W_γ),   φ = σ(X' W_φ)                    reset and update gate                               (5)
    Ĥ  = act(X' W_h + (γ⊙O) U_h)                                                                              (6)
    Y  = φ⊙Ĥ + (1 − φ)⊙R                                  R: the layer's input before any norm                (7)

    f   softmax   τ = √z                    laplace, relu2   τ = n, the number of keys that a query sees      (8)

Mega-chunk cuts Q, K and V into chunks of c tokens and applies (4) inside each; only (1) crosses a border.
Cost for N tokens: O(N² (z + v)) for (4), and O(N c (z + v)) in chunks; all else is linear.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, default_scale, visible
from refattn.attention.blocks import join, split
from refattn.attention.softmax import masked_softmax
from refattn.layers.ema import DampedEMA
from refattn.layers.feed_forward import ACTIVATIONS
from refattn.layers.norms import make_norm
from refattn.layers.relative_bias import RotaryBias, SimpleBias

MU, SIGMA = 0.707107, 0.282095  # √(1/2) and √(1/(4π)), with the six digits of the authors' code


def relu2(x):
    """max(0, x)²."""
    return F.relu(x).square()


def laplace(x, mu=MU, sigma=SIGMA):
    """The distribution function of a Gaussian: at x = √(1/2) as high and as steep as relu2, and bounded by 1."""
    return 0.5 * torch.erfc((mu - x) / (sigma * math.sqrt(2.0)))  # 1 − erf would lose the digits of small weights


FUNCTIONS = {"softmax": None, "laplace": laplace, "relu2": relu2}  # softmax is a function of a row, not of an entry


def mega_weights(q, k, bias, *, function="softmax", is_causal=False, key_padding_mask=None, authors_masks=False):
    """A of eq. (4) for every chunk.

    Args:
        q: queries [B, G, n, z];  k: keys [B, G, m, z];  bias: b [n, m].  G: chunks, each by itself.
        function: f, one of `FUNCTIONS`.  is_causal: query i sees keys j ≤ i only.
        key_padding_mask: [B or 1, G, m] bool, True where the key is padding.
        authors_masks: as the authors' code has it: τ = i in row i of a causal laplace or relu2 counts padding too, and
            a chunk of padding only is read by softmax as if it were real.

    Returns: [B, G, n, m]; rows sum to one for softmax only; a row that sees no key is all zero.
    """
    seen = causal = None
    if is_causal:
        seen = causal = torch.ones(bias.shape, dtype=torch.bool, device=q.device).tril()
    if key_padding_mask is not None:
        if authors_masks and function == "softmax":
            key_padding_mask = key_padding_mask & ~key_padding_mask.all(-1, keepdim=True)
        real = ~key_padding_mask[:, :, None]  # [B or 1, G, 1, m]
        seen = real if seen is None else seen & real
    if function == "softmax":
        q = q * default_scale(q.shape[-1])
    else:
        counted = causal if authors_masks and is_causal else seen
        q = q / (bias.shape[1] if counted is None else counted.sum(-1, keepdim=True).clamp(min=1))
    if seen is not None:  # all three functions are zero at −∞, so the mask costs no pass over A
        bias = bias.masked_fill(~seen, torch.finfo(bias.dtype).min / 2)
    bias = bias.expand(*q.shape[:2], -1, -1).flatten(0, 1)
    logits = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)).unflatten(0, q.shape[:2])
    if function != "softmax":
        return FUNCTIONS[function](logits)
    A = logits.softmax(-1)
    return A if key_padding_mask is None else A.masked_fill(~seen.any(-1, keepdim=True), 0.0)


def mega_attention_explicit(q, k, v, bias, *, function="softmax", chunk=None, is_causal=False, key_padding_mask=None):
    """Eqs. (4) and (8) on all N × M pairs, chunks by a mask: the quadratic twin of what the layer does in chunks.

    Args: q [B, 1, N, z], k [B, 1, M, z], v [B, 1, M, v], bias [N, M]; chunk: c, or None; key_padding_mask [B, M].
    Returns: O [B, 1, N, v].
    """
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    if chunk is not None:
        seen = torch.arange(q.shape[2])[:, None] // chunk == torch.arange(k.shape[2]) // chunk
    masks = visible(q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask)
    seen = seen[None, None] if masks is None else seen & masks
    scores = q @ k.transpose(-1, -2)
    if function == "softmax":
        return masked_softmax(scores / math.sqrt(q.shape[-1]) + bias, seen) @ v
    keys = seen.sum(-1, keepdim=True).clamp(min=1)  # n of eq. (8)
    return FUNCTIONS[function](scores / keys + bias).masked_fill(~seen, 0.0) @ v


class Gates(NamedTuple):
    """What eqs. (5) to (7) do with O: φ [B, N, D], γ [B, N, v], and X' W_h + b_h [B, N, D] (0 in a cross layer)."""

    update: torch.Tensor
    reset: torch.Tensor
    candidate: torch.Tensor | float


class Mega(Attention):
    """A whole Mega layer, eqs. (1) to (7) with its norm; the update gate φ is its residual connection.

    There is one head. `head_dim` is z, the width of queries and keys; `num_heads` only sets its default, D / H.

    Args: those of `Attention` (no `projections`), and
        value_dim: v, 2 D unless given (a cross layer has D).
        ema_dim: h of the moving average; 0 leaves it out, and X' = X.
        bidirectional: the average reads both ways; unless given, wherever the layer is not causal.
        truncation: see `DampedEMA`.
        function: "softmax", "laplace" or "relu2".  activation: act of eqs. (3) and (6).
        position_bias: "simple", a table for `max_len` tokens (a chunk, in chunks), or "rotary", for any length.
        chunk: c of Mega-chunk; None attends to the whole sequence, as a cross layer always does.
        norm: "post" (Y is normalised), "pre" (X is, R is not) or "none".  norm_kind: see `NORMS`.  eps: of the norm.
        authors_masks: see `mega_weights`.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})
    owns_residual = True

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        value_dim=None,
        ema_dim=16,
        bidirectional=None,
        truncation=None,
        function="softmax",
        activation="silu",
        position_bias="simple",
        max_len=1024,
        chunk=None,
        norm="post",
        norm_kind="layer",
        eps=1e-5,
        authors_masks=False,
        **common,
    ):
        if common.get("projections") is not None:
            raise ValueError("projections were given: Mega has none that other layers could share")
        super().__init__(embed_dim, num_heads, **common)
        self.value_dim = (embed_dim if self.cross else 2 * embed_dim) if value_dim is None else value_dim
        self.check_options(ema_dim, bidirectional, function, activation, position_bias, max_len, chunk, norm)
        self.function, self.activation, self.authors_masks = function, ACTIVATIONS[activation], authors_masks
        self.chunk = None if self.cross else chunk
        D, z, v, (bias, qkv_bias) = embed_dim, self.head_dim, self.value_dim, self.biased
        if self.cross:
            self.joint = nn.Linear(D, 2 * D + z, bias=bias)  # φ, γ, Q
            self.key = nn.Linear(D, z, bias=qkv_bias)
        else:
            reads_ahead = not self.is_causal if bidirectional is None else bidirectional
            options = {"bidirectional": reads_ahead, "truncation": truncation}
            self.ema = DampedEMA(D, ema_dim, **options) if ema_dim else None
            self.joint = nn.Linear(D, 2 * D + z + v, bias=bias)  # φ, Z, γ, X' W_h: all that reads X'
            self.kappa_q, self.kappa_k = (nn.Parameter(torch.randn(z) * 0.02) for _ in range(2))
            self.mu_q, self.mu_k = (nn.Parameter(torch.zeros(z)) for _ in range(2))
        self.value, self.output = nn.Linear(D, v, bias=qkv_bias), nn.Linear(v, D, bias=bias)
        simple = position_bias == "simple"
        self.position_bias = SimpleBias(self.chunk or max_len) if simple else RotaryBias(z)
        self.norm = None if norm == "none" else make_norm(norm_kind, D, eps)
        self.is_pre = norm == "pre"
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def make_projections(self, *, bias, qkv_bias):
        """None: what reads X' is one matrix, and nothing is split into heads."""
        self.biased = (bias, bias if qkv_bias is None else qkv_bias)

    def check_options(self, ema_dim, bidirectional, function, activation, position_bias, max_len, chunk, norm):
        """Raise a ValueError for an option that is none."""
        choices = (
            ("function", function, FUNCTIONS),
            ("activation", activation, ACTIVATIONS),
            ("position_bias", position_bias, ("simple", "rotary")),
            ("norm", norm, ("post", "pre", "none")),
        )
        for argument, value, wanted in choices:
            if value not in wanted:
                raise ValueError(f"{argument}={value!r}: wanted one of {', '.join(wanted)}")
        if bidirectional and self.is_causal:
            raise ValueError("bidirectional=True with is_causal=True: an average over later tokens tells the future")
        if self.cross and self.value_dim != self.embed_dim:
            raise ValueError(f"value_dim={self.value_dim} with cross=True: wanted embed_dim={self.embed_dim}")
        counts = (("ema_dim", ema_dim, 0), ("value_dim", self.value_dim, 1), ("max_len", max_len, 1))
        for argument, value, least in (*counts, ("chunk", 1 if chunk is None else chunk, 1)):
            if value < least:
                raise ValueError(f"{argument}={value}: wanted at least {least}")

    def before(self, x):
        """X: what everything but the carry branch of eq. (7) reads."""
        return self.norm(x) if self.is_pre else x

    def smooth(self, X, key_padding_mask=None):
        """X' of eq. (1)."""
        X_prime = X if self.ema is None else self.ema(X, key_padding_mask)
        return F.dropout(X_prime, self.drop)

    def inputs(self, X, X_prime):
        """Eqs. (2), (3) and (5): q, k [B, N, z], v [B, N, v] and the `Gates`."""
        D, z, v = self.embed_dim, self.head_dim, self.value_dim
        update, shared, candidate = self.joint(X_prime).split([D, z + v, D], -1)
        Z, reset = F.silu(shared).split([z, v], -1)
        q, k = torch.addcmul(self.mu_q, Z, self.kappa_q), torch.addcmul(self.mu_k, Z, self.kappa_k)
        return q, k, self.activation(self.value(X)), Gates(update.sigmoid(), reset, candidate)

    def cross_inputs(self, X, context):
        """The same for a cross layer: nothing is averaged, and queries and keys have projections of their own."""
        update, reset, q = self.joint(X).split([self.embed_dim, self.embed_dim, self.head_dim], -1)
        v = self.activation(self.value(context))
        return q, self.key(context), v, Gates(update.sigmoid(), F.silu(reset), 0.0)

    def everything(self, x, context, key_padding_mask):
        """q, k, v and gates of either kind of layer."""
        X = self.before(x)
        return self.cross_inputs(X, context) if self.cross else self.inputs(X, self.smooth(X, key_padding_mask))

    def chunks(self, tokens, key_padding_mask):
        """How to cut a sequence, and the mask of what was cut, [B or 1, G, m] or None."""
        if self.chunk is None or tokens <= self.chunk:
            return lambda t: t[:, None], None if key_padding_mask is None else key_padding_mask[:, None]
        short, c = -tokens % self.chunk, self.chunk
        if key_padding_mask is not None:
            key_padding_mask = F.pad(key_padding_mask, (0, short), value=True).unflatten(1, (-1, c))
        elif short and not self.is_causal:  # a causal query is never shown what fills the last chunk: it comes later
            filled = torch.arange(tokens + short, device=self.output.weight.device) >= tokens
            key_padding_mask = filled.unflatten(0, (-1, c))[None]
        return lambda t: split(t, c), key_padding_mask

    def weights(self, q, k, key_padding_mask):
        """A of eq. (4) for chunks of queries [B, G, n, z] and keys [B, G, m, z]."""
        bias = self.position_bias(q.shape[2], k.shape[2]).to(q.dtype)
        masks = {"is_causal": self.is_causal, "key_padding_mask": key_padding_mask}
        return mega_weights(q, k, bias, function=self.function, authors_masks=self.authors_masks, **masks)

    def finish(self, x, O, gates):  # noqa: E741
        """Eqs. (6) and (7) and the norm, from R = x [B, N, D] and O [B, N, v] (0.0: nobody sees anything)."""
        H = self.activation(gates.candidate + self.output(gates.reset * O))
        y = torch.lerp(x, F.dropout(H, self.drop), gates.update)
        return y if self.norm is None or self.is_pre else self.norm(y)

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (1) to (7). Shapes: see `refattn.attention.base`."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v, gates = self.everything(x, context, key_padding_mask)
        cut, mask = self.chunks(context.shape[1], key_padding_mask)
        A = F.dropout(self.weights(cut(q), cut(k), mask), self.drop)  # [B, G, n, m]
        O = join(A @ cut(v), x.shape[1])  # noqa: E741
        return self.finish(x, O, gates), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """What the layer looks at, and what it lets through; it is no single map, since it is not linear in V alone.

        Returns: `"effective"` [B, 1, N, M], A of eq. (4) for the whole sequence; `"chunks"` [B, G, c, c], the same as
        it is computed; `"update"` φ [B, N, D] and `"reset"` γ [B, N, v]; `"kernel"` K [D, N], where there is one.
        """
        context = self.check_input(x, context, key_padding_mask)
        q, k, _, gates = self.everything(x, context, key_padding_mask)
        cut, mask = self.chunks(context.shape[1], key_padding_mask)
        A = self.weights(cut(q), cut(k), mask)
        whole = torch.diag_embed(A.permute(0, 2, 3, 1)).permute(0, 3, 1, 4, 2)  # [B, G, n, G, m]
        whole = whole.flatten(3).flatten(1, 2)[:, None, : x.shape[1], : context.shape[1]]
        maps = {"effective": whole, "chunks": A, "update": gates.update, "reset": gates.reset}
        averaged = not self.cross and self.ema is not None
        return maps | ({"kernel": self.ema.kernels(x.shape[1])[0]} if averaged else {})

    def init_state(self, batch_size, carry=None):
        """Before the first token: `ema` [B, D, h] (None without one) and the empty caches `keys`, `values`."""
        if not self.is_causal:
            raise ValueError("init_state needs is_causal=True: only the causal form is a recurrence")
        ema = None if self.ema is None else self.ema.init_state(batch_size)
        empty = self.output.weight.new_zeros
        return {"ema": ema, "keys": empty(batch_size, 0, self.head_dim), "values": empty(batch_size, 0, self.value_dim)}

    def step(self, x_t, state):
        """One token: O(D h) for the average, and as many keys as it sees; in chunks never more than c."""
        X = self.before(x_t)
        X_prime, ema = (X, None) if self.ema is None else self.ema.step(X, state["ema"])
        q, k, v, gates = self.inputs(X[:, None], X_prime[:, None])
        keys, values = torch.cat([state["keys"], k], 1), torch.cat([state["values"], v], 1)
        cached = keys.shape[1]
        bias = self.position_bias.lags(1 - cached, 0)[None].to(q.dtype)  # the last row of b
        A = mega_weights(q[:, None], keys[:, None], bias, function=self.function)  # [B, 1, 1, cached]
        y = self.finish(x_t[:, None], A[:, 0] @ values, gates)[:, 0]
        if cached == self.chunk:  # emptied after its last query has read it; the average goes on
            keys, values = keys[:, :0], values[:, :0]
        return y, {"ema": ema, "keys": keys, "values": values}
