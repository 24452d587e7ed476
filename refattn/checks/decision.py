"""The other kind of exercise: a number to predict, and the reason for it."""

import math

from refattn.checks.compare import wrap
from refattn.checks.frame import ALMOST, Checked, Finding


class Decision(Checked):
    """A number to predict and a reason to choose.

    Args:
        asks: what the number is, with its unit;  value: the right one, within `tolerance` (relative).
        wrong: {number that a classic mistake gives: Finding};  reason: letter of the right reason.
        reasons: {other letter: Finding};  workings: what `show_answer` prints.
    """

    def __init__(self, name, *, asks, value, wrong, reason, reasons, workings, hints, passed, tolerance=0.01):
        super().__init__(name, hints=hints, passed=passed)
        self.asks, self.value, self.wrong, self.tolerance = " ".join(asks.split()), value, wrong, tolerance
        self.reason, self.reasons, self.workings = reason, reasons, workings

    def answer_text(self):
        return wrap(f"{self.value:,}, and reason {self.reason}. {' '.join(self.workings.split())}")

    def __call__(self, number=None, reason=None):
        """Check a number and a letter: prints one message, returns a `Result`, raises nothing."""
        if number is None or number is ...:
            return self.conclude_untouched(f"Wanted: {self.asks}.", "a guess first, on paper.")
        as_given = number
        try:
            number = float(number)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            says = f"Try: a bare number, without its unit. Wanted: {self.asks}."
            return self.conclude("shape", Finding(f"{as_given!r} is not a number.", says), hint=1)
        if not self.near(number, self.value):
            return self.conclude_wrong(number)
        letter = str(reason or "").strip().lower()[:1]
        if letter == self.reason:
            return self.conclude_passed()
        letters = ", ".join(sorted([self.reason, *self.reasons]))
        says = f"A number is half an answer. Try: the letter of a reason, one of {letters}, as second argument."
        missing = Finding(f"{number:,.6g} is right.", says)
        return self.conclude("property", self.reasons.get(letter, missing), ALMOST, hint=2)

    def conclude_wrong(self, number):
        """The message for a number that is not right: a stored mistake by its name, or no guess."""
        for mistake, finding in self.wrong.items():
            if self.near(number, mistake):
                return self.conclude("example", finding, hint=2, variant=str(mistake))
        fact = f"{number:,.6g} is too {'large' if number > self.value else 'small'}."
        says = """It is the number of no mistake known here, so no guess.
        Try: do the count at sizes 2 and 3 on paper, then scale it up."""
        return self.conclude("example", Finding(fact, says), hint=1)

    def near(self, number, value):
        return abs(number - value) <= self.tolerance * abs(value)
