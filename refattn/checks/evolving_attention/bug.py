"""Lesson 13, find the bug: heads that are merged without a transpose."""

import torch

from refattn.checks.compare import equal, golden, seeded, show
from refattn.checks.evolving_attention import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def counting(H=1, N=3, d=2):
    """Step n of a head holds 10 n and 10 n + 1; a second head holds 100 more."""
    step, channel, head = torch.arange(N)[:, None], torch.arange(d), torch.arange(H)[:, None, None]
    return ((100 * head + 10 * step + channel).float(),)


def first_channel(run):
    return show(run(*counting())[0])


def counted(run):
    return f"One head, steps [0, 1], [10, 11], [20, 21]: channel 0 must be [0, 10, 20]; yours is {first_channel(run)}."


def fact_steps_apart(run):
    (heads,) = counting(2, 4, 3)
    changed = heads.clone()
    changed[:, 2] += 1.0
    moved = (run(changed) != run(heads)).any(0)
    if moved.tolist() != [False, False, True, False]:
        return f"Step 2 was changed, and steps {moved.nonzero().flatten().tolist()} of the result moved."


def fact_one_wide(run):
    heads = seeded(3, 4, 1)
    if not equal([run(heads)], [heads[..., 0]]):
        return "Heads of width 1 are their own channels, and must come back as they are."


def fact_stored(run):
    stored = golden("golden_evolving")
    if not equal([run(stored["series.heads"])], [stored["series.y"]]):
        return "Four heads of width 2, six steps, as stored with a proper merge: yours differs."


merge_heads = Exercise(
    "evolving_attention.merge_heads",
    answers.merge_heads,
    returns="channels [H·d, N]",
    probes=(
        Probe("One head, steps [0, 1], [10, 11], [20, 21]: channels [0, 10, 20] and [1, 11, 21].", counting),
        Probe("Two heads, three steps, d = 2: head 1 holds channels 2 and 3.", lambda: counting(2)),
    ),
    variants=(
        Variant(
            "scrambled",
            answers.merge_heads_scrambled,
            counted,
            """The shape is right, no number is lost, and where d = 1 all is right. But reshape keeps the order in
            memory, and there the d numbers of one step stand side by side: they are dealt out over time.
            Try: which axis must be last before two of them are joined?""",
        ),
        Variant(
            "channels before heads",
            answers.merge_heads_width_first,
            lambda run: f"Two heads, d = 2: channel 1 must be [1, 11, 21]; yours is {show(run(*counting(2))[1])}.",
            """Time is in order. But the heads alternate; head h owns channels h·d … (h + 1)·d - 1.
            Try: which of H and d must run faster in the joined axis?""",
        ),
        Variant(
            "steps first",
            answers.merge_heads_time_first,
            lambda run: f"One head, three steps, d = 2: wanted shape [2, 3]; yours is {list(run(*counting()).shape)}.",
            """Each step has its own channels together, which is how attention layers merge. Convolutions want channels
            first.
            Try: one transpose more.""",
        ),
    ),
    properties=(
        Property("steps stay apart", fact_steps_apart, "A step is a column. Try: change one step."),
        Property("heads of width 1 come back", fact_one_wide, "d = 1. Try: three heads of width 1."),
    ),
    numbers=(Property("it equals the stored merge", fact_stored, "Head first. Try: print channel 1."),),
    hints=(
        "Write down the six numbers in the order in which they lie in memory. Then the order that the result wants.",
        "heads.transpose(1, 2) is [H, d, N]; its first two axes may be joined.",
    ),
    passed="""Every step keeps its own numbers, head by head.
    Next: *the authors' code* merges with the mistake, and its models train all the same. With D = 64 and ν = 0.125 it
    is no mistake at all. Why?""",
)
