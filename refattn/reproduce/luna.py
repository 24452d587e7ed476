"""Luna's claims in miniature: how many slots a memory needs, whether the packed sequence should be handed on, the cost.

Paper: Ma et al., "Luna: Linear Unified Nested Attention", NeurIPS 2021 (arXiv 2106.01540).

Rules, margins and seeds were fixed before the recorded runs. Training settings are one per task, the same for all
variants, and not searched. Luna has more projections than softmax attention; softmax gets as many parameters by a wider
feed-forward net.
"""

from functools import partial

from refattn import data
from refattn.models import CausalLM, Classifier
from refattn.reproduce.claims import about, not_worse
from refattn.reproduce.costs import forward_times, kept_weights, layer_counts
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

SMALL = {"embed_dim": 32, "ffn_dim": 64, "num_layers": 2, "norm": "post"}
LARGE = SMALL | {"embed_dim": 64, "ffn_dim": 128}


def reader(task, seed, *, attention, heads=1, shape=SMALL, **options):
    """Classifies every token, without positions: a key and its value say all."""
    facts = {"vocab_size": task.vocab_size, "num_classes": task.num_classes, "max_len": task.max_len}
    sizes = shape | {"num_heads": heads, "positions": "none", "pool": "none", "seed": seed}
    return Classifier(**facts, **sizes, attention=attention, attention_options=options)


def scanner(task, seed, *, attention, shape=SMALL, **options):
    """Classifies images read pixel by pixel: grey levels as ids, or as real numbers."""
    facts = {"vocab_size": task.vocab_size, "num_classes": task.num_classes, "max_len": task.max_len}
    facts |= {"input_dim": None if task.vocab_size else 1, "positions": "learned"}
    sizes = shape | {"num_heads": 4, "seed": seed}
    return Classifier(**facts, **sizes, attention=attention, attention_options=options)


def writer(task, seed, *, attention, shape=SMALL, **options):
    """A causal language model."""
    sizes = shape | {"num_heads": 4, "max_len": task.max_len, "seed": seed}
    return CausalLM(task.vocab_size, **sizes, attention=attention, attention_options=options)


def luna(model, slots, **more):
    return partial(model, attention="luna", num_slots=slots, tied=False, **more)


def softmax(model, ffn_dim, shape=SMALL, **more):
    return partial(model, attention="softmax", shape=shape | {"ffn_dim": ffn_dim}, **more)


# ---- Comparisons -----------------------------------------------------------------------------------------------------

FAST = {"lr": 5e-3, "weight_decay": 0.01, "warmup": 50, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}

slots_needed = Comparison(
    "recall of 8 keys",
    "say which of 4 values was told with each of 8 keys; one head, so l slots are l vectors",
    task=data.recall,
    variants={"softmax": softmax(reader, 114)} | {f"luna l={slots}": luna(reader, slots) for slots in (1, 2, 4, 8)},
    baseline="softmax",
    metric="accuracy",
    training=FAST,
    plans={
        "demo": Plan(3, 250, {"num_keys": 8}, variants=("softmax", "luna l=1", "luna l=4")),
        "quick": Plan(8, 250, {"num_keys": 8}),
    },
)

handed_on = Comparison(
    "recall of 32 keys",
    "the same with 32 keys (16 turned out too easy to decide anything), four heads, 8 slots; reset packs with P0 in "
    "both layers, so it lacks one norm (64 numbers)",
    task=data.recall,
    variants={
        "luna reset": luna(reader, 8, heads=4, update_slots=False),
        "luna handed on": luna(reader, 8, heads=4),
        "softmax": softmax(reader, 116, heads=4),
    },
    baseline="luna reset",
    metric="accuracy",
    training=FAST,
    plans={"quick": Plan(8, 300, {"num_keys": 32})},
)

neutral = Comparison(
    "digits, pixel by pixel",
    "handwritten digits as sequences of 64 grey levels: no keys, nothing made for slots",
    task=partial(data.digits, as_sequence=True),
    variants={"softmax": softmax(scanner, 117), "luna l=16": luna(scanner, 16)},
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 400, {"batch_size": 64})},
    neutral=True,
)

language = Comparison(
    "text, causal",
    "next character of Python's own help pages: Luna as a decoder-only model, which the paper leaves out",
    task=data.text,
    variants={"softmax": softmax(writer, 100), "luna l=16": luna(writer, 16)},
    baseline="softmax",
    metric="loss",
    training=STEADY,
    plans={"quick": Plan(8, 300, {"length": 64}), "colab": Plan(3, 1500, {"length": 256}, dry={"length": 16})},
    neutral=True,
)

long_pixels = Comparison(
    "FashionMNIST, pixel by pixel",
    "images of clothes as sequences of 784 grey levels, two epochs",
    task=partial(data.fashion_mnist, as_sequence=True),
    variants={
        "softmax": softmax(scanner, 241, shape=LARGE),
        "luna l=16": luna(scanner, 16, shape=LARGE),
        "luna l=64": luna(scanner, 64, shape=LARGE),
    },
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"colab": Plan(3, 940, {"batch_size": 128}, dry={"size": 7, "train_size": 128, "test_size": 8})},
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

LAYERS = {"softmax": ("softmax", {}), "luna": ("luna", {"num_slots": 16, "last_in_chain": True})}  # tied


def count_costs(layers, ns, dim, heads):
    """What one layer needs at each length, counted, beside the formulas of the claims."""
    slots, width = layers["luna"][1]["num_slots"], dim // heads
    variants = layer_counts(layers, ns, dim, heads)
    nested = [kept_weights(slots, n, heads, width) + kept_weights(n, slots, heads, width) for n in ns]  # pack + unpack
    variants["luna"]["kept_weights"] = nested
    variants["softmax"]["kept_weights"] = [kept_weights(n, n, heads, width) for n in ns]
    variants["formula"] = {
        "kept_weights": [2 * n * slots * heads for n in ns],
        "multiply_adds": [3 * n * dim**2 + 2 * slots * dim**2 + 4 * n * slots * dim for n in ns],
    }
    return {"ns": list(ns), "variants": variants}


layer = {"layers": LAYERS, "dim": 64, "heads": 4}
counted = Plan(sizes=layer | {"ns": (256, 512, 1024, 2048, 4096)}, dry={"ns": (16, 32, 64)})
timed = layer | {"rounds": 9, "min_seconds": 0.1}
instant = {"ns": (16, 32, 64), "rounds": 1, "min_seconds": 0.0}

counts = Measurement(
    "counts",
    "one layer of width 64 with 4 heads, tied Luna with 16 slots",
    count_costs,
    plans={"demo": counted, "quick": counted, "colab": counted},
)

times = Measurement(
    "times",
    "seconds of the same layers' forward pass on one sequence; softmax by torch's fused kernel",
    forward_times,
    plans={
        "quick": Plan(sizes=timed | {"ns": (1024, 1536, 2048, 3072, 4096, 6144, 8192)}, dry=instant),
        "colab": Plan(sizes=timed | {"ns": (2**15, 2**16, 2**17, 2**18), "device": "auto"}, dry=instant),
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

ENOUGH = "C2: a short extra sequence is enough, Luna is competitive with softmax attention (LRA)"


claims = (
    not_worse(
        "four slots are enough",
        "With 4 slots Luna recalls 8 keys no worse than softmax attention, by a margin of 2 points",
        ENOUGH,
        slots_needed,
        "luna l=4",
        "softmax",
        control="luna l=1",
        margin=0.02,
    ),
    not_worse(
        "eight slots are enough",
        "With 8 slots Luna recalls 8 keys no worse than softmax attention, by a margin of 2 points",
        ENOUGH,
        slots_needed,
        "luna l=8",
        "softmax",
        control="luna l=1",
        margin=0.02,
    ),
    Claim(
        "slots are the dial",
        "Four slots recall more than one",
        "the method: all that a token learns from others passes through l slots",
        rule="superiority",
        **about(slots_needed, "accuracy", "luna l=4", "luna l=1"),
    ),
    Claim(
        "P should be handed on",
        "Handing the updated P to the next layer beats packing with the first P in every layer",
        "C3: the extra output sequence stores useful context (abstract; the paper's ablation)",
        rule="superiority",
        **about(handed_on, "accuracy", "luna handed on", "luna reset"),
    ),
    not_worse(
        "no loss on a neutral task",
        "Sixteen slots read digits pixel by pixel no worse than softmax attention, by a margin of 2 points",
        ENOUGH,
        neutral,
        "luna l=16",
        "softmax",
        margin=0.02,
    ),
    not_worse(
        "the causal form models text",
        "Causal Luna's loss is at most 5 % above softmax attention's",
        "C4: a causal form exists; a decoder-only model is our extension",
        language,
        "luna l=16",
        "softmax",
        margin=0.05,
        relative=True,
    ),
    not_worse(
        "no loss at 784 tokens",
        "Sixty-four slots read FashionMNIST pixel by pixel no worse than softmax attention, by a margin of 2 points",
        ENOUGH,
        long_pixels,
        "luna l=64",
        "softmax",
        margin=0.02,
    ),
    Claim(
        "the maps are thin",
        "Pack and unpack keep 2 N l H attention weights for the backward pass, where softmax's stored map keeps N² H",
        "C1: linear memory (abstract)",
        rule="counted",
        **about(counts, "kept_weights", "luna", "formula"),
    ),
    Claim(
        "work is as computed",
        "A tied layer takes 3 N D² + 2 l D² + 4 N l D multiply-adds",
        "C1: linear time (abstract), with the count of the equations",
        rule="counted",
        **about(counts, "multiply_adds", "luna", "formula"),
    ),
    Claim(
        "time is linear",
        "Seconds of a forward pass grow with N to a power below 1.25",
        "C1: linear time (abstract)",
        rule="scaling",
        bound=1.25,
        **about(times, "by_length", "luna"),
    ),
    Claim(
        "time is saved at the longest N",
        "A forward pass takes less than half the time of torch's fused softmax attention",
        "C1: 4.9 times the training speed on LRA Text at length 4,000, against softmax of 2021",
        rule="superiority",
        margin=0.5,
        relative=True,
        **about(times, "seconds", "luna", "softmax"),
    ),
)

LRA = {"task": "LRA, average of five", "size": "as LRA sets it"}
MEGA = "Mega paper, arXiv 2209.10655, Table 2"
paper = (
    PaperNumber("accuracy, Luna-256", "61.95 %", **LRA, source=MEGA),
    PaperNumber("accuracy, Luna-128", "61.93 %", **LRA, source="recalled, unverified"),
    PaperNumber("accuracy, Luna-16", "61.46 %", **LRA, source="recalled, unverified"),
    PaperNumber("accuracy, softmax, re-run by the same authors", "59.24 %", **LRA, source=MEGA),
    PaperNumber("accuracy, softmax, of the LRA paper", "54.39 %", **LRA, source=MEGA),
    PaperNumber("training speed, Luna-256 : softmax", "4.9", "LRA Text", "4,000 bytes, one GPU", source=MEGA),
    PaperNumber("memory, Luna-256 : softmax", "0.16", "LRA Text", "4,000 bytes, one GPU", source=MEGA),
)

EXPERIMENT = Experiment(
    "luna",
    "Luna: Linear Unified Nested Attention",
    parts=(slots_needed, handed_on, neutral, language, long_pixels, counts, times),
    claims=claims,
    paper=paper,
    limits=(
        "Translation quality, GLUE after pre-training and the LRA averages need models and data far beyond this size.",
        "Recall of a dozen keys says how many slots such a memory needs, not how many language needs.",
        "Softplus against ELU + 1 in the causal form differs by tenths of a BLEU point: not testable here.",
        "Weights are counted where maps are stored; a fused kernel stores none, in softmax attention as in Luna.",
        "Rounds of a timing are taken on one machine: their interval says nothing about other machines.",
    ),
)
