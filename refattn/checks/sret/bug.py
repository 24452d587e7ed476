"""Lesson 21, find the bug: which pass is this?"""

import torch

from refattn.checks.compare import equal, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.sret import answers
from refattn.models.sret import RecursiveStage


def three():
    return 2, 3, (4, 2)


def by_hand(run):
    return f"Two blocks, three passes, groups 4 and 2: row 3 must be [1, 4, 0]; yours is {show(run(*three())[3])}"


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
        Probe("Two blocks, three passes, groups 4 and 2: row 3 is [1, 4, 0].", three),
        Probe("Two blocks, two passes, groups 4 and 1: one slice is not shuffled.", lambda: (2, 2, (4, 1))),
        Probe("Two blocks, one pass each.", lambda: (2, 1, (4, 2))),
    ),
    variants=(
        Variant(
            "odd means again",
            answers.schedule_odd,
            lambda run: f"{by_hand(run)}.",
            """With two passes a block all is right, and the authors have no other. With three, block 1 begins with what
            counts as a second pass, and each block's third pass as a first.
            Try: write pass numbers 0, 1, 2 beside j = 0 … 5.""",
        ),
        Variant(
            "blocks in turn",
            answers.schedule_cycled,
            lambda run: f"{by_hand(run)}.",
            """Second passes are told from first ones. But the blocks run 0, 1, 0, 1, …; each is to be applied T times
            in a row.
            Try: j // loops.""",
        ),
        Variant(
            "first passes shuffled",
            answers.schedule_always,
            lambda run: f"{by_hand(run)}.",
            """Blocks and counts are right. A first pass takes its slices in order: neighbours stay together once.
            Try: row 0.""",
        ),
        Variant(
            "only the second pass",
            answers.schedule_once,
            lambda run: f"Two blocks, three passes: row 2 must be [0, 2, 1]; yours is {show(run(*three())[2])}.",
            """First and second passes are right. A third pass is a repetition as well.
            Try: j % loops > 0.""",
        ),
        Variant(
            "one slice shuffled",
            answers.schedule_needless,
            lambda run: f"Groups 4 and 1: row 1 must be [0, 1, 0]; yours is {show(run(2, 2, (4, 1))[1])}.",
            """Passes are counted as they should be. But with one slice every order gives the same, and a permutation
            that was drawn for nothing shifts all later draws.
            Try: shuffle only where there is more than one slice.""",
        ),
    ),
    properties=(Property("each block begins with a first pass", fact_first, "j % loops is the pass. Try: T = 5."),),
    numbers=(Property("it equals refattn", fact_package, "j // loops and j % loops. Try: T = 4."),),
    hints=(
        "What does j % 2 say about application 3 of two blocks with three passes each?",
        "again = j % loops > 0: the pass within the block, not the parity within the stage.",
    ),
    passed="""Passes are counted within the block, for any T.
    Next: with T = 1 nothing is ever repeated. What does the authors' rule do then?""",
)
