"""Lesson 03, predict: how many random features an error needs, and when a state is the smaller memory."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

features_needed = Decision(
    "kernel.features_needed",
    asks="""the number m of positive random features, rows drawn independently, for a relative standard error of 10 % on
    one weight with |q̃ + k̃|² = 4; and a letter""",
    value=5360,
    reason="b",
    wrong={
        536: Finding(
            "536 would be right if an error fell like 1/m.",
            """The variance of one draw, e⁴ - 1 = 53.6, is right. Variance falls like 1/m, and the error is its root.
            Try: set (e⁴ - 1)/m equal to the *square* of 10 %.""",
        ),
        5460: Finding(
            "5,460 = e⁴ · 100 is the mean of the square.",
            """Variance is the mean of the square less the square of the mean, which is 1 in these units.
            Try: eq. (4) for |q̃ + k̃| = 0, where every draw is exact.""",
        ),
        639: Finding(
            "639 = (e² - 1) · 100 takes |q̃ + k̃| = 2 for its square.",
            """The rest is right.
            Try: eq. (4) once more: what stands in the exponent?""",
        ),
        73: Finding(
            "73 is one draw's relative error, √53.6 = 7.3, over 0.1.",
            """Both numbers are right. But errors of a mean fall like 1/√m, not like 1/m.
            Try: 7.3/√m = 0.1.""",
        ),
    },
    reasons={
        "a": Finding(
            "5,360 is right. But four times the square of the norm is not four times the features.",
            """|q̃ + k̃|² does grow fourfold. It stands in an exponent.
            Try: e¹⁶ - 1 beside e⁴ - 1.""",
        ),
        "c": Finding(
            "5,360 is right. But orthogonal rows do not undo an exponential.",
            """They keep rows of a block of d from saying the same twice. What one row does with a long vector stays.
            Try: e¹⁶ - 1 beside e⁴ - 1.""",
        ),
    },
    workings="""(e⁴ - 1)/m = 0.1² gives m = 53.6 · 100 = 5,360. Twice as long: e¹⁶ - 1 is nine million, and m nine
    hundred million.""",
    hints=(
        "Eq. (4) is a variance, relative to the square of the weight. What is the square of 10 %?",
        "m = (e⁴ - 1)/0.01.",
    ),
    passed="""5,360 for one weight of moderate size, and e¹⁶ in the place of e⁴ for vectors twice as long.
    Next: norms grow in training. How would you notice, from maps alone, that m is no longer enough?""",
)

state_or_cache = Decision(
    "kernel.state_or_cache",
    asks="""the N at which a cache of all keys and values so far holds as many numbers as Performer's state, one head,
    d = d_v = 64, m = 256; and a letter""",
    value=130,
    reason="c",
    wrong={
        128: Finding(
            "128 = 256 · 64/(2 · 64) leaves z out.",
            """S is counted right, and so is the cache. The denominator needs a sum as well.
            Try: how many numbers does the step form carry, S [m, d_v] and …?""",
        ),
        260: Finding(
            "260 counts keys only, or values only, in the cache.",
            """The state is right, m (d_v + 1) = 16,640.
            Try: what does softmax attention need of an old token: its key, its value, or both?""",
        ),
        32.5: Finding(
            "32.5 is linear attention's, with d features.",
            """The cache is right. The state's width is the number of features.
            Try: the shape of S for m = 256.""",
        ),
        16640: Finding(
            "16,640 = m (d_v + 1) is the state, in numbers.",
            """That is right, and it does not grow. The cache does.
            Try: numbers in a cache of one token, then divide.""",
        ),
    },
    reasons={
        "a": Finding(
            "130 is right. But nothing fades: each token stands in the sums with its full φ(k)ᵀ v.",
            """Sums forget nothing by themselves. What is lost is which token said what.
            Try: read token 1 from the state after 10 tokens, and after 1,000, all keys different.""",
        ),
        "b": Finding(
            "130 is right. But both sums run over all tokens, however many.",
            """No token is turned away. They are added up in m rows.
            Try: the rank of S after m + 1 tokens.""",
        ),
    },
    workings="""State: m d_v + m = 256 · 65 = 16,640. Cache: 2 d = 128 numbers a token. 16,640/128 = 130.""",
    hints=(
        "Write the shapes of S and z, and of what softmax attention keeps of one token.",
        "256 · 65 against N · 2 · 64.",
    ),
    passed="""130 tokens: beyond them the state is the smaller memory, and beyond m = 256 tokens it must superpose.
    Next: how large would m have to be so that 1,000 tokens can be told apart, and from which N on would it pay?""",
)
