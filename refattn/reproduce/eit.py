"""EIT's claims in miniature: does it learn more, and what in it does; are its heads alike; what does it cost.

Paper: Zheng et al., "EIT: Enhanced Interactive Transformer", ACL 2024 (arXiv 2212.10197).

Rules, margins and seeds were fixed before the recorded runs. Training settings are one per task, the same for all
variants, and not searched; models get as many parameters as full EIT by wider feed-forward nets. EIT differs from
softmax attention in three things at once: M² maps, layers of 1 × 1 kernels on them, and kernels along the keys. So
there are controls with fewer: EIT with 1 × 1 kernels, talking heads, and softmax attention with a kernel on its logits.
"""

from functools import partial

from refattn import data
from refattn.attention.map_mixing import KernelLogits, TalkingHeads
from refattn.models import CausalLM, Classifier
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.costs import forward_times
from refattn.reproduce.eit_costs import count_costs
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.heads import study_heads
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

ONE_LAYER = {"embed_dim": 32, "num_heads": 4, "num_layers": 1, "positions": "learned"}
NARROW = {"embed_dim": 12, "num_heads": 6, "num_layers": 1, "positions": "none"}  # heads of width 2
TWO_LAYERS = {"embed_dim": 32, "num_heads": 4, "num_layers": 2}
LARGE = {"embed_dim": 64, "num_heads": 8, "num_layers": 2, "pool": "mean"}
CONTROLS = {"talking heads": TalkingHeads, "kernel": KernelLogits}


def reader(task, seed, *, shape, ffn_dim, attention="softmax", control=None, **options):
    """Classifies every token; `control`: what takes the place of softmax attention, with its projections."""
    facts = {"vocab_size": task.vocab_size, "num_classes": task.num_classes, "max_len": task.max_len}
    sizes = {"pool": "none"} | shape | {"ffn_dim": ffn_dim, "seed": seed}
    model = Classifier(**facts, **sizes, attention=attention, attention_options=None if control else options)
    for block in model.encoder.blocks if control else ():
        old = block.self_attention
        made = CONTROLS[control](old.embed_dim, old.num_heads, projections=old.projections, **options)
        block.self_attention = made
    return model


def writer(task, seed, *, shape, ffn_dim, attention="softmax", **options):
    """A causal language model."""
    sizes = shape | {"ffn_dim": ffn_dim, "max_len": task.max_len, "seed": seed}
    return CausalLM(task.vocab_size, **sizes, attention=attention, attention_options=options)


POINTWISE = {"isi_kernel": 1, "csi_kernel": 1}
FULL, ONES = {"attention": "eit"}, {"attention": "eit", **POINTWISE}
SHORT = {"attention": "eit", "variant": "efficient"}


def variants(model, shape, **given):
    """{name: model} from {name: (feed-forward width, options)}."""
    return {name: partial(model, shape=shape, ffn_dim=width, **options) for name, (width, options) in given.items()}


# ---- Comparisons -----------------------------------------------------------------------------------------------------

FAST = {"lr": 3e-3, "weight_decay": 0.01, "warmup": 50, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}

associated = Comparison(
    "associative recall",
    "five pairs of a key and a value, two tokens each, then a key: say its value; one layer, four heads of width 8",
    task=data.associative_recall,
    variants=variants(
        reader,
        ONE_LAYER,
        **{
            "softmax": (94, {}),
            "eit 7/3": (64, FULL),
            "eit 1/1": (87, ONES),
            "eit efficient": (93, SHORT),
            "eit efficient, kernel 3": (92, SHORT | {"isi_kernel": 3}),
            "talking heads": (94, {"control": "talking heads"}),
            "softmax, kernel 3": (94, {"control": "kernel", "kernel": 3}),
        },
    ),
    baseline="softmax",
    metric="accuracy",
    training=FAST,
    plans={
        "demo": Plan(3, 120, {"batch_size": 48}, variants=("softmax", "eit 1/1", "eit efficient, kernel 3")),
        "quick": Plan(8, 300, {"batch_size": 48, "test_size": 1000}),
    },
)

narrow = Comparison(
    "recall through narrow heads",
    "say which of 4 values was told with each of 16 keys; a key and its value are one token, no positions, so kernels "
    "along keys have nothing to find; six heads of width 2, which softmax attention alone did not solve in these steps",
    task=data.recall,
    variants=variants(
        reader,
        NARROW,
        **{
            "softmax": (111, {}),
            "eit 1/1": (62, ONES),
            "eit efficient": (103, SHORT),
            "talking heads": (108, {"control": "talking heads"}),
        },
    ),
    baseline="softmax",
    metric="accuracy",
    training=FAST | {"lr": 5e-3},
    plans={"quick": Plan(8, 200, {"num_keys": 16, "batch_size": 32})},
)

neutral = Comparison(
    "text, causal",
    "next character of Python's own help pages: neither pairs nor narrow heads",
    task=data.text,
    variants=variants(writer, TWO_LAYERS, **{"softmax": (94, {}), "eit 7/3": (64, FULL), "eit 1/1": (87, ONES)}),
    baseline="softmax",
    metric="loss",
    training=STEADY,
    plans={"quick": Plan(8, 150, {"length": 32, "batch_size": 16})},
    neutral=True,
)

lists = Comparison(
    "ListOps",
    "values of nested lists of up to 99 tokens; two layers of width 64 with 8 heads",
    task=data.listops,
    variants=variants(
        reader,
        LARGE,
        **{
            "softmax": (343, {}),
            "eit 7/3": (256, FULL),
            "eit 1/1": (327, ONES),
            "eit efficient": (341, SHORT),
            "talking heads": (342, {"control": "talking heads"}),
            "softmax, kernel 7": (343, {"control": "kernel", "kernel": 7}),
        },
    ),
    baseline="softmax",
    metric="accuracy",
    training={"lr": 1e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0},
    plans={
        "colab": Plan(
            3,
            1000,
            {"max_depth": 5, "max_len": 100, "num_train": 20_000, "batch_size": 32},
            dry={"num_train": 64, "num_test": 32, "batch_size": 4, "max_len": 24},
        )
    },
)

# ---- Measurements ----------------------------------------------------------------------------------------------------


def look_at_heads(**sizes):
    """Heads of the models of `narrow`, trained on its task."""
    models = {name: narrow.variants[name] for name in ("softmax", "eit 1/1", "talking heads")}
    return study_heads(models, data.recall, training=narrow.training, **sizes)


heads = Measurement(
    "heads",
    "the networks of the recall through narrow heads, trained again: cosine between rows of two heads, and accuracy "
    "without one head as a share of the accuracy with all",
    look_at_heads,
    plans={
        "quick": Plan(
            sizes={"seeds": 6, "steps": 200, "every": 50, "num_keys": 16, "batch_size": 32, "test_size": 128},
            dry={"seeds": 3, "steps": 2, "every": 1},
        )
    },
)

LAYERS = {"softmax": ("softmax", {}), "eit": ("eit", {}), "eit efficient": ("eit", {"variant": "efficient"})}


layer = {"layers": LAYERS, "dim": 64, "heads": 4}
counted = Plan(sizes=layer | {"ns": (64, 128, 256), "large": (512, 8)}, dry={"ns": (8, 16, 32), "large": (32, 4)})
timed = layer | {"rounds": 7, "min_seconds": 0.05}
instant = {"ns": (16, 32, 64), "rounds": 1, "min_seconds": 0.0}

counts = Measurement(
    "counts",
    "one layer of width 64 with 4 heads; parameters at width 512 with 8 heads",
    count_costs,
    plans={"demo": counted, "quick": counted, "colab": counted},
)

times = Measurement(
    "times",
    "seconds of the same layers' forward pass on one sequence",
    forward_times,
    plans={
        "quick": Plan(sizes=timed | {"ns": (64, 128, 256, 512)}, dry=instant),
        "colab": Plan(sizes=timed | {"ns": (512, 1024, 2048), "device": "auto"}, dry=instant),
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

BETTER = "C1: many-to-many mapping with interactions improves on multi-head attention (abstract; on translation, …)"
SIZE = "C2: the extra model size is very modest (abstract)"
VIEWS = "C3: many-to-many mapping serves complementarity, the interactions serve consensus (abstract)"
SHORTER = "C4: E-EIT keeps most of the gain at a better latency (third-party summary)"
PRUNED = "C5: heads of EIT are easier to prune (third-party summary)"
OURS = "our question: which part of EIT does it?"


claims = (
    better(
        "EIT recalls what one softmax layer cannot",
        "One layer of EIT, kernels 7 and 3, recalls more pairs than one of softmax attention",
        BETTER,
        associated,
        "eit 7/3",
        "softmax",
    ),
    better(
        "so it does without kernels",
        "With 1 × 1 kernels, that is M² maps and their mixing alone, EIT recalls more pairs than softmax attention",
        OURS,
        associated,
        "eit 1/1",
        "softmax",
    ),
    better(
        "E-EIT with a kernel keeps the gain",
        "The efficient variant with kernel 3 recalls more pairs than softmax attention",
        SHORTER,
        associated,
        "eit efficient, kernel 3",
        "softmax",
    ),
    not_worse(
        "a kernel alone is as good",
        "Softmax attention with one kernel of width 3 on each map recalls no worse than EIT, by a margin of 2 points",
        OURS,
        associated,
        "softmax, kernel 3",
        "eit 7/3",
        margin=0.02,
        control="eit 1/1",
    ),
    better(
        "many maps help narrow heads",
        "With heads of width 2 and 1 × 1 kernels EIT recalls more than softmax attention",
        BETTER,
        narrow,
        "eit 1/1",
        "softmax",
    ),
    better(
        "they help more than talking heads",
        "With heads of width 2 EIT, 1 × 1 kernels, recalls more than softmax attention with talking heads",
        OURS,
        narrow,
        "eit 1/1",
        "talking heads",
    ),
    better(
        "E-EIT helps narrow heads as well",
        "With heads of width 2 the efficient variant recalls more than softmax attention",
        SHORTER,
        narrow,
        "eit efficient",
        "softmax",
    ),
    not_worse(
        "no loss on a neutral task",
        "EIT's loss on text, kernels 7 and 3, is at most 2 % above softmax attention's",
        BETTER,
        neutral,
        "eit 7/3",
        "softmax",
        margin=0.02,
        relative=True,
    ),
    better(
        "text is modelled better",
        "EIT's loss on text, kernels 7 and 3, is below softmax attention's",
        BETTER,
        neutral,
        "eit 7/3",
        "softmax",
    ),
    better(
        "and without kernels, too",
        "EIT's loss on text with 1 × 1 kernels is below softmax attention's",
        BETTER,
        neutral,
        "eit 1/1",
        "softmax",
    ),
    better(
        "heads agree more",
        "Rows of two heads have a larger mean cosine in EIT, 1 × 1 kernels, than in softmax attention",
        f"{VIEWS}; consensus",
        heads,
        "eit 1/1",
        "softmax",
        metric="agreement",
    ),
    better(
        "heads stay apart",
        "Rows of two heads have a smaller mean cosine in EIT, 1 × 1 kernels, than in softmax attention",
        "the first version's motive, head degradation; and C3, complementarity",
        heads,
        "eit 1/1",
        "softmax",
        metric="diversity",
    ),
    better(
        "a head is missed less",
        "Without one head EIT, 1 × 1 kernels, keeps a larger share of its accuracy than softmax attention",
        PRUNED,
        heads,
        "eit 1/1",
        "softmax",
        metric="kept",
    ),
    better(
        "EIT reads lists better",
        "EIT, kernels 7 and 3, evaluates more ListOps than softmax attention",
        BETTER,
        lists,
        "eit 7/3",
        "softmax",
    ),
    better(
        "so it does without kernels, on lists",
        "EIT with 1 × 1 kernels evaluates more ListOps than softmax attention with talking heads",
        OURS,
        lists,
        "eit 1/1",
        "talking heads",
    ),
    not_worse(
        "a kernel alone is as good on lists",
        "Softmax attention with a kernel of width 7 on each map is no worse than EIT, by a margin of 2 points",
        OURS,
        lists,
        "softmax, kernel 7",
        "eit 7/3",
        margin=0.02,
    ),
    Claim(
        "parameters are as computed",
        "At width 512 with 8 heads full EIT adds 11,344 parameters, 1.1 % of an attention layer",
        SIZE,
        rule="counted",
        **about(counts, "more_parameters", "eit", "eit, formula"),
    ),
    Claim(
        "work through M² maps is as computed",
        "Written plainly a layer takes 4 N D² + N² (M D + all weights of the convolutions + D) multiply-adds",
        "the equations; the abstract speaks of size only",
        rule="counted",
        **about(counts, "multiply_adds", "eit, plain", "eit, plain, formula"),
    ),
    Claim(
        "M² maps need not exist",
        "With the first convolution on the keys E-EIT takes 4 N D² + N d · its weights + N² (2 D + 2 M² + D)",
        "our rearrangement, eq. (7) of refattn.attention.eit",
        rule="counted",
        **about(counts, "multiply_adds", "eit efficient", "eit efficient, formula"),
    ),
    better(
        "E-EIT takes less than half the time",
        "A forward pass of the efficient variant takes less than half the time of full EIT",
        SHORTER,
        times,
        "eit efficient",
        "eit",
        metric="seconds",
        margin=0.5,
        relative=True,
    ),
)

CLAIMED = {"value": "a gain is claimed; the figure could not be consulted", "source": "abstract, unverified"}
paper = (
    PaperNumber(
        "BLEU against the Transformer", task="WMT14 English–German and others", size="base and deep", **CLAIMED
    ),
    PaperNumber("ROUGE", task="CNN/DailyMail", size="base", **CLAIMED),
    PaperNumber("F0.5", task="grammatical error correction", size="base", **CLAIMED),
    PaperNumber("perplexity", task="WikiText-103", size="large", **CLAIMED),
    PaperNumber(
        "more parameters, kernels 7 and 3",
        "11,344 a layer",
        "none",
        "width 512, 8 heads",
        "counted by us from the code",
    ),
)

EXPERIMENT = Experiment(
    "eit",
    "EIT: Enhanced Interactive Transformer",
    parts=(associated, narrow, neutral, lists, heads, counts, times),
    claims=claims,
    paper=paper,
    limits=(
        "BLEU, ROUGE, F0.5 and perplexity of the paper's tasks need models and data far beyond this size.",
        "The paper's tables could not be consulted, nor whether its runs used kernels of 7 and 3, the code's defaults.",
        "Associative recall favours kernels along keys by construction; recall without positions is blind to them.",
        "Two heads may agree because both have found the answer: a cosine of rows does not say what heads know.",
        "E-EIT is fixed by this project from a third party's reading; the paper's own may differ.",
        "Timings are taken on one machine: their interval says nothing about other machines.",
    ),
)
