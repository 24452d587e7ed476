"""Lesson 10, find the bug: the initial slots are scaled in place, and with them the parameter."""

import torch
from torch import nn

from refattn.checks.compare import equal, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.luna import answers

FIRST, SECOND, TABLE, GRADIENT = "first call", "second call", "table after two calls", "gradient of the table"


def used(attempt):
    """What comes of using an attempt on a parameter: one of the four things above, for (numbers, n, which)."""

    def run(numbers, n, which):
        table = nn.Parameter(numbers.clone())
        if which == GRADIENT:
            return gradient(attempt, table, n)
        with torch.no_grad():
            slots = attempt(table, n)
            if which != FIRST:
                slots = attempt(table, n)
            seen = table if which == TABLE else slots
            return seen.clone() if torch.is_tensor(seen) else seen  # a view of a parameter is no result

    return run


def gradient(attempt, table, n):
    """Gradient of the sum of the slots; zero where none arrives, NaN where torch refuses or the table has changed."""
    numbers = table.detach().clone()
    try:
        slots = attempt(table, n)
        tracked = torch.is_tensor(slots) and slots.requires_grad
    except RuntimeError:  # an operation that works without gradients, as the other probes have shown, and not with them
        tracked = None
    if tracked is None or not torch.equal(table.detach(), numbers):
        return torch.full_like(numbers, torch.nan)
    if tracked:
        slots.sum().backward()
    return torch.zeros_like(numbers) if table.grad is None else table.grad


def counting():
    """A table of three slots of width 4: 1 … 4, 5 … 8, 9 … 12."""
    return torch.arange(1.0, 13.0).reshape(3, 4)


def probe(which, text):
    return Probe(f"Table [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], n = 2: {text}", lambda: (counting(), 2, which))


def first_row(run, which=FIRST):
    return show(run(counting(), 2, which)[0])


def fact_scale(run):
    return f"Table row [1, 2, 3, 4], D = 4: the slot must be [2, 4, 6, 8]; you return {first_row(run)}"


def fact_widths(run):
    spread = run(seeded(64, 256) / 16, 64, FIRST).std().item()
    if not 0.9 < spread < 1.1:
        return f"D = 256, table from N(0, 1/√D): your slots have standard deviation {spread:.3g}; wanted 1."


def fact_all_rows(run):
    if not equal([run(counting(), 3, FIRST)], [2 * counting()]):
        return "With n = 3, all rows of the table, the slots are not twice the table."


initial_slots = Exercise(
    "luna.initial_slots",
    answers.initial_slots,
    returns="slots [n, D]",
    adapt=used,
    probes=(
        probe(FIRST, "the slots are the first two rows, times √4."),
        probe(SECOND, "the same call once more must give the same slots."),
        probe(TABLE, "the table after two calls must be what it was."),
        probe(GRADIENT, "each slot's sum has gradient √4 in its row of the table."),
    ),
    variants=(
        Variant(
            "in place",
            answers.initial_slots_in_place,
            lambda run: (
                f"Table row [1, 2, 3, 4], no gradients, as in evaluation: the first call gives {first_row(run)}, the "
                f"same call once more {first_row(run, SECOND)}."
            ),
            """The first call is right, so the formula is. But the same table must give the same slots each time; after
            ten batches of evaluation these are 1,024 times as large. With gradients torch refuses, and that is the
            luckier case.
            Try: print the table before and after a call. Which line may change it, though it never names it?""",
        ),
        Variant(
            "not scaled",
            answers.initial_slots_bare,
            lambda run: f"{fact_scale(run)}.",
            """The parameter stays as it is, and gradients arrive. But so the fault was removed together with its
            purpose: entries of the table have standard deviation D^(-1/2), and slots should start near 1, as token
            embeddings do.
            Try: scale again, but in a new tensor.""",
        ),
        Variant(
            "scaled by D",
            answers.initial_slots_by_width,
            lambda run: f"{fact_scale(run)}.",
            """The parameter stays as it is, and gradients arrive. The factor is too large: entries have standard
            deviation D^(-1/2), not 1/D.
            Try: draw a table for D = 256 and print the standard deviation of what you return.""",
        ),
        Variant(
            "cut from the table",
            answers.initial_slots_detached,
            lambda run: (
                f"Slots are right, and the table stays as it is. But with gradients, the row of the table that made "
                f"your slot 0 gets gradient {first_row(run, GRADIENT)}; [2, 2, 2, 2] should come."
            ),
            """Detached, or wrapped in a new Parameter, the slots no longer belong to the table's graph: no error, and
            P₀ stays what it was drawn as for the whole training.
            Try: no copy is needed. Which operation reads the table, writes elsewhere, and is known to autograd?""",
        ),
    ),
    properties=(
        Property("slots start near 1 at any width", fact_widths, "√4 = 2, but for D = 4 only. Try: D = 256."),
        Property("any n up to the whole table", fact_all_rows, "table[:n]. Try: n = 3 of 3."),
    ),
    hints=(
        "A slice has no memory of its own: it is a view of the table. Which of your lines write into it?",
        "p *= s writes into the tensor that p is a view of; table[:n] * s makes a new one.",
    ),
    passed="""The same call gives the same slots, the table is left alone, and its gradient arrives.
    Next: a test that runs without gradients and calls once passes with the fault in it. Which is the cheapest test that
    does not?""",
)
