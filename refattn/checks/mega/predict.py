"""Lesson 11, predict: how long an average remembers, and what a streaming decoder holds."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

half_life = Decision(
    "mega.half_life",
    asks="αδ, to two digits, of a dimension whose memory halves every 128 tokens; and a letter",
    value=1 - 0.5 ** (1 / 128),
    tolerance=0.02,
    reason="c",
    wrong={
        0.5 ** (1 / 128): Finding(
            "0.9946 is φ, what stays from step to step.",
            """φ^128 = ½, that is right. αδ is what is lost in a step.
            Try: φ = 1 - αδ.""",
        ),
        1 / 128: Finding(
            "0.0078 = 1/128 leaves 1/e after 128 steps, not ½.",
            """The size is right: (1 - 1/128)^128 = 0.367. A half comes sooner, by the factor ln 2.
            Try: solve φ^128 = ½ for φ, with a logarithm.""",
        ),
        1 / 256: Finding(
            "0.0039 = ½ / 128 would be right if the same amount were lost in every step.",
            """A share is lost, not an amount: what is left after t steps is φ^t.
            Try: (1 - 1/256)^128 on a calculator.""",
        ),
        0.25: Finding(
            "0.25 is αδ at the start, with α = δ = ½: then memory halves every 2.4 tokens.",
            """0.75^2.4 = ½. To reach over a border of 128 tokens that has to become far smaller.
            Try: solve (1 - αδ)^128 = ½.""",
        ),
    },
    reasons={
        "a": Finding(
            "0.0054 is right. But h sums up more averages, each as short as before.",
            """A sum of kernels that have faded after ten steps has faded after ten steps.
            Try: draw K for h = 1 and h = 16 at initialisation.""",
        ),
        "b": Finding(
            "0.0054 is right. But a small α makes the input small as well: K_τ = α β η φ^τ.",
            """That is the plain average's dilemma: long memory, whispered in. There is another factor in αδ.
            Try: K₀ for α = 0.0054, δ = 1, and for α = 0.5, δ = 0.0108.""",
        ),
    },
    workings="""φ^128 = ½ gives φ = 0.5^(1/128) = 0.9946, and αδ = 1 - φ = 0.0054. At the start αδ is about ¼, a
    half-life of 2.4 tokens: long memory is learned.""",
    hints=("What is left of a token after t steps? Set it to ½ at t = 128.", "φ = 0.5 ** (1 / 128); αδ = 1 - φ."),
    passed="""0.0054, and a small δ gives it without making the input small.
    Next: log φ = log(1 - αδ). How many digits of it has float32, if 1 - αδ is computed first?""",
)

held = Decision(
    "mega.held",
    asks=(
        "the most numbers that one streaming Mega-chunk layer holds between two tokens: D = 512, h = 16, z = 128, "
        "v = 1024, c = 1024; and a letter"
    ),
    value=512 * 16 + 1023 * (128 + 1024),
    tolerance=0.0001,
    reason="a",
    wrong={
        512 * 16 + 1024 * (128 + 1024): Finding(
            "1,187,840 counts a full chunk. A chunk that is full has been read, and is emptied.",
            """Both parts are there, D h and the cache. Between two tokens the cache holds 0 … c - 1 of them.
            Try: c = 2, token by token: what is in the cache after the second?""",
        ),
        1023 * (128 + 1024): Finding(
            "1,178,496 is the cache alone.",
            """(c - 1)(z + v): right. Something else goes on from token to token, and over every border.
            Try: which state has D features with h dimensions each?""",
        ),
        512 * 16 + 1023 * (512 + 512): Finding(
            "1,055,744 caches keys and values as wide as the model.",
            """Both parts are there. But Mega's key is z wide, and its value v.
            Try: the shapes of K and V in eqs. 2 and 3.""",
        ),
        512 * 16 + 1023 * 2 * 1024: Finding(
            "2,103,296 caches keys as wide as the values.",
            """Both parts are there. Keys are as wide as the shared representation Z.
            Try: the shape of K in eq. 2.""",
        ),
    },
    reasons={
        "b": Finding(
            "1,186,688 is right. But the average is the small part: 8,192 of them.",
            """D h = 8,192 against 1,178,496. Half of little is little.
            Try: which factor stands before z + v?""",
        ),
        "c": Finding(
            "1,186,688 is right. But the layer has one head, whatever num_heads says.",
            """z and v are widths, not widths of a head.
            Try: the shape of Q.""",
        ),
    },
    workings="""The average: D h = 8,192. The cache: up to c - 1 = 1,023 tokens with z + v = 1,152 numbers each,
    1,178,496. Together 1,186,688, after a million tokens as after two thousand.""",
    hints=("Two parts: what is never emptied, and what is emptied every c tokens.", "D · h + (c - 1) · (z + v)."),
    passed="""D h + (c - 1)(z + v), after any number of tokens.
    Next: full attention's cache has t (z + v). From which t on is that more than average and chunk together?""",
)
