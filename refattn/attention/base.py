"""The attention contract: what every mechanism in this package takes, returns and promises.

**Functions first.** A file holds one mechanism: pure functions, one per equation, on heads-first tensors
(queries `[B, H, N, d]`, keys `[B, H, M, d]`, values `[B, H, M, d_v]`), then a module that owns the parameters.
A fast function has an explicit (quadratic or sequential) twin beside it; tests hold the two equal.

**Module.** `forward(x, context=None, *, key_padding_mask=None, carry=None) -> (y, carry)`, with `x, y: [B, N, D]`,
`context: [B, M, D]` for cross attention, `key_padding_mask: [B, M]` bool, True = ignore that key. A query that sees
no key gets zero before the output projection. Padded *query* rows are computed like any other; nobody should read them,
and a mechanism whose real rows look at other query rows (Evolving Attention's convolution) hides the padded ones.

**carry** is what a mechanism hands to the next layer besides `x` (Luna's packed sequence, Evolving Attention's
logits). Layers that exchange carries form a *chain*; a stack keeps one carry per chain name, so mixed stacks neither
lose nor mix them. `chain_name(cross, is_causal)` gives the name, or None. A layer is told where it stands:
`first_in_chain` owns what starts the chain (Luna's P0), `last_in_chain` owns nothing that only its successor would use:
no parameter is without a gradient. A carry is a tensor or a named tuple of tensors.

**Who owns the residual.** Normally the block adds `x` and normalises; a mechanism that is a whole layer (Mega) sets
`owns_residual = True`, takes `norm` and `eps`, and returns the finished sum. What runs around any mechanism through the
depth (the momentum connection) is a residual of its own kind, in `refattn/layers/residual.py`, with its own carry.

**Maps.** `attention_maps(x, ...)` takes forward's arguments and returns a dict with `"effective" [B, G, N, M]`, the
matrix that the mechanism applies implicitly (G = heads unless the docstring says otherwise), and its own parts.

**Steps.** Mechanisms with "step" in `forms` are also recurrences: `init_state(batch_size, carry=None)` and
`step(x_t, state) -> (y_t, state)`, with `x_t, y_t: [B, D]`, equal to the causal parallel form token by token. A cross
layer whose queries do not depend on each other may split its work likewise: `read_context(context, key_padding_mask)`,
once, and `answer(x_t, read) -> y_t`, for each query as it comes; a decoder that writes uses both.

**Projections** are a module of their own (`Projections`), handed in by whoever wants to share or replace them: another
object with its attributes `query`, `key`, `value`, `output` (each with `weight` and `bias`) and methods will do; `bias`
and `qkv_bias` are then its affair. A mechanism without such maps (Mega) lets `make_projections` return None.
Nothing in this file computes attention.
"""

import math

import torch
from einops import rearrange
from torch import nn


class Projections(nn.Module):
    """The linear maps around an attention: inputs to queries, keys and values by heads, and heads back to the model.

    Args:
        embed_dim: model width D of inputs and of the output.
        num_heads, head_dim: H heads of width d (default D / H; H·d need not equal D).
        bias, qkv_bias: biases of all maps; `qkv_bias` overrides `bias` for queries, keys and values.
        tied: keys and values are one projection (Luna), so there is no value matrix.
        output: False leaves heads concatenated, `[B, N, H·d]`, and has no output matrix.
    """

    def __init__(self, embed_dim, num_heads, head_dim=None, *, bias=True, qkv_bias=None, tied=False, output=True):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_width(embed_dim, num_heads, head_dim)
        width = num_heads * self.head_dim
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.query = nn.Linear(embed_dim, width, bias=qkv_bias)
        self.key = nn.Linear(embed_dim, width, bias=qkv_bias)
        self.value = None if tied else nn.Linear(embed_dim, width, bias=qkv_bias)
        self.output = nn.Linear(width, embed_dim, bias=bias) if output else None
        self.reset_parameters()

    def reset_parameters(self, gain=1.0):
        """Xavier-uniform weights (`gain` for all but the output), zero biases."""
        for linear in filter(None, (self.query, self.key, self.value, self.output)):
            nn.init.xavier_uniform_(linear.weight, gain=1.0 if linear is self.output else gain)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def split_heads(self, x):
        """`[B, N, H·d]` to `[B, H, N, d]`: head h owns features h·d … (h+1)·d."""
        return rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)

    def queries(self, x):
        """Queries `[B, H, N, d]` of inputs `[B, N, D]`."""
        return self.split_heads(self.query(x))

    def keys_values(self, context):
        """Keys and values, each `[B, H, M, d]`, of a context `[B, M, D]`; the same tensor twice when tied."""
        keys = self.split_heads(self.key(context))
        return keys, keys if self.value is None else self.split_heads(self.value(context))

    def forward(self, x, context=None):
        """Queries of `x` with the keys and values of `context` (of `x` itself without one)."""
        return self.queries(x), *self.keys_values(x if context is None else context)

    def merge(self, heads):
        """Heads `[B, H, N, d]` back to `[B, N, D]` through the output matrix, if there is one."""
        y = rearrange(heads, "b h n d -> b n (h d)")
        return y if self.output is None else self.output(y)


class Attention(nn.Module):
    """Base of every mechanism: holds the common arguments and checks input. See the contract at the top of this file.

    Args:
        embed_dim, num_heads, head_dim: width D, heads H, width of a head (default D / H).
        dropout: rate on attention weights, or on whatever the mechanism's authors drop.
        bias, qkv_bias: biases of the projections; `qkv_bias` overrides `bias` for queries, keys and values.
        is_causal: query i sees keys j ≤ i only.
        cross: keys and values come from `context`.
        projections: a module with the interface of `Projections`, to share between layers or to replace.

    Raises: ValueError for a width that heads do not divide, a rate outside [0, 1) or a form the mechanism lacks.
    """

    forms = (
        frozenset()
    )  # which of "causal", "cross", "mask", "step" the mechanism has; "causal cross" when both at once
    owns_residual = False

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        head_dim=None,
        dropout=0.0,
        bias=True,
        qkv_bias=None,
        is_causal=False,
        cross=False,
        projections=None,
    ):
        super().__init__()
        for argument, asked in (("is_causal", is_causal), ("cross", cross)):
            form = argument.removeprefix("is_")
            if asked and form not in self.forms:
                raise ValueError(
                    f"{argument}=True: {type(self).__name__} has no {form} form (it has: {self.forms_text()})"
                )
        if is_causal and cross:
            raise ValueError("is_causal=True with cross=True: a causal order between two sequences is not defined")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}: wanted a rate in [0, 1)")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.head_dim = head_width(embed_dim, num_heads, head_dim)
        self.dropout, self.is_causal, self.cross = dropout, is_causal, cross
        if projections is None:
            projections = self.make_projections(bias=bias, qkv_bias=qkv_bias)
        elif (projections.num_heads, projections.head_dim) != (num_heads, self.head_dim):
            came = f"{projections.num_heads} heads × {projections.head_dim}"
            raise ValueError(f"projections have {came}: wanted {num_heads} × {self.head_dim}")
        self.projections = projections

    def make_projections(self, *, bias, qkv_bias):
        """The projections this mechanism uses unless others are handed in."""
        return Projections(self.embed_dim, self.num_heads, self.head_dim, bias=bias, qkv_bias=qkv_bias)

    @classmethod
    def chain_name(cls, *, cross=False, is_causal=False):
        """Name of the chain that this mechanism's carry belongs to in such a place of a model, or None."""
        return None

    @classmethod
    def forms_text(cls):
        return ", ".join(sorted(cls.forms)) or "self-attention only"

    @property
    def drop(self):
        """The dropout rate that applies now: 0 in evaluation."""
        return self.dropout if self.training else 0.0

    def check_input(self, x, context=None, key_padding_mask=None):
        """Raise a ValueError that names what does not fit the contract; return the context to attend to."""
        if x.dim() != 3 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"x has shape {tuple(x.shape)}: wanted [B, N, embed_dim={self.embed_dim}]")
        if self.cross and context is None:
            raise ValueError("context is missing: this layer was built with cross=True")
        if context is not None and not self.cross:
            raise ValueError("context was given, but this layer was built with cross=False")
        context = x if context is None else context
        if context.dim() != 3 or context.shape[0] != x.shape[0] or context.shape[-1] != self.embed_dim:
            wanted = f"[B={x.shape[0]}, M, embed_dim={self.embed_dim}]"
            raise ValueError(f"context has shape {tuple(context.shape)}: wanted {wanted}")
        check_mask(key_padding_mask, context.shape[0], context.shape[1])
        if key_padding_mask is not None and "mask" not in self.forms:
            raise ValueError(f"key_padding_mask was given, but {type(self).__name__} has no masked form")
        return context

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        raise TypeError(f"{type(self).__name__} defines no forward")

    def extra_repr(self):
        flags = [name for name in ("is_causal", "cross") if getattr(self, name)]
        return ", ".join([f"{self.embed_dim}, heads={self.num_heads}×{self.head_dim}", *flags])


def head_width(embed_dim, num_heads, head_dim=None):
    """Width of one head: `head_dim` if given, else `embed_dim / num_heads`, which must be whole."""
    if num_heads < 1 or embed_dim < 1:
        raise ValueError(f"embed_dim={embed_dim}, num_heads={num_heads}: wanted positive numbers")
    if head_dim is None and embed_dim % num_heads:
        raise ValueError(
            f"embed_dim={embed_dim} is not a multiple of num_heads={num_heads}; give head_dim to decouple them"
        )
    return embed_dim // num_heads if head_dim is None else head_dim


def check_mask(key_padding_mask, batch, keys):
    """Raise a ValueError unless the mask is None or bool `[B, M]`."""
    if key_padding_mask is None:
        return
    if key_padding_mask.dtype != torch.bool or tuple(key_padding_mask.shape) != (batch, keys):
        came = f"{key_padding_mask.dtype} {tuple(key_padding_mask.shape)}"
        raise ValueError(
            f"key_padding_mask is {came}: wanted bool [B={batch}, M={keys}], True where the key is padding"
        )


def check_heads(q, k, v, is_causal=False):
    """Raise a ValueError unless q `[B, H, N, d]`, k `[B, H, M, d]` and v `[B, H, M, d_v]` fit together."""
    fits = q.dim() == k.dim() == v.dim() == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]
    if not fits or q.shape[-1] != k.shape[-1] or k.shape[2] != v.shape[2]:
        came = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"{came}: wanted q [B, H, N, d], k [B, H, M, d], v [B, H, M, d_v]")
    if is_causal and q.shape[2] != k.shape[2]:
        raise ValueError(f"is_causal=True with N={q.shape[2]} queries and M={k.shape[2]} keys: wanted N = M")


def visible(queries, keys, *, is_causal=False, key_padding_mask=None, device=None):
    """Which pairs may talk: bool, broadcastable to `[B, H, N, M]`, True = visible; None when all are."""
    seen = None
    if is_causal:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()[None, None]  # [1, 1, N, M]
    if key_padding_mask is not None:
        real = ~key_padding_mask[:, None, None, :]  # [B, 1, 1, M]
        seen = real if seen is None else seen & real
    return seen


def working_dtype(tensor):
    """Type to sum many terms in: float32 for half-precision types, whose small increments get lost; else its own."""
    return torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype


def default_scale(head_dim):
    """1 / √d, the scale of scaled dot-product attention."""
    return 1.0 / math.sqrt(head_dim)
