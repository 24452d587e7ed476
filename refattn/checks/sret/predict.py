"""Lesson 21, predict: what slices save, and how far a word gets in two passes."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

multiply_adds = Decision(
    "sret.multiply_adds",
    asks="the multiply-adds of one application with its projection: N = 784 tokens of width C = 64, h = 230, h' = 64, "
    "G = 8 slices; and a letter",
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
    asks="how many percent of 64 tokens a token can depend on, on average, after two passes: eight slices in order, "
    "then eight slices of tokens shuffled at random (to within 4 %); and a letter",
    value=66,
    tolerance=0.04,
    reason="a",
    wrong={
        100: Finding(
            "100 % would need its eight slice-mates to come from eight different first slices.",
            """8 × 8 = 64 is the most that can be reached, and some orders reach it. Random ones send two mates to one
            first slice, and then another slice is missed.
            Try: throw eight balls into eight boxes. How many boxes stay empty?""",
        ),
        12.5: Finding(
            "12.5 % is what two passes reach if nobody is shuffled.",
            """A slice in order reads itself, twice. Shuffled, its eight members bring eight slices along.
            Try: who is in the second slice, and whom has each of them heard?""",
        ),
        23.4375: Finding(
            "23.4 % counts its own slice and its seven mates: 15 tokens.",
            """Those seven had a first pass, too. What they heard there goes along.
            Try: hops: i reads j in the second pass; j has read whom in the first?""",
        ),
        1.5625: Finding(
            "1.56 % is one token of 64: multiplying 1/8 by 1/8.",
            """Shares of pairs do not multiply: what is asked is a union.
            Try: eight mates, each with a first slice of eight.""",
        ),
    },
    reasons={
        "b": Finding(
            "66 is right. But small weights still let a word through: what is counted is who *can* be heard.",
            """The map would be dense even if its weights were tiny.
            Try: which pairs have weight exactly zero after both passes?""",
        ),
        "c": Finding(
            "66 is right. But nothing is wrong with sizes: 64 is a multiple of 8, and every token is in a slice.",
            """The loss is chance's.
            Try: an order without loss: token (r, c) goes to slice c.""",
        ),
    },
    workings="""Eight tokens, each from one of eight first slices: a first slice is missed with (7/8)^8 = 34 %. Without
    replacement, and with the token's own slice for sure, 68 % are reached.""",
    hints=(
        "Its slice in the second pass has eight tokens. Each brings one whole first slice. Which are brought twice?",
        "1 - (1 - 1/8)^8.",
    ),
    passed="""1 - (7/8)^8 = 66 %, a little more without replacement: chance wastes a third.
    Next: which order, not random at all, would reach 100 %, and for which numbers of slices does it exist?""",
)
