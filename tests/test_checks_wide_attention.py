"""Exercises of lesson 20: mistakes are known however they are made, and a function as handed out is not explained."""

import pytest
import torch
from messages import words
from other_answers.wide_attention import MISTAKES

from refattn.checks import wide_attention as lesson
from refattn.checks.wide_attention import answers

RECOGNISED = [(name.rpartition(".")[2], variant) for name, variants in MISTAKES.items() for variant in variants]


pytestmark = pytest.mark.usefixtures("empty_register")


@pytest.mark.parametrize(("exercise", "variant"), RECOGNISED)
def test_a_mistake_is_known_by_what_it_returns(exercise, variant):
    result = getattr(lesson, exercise)(MISTAKES[f"wide_attention.{exercise}"][variant])
    assert (result.stage, result.variant) == ("example", variant), result.message


def test_a_word_whose_vector_is_zero_is_a_word():
    def over_nonzero(x, padding):
        words = x.masked_fill(padding[..., None], 0.0)
        return words.sum(1) / (words != 0).any(-1).sum(1, keepdim=True)

    result = lesson.pooled(over_nonzero)
    assert not result.passed and "Words 4 and 0 and one padding: wanted [2]; you return [4]" in words(result)


def test_the_bug_as_handed_out_is_shown_and_not_explained(capsys):
    def as_handed_out(x, padding):
        words = x.masked_fill(padding[..., None], 0.0)
        return words.mean(1)

    result = lesson.pooled(as_handed_out)
    assert (result.stage, result.mark, result.passed) == ("untouched", "○", False)
    assert "wanted [6]; you return [4]" in words(result) and "divided" not in result.message
    capsys.readouterr()
    lesson.pooled.hint(1)
    assert "divided by 1,000" in " ".join(capsys.readouterr().out.split())


def test_the_lessons_function_for_one_text_is_not_enough():
    def attend(z, W_q, W_k, W_v, W_o, heads):
        q, k, v = ((z @ W.T).unflatten(-1, (heads, -1)).transpose(0, 1) for W in (W_q, W_k, W_v))
        return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(0, 1).flatten(1) @ W_o.T

    assert not lesson.attention(attend).passed
    assert not lesson.attention(lambda z, padding, *W: torch.stack([attend(x, *W) for x in z])).passed


def test_messages_speak_of_the_numbers_that_are_wanted():
    for variant in lesson.weights.variants:
        text = words(lesson.weights(variant.wrong))
        assert "wanted 54;" in text or f"wanted {answers.weights(11, 3, 8, 3, 2, 4, 16):,};" in text
    assert "With H = d_h" not in words(lesson.attention(answers.attention_swapped))


def test_the_lessons_own_ratios_are_not_this_shapes():
    for number, says in ((2.25, "six layers"), (2.1, "whole network"), (1.72, "multiply-adds"), (2, "d_ff = 4 D")):
        assert says in words(lesson.ratio(number, "c")) and str(number) == lesson.ratio(number, "c").variant
