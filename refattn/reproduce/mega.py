"""Mega's claims in miniature: what the moving average is for, what chunks lose, which attention function, the cost.

Paper: Ma et al., "Mega: Moving Average Equipped Gated Attention", ICLR 2023 (arXiv 2209.10655).

Rules, margins and seeds were fixed before the recorded runs. One setting of training serves all tasks and variants; its
rate and the depth of one layer were chosen by softmax attention's accuracy on digits, not by Mega's. Parameters are
made equal by the width of the feed-forward nets. Softmax attention is told positions; Mega knows the order by itself.
"""

from functools import partial

import torch

from refattn import data
from refattn.attention.mega import mega_weights
from refattn.layers.ema import CHUNK
from refattn.models import CausalLM, Classifier
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.costs import forward_times, kept_beyond_inputs, layer_counts
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

SMALL = {"embed_dim": 32, "num_layers": 1, "norm": "post"}
LARGE = {"embed_dim": 64, "num_layers": 4, "norm": "pre"}


def reader(task, seed, *, attention, positions="none", shape=SMALL, ffn_dim=64, **options):
    """Classifies whole sequences of ids or real numbers."""
    facts = {"vocab_size": task.vocab_size, "num_classes": task.num_classes, "max_len": task.max_len}
    facts |= {"input_dim": None if task.vocab_size else 1, "positions": positions, "ffn_dim": ffn_dim}
    options = options | ({"max_len": task.max_len} if attention == "mega" else {})
    return Classifier(**facts, **shape, num_heads=4, seed=seed, attention=attention, attention_options=options)


def watcher(task, seed, *, ffn_dim=64, **options):
    """Answers at every position from what came before; classes are ids."""
    sizes = SMALL | {"num_heads": 2, "ffn_dim": ffn_dim, "positions": "none", "seed": seed}
    options = options | {"max_len": task.max_len}
    return CausalLM(task.vocab_size, **sizes, attention="mega", attention_options=options)


def mega(model, ema_dim=8, ffn_dim=64, *, head_dim=16, value_dim=64, **options):
    sizes = {"ema_dim": ema_dim, "head_dim": head_dim, "value_dim": value_dim}
    options = options if model is watcher else options | {"attention": "mega"}
    return partial(model, ffn_dim=ffn_dim, **sizes, **options)


def softmax(ffn_dim, positions, **more):
    return partial(reader, attention="softmax", ffn_dim=ffn_dim, positions=positions, **more)


# ---- Comparisons -----------------------------------------------------------------------------------------------------

TRAINING = {"lr": 1e-2, "weight_decay": 0.01, "warmup": 50, "clip": 1.0}

border = Comparison(
    "latest marker beyond the border",
    "which of two markers came last, asked where it stands in an earlier chunk of 16 tokens: made for a moving average",
    task=data.markers,
    variants={
        "chunks h=0": mega(watcher, 0, 80, chunk=16),
        "chunks h=1": mega(watcher, 1, 78, chunk=16),
        "chunks h=8": mega(watcher, 8, chunk=16),
        "full h=0": mega(watcher, 0, 80),
        "full h=8": mega(watcher, 8),
    },
    baseline="chunks h=0",
    metric="accuracy",
    training=TRAINING,
    plans={
        "demo": Plan(3, 100, {"beyond": 16}, variants=("chunks h=0", "chunks h=8")),
        "quick": Plan(8, 200, {"beyond": 16}),
    },
)

lists = Comparison(
    "ListOps",
    "values of nested lists of up to 31 tokens: the task of the paper's first column, far shorter",
    task=data.listops,
    variants={"softmax": softmax(170, "sinusoidal"), "mega": mega(reader)},
    baseline="softmax",
    metric="accuracy",
    training=TRAINING,
    plans={"quick": Plan(8, 300)},
    neutral=True,
)

pixels = Comparison(
    "digits, pixel by pixel",
    "handwritten digits as sequences of 64 grey levels; chunks are two rows of eight pixels",
    task=partial(data.digits, as_sequence=True),
    variants={
        "softmax": softmax(140, "learned"),
        "mega": mega(reader),
        "mega laplace": mega(reader, function="laplace"),
        "mega chunks": mega(reader, chunk=16),
        "mega h=0": mega(reader, 0, 96),
    },
    baseline="softmax",
    metric="accuracy",
    training=TRAINING,
    plans={"quick": Plan(8, 400, {"batch_size": 32})},
    neutral=True,
)

WIDE = {"head_dim": 32, "value_dim": 128, "shape": LARGE}

clothes = Comparison(
    "FashionMNIST, pixel by pixel",
    "images of clothes, 14 × 14, as sequences of 196 grey levels; chunks are two rows; eight epochs of 20,000",
    task=partial(data.fashion_mnist, as_sequence=True),
    variants={
        "softmax": softmax(316, "learned", shape=LARGE),
        "mega": mega(reader, 16, 128, **WIDE),
        "mega laplace": mega(reader, 16, 128, function="laplace", **WIDE),
        "mega chunks": mega(reader, 16, 128, chunk=28, **WIDE),
        "mega h=0": mega(reader, 0, 193, **WIDE),
    },
    baseline="softmax",
    metric="accuracy",
    training={"lr": 3e-3, "weight_decay": 0.02, "warmup": 100, "clip": 1.0},
    plans={
        "colab": Plan(
            3,
            1250,
            {"size": 14, "batch_size": 128, "train_size": 20_000},
            dry={"size": 7, "train_size": 128, "test_size": 8},
        )
    },
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

C = 64
CHUNKS = ("mega", {"chunk": C})
LAYERS = {"softmax": ("softmax", {}), "mega": ("mega", {"max_len": 8192}), "mega chunks": CHUNKS}


def kept_weights(chunks, tokens, width, value_width):
    """Attention weights, a number each, that autograd keeps when every token reads its chunk of `tokens` tokens."""
    bias = torch.zeros(tokens, tokens)
    shapes = ((1, chunks, tokens, w) for w in (width, width, value_width))
    return kept_beyond_inputs(lambda q, k, v: mega_weights(q, k, bias) @ v, *shapes)


def count_costs(layers, ns, dim, heads):
    """What one layer needs at each length, counted, beside the formulas of the claims."""
    c, z, v, h = layers["mega chunks"][1]["chunk"], dim // heads, 2 * dim, 16
    variants = layer_counts(layers, ns, dim, heads)
    variants["mega"]["kept_weights"] = [kept_weights(1, n, z, v) for n in ns]
    variants["mega chunks"]["kept_weights"] = [kept_weights(n // c, c, z, v) for n in ns]
    projections = dim * (2 * v + 2 * dim + z + v)  # V and U_h; all that reads X'
    average = dim * CHUNK + 4 * dim * h  # inside a chunk; into its state and out of it, twice for both directions
    variants["formula"] = {
        "kept_weights": [n * c for n in ns],
        "multiply_adds": [n * (projections + c * (z + v) + average) + 2 * dim * h * CHUNK for n in ns],
    }
    return {"ns": list(ns), "variants": variants}


layer = {"layers": LAYERS, "dim": 64, "heads": 4}
counted = Plan(sizes=layer | {"ns": (256, 512, 1024, 2048)}, dry={"ns": (128, 256)})
instant = {"rounds": 1, "min_seconds": 0.0}
rounds = {"dim": 64, "heads": 4, "rounds": 9, "min_seconds": 0.1}

counts = Measurement(
    "counts",
    "one layer of width 64, z = 16, v = 128, h = 16, both directions; chunks of 64 tokens",
    count_costs,
    plans={"demo": counted, "quick": counted, "colab": counted},
)

times = Measurement(
    "times",
    "seconds of a layer's forward pass on one sequence; softmax attention with 4 heads by torch's fused kernel",
    forward_times,
    plans={
        "quick": Plan(
            sizes=rounds | {"layers": LAYERS, "ns": (512, 1024, 2048, 4096)}, dry=instant | {"ns": (16, 32, 64)}
        ),
    },
)

growth = Measurement(
    "growth",
    "seconds of the layer with chunks alone, at lengths where the full one no longer fits",
    forward_times,
    plans={
        "quick": Plan(
            sizes=rounds | {"layers": {"mega chunks": CHUNKS}, "ns": (4096, 6144, 8192, 12288, 16384)},
            dry=instant | {"ns": (64, 128, 256)},
        ),
        "colab": Plan(
            sizes=rounds | {"layers": {"mega chunks": CHUNKS}, "ns": (2**15, 2**16, 2**17, 2**18), "device": "auto"},
            dry=instant | {"ns": (64, 128, 256)},
        ),
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

DECISIVE = "C1: without the moving average accuracy collapses; one dimension has most of the gain (paper, Figure 4)"
CHEAP = "C2: chunks cost 2.6 points on the LRA average, since the average carries context over their borders (Table 2)"
LRA = "C6: ahead of all others on Long Range Arena (Table 2)"
FUNCTIONS = "C4: Laplace is best on images, 90.43 against 89.87 for softmax (Table 3)"


def of_images(part, what):
    """The paper's statements about images read pixel by pixel."""
    alone = f"Mega reads {what} better than the same layers without their moving averages"
    laplace = f"The Laplace function reads {what} better than softmax in the same layers"
    little = f"In chunks of two rows Mega loses at most 3 points on {what}"
    return (
        better(f"better on {what}", f"Mega reads {what} better than softmax attention", LRA, part, "mega", "softmax"),
        better(f"the average is decisive on {what}", alone, DECISIVE, part, "mega", "mega h=0"),
        not_worse(f"chunks lose little on {what}", little, CHEAP, part, "mega chunks", "mega", margin=0.03),
        better(f"Laplace is better on {what}", laplace, FUNCTIONS, part, "mega laplace", "mega"),
    )


claims = (
    Claim(
        "nothing else crosses a border",
        "Chunks without a moving average guess beyond their border: half of the answers are right, within 3 points",
        "the method: attention stays inside chunks; a leak would show here",
        rule="equivalence",
        bound=0.5,
        margin=0.03,
        **about(border, "accuracy", "chunks h=0"),
    ),
    better(
        "the average crosses the border",
        "With a moving average of 8 dimensions chunks know more than without one of what lies beyond their border",
        CHEAP,
        border,
        "chunks h=8",
        "chunks h=0",
    ),
    not_worse(
        "one dimension is most of it",
        "One dimension is no worse than eight at the same task, by a margin of 5 points",
        DECISIVE,
        border,
        "chunks h=1",
        "chunks h=8",
        margin=0.05,
    ),
    better(
        "it helps full attention too",
        "Where attention sees everything, the average still adds to it on that task",
        DECISIVE,
        border,
        "full h=8",
        "full h=0",
    ),
    not_worse(
        "chunks lose little at the border",
        "Chunks lose at most 3 points against full attention, asked only beyond their border",
        CHEAP,
        border,
        "chunks h=8",
        "full h=8",
        margin=0.03,
    ),
    better("better on ListOps", "Mega evaluates lists better than softmax attention", LRA, lists, "mega", "softmax"),
    *of_images(pixels, "digits"),
    *of_images(clothes, "clothes"),
    Claim(
        "a token keeps a chunk of weights",
        "In chunks, attention keeps N c weights for the backward pass, where full attention keeps N²",
        "C2: linear cost",
        rule="counted",
        **about(counts, "kept_weights", "mega chunks", "formula"),
    ),
    Claim(
        "work is as computed",
        "A layer in chunks takes N times a constant multiply-adds, and a kernel that does not depend on N",
        "C2: linear cost, with the count of the equations",
        rule="counted",
        **about(counts, "multiply_adds", "mega chunks", "formula"),
    ),
    Claim(
        "time is linear",
        "Seconds of a forward pass in chunks grow with N to a power below 1.15",
        "C2: linear cost",
        rule="scaling",
        bound=1.15,
        **about(growth, "by_length", "mega chunks"),
    ),
    Claim(
        "time is saved at 4,096 tokens",
        "A forward pass in chunks takes less than half the time of torch's fused softmax attention",
        "C3: 5.5 times the training speed at 4,000 bytes, against softmax of 2022",
        rule="superiority",
        margin=0.5,
        relative=True,
        **about(times, "seconds", "mega chunks", "softmax"),
    ),
)

ARENA = {"size": "as LRA sets it", "source": "paper, Table 2"}
paper = (
    PaperNumber("accuracy, Mega", "88.21 %", "LRA, average of six", **ARENA),
    PaperNumber("accuracy, Mega-chunk, c = 128", "85.66 %", "LRA, average of six", **ARENA),
    PaperNumber("accuracy, softmax, re-run by the authors", "59.24 %", "LRA, average of six", **ARENA),
    PaperNumber("accuracy, Mega; chunks; softmax", "63.14; 58.76; 37.11 %", "LRA ListOps", **ARENA),
    PaperNumber("accuracy, Mega; chunks; softmax", "90.44; 85.80; 42.94 %", "LRA Image", **ARENA),
    PaperNumber(
        "accuracy, Laplace; softmax; relu²", "90.43; 89.87; 90.22 %", "LRA Image", "1,024 pixels", "paper, Table 3"
    ),
    PaperNumber(
        "training speed, Mega; chunks : softmax", "2.9; 5.5", "LRA Text", "4,000 bytes, one GPU", "paper, Table 2"
    ),
    PaperNumber("memory, Mega; chunks : softmax", "0.31; 0.13", "LRA Text", "4,000 bytes, one GPU", "paper, Table 2"),
)

EXPERIMENT = Experiment(
    "mega",
    "Mega: Moving Average Equipped Gated Attention",
    parts=(border, lists, pixels, clothes, counts, times, growth),
    claims=claims,
    paper=paper,
    limits=(
        "The latest marker is made for a memory that overwrites: it shows the mechanism, not the size of the benefit.",
        "Path-X, language models, translation and ImageNet need models and data far beyond this size.",
        "Differences between attention functions are tenths of a point in the paper: eight seeds can miss them.",
        "Whether Laplace stays stable where relu² does not shows after hundreds of epochs, not here.",
        "Without the average Mega has a relative bias only; a Transformer is given positions, each as its authors do.",
        "Rounds of a timing are taken on one machine: their interval says nothing about other machines.",
    ),
)
