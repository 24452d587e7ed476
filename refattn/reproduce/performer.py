"""Kernel attention in miniature: what random features estimate, and how three feature maps learn beside softmax.

Papers: Choromanski et al., "Rethinking Attention with Performers", ICLR 2021 (arXiv 2009.14794); and of the two maps
beside it, linear attention (arXiv 2006.16236) and cosFormer (arXiv 2202.08791).

Rules, margins and seeds were fixed before the recorded runs. All models have the same parameters and, layer by layer,
the same initial weights: only the feature map differs. Training settings are one per task, and not searched.
"""

from functools import partial

from torch.nn import functional as F

from refattn import data
from refattn.models import CausalLM
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.costs import build_layers, forward_times, layer_counts, state_numbers
from refattn.reproduce.estimates import SHARED, estimated_weights, overlaps
from refattn.reproduce.frame import BUDGETS, Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

SMALL = {"embed_dim": 32, "ffn_dim": 64, "num_layers": 2, "num_heads": 2, "norm": "post"}
LARGE = {"embed_dim": 256, "ffn_dim": 1024, "num_layers": 4, "num_heads": 8, "norm": "post"}


def writer(task, seed, *, attention, shape=SMALL, **options):
    """A causal language model; cosFormer's cosine spans the task's sequences."""
    options |= {"max_len": task.max_len} if attention == "cosformer" else {}
    sizes = shape | {"max_len": task.max_len, "seed": seed}
    return CausalLM(task.vocab_size, **sizes, attention=attention, attention_options=options)


def maps(shape=SMALL):
    """Softmax attention and the feature maps; "linear relu" is cosFormer without its cosine."""
    made = partial(writer, shape=shape)
    named = {name: partial(made, attention=name) for name in ("softmax", "linear", "performer", "cosformer")}
    return named | {"linear relu": partial(made, attention="linear", feature_map=F.relu)}


def some(*names):
    """Only these of the maps."""
    return {name: maps()[name] for name in names}


# ---- Comparisons -----------------------------------------------------------------------------------------------------

FAST = {"lr": 5e-3, "weight_decay": 0.01, "warmup": 50, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}
copied = {"task": data.copying, "baseline": "softmax", "metric": "accuracy", "training": FAST}
FOUR = ("softmax", "linear", "performer", "cosformer")

short = Comparison(
    "copying, 16 tokens",
    "write again the 4 to 6 symbols just read, 300 steps",
    variants=maps(),
    plans={
        "demo": Plan(3, 150, {"max_len": 16}, variants=FOUR),
        "quick": Plan(8, 300, {"max_len": 16}),
    },
    **copied,
)

longer = Comparison(
    "copying, 32 tokens",
    "write again the 8 to 14 symbols just read, 300 steps",
    variants=maps(),
    plans={"quick": Plan(8, 300, {"max_len": 32})},
    **copied,
)

patient = Comparison(
    "copying, 32 tokens, 1,000 steps",
    "the same with more training",
    variants=some("softmax", "linear"),
    plans={"quick": Plan(8, 1000, {"max_len": 32})},
    **copied,
)

long = Comparison(
    "copying, 128 tokens",
    "write again the 32 to 62 symbols just read, as the authors of linear attention do: 4 layers of width 256",
    variants=maps(LARGE),
    plans={"colab": Plan(3, 1500, {"max_len": 128}, dry={"max_len": 16, "test_size": 16})},
    **copied | {"training": STEADY | {"lr": 5e-4}},
)

neutral = Comparison(
    "text, causal",
    "next character of Python's own help pages: nothing made for, or against, a state of fixed size",
    task=data.text,
    variants=some(*FOUR),
    baseline="softmax",
    metric="loss",
    training=STEADY,
    plans={"quick": Plan(8, 300, {"length": 64}), "colab": Plan(3, 1500, {"length": 256}, dry={"length": 16})},
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------


def overlap_of(size):
    about = f"the map of 64 Gaussian queries and keys with entries of size {size:g} (d = 16), and its estimates"
    plan = Plan(sizes={"size": size, "draws": 40}, dry={"draws": 3, "tokens": 8})
    return Measurement(f"estimated maps, size {size:g}", about, overlaps, dict.fromkeys(BUDGETS, plan))


small, middle, large = (overlap_of(size) for size in (0.5, 1.0, 1.5))

pairs = Plan(sizes={"size": 0.5, "draws": 40, "rows": 16_000}, dry={"draws": 3})
weights = Measurement(
    "estimated weights",
    "single weights from 16,000 rows, for 40 pairs of Gaussian q and k with entries of size 0.5 (d = 16)",
    estimated_weights,
    plans={"quick": pairs, "colab": pairs},
)

LAYERS = {
    "softmax": ("softmax", {}),
    "linear": ("linear", {}),
    "performer": ("performer", {"num_features": 64}),
    "cosformer": ("cosformer", {"max_len": 2**18}),
}


def count_costs(layers, ns, dim, heads):
    """What one layer needs at each length, counted, beside the formulas of the claims."""
    width = dim // heads
    variants = layer_counts(layers, ns, dim, heads)
    for name, made in build_layers(layers, dim, heads).items():
        variants[name]["state"] = [state_numbers(made, n) for n in ns]
    for name, m, drawn in (("linear", width, 0), ("performer", layers["performer"][1]["num_features"], 1)):
        sums = heads * m * (width + 1)
        work = 4 * dim**2 + 2 * sums + drawn * 2 * m * dim  # projections, both sums, Ωq and Ωk
        variants[f"{name} formula"] = {"multiply_adds": [n * work for n in ns], "state": [sums for _ in ns]}
    return {"ns": list(ns), "variants": variants}


layer = {"layers": LAYERS, "dim": 64, "heads": 4}
counted = Plan(sizes=layer | {"ns": (32, 64, 128, 256)}, dry={"ns": (8, 16)})
timed = layer | {"rounds": 9, "min_seconds": 0.1}
instant = {"ns": (16, 32, 64), "rounds": 1, "min_seconds": 0.0}

counts = Measurement(
    "counts",
    "one layer of width 64 with 4 heads; Performer with 64 features",
    count_costs,
    dict.fromkeys(BUDGETS, counted),
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

FAVOR = "Performer, abstract: positive orthogonal random features estimate softmax attention"
FAMILY = "linear attention, abstract: the same quality at linear cost"
COSINE = "cosFormer, abstract: non-negative weights and a re-weighting that concentrates them explain softmax"


def copies(part, method, source, where):
    text = f"The map of {method} copies {where} no worse than softmax attention, by a margin of 2 points"
    return not_worse(f"{method} copies {where}", text, source, part, method, "softmax", margin=0.02)


def models_text(method, source):
    text = f"Causal {method}'s loss is at most 5 % above softmax attention's"
    return not_worse(f"{method} models text", text, source, neutral, method, "softmax", margin=0.05, relative=True)


def orthogonal(part, size):
    text = f"At entries of size {size}, 64 orthogonal rows find more of softmax's map than 64 independent ones"
    return better(
        f"orthogonal rows, size {size}", text, FAVOR, part, "orthogonal m=64", "independent m=64", metric=SHARED
    )


def positive(part, size):
    text = f"At entries of size {size}, 64 positive features find more of softmax's map than 64 sines and cosines"
    return better(
        f"positive features, size {size}", text, FAVOR, part, "orthogonal m=64", "trigonometric m=64", metric=SHARED
    )


def as_computed(name, metric, method, statement):
    return Claim(name, statement, FAMILY, rule="counted", **about(counts, metric, method, f"{method} formula"))


def linear_time(method, source):
    text = f"Seconds of a forward pass of {method} grow with N to a power below 1.25"
    return Claim(
        f"{method}: time is linear", text, source, rule="scaling", bound=1.25, **about(times, "by_length", method)
    )


def saves_time(method, source):
    text = f"{method} takes less than half the time of torch's fused softmax attention at the longest N"
    compared = about(times, "seconds", method, "softmax")
    return Claim(f"{method}: time is saved", text, source, rule="superiority", margin=0.5, relative=True, **compared)


claims = (
    Claim(
        "weights are right on average",
        "Estimates of single weights are those of softmax attention within 2 %, on average over pairs",
        FAVOR + " without bias",
        rule="equivalence",
        bound=1.0,
        margin=0.02,
        **about(weights, "ratio", "orthogonal"),
    ),
    better(
        "features are the dial",
        "At entries of size 1, 256 features find more of softmax's map than 64",
        FAVOR + " to any accuracy, given enough features",
        middle,
        "orthogonal m=256",
        "orthogonal m=64",
        metric=SHARED,
    ),
    orthogonal(small, 0.5),
    orthogonal(middle, 1),
    orthogonal(large, 1.5),
    positive(small, 0.5),
    positive(middle, 1),
    copies(short, "linear", FAMILY, "16 tokens"),
    copies(short, "performer", FAVOR, "16 tokens"),
    copies(short, "cosformer", COSINE, "16 tokens"),
    copies(longer, "linear", FAMILY, "32 tokens"),
    copies(longer, "performer", FAVOR, "32 tokens"),
    copies(longer, "cosformer", COSINE, "32 tokens"),
    copies(patient, "linear", FAMILY + " (its copy task, after 100 epochs)", "32 tokens in 1,000 steps"),
    better(
        "the cosine helps",
        "On 32 tokens cosFormer copies better than the same map without its cosine",
        COSINE,
        longer,
        "cosformer",
        "linear relu",
    ),
    better(
        "cosFormer is ahead of linear attention",
        "On 32 tokens cosFormer copies better than linear attention",
        COSINE,
        longer,
        "cosformer",
        "linear",
    ),
    copies(long, "linear", FAMILY, "128 tokens"),
    copies(long, "performer", FAVOR, "128 tokens"),
    copies(long, "cosformer", COSINE, "128 tokens"),
    models_text("linear", FAMILY),
    models_text("performer", FAVOR),
    models_text("cosformer", COSINE),
    as_computed("linear: the state", "state", "linear", "The step form keeps H (d² + d) numbers, however many tokens"),
    as_computed("performer: the state", "state", "performer", "The step form keeps H m (d + 1) numbers"),
    as_computed("linear: the work", "multiply_adds", "linear", "A layer takes N (4 D² + 2 D (d + 1)) multiply-adds"),
    as_computed(
        "performer: the work",
        "multiply_adds",
        "performer",
        "A layer takes N (4 D² + 2 m D + 2 H m (d + 1)) multiply-adds",
    ),
    linear_time("linear", FAMILY),
    linear_time("performer", FAVOR),
    saves_time("linear", FAMILY),
    saves_time("performer", FAVOR),
)

RECALLED = "recalled, unverified"
MNIST = {"task": "MNIST, generation pixel by pixel", "size": "as the paper sets it"}
paper = (
    PaperNumber("bits a pixel, linear : softmax", "0.644 : 0.621", **MNIST, source=RECALLED),
    PaperNumber("images a second, linear : softmax", "142.8 : 0.45", **MNIST, source=RECALLED),
    PaperNumber(
        "accuracy, linear : softmax",
        "0.9999 : 1.000",
        "copy task",
        "128 tokens, 100 epochs",
        source="results file beside the code of arXiv 2208.00579",
    ),
    PaperNumber(
        "perplexity, cosFormer",
        "23.1",
        "WikiText-103, test",
        "as the paper sets it",
        source="benchmark index page of the paper",
    ),
    PaperNumber(
        "accuracy, cosFormer",
        "91.05 %",
        "GLUE, SST-2",
        "as the paper sets it",
        source="benchmark index page of the paper",
    ),
    PaperNumber(
        "accuracy, cosFormer : softmax", "about 55 : 54 %", "LRA, average of five", "as LRA sets it", source=RECALLED
    ),
)

EXPERIMENT = Experiment(
    "performer",
    "Rethinking Attention with Performers",
    parts=(small, middle, large, weights, short, longer, patient, long, neutral, counts, times),
    claims=claims,
    paper=paper,
    limits=(
        "Images, proteins, WikiText-103 and the LRA averages need models and data far beyond this size.",
        "A thousand steps of training say how fast a map learns to copy; the authors train for many more.",
        "Gaussian queries and keys are no trained ones; estimates depend on their norms, which grow in training.",
        "Ω is drawn once a model here and not drawn again during training, as the authors do every thousand steps.",
        "Rounds of a timing are taken on one machine: their interval says nothing about other machines.",
    ),
)
