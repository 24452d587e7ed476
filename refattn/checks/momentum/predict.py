"""Lesson 16, predict: when the past has its weight, and what a layer remembers."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

half_weight = Decision(
    "momentum.half_weight",
    asks="the smallest distance t = i - j at which a key weighs at least half of what it will in the end, for β = 0.9; "
    "and a letter",
    value=6,
    reason="a",
    wrong={
        7: Finding(
            "7 counts the terms of the sum, t + 1.",
            """1 - 0.9^7 is above one half, and 1 - 0.9^6 is not: right. At distance t there are t + 1 terms.
            Try: how many terms has the newest key, at t = 0?""",
        ),
        5: Finding(
            "5 is half of 1 / (1 - β) = 10.",
            """That would be right if weights grew by γ at every token. Each step is β times the one before.
            Try: 1 - 0.9^(t+1) for t = 4, 5 and 6.""",
        ),
        10: Finding(
            "10 = 1 / (1 - β) is the horizon: there 1 - 1/e = 63 % is reached, more or less.",
            """The right quantity, at another level. Wanted is one half.
            Try: β^(t+1) = ½.""",
        ),
        0: Finding(
            "0 would make the newest key weigh half already.",
            """It weighs γ, and in the end γ / (1 - β) = 10 γ.
            Try: γ against 10 γ.""",
        ),
    },
    reasons={
        "b": Finding(
            "6 is right. But the normaliser carries no weight at all.",
            """z is a plain sum: γ stays in the output, as its scale. What is asked is a share of the final weight.
            Try: γ (1 - β^(t+1)) / (1 - β), divided by its limit.""",
        ),
        "c": Finding(
            "6 is right. But γ = 1 - β is only one choice, which makes the final weight 1.",
            """With any other γ the answer is the same.
            Try: γ = 0.6: which t?""",
        ),
    },
    workings="""w_t is γ (1 - β^(t+1)) / (1 - β), its limit γ / (1 - β): the share is 1 - 0.9^(t+1). 0.9^6 = 0.53 and
    0.9^7 = 0.48, so t + 1 = 7.""",
    hints=(
        "Divide the weight by its limit. What is left of γ and of 1 - β?",
        "1 - β^(t+1) ≥ ½, so t + 1 ≥ ln ½ / ln β.",
    ),
    passed="""t + 1 ≥ ln ½ / ln 0.9 = 6.6. About 0.7 / (1 - β), whatever γ is.
    Next: for β = 0.1, the authors' choice on the copy task, which t is that? What is then left of momentum?""",
)

state_numbers = Decision(
    "momentum.state_numbers",
    asks="how many numbers the state of one layer of causal momentum attention holds, all heads, one sequence, after "
    "1,000 tokens: D = 512, H = 8; and a letter",
    value=66048,
    tolerance=0.001,
    reason="b",
    wrong={
        33280: Finding(
            "33,280 = H (d² + d) is linear attention's state.",
            """All heads, no N, and z is there. What does momentum carry besides?
            Try: which matrix does the next step multiply by β?""",
        ),
        65536: Finding(
            "65,536 = 2 H d² leaves the normaliser out.",
            """S and p are there, for all heads. Queries also divide.
            Try: what is φ(q) multiplied with in the denominator?""",
        ),
        66560: Finding(
            "66,560 = 2 H (d² + d) gives the normaliser a velocity, too.",
            """S and p are there. z is a plain sum, and its own predecessor is all that it needs.
            Try: eq. 2.""",
        ),
        8256: Finding(
            "8,256 = 2 d² + d is one head: d = 512 / 8 = 64.",
            """S, p and z are there. There are eight heads.
            Try: times H.""",
        ),
        1024000: Finding(
            "1,024,000 = 2 t D is softmax attention's cache: all keys and values so far.",
            """Here a token is added to sums, and then it is gone.
            Try: the shapes of S, p and z.""",
        ),
    },
    reasons={
        "a": Finding(
            "66,048 is right. But twice as many heads are half as wide, and 2 H d² = 2 D d.",
            """Then it holds 33,280: halved, nearly. What is asked leaves the outputs as they are for β = 0.
            Try: which of S, p and z does linear attention lack?""",
        ),
        "c": Finding(
            "66,048 is right. But a sum over 500 tokens is as large as one over 1,000.",
            """It is a cache that halves with the number of tokens.
            Try: the shape of S at t = 1.""",
        ),
    },
    workings="""S and p are [H, d, d], z is [H, d], with d = 512 / 8 = 64: 8 (2 · 4,096 + 64) = 66,048.""",
    hints=("Write the shapes of S, p and z for one head. Then all heads.", "H (2 d² + d), and H d = D."),
    passed="""H (2 d² + d) = 66,048 after any number of tokens: one matrix a head more than linear attention.
    Next: from which t on is a cache of keys and values, 2 t D numbers, the larger one?""",
)
