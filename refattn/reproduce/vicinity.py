"""Vicinity's claims in miniature: does nearness in two axes help, what do FRA and FPC cost or save, how work grows.

Paper: Sun et al., "Vicinity Vision Transformer", TPAMI 2023 (arXiv 2206.10552).

Rules, margins and seeds were fixed before the recorded runs. Training settings are one per task, the same for all
variants, and were set by a look at single runs. On the region map all have position embeddings, so that those without
re-weighting may learn who is near. FPC costs as many parameters as FRA saves; FRA alone has wider feed-forward nets.
"""

from functools import partial

from refattn import data
from refattn.models import Classifier
from refattn.models.vicinity import VVT
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.costs import forward_times
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.image_costs import count_pyramids, first_cheaper, forms_in_turn
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

ATTENTION_ALONE = {
    "feature_reduction": 1,
    "gate_reduction": None,
}  # neither FRA nor FPC: softmax attention's parameters
SMALL = {"widths": (16, 32), "heads": (1, 2), "depths": (1, 1), "strides": (1, 2)}
LARGE = {"widths": (48, 96, 192), "heads": (1, 2, 4), "depths": (2, 2, 2), "strides": (2, 2, 2)}


def painter(task, seed, *, attention="vicinity", **options):
    """Classifies every cell of a map. Without convolutions: attention alone looks at neighbours."""
    facts = {"num_classes": task.num_classes, "max_len": task.max_len, "input_dim": 1}
    sizes = {"embed_dim": 16, "num_heads": 1, "num_layers": 2, "ffn_dim": 32, "positions": "learned", "pool": "none"}
    return Classifier(None, **facts, **sizes, attention=attention, attention_options=options, seed=seed)


def painter_of_rows(task, seed):
    """cosFormer: nearness on the raster, one axis, whose longest distance is the whole map."""
    return painter(task, seed, attention="cosformer", max_len=task.max_len)


def pyramid(task, seed, *, attention="vicinity", shape=SMALL, mlp_ratio=2.0, depthwise=True, **options):
    """A small VVT for the images of a task."""
    channels, *image_size = task.test["inputs"].shape[1:]
    sizes = shape | {"mlp_ratios": (mlp_ratio,) * len(shape["widths"]), "channels": channels, "depthwise": depthwise}
    return VVT(tuple(image_size), task.num_classes, **sizes, attention=attention, attention_options=options, seed=seed)


MAPS = {
    "none": partial(painter, reweighting="none", **ATTENTION_ALONE),
    "1-D cosine": painter_of_rows,
    "sum": partial(painter, **ATTENTION_ALONE),
    "product": partial(painter, reweighting="product", **ATTENTION_ALONE),
    "softmax": partial(painter, attention="softmax"),
}
PYRAMIDS = {
    "VVT": pyramid,
    "R = 1": partial(pyramid, reweighting="none"),
    "no FRA, no FPC": partial(pyramid, **ATTENTION_ALONE),
    "FRA, no FPC": partial(pyramid, gate_reduction=None, mlp_ratio=2.8),
    "softmax": partial(pyramid, attention="softmax"),
    "VVT, no conv": partial(pyramid, depthwise=False),
    "R = 1, no conv": partial(pyramid, reweighting="none", depthwise=False),
}


def larger(name, **options):
    return partial(PYRAMIDS[name], shape=LARGE, **options)


# ---- Comparisons -----------------------------------------------------------------------------------------------------

STEADY = {"lr": 4e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}

near = Comparison(
    "region map",
    "say of each of 10 × 10 noisy cells which of two smooth regions it lies in; one head, two layers, no convolution",
    task=data.regions,
    variants=MAPS,
    baseline="none",
    metric="accuracy",
    training={"lr": 8e-3, "weight_decay": 0.01, "clip": 1.0},
    plans={
        "demo": Plan(3, 150, variants=("none", "sum")),
        "quick": Plan(8, 250),
        "colab": Plan(8, 1500, {"size": 24}, dry={"size": 4, "test_size": 8}),
    },
)

neutral = Comparison(
    "digits",
    "handwritten digits, 8 × 8: a pyramid of 8 × 8 and 4 × 4 tokens whose convolutions know neighbours already",
    task=data.digits,
    variants=PYRAMIDS,
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 250, {"batch_size": 64})},
    neutral=True,
)

natural = Comparison(
    "CIFAR-10",
    "colour photographs, 32 × 32, in a pyramid of 16², 8² and 4² tokens, ten epochs without augmentation",
    task=data.cifar10,
    variants={name: larger(name) for name in PYRAMIDS} | {"FRA, no FPC": larger("FRA, no FPC", mlp_ratio=2.9)},
    baseline="softmax",
    metric="accuracy",
    training=STEADY | {"lr": 1e-3, "weight_decay": 0.05},
    plans={"colab": Plan(3, 1950, {"batch_size": 256}, dry={"train_size": 256, "test_size": 8, "batch_size": 4})},
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

counted = Plan(sizes={"sides": (224, 384, 512, 768, 1024)}, dry={"sides": (32, 64)})
widths = Plan(sizes={"head_dims": (8, 16, 32)}, dry={"head_dims": (2, 4)})
both = Plan(
    sizes={"ns": (64, 144, 256, 400, 576, 784, 1024), "heads": 4, "dim": 16, "rounds": 9, "min_seconds": 0.05},
    dry={"ns": (9, 16, 25), "rounds": 1, "min_seconds": 0.0},
)
LAYERS = {"vicinity": ("vicinity", ATTENTION_ALONE), "linear": ("linear", {})}
timed = {"layers": LAYERS, "dim": 64, "heads": 4, "rounds": 7, "min_seconds": 0.05}
instant = {"ns": (16, 36, 64), "rounds": 1, "min_seconds": 0.0}

growth = Measurement(
    "growth",
    "multiply-adds of VVT-tiny for one image, by its pixels, and of the same pyramid with softmax attention",
    count_pyramids,
    plans={"quick": counted, "colab": counted},
)

crossing = Measurement(
    "crossing",
    "products counted as they run, one head of width d: from which N on the linear form takes fewer",
    first_cheaper,
    plans={"demo": widths, "quick": widths, "colab": widths},
)

forms = Measurement(
    "both forms", "seconds of eq. (3) in both forms, four heads of width 16", forms_in_turn, plans={"quick": both}
)

times = Measurement(
    "times",
    "seconds of one layer's forward pass on one image, width 64, four heads, beside linear attention without locality",
    forward_times,
    plans={
        "quick": Plan(sizes=timed | {"ns": (1024, 2304, 4096, 9216, 16384)}, dry=instant),
        "colab": Plan(sizes=timed | {"ns": (128**2, 192**2, 256**2, 384**2, 512**2), "device": "auto"}, dry=instant),
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

LOCAL = "C1: linear attention lacks 2-D locality; weights by 2-D distance improve it (abstract)"
CHEAP = "C3: attention in a compressed space with a feature-preserving connection costs no accuracy (abstract)"
GROWTH = "C4: compute grows more slowly with resolution than in earlier transformers (abstract)"
LINEAR = "C1: at a cost linear in the number of patches (abstract)"
OURS = "our question"


claims = (
    better(
        "nearness helps",
        "Weights by distance in both axes find regions better than linear attention without them",
        LOCAL,
        near,
        "sum",
        "none",
    ),
    better(
        "two axes beat one",
        "Distance in two axes finds regions better than distance on the raster, cosFormer's",
        LOCAL,
        near,
        "sum",
        "1-D cosine",
    ),
    Claim(
        "without nearness nothing is learned from neighbours",
        "Linear attention without re-weighting is within 1 point of what a cell alone tells, Φ(1/2) = 69.1 %",
        "the task: σ = 2",
        rule="equivalence",
        margin=0.01,
        bound=0.6915,
        **about(near, "accuracy", "none"),
    ),
    better(
        "the product is nearer still",
        "The product form, which no published model uses, finds regions better than the sum",
        OURS,
        near,
        "product",
        "sum",
    ),
    better(
        "nearness beats softmax here",
        "At the same steps, weights by distance find regions better than softmax attention with learned positions",
        OURS,
        near,
        "sum",
        "softmax",
    ),
    better(
        "nearness helps on digits",
        "In a pyramid with convolutions, weights by distance read digits better than R = 1",
        LOCAL,
        neutral,
        "VVT",
        "R = 1",
    ),
    better(
        "nearness helps on digits without convolutions",
        "Without depth-wise convolutions, weights by distance read digits better than R = 1",
        LOCAL,
        neutral,
        "VVT, no conv",
        "R = 1, no conv",
    ),
    not_worse(
        "no loss on a neutral task",
        "VVT reads digits no worse than the same pyramid with softmax attention, by a margin of 2 points",
        "C5: accuracy beyond earlier transformers (abstract)",
        neutral,
        "VVT",
        "softmax",
        margin=0.02,
    ),
    not_worse(
        "FRA with FPC loses nothing",
        "With FRA and FPC digits are read no worse than with neither, by a margin of 2 points, at equal parameters",
        CHEAP,
        neutral,
        "VVT",
        "no FRA, no FPC",
        margin=0.02,
    ),
    better(
        "FPC gives back what FRA takes",
        "With FPC digits are read better than with FRA alone, at equal parameters",
        CHEAP,
        neutral,
        "VVT",
        "FRA, no FPC",
    ),
    better(
        "nearness helps on photographs",
        "Weights by distance read CIFAR-10 better than R = 1",
        LOCAL,
        natural,
        "VVT",
        "R = 1",
    ),
    better(
        "nearness helps on photographs without convolutions",
        "Without depth-wise convolutions, weights by distance read CIFAR-10 better than R = 1",
        LOCAL,
        natural,
        "VVT, no conv",
        "R = 1, no conv",
    ),
    not_worse(
        "FRA with FPC loses nothing on photographs",
        "With FRA and FPC CIFAR-10 is read no worse than with neither, by a margin of 2 points",
        CHEAP,
        natural,
        "VVT",
        "no FRA, no FPC",
        margin=0.02,
    ),
    Claim(
        "work is as computed",
        "The attention of VVT-tiny takes 8 N D² / (H ρ²) multiply-adds a layer, at every resolution",
        "the paper's complexity, with the count of the equations",
        rule="counted",
        **about(growth, "attention", "VVT", "8 N D² / (H ρ²)"),
    ),
    Claim(
        "work grows with the pixels",
        "All multiply-adds of VVT-tiny grow with the number of pixels to a power below 1.05",
        GROWTH,
        rule="scaling",
        bound=1.05,
        **about(growth, "all", "VVT"),
    ),
    Claim(
        "the linear form wins from 4 d on",
        "The linear form multiplies less than the explicit one from N = 4 d + 1 on",
        "the method: features four times as wide as a head",
        rule="counted",
        **about(crossing, "first_n", "linear form", "4 d + 1"),
    ),
    Claim(
        "time is linear",
        "Seconds of a layer's forward pass grow with N to a power below 1.15",
        LINEAR,
        rule="scaling",
        bound=1.15,
        **about(times, "by_length", "vicinity"),
    ),
    Claim(
        "time is saved at 1,024 tokens",
        "At N = 1,024 the linear form takes less time than the explicit form of the same equation",
        LINEAR,
        rule="superiority",
        relative=True,
        **about(forms, "seconds", "linear form", "quadratic form"),
    ),
)

README, RECALLED = "README of the authors' repository", "recalled, unverified"
IMAGENET = {"task": "ImageNet-1K, top-1", "size": "224 px, 300 epochs"}
paper = (
    PaperNumber("VVT-tiny, 12.9 M", "79.2 %", **IMAGENET, source=README),
    PaperNumber("VVT-small, 25.5 M", "82.6 %", **IMAGENET, source=README),
    PaperNumber("VVT-medium, 47.9 M", "83.8 %", **IMAGENET, source=README),
    PaperNumber("VVT-large, 61.8 M", "84.1 %", **IMAGENET, source=README),
    PaperNumber("VVT-tiny at 384 px", "80.3 %", "ImageNet-1K, top-1", "384 px", source=README),
    PaperNumber("PVTv2-B1, 13.1 M", "78.7 %", **IMAGENET, source=RECALLED),
    PaperNumber("PVTv2-B2, 25.4 M", "82.0 %", **IMAGENET, source=RECALLED),
    PaperNumber("Swin-T, 28 M", "81.3 %", **IMAGENET, source=RECALLED),
    PaperNumber("multiply-adds, VVT-tiny", "3.0 G", "one image", "224 px", source=RECALLED),
)

EXPERIMENT = Experiment(
    "vicinity",
    "Vicinity Vision Transformer",
    parts=(near, neutral, natural, growth, crossing, forms, times),
    claims=claims,
    paper=paper,
    limits=(
        "Accuracy on ImageNet, and as many points from half of the parameters, need 300 epochs of a million images.",
        "Region maps are smooth as the kernel is broad: a rougher field shrinks every gap.",
        "Softmax attention with learned positions can learn who is near; here it had 250 steps for it.",
        "The pyramids' overlapping convolutions and those of the feed-forward nets know neighbours without any R.",
        "Segmentation (ADE20K) has no public code, and CIFAR-100 no table that we found.",
        "Timings are taken on one machine: their interval says nothing about other machines.",
    ),
)
