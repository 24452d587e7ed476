"""The frame of every exercise: one attempt in, one message out, and nothing raised in the reader's notebook.

A check stops at the first failure, in this order: untouched → runs → shape → example (the smallest input that tells
right from wrong, printed) → property → cost → numbers. It names a mistake only if the attempt returns what a stored
wrong variant returns, for every probe; otherwise it shows the counterexample and does not guess.

    from refattn.checks import softmax as check
    check.weights(my_function)          # prints one message, returns a Result
    check.weights.hint(1)               # one of two hints, and on request:
    check.weights.show_answer()

What a message `says` is written in one piece: what already holds, the concept, and "Try:" the next experiment.
"""

import dis
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from refattn.checks.compare import as_tensors, equal, own_line, shapes, show, wrap
from refattn.measure import peak_bytes

WRONG, ALMOST, RIGHT, UNTOUCHED = "✗", "◐", "✓", "○"

_register = {}  # exercise → its latest Result, in the order of first attempts


def report():
    """Latest result of every exercise attempted in this process: a list of dicts of plain values."""
    keys = ("exercise", "mark", "stage", "passed", "message")
    return [{key: getattr(result, key) for key in keys} for result in _register.values()]


def summary():
    """Print where every attempted exercise stands, a line each."""
    print(
        "\n".join(f"{row['mark']} {row['exercise']:24} {row['stage']}" for row in report()) or "nothing attempted yet"
    )


def passed(*names):
    """Whether all these exercises, by names such as "softmax.weights", have passed."""
    return all(name in _register and _register[name].passed for name in names)


def forget():
    """Empty the register, as at the start of a session."""
    _register.clear()


@dataclass(frozen=True)
class Finding:
    """A message. fact: what was seen, with numbers; says: see the top of this file."""

    fact: str
    says: str


@dataclass(frozen=True)
class Probe:
    """An input. text: what goes in and what must come out, and why; make: () → fresh arguments for the function."""

    text: str
    make: Callable


@dataclass(frozen=True)
class Variant:
    """A classic wrong answer. wrong: a function that computes it; fact: attempt → what was seen on a tiny input.

    given: the notebook hands it out, for its bug to be found; then the fact is all that is said (hint 1 may say more).
    """

    name: str
    wrong: Callable
    fact: Callable
    says: str = ""
    given: bool = False


@dataclass(frozen=True)
class Property:
    """What must hold beyond the probes. holds: a sentence for when it does; fact: attempt → what was seen, or None."""

    holds: str
    fact: Callable
    says: str
    mark: str = WRONG


def at_most(entries, make, *, sizes, says, slack=2):
    """A cost: the largest tensor that an attempt creates on the arguments of `make` has about `entries` numbers."""

    def fact(run):
        largest = peak_bytes(run, *make())
        if largest.entries > slack * entries:
            shape = " × ".join(map(str, largest.shape))
            return (
                f"Every number is right. But at {sizes} your largest tensor has {largest.entries:,} entries ({shape}); "
                f"{entries:,} are enough."
            )

    return Property(f"no tensor much above {entries:,} entries at {sizes}", fact, says, ALMOST)


@dataclass(frozen=True)
class Result:
    """What a check found. variant: name of the stored mistake it recognised, or None."""

    exercise: str
    stage: str
    mark: str
    message: str
    variant: str | None = None

    @property
    def passed(self):
        return self.stage == "passed"

    def _ipython_display_(self):
        """Nothing more below the cell: the message is printed already."""


class Checked:
    """What all exercises share: the printed message, the register, hints and the answer.

    Args: name: "lesson.exercise"; hints: where to look, and what to do; passed: what held, and "Next:" a question.
    """

    def __init__(self, name, *, hints, passed):
        self.name, self.hints, self.passed = name, hints, passed
        self.short = name.rpartition(".")[2]

    def hint(self, number=1):
        """Print hint 1 or 2."""
        if number in (1, 2):
            print(wrap(f"hint {number}. {' '.join(self.hints[number - 1].split())}", later="  "))
        else:
            print(f"two hints, check.{self.short}.hint(1) and hint(2); then there is check.{self.short}.show_answer()")

    def show_answer(self):
        """Print one correct answer."""
        print(self.answer_text())

    def conclude(self, stage, finding, mark=WRONG, *, hint=None, variant=None):
        """Print the message of a finding, enter the result in the register, and return it."""
        says = " ".join(finding.says.split()) + (f"   check.{self.short}.hint({hint})" if hint else "")
        for word in ("Try: ", "Next: "):
            says = says.replace(f" {word}", f"\n{word}")
        lines = wrap(f"{mark} {self.short}. {finding.fact}", later="  "), wrap(says, first="  ", later="  ")
        result = Result(self.name, stage, mark, "\n".join(lines), variant)
        _register[self.name] = result
        print(result.message)
        return result

    def conclude_untouched(self, fact, attempt):
        return self.conclude("untouched", Finding(fact, f"Try: {attempt}"), UNTOUCHED, hint=1)

    def conclude_passed(self):
        held, _, onward = self.passed.partition("Next:")
        return self.conclude("passed", Finding(" ".join(held.split()), f"Next:{onward}"), RIGHT)


class Exercise(Checked):
    """A function to write or to repair.

    Args:
        name: "lesson.exercise";  answer: a correct function with the reader's signature.
        returns: its outputs in words, such as "weights [..., N, M]".
        probes: inputs, smallest first;  variants: classic wrong answers, which the probes tell from each other.
        properties, costs, numbers: what must hold beyond the probes, in this order.
        adapt: attempt → function of the probes' arguments, where the two differ (a step becomes a whole run).
    """

    def __init__(
        self, name, answer, *, returns, probes, variants, hints, passed, properties=(), costs=(), numbers=(), adapt=None
    ):
        super().__init__(name, hints=hints, passed=passed)
        self.answer, self.returns, self.probes, self.variants = answer, returns, probes, variants
        self.beyond = {"property": properties, "cost": costs, "numbers": numbers}
        self.adapt = adapt or (lambda attempt: attempt)

    def answer_text(self):
        return inspect.getsource(self.answer).rstrip()

    def __call__(self, attempt):
        """Check a function: prints one message, returns a `Result`, raises nothing."""
        if attempt is None or attempt is ... or does_nothing(attempt):
            return self.conclude_unwritten()
        if not callable(attempt):
            fact = f"What came is no function but a {name_of(attempt)}; wanted one that returns {self.returns}."
            finding = Finding(fact, f"Try: hand over the function itself, uncalled: check.{self.short}({self.short}).")
            return self.conclude("runs", finding, hint=1)
        probe = None
        try:
            run, outputs = numpy_to_torch(self.adapt(attempt)), []
            for probe in self.probes:
                outputs.append(run(*probe.make()))
            probe = None
            return self.judge(run, outputs)
        except Exception as error:  # whatever the reader's function does, their notebook goes on
            if isinstance(error, NotImplementedError) and not str(error):
                return self.conclude_unwritten()
            if "ellipsis" in str(error):  # what TypeError calls a `...` that it was asked to compute with
                return self.conclude_unwritten(f"A `...` still stands in it. {own_line(error)}")
            return self.conclude("runs", raised(error, probe), hint=1)

    def conclude_unwritten(self, fact=None):
        fact = fact or f"Not written yet: it should return {self.returns}."
        return self.conclude_untouched(fact, "the example in its docstring, on paper. Then write down what you did.")

    def judge(self, run, outputs):
        """The first failure among the outputs for the probes, then among what must hold beyond them."""
        got = []
        for probe, output in zip(self.probes, outputs, strict=True):
            if any(part is ... for part in tree_leaves(output)):
                return self.conclude_unwritten("A `...` still stands where it returns.")
            try:
                got.append(as_tensors(output))
            except (TypeError, ValueError, RuntimeError):
                return self.conclude("shape", self.no_tensor(output, probe), hint=1)
        wanted = self.outputs_of(self.answer)
        wrong = [i for i in range(len(wanted)) if not equal(got[i], wanted[i])]
        if wrong:
            return self.counterexample(run, got, wanted, wrong)
        for stage, properties in self.beyond.items():
            for prop in properties:
                if fact := prop.fact(run):
                    return self.conclude(stage, Finding(fact, prop.says), prop.mark, hint=2)
        return self.conclude_passed()

    def conclude_given(self, variant, run):
        says = """It returns what it returned when it was handed out.
        Try: work this input through on paper, and print each line's result beside it."""
        finding = Finding(variant.fact(run), says)
        return self.conclude("untouched", finding, UNTOUCHED, hint=1, variant=variant.name)

    def outputs_of(self, function):
        """Outputs of a function with the reader's signature for every probe, as lists of tensors."""
        run = self.adapt(function)
        return [as_tensors(run(*probe.make())) for probe in self.probes]

    def no_tensor(self, output, probe):
        fact = f"{probe.text} It runs, but returns {name_of(output)}; wanted {self.returns}."
        says = "A path through a function that ends without `return` returns None. " if output is None else ""
        return Finding(fact, says + "Try: print the type of what you return, just before you return it.")

    def counterexample(self, run, got, wanted, wrong):
        """A stored mistake by its name, else a wrong shape, else the smallest input that tells right from wrong."""
        for variant in self.variants:
            if all(equal(g, s) for g, s in zip(got, self.outputs_of(variant.wrong), strict=True)):
                if variant.given:
                    return self.conclude_given(variant, run)
                return self.conclude("example", Finding(variant.fact(run), variant.says), hint=2, variant=variant.name)
        for i in wrong:
            if shapes(got[i]) != shapes(wanted[i]):
                return self.conclude("shape", self.wrong_shape(self.probes[i], got[i], wanted[i]), hint=1)
        i = wrong[0]
        g, w = next(pair for pair in zip(got[i], wanted[i], strict=True) if not equal(pair[:1], pair[1:]))
        fact = f"{self.probes[i].text} Wanted {show(w)}; you return {show(g)}."
        holds = [prop.holds for prop in self.beyond["property"] if holds_for(run, prop)]
        if any(t.dim() for tensors in wanted for t in tensors):  # a single number has no shape to be praised for
            holds.insert(0, "the shapes")
        already = f"What holds already: {'; '.join(holds)}. " if holds else ""
        says = f"""{already}These are the numbers of no mistake known here, so no guess.
        Try: work this input through on paper, and print each line's result beside it. Which is the first to differ?"""
        return self.conclude("example", Finding(fact, says), hint=1)

    def wrong_shape(self, probe, got, wanted):
        came, due = (" and ".join(str(list(t.shape)) for t in tensors) for tensors in (got, wanted))
        says = """It runs, so inner sizes fit; an axis is missing, too many, or in another's place.
        Try: write each line's shape beside it, and name every axis."""
        return Finding(f"{probe.text} Your result has shape {came}; wanted {due}, that is {self.returns}.", says)


def does_nothing(attempt):
    """Whether a function's body is but a docstring, `...`, `pass` or `return None`: a stub as it came."""
    if not hasattr(attempt, "__code__"):
        return False
    steps = [step for step in dis.get_instructions(attempt) if step.opname not in ("RESUME", "NOP")]
    constants = [step.argval for step in steps if step.opname in ("RETURN_CONST", "LOAD_CONST")]
    return len(steps) <= 2 and steps[-1].opname in ("RETURN_CONST", "RETURN_VALUE") and constants in ([None], [...])


def numpy_to_torch(run):
    """The same function with tensors where it returns NumPy's arrays: facts and properties compute with tensors."""

    def convert(part):
        return torch.as_tensor(part) if isinstance(part, (np.ndarray, np.generic)) else part

    return lambda *args: tree_map(convert, run(*args))


def name_of(value):
    """What kind of thing a value is, in a word: None, list, dict, …"""
    return "None" if value is None else type(value).__name__


def holds_for(run, prop):
    """Whether a property holds for an attempt that is known to be wrong, and may therefore fail anywhere."""
    try:
        return prop.fact(run) is None
    except Exception:
        return False


def raised(error, probe=None):
    """The finding for an exception: the reader's own line, and what the function was called with.

    Where that is not what the probe makes, `adapt` has noted it in the exception, as `called_with`.
    """
    called_with = getattr(error, "called_with", None) or (probe.make() if probe else ())
    sizes = [str(list(leaf.shape)) for leaf in tree_leaves(called_with) if torch.is_tensor(leaf)]
    says = f"It was called with tensors of shape {', '.join(sizes)}. " if sizes else ""
    fact = own_line(error)
    inside = "call it with such tensors, and print shapes before that line."
    outside = "compare its arguments, and what it returns, with the docstring."
    return Finding(fact, f"{says}Try: {inside if fact.startswith('It stops in line') else outside}")
