"""Exercises of lesson 15: right numbers that are not enough, and one test for each."""

import pytest
import torch

from refattn.checks import rpe_fft as lesson
from refattn.checks.rpe_fft import answers

pytestmark = pytest.mark.usefixtures("empty_register")


def product_by_matrix(c, x):
    return answers.matrix(c) @ x


def nprf_by_matrix(q, k, v, Omega, b, is_causal):
    C = answers.matrix((b - b.max()).exp(), is_causal)
    return answers.by_matrix(answers.unit(q), answers.unit(k), v, Omega, C)


def nprf_without_shift(q, k, v, Omega, b, is_causal):
    return answers.by_matrix(answers.unit(q), answers.unit(k), v, Omega, answers.matrix(b.exp(), is_causal))


def nprf_detached(q, k, v, Omega, b, is_causal):
    return answers.nprf(q, k, v, Omega, b.detach(), is_causal)


def grid_by_matrix(c, x):
    return (answers.grid_matrix(c, *x.shape) @ x.flatten()).view(x.shape)


@pytest.mark.parametrize(
    ("name", "attempt", "stage", "says"),
    [
        ("toeplitz_product", product_by_matrix, "cost", "1,048,576 entries"),
        ("nprf", nprf_by_matrix, "cost", "entries"),
        ("nprf", nprf_without_shift, "property", "200 was added"),
        ("nprf", nprf_detached, "numbers", "remembers the biases"),
        ("unit_rows", answers.unit_rows_bare, "property", "second becomes"),
        ("grid_product", grid_by_matrix, "cost", "2,359,296 entries"),
    ],
)
def test_right_numbers_are_not_enough(name, attempt, stage, says):
    result = getattr(lesson, name)(attempt)
    assert (result.stage, result.variant) == (stage, None) and says in " ".join(result.message.split())


def test_the_number_of_features_is_the_least_that_does():
    error = lambda m: ((torch.tensor(4.0, dtype=torch.float64).exp() - 1) / m).sqrt().item()  # noqa: E731
    assert error(lesson.features_needed.value) <= 0.5 < error(lesson.features_needed.value - 1)
    logits = torch.tensor([1.0] + 47 * [-1.0], dtype=torch.float64)
    assert lesson.sharpest.value == pytest.approx(logits.softmax(0)[0].item(), rel=1e-3)
