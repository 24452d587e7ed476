"""Lesson 12, decide: what a head costs, and what one head cannot do."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

equal_maps = Decision(
    "couplformer.equal_maps",
    asks="how many coupled heads have as many weights in their maps as 4 softmax heads, on a grid of 14 × 14; "
    "and a letter",
    value=392,
    tolerance=0.001,
    reason="b",
    wrong={
        98: Finding(
            "98 = 196² / (14² + 14²) is right for one head of softmax.",
            """So many coupled heads make one N × N map. There are four.
            Try: times 4.""",
        ),
        784: Finding(
            "784 = 4 · 196² / 14² leaves one of the two maps out.",
            """A coupled head has a row map and a column map.
            Try: 14² + 14².""",
        ),
        4: Finding(
            "4 would be as many heads, not as many weights.",
            """A softmax head has 196² = 38,416 weights.
            Try: how many has a coupled head?""",
        ),
        5488: Finding(
            "5,488 = 4 · 196² / 28 counts the weights of one row of A and one of Ā.",
            """14 + 14 weights are what one pixel uses. A map has a row for each line of the image.
            Try: 14 × 14 for rows, and again for columns.""",
        ),
    },
    reasons={
        "a": Finding(
            "392 is right. But the ratio grows with the grid: it is N/2 on a square.",
            """At 28 × 28 a softmax head is worth 392 coupled ones.
            Try: 8 × 8.""",
        ),
        "c": Finding(
            "392 is right. But width does not enter: maps have one number for each pair, whatever c is.",
            """More channels make the sums longer, not the maps larger.
            Try: the shape of A for c = 1.""",
        ),
    },
    workings="""A softmax head has N² = 196² = 38,416 weights, a coupled one h² + w² = 392. 4 · 38,416 / 392 = 392, as
    N²/(2N) = N/2 = 98.""",
    hints=("Count the weights of one head of each kind.", "4 · N² / (h² + w²)."),
    passed="""4 · 196² / (2 · 196) = 392: N/2 coupled heads weigh as much as one of softmax, whatever their width.
    Next: a network also keeps tokens, hidden layers and values. Is its memory, too, a 98th?""",
)

ghost_share = Decision(
    "couplformer.ghost_share",
    asks="the largest weight that one coupled head can put on each of two pixels at once, in different rows and "
    "different columns, equally on both; and a letter",
    value=0.25,
    reason="c",
    wrong={
        0.5: Finding(
            "0.5 on each is what softmax attention can do.",
            """The two rows then have ½ each, and so have the two columns: that makes four pixels.
            Try: multiply ½ by ½, and count corners.""",
        ),
        1 / 3: Finding(
            "1/3 would leave a third for both ghosts together.",
            """The ghosts' weights are not free: (a₁ ā₁)(a₂ ā₂) = (a₁ ā₂)(a₂ ā₁).
            Try: both marks at x. What is the product of the two ghosts?""",
        ),
        1.0: Finding(
            "Weights sum to one, over all pixels.",
            """So two of them have at most ½ each; and a product of rows and columns has less.
            Try: the four corners of a rectangle.""",
        ),
    },
    reasons={
        "a": Finding(
            "0.25 is right. But even with N numbers free the rectangle's four corners would be tied.",
            """It is the product, not the number of weights: with h + w numbers a row map alone has all it needs.
            Try: which weight has the pixel at the first mark's row and the second mark's column?""",
        ),
        "b": Finding(
            "0.25 is right. But sharp softmaxes are possible: logits may be as large as they like.",
            """Even with two rows and two columns all to themselves, ½ · ½ is the most.
            Try: A = [½, ½], Ā = [½, ½].""",
        ),
    },
    workings="""Rows a₁, a₂ and columns ā₁, ā₂ with sums at most 1: a₁ ā₁ = a₂ ā₂ = x, so x² = a₁ a₂ ā₁ ā₂ ≤ ¼ · ¼.""",
    hints=(
        "Write the weights of all four corners of the rectangle.",
        "x² = (a₁ ā₁)(a₂ ā₂) = (a₁ a₂)(ā₁ ā₂), and a₁ + a₂ ≤ 1.",
    ),
    passed="""x² = (a₁ a₂)(ā₁ ā₂) ≤ 1/16: a quarter each, and two ghosts have the other half.
    Next: two heads, one for each mark. How much weight is wasted then?""",
)
