"""Checks of lesson 04: masks on all pairs are almost right, messages show the mistake, what is predicted is so."""

import pytest
import torch

from refattn import attention, measure, reachability
from refattn.checks import sparse as check
from refattn.checks.sparse import answers


@pytest.mark.parametrize(
    ("exercise", "attempt", "says"),
    [
        (check.local_attention, answers.local_attention_masked, "262,144 entries (512 × 512); 16,384 are enough"),
        (check.lsh_attention, answers.lsh_attention_pairs, "262,144 entries (512 × 512); 32,768 are enough"),
    ],
    ids=["local", "lsh"],
)
def test_a_mask_on_all_pairs_has_right_numbers_at_too_high_a_price(exercise, attempt, says):
    result = exercise(attempt)
    assert (result.mark, result.stage) == ("◐", "cost")
    assert says in " ".join(result.message.split())


@pytest.mark.parametrize(
    ("exercise", "wrong", "says"),
    [
        (check.block_attention, answers.block_attention_grouped, "you return [7, 14, 7, 14, 7, 14]"),
        (check.local_attention, answers.local_attention_grouped, "output 3 is 25.3, output 6 is 25.5"),
        (check.strided_patterns, answers.strided_patterns_short, "yours are [2, 3] and [1, 3]"),
        (check.lsh_attention, answers.lsh_attention_twice, "yours is 13.8"),
    ],
    ids=lambda value: getattr(value, "short", ""),
)
def test_a_message_shows_the_mistake_on_a_tiny_input(exercise, wrong, says):
    assert says in " ".join(exercise(wrong).message.split())


def test_one_repaired_fault_of_two_is_told_from_none():
    steps = ("grouped", "grouped_mask", "mask_left")
    found = [check.block_attention(getattr(answers, f"block_attention_{step}")).variant for step in steps]
    assert found == ["as it came", "groups, consistently masked", "blocks, mask still across"]


def test_windows_reach_as_deep_as_the_answer_says():
    """At an eighth of the size in every direction."""
    allow = reachability.pattern(attention.build("longformer", 8, 1, window=64, global_tokens=()), 2048)
    heard = torch.arange(2048) == 2047  # by the last token
    for _ in range(check.window_depth.value - 1):
        heard = heard | (heard.float() @ allow.float() > 0)
    assert not heard[0]
    assert (heard.float() @ allow.float() > 0)[0]


def test_layers_take_equally_many_multiply_adds_where_the_answer_says():
    n, width = check.equal_work.value, 384
    linformer = attention.build("linformer", width, 6, projected_len=256, max_len=1024, bias=False)
    softmax = attention.build("softmax", width, 6, bias=False)
    inputs = [torch.zeros(1, length, width) for length in (n - 16, n, n + 16)]
    below, at, above = (measure.flops(linformer, x) / measure.flops(softmax, x) for x in inputs)
    assert below > 1.005 and at == pytest.approx(1, abs=2e-3) and above < 0.995
