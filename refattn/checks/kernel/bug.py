"""Lesson 03, find the bug: cosFormer's M* is the length of what has been read, so outputs change while a text grows."""

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.kernel import answers


def two():
    """Two tokens, q = k = 1, values 0 and 1, M* = 4: weights cos 22.5° = 0.924 and 1, so 1/1.924 = 0.52."""
    return rows([1], [1]), rows([1], [1]), rows([0], [1]), 4


def four():
    return rows(*[[1]] * 4), rows(*[[1]] * 4), rows([0], [1], [0], [1]), 4


def tokens(n, max_len=16, d=4, d_v=3):
    q = seeded(n, d)
    q[1] = -1.0  # no positive entry: this query gets zero
    return q, seeded(n, d, seed=1), seeded(n, d_v, seed=2), max_len


def second(run):
    alone, within = (show(run(*make())[1]) for make in (two, four))
    return f"Output of token 1: {alone} when the text ends there, {within} when two more tokens follow"


def fact_prefix(run):
    long = tokens(9)
    short = (*(t[:5] for t in long[:3]), long[3])
    y = [run(*long)[:5], run(*short)]
    if not equal(y[:1], y[1:]):
        return f"The last of five tokens: {show(y[1][4])} at the end, {show(y[0][4])} when four more follow."


def fact_empty(run):
    y = run(*tokens(6))[1]
    if not equal([y], [y * 0]):
        return f"A query without a positive entry sees no key and should get zero; you return {show(y)}."


cosformer_causal = Exercise(
    "kernel.cosformer_causal",
    answers.cosformer_causal,
    returns="attended values [N, d_v]",
    probes=(
        Probe("Two tokens q = k = 1, values 0 and 1, M* = 4: outputs 0 and 1/(cos 22.5° + 1) = 0.52.", two),
        Probe("Four such tokens, values 0, 1, 0, 1, M* = 4.", four),
        Probe("Six tokens, d = 4, d_v = 3, M* = 16; query 1 has no positive entry.", lambda: tokens(6)),
    ),
    variants=(
        Variant(
            "length of the text so far",
            answers.cosformer_causal_length,
            lambda run: f"{second(run)}.",
            """No later value gets in; only how many tokens there are does. In training all lengths are known, and
            nothing looks wrong; while generating, each new token changes what earlier layers have said already.
            Try: which line knows how long the text is? What else could it know?""",
        ),
        Variant(
            "each token's own length",
            answers.cosformer_causal_own_length,
            lambda run: f"{second(run)}; wanted 0.52.",
            """Outputs no longer change while the text grows: half of it is mended. But each token now has an angle on a
            ruler of its own, so that θ_i - θ_j is no function of i - j.
            Try: four equal tokens. Do all neighbours have the same weight?""",
        ),
        Variant(
            "the cosine is gone",
            answers.cosformer_causal_flat,
            lambda run: f"{second(run)}; wanted 0.52.",
            """Outputs no longer change while the text grows, since the distance plays no role any more: the fault was
            removed together with its purpose.
            Try: keep the cosine, on a ruler that does not stretch.""",
        ),
        Variant(
            "angles twice as wide",
            answers.cosformer_causal_wide,
            lambda run: f"{second(run)}; wanted 0.52.",
            """A constant M*, as it should be. But now half a turn fits into it, and far tokens get negative weights.
            Try: the angle of distance M*, by eq. (5).""",
        ),
    ),
    properties=(
        Property("a text may grow", fact_prefix, "Earlier outputs must stay. Try: run 5 tokens, then 9."),
        Property("no key, no output", fact_empty, "The least denominator is 1e-6. Try: a query of -1."),
    ),
    hints=(
        "Run it on two tokens, then on the same two followed by others, and compare the first two outputs.",
        "M* has to be a constant that no text exceeds: max_len, whatever has been read so far.",
    ),
    passed="""Outputs stay what they were, whatever follows: M* is a constant.
    Next: with max_len = 1024 and texts of 64 tokens, how much does the cosine still distinguish?""",
)
