"""Lesson 02, build: linear attention in both orders, once through the map and once through the state."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.cost import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most


def worked():
    """One query with features [1, 2]; three keys with similarities 1, 2, 3 to it."""
    return rows([1, 2], [1, 0], [0, 1]), rows([1, 0], [0, 1], [1, 1])


def worked_values():
    return *worked(), rows([6, 0], [0, 6], [6, 12])


def features(queries, keys, d=4):
    return seeded(queries, d).exp(), seeded(keys, d, seed=1).exp()


def features_values(queries, keys, d=4, d_v=3):
    return *features(queries, keys, d), seeded(keys, d_v, seed=2)


def long():
    return features_values(512, 512, 16, 16)


def first_row(run):
    row = show(run(*worked())[0])
    return f"φ(q) = [1, 2], similarities 1, 2, 3: the weights should be [0.167, 0.333, 0.5]; you return {row}"


def fact_map_sums(run):
    sums = run(*features(3, 5)).sum(-1)
    if not equal([sums], [torch.ones(3)]):
        return f"Row sums are {show(sums)}; a weighted mean needs 1."


def fact_query_length(run):
    phi_q, phi_k = features(3, 5)
    if not equal([run(phi_q, phi_k)], [run(10 * phi_q, phi_k)]):
        return "Making a query's features ten times as long changed its weights."


kernel_map = Exercise(
    "cost.kernel_map",
    answers.kernel_map,
    returns="the map [N, M], rows sum to one",
    probes=(
        Probe("φ(q) = [1, 2], [1, 0], [0, 1] and φ(k) = [1, 0], [0, 1], [1, 1].", worked),
        Probe("Four queries, six keys.", lambda: features(4, 6)),
    ),
    variants=(
        Variant(
            "not divided",
            answers.kernel_map_bare,
            lambda run: f"{first_row(run)}.",
            """The similarities are right, each φ(q)·φ(k). But nothing makes them shares of 1: twice as many keys, and
            the output doubles.
            Try: divide a row by what it sums to.""",
        ),
        Variant(
            "softmax on top",
            answers.kernel_map_softmax,
            lambda run: f"{first_row(run)}.",
            """Rows sum to one. But features are the replacement for the exponential, not its input: with e^(φ·φ) no
            sum over keys can be shared among queries any more.
            Try: the similarities are positive already. What is the least that makes a row sum to 1?""",
        ),
        Variant(
            "divided by the number of keys",
            answers.kernel_map_mean,
            lambda run: f"{first_row(run)}.",
            """The ratios inside a row are right, and more keys no longer make the output grow. But the sum is 1 only
            if similarities average 1; a query with larger features still shouts.
            Try: multiply a query's features by 10. Should its weights change?""",
        ),
        Variant(
            "columns divided",
            answers.kernel_map_columns,
            lambda run: f"{first_row(run)}.",
            """Similarities are right, and columns sum to one: each key shares itself out among the queries. It should
            be the other way round.
            Try: name both axes. Which one does a single query's attention run along?""",
        ),
    ),
    properties=(
        Property("rows sum to one", fact_map_sums, "A query's weights are shares of 1. Try: sum one row."),
        Property("a query's length does not matter", fact_query_length, "It cancels in a share. Try: on paper."),
    ),
    hints=("A similarity for each pair, then shares of 1.", "phi_q @ phi_k.T, divided by its .sum(-1, keepdim=True)."),
    passed="""Positive similarities, rows that sum to one: an attention map without an exponential.
    Next: which rank can it have at most, with d features? And softmax's map?""",
)


def output_row(run):
    """The worked query attended, in words."""
    row = show(run(*worked_values())[0])
    return f"Weights 1/6, 2/6, 3/6 on values [6, 0], [0, 6], [6, 12] make [4, 8]; you return {row}"


def fact_constant(run):
    phi_q, phi_k, v = features_values(3, 5)
    y = run(phi_q, phi_k, torch.full_like(v, 2.0))
    if not equal([y], [torch.full_like(y, 2.0)]):
        return f"All values are 2, so every mean of them is 2; you return {show(y[0])}."


def fact_cross(run):
    args = features_values(2, 5)
    if not equal([run(*args)], [answers.linear_attention(*args)]):
        return "With 2 queries on 5 keys the result is another one."


linear_attention = Exercise(
    "cost.linear_attention",
    answers.linear_attention,
    returns="attended values [N, d_v]",
    probes=(
        Probe("Weights 1/6, 2/6, 3/6 on values [6, 0], [0, 6], [6, 12].", worked_values),
        Probe("Six tokens, d = 4, d_v = 3.", lambda: features_values(6, 6)),
    ),
    variants=(
        Variant(
            "no denominator",
            answers.linear_attention_bare,
            lambda run: f"{output_row(run)}.",
            """φ(q) (Σ φ(k)ᵀ v) is the numerator, in the cheap order. But it is a sum, not a mean: its size grows with
            the number of keys.
            Try: give all keys the value 1. What must come out, and what does? That number is what is missing.""",
        ),
        Variant(
            "divided by the number of keys",
            answers.linear_attention_mean,
            lambda run: f"{output_row(run)}.",
            """The numerator is right, in the cheap order. A mean, yes, but one in which every key counts 1/M; here key
            j counts φ(q)·φ(k_j).
            Try: give all keys the value 1. What must come out?""",
        ),
        Variant(
            "state normalised by itself",
            answers.linear_attention_by_feature,
            lambda run: f"{output_row(run)}.",
            """Each row of the state has become a mean over keys, so sizes are tame. But the share that a query gives a
            key depends on the query; it cannot be divided out before the query comes.
            Try: all values 1. Is your output 1, or the sum of the query's features?""",
        ),
        Variant(
            "its own key only",
            answers.linear_attention_one_key,
            lambda run: (
                "φ(q) = [1, 0], weights 1/2, 0, 1/2 on values [6, 0], [0, 6], [6, 12] make [6, 6]; you return "
                f"{show(run(*worked_values())[1])}: its own key, [0, 1], is no match for it."
            ),
            """The numerator runs over all keys, the denominator only over the query's own: keys were not summed.
            Try: write the denominator as φ(q)·z. What is z, and what shape has it?""",
        ),
        Variant(
            "softmax at the end",
            answers.linear_attention_softmax,
            lambda run: f"{output_row(run)}.",
            """The numerator is right. But shares are taken over keys, and in this order the keys are summed away
            before any axis of length M could be shared out: what you normalise are features of the value.
            Try: all values 1. What must come out?""",
        ),
    ),
    properties=(
        Property("a mean of equal values is that value", fact_constant, "Weights sum to 1. Try: all values 2."),
        Property("any number of queries and keys", fact_cross, "Sums over keys know no N. Try: one query."),
    ),
    costs=(
        at_most(
            512 * 16,
            long,
            sizes="N = 512, d = d_v = 16",
            says="""A product of three matrices can be bracketed two ways: (Φ_q Φ_kᵀ) V draws the map, Φ_q (Φ_kᵀ V)
            never makes one. Both return the same numbers; only one is linear attention.
            Try: write the shape of each intermediate for both, and the N at which they cost the same.""",
        ),
    ),
    hints=(
        "Numerator and denominator are two sums over keys. Which factor of either does not depend on the query?",
        "S = phi_k.T @ v is [d, d_v], z = phi_k.sum(0) is [d]; then (phi_q @ S) / (phi_q @ z)[:, None].",
    ),
    passed="""The map's numbers, and no tensor with N² entries: two sums over keys serve every query.
    Next: S and z do not know how many keys they hold. What would you do when one more token arrives?""",
)
