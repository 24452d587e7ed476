"""Lesson 21, find the bug: which pass is this?"""

import torch

from refattn.checks.compare import equal, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.sret import answers
from refattn.models.sret import RecursiveStage


def row(run, j, blocks, loops, groups=(4, 2)):
    """Row j, as it must be and as it is, for a message."""
    count = ("One block", "Two blocks")[blocks - 1], ("one pass", "two passes", "three passes")[loops - 1]
    wanted, yours = (show(torch.as_tensor(table(blocks, loops, groups))[j]) for table in (answers.schedule, run))
    where = f"{count[0]}, {count[1]}, groups {groups[0]} and {groups[1]}"
    return f"{where}: row {j} must be {wanted}; yours is {yours}."


def fact_list(run):
    table = run(1, 2, (4, 2))
    if isinstance(table, list):
        return "Every number is right. But what comes is a list of rows."


def fact_first(run):
    table = run(3, 5, (8, 2))
    if not equal([table[::5, 1]], [torch.tensor([8, 8, 8])]):
        return f"Three blocks, five passes: first passes must have 8 slices; yours have {show(table[::5, 1])}."


def fact_package(run):
    model = RecursiveStage(4, 1, blocks=3, loops=4, groups=(6, 3), ffn_hidden=4)
    if not equal([run(3, 4, (6, 3))], [torch.tensor(model.applications, dtype=torch.int64)]):
        return "Three blocks, four passes, groups 6 and 3: your table is not refattn's."


schedule = Exercise(
    "sret.schedule",
    answers.schedule,
    returns="a row for each application: number of the block, slices, 1 if shuffled else 0; int64 [L, 3]",
    probes=(
        Probe("One block, two passes, groups 4 and 2: [0, 4, 0], then [0, 2, 1].", lambda: (1, 2, (4, 2))),
        Probe("One block, three passes, groups 4 and 2.", lambda: (1, 3, (4, 2))),
        Probe("Two blocks, one pass each, groups 4 and 2.", lambda: (2, 1, (4, 2))),
        Probe("Two blocks, two passes each, groups 4 and 2.", lambda: (2, 2, (4, 2))),
        Probe("Two blocks, two passes each, groups 4 and 1: one slice is not shuffled.", lambda: (2, 2, (4, 1))),
        Probe("Two blocks, three passes each, groups 4 and 2: row 3 is [1, 4, 0].", lambda: (2, 3, (4, 2))),
    ),
    variants=(
        Variant(
            "odd means again",
            answers.schedule_odd,
            lambda run: row(run, 2, 1, 3),
            given=True,
        ),
        Variant(
            "blocks in turn",
            answers.schedule_cycled,
            lambda run: row(run, 1, 2, 2),
            """Second passes are told from first ones. But the blocks run 0, 1, 0, 1, …; each is to be applied T times
            in a row.
            Try: j // loops.""",
        ),
        Variant(
            "first passes shuffled",
            answers.schedule_always,
            lambda run: row(run, 0, 1, 2),
            """Blocks and counts are right. A first pass takes its slices in order: neighbours stay together once.
            Try: row 0.""",
        ),
        Variant(
            "only the second pass",
            answers.schedule_once,
            lambda run: row(run, 2, 1, 3),
            """First and second passes are right. A third pass is a repetition as well.
            Try: which j are passes 1 and 2 of their block?""",
        ),
        Variant(
            "only the last pass",
            answers.schedule_last,
            lambda run: row(run, 1, 1, 3),
            """Right with two passes. With three, the second is a repetition as well; and with one, nothing ever is.
            Try: which j are first passes of their block?""",
        ),
        Variant(
            "once and for all",
            answers.schedule_ever,
            lambda run: row(run, 2, 2, 2),
            """Right with one block. But a new block begins with a first pass of its own: it has seen nothing yet.
            Try: row T of your table.""",
        ),
        Variant(
            "one slice shuffled",
            answers.schedule_needless,
            lambda run: row(run, 1, 2, 2, (4, 1)),
            """Passes are counted as they should be. But with one slice every order gives the same, and a permutation
            that was drawn for nothing shifts all later draws.
            Try: shuffle only where there is more than one slice.""",
        ),
    ),
    properties=(
        Property("it is a tensor", fact_list, "Return a tensor, int64 [L, 3]. Try: torch.tensor(rows).", ALMOST),
        Property("each block begins with a first pass", fact_first, "j % loops is the pass. Try: T = 5."),
    ),
    numbers=(Property("it equals refattn", fact_package, "j // loops and j % loops. Try: T = 4."),),
    hints=(
        """j % 2 counts within the stage. With three passes a block, application 3 begins block 1 and counts as a second
        pass, and each third pass counts as a first. Write pass numbers 0, 1, 2 beside j = 0 … 5: what gives them?""",
        "again = j % loops > 0: the pass within the block, not the parity within the stage.",
    ),
    passed="""Passes are counted within the block, for any T.
    Next: with T = 1 nothing is ever repeated. What does the authors' rule do then?""",
)
