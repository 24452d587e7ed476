"""Lesson 16, find the bug: padding changes what real keys weigh."""

import torch

from refattn.checks.compare import equal, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.momentum import answers


def one_and_two():
    """Two sequences of lengths 3 and 1, padded to 3; features and values 1, padding holds 50."""
    v = torch.tensor([[[1.0], [1.0], [1.0]], [[1.0], [50.0], [50.0]]])
    return torch.ones(2, 3, 1), v, torch.tensor([3, 1]), 0.5, 1.0


def batch(padded_to):
    k, v = seeded(2, 8, 3)[:, :padded_to].exp(), seeded(2, 8, 2, seed=1)[:, :padded_to]
    return k, v, torch.tensor([4, 2]), 0.6, 0.9


def by_hand(run):
    return f"Lengths 3 and 1, all ones: S must be 4.25 and 1; you return {show(run(*one_and_two()).flatten())}"


def fact_padding(run):
    short, long = run(*batch(4))[1], run(*batch(7))[1]
    if not equal([short], [long]):
        return f"A sequence of length 2 has S = {show(short)} padded to 4, and {show(long)} padded to 7."


last_state = Exercise(
    "momentum.last_state",
    answers.last_state,
    returns="the last state S of each sequence, [B, d, d_v]",
    probes=(
        Probe("Lengths 3 and 1, features and values 1, β = ½, γ = 1: S = 7/4 + 3/2 + 1, and 1.", one_and_two),
        Probe("Lengths 4 and 2 padded to 6, d = 3, d_v = 2.", lambda: batch(6)),
        Probe("The same padded to 4.", lambda: batch(4)),
    ),
    variants=(
        Variant(
            "padded length",
            answers.last_state_padded,
            lambda run: f"{by_hand(run)}.",
            """No padded key is heard. But real keys weigh as if the padding had passed as tokens: in a longer batch the
            same sequence has another state. The authors' code does this.
            Try: how many tokens come after the only key of sequence 2?""",
        ),
        Variant(
            "newest key left out",
            answers.last_state_newest_zero,
            lambda run: f"{by_hand(run)}.",
            """Padding has no say any more. But the last real key weighs nothing: at distance 0 there is one term.
            Try: a sequence of length 1.""",
        ),
        Variant(
            "padding heard",
            answers.last_state_unmasked,
            lambda run: f"{by_hand(run)}.",
            """Real keys weigh what they should. Beyond the length the number of terms is negative, and the formula
            makes a weight of that, too.
            Try: print the weights of the second sequence.""",
        ),
        Variant(
            "longest of the batch",
            answers.last_state_longest,
            lambda run: f"{by_hand(run)}.",
            """Padding beyond the longest sequence has no say. But the short one still weighs its keys by the longest
            one's length.
            Try: lengths, not their maximum.""",
        ),
    ),
    properties=(Property("more padding changes nothing", fact_padding, "Lengths, not N. Try: pad by one."),),
    hints=(
        "What must a key's weight depend on: how many tensors rows follow, or how many real tokens?",
        "steps = (lengths[:, None] - torch.arange(N)).clamp(min=0): real keys from this one on, none at padding.",
    ),
    passed="""Each sequence has the state that it has alone.
    Next: the causal form needs no such care when padding is on the right. Why not?""",
)
