"""Wide Attention's claims in miniature: the same heads in one layer or in six, for ten mechanisms.

Paper: Brown et al., "Wide Attention Is The Way Forward For Transformers?", 2022 (arXiv 2210.00640).

Rules, margins and seeds were fixed before the recorded runs. Equal terms are those of the paper: heads in all, width of
a head and of the MLP, data, steps. A wide network has fewer weights, which is the point; one of them is also given as
many as the deep one. Training settings are the same for all shapes and not searched, but for the look-ups: there they
are lesson 21's, taken after a look at two shapes, one seed each, of which neither learned anything at the others.

The grid was first recorded with three seeds, which decided text (ten mechanisms +0.66 points [−1.37, 2.68]) and left
lists open (+1.32 [−2.16, 4.79]). Then eight were declared, once and whatever they show; rules and margins stayed. Costs
of the grid's networks, with their claims, were declared with them, before any was measured.
"""

from functools import partial

from refattn import data
from refattn.models.transformer import Classifier
from refattn.models.vit import ViT
from refattn.models.wide_attention import WideClassifier, shapes
from refattn.reproduce.aspect_ratio import Grid, count_shapes, explain, grid, time_shapes, weigh_grid
from refattn.reproduce.claims import better, not_worse
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- Models ----------------------------------------------------------------------------------------------------------

SMALL = {"embed_dim": 32, "head_dim": 8, "ffn_dim": 64}
LARGE = {"embed_dim": 128, "head_dim": 16, "ffn_dim": 512}
FULL = {"embed_dim": 512, "head_dim": 64, "ffn_dim": 2048}  # the Long Range Arena's default encoder
TEN = ("softmax", "local", "sparse_transformer", "longformer", "linformer", "sinkhorn", "synthesizer", "bigbird")
TEN += ("linear", "performer")  # what the Long Range Arena compares, without Reformer
FOUR = ("softmax", "linear", "local", "synthesizer")
SHAPES = shapes(12, (6, 3, 2, 1))
WIDEST, DEEPEST = (1, 12), (6, 2)


def reach(tokens, block):
    """What mechanisms with patterns or tables are told, for sequences of so many tokens (CLS included)."""
    return {
        "local": {"window": block},
        "sparse_transformer": {"stride": block, "num_summary": 2},
        "longformer": {"window": block},
        "linformer": {"max_len": tokens, "projected_len": 2 * block},
        "sinkhorn": {"block": block, "max_len": tokens},
        "synthesizer": {"max_len": tokens},
        "bigbird": {"block": block // 2, "random_blocks": 1, "max_len": tokens},
    }


def reader(task, seed, *, mechanism="softmax", shape, sizes=SMALL, block=8):
    """The Long Range Arena's encoder on whole sequences."""
    layers, heads = shape
    tokens = task.max_len + 1
    options = {"attention_options": reach(tokens, block).get(mechanism), "max_len": tokens, "seed": seed}
    facts = {"vocab_size": task.vocab_size, "num_classes": task.num_classes}
    return WideClassifier(**facts, attention=mechanism, num_layers=layers, num_heads=heads, **sizes, **options)


def follower(task, seed, *, shape):
    """The same heads for a question at every token."""
    (layers, heads), free = shape, {"head_dim": SMALL["head_dim"], "bias": False}
    sizes = {"embed_dim": SMALL["embed_dim"], "ffn_dim": SMALL["ffn_dim"], "positions": "learned", "pool": "none"}
    places = {"max_len": task.max_len, "attention_options": free, "seed": seed}
    return Classifier(task.vocab_size, task.num_classes, num_layers=layers, num_heads=heads, **sizes, **places)


def viewer(task, seed, *, shape):
    """A vision transformer on patches of 4 × 4 pixels."""
    (layers, heads), free = shape, {"head_dim": LARGE["head_dim"], "bias": False}
    sizes = {"embed_dim": LARGE["embed_dim"], "ffn_dim": LARGE["ffn_dim"], "attention_options": free}
    return ViT(28, task.num_classes, num_layers=layers, num_heads=heads, seed=seed, **sizes)


def of_shapes(make, *wanted):
    return {f"{layers}×{heads}": partial(make, shape=(layers, heads)) for layers, heads in wanted}


# ---- Comparisons -----------------------------------------------------------------------------------------------------

STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}
PASSAGES = {"length": 32, "test_size": 2000}
LISTS = {"num_train": 6000, "num_test": 2000}
EQUAL_WEIGHTS = {"sizes": SMALL | {"ffn_dim": 264}}  # as many as the deepest has, all of them in the MLP
WHOLE = {"ten": TEN, "nine": TEN[1:]}

pages = Comparison(
    "help pages",
    "which of eight help pages 32 bytes are from: telling words, as in reviews; text was not made for either shape",
    task=data.help_pages,
    variants=of_shapes(reader, DEEPEST, WIDEST)
    | {"1×12, as many weights": partial(reader, shape=WIDEST, **EQUAL_WEIGHTS)},
    baseline="6×2",
    metric="accuracy",
    training=STEADY,
    plans={"demo": Plan(3, 80, PASSAGES, variants=("6×2", "1×12")), "quick": Plan(8, 150, PASSAGES)},
    neutral=True,
)

lists = Comparison(
    "ListOps",
    "value of a nested list, depth ≤ 3, < 32 tokens",
    task=data.listops,
    variants=of_shapes(reader, DEEPEST, WIDEST),
    baseline="6×2",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 150, LISTS)},
)

look_ups = Comparison(
    "look-ups that need look-ups",
    "follow a random map of 8 places for 3 hops; a layer can follow one more hop than it is told, so depth counts",
    task=partial(data.pointers, hops=3),
    variants=of_shapes(follower, (2, 6), WIDEST),
    baseline="2×6",
    metric="accuracy",
    training={"lr": 5e-3, "weight_decay": 0.01, "warmup": 50, "clip": 1.0},  # lesson 21's, for the same task
    plans={"quick": Plan(8, 300, {"symbols": 8, "test_size": 1000})},
)

ten_pages = Grid(
    "help pages, ten mechanisms",
    "the same passages, four shapes",
    task=data.help_pages,
    **grid(reader, TEN, SHAPES, WHOLE),
    baseline="softmax 6×2",
    metric="accuracy",
    training=STEADY,
    plans={"study": Plan(8, 150, PASSAGES, dry={"test_size": 32})},
    neutral=True,
)

ten_lists = Grid(
    "ListOps, ten mechanisms",
    "the same lists, four shapes",
    task=data.listops,
    **grid(reader, TEN, SHAPES, WHOLE),
    baseline="softmax 6×2",
    metric="accuracy",
    training=STEADY,
    plans={"study": Plan(8, 150, LISTS, dry={"num_train": 64, "num_test": 32})},
)

larger = grid(partial(reader, sizes=LARGE, block=32), FOUR, shapes(32, (4, 1)), {"four": FOUR})
longer_pages = Grid(
    "longer passages, four mechanisms",
    "256 bytes, networks of the Long Range Arena's shape",
    task=data.help_pages,
    **larger,
    baseline="softmax 4×8",
    metric="accuracy",
    training={"lr": 1e-3, "weight_decay": 0.01, "clip": 1.0},
    plans={"colab": Plan(3, 1000, {"length": 256, "test_size": 2000}, dry={"length": 24, "test_size": 16})},
    neutral=True,
)

longer_lists = Grid(
    "longer lists, four mechanisms",
    "ListOps, 30 to 256 tokens, depth ≤ 6",
    task=partial(data.listops, max_depth=6, max_args=6, min_len=29, max_len=257),
    **larger,
    baseline="softmax 4×8",
    metric="accuracy",
    training={"lr": 1e-3, "weight_decay": 0.01, "clip": 1.0},
    plans={"colab": Plan(3, 1000, LISTS, dry={"min_len": 4, "max_len": 32, "num_train": 64, "num_test": 16})},
)

clothes = Comparison(
    "pictures of clothes",
    "FashionMNIST in patches",
    task=data.fashion_mnist,
    variants=of_shapes(viewer, (4, 8), (1, 32)),
    baseline="4×8",
    metric="accuracy",
    training={"lr": 1e-3, "weight_decay": 0.01, "clip": 1.0},
    plans={"colab": Plan(3, 1500, {"batch_size": 128}, dry={"train_size": 64, "test_size": 16, "batch_size": 8})},
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

PUBLISHED = {"vocab_size": 257, "num_classes": 2} | FULL
counting = {"shapes": shapes(48, (6, 3, 2, 1)), "tokens": 1000, "sizes": PUBLISHED}
counted = Plan(sizes=counting, dry={"tokens": 16})
timing = {"shapes": [(6, 8), (1, 48)], "sizes": PUBLISHED, "min_seconds": 0.05}
instant = {"ns": (4, 8, 16), "rounds": 1, "min_seconds": 0.0, "sizes": PUBLISHED | {"embed_dim": 32, "head_dim": 8}}

counts = Measurement(
    "counts",
    "bytes of text, the Long Range Arena's default encoder: 48 heads of 64, D = 512",
    count_shapes,
    plans={budget: counted for budget in ("demo", "quick", "colab", "study")},
)

times = Measurement(
    "times",
    "seconds of a forward pass of that encoder, one sequence, one thread",
    time_shapes,
    plans={
        "quick": Plan(sizes=timing | {"ns": (32, 128, 512, 1000), "rounds": 5}, dry=instant),
        "colab": Plan(sizes=timing | {"ns": (128, 512, 1000, 4000), "rounds": 7, "device": "auto"}, dry=instant),
    },
)

weighing = {"mechanisms": TEN, "groups": WHOLE, "vocab_size": 257, "num_classes": 2, "rounds": 7}
own = weighing | {"shapes": SHAPES, "tokens": 32, "vocab_size": 128, "num_classes": 8, "min_seconds": 0.2}
full = weighing | {"shapes": counting["shapes"], "tokens": 1000, "min_seconds": 0.05}
glance = {"rounds": 1, "min_seconds": 0.0}

grid_costs = Measurement(
    "costs of the grid",
    "weights, bytes kept for training, seconds for one passage, one thread: the very networks of the grid",
    partial(weigh_grid, reader),
    plans={"study": Plan(sizes=own, dry=glance)},
)

full_costs = Measurement(
    "costs of ten mechanisms",
    "the same for the Long Range Arena's default encoder, 48 heads of 64, D = 512, and 1,000 bytes",
    partial(weigh_grid, partial(reader, sizes=FULL, block=64)),
    plans={"study": Plan(sizes=full, dry=glance | {"tokens": 64})},
)

explained = Measurement(
    "what weights explain",
    "rank agreement of what one reads off a network with what hiding each token does to its answer",
    partial(explain, partial(data.help_pages, **PASSAGES), reader, WIDEST, DEEPEST, training=STEADY),
    plans={
        "study": Plan(
            sizes={"seeds": tuple(range(8)), "steps": 150, "examples": 64},
            dry={"seeds": (0, 1, 2), "steps": 2, "examples": 8},
        )
    },
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

POINTS = 0.015
ON_AVERAGE = "claims 1 to 3: +0.3 % over 4 tasks and 10 mechanisms, +0.4 % for softmax alone (abstract, introduction)"
SMALLER = "claim 4: 1.4 times smaller on average, half the size on IMDb bytes (introduction)"
FASTER = "claim 5: 3.1 times faster on a CPU, 1.9 times on a GPU (abstract)"
READABLE = "claim 6: the only layer's weights show which tokens are used (introduction)"
OURS = "our question: is it the shape, or the size?"


def exactly(name, statement, metric):
    rest = {"rule": "counted", "task": counts.name, "method": "network", "baseline": "formula"}
    return Claim(name, statement, SMALLER, metric=metric, **rest)


def readable(name, statement, method, baseline):
    rest = {"rule": "superiority", "task": explained.name, "metric": "agreement"}
    return Claim(name, statement, READABLE, method=method, baseline=baseline, **rest)


COSTS = {"metric": "seconds", "relative": True}
SAME = "with all heads in one layer accuracy is no worse than in the deepest shape, by a margin of 1.5 points"
deep, wide = "6×2", "1×12"
claims = (
    not_worse("softmax, on text", f"Softmax attention: {SAME}", ON_AVERAGE, pages, wide, deep, margin=POINTS),
    not_worse(
        "wide is no worse for its size",
        "One layer is no worse than one layer whose MLP has all the weights that the deepest shape has, by 1.5 points",
        OURS,
        pages,
        wide,
        "1×12, as many weights",
        margin=POINTS,
    ),
    not_worse("softmax, on lists", f"Softmax attention: {SAME}", ON_AVERAGE, lists, wide, deep, margin=POINTS),
    not_worse(
        "one layer looks up twice",
        "Where a look-up needs the result of another, one layer is no worse than two, by 1.5 points",
        "our question: what depth is for",
        look_ups,
        wide,
        "2×6",
        margin=POINTS,
    ),
    *(
        not_worse(
            f"{label}, {where}", f"{who}: {SAME}", ON_AVERAGE, part, f"{group} {wide}", f"{group} {deep}", margin=POINTS
        )
        for part, where in ((ten_pages, "grid of text"), (ten_lists, "grid of lists"))
        for group, label, who in (
            ("ten", "ten mechanisms", "Mean of ten mechanisms"),
            ("softmax", "softmax", "Softmax attention alone"),
            ("nine", "nine mechanisms", "Mean of the nine without softmax"),
        )
    ),
    *(
        not_worse(
            f"four mechanisms, {where}",
            f"Mean of four mechanisms: {SAME}",
            ON_AVERAGE,
            part,
            "four 1×32",
            "four 4×8",
            margin=POINTS,
        )
        for part, where in ((longer_pages, "longer text"), (longer_lists, "longer lists"))
    ),
    not_worse(
        "pictures, too",
        "On pictures one layer is no worse than four, by 1.5 points",
        "claim 9, the contrary: widening costs accuracy on images (recalled, unverified)",
        clothes,
        "1×32",
        "4×8",
        margin=POINTS,
    ),
    exactly("the size follows from the shape", "All weights are those of the formula", "weights"),
    exactly("attention has the same weights in every shape", "4 D T d_h, whatever L", "attention_weights"),
    exactly("so does the work", "Multiply-adds of the blocks are those of the formula", "multiply_adds"),
    Claim(
        "wide is faster",
        "On this processor one wide layer answers sooner than six, at batch 1",
        FASTER,
        rule="superiority",
        relative=True,
        **{"task": times.name, "metric": "seconds", "method": "1×48", "baseline": "6×8"},
    ),
    Claim(
        "3.1 times as fast",
        "It takes less than a share of 1 / 3.1 of the time",
        FASTER,
        rule="superiority",
        margin=0.677,
        relative=True,
        **{"task": times.name, "metric": "seconds", "method": "1×48", "baseline": "6×8"},
    ),
    *(
        better(
            f"ten mechanisms, {name}", what, FASTER, part, f"ten {shape[1]}", f"ten {shape[0]}", **COSTS, margin=least
        )
        for part, where, shape in (
            (full_costs, "published size", ("6×8", "1×48")),
            (grid_costs, "our size", ("6×2", "1×12")),
        )
        for name, what, least in (
            (f"faster, {where}", f"Over ten mechanisms one layer answers sooner than six, at batch 1, {where}", 0.0),
            (f"3.1 times, {where}", f"It takes less than a share of 1 / 3.1 of the time, {where}", 0.677),
        )
    ),
    readable(
        "weights explain more than a last layer's",
        "Weights of the only layer agree better with the effect of hiding a token than those of a sixth layer",
        f"{wide}, weights",
        f"{deep}, last layer",
    ),
    readable(
        "weights explain more than a rollout",
        "Weights of the only layer agree better with that effect than the product of six layers' maps",
        f"{wide}, weights",
        f"{deep}, rollout",
    ),
)

ABSTRACT, LEADERBOARD = "abstract", "results table of the Long Range Arena's repository"
SMALL_TASKS = {"task": "IMDb words, IMDb bytes, ListOps, document matching", "size": "see the tasks' base models"}
BYTES = {"task": "IMDb, bytes", "size": "48 heads (recalled, unverified)"}
BASE = {"size": "4 to 6 layers"}
paper = (
    PaperNumber("gain of the widest shape, ten mechanisms", "+0.3 points", **SMALL_TASKS, source=ABSTRACT),
    PaperNumber("gain of the widest shape, softmax", "+0.4 points", **SMALL_TASKS, source="introduction"),
    PaperNumber("deep size / wide size, mean", "1.4", **SMALL_TASKS, source="introduction"),
    PaperNumber("deep size / wide size", "2", **BYTES, source=ABSTRACT),
    PaperNumber("deep seconds / wide seconds, CPU", "3.1", **BYTES, source=ABSTRACT),
    PaperNumber("deep seconds / wide seconds, GPU", "1.9", **BYTES, source=ABSTRACT),
    PaperNumber("accuracy, softmax, deep", "36.37 %", task="ListOps", **BASE, source=LEADERBOARD),
    PaperNumber("accuracy, softmax, deep", "64.27 %", task="IMDb, bytes", **BASE, source=LEADERBOARD),
)

EXPERIMENT = Experiment(
    "wide_attention",
    "Wide Attention Is The Way Forward For Transformers?",
    parts=(pages, lists, look_ups, ten_pages, ten_lists, longer_pages, longer_lists, clothes)
    + (counts, times, grid_costs, full_costs, explained),
    claims=claims,
    paper=paper,
    limits=(
        "A gain of 0.3 points is smaller than the spread of seeds: it takes dozens of runs on the real tasks.",
        "After a few hundred steps deep networks may be behind in training: what is shown is how soon, not how far.",
        "Mechanisms are those of their papers; the Long Range Arena's code has others by some of these names.",
        "At these lengths patterns and low ranks leave out little of the map.",
        "Timings are taken on one machine: 3.1 and 1.9 belong to the authors' hardware.",
    ),
)
