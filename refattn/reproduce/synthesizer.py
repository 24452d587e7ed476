"""Synthesizer in miniature: where a map that compares nothing is enough, and where it cannot be.

Paper: Tay et al., "Synthesizer: Rethinking Self-Attention in Transformer Models", ICML 2021 (arXiv 2005.00743).

Digits read pixel by pixel have a meaning for each place; recall of 8 keys, told in random order, has none, and what is
asked stands in another token. Rules, margins and seeds were fixed before the recorded runs; settings are those of the
other experiments on these tasks, and not searched. Without W_Q and W_K some variants have wider feed-forward nets.
"""

from functools import partial

from refattn import data
from refattn.reproduce.bigbird import STEADY, scanner
from refattn.reproduce.claims import not_worse
from refattn.reproduce.frame import Comparison, Experiment, PaperNumber, Plan
from refattn.reproduce.luna import FAST, SMALL, reader


def scanning(parts, ffn_dim, **options):
    options = {"parts": (parts,), "max_len": 64} | options
    return partial(scanner, attention="synthesizer", options=options, ffn_dim=ffn_dim)


def reading(parts, ffn_dim, **options):
    options = {"parts": (parts,), "max_len": 16} | options
    return partial(reader, attention="synthesizer", shape=SMALL | {"ffn_dim": ffn_dim}, **options)


neutral = Comparison(
    "digits, pixel by pixel",
    "handwritten digits as sequences of 64 grey levels; factorised random maps of rank 8, and a random map that stays "
    "as it was drawn",
    task=partial(data.digits, as_sequence=True),
    variants={
        "softmax": partial(scanner, attention="softmax"),
        "synthesizer learned": scanning("factorized_random", 96, rank=8),
        "synthesizer frozen": scanning("random", 128, train_random=False),
    },
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 400, {"batch_size": 64}), "colab": Plan(8, 2000, {"batch_size": 64})},
    neutral=True,
)

looking_up = Comparison(
    "recall of 8 keys",
    "say which of 4 values was told with each of 8 keys, in random order; one head",
    task=data.recall,
    variants={
        "softmax": partial(reader, attention="softmax"),
        "synthesizer learned": reading("factorized_random", 92, rank=8),
        "synthesizer dense": reading("dense", 72),
    },
    baseline="softmax",
    metric="accuracy",
    training=FAST,
    plans={"demo": Plan(3, 150, {"num_keys": 8}), "quick": Plan(8, 250, {"num_keys": 8})},
)


RANDOM = "maps that are random, and the same for all inputs, are competitive (abstract)"
DISPENSABLE = "comparing tokens with each other helps, but is not essential (abstract)"

claims = (
    not_worse(
        "a learned map reads digits",
        "One learned map for all images reads digits no worse than softmax attention, by a margin of 2 points",
        RANDOM,
        neutral,
        "synthesizer learned",
        "softmax",
        margin=0.02,
    ),
    not_worse(
        "a frozen map reads digits",
        "One random map, never trained, reads digits no worse than softmax attention, by a margin of 2 points",
        RANDOM,
        neutral,
        "synthesizer frozen",
        "softmax",
        margin=0.02,
    ),
    not_worse(
        "a learned map recalls",
        "One learned map for all sequences recalls 8 keys no worse than softmax attention, by a margin of 2 points",
        DISPENSABLE,
        looking_up,
        "synthesizer learned",
        "softmax",
        margin=0.02,
    ),
    not_worse(
        "dense logits recall",
        "Maps made by each token alone recall 8 keys no worse than softmax attention, by a margin of 2 points",
        DISPENSABLE,
        looking_up,
        "synthesizer dense",
        "softmax",
        margin=0.02,
    ),
)

LRA = {"task": "LRA, Text and Image", "size": "as LRA sets it", "source": "README of the LRA repository"}
paper = (
    PaperNumber("accuracy, Synthesizer", "61.68 %, 41.61 %", **LRA),
    PaperNumber("accuracy, softmax", "64.27 %, 42.44 %", **LRA),
)

EXPERIMENT = Experiment(
    "synthesizer",
    "Synthesizer: Rethinking Self-Attention in Transformer Models",
    parts=(neutral, looking_up),
    claims=claims,
    paper=paper,
    limits=(
        "Translation and language modelling, where the paper's claim was made, need models and data far beyond this.",
        "On digits every place has its own meaning, which suits maps by place; on recall none has, which forbids them.",
        "Mixtures with dot products, the paper's best, are not compared here.",
        "LRA's dense Synthesizer mixes up rows and heads; its text model is the factorised random one alone.",
    ),
)
