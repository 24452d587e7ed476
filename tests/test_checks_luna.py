"""Checks of lesson 10: what a right answer may have, what makes it almost right, and that what is predicted is so."""

import math

import pytest
import torch
from torch.nn import functional as F

from refattn import attention, measure
from refattn.checks import luna as check
from refattn.checks.luna import answers


def fused_pack_unpack(x, p, W):
    """Through torch's kernel, with a batch axis that is never taken off."""
    packed = (x @ W["pack_key"].T)[None]
    y_p = F.scaled_dot_product_attention((p @ W["pack_query"].T)[None], packed, packed)
    slots = y_p @ W["key"].T
    return F.scaled_dot_product_attention((x @ W["query"].T)[None], slots, slots) @ W["output"].T, y_p


def bracketed_pack_unpack(x, p, W):
    """The N × N product of both maps first."""
    packed, scale = x @ W["pack_key"].T, math.sqrt(x.shape[1])
    pack = (p @ W["pack_query"].T @ packed.T / scale).softmax(-1)  # [l, N]
    slots = pack @ packed @ W["key"].T
    unpack = ((x @ W["query"].T) @ slots.T / scale).softmax(-1)  # [N, l]
    return (unpack @ pack) @ packed @ W["key"].T @ W["output"].T, pack @ packed


def looped_causal(q, k, v, u):
    """Running means instead of sums, in double precision."""
    keys = values = torch.zeros((), dtype=torch.float64)
    outputs = []
    for t, (q_t, k_t, v_t, A) in enumerate(zip(*(x.double() for x in (q, k, v, answers.omega(u))), strict=True), 1):
        keys, values = keys + (A[:, None] * k_t - keys) / t, values + (A[:, None] * v_t - values) / t
        outputs.append((keys @ q_t).softmax(0) @ values)
    return torch.stack(outputs)


def einsum_causal(q, k, v, u):
    A, t = answers.omega(u), torch.arange(1.0, len(q) + 1)[:, None]
    keys, values = (torch.einsum("nl,nd->nld", A, x).cumsum(0) for x in (k, v))
    weights = torch.einsum("nd,nld->nl", q / t, keys).softmax(-1)
    return torch.einsum("nl,nld->nd", weights / t, values)[:, None]  # an axis of size 1 is nobody's mistake


def masked_causal(q, k, v, u):
    """All pairs of tokens, masked."""
    A, t = answers.omega(u), torch.arange(1.0, len(q) + 1)[:, None]
    weights = ((q @ k.T).tril() @ A / t).softmax(-1)
    return (weights @ A.T).tril() @ v / t


def step_in_place(q, k, v, u, state):
    keys, values, t = state or (torch.zeros(len(u), len(k)), torch.zeros(len(u), len(v)), 0)
    keys += answers.omega(u)[:, None] * k
    values += answers.omega(u)[:, None] * v
    return (keys / (t + 1) @ q).softmax(0) @ values / (t + 1), (keys, values, t + 1)


def step_with_cache(q, k, v, u, state):
    state = [*(state or []), (q, k, v, u)]
    return answers.causal_luna(*map(torch.stack, zip(*state, strict=True)))[-1], state


def padded_batch_in_double(x, p, lengths):
    """With NaN at padded positions, where nobody looks."""
    y = answers.padded_batch(x.double(), p.double(), lengths)
    return y.masked_fill((torch.arange(x.shape[1]) >= lengths[:, None])[..., None], torch.nan)


@pytest.mark.parametrize(
    ("exercise", "attempt"),
    [
        (check.pack_unpack, fused_pack_unpack),
        (check.causal_luna, looped_causal),
        (check.causal_luna, einsum_causal),
        (check.initial_slots, lambda table, n: table[:n].clone().mul_(math.sqrt(table.shape[1]))),
        (check.padded_batch, padded_batch_in_double),
    ],
    ids=["a batch axis", "double precision", "a spare axis", "in place on a copy", "anything at padded positions"],
)
def test_a_right_answer_may_have(exercise, attempt):
    assert exercise(attempt).passed


@pytest.mark.parametrize(
    ("exercise", "attempt", "stage", "says"),
    [
        (check.pack_unpack, bracketed_pack_unpack, "cost", "has 262,144 entries (512 × 512); 2,048 are enough"),
        (check.causal_luna, masked_causal, "cost", "has 262,144 entries (512 × 512); 8,192 are enough"),
        (check.causal_step, step_in_place, "property", "from one state with the same token, twice"),
        (check.causal_step, step_with_cache, "cost", "104 numbers after 8 tokens and 832 after 64"),
    ],
    ids=["map first", "masked map", "state in place", "growing state"],
)
def test_right_numbers_at_too_high_a_price_are_almost_right(exercise, attempt, stage, says):
    result = exercise(attempt)
    assert (result.mark, result.stage) == ("◐", stage)
    assert says in " ".join(result.message.split())


@pytest.mark.parametrize(
    ("exercise", "wrong", "says"),
    [
        (check.pack_unpack, answers.pack_unpack_normed, "you return [1.34, -1.05, -0.294]"),
        (check.causal_luna, answers.causal_luna_by_length, "0.122] when one token follows"),
        (check.initial_slots, answers.initial_slots_in_place, "the same call once more [4, 8, 12, 16]"),
    ],
    ids=lambda value: getattr(value, "short", ""),
)
def test_a_message_shows_the_mistake_on_a_tiny_input(exercise, wrong, says):
    assert says in " ".join(exercise(wrong).message.split())


def scaled_without_gradients(table, n):
    p = table[:n]
    with torch.no_grad():
        p *= math.sqrt(table.shape[1])
    return p


def scaled_through_data(table, n):
    p = table.data[:n]
    p *= math.sqrt(table.shape[1])
    return p


@pytest.mark.parametrize("silenced", [scaled_without_gradients, scaled_through_data])
def test_silencing_torch_is_no_repair_of_the_initial_slots(silenced):
    assert check.initial_slots(silenced).variant == "in place"


def test_an_error_inside_a_step_is_reported_with_the_shapes_of_a_token():
    def step(q, k, v, u, state):
        keys, values, t = state

    message = check.causal_step(step).message
    assert "keys, values, t = state" in message
    assert "tensors of shape [1], [1], [1], [1]." in message


def test_layers_take_equally_many_multiply_adds_where_the_answer_says():
    n, width, slots = check.equal_work.value, 384, 24
    luna = attention.build("luna", width, 6, num_slots=slots, tied=False)
    softmax = attention.build("softmax", width, 6)
    for length, sign in ((n - 1, 1), (n, 0), (n + 1, -1)):
        x = torch.zeros(1, length, width)
        difference = measure.flops(luna, x) - measure.flops(softmax, x)
        assert (difference > 0) - (difference < 0) == sign


def test_the_state_holds_as_many_numbers_as_the_answer_says():
    layer = attention.build("luna", 512, 8, num_slots=32, is_causal=True)
    state = layer.init_state(1)
    for _ in range(3):
        _, state = layer.step(torch.zeros(1, 512), state)
    assert state["key_state"].numel() + state["value_state"].numel() == check.state_numbers.value
