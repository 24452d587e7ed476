"""Lesson 16, build: what a key weighs after so many tokens."""

import torch

from refattn.attention.heavy_ball import distance_factors
from refattn.checks.compare import equal, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.momentum import answers


def last_row(run):
    return f"N = 4, β = ½, γ = 1: the last row must be [1.88, 1.75, 1.5, 1]; you return {show(run(4, 0.5, 1.0)[3])}"


def fact_diagonals(run):
    w = run(6, 0.7, 0.4)
    if not equal([w[1:, 1:]], [w[:-1, :-1]]):
        return f"Keys 2 and 1 at distance 1 from their queries weigh {show(w[2, 1])} and {show(w[1, 0])}, not the same."


def fact_limit(run):
    far = run(200, 0.5, 0.25)[-1, 0]
    if not equal([far], [torch.tensor(0.5)]):
        return f"N = 200, β = ½, γ = ¼: the oldest key must weigh γ / (1 - β) = 0.5; yours weighs {show(far)}."


def fact_package(run):
    error = (run(9, 0.6, 0.9).double() - distance_factors(9, 0.6, 0.9)).abs().max().item()
    if not error < 1e-5:
        return f"N = 9, β = 0.6, γ = 0.9: you differ from refattn by {error:.2g}."


weights = Exercise(
    "momentum.weights",
    answers.weights,
    returns="weights [N, N], row i for query i, zero above the diagonal",
    probes=(
        Probe("N = 4, β = ½, γ = 1: the first column is 1, 3/2, 7/4, 15/8.", lambda: (4, 0.5, 1.0)),
        Probe("N = 3, β = 0.9, γ = 0.1: the first column is 0.1, 0.19, 0.271.", lambda: (3, 0.9, 0.1)),
    ),
    variants=(
        Variant(
            "newest key left out",
            answers.weights_newest_zero,
            lambda run: f"{last_row(run)}: the newest key weighs {show(run(4, 0.5, 1.0)[3, 3])}.",
            """Growing with the distance, constant along diagonals: as it should be. But p_i holds key i already when
            S_i takes its step, so at distance 0 there is one term, not none.
            Try: write S_1 out, with p_0 = 0.""",
        ),
        Variant(
            "the velocity's memory",
            answers.weights_velocity,
            lambda run: f"{last_row(run)}.",
            """β^(i-j) is what key j weighs in p_i, which forgets. S_i is the sum of all steps so far, and each of them
            carried key j once more: the past does not fade, it grows.
            Try: S_3 for N = 3, written in U_1, U_2 and U_3.""",
        ),
        Variant(
            "total length",
            answers.weights_total,
            lambda run: (
                f"Query 0 reads key 0 with {show(run(2, 0.5, 1.0)[0, 0])} if N = 2, and with "
                f"{show(run(4, 0.5, 1.0)[0, 0])} if N = 4; it must be 1 in both."
            ),
            """The last row is right. The others weigh keys as if all N tokens had passed; so does the authors' code
            while it trains.
            Try: which of i, j and N may a weight of a causal map depend on?""",
        ),
        Variant(
            "step size missing",
            answers.weights_no_step,
            lambda run: (
                f"N = 3, β = 0.9, γ = 0.1: wanted the newest at 0.1; you return {show(run(3, 0.9, 0.1)[2, 2])}."
            ),
            """All right where γ = 1. The velocity takes up γ U at each token.
            Try: S_1 for γ = 0.1.""",
        ),
        Variant(
            "the future weighs",
            answers.weights_unmasked,
            lambda run: (
                f"N = 4, β = ½, γ = 1: query 0 must read [1, 0, 0, 0]; yours reads {show(run(4, 0.5, 1.0)[0])}."
            ),
            """On and below the diagonal all is right. Above it, the formula goes on with negative numbers of terms.
            Try: a sum of no terms is 0; clamp i - j + 1, or take the lower triangle.""",
        ),
    ),
    properties=(
        Property("weights depend on the distance", fact_diagonals, "i - j alone. Try: N = 3, all nine."),
        Property("far keys weigh γ / (1 - β)", fact_limit, "A geometric series. Try: its limit."),
    ),
    numbers=(Property("it equals refattn", fact_package, "γ (1 + β + … + β^(i-j)). Try: N = 2."),),
    hints=(
        "Write p_1, p_2, p_3 in U_1, U_2, U_3, then S_3. What stands before U_1?",
        "w = γ (1 - β^(i-j+1)) / (1 - β), with i - j + 1 clamped at 0 so that the future gets 0.",
    ),
    passed="""The newest key weighs γ, far ones γ / (1 - β), and nothing depends on N.
    Next: what is the limit for β → 1, and which line of yours breaks there?""",
)
