"""Checks of lesson 11: right numbers at too high a price, and that what is predicted is so."""

import math

import pytest
import torch

from refattn import attention
from refattn.checks import mega as check
from refattn.checks.mega import answers
from refattn.layers.ema import DampedEMA
from refattn.layers.relative_bias import toeplitz


def by_a_matrix(x, K):
    """All N × N pairs of each feature."""
    n = len(x)
    table = torch.cat([K.flip(1), K.new_zeros(len(K), n - 1)], 1)  # lags j − i = −(N − 1) … N − 1
    return (toeplitz(table, n, n) @ x.T[:, :, None])[:, :, 0].T


def in_place(q, k, v, x, rel, c, decay, state):
    state = state or [[], [], torch.zeros_like(x)]
    keys, values, average = state
    average.mul_(decay).add_(x)
    keys.append(k), values.append(v)
    weights = (torch.stack(keys) @ q / math.sqrt(len(q)) + rel[c - len(keys) : c]).softmax(-1)
    y = weights @ torch.stack(values) + average
    return y, [[], [], average] if len(keys) == c else state


def everything_kept(q, k, v, x, rel, c, decay, state):
    before, state = state or ((), None)
    y, inner = answers.stream(q, k, v, x, rel, c, decay, state)
    return y, ((*before, k), inner)


@pytest.mark.parametrize(
    ("exercise", "attempt", "stage", "says"),
    [
        (check.convolve, by_a_matrix, "cost", "1,048,576 entries (4 × 512 × 512); 4,096 are enough"),
        (check.stream, in_place, "property", "from one state with the same token, twice"),
        (check.stream, everything_kept, "cost", "after 7 tokens and"),
    ],
    ids=["a matrix", "state in place", "growing state"],
)
def test_right_numbers_at_too_high_a_price_are_almost_right(exercise, attempt, stage, says):
    result = exercise(attempt)
    assert (result.mark, result.stage) == ("◐", stage), result.message
    assert says in " ".join(result.message.split())


@pytest.mark.parametrize(
    ("exercise", "wrong", "says"),
    [
        (check.kernel, answers.kernel_swapped, "you return [0.5, 0.3, 0.18]"),
        (check.convolve, answers.convolve_wrapped, "wanted [0, 0, 1]; you return [0.5, 0.25, 1]"),
        (check.stream, answers.stream_resets, "wanted [8, 4, 2, 1]; you return [8, 4, 0, 0]"),
    ],
    ids=lambda value: getattr(value, "short", ""),
)
def test_a_message_shows_the_mistake_on_a_tiny_input(exercise, wrong, says):
    assert says in " ".join(exercise(wrong).message.split())


def test_a_dimension_forgets_half_in_as_many_tokens_as_the_answer_says():
    module = DampedEMA(1, 1).double()
    with torch.no_grad():
        module.alpha_raw.fill_(0.0), module.delta_raw.fill_(torch.logit(torch.tensor(2 * check.half_life.value)))
    (K,) = module.kernels(129)
    assert (K[0, 128] / K[0, 0]).item() == pytest.approx(0.5, abs=1e-5)


def test_a_stream_holds_at_most_as_many_numbers_as_the_answer_says():
    """At an eighth of the size in every direction, by the same formula."""
    width, dims, z, v, c = 64, 2, 16, 128, 128
    layer = attention.build("mega", width, 1, ema_dim=dims, head_dim=z, value_dim=v, chunk=c, is_causal=True)
    state, most = layer.init_state(1), 0
    with torch.no_grad():
        for _ in range(2 * c + 3):
            _, state = layer.step(torch.zeros(1, width), state)
            most = max(most, sum(part.numel() for part in state.values()))
    assert most == width * dims + (c - 1) * (z + v)
    assert check.held.value == 512 * 16 + (1024 - 1) * (128 + 1024)
