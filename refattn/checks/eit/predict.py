"""Lesson 14, predict: two very different prices, in parameters and in work."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

more_parameters = Decision(
    "eit.more_parameters",
    asks="how many parameters the four convolutions of one layer have, biases included: D = 256, M = 4, kernels 7 and "
    "3, ρ = 2, c = 8; and a letter",
    value=1960,
    reason="b",
    wrong={
        1888: Finding(
            "1,888 are the weights.",
            """All four, with their groups: right. Each outgoing map has a bias as well.
            Try: 32 + 4 + 32 + 4.""",
        ),
        5320: Finding(
            "5,320 would be right if f₀ and f₁ had one group, and read all maps.",
            """g₀ and g₁ are right. With M groups an outgoing map of f₀ reads M maps, not M², and one of f₁ 2 M, not
            2 M².
            Try: how many maps belong to one query head?""",
        ),
        1156: Finding(
            "1,156 is the inner interaction.",
            """f₀ and f₁ are right: 928 + 228. The heads then speak with each other.
            Try: g₀ takes M maps to 8 M, and g₁ takes them back.""",
        ),
        804: Finding(
            "804 is the interaction across heads.",
            """g₀ and g₁ are right: 416 + 388. Before that each head fuses its own maps.
            Try: f₀ takes M² maps to 2 M², in M groups.""",
        ),
        488: Finding(
            "488 is what kernels of width 1 have.",
            """Groups and biases are right. Here f has width 7, and g has 3.
            Try: weights times 7, or times 3; biases once.""",
        ),
    },
    reasons={
        "a": Finding(
            "1,960 is right. But with twice the width there would be as many.",
            """Their channels are maps: D appears nowhere.
            Try: write the four shapes.""",
        ),
        "c": Finding(
            "1,960 is right. But a kernel has no size along queries but 1, and none that follows N.",
            """Convolutions share their weights over all cells of a map.
            Try: write the four shapes.""",
        ),
    },
    workings="""f₀: 2 M² · M · 7 + 2 M² = 928; f₁: M · 2 M · 7 + M = 228; g₀: 8 M · M · 3 + 8 M = 416;
    g₁: 8 M · M · 3 + M = 388. Beside 4 D² + 4 D = 263,168 of the projections that is 0.7 %.""",
    hints=(
        "For each convolution: outgoing maps × maps that one of them reads × width, and a bias for each outgoing map.",
        "f₀: 32 × 4 × 7 + 32; f₁: 4 × 8 × 7 + 4; g₀: 32 × 4 × 3 + 32; g₁: 4 × 32 × 3 + 4.",
    ),
    passed="""928 + 228 + 416 + 388 = 1,960, 0.7 % of the projections.
    Next: how does it grow with M? At M = 16, is it still modest?""",
)

map_work = Decision(
    "eit.map_work",
    asks="how many times softmax attention's N² work the equations of EIT take, written plainly: D = 256, M = 4, "
    "kernels 7 and 3, ρ = 2, c = 8 (their 1,888 weights work once a pair); multiply-adds of logits, convolutions and "
    "values; and a letter",
    value=6.1875,
    reason="a",
    wrong={
        2.5: Finding(
            "2.5 leaves the convolutions out: (4 D + D) / 2 D.",
            """M² logits and M values are right. Each weight of a convolution works once in every cell of the plane.
            Try: 1,888 more for each pair.""",
        ),
        4.6875: Finding(
            "4.69 counts M maps of logits, not M².",
            """Values and convolutions are right. But each query head meets each key head: M² d = M D.
            Try: which logits are computed in the first place?""",
        ),
        3.6875: Finding(
            "3.69 is the convolutions' part alone, 1,888 / 512.",
            """They are not all: logits and values remain.
            Try: M D + D, and then 1,888.""",
        ),
        1.007: Finding(
            "1.007 is the ratio of parameters.",
            """A parameter of a projection works once a token; one of these convolutions works once a *pair* of tokens.
            Try: multiply-adds for one pair.""",
        ),
        7.6875: Finding(
            "7.69 counts M² maps of values as well.",
            """Logits and convolutions are right. M maps are left when values are weighed.
            Try: how many maps come out of f₁?""",
        ),
    },
    reasons={
        "b": Finding(
            "6.19 is right. But 1 × 1 kernels leave 416 weights, and logits and values alone are 2.5 times.",
            """(4 D + 416 + D) / 2 D = 3.3: much less, still far from 1.
            Try: what is the largest term of the sum?""",
        ),
        "c": Finding(
            "6.19 is right. But M² d = M D logits cost M times softmax attention's, however small the maps' mixing is.",
            """The plane has N² cells for either.
            Try: the sum for one pair of tokens, term by term.""",
        ),
    },
    workings="""A pair of tokens costs softmax attention D for the logits of all heads and D for values: 512. Plain EIT
    costs M D = 1,024 for M² maps, 1,888 for the convolutions and D = 256 for values: 3,168, that is 6.19 times.""",
    hints=(
        "Count for one pair of tokens. Softmax attention: D + D. How many logits has EIT for it, of d terms each?",
        "(M D + 1,888 + D) / (2 D).",
    ),
    passed="""(1,024 + 1,888 + 256) / 512 = 6.19: 0.7 % of parameters, six times the work.
    Next: with the first convolution on the keys, eq. 7 of the lesson, M D + 896 becomes 2 M D. When is that less?""",
)
