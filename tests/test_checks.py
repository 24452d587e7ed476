"""Exercises: a check passes every correct answer, names every stored mistake, and guesses at no other."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from messages import words
from other_answers import ANSWERS
from torch.utils._pytree import tree_leaves, tree_map

from refattn import catalog, checks
from refattn.checks.compare import WIDTH, as_tensors, golden, readable, rows, show, wrap
from refattn.checks.decision import as_number
from refattn.checks.frame import ALMOST, RIGHT, UNTOUCHED, WRONG, Exercise

ROOT = Path(__file__).parents[1]
FOLDERS = {number: import_module(f"refattn.checks.{name}") for number, name in checks.LESSONS.items()}
EXERCISES = [exercise for folder in FOLDERS.values() for exercise in folder.EXERCISES]
FUNCTIONS = [exercise for exercise in EXERCISES if isinstance(exercise, Exercise)]
DECISIONS = [exercise for exercise in EXERCISES if not isinstance(exercise, Exercise)]
STAGES = {  # stage: the marks it may have
    "untouched": UNTOUCHED,
    "runs": WRONG,
    "shape": WRONG,
    "example": WRONG,
    "property": WRONG + ALMOST,
    "cost": ALMOST,
    "numbers": WRONG,
    "passed": RIGHT,
}


def over(exercises):
    return pytest.mark.parametrize("exercise", exercises, ids=lambda exercise: exercise.name)


def named(name):
    return next(exercise for exercise in EXERCISES if exercise.name == name)


pytestmark = pytest.mark.usefixtures("empty_register")


@pytest.fixture
def attempt(capsys):
    """Hands an attempt to a check, and looks at the form of what it prints. Returns: the result."""

    def run(exercise, *attempts):
        capsys.readouterr()
        result = exercise(*attempts)
        first, *later = result.message.split("\n")
        assert capsys.readouterr().out == f"{result.message}\n", "one message and nothing else"
        assert result.mark in STAGES[result.stage] and result.passed == (result.stage == "passed")
        assert first.startswith(f"{result.mark} {exercise.short}. ") and all(line.startswith("  ") for line in later)
        assert max(map(len, (first, *later))) <= WIDTH
        assert ("\n  Next: " if result.passed else "\n  Try: ") in result.message
        return result

    return run


def in_double(function):
    """The function on float64 copies of its arguments."""

    def convert(part):
        return part.double() if torch.is_tensor(part) and part.is_floating_point() else part

    return lambda *args: function(*tree_map(convert, args))


def first_shifted(function):
    """A mistake nobody has made before: the function's (first) result, stretched and shifted."""

    def wrong(*args):
        found = function(*args)
        first, *others = found if isinstance(found, tuple) else (found,)
        return (first * 1.37 + 0.11, *others) if others else first * 1.37 + 0.11

    return wrong


# ---- What there is --------------------------------------------------------------------------------------------------


def test_each_folder_of_checks_is_a_lessons():
    folders = {path.parent.name for path in (ROOT / "refattn" / "checks").glob("*/__init__.py")}
    assert folders == set(checks.LESSONS.values())
    assert set(checks.LESSONS) <= {entry.number for entry in catalog.LESSONS}
    assert len({exercise.name for exercise in EXERCISES}) == len(EXERCISES)
    for number, folder in FOLDERS.items():
        for exercise in folder.EXERCISES:
            assert exercise.name == f"{checks.LESSONS[number]}.{exercise.short}"
            assert getattr(folder, exercise.short) is exercise, "a reader writes check.NAME"


def test_each_exercise_has_other_answers():
    assert set(ANSWERS) == {exercise.name for exercise in FUNCTIONS}
    assert all(len(functions) >= 2 for functions in ANSWERS.values())


# ---- Right, untouched, wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cast", [lambda function: function, in_double], ids=["float32", "float64"])
@over(FUNCTIONS)
def test_every_correct_answer_passes_however_written(exercise, cast, attempt):
    for answer in (exercise.answer, *ANSWERS[exercise.name]):
        result = attempt(exercise, cast(answer))
        assert result.passed and result.variant is None, f"{answer.__name__}\n{result.message}"


def not_written(*args):
    raise NotImplementedError


def blank(*args):
    """Example: 1 → 2"""
    ...


def half_written(*args):
    y = ...
    return y @ y


STUBS = {
    "None": None,
    "...": ...,
    "not implemented": not_written,
    "body of ...": blank,
    "pass": lambda *args: None,
    "returns ...": lambda *args: [...][0],
    "computes with ...": half_written,
}


@pytest.mark.parametrize("stub", STUBS)
@over(FUNCTIONS)
def test_a_stub_is_untouched(exercise, stub, attempt):
    assert attempt(exercise, STUBS[stub]).stage == "untouched"


@over(FUNCTIONS)
def test_what_returns_none_is_told_so(exercise, attempt):
    def forgot_to_return(*args):
        exercise.answer(*args)

    result = attempt(exercise, forgot_to_return)
    assert result.stage in ("runs", "shape") and "None" in result.message


@over(FUNCTIONS)
def test_what_is_no_function_is_told_so(exercise, attempt):
    result = attempt(exercise, torch.ones(3))
    assert result.stage == "runs" and f"check.{exercise.short}({exercise.short})" in result.message


@over(FUNCTIONS)
def test_each_stored_mistake_is_recognised_with_its_own_message(exercise, attempt):
    messages = set()
    for variant in exercise.variants:
        result = attempt(exercise, variant.wrong)
        stage = "untouched" if variant.given else "example"
        assert (result.stage, result.variant) == (stage, variant.name), result.message
        assert re.search(r"\d|nan|inf", result.message.split(" Try: ")[0]), "numbers, seen on a tiny input"
        messages.add(result.message)
    assert len(messages) == len(exercise.variants)


@over(FUNCTIONS)
def test_an_unknown_mistake_gets_a_counterexample_and_no_guess(exercise, attempt):
    result = attempt(exercise, first_shifted(exercise.answer))
    assert result.stage == "example" and result.variant is None
    assert exercise.probes[0].text[:20] in result.message
    assert all(part in words(result) for part in ("Wanted", "you return", "so no guess"))
    has_axes = any(tensor.dim() for tensors in exercise.outputs_of(exercise.answer) for tensor in tensors)
    assert ("What holds already: the shapes" in words(result)) == has_axes
    assert "holds already: ." not in words(result)


@over(FUNCTIONS)
def test_an_error_shows_the_readers_own_line_and_no_other(exercise, attempt):
    def broken(*args):
        wide = torch.ones(2, 3)
        return wide @ wide

    result = attempt(exercise, broken)
    assert result.stage == "runs" and "return wide @ wide" in result.message and "of broken" in result.message
    assert not re.search(r"\.py|site-packages|refattn[./]|Traceback", result.message)


@over(FUNCTIONS)
def test_an_error_outside_the_readers_lines_shows_none(exercise, attempt):
    def too_few():
        return 1.0

    result = attempt(exercise, too_few)
    assert result.stage == "runs" and "TypeError: " in result.message and "too_few() takes 0" in result.message
    assert not re.search(r"\.py|site-packages|in line|that line", result.message)


@over(FUNCTIONS)
def test_an_attempt_that_writes_into_its_arguments_spoils_no_later_one(exercise, attempt):
    def spoils(*args):
        found = exercise.answer(*args)
        for part in tree_leaves(args):
            if torch.is_tensor(part) and not part.requires_grad:
                part.fill_(True)
        for part in args:
            if isinstance(part, list):
                part.clear()
        return found

    exercise(spoils)
    assert attempt(exercise, exercise.answer).passed


# ---- Beyond the examples --------------------------------------------------------------------------------------------


def nan_replaced(q, k, v, key_padding_mask):
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(key_padding_mask[:, None, None, :], -torch.inf)
    return (logits.softmax(-1) @ v).nan_to_num()


def detached(q, k, v, key_padding_mask):
    return named("softmax.padded_attention").answer(q, k, v, key_padding_mask).detach()


def through_the_map(phi_q, phi_k, v):
    return named("cost.kernel_map").answer(phi_q, phi_k) @ v


def token_by_token(q, k, v, chunk):
    return named("cost.chunked_causal").answer(q, k, v, 1)


def one_chunk(q, k, v, chunk):
    return named("cost.chunked_causal").answer(q, k, v, len(q))


@pytest.mark.parametrize(
    "name, function, stage, says",
    [
        ("softmax.padded_attention", nan_replaced, "property", "NaN into the gradient"),
        ("softmax.padded_attention", detached, "property", "nothing could be trained"),
        ("cost.linear_attention", through_the_map, "cost", "262,144 entries (512 × 512)"),
        ("cost.chunked_causal", token_by_token, "cost", "operators"),
        ("cost.chunked_causal", one_chunk, "cost", "262,144 entries (512 × 512)"),
    ],
)
def test_right_numbers_are_not_enough(name, function, stage, says, attempt):
    result = attempt(named(name), function)
    assert result.stage == stage and result.mark == ALMOST and says in words(result)


def test_numpy_is_as_good_as_torch(attempt):
    check = named("softmax.weights")
    assert attempt(check, lambda q, k: check.answer(q, k).numpy()).passed
    wrong = next(variant.wrong for variant in check.variants if variant.name == "softmax over queries")
    assert attempt(check, lambda q, k: wrong(q, k).numpy()).variant == "softmax over queries"


def test_a_wrong_shape_is_said_with_both_shapes(attempt):
    check = named("softmax.weights")
    result = attempt(check, lambda q, k: check.answer(q, k).transpose(-1, -2))
    assert result.stage == "shape" and "has shape [3, 2]; wanted [2, 3]" in words(result)


def test_rows_of_numbers_are_not_broken():
    text = wrap("x " * 52 + "[1.25, 2.5, 3.75] and more", later="  ")
    assert "[1.25, 2.5, 3.75]" in text and text.count("\n") == 1


def test_outputs_and_numbers_of_the_authors_are_compared_in_full():
    assert len(as_tensors((rows(1), [rows(2), rows(3)]))) == 3
    golden()["linear.q"].fill_(0.0)
    assert golden()["linear.q"].abs().sum() > 0


# ---- Decisions ------------------------------------------------------------------------------------------------------


@over(DECISIONS)
def test_a_decision_wants_the_number_and_the_reason(exercise, attempt):
    assert attempt(exercise).stage == attempt(exercise, None, None).stage == "untouched"
    assert exercise.asks in words(attempt(exercise))
    assert attempt(exercise, exercise.value, exercise.reason).passed
    assert attempt(exercise, float(exercise.value), f" {exercise.reason.upper()})").passed
    almost = [attempt(exercise, exercise.value, letter) for letter in exercise.reasons]
    almost.append(attempt(exercise, exercise.value))
    assert all((result.stage, result.mark) == ("property", ALMOST) for result in almost)
    assert len({result.message for result in almost}) == len(almost)
    letters = sorted([exercise.reason, *exercise.reasons])
    assert ", ".join(letters) in almost[-1].message and letters == list("abcdef"[: len(letters)])


@over(DECISIONS)
def test_a_classic_wrong_number_is_named_and_another_is_not(exercise, attempt):
    results = [attempt(exercise, number, exercise.reason) for number in exercise.wrong]
    assert [(r.stage, r.variant) for r in results] == [("example", str(number)) for number in exercise.wrong]
    assert len({result.message for result in results}) == len(results)
    for number in (exercise.value * 1.234567e5, -1):
        result = attempt(exercise, number, exercise.reason)
        assert result.variant is None and "no guess" in words(result) and "a formula with a letter" in words(result)
    assert "too large" in attempt(exercise, 1e12).message and "too small" in attempt(exercise, -1).message


@pytest.mark.parametrize("number", ["many", float("nan"), float("inf"), [1, 2]])
@over(DECISIONS)
def test_what_is_no_number_is_told_so(exercise, number, attempt):
    result = attempt(exercise, number, exercise.reason)
    assert result.stage == "shape" and "is not a number" in result.message


@over(DECISIONS)
def test_a_number_may_be_entered_as_texts_print_it(exercise, attempt):
    for space in (",", " ", "\u202f", "'", "_"):
        assert attempt(exercise, f" {exercise.value:,} ".replace(",", space), exercise.reason).passed


@pytest.mark.parametrize(
    ("given", "number"),
    [("2,688", 2688), ("-52,183,040.5", -52183040.5), ("1 048 576", 1048576), ("+1,000", 1000), ("5.2e7", 5.2e7)],
)
def test_thousands_may_be_set_apart(given, number):
    assert as_number(given) == number


@pytest.mark.parametrize("given", ["2,25", "1,2345", "12,34,567", ",500", "2,688 parameters", "", 10**400])
def test_what_is_not_set_apart_in_thousands_is_no_number(given):
    assert str(as_number(given)) == "nan"


@over([exercise for exercise in DECISIONS if exercise.tolerance < 0.0099])
def test_a_number_that_is_nearly_right_is_told_to_keep_its_digits(exercise, attempt):
    for number in (0.9901 * exercise.value, 1.0099 * exercise.value):
        said = words(attempt(exercise, number, exercise.reason))
        assert "by less than 1 %" in said and "no guess" not in said
        assert ("too small" if number < exercise.value else "too large") in said
        digits = int(re.search(r"round to (\d+) digits", said)[1])
        assert attempt(exercise, float(f"{exercise.value:.{digits}g}"), exercise.reason).passed


@pytest.mark.parametrize("number, digits, text", [(9834500.0, 6, "9,834,500"), (1e12, 6, "1,000,000,000,000")])
def test_a_decision_repeats_a_large_number_readably(number, digits, text, attempt):
    assert readable(number, digits) == text
    check = named("softmax.map_size")
    assert f"{text} is too large" in attempt(check, number, check.reason).message


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (-0.0, "0"),
        (0.6667, "0.667"),
        (999.7, "1,000"),
        (2048.0, "2,048"),
        (52183040, "52,183,040"),
        (2.5e20, "2.5e+20"),
        (True, "True"),
        ([-0.0, 1234.5, -20000.0], "[0, 1234, -20000]"),
        ([52183040, 7], "[52183040, 7]"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_are_shown_as_texts_print_them(number, text):
    assert show(number) == text


# ---- Hints, the answer, the register --------------------------------------------------------------------------------


@over(EXERCISES)
def test_hints_and_the_answer_are_printed_on_request(exercise, capsys):
    printed = []
    for ask in (lambda: exercise.hint(1), lambda: exercise.hint(2), lambda: exercise.hint(3), exercise.show_answer):
        ask()
        printed.append(capsys.readouterr().out)
    first, second, third, answer = printed
    assert first.startswith("hint 1. ") and second.startswith("hint 2. ") and len(set(printed)) == 4
    assert f"check.{exercise.short}.hint(1)" in third and f"check.{exercise.short}.show_answer()" in third
    wanted = f"def {exercise.short}(" if isinstance(exercise, Exercise) else f"{exercise.value:,}, and reason"
    assert answer.startswith(wanted) and exercise not in checks.report()


def test_the_register_keeps_the_latest_result_of_each(capsys):
    check, other = named("softmax.weights"), named("softmax.map_size")
    checks.summary()
    assert "nothing attempted yet" in capsys.readouterr().out and not checks.passed("softmax.weights")
    check(None)
    other(64, "c")
    check(check.answer)
    assert [(row["exercise"], row["stage"]) for row in checks.report()] == [
        ("softmax.weights", "passed"),
        ("softmax.map_size", "example"),
    ]
    assert checks.passed("softmax.weights") and not checks.passed("softmax.weights", "softmax.map_size")
    capsys.readouterr()
    checks.summary()
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["✓", "softmax.weights", "passed"],
        ["✗", "softmax.map_size", "example"],
    ]
