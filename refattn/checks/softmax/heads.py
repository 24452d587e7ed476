"""Lesson 01, build: splitting and merging heads."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.softmax import answers


def counting():
    """Three tokens of width 4: 1 … 4, 5 … 8, 9 … 12."""
    return torch.arange(1.0, 13.0).reshape(1, 3, 4)


def counted_heads():
    """The same numbers, already in two heads of width 2: [1, 2, 3, 2]."""
    return answers.split_heads(counting(), 2)


def head_of(run):
    """What an attempt puts into head 0 of the counting tokens, in words."""
    head = show(run(counting(), 2)[0, 0])
    return f"Tokens [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12] in two heads: your head 0 is {head}"


def token_of(run):
    token = show(run(counted_heads())[0, 0])
    return f"Heads made from [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]: your token 0 is {token}"


def fact_token_stays(run):
    x = seeded(1, 5, 6)
    changed = x.clone()
    changed[0, 4] += 1.0
    moved = (run(changed, 2) - run(x, 2)).abs().amax((0, 1, 3))  # by token
    if not equal([moved], [rows(0, 0, 0, 0, 1)]):
        return f"Token 4 alone was changed by 1; in your heads, tokens 0 … 4 changed by {show(moved)}."


def fact_numbers_kept(run):
    x = seeded(2, 5, 6)
    if not equal([run(x, 3).flatten().sort().values], [x.flatten().sort().values]):
        return "Splitting should only move numbers; some are lost or new."


split_heads = Exercise(
    "softmax.split_heads",
    answers.split_heads,
    returns="heads [B, H, N, d] with d = D / H",
    probes=(
        Probe(
            "Tokens [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12] in two heads: head 0 owns features 0 and 1.",
            lambda: (counting(), 2),
        ),
        Probe("Two sequences of 5 tokens, D = 12, 3 heads.", lambda: (seeded(2, 5, 12), 3)),
    ),
    variants=(
        Variant(
            "reshaped at once",
            answers.split_heads_reshaped,
            lambda run: f"{head_of(run)}. Its second row should be token 1's features, [5, 6].",
            """The shape is right and no number is lost, so nothing will ever complain. But reshape reads numbers in
            order, feature by feature: token 0 is spread over several rows, and positions have lost their meaning.
            Try: which axis of [B, N, D] must be cut in two? Reshape only that one, then move axes.""",
        ),
        Variant(
            "interleaved",
            answers.split_heads_interleaved,
            lambda run: f"{head_of(run)}. By the convention of most code head 0 owns features 0 and 1: [1, 2].",
            """Tokens keep their place, and a model trained this way is just as good. But another library's weights
            would land in other heads.
            Try: cut D = 4 into (heads, d) or into (d, heads): in which of them are neighbours in one head?""",
        ),
        Variant(
            "axes not swapped",
            answers.split_heads_not_swapped,
            lambda run: (
                f"3 tokens, 2 heads, d = 2: your result is {list(run(counting(), 2).shape)}, wanted [1, 2, 3, 2]."
            ),
            """The features are cut rightly. But a matrix product takes the last two axes, and these are now head and
            feature: heads would attend to each other, each token alone.
            Try: which two axes must be last, so that q @ k.transpose(-1, -2) compares tokens?""",
        ),
    ),
    properties=(
        Property(
            "no number is lost",
            fact_numbers_kept,
            """Splitting heads is bookkeeping.
            Try: print x and all heads.""",
        ),
        Property(
            "a token stays in its row",
            fact_token_stays,
            """Rows are tokens in every head.
            Try: change one token.""",
        ),
    ),
    hints=(
        "Two moves, in this order: cut one axis in two, then bring two axes into another order.",
        "x.reshape(B, N, num_heads, D // num_heads), then .transpose(1, 2).",
    ),
    passed="""No number lost, each token in its own row of every head, head h owns features h·d … (h + 1)·d.
    Next: the result of transpose is not contiguous in memory. What does merging have to do about it?""",
)

merge_heads = Exercise(
    "softmax.merge_heads",
    answers.merge_heads,
    returns="tokens [B, N, H·d]",
    probes=(
        Probe(
            "Heads made from tokens [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]: merging gives them back.",
            lambda: (counted_heads(),),
        ),
        Probe("Heads [2, 3, 5, 4].", lambda: (seeded(2, 3, 5, 4),)),
    ),
    variants=(
        Variant(
            "reshaped at once",
            answers.merge_heads_reshaped,
            lambda run: f"{token_of(run)}; wanted [1, 2, 3, 4].",
            """The shape is right. But in [B, H, N, d] the neighbour of a token is the next token of the same head, not
            its own second head.
            Try: which axis must stand beside d, before two axes can become one?""",
        ),
        Variant(
            "interleaved",
            answers.merge_heads_interleaved,
            lambda run: f"{token_of(run)}; wanted [1, 2, 3, 4].",
            """Every token has its own four numbers, in another order than the one they were cut in. W_O would then
            read each head's features with another head's weights.
            Try: which index runs faster in D: the head, or the feature inside a head?""",
        ),
        Variant(
            "heads averaged",
            answers.merge_heads_averaged,
            lambda run: f"{token_of(run)}: the mean of its two heads.",
            """Tokens keep their place. But heads are laid side by side, so that W_O can treat each in its own way; a
            mean throws away what makes them differ.
            Try: how wide must a token be, for H heads of width d?""",
        ),
    ),
    hints=(
        "It is splitting, backwards: the moves in the other order.",
        ".transpose(1, 2), then .reshape(B, N, H * d).",
    ),
    passed="""Merging undoes splitting, number for number.
    Next: W_O mixes the heads after this. What would attention lose without it, if the next layer is linear
    anyway?""",
)
