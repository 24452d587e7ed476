"""The other kind of exercise: a number to predict, and the reason for it."""

import math
import re

from refattn.checks.compare import readable, wrap
from refattn.checks.frame import ALMOST, Checked, Finding

IN_THOUSANDS = re.compile(r"[+-]?\d{1,3}([, '\u00a0\u2009\u202f]\d{3})+(\.\d+)?")  # 2,688 and 52 183 040.5


def as_number(given):
    """What a reader entered, as a float; NaN if it is no number. Thousands may be set apart, as texts print them."""
    if isinstance(given, str) and IN_THOUSANDS.fullmatch(given.strip()):
        given = re.sub(r"[^\d.+-]", "", given)
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError):
        return math.nan


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
        given, number = number, as_number(number)
        if not math.isfinite(number):
            says = f"Try: a bare number, without its unit, and a point before decimals. Wanted: {self.asks}."
            return self.conclude("shape", Finding(f"{given!r} is not a number.", says), hint=1)
        if not self.near(number, self.value):
            return self.conclude_wrong(number)
        letter = str(reason or "").strip().lower()[:1]
        if letter == self.reason:
            return self.conclude_passed()
        letters = ", ".join(sorted([self.reason, *self.reasons]))
        says = f"A number is half an answer. Try: the letter of a reason, one of {letters}, as second argument."
        missing = Finding(f"{readable(number, 6)} is right.", says)
        return self.conclude("property", self.reasons.get(letter, missing), ALMOST, hint=2)

    def conclude_wrong(self, number):
        """The message for a number that is not right: a stored mistake by its name, or no guess."""
        for mistake, finding in self.wrong.items():
            if self.near(number, mistake):
                return self.conclude("example", finding, hint=2, variant=str(mistake))
        fact = f"{readable(number, 6)} is too {'large' if number > self.value else 'small'}"
        if abs(number - self.value) < 0.01 * abs(self.value):
            says = f"""So close, it may have been rounded early, or lack a small term.
            Try: keep every digit until the end, then round to {self.digits()} digits."""
            return self.conclude("example", Finding(f"{fact}, by less than 1 %.", says), hint=1)
        says = """It is the number of no mistake known here, so no guess.
        Try: a formula with a letter for each size, checked on the smallest case you can draw; then numbers."""
        return self.conclude("example", Finding(f"{fact}.", says), hint=1)

    def near(self, number, value):
        return abs(number - value) <= self.tolerance * abs(value)

    def digits(self):
        """With how many digits the right number is right."""
        return next(n for n in range(1, 18) if self.near(float(f"{self.value:.{n}g}"), self.value))
