"""Couplformer's claims in miniature: what coupled maps save, what they cost in accuracy, and what one head cannot see.

Paper: Lan, Wang, Wei, "Couplformer: Rethinking Vision Transformer with Coupling Attention Map", WACV 2023 (arXiv
2112.05425).

Rules, margins and seeds were fixed before the recorded runs. Coupling adds no parameters, so all models of a comparison
have equally many; training settings are one per task, the same for all variants, and not searched. Bytes are those that
autograd keeps for the backward pass, counted exactly, per image and without parameters.
"""

from dataclasses import replace
from functools import partial

import torch

from refattn import data
from refattn.data.task import generator
from refattn.models.couplformer import KCT
from refattn.reproduce.claims import about, not_worse
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.ghosts import BASELINE, EXPLAINED, readings
from refattn.reproduce.kept_maps import HEADS, count_maps, count_networks
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

SMALL = {"embed_dim": 32, "ffn_dim": 64, "num_layers": 2, "positions": "learned"}
LARGE = {"embed_dim": 128, "ffn_dim": 384, "num_layers": 6, "positions": "learned"}


def classifier(task, seed, *, attention, heads, patch=1, shape=SMALL, **options):
    """The paper's flat classifier, for images of any size."""
    channels, *size = task.test["inputs"].shape[1:]
    sizes = shape | {"patch_size": patch, "channels": channels, "num_heads": heads, "seed": seed}
    return KCT(tuple(size), task.num_classes, **sizes, attention=attention, attention_options=options)


def softmax(heads, **more):
    return partial(classifier, attention="softmax", heads=heads, **more)


def coupled(heads, **more):
    return partial(classifier, attention="couplformer", heads=heads, **more)


def shuffled_digits(*, seed, **sizes):
    """Digits whose pixels stand in a random order, the same for all images: rows and columns mean nothing."""
    task = data.digits(seed=seed, **sizes)
    order = torch.randperm(64, generator=generator(0, "order of pixels"))

    def shuffle(batch):
        return batch | {"inputs": batch["inputs"].flatten(2)[..., order].unflatten(2, (8, 8))}

    about = f"{task.description}, pixels shuffled"
    return replace(task, batch=lambda step: shuffle(task.batch(step)), test=shuffle(task.test), description=about)


# ---- Comparisons -----------------------------------------------------------------------------------------------------

STEADY = {"lr": 3e-3, "weight_decay": 0.05, "schedule": "cosine", "clip": 1.0}

pixels = Comparison(
    "digits",
    "handwritten digits, a token a pixel (8 × 8): a grid, and nothing made for rows and columns",
    task=data.digits,
    variants={"softmax H=4": softmax(4), "coupled H=4": coupled(4), "coupled H=16": coupled(16)},
    baseline="softmax H=4",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 400, {"batch_size": 32}), "colab": Plan(3, 3000, {"batch_size": 64})},
    neutral=True,
)

shuffled = Comparison(
    "digits, shuffled",
    "the same with all pixels in one random order: softmax with learned positions cannot tell, coupled attention can",
    task=shuffled_digits,
    variants={"softmax H=4": softmax(4), "coupled H=16": coupled(16)},
    baseline="softmax H=4",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 400, {"batch_size": 32})},
)

clothes = Comparison(
    "FashionMNIST",
    "images of clothes in patches of 4 × 4 pixels (7 × 7 tokens)",
    task=data.fashion_mnist,
    variants={
        "softmax H=4": softmax(4, patch=4),
        "coupled H=4": coupled(4, patch=4),
        "coupled H=32": coupled(32, patch=4),
    },
    baseline="softmax H=4",
    metric="accuracy",
    training=STEADY,
    plans={
        "quick": Plan(
            8, 400, {"batch_size": 32, "test_size": 2000, "train_size": 60000}, dry={"train_size": 128, "test_size": 8}
        ),
    },
    neutral=True,
)

clothes_large = Comparison(
    "FashionMNIST, 14 × 14 tokens",
    "images of clothes in patches of 2 × 2 pixels, six layers of width 128, six epochs: the grid of the paper",
    task=data.fashion_mnist,
    variants={
        "softmax H=4": softmax(4, patch=2, shape=LARGE),
        "coupled H=4": coupled(4, patch=2, shape=LARGE),
        "coupled H=64": coupled(64, patch=2, shape=LARGE),
    },
    baseline="softmax H=4",
    metric="accuracy",
    training={"lr": 5e-4, "weight_decay": 0.06, "schedule": "cosine", "clip": 1.0},
    plans={"colab": Plan(3, 2800, {"batch_size": 128}, dry={"size": 14, "train_size": 128, "test_size": 8})},
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

maps = Measurement(
    "maps",
    "numbers in the maps that one attention of width 64 keeps for the backward pass, on square and other grids",
    count_maps,
    plans=dict.fromkeys(
        ("demo", "quick", "colab"),
        Plan(sizes={"grids": ((8, 8), (7, 9), (14, 14), (16, 16), (12, 24), (28, 28)), "heads": 4, "dim": 64}),
    ),
)

ImageNet, finer = ((256, 4, 14, 14), (256, 8, 14, 14), (384, 6, 14, 14)), ((256, 4, 28, 14), (128, 4, 56, 2))
small = {"dry": {"networks": ((16, 4, 4, 1),)}}


def network(name, about, networks, budgets):
    about = f"bytes kept for one image by networks of (width, heads of softmax, rows = columns, layers); {about}"
    return Measurement(
        name, about, count_networks, plans=dict.fromkeys(budgets, Plan(sizes={"networks": networks}, **small))
    )


networks = network("networks", "14 × 14 tokens, as on ImageNet", ImageNet, ("demo", "quick", "colab"))
larger = network("larger grids", "28 × 28 and 56 × 56 tokens", finer, ("quick", "colab"))

two_marks = Measurement(
    "two marks",
    "R² of the mean of two marked pixels' values, read from one attention at another pixel of a 6 × 6 image",
    readings,
    plans={
        "demo": Plan(
            sizes={
                "seeds": 3,
                "steps": 240,
                "names": (BASELINE, "coupled H=1", "coupled H=4", "coupled H=1, net before"),
            },
            dry={"seeds": 3, "steps": 2},
        ),
        "quick": Plan(sizes={"seeds": 8, "steps": 400}, dry={"seeds": 3, "steps": 2}),
        "colab": Plan(sizes={"seeds": 8, "steps": 500}, dry={"seeds": 3, "steps": 2}),
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

LEVEL = "C2: accuracy stays at the level of the ordinary transformer on small images (the authors' runs on CIFAR)"
SPENT = "C4: +0.92 % top-1 at equal memory on ImageNet (abstract)"
SAVED = "C3: 28 % less memory than the regular transformer on ImageNet (abstract, which names no implementation)"


def saves(name, statement, part, against):
    compared = about(part, "percent saved, up to 28", f"against {against}", "the abstract's 28")
    return Claim(name, statement, SAVED, rule="counted", **compared)


claims = (
    Claim(
        "maps shrink as computed",
        "Coupled attention keeps H (h² + w²) weights, where softmax's stored map keeps H N²",
        "C1: far less memory for the map (equations)",
        rule="counted",
        **about(maps, "map_numbers", "coupled", "formula"),
    ),
    saves(
        "28 % of a network, dropout on maps",
        "At 14 × 14 tokens a coupled network keeps 28 % less than one with stored maps and dropout on them",
        networks,
        "stored, dropout",
    ),
    saves(
        "28 % of a network, plain maps",
        "At 14 × 14 tokens a coupled network keeps 28 % less than one with stored maps and no dropout",
        networks,
        "stored",
    ),
    saves(
        "28 % against a fused kernel",
        "At 14 × 14 tokens a coupled network keeps 28 % less than one whose softmax is a fused kernel",
        networks,
        "fused",
    ),
    saves(
        "28 % on larger grids",
        "At 28 × 28 and 56 × 56 tokens a coupled network keeps 28 % less than one with stored maps and no dropout",
        larger,
        "stored",
    ),
    not_worse(
        "equal heads read digits",
        "With 4 heads each, coupled attention reads digits no worse than softmax attention, by a margin of 1.5 points",
        LEVEL,
        pixels,
        "coupled H=4",
        pixels.baseline,
        margin=0.015,
    ),
    Claim(
        "more heads in less memory",
        "Coupled attention with 16 heads, in less memory than softmax's stored maps of 4 heads, reads digits better",
        SPENT,
        rule="superiority",
        **about(pixels, "accuracy", "coupled H=16", "softmax H=4"),
    ),
    not_worse(
        "no loss without rows and columns",
        "With pixels in a random order, coupled attention is no worse than softmax attention, by a margin of 3 points",
        "ours: does the prior need the grid?",
        shuffled,
        "coupled H=16",
        shuffled.baseline,
        margin=0.03,
    ),
    not_worse(
        "equal heads sort clothes",
        "With 4 heads each, coupled attention sorts clothes no worse than softmax attention, by a margin of 1.5 points",
        LEVEL,
        clothes,
        "coupled H=4",
        clothes.baseline,
        margin=0.015,
    ),
    Claim(
        "more heads sort clothes better",
        "Coupled attention with a head a feature (32), in less memory than softmax's stored maps of 4 heads, is better",
        SPENT,
        rule="superiority",
        **about(clothes, "accuracy", "coupled H=32", "softmax H=4"),
    ),
    not_worse(
        "no loss on the paper's grid",
        "At 14 × 14 tokens and six layers, 64 coupled heads are no worse than 4 of softmax, by a margin of 1.5 points",
        LEVEL,
        clothes_large,
        "coupled H=64",
        clothes_large.baseline,
        margin=0.015,
    ),
    Claim(
        "one head sees half",
        "One coupled head explains half of a mean of two pixels that share no row or column: R² = 0.5, within 0.1",
        "ours, from eq. (4): two marks come with two ghosts",
        rule="equivalence",
        bound=0.5,
        margin=0.1,
        **about(two_marks, EXPLAINED, "coupled H=1"),
    ),
    Claim(
        "four heads see both",
        "Four coupled heads explain it as well as one head of softmax attention, by a margin of 0.05",
        "the paper's use of many heads",
        rule="non-inferiority",
        margin=0.05,
        **about(two_marks, EXPLAINED, "coupled H=4", BASELINE),
    ),
    Claim(
        "a net before helps one head",
        "One coupled head behind a feed-forward net explains it as well as softmax attention, by a margin of 0.05",
        "ours: values of unmarked pixels can be put to zero before they are mixed, so that ghosts are empty",
        rule="non-inferiority",
        margin=0.05,
        **about(two_marks, EXPLAINED, "coupled H=1, net before", BASELINE),
    ),
)

IMAGENET = {"task": "ImageNet", "size": "224 × 224 pixels; the abstract does not name the baseline"}
paper = (
    PaperNumber("memory saved at sufficient accuracy", "28 %", **IMAGENET, source="abstract"),
    PaperNumber(
        "top-1 at equal memory footprint, against the regular transformer", "+0.92 %", **IMAGENET, source="abstract"
    ),
)

EXPERIMENT = Experiment(
    "couplformer",
    "Couplformer: Rethinking Vision Transformer with Coupling Attention Map",
    parts=(pixels, shuffled, clothes, clothes_large, maps, networks, larger, two_marks),
    claims=claims,
    paper=paper,
    limits=(
        "ImageNet's 28 % and +0.92 % depend on a baseline that the abstract does not name, and on far larger runs.",
        "Bytes are counted in float32 on a CPU; a GPU's allocator adds its own; parameters and optimiser are left out.",
        f"Coupled networks are counted with D/{HEADS} heads, the fewest that the authors' ImageNet scripts have.",
        "Digits are seen nine times, clothes a fifth of once: who learns faster is seen, not who is better in the end.",
        "A mean of two pixels is made to hurt a single coupled head; images seldom ask for it.",
    ),
)
