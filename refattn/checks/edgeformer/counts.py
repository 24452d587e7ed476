"""Lesson 22, build: what a network stores, and what it computes."""

from refattn.checks.edgeformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.models.sharing import balanced, count_multiply_adds, count_weights

SMALL = (2, 3, 1, 4, 2, 2)  # D, f_e, f_d, attentions, encoder nets, decoder nets
UNEVEN = (2, 3, 1, 4, 2, 3)
FULL = (512, 2048, 128, 4, 2, 2)
PASS = (2, 3, 1, 12, 2, 3, 2, 5)  # D, f_e, f_d, L_e, L_d, S, T, V
WHOLE = (512, 2048, 128, 12, 2, 30, 30, 2000)


def small(run):
    return (
        f"D = 2, f_e = 3, f_d = 1, four attentions, two nets a side: 96 numbers are stored; you count {run(*SMALL):,}"
    )


def uneven(run):
    return f"The same with three decoder nets: 100 numbers are stored; you count {run(*UNEVEN):,}"


def passing(run):
    return (
        f"D = 2, f_e = 3, f_d = 1, 12 and 2 layers, S = 3, T = 2, V = 5: wanted {answers.multiply_adds(*PASS):,}; "
        f"you count {run(*PASS):,}"
    )


def fact_stored(run):
    widths = {"embed_dim": 512, "encoder_ffn": 2048, "decoder_ffn": 128}
    wanted = count_weights(balanced(12, 2), **widths)["matrices"]
    if run(*FULL) != wanted:
        return f"At full size refattn counts {wanted:,}, you {run(*FULL):,}."


def fact_published(run):
    widths = {"embed_dim": 512, "encoder_ffn": 2048, "decoder_ffn": 128, "vocab_size": 2000}
    wanted = count_multiply_adds(balanced(12, 2), source=30, target=30, **widths)["total"]
    if run(*WHOLE) != wanted:
        return f"At full size refattn counts {wanted:,}, you {run(*WHOLE):,}."


parameters = Exercise(
    "edgeformer.parameters",
    answers.parameters,
    returns="a whole number: entries of all distinct matrices",
    probes=(
        Probe("D = 2, f_e = 3, f_d = 1, 4 attentions, 2 + 2 nets: 4·16 + 2·12 + 2·4 = 96.", lambda: SMALL),
        Probe("The same with three decoder nets: 4·16 + 2·12 + 3·4 = 100.", lambda: UNEVEN),
        Probe("EdgeFormer's own sizes: 8,650,752.", lambda: FULL),
    ),
    variants=(
        Variant(
            "a copy for every use",
            answers.parameters_of_uses,
            lambda run: f"{small(run)}.",
            """Every use is counted: right for time, wrong for memory. What is shared lies there once.
            Try: which arguments say how many there are, and does the depth belong here at all?""",
        ),
        Variant(
            "a copy for every use, nets twice",
            answers.parameters_of_all_uses,
            lambda run: f"{small(run)}.",
            """Every use is counted, the decoder's nets twice a layer: that is what a pass computes. In memory each lies
            once.
            Try: which arguments say how many there are, and does the depth belong here at all?""",
        ),
        Variant(
            "widths swapped",
            answers.parameters_widths_swapped,
            lambda run: f"{uneven(run)}.",
            """With as many nets on both sides it is right, and by luck: f_e belongs to the encoder's nets, f_d to the
            decoder's.
            Try: another number of nets on one side.""",
        ),
        Variant(
            "biases too",
            answers.parameters_with_biases,
            lambda run: f"{small(run)}.",
            """All matrices are right. Biases are there as well, one for every row of a matrix; papers leave them out.
            Try: what does a matrix D × f hold without its bias?""",
        ),
        Variant(
            "the net twice",
            answers.parameters_net_twice,
            lambda run: f"{small(run)}.",
            """Attentions and encoder nets are right. A decoder layer runs its net twice, and still has one.
            Try: one decoder layer, its net alone.""",
        ),
        Variant(
            "decoder with attentions of its own",
            answers.parameters_decoder_attention,
            lambda run: f"{small(run)}.",
            """That is a network whose decoder owns its attentions. This one borrows all of them from the encoder.
            Try: how many attentions are there, all together?""",
        ),
        Variant(
            "output matrix missing",
            answers.parameters_three_maps,
            lambda run: f"{small(run)}.",
            """Shared ones once, and nets right. Queries, keys and values make three matrices an attention.
            Try: what comes after the heads?""",
        ),
    ),
    numbers=(Property("it equals refattn", fact_stored, "Distinct things only. Try: the paper's sizes."),),
    hints=("List the distinct matrices: how many, and of which shape?", "An attention has 4 D², a net 2 D f."),
    passed="""8,650,752 at the paper's sizes: no layer count appears.
    Next: what would twenty-four encoder layers add to it?""",
)

multiply_adds = Exercise(
    "edgeformer.multiply_adds",
    answers.multiply_adds,
    returns="a whole number: multiply-adds of one pass",
    probes=(
        Probe("D = 2, f_e = 3, f_d = 1, 12 and 2 layers, S = 3, T = 2, V = 5.", lambda: PASS),
        Probe("EdgeFormer's own sizes, 30 tokens in and out, V = 2,000: 1,319,485,440.", lambda: WHOLE),
    ),
    variants=(
        Variant(
            "shared weights computed once",
            answers.multiply_adds_once,
            lambda run: f"{passing(run)}.",
            """Decoder and output are right. A matrix that several layers share is multiplied in each of them.
            Try: does L_e appear in your count?""",
        ),
        Variant(
            "the encoder's matrices once",
            answers.multiply_adds_encoder_once,
            lambda run: f"{passing(run)}.",
            """Decoder, output and all maps are right. But a matrix that three layers share meets every token three
            times.
            Try: does L_e stand before 4 D² and before 2 D f_e?""",
        ),
        Variant(
            "every matrix once",
            answers.multiply_adds_stored,
            lambda run: f"{passing(run)}.",
            """Maps and output are right. Matrices are counted as they are stored, each once; the decoder's uses of the
            encoder's attentions are missing altogether.
            Try: write a use, not a matrix, on each line.""",
        ),
        Variant(
            "cross attention's keys of the target",
            answers.multiply_adds_source_of_target,
            lambda run: f"{passing(run)}.",
            """At S = T it is right. Cross attention makes queries of T tokens, but keys and values of the source's.
            Try: S = 3, T = 2: which of its four matrices meet three tokens?""",
        ),
        Variant(
            "source side missing",
            answers.multiply_adds_no_source,
            lambda run: f"{passing(run)}.",
            """Nearly. Cross attention also makes keys and values, of all source tokens, in every decoder layer.
            Try: 2 S D² a layer.""",
        ),
        Variant(
            "output missing",
            answers.multiply_adds_no_output,
            lambda run: f"{passing(run)}.",
            """All layers are right. After the last one, every target token meets the whole vocabulary.
            Try: what has V in it?""",
        ),
        Variant(
            "one net a layer",
            answers.multiply_adds_one_net,
            lambda run: f"{passing(run)}.",
            """Right for a standard decoder layer. Interleaved: attention, net, attention, net.
            Try: count the nets in that list.""",
        ),
        Variant(
            "maps missing",
            answers.multiply_adds_no_maps,
            lambda run: f"{passing(run)}.",
            """Every linear map is there. Attention itself multiplies, too: queries with keys, weights with values.
            Try: 2 S² D for an encoder layer.""",
        ),
        Variant(
            "values missing",
            answers.multiply_adds_no_values,
            lambda run: f"{passing(run)}.",
            """Linear maps are right, and so is every map. What a map weighs has to be multiplied, too.
            Try: S weights, S values of width D, for each of S tokens.""",
        ),
        Variant(
            "visible pairs only",
            answers.multiply_adds_visible,
            lambda run: f"{passing(run)}.",
            """A causal map has T (T + 1) / 2 pairs that are heard. Teacher forced, all T² are multiplied, then masked;
            asked is what is multiplied.
            Try: T² pairs in the decoder's own attention.""",
        ),
        Variant(
            "two for each",
            answers.multiply_adds_flops,
            lambda run: f"{passing(run)}.",
            """Each product and each addition is counted by itself: FLOPs in the strict sense. Asked are multiply-adds,
            one for both.
            Try: divide by 2.""",
        ),
    ),
    numbers=(Property("it equals refattn", fact_published, "Every use counts. Try: the paper's sizes."),),
    hints=(
        "Three sums: encoder layers, decoder layers, output. In each: linear maps, then the map and its values.",
        "A decoder layer: T (4 D² + 2 T D), then 2 T D² + 2 S D² + 2 T S D, then 2 · T · 2 D f_d.",
    ),
    passed="""1.32 G at the paper's sizes; the README says 1.3 G and calls them FLOPS.
    Next: the same layers without any sharing: how many multiply-adds fewer, or more?""",
)
