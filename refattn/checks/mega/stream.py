"""Lesson 11, stretch: Mega-chunk one token at a time."""

from functools import partial

from refattn.checks.compare import rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.mega import answers
from refattn.checks.steps import differs_from_itself, grows, through


def indifferent():
    """Zero queries and biases, no average: each token reads the mean of its chunk of two so far."""
    zeros = rows([0], [0], [0], [0])
    return zeros, zeros, rows([2], [4], [9], [1]), zeros, rows(0, 0, 0), 2, 0.5


def fading():
    """One 8 in the average, nothing else: it halves at every token, and knows no border."""
    zeros = rows([0], [0], [0], [0])
    return zeros, zeros, zeros, rows([8], [0], [0], [0]), rows(0, 0, 0), 2, 0.5


def far():
    """A bias that forbids all but the token before: lag −1 has 50, all others 0."""
    zeros = rows([0], [0], [0])
    return zeros, zeros, rows([2], [4], [9]), zeros, rows(0, 50, 0, 0, 0), 3, 0.5


def tokens(n):
    q, k, v, x = (seeded(64, width, seed=i)[:n] for i, width in enumerate((3, 3, 2, 2)))
    return q, k, v, x, seeded(7, seed=9), 4, 0.8


def outputs(run, make):
    return show(run(*make()).flatten())


def fact_means(run):
    return (
        f"Chunks of two, values 2, 4, 9, 1, zero queries: wanted [2, 3, 9, 5]; you return {outputs(run, indifferent)}."
    )


stream = Exercise(
    "mega.stream",
    answers.stream,
    returns="a pair: the output [d_v] of one token, and the new state",
    adapt=partial(through, sequences=4),
    probes=(
        Probe("Chunks of two, zero queries, values 2, 4, 9, 1: means 2, 3 | 9, 5.", indifferent),
        Probe("Only the average: x = 8, 0, 0, 0, and ½ stays: 8, 4 | 2, 1.", fading),
        Probe("A chunk of three, a bias of 50 on the token before: 2, 2, 4.", far),
        Probe("Eleven tokens in chunks of four.", lambda: tokens(11)),
    ),
    variants=(
        Variant(
            "the average begins anew",
            answers.stream_resets,
            lambda run: f"x = 8, 0, 0, 0 in chunks of two: wanted [8, 4, 2, 1]; you return {outputs(run, fading)}.",
            """Inside each chunk you are right. The cache is emptied at a border, the average is not: it is all that a
            new chunk knows of the old ones.
            Try: which part of the state belongs to a chunk, and which to the sequence?""",
        ),
        Variant(
            "first row of the bias",
            answers.stream_first_row,
            lambda run: (
                f"A bias of 50 on the token before, values 2, 4, 9: wanted [2, 2, 4]; you return {outputs(run, far)}."
            ),
            """Cache and average are right. rel[c - 1 + j - i] was read for i = 0, a query at the *start* of the chunk;
            the query that just came is its last.
            Try: with t tokens in the cache, which lags has the newest one to them, first to last?""",
        ),
        Variant(
            "emptied too early",
            answers.stream_early,
            fact_means,
            """The average is right. Token c is the last of its chunk and may read all of it; yours has swept the table
            before it sat down, and lives in the chunk after.
            Try: c = 2. What is in the cache when the second token reads?""",
        ),
        Variant(
            "slides",
            answers.stream_slides,
            fact_means,
            """The first chunk is right. Then yours keeps the last c tokens, a window that moves along: local attention
            (lesson 04), which is a good idea, and another layer. In training, chunks do not overlap.
            Try: token c + 1. How many keys does it see in the parallel form?""",
        ),
    ),
    properties=(
        Property(
            "a state can be used twice",
            differs_from_itself(tokens),
            """The state that was handed in has changed. Beam search goes on from one state twice.
            Try: make new tensors; no append, no +=.""",
            ALMOST,
        ),
    ),
    costs=(
        Property(
            "the state does not grow",
            grows(tokens, lengths=(7, 63)),
            """What is no longer read is still kept.
            Try: what does the step after a border need of the chunk before it?""",
            ALMOST,
        ),
    ),
    hints=(
        "State: keys and values of this chunk so far, and the average. Append, read, then see if the chunk is full.",
        """t = len(keys) after appending; weights = (keys @ q / √z + rel[c - t : c]).softmax(-1); y = weights @ values +
        average, where average = x + decay * average. If t == c: keys[:0], values[:0].""",
    ),
    passed="""The parallel form's numbers, from a cache emptied after its last reader, and an average that never is.
    Next: the first token of a chunk sees one key, its own. What does it know of the past, through which matrices?""",
)
