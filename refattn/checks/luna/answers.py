"""Lesson 10: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import math

import torch
from torch.nn import functional as F


def attend(q, k, v):
    """softmax(q kᵀ / √d) v on [N, d], [M, d], [M, d_v]: lesson 01."""
    return (q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v


def pack_unpack(x, p, W):
    packed = x @ W["pack_key"].T  # [N, D]: tied, so these are keys and values
    y_p = attend(p @ W["pack_query"].T, packed, packed)  # [l, D]: l queries over N tokens
    slots = y_p @ W["key"].T  # [l, D]: read from what was just packed
    y_x = attend(x @ W["query"].T, slots, slots)  # [N, D]: N queries over l slots
    return y_x @ W["output"].T, y_p


def pack_then(x, p, W, read, output=None):
    """`pack_unpack` that unpacks from read(p, y_p); with `output`, W_O acts on Y_P as well."""
    packed = x @ W["pack_key"].T
    y_p = attend(p @ W["pack_query"].T, packed, packed)
    y_p = y_p if output is None else y_p @ output.T
    slots = read(p, y_p) @ W["key"].T
    return attend(x @ W["query"].T, slots, slots) @ W["output"].T, y_p


def pack_unpack_normed(x, p, W):
    return pack_then(x, p, W, lambda p, y_p: F.layer_norm(p + y_p, p.shape[-1:]))


def pack_unpack_residual(x, p, W):
    return pack_then(x, p, W, lambda p, y_p: p + y_p)


def pack_unpack_from_p(x, p, W):
    return pack_then(x, p, W, lambda p, y_p: p)


def pack_unpack_one_matrix(x, p, W):
    return pack_unpack(x, p, {**W, "key": W["pack_key"]})


def pack_unpack_output_twice(x, p, W):
    return pack_then(x, p, W, lambda p, y_p: y_p, output=W["output"])


def pack_unpack_no_output(x, p, W):
    return pack_then(x, p, {**W, "output": torch.eye(x.shape[-1]).to(x)}, lambda p, y_p: y_p)


def pack_unpack_from_tokens(x, p, W):
    y_p = pack_unpack(x, p, W)[1]
    keys = x @ W["key"].T
    return attend(x @ W["query"].T, keys, keys) @ W["output"].T, y_p


def omega(u):
    return F.softplus(u, beta=math.log(2.0))  # log(1 + e^(u ln 2)) / ln 2 = log2(1 + 2^u), without overflow


def omega_natural(u):
    return F.softplus(u)


def omega_elu(u):
    return F.elu(u) + 1.0


def omega_mixed(u):
    return F.softplus(u) / math.log(2.0)


def omega_power(u):
    return 2.0**u


def omega_overflow(u):
    return torch.log2(1.0 + 2.0**u)


def causal_luna(q, k, v, u):
    A = omega(u)  # [N, l]
    t = torch.arange(1, len(q) + 1)[:, None, None]  # tokens so far: known while generating, unlike N
    keys = (A[:, :, None] * k[:, None, :]).cumsum(0) / t  # [N, l, d], eq. 5
    values = (A[:, :, None] * v[:, None, :]).cumsum(0) / t  # [N, l, d_v], eq. 6
    weights = (keys @ q[:, :, None])[:, :, 0].softmax(-1)  # [N, l], over slots
    return (weights[:, None, :] @ values)[:, 0]  # [N, d_v]


def running(q, k, v, A, normalise, sum_over=lambda products: products.cumsum(0)):
    """`causal_luna` from A, with other sums, divided by `normalise` [N or 1, l or 1]."""
    keys = sum_over(A[:, :, None] * k[:, None, :]) / normalise[:, :, None]
    values = sum_over(A[:, :, None] * v[:, None, :]) / normalise[:, :, None]
    weights = (keys @ q[:, :, None])[:, :, 0].softmax(-1)
    return (weights[:, None, :] @ values)[:, 0]


def so_far(q):
    return torch.arange(1, len(q) + 1)[:, None]


def causal_luna_over_positions(q, k, v, u):
    return running(q, k, v, u.softmax(0), so_far(q))


def causal_luna_by_length(q, k, v, u):
    return running(q, k, v, omega(u), q.new_tensor([[len(q)]]))


def causal_luna_natural(q, k, v, u):
    return running(q, k, v, F.softplus(u), so_far(q))


def causal_luna_weighted(q, k, v, u):
    return running(q, k, v, omega(u), omega(u).cumsum(0))


def causal_luna_sums(q, k, v, u):
    return running(q, k, v, omega(u), q.new_ones(1, 1))


def causal_luna_not_itself(q, k, v, u):
    return running(q, k, v, omega(u), so_far(q), lambda products: products.cumsum(0) - products)


def causal_luna_all(q, k, v, u):
    return running(q, k, v, omega(u), q.new_tensor([[len(q)]]), lambda products: products.sum(0, keepdim=True))


def causal_luna_scaled_twice(q, k, v, u):
    return causal_luna(q / math.sqrt(q.shape[-1]), k, v, u)


def causal_step(q, k, v, u, state):
    A = omega(u)[:, None]  # [l, 1]
    keys, values, t = (0.0, 0.0, 0) if state is None else state
    keys, values, t = keys + A * k, values + A * v, t + 1  # sums [l, d] and [l, d_v], never means
    weights = (keys / t @ q).softmax(-1)  # [l]: divide when reading
    return weights @ values / t, (keys, values, t)


def stepper(update, divisor=lambda t: 1.0, reads_old=False):
    """`causal_step` whose state goes from `old` to update(old, new, t), read through divisor(t), or read too early."""

    def causal_step(q, k, v, u, state):
        A = omega(u)[:, None]
        keys, values, t = (k.new_zeros(len(u), len(k)), v.new_zeros(len(u), len(v)), 0) if state is None else state
        state = update(keys, A * k, t + 1), update(values, A * v, t + 1), t + 1
        keys, values, t = (keys, values, t + 1) if reads_old else state
        weights = (keys / divisor(t) @ q).softmax(-1)
        return weights @ values / divisor(t), state

    return causal_step


causal_step_unweighted = stepper(lambda old, new, t: old + new / t)
causal_step_halves = stepper(lambda old, new, t: (old + new) / 2)
causal_step_sums = stepper(lambda old, new, t: old + new)
causal_step_late_count = stepper(lambda old, new, t: old + new, lambda t: max(t - 1, 1))
causal_step_forgets = stepper(lambda old, new, t: new)
causal_step_not_itself = stepper(lambda old, new, t: old + new, lambda t: t, reads_old=True)


def initial_slots(table, n):
    return table[:n] * math.sqrt(table.shape[1])  # a new tensor: the parameter stays what it is


def initial_slots_in_place(table, n):
    p = table[:n]
    p *= math.sqrt(table.shape[1])
    return p


def initial_slots_bare(table, n):
    return table[:n]


def initial_slots_by_width(table, n):
    return table[:n] * table.shape[1]


def initial_slots_detached(table, n):
    return table[:n].detach() * math.sqrt(table.shape[1])


def padded_batch(x, p, lengths):
    scale = math.sqrt(x.shape[-1])
    padded = torch.arange(x.shape[1]) >= lengths[:, None]  # [B, N]
    unused = torch.arange(p.shape[0]) >= lengths[:, None]  # [B, l]: no more slots than tokens
    logits = p @ x.transpose(1, 2) / scale  # [B, l, N]
    y_p = logits.masked_fill(padded[:, None, :], -torch.inf).softmax(-1) @ x  # [B, l, D]
    logits = x @ y_p.transpose(1, 2) / scale  # [B, N, l]
    return logits.masked_fill(unused[:, None, :], -torch.inf).softmax(-1) @ y_p  # [B, N, D]


def padded_slots(x, p, lengths, *, pack_fill=-torch.inf, slot_fill=-torch.inf, first_unused=0, zero=""):
    """`padded_batch` with other fillings of masked logits, or with context or slots set to zero and not masked."""
    scale = math.sqrt(x.shape[-1])
    padded = torch.arange(x.shape[1]) >= lengths[:, None]
    unused = torch.arange(p.shape[0]) >= lengths[:, None] + first_unused
    context = x.masked_fill(padded[:, :, None], 0.0) if zero == "context" else x
    logits = p @ context.transpose(1, 2) / scale
    logits = logits if pack_fill is None else logits.masked_fill(padded[:, None, :], pack_fill)
    y_p = logits.softmax(-1) @ context
    y_p = y_p.masked_fill(unused[:, :, None], 0.0) if zero == "slots" else y_p
    logits = x @ y_p.transpose(1, 2) / scale
    logits = logits if slot_fill is None else logits.masked_fill(unused[:, None, :], slot_fill)
    return logits.softmax(-1) @ y_p


def padded_batch_unmasked(x, p, lengths):
    return padded_slots(x, p, lengths, pack_fill=None, slot_fill=None)


def padded_batch_pack_only(x, p, lengths):
    return padded_slots(x, p, lengths, slot_fill=None)


def padded_batch_slots_only(x, p, lengths):
    return padded_slots(x, p, lengths, pack_fill=None)


def padded_batch_zero_logits(x, p, lengths):
    return padded_slots(x, p, lengths, pack_fill=0.0, slot_fill=0.0)


def padded_batch_zero_context(x, p, lengths):
    return padded_slots(x, p, lengths, pack_fill=None, zero="context")


def padded_batch_zero_slots(x, p, lengths):
    return padded_slots(x, p, lengths, slot_fill=None, zero="slots")


def padded_batch_one_slot_more(x, p, lengths):
    return padded_slots(x, p, lengths, first_unused=1)


def padded_batch_longest(x, p, lengths):
    return padded_slots(x, p[: max(lengths)], lengths, slot_fill=None)
