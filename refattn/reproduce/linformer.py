"""Linformer's premise in miniature: are trained maps of low rank, what do projections keep, and where does it matter?

Paper: Wang et al., "Linformer: Self-Attention with Linear Complexity", 2020 (arXiv 2006.04768).

Two kinds of tasks: digits read pixel by pixel, which are told from averages; and recall of 32 keys, where every
question has to look at one place. All sequences have 64 tokens, and k is a quarter of that. Rules, margins and seeds
were fixed before the recorded runs; settings are those of the other experiments on these tasks, and not searched.
"""

from functools import partial

from refattn import data
from refattn.reproduce.approximations import projections_kept, spectra
from refattn.reproduce.bigbird import STEADY, scanner
from refattn.reproduce.claims import better
from refattn.reproduce.costs import layer_counts
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.luna import FAST, SMALL, reader
from refattn.reproduce.verdict import Claim

TOKENS, RANK = 64, 16
KEYS = {"num_keys": TOKENS // 2}
pixels = partial(data.digits, as_sequence=True)
keys = partial(data.recall, **KEYS)
softmax_reader = partial(reader, attention="softmax", shape=SMALL | {"ffn_dim": 96})
softmax_scanner = partial(scanner, attention="softmax")

# ---- Comparisons: E and F have 2 k N numbers a layer, for which the feed-forward net is narrower by 32 ---------------

OPTIONS = {"projected_len": RANK, "max_len": TOKENS}

looking_up = Comparison(
    "recall of 32 keys",
    "say which of 4 values was told with each of 32 keys; one head",
    task=data.recall,
    variants={
        "softmax": softmax_reader,
        "linformer k=16": partial(reader, attention="linformer", shape=SMALL | {"ffn_dim": 64}, **OPTIONS),
    },
    baseline="softmax",
    metric="accuracy",
    training=FAST,
    plans={"demo": Plan(3, 150, KEYS), "quick": Plan(8, 300, KEYS)},
)

neutral = Comparison(
    "digits, pixel by pixel",
    "handwritten digits as sequences of 64 grey levels",
    task=pixels,
    variants={
        "softmax": softmax_scanner,
        "linformer k=16": partial(scanner, attention="linformer", options=OPTIONS, ffn_dim=64),
    },
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 400, {"batch_size": 64}), "colab": Plan(8, 2000, {"batch_size": 64})},
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------


def digit_and_recall_spectra(seeds, digit_steps, recall_steps):
    return spectra(
        {"digits": pixels, "recall": keys},
        {"digits": softmax_scanner, "recall": softmax_reader},
        range(seeds),
        {"digits": digit_steps, "recall": recall_steps},
        {"digits": STEADY, "recall": FAST},
        kept=RANK,
    )


def digit_projections(seeds, steps, fitting):
    return projections_kept(pixels, softmax_scanner, range(seeds), steps, STEADY, RANK, fitting)


maps = Measurement(
    "maps",
    "share of the square sum of softmax maps in their first 16 of 64 directions, all layers and heads",
    digit_and_recall_spectra,
    plans={
        "quick": Plan(
            sizes={"seeds": 8, "digit_steps": 300, "recall_steps": 300},
            dry={"seeds": 3, "digit_steps": 1, "recall_steps": 2},
        )
    },
)

projections = Measurement(
    "projections",
    "1 − |ŷ − y|² / |y|² for the last layer of softmax models trained on digits, 32 test images",
    digit_projections,
    plans={
        "quick": Plan(sizes={"seeds": 8, "steps": 300, "fitting": 200}, dry={"seeds": 3, "steps": 1, "fitting": 1}),
    },
)


def count_costs(layers, ns, dim, heads):
    """Multiply-adds of one layer at each length, counted, beside the formula of the claim."""
    k = layers["linformer"][1]["projected_len"]
    variants = layer_counts(layers, ns, dim, heads)
    ones = 2 * k  # E and F are also multiplied with a column of ones, which the biases need
    work = [2 * n * dim**2 + 2 * k * dim**2 + 4 * n * k * dim + ones * n for n in ns]
    return {"ns": list(ns), "variants": variants | {"formula": {"multiply_adds": work}}}


LAYERS = {"softmax": ("softmax", {}), "linformer": ("linformer", {"projected_len": 64, "max_len": 4096})}
counted = Plan(sizes={"layers": LAYERS, "dim": 64, "heads": 4, "ns": (512, 1024, 2048, 4096)}, dry={"ns": (64, 128)})
counts = Measurement(
    "counts",
    "one layer of width 64 with 4 heads, k = 64",
    count_costs,
    plans={"demo": counted, "quick": counted, "colab": counted},
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

PREMISE = "attention maps are approximately of low rank (abstract)"
DRAWN = "theorem 2 draws E and F at random; its k, of the order of d log d / ε², is beyond N here"


claims = (
    better(
        "digit maps are of low rank",
        "A quarter of the directions holds more than nine tenths of trained digit maps",
        PREMISE,
        maps,
        "digits, trained",
        "nine tenths",
        metric="share",
    ),
    better(
        "recall maps are of low rank",
        "A quarter of the directions holds more than nine tenths of trained recall maps",
        PREMISE,
        maps,
        "recall, trained",
        "nine tenths",
        metric="share",
    ),
    better(
        "training lowers the rank",
        "A quarter of the directions holds more of trained digit maps than of untrained ones",
        "our control: maps that nobody has trained",
        maps,
        "digits, trained",
        "digits, untrained",
        metric="share",
    ),
    better(
        "random projections are enough",
        "Random E and F to k = N/4 keep more than nine tenths of the outputs",
        DRAWN,
        projections,
        "random E, F",
        "nine tenths",
        metric="kept",
    ),
    better(
        "fitted projections are enough",
        "E and F fitted on other images keep more than nine tenths of the outputs, k = N/4",
        "E and F are learned (section 4)",
        projections,
        "fitted E, F",
        "nine tenths",
        metric="kept",
    ),
    Claim(
        "no loss at looking up",
        "With k = N/4 Linformer recalls 32 keys no worse than softmax attention, by a margin of 2 points",
        "Linformer performs on par with standard transformers (abstract)",
        rule="non-inferiority",
        task=looking_up.name,
        metric="accuracy",
        method="linformer k=16",
        baseline="softmax",
        margin=0.02,
    ),
    Claim(
        "no loss on a neutral task",
        "With k = N/4 Linformer reads digits no worse than softmax attention, by a margin of 2 points",
        "Linformer performs on par with standard transformers (abstract)",
        rule="non-inferiority",
        task=neutral.name,
        metric="accuracy",
        method="linformer k=16",
        baseline="softmax",
        margin=0.02,
    ),
    Claim(
        "work is as computed",
        "A layer takes 2 N D² + 2 k D² + 4 N k D + 2 N k multiply-adds: linear in N",
        "O(N) time (abstract), with the count of the equations",
        rule="counted",
        task=counts.name,
        metric="multiply_adds",
        method="linformer",
        baseline="formula",
    ),
)

LRA = {"task": "LRA, Text and Image", "size": "as LRA sets it", "source": "README of the LRA repository"}
paper = (
    PaperNumber("accuracy, Linformer", "53.94 %, 38.56 %", **LRA),
    PaperNumber("accuracy, softmax", "64.27 %, 42.44 %", **LRA),
)

EXPERIMENT = Experiment(
    "linformer",
    "Linformer: Self-Attention with Linear Complexity",
    parts=(looking_up, neutral, maps, projections, counts),
    claims=claims,
    paper=paper,
    limits=(
        "Heads of width 16 and 32 and 64 tokens: maps of large language models are sharper, and longer.",
        "A square sum says little about single rows: a rank that holds nine tenths may miss what one query needs.",
        "On digits every place has its own meaning, which suits weights by place; 360 test images, and no other set.",
        "LRA's Linformer shares one matrix between keys, values and heads, and projects padding too.",
    ),
)
