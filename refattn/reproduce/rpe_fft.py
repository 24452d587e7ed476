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

import torch

from refattn import data, measure
from refattn.attention.rpe_fft import nprf_attention
from refattn.data.task import IGNORED, generated
from refattn.models import CausalLM, Classifier, ViT
from refattn.reproduce.costs import forward_times, layer_counts
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- The task of looking back, and models: functions (task, seed), or a partial of one ------------------------------


def look_back(*, length=48, delay=5, num_symbols=8, batch_size=32, test_size=256, seed=0):
    """Random symbols [B, N]; at every place the target is the symbol `delay` places earlier (the first ones have none).

    Returns: `Task`; chance is 1 / num_symbols.
    """

    def draw(size, generator):
        tokens = torch.randint(num_symbols, (size, length), generator=generator)
        targets = tokens.roll(delay, 1)
        targets[:, :delay] = IGNORED
        return {"inputs": tokens, "targets": targets}

    facts = {"vocab_size": num_symbols, "num_classes": num_symbols, "max_len": length}
    sizes = {"batch_size": batch_size, "test_size": test_size, "seed": seed}
    return generated("look back", draw, description=f"say the symbol {delay} places back", **sizes, **facts)


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
    task=look_back,
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
    task=look_back,
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
FORMS = {"1-D": {}, "causal": {"is_causal": True}, "padded": {"masked": True}, "2-D": {"grid": True}}


def count_differences(ns, heads=2, width=4, features=5):
    """How many outputs and gradients of transform and matrix differ beyond 10⁻⁹ of the largest (at least of 1)."""
    variants = {}
    for name, form in FORMS.items():
        off = [different(n, heads, width, features, **form) for n in ns]
        variants[name] = {"different": off}
    variants["all forms"] = {"different": [sum(v["different"][i] for v in variants.values()) for i in range(len(ns))]}
    variants["formula"] = {"different": [0] * len(ns)}
    return {"ns": list(ns), "variants": variants}


def different(n, heads, width, features, *, is_causal=False, masked=False, grid=False):
    """How many numbers differ at one length, in float64."""
    generator = torch.Generator().manual_seed(n)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    columns = next(w for w in range(int(n**0.5), 0, -1) if n % w == 0)
    table = (2 * (n // columns) - 1, 2 * columns - 1) if grid else (2 * n - 1,)
    inputs = [draw(2, heads, n, width) for _ in range(3)] + [draw(heads, *table)]
    Omega, weight = draw(features, width), draw(2, heads, n, width)
    mask = torch.arange(n)[None] >= torch.tensor([[n], [n // 2]]) if masked else None
    found = {}
    for product in ("fft", "dense"):
        q, k, v, b = (t.clone().requires_grad_() for t in inputs)
        o = nprf_attention(q, k, v, Omega, b, is_causal=is_causal, key_padding_mask=mask, product=product)
        found[product] = [o, *torch.autograd.grad((o * weight).sum(), (q, k, v, b))]
    pairs = zip(found["fft"], found["dense"], strict=True)
    return sum(int(((x - y).abs() > 1e-9 * max(1.0, float(y.detach().abs().max()))).sum()) for x, y in pairs)


def time_products(**sizes):
    """`forward_times` of both products, and the N from which the transform takes less time."""
    found = forward_times(**sizes)
    dense, fft = (found["variants"][name]["by_length"] for name in ("dense", "fft"))
    meeting = measure.crossover(found["ns"], dense, fft)
    return found | {"crossover": None if meeting is None else round(meeting)}


def count_costs(layers, ns, dim, heads):
    """Multiply-adds of products and transforms, and bytes kept for the backward pass."""
    found = {"ns": list(ns), "variants": layer_counts(layers, ns, dim, heads)}
    dense, fft = (found["variants"][name]["multiply_adds"] for name in ("dense", "fft"))
    return found | {"crossover": round(measure.crossover(ns, dense, fft) or 0)}


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


def about(part, metric, method, baseline=None):
    return {"task": part.name, "metric": metric, "method": method, "baseline": baseline}


def better(name, statement, source, method, baseline, part=looking):
    return Claim(name, statement, source, rule="superiority", **about(part, part.metric, method, baseline))


def not_worse(name, statement, source, method, baseline, part, **more):
    compared = about(part, part.metric, method, baseline)
    return Claim(name, statement, source, rule="non-inferiority", margin=0.02, **compared, **more)


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
        "NPRF + RPE",
        "Performer",
    ),
    better(
        "unit norms alone are not it",
        "NPRF with RPE looks back more accurately than NPRF without",
        MECHANISM,
        "NPRF + RPE",
        "NPRF",
    ),
    better(
        "nor are positions alone",
        "NPRF with RPE looks back more accurately than Performer with RPE",
        MECHANISM,
        "NPRF + RPE",
        "Performer + RPE",
    ),
    better(
        "unit norms cost sharpness",
        "With exact exponentials, too, vectors of unit norm look back less accurately than free ones",
        MECHANISM,
        "softmax",
        "unit softmax",
    ),
    not_worse(
        "the kernel costs nothing here",
        "NPRF with RPE looks back no worse than softmax attention with RPE, by a margin of 2 points",
        STABLE,
        "NPRF + RPE",
        "softmax + RPE",
        looking,
        control="Performer",
    ),
    better(
        "survives a rate too high",
        "At learning rate 0.1 NPRF with RPE looks back more accurately than Performer",
        STABLE,
        "NPRF + RPE",
        "Performer",
        stressed,
    ),
    better(
        "by its unit norms",
        "At learning rate 0.1 NPRF with RPE looks back more accurately than Performer with RPE",
        MECHANISM,
        "NPRF + RPE",
        "Performer + RPE",
        stressed,
    ),
    better(
        "and by its positions",
        "At learning rate 0.1 NPRF with RPE looks back more accurately than NPRF without",
        MECHANISM,
        "NPRF + RPE",
        "NPRF",
        stressed,
    ),
    not_worse(
        "no loss where content decides",
        "NPRF with RPE recalls values by their keys no worse than Performer, by a margin of 2 points",
        "our question: positions cannot give back the sharpness that content needs",
        "NPRF + RPE",
        "Performer",
        recalled,
    ),
    not_worse(
        "no loss on a neutral task",
        "NPRF with RPE has a loss on text at most 2 % above Performer's",
        STABLE,
        "NPRF + RPE",
        "Performer",
        neutral,
        relative=True,
    ),
    better(
        "sees better than Performer",
        "With 2-D RPE, NPRF is more accurate on FashionMNIST than Performer with learned positions",
        STABLE,
        "NPRF + RPE",
        "Performer",
        seen,
    ),
    not_worse(
        "sees no worse than softmax",
        "With 2-D RPE, NPRF is no worse on FashionMNIST than softmax attention, by a margin of 2 points",
        STABLE,
        "NPRF + RPE",
        "softmax",
        seen,
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
