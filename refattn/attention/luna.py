"""Luna: attend to a short packed sequence instead of to all tokens: pack the context into l slots, then unpack.

Paper: Ma et al., "Luna: Linear Unified Nested Attention", NeurIPS 2021 (arXiv 2106.01540).

    Y_P = softmax(P_q K_pᵀ / √d_p) V_p              l queries over M keys: pack                              (1)
    Y_X = softmax(Q Kᵀ / √d) V W_O                  N queries over l keys, K and V read from Y_P: unpack     (2)
    P'  = LN(P + Y_P)                               what the next layer packs with                           (3)

A decoder cannot normalise over positions it has not seen, so the causal form packs by a running mean instead:

    A_j = ω(k_j^p P_qᵀ / √d) ∈ R^l                  ω(u) = log₂(1 + 2^u), so ω(0) = 1                         (4)
    a_t = softmax((1/t) Σ_{j≤t} (q_t·k_j / √d) A_j)     over the l slots                                     (5)
    y_t = (1/t) Σ_{j≤t} (a_t·A_j) v_j                                                                        (6)

Both sums are causal products, as in linear attention: Luna needs nothing new to run in linear time.
Cost for N tokens: O(N l D) time and O(N l) memory for the weights, against O(N² D) and O(N²).
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, Projections, check_heads, check_mask, default_scale, working_dtype
from refattn.attention.linear import causal_product
from refattn.attention.softmax import softmax_attention, softmax_weights
from refattn.layers.positions import sinusoidal


def base2_softplus(u):
    """ω(u) = log₂(1 + 2^u), eq. (4): the authors' pack activation, exactly 1 at 0. (ln(1 + e^u) gives 0.69 there.)"""
    return F.softplus(u, beta=math.log(2.0), threshold=40.0)  # beyond 40/ln 2, ω(u) = u to the last bit of a float64


def elu_plus_one(u):
    """The pack activation of earlier revisions of the authors' code, also 1 at 0."""
    return F.elu(u) + 1.0


PACK_ACTIVATIONS = {"softplus": base2_softplus, "elu": elu_plus_one}


def pack(slots, k, v, *, key_padding_mask=None, dropout_p=0.0):
    """Eq. (1): every slot takes a weighted mean of the context.

    Args: slots: projected P [B, H_p, l, d_p]; k, v: keys and values [B, H_p, M, d_p]; key_padding_mask [B, M].
    Returns: Y_P by heads, [B, H_p, l, d_p].
    """
    return softmax_attention(slots, k, v, key_padding_mask=key_padding_mask, dropout_p=dropout_p)


def unpack(q, k, v, *, slot_mask=None, dropout_p=0.0):
    """Eq. (2) before W_O: every token takes a weighted mean of the slots.

    Args: q: queries [B, H, N, d]; k, v: read from Y_P [B, H, l, d]; slot_mask [B, l], True = unused slot.
    Returns: [B, H, N, d].
    """
    return softmax_attention(q, k, v, key_padding_mask=slot_mask, dropout_p=dropout_p)


def pack_activations(pack_keys, slots, *, activation=base2_softplus, key_padding_mask=None):
    """A of eq. (4), [B, H, N, l], from pack keys [B, H, N, d] and projected slots [B, H, l, d]; zero at padded keys."""
    A = activation(pack_keys @ slots.transpose(-1, -2) * default_scale(slots.shape[-1]))
    return A if key_padding_mask is None else A.masked_fill(key_padding_mask[:, None, :, None], 0.0)


def visible_count(A, key_padding_mask=None):
    """t of eqs. (5), (6): real tokens seen so far, this one included, [B or 1, 1, N, 1]; at least 1."""
    if key_padding_mask is None:
        return torch.arange(1, A.shape[2] + 1, device=A.device, dtype=A.dtype)[None, None, :, None]
    return (~key_padding_mask).cumsum(1).clamp(min=1).to(A.dtype)[:, None, :, None]


def causal_unpack_weights(q, k, A, *, key_padding_mask=None, slot_mask=None):
    """a of eq. (5), [B, H, N, l]: a softmax over slots; zero where a row has no slot."""
    t = visible_count(A, key_padding_mask)
    logits = causal_product(q * default_scale(q.shape[-1]), k, A) / t  # [B, H, N, l]
    if slot_mask is None:
        return logits.softmax(-1).to(A.dtype)
    hidden = slot_mask[:, None, None, :]
    weights = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(-1)
    return weights.masked_fill(hidden, 0.0).to(A.dtype)


def causal_luna(q, k, v, A, *, key_padding_mask=None, slot_mask=None):
    """Eqs. (5) and (6) in linear time.

    Args:
        q, k: queries and keys [B, H, N, d];  v: values [B, H, N, d_v];  A: `pack_activations` [B, H, N, l].
        key_padding_mask: [B, N], True = padding: such a token is neither packed nor counted.
        slot_mask: [B, l], True = unused slot.

    Returns: y [B, H, N, d_v] and the unpack weights a [B, H, N, l].
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(q, k, v, is_causal=True)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    a = causal_unpack_weights(q, k, A, key_padding_mask=key_padding_mask, slot_mask=slot_mask)
    y = causal_product(a, A, v) / visible_count(A, key_padding_mask)
    return y.to(v.dtype), a


def causal_luna_explicit(q, k, v, A, *, key_padding_mask=None, slot_mask=None):
    """Eqs. (5) and (6) token by token, with the state the paper keeps: the sequential twin of `causal_luna`.

    Returns: y [B, H, N, d_v] and a [B, H, N, l].
    """
    tokens = q.shape[2]
    padded = torch.zeros(q.shape[0], tokens, dtype=torch.bool) if key_padding_mask is None else key_padding_mask
    keys = torch.zeros(*q.shape[:2], A.shape[-1], q.shape[-1], dtype=q.dtype)  # Σ A_jᵀ k_j  [B, H, l, d]
    values = torch.zeros(*q.shape[:2], A.shape[-1], v.shape[-1], dtype=q.dtype)  # Σ A_jᵀ v_j  [B, H, l, d_v]
    count = torch.zeros(q.shape[0], 1, 1, 1, dtype=q.dtype)
    ys, weights = [], []
    for t in range(tokens):
        real = (~padded[:, t]).to(q.dtype)[:, None, None, None]
        keys = keys + real * A[:, :, t, :, None] * k[:, :, t, None, :]
        values = values + real * A[:, :, t, :, None] * v[:, :, t, None, :]
        count = count + real
        mean = 1.0 / count.clamp(min=1.0)
        logits = (keys * mean) @ q[:, :, t, :, None] * default_scale(q.shape[-1])  # [B, H, l, 1]
        if slot_mask is not None:
            logits = logits.masked_fill(slot_mask[:, None, :, None], -math.inf)
        a = logits.softmax(2).nan_to_num(0.0)
        ys.append((a * values * mean).sum(2))
        weights.append(a[..., 0])
    return torch.stack(ys, 2), torch.stack(weights, 2)


class Packed(NamedTuple):
    """Luna's carry: the packed sequence P [B, l, D], and which slots a sequence leaves unused, [B, l] or None."""

    slots: torch.Tensor
    mask: torch.Tensor | None = None


def unused_slots(packed, key_padding_mask):
    """Slots [B, l] that unpacking must not see (None: sees all): those cut off, all if no token is real."""
    if key_padding_mask is None:
        return packed.mask
    empty = key_padding_mask.all(1, keepdim=True).expand(-1, packed.slots.shape[1])
    return empty if packed.mask is None else empty | packed.mask


class Luna(Attention):
    """Nested linear attention (Ma et al. 2021): self-, cross- and causal form, with the P path of the layer.

    Args: those of `Attention`, and
        num_slots: l, the length of P.
        pack_heads: heads of the pack step (default num_heads; ignored by the causal form, which has one set of heads).
        tied: keys and values share a projection in both steps (the authors' choice for translation and BERT).
        pack_activation: "softplus" (base 2) or "elu": ω of eq. (4).
        slot_norm: where the P path is normalised: "post" (eq. 3), "pre" (P stays un-normalised, its copy that is packed
            with is normalised), or "none".
        update_slots: hand on P' of eq. (3); without it every layer packs with P0, the paper's ablation.
        dynamic_slots: a sequence shorter than l uses only as many slots as it has tokens (the authors' default for
            translation and BERT); not for a causal first layer, whose slots may not depend on the length.
        first_in_chain: owns P0 (a learned table, scaled by √D, plus sinusoidal positions: what a token embedding gets).
        last_in_chain: nobody reads the P it would hand on, so it has no norm for it and hands on None.

    A causal layer only reads P; the other forms update it. `effective` maps come one per pair of unpack and pack heads.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        num_slots=16,
        pack_heads=None,
        tied=True,
        pack_activation="softplus",
        slot_norm="post",
        update_slots=True,
        dynamic_slots=False,
        first_in_chain=True,
        last_in_chain=False,
        **common,
    ):
        self.tied = tied  # read by make_projections, which the base constructor calls
        super().__init__(embed_dim, num_heads, **common)
        if num_slots < 1:
            raise ValueError(f"num_slots={num_slots}: wanted at least one slot")
        if pack_activation not in PACK_ACTIVATIONS:
            raise ValueError(f"pack_activation={pack_activation!r}: wanted one of {sorted(PACK_ACTIVATIONS)}")
        if slot_norm not in ("post", "pre", "none"):
            raise ValueError(f"slot_norm={slot_norm!r}: wanted 'post', 'pre' or 'none'")
        if dynamic_slots and self.is_causal and first_in_chain:
            raise ValueError("dynamic_slots=True with is_causal=True: the number of slots may not depend on the length")
        self.num_slots, self.dynamic_slots, self.slot_norm = num_slots, dynamic_slots, slot_norm
        self.activation = PACK_ACTIVATIONS[pack_activation]
        biased = self.projections.query.bias is not None
        pack_heads = num_heads if pack_heads is None else pack_heads
        # the causal form has pack keys only; the others pack into Y_P, as wide as P, with no output matrix
        heads, width, has_no_value = (num_heads, self.head_dim, True) if self.is_causal else (pack_heads, None, tied)
        self.pack = Projections(embed_dim, heads, width, bias=biased, tied=has_no_value, output=False)
        self.pack.reset_parameters(gain=2**-0.5)
        self.slots = nn.Parameter(torch.randn(num_slots, embed_dim) * embed_dim**-0.5) if first_in_chain else None
        reads_norm = slot_norm == "pre" and not self.is_causal
        hands_on_norm = slot_norm == "post" and update_slots and not self.is_causal and not last_in_chain
        self.norm = nn.LayerNorm(embed_dim) if reads_norm or hands_on_norm else None
        self.update_slots, self.last_in_chain = update_slots, last_in_chain

    def make_projections(self, *, bias, qkv_bias):
        projections = Projections(
            self.embed_dim, self.num_heads, self.head_dim, bias=bias, qkv_bias=qkv_bias, tied=self.tied
        )
        projections.reset_parameters(gain=2**-0.5)
        return projections

    @classmethod
    def chain_name(cls, *, cross=False, is_causal=False):
        """One chain for all forms: a decoder's layers read and update the encoder's final P."""
        return "luna"

    def initial_slots(self, batch_size, lengths=None):
        """P0 for a batch: the learned table, treated as token embeddings are; `lengths` [B] cut it when dynamic."""
        width = self.embed_dim
        P0 = self.slots * math.sqrt(width)  # out of place: the table itself must not change
        P0 = P0 + sinusoidal(self.num_slots, width, device=P0.device, dtype=P0.dtype)
        P0 = F.dropout(P0.expand(batch_size, -1, -1), self.drop)  # [B, l, D]
        if lengths is None or not self.dynamic_slots:
            return Packed(P0)
        return Packed(P0, torch.arange(self.num_slots, device=P0.device)[None] >= lengths[:, None])

    def receive(self, x, context, key_padding_mask, carry):
        """The P this layer works with: the one handed in, or P0 if it is the first in its chain."""
        if carry is not None:
            return carry if isinstance(carry, Packed) else Packed(carry)
        if self.slots is None:
            raise ValueError("carry is missing: a layer with first_in_chain=False needs the P of the layer before")
        if key_padding_mask is None:
            lengths = x.new_full((x.shape[0],), context.shape[1], dtype=torch.long)
        else:
            lengths = (~key_padding_mask).sum(1)
        return self.initial_slots(x.shape[0], lengths)

    def nested_attention(self, x, packed, context, *, key_padding_mask=None):
        """Eqs. (1) and (2): `Y_X [B, N, D]` and `Y_P [B, l, D]`, before any residual or norm."""
        k, v = self.pack.keys_values(context)
        heads = pack(self.pack.queries(packed.slots), k, v, key_padding_mask=key_padding_mask, dropout_p=self.drop)
        Y_P = self.pack.merge(heads)
        k, v = self.projections.keys_values(Y_P)  # from Y_P itself, not from P + Y_P
        unused = unused_slots(packed, key_padding_mask)
        heads = unpack(self.projections.queries(x), k, v, slot_mask=unused, dropout_p=self.drop)
        return self.projections.merge(heads), Y_P

    def causal_parts(self, x, packed, key_padding_mask=None):
        """q, k, v and A of eqs. (4) to (6)."""
        q, k, v = self.projections(x)
        slots, pack_keys = self.pack.queries(packed.slots), self.pack.keys_values(x)[0]
        A = pack_activations(pack_keys, slots, activation=self.activation, key_padding_mask=key_padding_mask)
        return q, k, v, F.dropout(A, self.drop)

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Y_X and the carry for the next layer: `Packed`, or None from the last in the chain."""
        context = self.check_input(x, context, key_padding_mask)
        packed = self.receive(x, context, key_padding_mask, carry)
        if self.is_causal:
            masks = {"key_padding_mask": key_padding_mask, "slot_mask": packed.mask}
            y, _ = causal_luna(*self.causal_parts(x, packed, key_padding_mask), **masks)
            return self.projections.merge(y), packed
        y, Y_P = self.nested_attention(x, self.read(packed), context, key_padding_mask=key_padding_mask)
        return y, self.hand_on(packed, Y_P)

    def read(self, packed):
        """The P that is packed with: normalised if the norm comes first."""
        return packed._replace(slots=self.norm(packed.slots)) if self.slot_norm == "pre" else packed

    def hand_on(self, packed, Y_P):
        """Eq. (3): the residual stream of P, or None if nobody will read it."""
        if self.last_in_chain:
            return None
        if not self.update_slots:
            return packed
        slots = packed.slots + F.dropout(Y_P, self.drop)
        return packed._replace(slots=self.norm(slots) if self.slot_norm == "post" else slots)

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """The two thin maps and their product.

        Returns: `"pack"` [B, H_p, l, M] (causal: A of eq. 4, not normalised, [B, H, l, N]), `"unpack"` [B, H, N, l],
        and `"effective"` [B, H·H_p, N, M] of rank ≤ l (causal: [B, H, N, N]; the mask may raise its rank).
        """
        context = self.check_input(x, context, key_padding_mask)
        packed = self.receive(x, context, key_padding_mask, carry)
        if self.is_causal:
            q, k, _, A = self.causal_parts(x, packed, key_padding_mask)
            a = causal_unpack_weights(q, k, A, key_padding_mask=key_padding_mask, slot_mask=packed.mask)
            effective = (a @ A.transpose(-1, -2)).tril() / visible_count(A, key_padding_mask)
            return {"effective": effective, "pack": A.transpose(-1, -2), "unpack": a}
        packed = self.read(packed)
        slots, (k, v) = self.pack.queries(packed.slots), self.pack.keys_values(context)
        packing = softmax_weights(slots, k, key_padding_mask=key_padding_mask)  # [B, H_p, l, M]
        k, _ = self.projections.keys_values(self.pack.merge(packing @ v))
        unused = unused_slots(packed, key_padding_mask)
        unpacking = softmax_weights(self.projections.queries(x), k, key_padding_mask=unused)  # [B, H, N, l]
        effective = (unpacking[:, :, None] @ packing[:, None]).flatten(1, 2)  # one per pair of heads
        return {"effective": effective, "pack": packing, "unpack": unpacking}

    def init_state(self, batch_size, carry=None):
        """Before the first token: the sums of eqs. (5) and (6), the count t, and P, projected once and for all.

        `key_state` [B, H, d, l], `value_state` [B, H, l, d] (sums, not means), `num_steps`, `pq` [B, H, l, d] (scaled);
        `carry` is what the next layer's `init_state` takes.
        """
        if not self.is_causal:
            raise ValueError("init_state needs is_causal=True: only the causal form is a recurrence")
        packed = self.receive(self.projections.query.weight.new_zeros(batch_size, 0, 0), torch.empty(0, 0), None, carry)
        pq = self.pack.queries(packed.slots) * default_scale(self.head_dim)
        shape, sums = pq.shape, {"dtype": working_dtype(pq), "device": pq.device}
        key_state = torch.zeros(*shape[:2], shape[3], shape[2], **sums)
        state = {"key_state": key_state, "value_state": torch.zeros(shape, **sums), "num_steps": 0, "pq": pq}
        return state | {"slot_mask": packed.mask, "carry": packed}

    def step(self, x_t, state):
        """Eqs. (4) to (6) for one token: O(l d) a head, whatever came before."""
        q, k, v = self.projections(x_t[:, None])  # each [B, H, 1, d]
        pack_key = self.pack.keys_values(x_t[:, None])[0]
        A = self.activation(pack_key @ state["pq"].transpose(-1, -2)).to(state["key_state"].dtype)  # [B, H, 1, l]
        t = state["num_steps"] + 1
        key_state = state["key_state"] + k.transpose(-1, -2) * A  # Σ k_jᵀ A_j
        value_state = state["value_state"] + A.transpose(-1, -2) * v  # Σ A_jᵀ v_j
        logits = q.to(key_state.dtype) * default_scale(self.head_dim) @ key_state / t  # [B, H, 1, l]
        if state["slot_mask"] is not None:
            logits = logits.masked_fill(state["slot_mask"][:, None, None, :], torch.finfo(logits.dtype).min)
        y = (logits.softmax(-1) @ value_state / t).to(v.dtype)  # [B, H, 1, d]
        state = state | {"key_state": key_state, "value_state": value_state, "num_steps": t}
        return self.projections.merge(y)[:, 0], state
