"""Exercises of lesson 21: right numbers that are not enough, and one test for each."""

import pytest
import torch

from refattn import checks
from refattn.checks import sret as lesson
from refattn.checks.sret import answers


@pytest.fixture(autouse=True)
def empty_register():
    checks.forget()
    yield
    checks.forget()


def by_mask(q, k, v, groups):
    places = torch.arange(len(q)) // (len(q) // groups)
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(places[:, None] != places, -torch.inf)
    return logits.softmax(-1) @ v


def shuffled_by_mask(q, k, v, groups, permutation):
    return by_mask(q[permutation], k[permutation], v[permutation], groups)[permutation.argsort()]


@pytest.mark.parametrize(
    ("name", "attempt", "stage", "says"),
    [
        ("sliced_attention", by_mask, "cost", "262,144 entries"),
        ("shuffled_attention", shuffled_by_mask, "cost", "262,144 entries"),
        ("stage", answers.stage_copied, "property", "has no gradient"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_right_numbers_are_not_enough(name, attempt, stage, says):
    result = getattr(lesson, name)(attempt)
    assert (result.stage, result.mark) == (stage, "◐") and says in " ".join(result.message.split()), result.message
