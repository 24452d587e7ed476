"""Exercises of lesson 22: right numbers that are not enough, and other mistakes that are named."""

import copy

import pytest

from refattn import checks
from refattn.checks import edgeformer as lesson
from refattn.checks.edgeformer import answers


@pytest.fixture(autouse=True)
def empty_register():
    checks.forget()
    yield
    checks.forget()


def detached_second_use(x, encoded, own, cross, net, norms):
    u = norms["self"](x + own(x))
    u = norms["net"](u + net(u))
    u = norms["cross"](u + cross(u, encoded))
    frozen = norms["net"](u + net(u))
    return u * 0 + frozen.detach()


def mask_of_ones(x, padded, W, own):
    return answers.adapted_attention(x, padded & False, W, own)


def test_a_layer_whose_second_net_learns_nothing_is_almost_right():
    result = lesson.interleaved_layer(detached_second_use)
    assert (result.stage, result.mark) == ("property", "◐") and "gradients" in result.message


def test_a_copied_net_has_right_numbers_and_only_part_of_the_gradient():
    def copied(x, encoded, own, cross, net, norms):
        other = copy.copy(net)
        u = norms["self"](x + own(x))
        u = norms["net"](u + net(u).detach())
        u = norms["cross"](u + cross(u, encoded))
        return norms["net"](u + other(u))

    assert lesson.interleaved_layer(copied).stage == "property"


def test_forgetting_padding_gets_a_counterexample_and_no_guess():
    result = lesson.adapted_attention(mask_of_ones)
    assert result.stage == "example" and result.variant is None


@pytest.mark.parametrize(("number", "reason"), [(2688, "a"), (2688, "c")])
def test_the_right_width_needs_the_right_reason(number, reason):
    assert lesson.equal_width(number, reason).mark == "◐"
