"""Lesson 20: what a shape weighs, to write and to predict."""

from refattn.checks.compare import show
from refattn.checks.decision import Decision
from refattn.checks.frame import Exercise, Finding, Probe, Property, Variant
from refattn.checks.wide_attention import answers
from refattn.models.wide_attention import count_weights

TINY, DEEP, WIDE = (2, 1, 2, 1, 3, 1, 1), (11, 3, 8, 3, 2, 4, 16), (11, 3, 8, 1, 6, 4, 16)


def by_hand(run):
    return f"V = 2, C = 1, D = 2, L = 1, H = 3, d_h = 1, d_ff = 1: wanted 54; you return {show(run(*TINY))}"


def in_layers(run):
    return f"V = 11, C = 3, D = 8, d_ff = 16, three layers of two heads of 4: wanted 2,003; you return {run(*DEEP):,}"


def fact_shapes(run):
    """All layers' attention weighs the same: what a layer more costs is an MLP and two norms."""
    per_layer = 2 * 8 * 16 + 16 + 8 + 4 * 8
    found = [int(run(11, 3, 8, layers, 12 // layers, 4, 16)) for layers in (1, 2, 3, 6)]
    grown = [(count - found[0]) / (layers - 1) for count, layers in zip(found[1:], (2, 3, 6), strict=True)]
    if any(step != per_layer for step in grown):
        return f"12 heads of 4 in all: a layer more must cost {per_layer} weights; yours costs {show(grown)}."


def fact_package(run):
    for layers in (6, 3, 2, 1):
        shape = {"embed_dim": 512, "num_layers": layers, "num_heads": 48 // layers, "head_dim": 64, "ffn_dim": 2048}
        wanted, found = count_weights(257, 2, **shape)["total"], int(run(257, 2, 512, layers, 48 // layers, 64, 2048))
        if found != wanted:
            return f"48 heads of 64 in {layers} layers, D = 512: {wanted:,} weights; you count {found:,}."


weights = Exercise(
    "wide_attention.weights",
    answers.weights,
    returns="P, a whole number",
    probes=(
        Probe("V = 2, C = 1, D = 2, one layer of three heads of width 1, d_ff = 1: 54.", lambda: TINY),
        Probe("V = 11, C = 3, D = 8, d_ff = 16, three layers of two heads of 4.", lambda: DEEP),
        Probe("The same six heads in one layer.", lambda: WIDE),
    ),
    variants=(
        Variant(
            "heads of width D / H",
            answers.weights_narrow,
            lambda run: f"{by_hand(run)}.",
            """Where H d_h = D all is right. But here heads keep their width when there are more of them: W_q has H d_h
            rows, not D. With D / H attention would shrink with L, and the comparison would be another.
            Try: the shape of W_q for three heads of width 1 and D = 2.""",
        ),
        Variant(
            "W_o is D × D",
            answers.weights_square,
            lambda run: f"{by_hand(run)}.",
            """W_q, W_k and W_v are right. W_o reads all heads, H d_h numbers, and returns to D.
            Try: which shape takes 3 numbers to 2?""",
        ),
        Variant(
            "no CLS",
            answers.weights_no_cls,
            lambda run: f"{by_hand(run)}.",
            """Layers, norms and head are complete. The CLS vector is learned, too: D more.
            Try: (V + 1) D.""",
        ),
        Variant(
            "one MLP for all layers",
            answers.weights_one_mlp,
            lambda run: f"{in_layers(run)}.",
            """Attention is right. Every layer has its own MLP; that is why depth costs weights.
            Try: L times.""",
        ),
        Variant(
            "last norm",
            answers.weights_no_last_norm,
            lambda run: f"{by_hand(run)}.",
            """All layers are right. After the last one there is a LayerNorm more.
            Try: 2 D.""",
        ),
    ),
    properties=(
        Property("attention weighs the same in every shape", fact_shapes, "L H is constant. Try: which terms know H?"),
    ),
    numbers=(Property("it equals refattn", fact_package, "To the last weight. Try: biases of the MLP and the head."),),
    hints=(
        "Write the shape of every matrix: E, cls, four of attention, MLP with biases, norms (gain and offset), head.",
        "V D + D + L (4 D H d_h + 2 D d_ff + d_ff + D + 4 D) + 2 D + (D d_ff + d_ff) + (d_ff C + C).",
    ),
    passed="""Equal to the last weight in all four shapes, and attention weighs the same in each.
    Next: which of the terms is left to be saved when L = 1?""",
)

ratio = Decision(
    "wide_attention.ratio",
    asks="how many times the weights of one layer of 48 heads six layers of 8 heads have, with D = 512, d_h = 64, "
    "d_ff = 2048: blocks alone, without norms and biases; and a letter",
    value=2.25,
    reason="c",
    wrong={
        6: Finding(
            "6 would be right if attention grew with depth as the MLPs do.",
            """Six layers have six MLPs, right. But 48 heads have the same weights wherever they stand.
            Try: L (4 D H d_h + 2 D d_ff), for both.""",
        ),
        1: Finding(
            "1 is the ratio of attention weights.",
            """Those are equal, right. What else has a layer?
            Try: 2 D d_ff for each.""",
        ),
        3: Finding(
            "3 gives the one layer heads of width D / H: 4 D² + 8 D² against 6 times as much would be 6, and 3 is the "
            "limit for many layers.",
            """3 L / (L + 2) comes near 3 when L is large. Here L = 6.
            Try: 18 / 8.""",
        ),
        1.5: Finding(
            "1.5 has d_ff = D.",
            """Attention is right. An MLP has 2 D d_ff weights, and d_ff = 4 D.
            Try: 4 D² of attention and 8 D² of the MLP a layer.""",
        ),
    },
    reasons={
        "a": Finding(
            "2.25 is right. But no head got narrower: d_h is 64 in both.",
            """W_q of the wide layer has 3,072 rows.
            Try: count its attention weights.""",
        ),
        "b": Finding(
            "2.25 is right. But embeddings are in neither count; they are the same in both, and pull a ratio to 1.",
            """What differs are blocks.
            Try: which blocks are there six times?""",
        ),
    },
    workings="""Attention: 24 D² in both. MLPs: 6 · 8 D² against 8 D². (24 + 48) / (24 + 8) = 72 / 32 = 2.25, that is
    3 L / (L + 2).""",
    hints=(
        "In units of D²: attention of a layer of 8 heads of 64 has 4, an MLP has 8. And a layer of 48 heads?",
        "6 (4 + 8) / (24 + 8).",
    ),
    passed="""72 D² against 32 D²: 3 L / (L + 2). With embeddings of 257 bytes it is 2.10, with 30,522 words 1.42.
    Next: what is the limit for very many layers, and what would it be without MLPs?""",
)
