"""Lesson 10, predict: where Luna's layer becomes the cheaper one, and what its causal form remembers."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

equal_work = Decision(
    "luna.equal_work",
    asks=(
        "the N at which a layer of untied Luna and one of softmax attention take equally many multiply-adds, for "
        "D = 384 and l = 24; and a letter"
    ),
    value=144,
    reason="b",
    wrong={
        48: Finding(
            "48 = 2 l is where the attention products alone are equal: 4 N l D against 2 N² D.",
            """That much is right. A layer has projections too, and they are not the same in both.
            Try: list all matrices of untied Luna, and for each the number of rows that it is applied to.""",
        ),
        624: Finding(
            "624 would be right if all seven matrices of Luna were applied to N tokens.",
            """There are seven, and softmax attention has four. But some are applied to the slots only.
            Try: W_Qp, W_Kp, W_Vp, W_Q, W_K, W_V, W_O: N rows or l rows, each?""",
        ),
        192: Finding(
            "192 comes from the logits alone: 2 N l D against N² D.",
            """The projections are right, 4 N D² + 3 l D² against 4 N D². But weights are multiplied with values, too.
            Try: how many products has one attention, softmax(q kᵀ) v?""",
        ),
        130.2: Finding(
            "130 counts one of the two nested attentions: 2 N l D.",
            """The projections are right, 4 N D² + 3 l D² against 4 N D². Pack has N · l pairs, and so has unpack.
            Try: write logits and mixing for both: four products in all.""",
        ),
    },
    reasons={
        "a": Finding(
            "144 is right. But that pack and unpack are two is in the 2 l already.",
            """4 N l D for both, 2 N² D for one softmax attention: without projections they would be equal at N = 48.
            Try: the difference of both sums, sorted by terms with D² and terms with D.""",
        ),
        "c": Finding(
            "144 is right. But if seven matrices were applied to N tokens, it would be 624.",
            """Four of Luna's matrices are applied to N tokens, as many as softmax attention has; these cancel.
            Try: what do the other three cost at N = 144, and at N = 1,000,000?""",
        ),
    },
    workings="""Luna: 4 N D² + 3 l D² + 4 N l D. Softmax: 4 N D² + 2 N² D. Equal where N² = 2 l N + 1.5 l D, that is
    N = l + √(l² + 1.5 l D) = 24 + √14400 = 144. The projections of the slots, 3 l D², have to be earned back first.""",
    hints=(
        "Four matrices are applied to N tokens in either layer and cancel. Which ones are left, and how many rows do "
        "they see?",
        "Luna: 4 N D² + 3 l D² + 4 N l D; softmax: 4 N D² + 2 N² D. Set them equal and divide by 2 D.",
    ),
    passed="""144 = l + √(l² + 1.5 l D). Later than 2 l = 48, because the projections of the slots have to be earned
    back.
    Next: tie keys and values, and softmax minus Luna is D (2 N + D)(N - 2 l). Where are they equal now, and where has D
    gone?""",
)

state_numbers = Decision(
    "luna.state_numbers",
    asks=(
        "how many numbers both sums of causal Luna's state hold, all heads of one layer, one sequence, after 1,000 "
        "tokens: D = 512, H = 8, l = 32; and a letter"
    ),
    value=32768,
    reason="b",
    wrong={
        16384: Finding(
            "16,384 = l D is one of the two sums.",
            """All heads are in it, and no N, as it should be. Eq. 5 needs Σ A_jᵀ k_j; eq. 6 needs another.
            Try: tied or not, k is multiplied by q and v is not: list what is read at each step.""",
        ),
        4096: Finding(
            "4,096 = 2 l d is one head: d = 512 / 8 = 64.",
            """Both sums are there, and no N. Eight heads have a state each.
            Try: H d = D.""",
        ),
        2048: Finding(
            "2,048 = l d is one sum of one head.",
            """No N in it, as it should be. There are two sums, and eight heads.
            Try: write the shape of key_state with all its axes.""",
        ),
        262144: Finding(
            "262,144 = 2 l D H would be right if every head were D wide.",
            """Both sums are there, and no N. Heads share the width: each has d = D / H.
            Try: write the shape of key_state with all its axes.""",
        ),
        1024000: Finding(
            "1,024,000 = 2 t D is softmax attention's cache: all keys and values so far.",
            """Both kinds are there, and all heads. In Luna a token is added to a sum, and then it is gone.
            Try: from which t on is that cache larger than Luna's state?""",
        ),
        32768000: Finding(
            "32,768,000 is a state for each of the 1,000 tokens.",
            """2 l D is right. The parallel form keeps them all at once; going token by token, the latest is enough.
            Try: what does the step at t + 1 read?""",
        ),
    },
    reasons={
        "a": Finding(
            "32,768 is right. But twice as many heads are half as wide.",
            """2 H l d = 2 l D, whatever H is. (Linear attention's state, H d² = D d, would halve.)
            Try: the shape of key_state for 8 heads of 64 and for 16 of 32.""",
        ),
        "c": Finding(
            "32,768 is right. But a sum of 500 matrices is as large as a sum of 1,000.",
            """It is a cache that halves with the number of tokens.
            Try: in which line of causal_step does t change a shape?""",
        ),
    },
    workings="""Σ A_jᵀ k_j and Σ A_jᵀ v_j, each [H, l, d] with H d = D: 2 · 32 · 512 = 32,768, after any number of
    tokens. A cache of keys and values, 2 t D, is larger from t = l + 1 = 33 on.""",
    hints=("Write the shapes of both sums, for one head. Then all heads.", "2 · H · l · d, and H · d = D."),
    passed="""32,768 = 2 l D, after 1,000 tokens or a million: only fewer slots, or a narrower layer, make it smaller.
    Next: a cache of keys and values has 2 t D numbers. From which t on is it the larger one?""",
)
