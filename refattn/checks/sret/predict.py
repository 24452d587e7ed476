"""Lesson 21, predict: what slices save, and how far a word gets in two passes."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

multiply_adds = Decision(
    "sret.multiply_adds",
    asks="the multiply-adds of one application with its projection: N = 784 tokens of width C = 64, h = 230, h' = 64, "
    "G = 8 slices, to three digits; and a letter",
    value=52183040,
    tolerance=0.002,
    reason="b",
    wrong={
        15128064: Finding(
            "15.1 million is everything divided by 8.",
            """The sum is complete. But projections and feed-forward nets act on each token alone: a slice of 98 tokens
            costs an eighth, and there are eight.
            Try: which products have a token on both sides?""",
        ),
        121024512: Finding(
            "121 million is one application over all tokens, G = 1.",
            """Every part is there. Which of them do slices make smaller?
            Try: how many scores has a slice of 98 tokens, and how many slices are there?""",
        ),
        47265792: Finding(
            "47.3 million counts the scores and not what is done with them.",
            """Linear parts are right, and the scores. Weights are multiplied with values as well.
            Try: two products of N²/G · C.""",
        ),
        45760512: Finding(
            "45.8 million leaves the non-linear projection out.",
            """The block is right. What follows every application?
            Try: 2 h' N C more.""",
        ),
        9834496: Finding(
            "9.83 million are the maps, and they alone.",
            """Scores and weighted sums are right, with their G = 8. What else does an application multiply?
            Try: projections, feed-forward net, non-linear projection: N (4 C² + 2 h C + 2 h' C).""",
        ),
        42348544: Finding(
            "42.3 million are the linear parts, and they alone.",
            """Projections and both nets are right. Slices have scores, and weighted sums, too.
            Try: how many scores has a slice of 98 tokens, and how many slices are there?""",
        ),
        104366080: Finding(
            "104 million are floating point operations: twice as many.",
            """Every product is there. A multiplication and its addition count as one here.
            Try: half of it.""",
        ),
        43577856: Finding(
            "43.6 million divides the scores by G².",
            """One slice has (N/G)² scores, right. How many slices are there?
            Try: G (N/G)².""",
        ),
    },
    reasons={
        "a": Finding(
            "52.2 million is right. But a query reads 98 keys, not 784; the width of a head is the same.",
            """Slices shorten the rows of the map, and nothing else.
            Try: which of the five products know N twice?""",
        ),
        "c": Finding(
            "52.2 million is right. But the feed-forward net costs the same in slices: 98 tokens, eight times.",
            """What acts on a token alone does not care who its neighbours are.
            Try: 2 h N C, with N = 98, times 8.""",
        ),
    },
    workings="""Linear: 784 (4 · 64² + 2 (230 + 64) 64) = 42.35 million. Maps: 2 · 784² · 64 / 8 = 9.83 million.""",
    hints=(
        "Write down every product of the block and of the projection. Which of them know N twice?",
        "N (4 C² + 2 h C + 2 h' C) + 2 N² C / G.",
    ),
    passed="""42.3 million linear and 9.8 million in the maps, which were 78.7 million before: 57 % are saved in this
    application.
    Next: in the third stage there are 49 tokens of width 256. Why is nothing sliced there?""",
)

reach = Decision(
    "sret.reach",
    asks="how many percent of 96 tokens a token can depend on, on average, after two passes: eight slices in order, "
    "then eight slices of tokens shuffled at random (to within 3 points); and a letter",
    value=81.9,  # exactly, so without replacement; 79.9 with
    tolerance=0.04,
    reason="a",
    wrong={
        100: Finding(
            "100 % would need its twelve slice-mates to meet each of the eight first slices.",
            """Twelve are enough for eight, and some orders reach all. Random ones send several mates to one first
            slice, and then another slice is missed.
            Try: throw twelve balls into eight boxes. How many boxes stay empty?""",
        ),
        12.5: Finding(
            "12.5 % is what two passes reach if nobody is shuffled.",
            """A slice in order reads itself, twice. Shuffled, its twelve members bring first slices along.
            Try: who is in the second slice, and whom has each of them heard?""",
        ),
        23.958: Finding(
            "24 % counts its own slice and its eleven new mates: 23 tokens.",
            """Those eleven had a first pass, too. What they heard there goes along.
            Try: hops: i reads j in the second pass; j has read whom in the first?""",
        ),
        25: Finding(
            "25 % adds an eighth and an eighth.",
            """Each pass alone reaches an eighth. But in the second pass a token reads what others brought from the
            first.
            Try: twelve mates, each with a first slice of twelve. How many different ones?""",
        ),
        1.5625: Finding(
            "1.56 % is an eighth of an eighth.",
            """Shares of pairs do not multiply: what is asked is a union.
            Try: twelve mates, each with a first slice of twelve.""",
        ),
        65.6: Finding(
            "65 to 68 % is reached by as many mates as there are first slices, such as the lesson's eight and eight.",
            """The thought is right: a first slice is missed if no mate comes from it. Here the two numbers differ.
            Try: how many tokens has a second slice, and how many first slices are there?""",
        ),
        20.1: Finding(
            "20.1 % is what is missed: (7/8)^12.",
            """That is the hard part. Asked is what is reached.
            Try: the rest.""",
        ),
        18.1: Finding(
            "18.1 % is what is missed.",
            """That is the hard part, and without replacement. Asked is what is reached.
            Try: the rest.""",
        ),
        0.81: Finding(
            "About 0.8 is the share; asked are percent.",
            """The count is right.
            Try: times 100.""",
        ),
    },
    reasons={
        "b": Finding(
            "82 is right. But small weights still let a word through: what is counted is who *can* be heard.",
            """The map would be dense even if its weights were tiny.
            Try: which pairs have weight exactly zero after both passes?""",
        ),
        "c": Finding(
            "82 is right. But nothing is wrong with sizes: 96 is a multiple of 8, and every token is in a slice.",
            """The loss is chance's.
            Try: an order without loss: token i goes to slice i mod 8.""",
        ),
    },
    workings="""Twelve tokens, each from one of eight first slices: one of these is missed with (7/8)^12 = 20 %. Without
    replacement, and with the token's own slice for sure, 82 % are reached.""",
    hints=(
        "Its slice in the second pass has twelve tokens. Each brings one whole first slice. Which are brought twice?",
        "1 - (1 - 1/8)^12.",
    ),
    passed="""1 - (7/8)^12 = 80 %, and 82 % without replacement: chance wastes a fifth.
    Next: which order, not random at all, would reach 100 %, and for which numbers of slices does it exist?""",
)
