"""NPRF's claims in miniature: is the transform exact and cheap, and what do unit norms and positions do for training.

Paper: Luo et al., "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding", NeurIPS 2021
(arXiv 2106.12566).

Rules, margins and seeds were fixed before the recorded runs. Networks with relative positions have no absolute ones;
the others have sinusoids, which cost no parameters, and a feed-forward net three units wider. Training settings are one
per task, the same for all variants, and not searched: learning rates 0.01 and, on purpose too high, 0.1. At these
lengths the Toeplitz matrix is applied as it stands, since that is faster and computes the same (claim "the transform is
exact"). Where a count can decide, it does; only the two claims about seconds depend on the machine and its other work.
"""

from functools import partial

from refattn import data
from refattn.models import CausalLM, Classifier, ViT
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.toeplitz_costs import count_costs, count_differences, time_products
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

SMALL = {"embed_dim": 32, "num_heads": 2}
FEATURES = 16  # as many as a head is wide


def reader(task, seed, *, layers=1, ffn_dim=64, positions="none", attention="rpe_fft", **options):
    """Classifies every token."""
    facts = {"vocab_size": task.vocab_size, "num_classes": task.num_classes, "max_len": task.max_len, "pool": "none"}
    sizes = SMALL | {"ffn_dim": ffn_dim, "num_layers": layers, "positions": positions, "seed": seed}
    return Classifier(**facts, **sizes, attention=attention, attention_options=fitted(task, attention, options))


def writer(task, seed, *, ffn_dim=64, positions="none", attention="rpe_fft", **options):
    """A causal language model of two layers."""
    sizes = SMALL | {"ffn_dim": ffn_dim, "num_layers": 2, "positions": positions, "max_len": task.max_len, "seed": seed}
    return CausalLM(task.vocab_size, **sizes, attention=attention, attention_options=fitted(task, attention, options))


def fitted(task, attention, options):
    """The mechanism's options; one with a table of offsets has it as long as the task's sequences."""
    kernel = {} if attention == "softmax" else {"num_features": FEATURES}
    table = {"max_len": task.max_len, "product": "dense"} if attention == "rpe_fft" else {}
    return kernel | table | options


def viewer(task, seed, *, positions="none", attention="rpe_fft", **options):
    """Classifies images by patches of 4 × 4 pixels, four layers of width 128 with 32 features."""
    sizes = {"embed_dim": 128, "num_heads": 4, "num_layers": 4, "ffn_dim": 256, "patch_size": 4, "seed": seed}
    options = options | ({} if attention == "softmax" else {"num_features": 32})
    return ViT(28, task.num_classes, positions=positions, attention=attention, attention_options=options, **sizes)


def absolute(make, attention="rpe_fft", ffn_dim=67, **options):
    """A variant with sinusoids, and three hidden units for what it lacks in offsets."""
    without = {"relative": False} if attention == "rpe_fft" else {}
    return partial(make, attention=attention, ffn_dim=ffn_dim, positions="sinusoidal", **without, **options)


VARIANTS = {
    "softmax": absolute(reader, "softmax"),
    "Performer": absolute(reader, "performer"),
    "softmax + RPE": partial(reader, kernel="exact", normalise=False),
    "Performer + RPE": partial(reader, normalise=False),
    "unit softmax": absolute(reader, kernel="exact"),
    "NPRF": absolute(reader),
    "NPRF + RPE": partial(reader),
}
DEEPER = {"ffn_dim": 65, "layers": 2}  # for tasks of 16 tokens, whose tables are small

# ---- Comparisons -----------------------------------------------------------------------------------------------------

PLAIN = {"lr": 1e-2, "weight_decay": 0.0, "schedule": "constant", "warmup": 1, "clip": None}  # nothing that steadies
FAST = {"lr": 5e-3, "weight_decay": 0.01, "warmup": 50, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}

looking = Comparison(
    "five places back",
    "say the symbol five places back, one layer, 48 tokens: an offset solves it, so it favours relative positions",
    task=data.look_back,
    variants=VARIANTS,
    baseline="Performer",
    metric="accuracy",
    training=PLAIN,
    plans={
        "demo": Plan(3, 150, variants=("Performer", "NPRF", "NPRF + RPE")),
        "quick": Plan(8, 300),
    },
)

stressed = Comparison(
    "five places back, learning rate 0.1",
    "the same at ten times the learning rate, without warm-up, clipping or decay: which network still trains",
    task=data.look_back,
    variants={name: VARIANTS[name] for name in ("Performer", "softmax + RPE", "Performer + RPE", "NPRF", "NPRF + RPE")},
    baseline="Performer",
    metric="accuracy",
    training=PLAIN | {"lr": 1e-1},
    plans={"quick": Plan(8, 200)},
)

recalled = Comparison(
    "recall of 8 keys",
    "say which of 4 values was told with each of 8 keys in random order: content decides, offsets say nothing",
    task=data.recall,
    variants={
        "softmax": partial(absolute(reader, "softmax"), positions="none", **DEEPER),
        "Performer": partial(absolute(reader, "performer"), positions="none", **DEEPER),
        "Performer + RPE": partial(reader, normalise=False, layers=2),
        "NPRF + RPE": partial(reader, layers=2),
    },
    baseline="Performer",
    metric="accuracy",
    training=FAST,
    plans={"quick": Plan(8, 250, {"num_keys": 8})},
)

neutral = Comparison(
    "text, causal",
    "next character of Python's own help pages: both content and distance matter",
    task=data.text,
    variants={
        "Performer": absolute(writer, "performer"),
        "softmax": absolute(writer, "softmax"),
        "NPRF + RPE": partial(writer),
    },
    baseline="Performer",
    metric="loss",
    training=STEADY,
    plans={"quick": Plan(8, 150, {"length": 48})},
    neutral=True,
)

seen = Comparison(
    "FashionMNIST, 49 patches",
    "images of clothes, two epochs; offsets have two parts, and the matrix is applied by a 2-D transform",
    task=data.fashion_mnist,
    variants={
        "softmax": partial(viewer, attention="softmax", positions="learned"),
        "Performer": partial(viewer, attention="performer", positions="learned"),
        "Performer + RPE": partial(viewer, normalise=False, grid=(7, 7)),
        "NPRF": partial(viewer, relative=False, positions="learned"),
        "NPRF + RPE": partial(viewer, grid=(7, 7)),
    },
    baseline="Performer",
    metric="accuracy",
    training={"lr": 1e-3, "weight_decay": 0.01, "clip": 1.0},
    plans={"colab": Plan(3, 940, {"batch_size": 128}, dry={"batch_size": 4, "train_size": 128, "test_size": 8})},
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

LAYERS = {name: ("rpe_fft", {"product": name, "num_features": 16, "max_len": 2**14}) for name in ("fft", "dense")}

layer = {"layers": LAYERS, "dim": 32, "heads": 2}
instant = {"ns": (16, 32, 64), "rounds": 1, "min_seconds": 0.0}
counted = Plan(sizes=layer | {"ns": (256, 512, 1024, 2048, 4096)}, dry={"ns": (16, 32, 64)})

exactness = Measurement(
    "exactness",
    "transform against matrix in float64, outputs and all gradients, at lengths that are powers, odd and prime",
    count_differences,
    plans={budget: Plan(sizes={"ns": (1, 2, 17, 60, 101, 256)}) for budget in ("demo", "quick", "colab")},
)

counts = Measurement(
    "counts",
    "one layer of width 32 with 2 heads and 16 features; counted are matrix products and transforms",
    count_costs,
    plans={"demo": counted, "quick": counted},
)

times = Measurement(
    "times",
    "seconds of the same layer's forward pass on one sequence, by transform and by matrix",
    time_products,
    plans={
        "quick": Plan(
            sizes=layer | {"ns": (512, 768, 1024, 1536, 2048, 3072, 4096), "rounds": 5, "min_seconds": 0.05},
            dry=instant,
        ),
        "colab": Plan(
            sizes=layer | {"ns": (1024, 2048, 4096, 8192), "rounds": 9, "min_seconds": 0.1, "device": "auto"},
            dry=instant,
        ),
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

EXACT = "claim 1: RPE is a Toeplitz matrix, so kernelised attention carries it exactly in O(N log N) (abstract)"
STABLE = "claim 2: with RPE, kernelised attention trains from scratch without optimisation issues (abstract)"
FASTER = "claim 3: faster than the standard form for long sequences (abstract)"
MECHANISM = "the method: unit norms bound the error and the sharpness, RPE gives sharpness back"


claims = (
    Claim(
        "the transform is exact",
        "No output and no gradient differs from the Toeplitz matrix's by 10⁻⁹ of the largest (or of 1)",
        EXACT,
        rule="counted",
        **about(exactness, "different", "all forms", "formula"),
    ),
    better(
        "trains where Performer does not",
        "NPRF with RPE looks five places back more accurately than Performer",
        STABLE,
        looking,
        "NPRF + RPE",
        "Performer",
    ),
    better(
        "unit norms alone are not it",
        "NPRF with RPE looks back more accurately than NPRF without",
        MECHANISM,
        looking,
        "NPRF + RPE",
        "NPRF",
    ),
    better(
        "nor are positions alone",
        "NPRF with RPE looks back more accurately than Performer with RPE",
        MECHANISM,
        looking,
        "NPRF + RPE",
        "Performer + RPE",
    ),
    better(
        "unit norms cost sharpness",
        "With exact exponentials, too, vectors of unit norm look back less accurately than free ones",
        MECHANISM,
        looking,
        "softmax",
        "unit softmax",
    ),
    not_worse(
        "the kernel costs nothing here",
        "NPRF with RPE looks back no worse than softmax attention with RPE, by a margin of 2 points",
        STABLE,
        looking,
        "NPRF + RPE",
        "softmax + RPE",
        control="Performer",
        margin=0.02,
    ),
    better(
        "survives a rate too high",
        "At learning rate 0.1 NPRF with RPE looks back more accurately than Performer",
        STABLE,
        stressed,
        "NPRF + RPE",
        "Performer",
    ),
    better(
        "by its unit norms",
        "At learning rate 0.1 NPRF with RPE looks back more accurately than Performer with RPE",
        MECHANISM,
        stressed,
        "NPRF + RPE",
        "Performer + RPE",
    ),
    better(
        "and by its positions",
        "At learning rate 0.1 NPRF with RPE looks back more accurately than NPRF without",
        MECHANISM,
        stressed,
        "NPRF + RPE",
        "NPRF",
    ),
    not_worse(
        "no loss where content decides",
        "NPRF with RPE recalls values by their keys no worse than Performer, by a margin of 2 points",
        "our question: positions cannot give back the sharpness that content needs",
        recalled,
        "NPRF + RPE",
        "Performer",
        margin=0.02,
    ),
    not_worse(
        "no loss on a neutral task",
        "NPRF with RPE has a loss on text at most 2 % above Performer's",
        STABLE,
        neutral,
        "NPRF + RPE",
        "Performer",
        relative=True,
        margin=0.02,
    ),
    better(
        "sees better than Performer",
        "With 2-D RPE, NPRF is more accurate on FashionMNIST than Performer with learned positions",
        STABLE,
        seen,
        "NPRF + RPE",
        "Performer",
    ),
    not_worse(
        "sees no worse than softmax",
        "With 2-D RPE, NPRF is no worse on FashionMNIST than softmax attention, by a margin of 2 points",
        STABLE,
        seen,
        "NPRF + RPE",
        "softmax",
        margin=0.02,
    ),
    Claim(
        "work grows as N log N",
        "Multiply-adds of a forward pass grow with N to a power below 1.25",
        EXACT,
        rule="scaling",
        bound=1.25,
        **about(counts, "multiply_adds", "fft"),
    ),
    Claim(
        "memory is linear",
        "Bytes kept for the backward pass grow with N to a power below 1.05",
        "our implementation: features and values are kept, their products are made again",
        rule="scaling",
        bound=1.05,
        **about(counts, "saved_bytes", "fft"),
    ),
    Claim(
        "time grows as N log N",
        "Seconds of a forward pass grow with N to a power below 1.25",
        EXACT,
        rule="scaling",
        bound=1.25,
        **about(times, "by_length", "fft"),
    ),
    Claim(
        "time is saved at the longest N",
        "A forward pass by the transform takes less than half the time of one by the matrix",
        FASTER,
        rule="superiority",
        margin=0.5,
        relative=True,
        **about(times, "seconds", "fft", "dense"),
    ),
)

WIKI = {"task": "WikiText-103", "size": "language model", "source": "recalled with low confidence, unverified"}
IMAGENET = {"task": "ImageNet", "size": "as DeiT-base", "source": "recalled with low confidence, unverified"}
paper = (
    PaperNumber("test perplexity, softmax", "about 33", **WIKI),
    PaperNumber("test perplexity, NPRF with RPE", "about 30.6", **WIKI),
    PaperNumber("top-1 accuracy, softmax", "81.8 %", **IMAGENET),
    PaperNumber("top-1 accuracy, NPRF with 2-D RPE", "about 81 %", **IMAGENET),
)

EXPERIMENT = Experiment(
    "rpe_fft",
    "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding",
    parts=(looking, stressed, recalled, neutral, seen, exactness, counts, times),
    claims=claims,
    paper=paper,
    limits=(
        "GLUE, WikiText-103, translation and ImageNet need models and data far beyond this size.",
        "Looking back by a fixed number of places is what a bias does: the task favours relative positions.",
        "A learning rate of 0.1 stands in for what goes wrong in deep networks over long training; it is not the same.",
        "Number of features, first biases and their sharing between layers are ours: the authors' code is not public.",
        "Seconds were measured on a machine with other work: exponent and ratio say nothing about other machines.",
    ),
)
