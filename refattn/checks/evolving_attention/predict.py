"""Lesson 13, predict: what nine taps cost, and how many of them see anything."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

convolution_work = Decision(
    "evolving_attention.convolution_work",
    asks="multiply-adds of a 3 × 3 convolution over maps, as a multiple of those of Q Kᵀ and A V together: H = 12 "
    "heads, D = 768 (BERT-base); and a letter",
    value=0.84375,
    reason="b",
    wrong={
        1.6875: Finding(
            "1.69 divides by N² D, one of the two products.",
            """H² k² = 1,296 a cell is right. Q Kᵀ costs D for each pair, and so does A V.
            Try: 2 D.""",
        ),
        0.0703125: Finding(
            "0.07 has H where H² belongs.",
            """Nine taps, and 2 D for both products: right. Each outgoing head reads all incoming heads.
            Try: write the shape of C.""",
        ),
        0.09375: Finding(
            "0.094 is a 1 × 1 kernel.",
            """H² and 2 D are right. Each of nine taps has its own H × H matrix.
            Try: write the shape of C.""",
        ),
        0.00055: Finding(
            "0.00055 is the ratio of parameters, to the layer's four projections.",
            """A projection's weight works once a token, a kernel's once a *pair* of tokens.
            Try: count for one pair.""",
        ),
        10.125: Finding(
            "10.1 divides by one head's products, 2 d.",
            """H² k² = 1,296 is the work of all heads, so all heads' products belong below it.
            Try: H d = D.""",
        ),
    },
    reasons={
        "a": Finding(
            "0.84 is right. But the layer's parameters are 2.4 million, and the kernel's 1,308.",
            """Cheap in parameters and dear in work go together: weights that are shared by N² cells.
            Try: how often does one weight of C work?""",
        ),
        "c": Finding(
            "0.84 is right. But both the convolution and the products grow with N², so their ratio stays.",
            """N cancels.
            Try: write both for N = 10 and N = 1,000.""",
        ),
    },
    workings="""For one pair of tokens the convolution takes H² k² = 144 · 9 = 1,296 multiply-adds, Q Kᵀ and A V take
    2 D = 1,536. 1,296 / 1,536 = 0.84; N cancels.""",
    hints=(
        "Count for one pair of tokens, all heads: the logits, the values, and one cell of all convolved maps.",
        "H² k_r k_c / (2 D).",
    ),
    passed="""1,296 / 1,536 = 0.84, for 1,308 parameters.
    Next: the same D with 24 heads. How does the ratio change?""",
)

live_cells = Decision(
    "evolving_attention.live_cells",
    asks="how many of the nine taps of a causal 3 × 3 kernel find a cell that may be seen, when it writes the cell of "
    "query 7 and key 7; and a letter",
    value=6,
    reason="c",
    wrong={
        9: Finding(
            "9 would be right further down: from two keys before the diagonal on.",
            """Inside the frame they all are. But row 6 ends at key 6, and row 5 at key 5; beyond stand zeros.
            Try: rows 5, 6, 7 and columns 5, 6, 7: mark what lies above the diagonal.""",
        ),
        4: Finding(
            "4 is what a *centred* kernel finds in its own row and the one before, or a 2 × 2 kernel.",
            """A causal kernel has its last tap on the cell: rows 5 to 7, keys 5 to 7.
            Try: draw the nine cells.""",
        ),
        3: Finding(
            "3 is row 7 alone.",
            """Row 7 sees keys 5, 6, 7: right. Rows 5 and 6 lie under the kernel too.
            Try: which of their cells lie on or below the diagonal?""",
        ),
        5: Finding(
            "5 leaves one out.",
            """Row 5 has a cell, too: the one of key 5.
            Try: 3 + 2 + …""",
        ),
    },
    reasons={
        "a": Finding(
            "6 is right. But nothing later may be seen, whatever the kernel's size.",
            """A kernel of zeros above the diagonal would find the same six.
            Try: what stands in the other three cells, for every sequence?""",
        ),
        "b": Finding(
            "6 is right. But query 7 is not at the border of a map of 20 tokens.",
            """The border matters for queries and keys 0 and 1.
            Try: the same for query 9 and key 9.""",
        ),
    },
    workings="""Under the kernel lie queries 5, 6, 7 and keys 5, 6, 7; on or below the diagonal are 1 + 2 + 3 = 6.""",
    hints=(
        "Which queries and which keys lie under a causal kernel whose last tap is on the cell?",
        "Queries 5, 6, 7 and keys 5, 6, 7; query p sees keys up to p.",
    ),
    passed="""1 + 2 + 3 = 6, the paper's "receptive field of 6" (recalled, unverified).
    Next: after three layers, from how many earlier queries may one cell have heard?""",
)
