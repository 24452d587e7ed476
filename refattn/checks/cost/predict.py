"""Lesson 02, predict: where two costs cross."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

equal_memory = Decision(
    "cost.equal_memory",
    asks="""the N at which one head's prefix states (naive causal linear attention) and one head's softmax map have
    equally many entries, d = d_v = 64; and a letter""",
    value=4096,
    reason="a",
    wrong={
        64: Finding(
            "N = 64 is where multiply-adds cross: 2 N² d against 2 N d².",
            """That comparison is right for work, and for the non-causal form. The naive causal form keeps a whole
            state for every token.
            Try: write the shape of Σ_{j ≤ i} φ(k_j)ᵀ v_j for all i at once.""",
        ),
        128: Finding(
            "N = 128 would be for states of 2 d entries.",
            """The map's N² is right. A state is an outer product, φ(k)ᵀ v.
            Try: how many entries has a column of 64 times a row of 64?""",
        ),
        262144: Finding(
            "262,144 = 64³ would be for d³ entries a token.",
            """The map's N² is right, and the states do grow with N. A state has two axes, not three.
            Try: write its shape.""",
        ),
    },
    reasons={
        "b": Finding(
            "4096 is right. But a cumulative sum is one sweep, linear in N.",
            """Both claims can be true: linear, and large.
            Try: entries of both at N = 1024, then at 2048. What doubles, what quadruples?""",
        ),
        "c": Finding(
            "4096 is right. But features of width d cost N d, little here.",
            """The map holds one number a pair; the states hold one number a token and a pair of features.
            Try: entries of φ(k), of one state, of all states, at N = 1024.""",
        ),
    },
    workings="""The map has N² entries, the states N · d · d_v. N² = N · 64 · 64 at N = 4096. Below that, the linear
    method is the larger one; chunks of 64 move the crossing to N = 128.""",
    hints=(
        "Write both shapes. Then cancel one N.",
        "The map is [N, N]; the prefix states are [N, d, d_v].",
    ),
    passed="""N = d · d_v = 4096: linear in N, but with a constant of d · d_v against softmax's N.
    Next: chunks of C keep N C + (N / C) d d_v entries. Where does that cross N², for C = 64?""",
)

equal_time = Decision(
    "cost.equal_time",
    asks="""the N at which both take equally long: softmax takes 2 ms at N = 1024 and has exponent 2, the linear method
    takes 3 ms at N = 1024 and has exponent 1; and a letter""",
    value=1536,
    reason="b",
    wrong={
        683: Finding(
            "N = 683 is on the other side: there softmax takes 0.9 ms and the linear method 2.",
            """The ratio 3/2 is right. At N = 1024 softmax is the faster one, and it loses as N grows.
            Try: both times at N = 2048.""",
        ),
        1254: Finding(
            "N = 1254: there softmax takes 3 ms, but the linear method has grown too, to 3.7.",
            """For softmax alone the square root of 3/2 is right.
            Try: both times at N = 1254, then at 2048.""",
        ),
    },
    reasons={
        "a": Finding(
            "1536 is right. But scatter is not what spoils this.",
            """More repeats make the same number more precise, and a wrong model stays wrong.
            Try: add 1 ms of fixed cost to 0.001 N ms, and fit an exponent over N = 64 … 512.""",
        ),
        "c": Finding(
            "1536 is right. But an exponent is a pure number.",
            """In other units both curves move up or down together; where they cross stays.
            Try: both in seconds.""",
        ),
    },
    workings="""2 (N/1024)² = 3 (N/1024) at N = 1024 · 3/2 = 1536. It is an extrapolation: fixed costs (calls,
    allocation, caches) make exponents measured at small N too small.""",
    hints=(
        "Write both times as powers of N/1024, and set them equal.",
        "2 r² = 3 r with r = N/1024.",
    ),
    passed="""1536, if both laws hold up to there. Fixed costs make exponents fitted at small N too small, so fit where
    N is large.
    Next: the crossing lies between two measured N in the lesson. How would you find it without any law?""",
)
