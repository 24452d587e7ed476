"""Exercises of lesson 22: right numbers that are not enough, and other mistakes that are named."""

import copy

import pytest
import torch

from refattn.checks import edgeformer as lesson
from refattn.checks.edgeformer import answers

pytestmark = pytest.mark.usefixtures("empty_register")


def detached_second_use(x, encoded, own, cross, net, norms):
    u = x + own(norms["self"](x))
    u = u + net(norms["net"](u))
    u = u + cross(norms["cross"](u), encoded)
    frozen = u + net(norms["net"](u))
    return u * 0 + frozen.detach()


def adapter_twice(x, padded, W, own):
    own = dict(own)
    if "adapter" in own:
        own["adapter"] = tuple(2 * part for part in own["adapter"])
    return answers.adapted_attention(x, padded, W, own)


def stream_all_at_once(x, groups, weights):
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    for group in groups:
        q, k, v = (x @ W.T for W in weights[group])
        x = x + (q @ k.T / k.shape[1] ** 0.5).masked_fill(later, -1e30).softmax(-1) @ v
    return x


def stream_of_prefixes(x, groups, weights):
    return torch.stack([stream_all_at_once(x[: t + 1], groups, weights)[-1] for t in range(len(x))])


def stream_by_reading_again(x, groups, weights):
    return torch.stack([answers.stream(x[: t + 1], groups, weights)[-1] for t in range(len(x))])


def test_a_layer_whose_second_net_learns_nothing_is_almost_right():
    result = lesson.interleaved_layer(detached_second_use)
    assert (result.stage, result.mark) == ("property", "◐") and "gradients" in result.message


def test_a_copied_net_has_right_numbers_and_only_part_of_the_gradient():
    def copied(x, encoded, own, cross, net, norms):
        other = copy.copy(net)
        u = x + own(norms["self"](x))
        u = u + net(norms["net"](u)).detach()
        u = u + cross(norms["cross"](u), encoded)
        return u + other(norms["net"](u))

    assert lesson.interleaved_layer(copied).stage == "property"


def test_an_adapter_too_strong_gets_a_counterexample_and_no_guess():
    result = lesson.adapted_attention(adapter_twice)
    assert result.stage == "example" and result.variant is None


def test_widths_in_each_others_place_are_seen_where_nets_differ_in_number():
    result = lesson.parameters(answers.parameters_widths_swapped)
    assert (result.stage, result.variant) == ("example", "widths swapped") and "count 108" in result.message


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (stream_all_at_once, "All tokens go through a matrix together"),
        (stream_of_prefixes, "made again for each later token"),
        (stream_by_reading_again, "made again for each later token"),
    ],
)
def test_a_stream_without_a_cache_has_right_numbers_and_costs_too_much(attempt, says):
    result = lesson.stream(attempt)
    assert (result.stage, result.mark) == ("cost", "◐") and says in " ".join(result.message.split())


def test_the_lines_with_the_bug_are_untouched_and_told_no_reason():
    result = lesson.stream(answers.stream_by_weights)
    assert (result.stage, result.mark) == ("untouched", "○") and not result.passed
    message = " ".join(result.message.split())
    assert "must be [[9], [5]]" in message and not any(word in message for word in ("weights", "cache", "append"))


@pytest.mark.parametrize(("number", "reason"), [(2688, "a"), (2688, "c")])
def test_the_right_width_needs_the_right_reason(number, reason):
    assert lesson.equal_width(number, reason).mark == "◐"
