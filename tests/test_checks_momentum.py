"""Exercises of lesson 16: right numbers that are not enough, and one test for each."""

import pytest
import torch

from refattn.checks import momentum as lesson
from refattn.checks.momentum import answers

pytestmark = pytest.mark.usefixtures("empty_register")


def through_the_map(phi_q, phi_k, v, beta, gamma):
    return answers.weighted(phi_q, phi_k, v, answers.weights(len(v), beta, gamma))


def step_in_place(phi_q, phi_k, v, state, beta, gamma):
    S, p, z = (torch.zeros(len(phi_k), len(v)), torch.zeros(len(phi_k), len(v)), phi_k * 0) if state is None else state
    p *= beta
    p -= gamma * phi_k[:, None] * v
    S -= p
    z += phi_k
    return phi_q @ S / (phi_q @ z), (S, p, z)


def step_with_a_list(phi_q, phi_k, v, state, beta, gamma):
    state = [*(state or []), (phi_k, v)]
    keys, values = (torch.stack(part) for part in zip(*state, strict=True))
    similarity = keys @ phi_q
    return answers.weights(len(state), beta, gamma)[-1] * similarity @ values / similarity.sum(), state


@pytest.mark.parametrize(
    ("name", "attempt", "stage", "says"),
    [
        ("momentum_attention", through_the_map, "cost", "262,144 entries"),
        ("momentum_step", step_in_place, "property", "twice, gives"),
        ("momentum_step", step_with_a_list, "cost", "after 64"),
        ("adaptive_connection", answers.adaptive_connection_detached, "property", "gradient of"),
        ("adaptive_connection", answers.adaptive_connection_bare, "property", "NaN or infinity"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_right_numbers_are_not_enough(name, attempt, stage, says, capsys):
    result = getattr(lesson, name)(attempt)
    assert (result.stage, result.mark) == (stage, "◐") and says in " ".join(result.message.split()), result.message
