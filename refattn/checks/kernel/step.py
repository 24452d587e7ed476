"""Lesson 03, build: linear attention one token at a time, with a state."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.kernel import answers
from refattn.checks.steps import differs_from_itself, grows, through

NEEDS = "at d = 4, d_v = 3 it needs 4 · 3 and 4"


def zeros():
    """Three tokens with q = k = 0, so that all features are 1 and outputs are running means."""
    return torch.zeros(3, 2), torch.zeros(3, 2), rows([2], [4], [9])


def worked():
    """d = 1, every q = 1; keys 1, 0, 1 have features 2, 1, 2."""
    return torch.ones(3, 1), rows([1], [0], [1]), rows([6], [0], [3])


def tokens(n, d=4, d_v=3):
    return seeded(n, d), seeded(n, d, seed=1), seeded(n, d_v, seed=2)


def means(run):
    y = show(run(*zeros()).flatten())
    return f"All features 1, values 2, 4, 9: running means are 2, 3, 5; you return {y}"


def fact_authors(run):
    stored = golden()
    for b, h in ((0, 0), (1, 1)):
        q, k, v, wanted = (stored[f"linear.{name}"][b, h] for name in "qkvo")
        y = run(q, k, v)
        if not equal([y], [wanted]):
            return f"On the authors' inputs their code returns {show(wanted[1])} for token 1; you {show(y[1])}."


linear_step = Exercise(
    "kernel.linear_step",
    answers.linear_step,
    returns="a pair: the output [d_v] of one token, and the new state",
    adapt=through,
    probes=(
        Probe("All features 1, values 2, 4, 9, one after the other: 2, 3, 5.", zeros),
        Probe("q = 1, keys 1, 0, 1 with features 2, 1, 2, values 6, 0, 3: 6, 4, 3.6.", worked),
        Probe("Six tokens, d = 4, d_v = 3.", lambda: tokens(6)),
    ),
    variants=(
        Variant(
            "no denominator",
            answers.linear_step_bare,
            lambda run: f"{means(run)}.",
            """φ(q) S is the numerator, and S is what it should be. But it is a sum, and grows with the text.
            Try: give all tokens the value 1. What must come out? The same sum with v = 1 is what is missing.""",
        ),
        Variant(
            "its own key only",
            answers.linear_step_own_key,
            lambda run: f"{means(run)}.",
            """The first output is right, and so is S. The denominator knows only the newest key: φ(q)·φ(k). It has to
            run over the same keys as the numerator.
            Try: which second sum must the state hold?""",
        ),
        Variant(
            "divided by the number of tokens",
            answers.linear_step_count,
            lambda run: f"{means(run)}.",
            """S is right. A mean, yes, but one in which every key counts 1/t; here key j counts φ(q)·φ(k_j).
            Try: give all tokens the value 1. What must come out?""",
        ),
        Variant(
            "does not see itself",
            answers.linear_step_not_itself,
            lambda run: f"{means(run)}: each mean is a token late, and the first one is 0/0.",
            """Both sums are right, and no later token is heard. But you read before you write: j ≤ i includes i.
            Try: which comes first in your function, adding φ(k)ᵀ v or using S?""",
        ),
        Variant(
            "forgets",
            answers.linear_step_forgets,
            lambda run: f"{means(run)}: each token alone.",
            """The first token is right. Then every token is treated like a first one.
            Try: call it twice by hand, hand the returned state in, and print it. Does it hold both tokens?""",
        ),
        Variant(
            "without φ",
            answers.linear_step_raw,
            lambda run: f"{means(run)}: 0/0, since q and k went in as they are.",
            """The recurrence is right. But q·k may be zero or negative, and then weights are no shares. φ makes them
            positive.
            Try: print φ(q) and φ(k) for q = k = 0.""",
        ),
    ),
    properties=(
        Property(
            "a state can be used twice",
            differs_from_itself(tokens),
            """The state that was handed in has changed: += writes into the caller's tensor. Whoever tries two
            continuations of one text goes on from the same state twice.
            Try: S = S + …, which makes a new tensor.""",
            ALMOST,
        ),
    ),
    costs=(
        Property(
            "the state does not grow",
            grows(tokens, NEEDS),
            """A list of all tokens so far is softmax attention's cache. Here S and z stand for all of them.
            Try: write both sums for t and for t - 1. What is the difference?""",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "No scale on q or k. Try: the first token first."),),
    hints=(
        "Both sums of eq. (1), over j ≤ i. What do they gain with token i?",
        """State: S [d, d_v] and z [d], zero at first. Add phi(k)[:, None] * v and phi(k), then return
        phi(q) @ S / (phi(q) @ z).""",
    ),
    passed="""Running means, the authors' numbers, and a state of d (d_v + 1) numbers that can be continued twice.
    Next: S has d rows. What happens to its rank after more than d tokens, and what does that mean for copying?""",
)
