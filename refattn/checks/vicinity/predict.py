"""Lesson 17, predict: where the linear form is the cheaper one, and how near half an image is."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

equal_work = Decision(
    "vicinity.equal_work",
    asks="the number of tokens N at which both forms take equally many multiply-adds, for D = 512, H = 8, ρ = 2; and a "
    "letter",
    value=128,
    reason="c",
    wrong={
        256: Finding(
            "256 = 4 · 64 leaves FRA out.",
            """Four times the head width: right. But a head is D / (H ρ) wide.
            Try: 512 / (8 · 2).""",
        ),
        32: Finding(
            "32 = d is where linear attention without re-weighting breaks even: 2 N d² against 2 N² d.",
            """The head width is right. Features are wider than a head here.
            Try: how wide is φ?""",
        ),
        1024: Finding(
            "1,024 = 4 D' is right for a single head.",
            """4 d holds head by head, and there are eight.
            Try: 2 · 4d · d · H · N against 2 · N² · d · H.""",
        ),
        64: Finding(
            "64 = 2 d counts one of the two products: φ(k)ᵀ v, or φ(q) M.",
            """Both are 4 d · d · N. The explicit form has two as well: similarities, and weights times values.
            Try: all four counts.""",
        ),
    },
    reasons={
        "a": Finding(
            "128 is right. But H divides out: both forms work head by head.",
            """Twice as many heads of half the width do halve N, by way of d.
            Try: keep d = 32, and double H and D.""",
        ),
        "b": Finding(
            "128 is right. But projections, output matrix and gate are the same in both forms.",
            """They are added to either side, and cancel.
            Try: what of the layer depends on how attention is bracketed?""",
        ),
    },
    workings="""d = 512 / (8 · 2) = 32. Linear: 2 · N · 4d · d · H. Explicit: 2 · N² · d · H. Equal at N = 4 d. Stage
    4 of a published model has 49 tokens at 224 px: there the quadratic form would be the cheaper one.""",
    hints=("Count the products of both forms for one head of width d. What is 4 d?", "d = D / (H ρ); N = 4 d."),
    passed="""4 d = 128. Stage 4 of the published models has 49 tokens at 224 px: fewer.
    Next: at which image side does stage 4 have 128 tokens?""",
)

half_way = Decision(
    "vicinity.half_way",
    asks="R (the sum form) between two tokens of one row that are half of the image's width apart; and a letter",
    value=1.7071,
    tolerance=0.002,
    reason="b",
    wrong={
        0.7071: Finding(
            "0.7071 = cos(π/4) is the share of the columns.",
            """Right for that axis. They stand in the same row: what does the other axis add?
            Try: cos 0.""",
        ),
        1.0: Finding(
            "1 = 1 + cos(π/2) would be right a whole width apart.",
            """Angles run from 0 to π/2 over the whole image. Half of it is half of that.
            Try: π/2 · ½.""",
        ),
        1.5: Finding(
            "1.5 is what a straight line would give: 1 + ½.",
            """A cosine is flat at first. That is why this kernel is so broad.
            Try: cos(π/4).""",
        ),
        1.4142: Finding(
            "1.4142 = 2 cos(π/4) has both axes half of the image apart.",
            """One of them has no distance.
            Try: the same row.""",
        ),
    },
    reasons={
        "a": Finding(
            "1.7071 is right. But the angle is distance over width: twice the pixels, twice both.",
            """Nothing gets narrower in the image; in tokens it gets wider.
            Try: 4 of 8 columns, then 8 of 16.""",
        ),
        "c": Finding(
            "1.7071 is right. But learned weights do not enter R.",
            """q·k is learned and may be sharp. R has no parameter.
            Try: which symbols does R contain?""",
        ),
    },
    workings="""cos(0) + cos(π/2 · ½) = 1 + 0.7071. The distance is a share of the width, so pixels do not matter.""",
    hints=("Two cosines: one of the row distance, one of the column distance.", "1 + cos(π/2 · ½)."),
    passed="""1.71 of 2: soft, to put it mildly. And a share of the image, whatever its resolution.
    Next: what is the least R on a large grid, from corner to corner?""",
)
