"""Exercises of lesson 21: right numbers that are not enough, and mistakes in other words than those stored."""

import pytest
import torch
from messages import words

from refattn.checks import sret as lesson
from refattn.checks.sret import answers

pytestmark = pytest.mark.usefixtures("empty_register")


# ---- Right numbers that are not enough ------------------------------------------------------------------------------


def by_mask(q, k, v, groups):
    places = torch.arange(len(q)) // (len(q) // groups)
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(places[:, None] != places, -torch.inf)
    return logits.softmax(-1) @ v


def shuffled_by_mask(q, k, v, groups, permutation):
    return by_mask(q[permutation], k[permutation], v[permutation], groups)[permutation.argsort()]


def scaled_in_place(q, k, v, groups):
    q *= 1.0 + torch.zeros(()) + 1.0
    return answers.sliced_attention(q / 2, k, v, groups)


def shuffled_in_place(q, k, v, groups, permutation):
    q[:], k[:], v[:] = q[permutation], k[permutation], v[permutation]
    return answers.sliced_attention(q, k, v, groups)[permutation.argsort()]


def as_list(blocks, loops, groups):
    return answers.schedule(blocks, loops, groups).tolist()


@pytest.mark.parametrize(
    ("name", "attempt", "stage", "says"),
    [
        ("sliced_attention", by_mask, "cost", "262,144 entries"),
        ("sliced_attention", scaled_in_place, "property", "you overwrote q."),
        ("shuffled_attention", shuffled_by_mask, "cost", "262,144 entries"),
        ("shuffled_attention", shuffled_in_place, "property", "you overwrote q and k and v."),
        ("stage", answers.stage_copied, "property", "has no gradient"),
        ("schedule", as_list, "property", "Return a tensor, int64 [L, 3]"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_right_numbers_are_not_enough(name, attempt, stage, says):
    result = getattr(lesson, name)(attempt)
    assert (result.stage, result.mark) == (stage, "◐") and says in words(result), result.message


# ---- Mistakes, otherwise written ------------------------------------------------------------------------------------


def passes(projects=True, before=False, shared=False, one_order=False):
    """A stage by its blocks and their passes, with a mistake."""

    def stage(x, blocks, projections, loops, groups, permutations):
        used = 0
        for b, block in enumerate(blocks):
            for turn in range(loops):
                project = projections[b if shared else b * loops + turn]
                order = None
                if turn and groups[1] > 1:
                    order, used = permutations[0 if one_order else used], used + 1
                x = project(x) if before else x
                x = block(x, groups[min(turn, 1)], order)
                x = project(x) if projects and not before else x
        return x

    return stage


def table(again):
    def schedule(blocks, loops, groups):
        found = torch.zeros(blocks, loops, 3, dtype=torch.int64)
        for b in range(blocks):
            for turn in range(loops):
                g = groups[1] if again(b, turn, loops) else groups[0]
                found[b, turn] = torch.tensor([b, g, again(b, turn, loops) and g > 1])
        return found.flatten(0, 1)

    return schedule


@pytest.mark.parametrize(
    ("name", "attempt", "variant", "says"),
    [
        ("stage", passes(projects=False), "no projections", "nothing is projected"),
        ("stage", passes(before=True), "projected first", "before the block"),
        ("stage", passes(shared=True), "a projection for each block", "through one projection"),
        ("stage", passes(one_order=True), "one permutation for all", "the next permutation"),
        ("schedule", table(lambda b, turn, loops: b + turn > 0), "once and for all", "row 2 must be [1, 4, 0]; yours"),
        ("schedule", table(lambda b, turn, loops: turn + 1 == loops), "only the last pass", "yours is [0, 4, 0]"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_a_mistake_is_named_however_it_is_written(name, attempt, variant, says):
    result = getattr(lesson, name)(attempt)
    assert (result.stage, result.variant) == ("example", variant) and says in words(result), result.message


def test_the_bug_as_it_stands_is_shown_and_not_explained():
    result = lesson.schedule(answers.schedule_odd)
    assert result.mark == "○" and "row 2 must be [0, 2, 1]; yours is [0, 4, 0]" in words(result)
    assert "hint(1)" in result.message and not any(word in result.message for word in ("odd", "j %", "second pass"))


@pytest.mark.parametrize("wrong", [answers.schedule_ever, answers.schedule_last], ids=["ever", "last"])
def test_a_table_that_differs_late_is_seen_to_differ(wrong):
    def mended(blocks, loops, groups):  # so that no stored mistake fits
        return (
            wrong(blocks, loops, groups) if loops > 1 and groups == (4, 2) else answers.schedule(blocks, loops, groups)
        )

    result = lesson.schedule(mended)
    wanted, _, yours = words(result).partition("Wanted ")[2].partition("; you return ")
    assert result.variant is None and yours and not yours.startswith(wanted)


# ---- Numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [81.9115, 79.8583, 80, 82])
def test_reach_takes_the_exact_number_and_its_approximation(number):
    assert lesson.reach(number, "a").passed


@pytest.mark.parametrize("number", [0.799, 0.819])
def test_reach_tells_a_share_from_percent(number):
    result = lesson.reach(number, "a")
    assert result.variant == "0.81" and "asked are percent" in result.message


@pytest.mark.parametrize("number", [65.6, 67.9, 12.5, 12, 23.9, 25])
def test_reach_refuses_what_another_shape_or_another_count_gives(number):
    assert lesson.reach(number, "a").stage == "example"


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (2 * 784**2 * 64 / 8, "they alone"),
        (784 * (4 * 64**2 + 2 * (230 + 64) * 64), "they alone"),
        (104.4e6, "twice as many"),
    ],
)
def test_multiply_adds_names_parts_and_units(number, says):
    result = lesson.multiply_adds(number, "b")
    assert result.variant and says in words(result), result.message


def test_multiply_adds_takes_three_digits_and_asks_for_them():
    assert lesson.multiply_adds(5.22e7, "b").passed
    assert "round to 3 digits" in words(lesson.multiply_adds(5.2e7, "b"))
