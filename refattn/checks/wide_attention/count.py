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
    wanted, found = show(answers.weights(*DEEP)), show(run(*DEEP))
    return f"V = 11, C = 3, D = 8, d_ff = 16, three layers of two heads of 4: wanted {wanted}; you return {found}"


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
        Variant(
            "one norm a layer",
            answers.weights_one_norm,
            lambda run: f"{in_layers(run)}.",
            """Matrices and biases are right. But eq. 1 has a norm before attention, and another before the MLP.
            Try: 4 D a layer.""",
        ),
        Variant(
            "gains only",
            answers.weights_gains_only,
            lambda run: f"{in_layers(run)}.",
            """Matrices and biases are right, and so is the number of norms. A LayerNorm has an offset besides its gain.
            Try: 2 D a norm.""",
        ),
        Variant(
            "biases in attention",
            answers.weights_biased_attention,
            lambda run: f"{by_hand(run)}.",
            """Every matrix is there. But eq. 2 adds nothing to z Wᵀ: here q, k, v and the output have no biases, unlike
            those of nn.MultiheadAttention.
            Try: 4 D H d_h for attention, and no more.""",
        ),
        Variant(
            "no biases in the MLPs",
            answers.weights_no_mlp_biases,
            lambda run: f"{in_layers(run)}.",
            """Every matrix is there, and the biases of eq. 3. Eq. 1 has two as well: b₁ and b₂, in every layer.
            Try: d_ff + D more a layer.""",
        ),
        Variant(
            "no biases at all",
            answers.weights_no_biases,
            lambda run: f"{in_layers(run)}.",
            """Every matrix and every norm is there. Only attention goes without biases: b₁ and b₂ in eq. 1, h₁ and h₂
            in eq. 3 are learned.
            Try: what is the shape of each of these four?""",
        ),
        Variant(
            "a head of one layer",
            answers.weights_flat_head,
            lambda run: f"{in_layers(run)}.",
            """All layers are right. But eq. 3 does not go from p to C classes at once: d_ff numbers lie between.
            Try: the shapes of H₁ and H₂.""",
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
    asks="how many times the weights of one layer of 16 heads four layers of 4 heads have, with D = 256, d_h = 64, "
    "d_ff = 512: blocks alone, without norms and biases; and a letter",
    value=1.6,
    reason="c",
    wrong={
        4: Finding(
            "4 would be right if attention grew with depth as MLPs do, or if the one layer's heads had width D / H.",
            """Four layers have four MLPs, right. But 16 heads of 64 have the same weights wherever they stand.
            Try: L (4 D H d_h + 2 D d_ff), for both.""",
        ),
        1: Finding(
            "1 is the ratio of attention weights.",
            """Those are equal, right. What else has a layer?
            Try: 2 D d_ff for each.""",
        ),
        2: Finding(
            "2 = 3 L / (L + 2) is the ratio for d_ff = 4 D.",
            """The lesson's formula has its MLPs twice as wide. Here d_ff = 2 D.
            Try: 4 D² of attention and 4 D² of the MLP a layer.""",
        ),
        2.25: Finding(
            "2.25 is the lesson's: six layers, and d_ff = 4 D.",
            """Four layers are asked, and d_ff = 2 D.
            Try: count both shapes in units of D².""",
        ),
        2.1: Finding(
            "2.10 is the lesson's whole network: six layers, d_ff = 4 D, embeddings of 257 bytes included.",
            """Embeddings are the same in both shapes, and pull a ratio to 1. Blocks alone are asked, of another shape.
            Try: count both shapes in units of D².""",
        ),
        1.72: Finding(
            "1.72 is the lesson's ratio of multiply-adds, at 1,000 bytes.",
            """Scores take time, but they weigh nothing.
            Try: which matrices does a layer own?""",
        ),
        1.3333: Finding(
            "1.333 = 24 / 18 has one matrix in an MLP.",
            """Attention is right. An MLP goes from D to d_ff, and back.
            Try: 2 D d_ff a layer.""",
        ),
        0.625: Finding(
            "0.625 is what the one layer has of the four layers' weights.",
            """Both counts are right. Asked is the other way round.
            Try: 32 by 20, or 20 by 32?""",
        ),
    },
    reasons={
        "a": Finding(
            "1.6 is right. But no head got narrower: d_h is 64 in both.",
            """W_q of the wide layer has 1,024 rows.
            Try: count its attention weights.""",
        ),
        "b": Finding(
            "1.6 is right. But embeddings are in neither count; they are the same in both, and pull a ratio to 1.",
            """What differs are blocks.
            Try: which blocks are there four times?""",
        ),
    },
    workings="""In units of D²: attention 16 in both, MLPs 4 · 4 against 4. (16 + 16) / (16 + 4) = 32 / 20 = 1.6, that
    is 2 L / (L + 1).""",
    hints=(
        "In units of D²: attention of a layer of 4 heads of 64 has 4, an MLP has 4. And a layer of 16 heads?",
        "4 (4 + 4) / (16 + 4).",
    ),
    passed="""32 D² against 20 D²: 2 L / (L + 1). Of whole networks it is 1.52 with a vocabulary of 257 bytes, and 1.09
    with one of 30,522 words.
    Next: what is the limit for very many layers, and what would it be without MLPs?""",
)
