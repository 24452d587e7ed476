"""SReT's claims in miniature: is a second pass worth a second block, what do slices cost, and how deep can it get.

Paper: Shen et al., "Sliced Recursive Transformer", ECCV 2022 (arXiv 2111.05297).

Rules, margins and seeds were fixed before the recorded runs. All models of a comparison have equally many parameters
(within 2 %): what NLL layers or further blocks take, the feed-forward nets of the others get. Training settings are one
per task, the same for all variants; steps were set by a look at one seed. Learning rates are not searched, but for the
hundred passes, where three were looked at: no other network here has that depth.

Pointers need two rounds, or three, as long as a round only looks up. One wide round could do otherwise: heads that
know places gather the whole map, and a feed-forward net computes with it.
"""

from refattn import data
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.recursion import (
    CHASERS,
    DEEP,
    PAINTERS,
    READERS,
    SKETCHERS,
    count_published,
    count_slices,
)
from refattn.reproduce.verdict import Claim

# ---- Comparisons -----------------------------------------------------------------------------------------------------

FAST = {"lr": 5e-3, "weight_decay": 0.01, "warmup": 50, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "warmup": 10, "clip": 1.0}
COSINE = {"lr": 1e-3, "weight_decay": 0.05, "schedule": "cosine", "clip": 1.0}

three_hops = Comparison(
    "pointers, 3 hops",
    "follow a random map of 8 places for 3 hops, from every place: two rounds of look-ups are needed",
    task=data.pointers,
    variants={name: model for name, model in CHASERS.items() if name != "4 passes"},
    baseline="1 pass",
    metric="accuracy",
    training=FAST,
    plans={
        "demo": Plan(3, 300, {"symbols": 8, "hops": 3}, variants=("1 pass", "2 passes")),
        "quick": Plan(8, 400, {"symbols": 8, "hops": 3}),
    },
)

five_hops = Comparison(
    "pointers, 5 hops",
    "the same for 5 hops: three rounds are needed, and two blocks have but two",
    task=data.pointers,
    variants={name: CHASERS[name] for name in ("2 blocks", "4 passes")},
    baseline="2 blocks",
    metric="accuracy",
    training=FAST,
    plans={"quick": Plan(8, 300, {"symbols": 8, "hops": 5})},
)

neutral = Comparison(
    "digits",
    "handwritten digits as 8 × 8 tokens: nothing in them asks for two rounds",
    task=data.digits,
    variants=READERS,
    baseline="2 passes",
    metric="accuracy",
    training=FAST | {"schedule": "cosine"},
    plans={"quick": Plan(8, 200, {"batch_size": 32})},
    neutral=True,
)

hundred = Comparison(
    "pointers, 100 passes",
    "3 hops again, in a network half as wide: one block, applied a hundred times; beside it the same block, applied "
    "once, where no token sees another",
    task=data.pointers,
    variants=DEEP,
    baseline="1 pass, tokens alone",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 80, {"symbols": 8, "hops": 3, "batch_size": 32})},
)

photographs = Comparison(
    "CIFAR-10",
    "photographs as 16 × 16 tokens of width 64, five epochs; two blocks, or four narrower ones",
    task=data.cifar10,
    variants=PAINTERS,
    baseline="1 pass",
    metric="accuracy",
    training=COSINE,
    plans={
        "colab": Plan(3, 975, {"batch_size": 256}, dry={"train_size": 256, "test_size": 8, "batch_size": 8}),
    },
    neutral=True,
)

clothes = Comparison(
    "FashionMNIST",
    "clothes as 14 × 14 tokens of width 48, one block, two epochs",
    task=data.fashion_mnist,
    variants=SKETCHERS,
    baseline="2 passes",
    metric="accuracy",
    training=COSINE,
    plans={
        "colab": Plan(3, 470, {"batch_size": 256}, dry={"train_size": 256, "test_size": 8, "batch_size": 8}),
    },
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

models = Measurement(
    "published models",
    "the paper's configurations on images of 224 × 224",
    count_published,
    plans={budget: Plan(sizes={"image_size": 224}) for budget in ("demo", "quick", "colab")},
)

EVEN = ((2, 2), (4, 4, 2), (8, 8, 4, 2), (3, 3, 3), (4, 4, 4, 4))  # Σ 1/G = 1
slices = Measurement(
    "slices",
    "attention of 576 tokens, width 64, with G of each pass such that Σ 1/G = 1",
    count_slices,
    plans={b: Plan(sizes={"tokens": 576, "dim": 64, "heads": 2, "groups": EVEN}) for b in ("demo", "quick", "colab")},
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

RECURSION = "C1: re-applying a block gives about 2 points at no parameters (abstract; ImageNet)"
SLICING = "C2: slices save 10 to 30 % of the compute at almost no loss (abstract; ImageNet)"
PARTS = "C4: NLL layers and coefficients help on top (recalled, unverified)"
DEPTH = "C5: networks of 100 to 1,000 shared layers can be trained (abstract; ImageNet)"


claims = (
    better(
        "a second pass is worth something",
        "Applied twice, one block follows pointers better than applied once",
        RECURSION,
        three_hops,
        "2 passes",
        "1 pass",
    ),
    not_worse(
        "a second pass replaces a second block",
        "One block twice is no worse than two blocks with the same parameters, by a margin of 2 points",
        RECURSION,
        three_hops,
        "2 passes",
        "2 blocks",
        control="1 pass",
        margin=0.02,
    ),
    better(
        "passes beat blocks where depth is scarce",
        "Where three rounds are needed, one block four times is better than two blocks with the same parameters",
        RECURSION,
        five_hops,
        "4 passes",
        "2 blocks",
    ),
    better(
        "NLL layers help",
        "With NLL layers two passes are better than with a wider feed-forward net",
        PARTS,
        three_hops,
        "2 passes, NLL",
        "2 passes",
    ),
    better(
        "coefficients help",
        "With learned coefficients two passes are better than with plain residuals",
        PARTS,
        three_hops,
        "2 passes, NLL",
        "2 passes, NLL, plain residuals",
    ),
    not_worse(
        "slices lose nothing where look-ups are exact",
        "With two slices in the first pass pointers are followed no worse, by a margin of 2 points",
        SLICING,
        three_hops,
        "2 passes, NLL, slices 2-1",
        "2 passes, NLL",
        control="1 pass",
        margin=0.02,
    ),
    better(
        "a second pass helps on digits",
        "Two passes read digits better than one",
        RECURSION,
        neutral,
        "2 passes",
        "1 pass",
    ),
    not_worse(
        "slices lose nothing on digits",
        "With slices 4-2, and 31 % fewer multiply-adds, two passes are no worse, by a margin of 2 points",
        SLICING,
        neutral,
        "2 passes, slices 4-2",
        "2 passes",
        margin=0.02,
    ),
    better(
        "slices beat plain passes at equal FLOPs",
        "Three passes with slices 4-4-2 are better than two plain ones, which take as many multiply-adds",
        SLICING,
        neutral,
        "3 passes, slices 4-4-2",
        "2 passes",
    ),
    better(
        "a hundred passes train",
        "A block applied a hundred times learns more than it could if no token saw another",
        DEPTH,
        hundred,
        "100 passes",
        "1 pass, tokens alone",
    ),
    better(
        "coefficients help at depth",
        "A hundred passes learn more with learned coefficients than with plain residuals",
        PARTS,
        hundred,
        "100 passes",
        "100 passes, plain residuals",
    ),
    better(
        "a second pass helps on photographs",
        "Two passes are better than one on CIFAR-10",
        RECURSION,
        photographs,
        "2 passes",
        "1 pass",
    ),
    better(
        "recursion is worth more than width",
        "Two passes with NLL layers are better on CIFAR-10 than one pass with a wider feed-forward net",
        RECURSION,
        photographs,
        "2 passes, NLL",
        "1 pass",
    ),
    not_worse(
        "passes replace blocks on photographs",
        "Two blocks twice are no worse on CIFAR-10 than four blocks with the same parameters, by 2 points",
        RECURSION,
        photographs,
        "2 passes, NLL",
        "4 blocks",
        margin=0.02,
    ),
    not_worse(
        "slices lose nothing on photographs",
        "Slices 4-2 are no worse on CIFAR-10, by a margin of 2 points",
        SLICING,
        photographs,
        "2 passes, NLL, slices 4-2",
        "2 passes, NLL",
        margin=0.02,
    ),
    not_worse(
        "slices lose nothing on clothes",
        "Slices 4-2 are no worse on FashionMNIST, by a margin of 2 points",
        SLICING,
        clothes,
        "2 passes, slices 4-2",
        "2 passes",
        margin=0.02,
    ),
    Claim(
        "compute is as reported",
        "Multiply-adds of the seven published models, counted on what runs, round to the authors' numbers",
        "table of the authors' repository",
        rule="counted",
        **about(models, "hundred_million_multiply_adds", "counted", "reported"),
    ),
    Claim(
        "parameters are as reported",
        "So do their parameters",
        "table of the authors' repository",
        rule="counted",
        **about(models, "hundred_thousand_parameters", "counted", "reported"),
    ),
    Claim(
        "passes share one global attention",
        "Passes with Σ 1/G = 1 take the multiply-adds of one attention over all tokens",
        "C3: the paper's proposition 1 (recalled)",
        rule="counted",
        **about(slices, "multiply_adds", "passes", "one global pass"),
    ),
)

IMAGENET = {"task": "ImageNet-1K, 224 px, top-1"}
README = "table of the authors' repository"
paper = (
    PaperNumber("accuracy, SReT-T without slices", "76.1 %", **IMAGENET, size="1.4 G, 4.8 M", source=README),
    PaperNumber("accuracy, SReT-T", "76.0 %", **IMAGENET, size="1.1 G, 4.8 M", source=README),
    PaperNumber("accuracy, SReT-LT without slices", "76.8 %", **IMAGENET, size="1.4 G, 5.0 M", source=README),
    PaperNumber("accuracy, SReT-LT", "76.7 %", **IMAGENET, size="1.2 G, 5.0 M", source=README),
    PaperNumber("accuracy, SReT-S without slices", "82.0 %", **IMAGENET, size="4.7 G, 20.9 M", source=README),
    PaperNumber("accuracy, SReT-S", "81.9 %", **IMAGENET, size="4.2 G, 20.9 M", source=README),
    PaperNumber("gain of naive recursion", "about 2 points", "ImageNet-1K", "a small ViT", source="abstract"),
    PaperNumber("shared layers that could be trained", "100 to 1,000", "ImageNet-1K", "13 to 15 M", source="abstract"),
)

EXPERIMENT = Experiment(
    "sret",
    "Sliced Recursive Transformer",
    parts=(three_hops, five_hops, neutral, hundred, photographs, clothes, models, slices),
    claims=claims,
    paper=paper,
    limits=(
        "ImageNet accuracies, and whether a second pass is worth two points there, need ImageNet.",
        "Pointers are made so that rounds of look-ups count: they show that a pass can replace a block, not how often "
        "a real task asks for one.",
        "Digits are read well by one pass; small differences between such networks are mostly noise.",
        "A hundred passes are shown to learn in 80 steps, not to be worth their time; 1,000 are out of reach.",
        "Equal parameters are unequal times: each pass costs what a block costs.",
        "The smoother loss surface of the paper's last section is not tested.",
    ),
)
