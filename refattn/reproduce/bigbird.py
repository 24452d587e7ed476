"""Who can hear whom: what a pattern lets through in one and in two layers, predicted from its mask, and measured.

Papers: Zaheer et al., "Big Bird", NeurIPS 2020 (arXiv 2007.14062); and of the patterns beside it, Longformer (arXiv
2004.05150), Sparse Transformer (arXiv 1904.10509) and the local attention of the Long Range Arena (arXiv 2011.04006).

One token of 64 has a colour, and every position is asked for it. A position that can hear the token through L layers
(see `refattn.reachability`) can learn to name its colour; one that cannot is right for one of C colours. So

    accuracy = ρ + (1 − ρ) / C,        ρ: share of pairs (asked, coloured) in the pattern's L-th boolean power      (1)

is what a perfectly trained model has, a number that needs no training; nothing can be above it unless something leaks.
Rules, margins and seeds were fixed before the recorded runs. Settings are the same for all, and not searched. All
models have the same weights layer by layer, but Longformer's second set of projections, for which its feed-forward net
is narrower.
"""

from functools import partial

from refattn import attention, data, reachability
from refattn.models import Classifier
from refattn.reproduce.claims import not_worse
from refattn.reproduce.costs import layer_counts
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- Patterns and models ---------------------------------------------------------------------------------------------

TOKENS, COLOURS, WIDTH, HEADS = 64, 8, 32, 2

PATTERNS = {  # name: (mechanism, options)
    "softmax": ("softmax", {}),
    "local blocks": ("local", {"window": 8, "look_backward": 0, "look_forward": 0}),
    "local windows": ("local", {"window": 4}),
    "longformer w": ("longformer", {"window": 4, "global_tokens": ()}),
    "longformer w+g": ("longformer", {"window": 4, "global_tokens": (0,)}),
    "bigbird": ("bigbird", {"block": 4, "random_blocks": 2, "seed": 0}),  # the same random blocks for every seed
    "sparse_transformer strided": ("sparse_transformer", {"pattern": "strided", "stride": 8}),
    "sparse_transformer fixed": ("sparse_transformer", {"pattern": "fixed", "stride": 8, "num_summary": 1}),
}


def feed_forward_width(name):
    """Hidden width of the feed-forward nets: 48 less pay for Longformer's W^g, 3 D² + 3 D."""
    return 48 if name.endswith("+g") else 96


def listener(task, seed, *, name, num_layers):
    """Names the colour at every position. No positions: whether a blank stands there says all."""
    mechanism, options = PATTERNS[name]
    sizes = {"embed_dim": WIDTH, "num_heads": HEADS, "num_layers": num_layers, "ffn_dim": feed_forward_width(name)}
    places = {"positions": "none", "max_len": task.max_len, "pool": "none", "seed": seed}
    made = {"attention": mechanism, "attention_options": options}
    return Classifier(task.vocab_size, task.num_classes, **sizes, **places, **made)


def scanner(task, seed, *, attention, options=None, embed_dim=WIDTH, num_heads=HEADS, ffn_dim=96):
    """Classifies images read pixel by pixel: grey levels as ids, or as real numbers."""
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "ffn_dim": ffn_dim, "num_layers": 2, "norm": "post"}
    places = {"positions": "learned", "max_len": task.max_len, "seed": seed}
    facts = {"vocab_size": task.vocab_size, "input_dim": None if task.vocab_size else 1}
    made = {"attention": attention, "attention_options": options}
    return Classifier(num_classes=task.num_classes, **facts, **sizes, **places, **made)


def allowed(name, tokens=TOKENS):
    """The mask of a pattern, bool [N, N], its heads united."""
    mechanism, options = PATTERNS[name]
    return reachability.pattern(attention.build(mechanism, WIDTH, HEADS, **options), tokens)


def predicted(name, num_layers):
    """Eq. (1) from the mask alone."""
    heard = reachability.density(reachability.reach(allowed(name), num_layers))
    return round(heard + (1 - heard) / COLOURS, 4)


# ---- Comparisons -----------------------------------------------------------------------------------------------------

FAST = {"lr": 3e-3, "weight_decay": 0.0, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}
ASKED = {"length": TOKENS, "num_colours": COLOURS, "asked": "all"}
GLOBAL = ("softmax", "longformer w", "longformer w+g")


def heard_in(num_layers, words, plans):
    """All patterns on the colour task, with so many layers."""
    return Comparison(
        f"the colour, {words}",
        f"every one of 64 positions names the colour of the one token that has any, through {words}",
        task=data.colour,
        variants={name: partial(listener, name=name, num_layers=num_layers) for name in PATTERNS},
        baseline="softmax",
        metric="accuracy",
        training=FAST,
        plans=plans,
    )


one_layer = heard_in(1, "one layer", {"quick": Plan(8, 150, ASKED)})
two_layers = heard_in(2, "two layers", {"demo": Plan(3, 60, ASKED, GLOBAL), "quick": Plan(8, 100, ASKED)})

neutral = Comparison(
    "digits, pixel by pixel",
    "handwritten digits as sequences of 64 grey levels: no pattern was made for them",
    task=partial(data.digits, as_sequence=True),
    variants={
        "softmax": partial(scanner, attention="softmax"),
        "bigbird": partial(scanner, attention="bigbird", options=PATTERNS["bigbird"][1]),
    },
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 400, {"batch_size": 64})},
    neutral=True,
)

LARGE = {"embed_dim": 64, "num_heads": 4, "ffn_dim": 256}

long_pixels = Comparison(
    "FashionMNIST, pixel by pixel",
    "images of clothes as sequences of 784 grey levels, two epochs; blocks of 28 are rows of the image",
    task=partial(data.fashion_mnist, as_sequence=True),
    variants={
        "softmax": partial(scanner, attention="softmax", **LARGE),
        "bigbird": partial(scanner, attention="bigbird", options={"block": 28, "random_blocks": 3, "seed": 0}, **LARGE),
    },
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"colab": Plan(3, 940, {"batch_size": 128}, dry={"size": 7, "train_size": 128, "test_size": 8})},
    neutral=True,
)

# ---- Counts ----------------------------------------------------------------------------------------------------------

LAYERS = {"softmax": ("softmax", {}), "bigbird": ("bigbird", {"block": 64, "random_blocks": 3, "max_len": 8192})}


def count_costs(layers, ns, dim, heads):
    """Multiply-adds of one layer at each length, counted, beside the formula of the claim."""
    block, random_blocks = layers["bigbird"][1]["block"], layers["bigbird"][1]["random_blocks"]
    variants = layer_counts(layers, ns, dim, heads)

    def scores(n):  # pairs that are compared: two blocks with all tokens, the others with 5 + r blocks
        return 2 * block * n + (n - 2 * block) * (5 + random_blocks) * block

    variants["formula"] = {"multiply_adds": [4 * n * dim**2 + 2 * scores(n) * dim for n in ns]}
    return {"ns": list(ns), "variants": variants}


layer = {"layers": LAYERS, "dim": 64, "heads": 4}
counted = Plan(sizes=layer | {"ns": (1024, 2048, 4096, 8192)}, dry={"ns": (1024, 2048)})

counts = Measurement(
    "counts",
    "one layer of width 64 with 4 heads, blocks of 64 tokens, 3 random blocks",
    count_costs,
    plans={"demo": counted, "quick": counted, "colab": counted},
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

CLOSED = {  # where the statement about two layers comes from
    "local blocks": "the mask: no number of layers connects separate blocks",
    "local windows": "the mask: a window's reach grows by its width in each layer",
    "longformer w": "the mask: a window's reach grows by its width in each layer",
    "longformer w+g": "Longformer: local windows with a task-motivated global attention (abstract)",
    "bigbird": "BigBird: global tokens are what its proofs need (abstract)",
    "sparse_transformer strided": "two patterns connect any two positions in two steps (recalled)",
    "sparse_transformer fixed": "two patterns connect any two positions in two steps (recalled)",
}


def as_predicted(part, name, num_layers, words):
    level = predicted(name, num_layers)
    return Claim(
        f"{words}: {name}",
        f"Through {words}, {name} names {level:.1%} of colours: those it can hear, and one in 8 of the others; within "
        "5 points",
        "the mask: one layer hears what it reads" if num_layers == 1 else CLOSED[name],
        rule="equivalence",
        task=part.name,
        metric="accuracy",
        method=name,
        bound=level,
        margin=0.05,
    )


EXPRESSIVE = "BigBird: sparse attention keeps the expressive power of full attention (abstract)"

claims = (
    *(as_predicted(one_layer, name, 1, "one layer") for name in CLOSED),
    *(as_predicted(two_layers, name, 2, "two layers") for name in CLOSED),
    Claim(
        "one global token is enough",
        "Through two layers, a window with one global token names more colours than the window alone",
        CLOSED["longformer w+g"],
        rule="superiority",
        task=two_layers.name,
        metric="accuracy",
        method="longformer w+g",
        baseline="longformer w",
    ),
    not_worse(
        "no loss on a neutral task",
        "BigBird reads digits pixel by pixel no worse than softmax attention, by a margin of 2 points",
        EXPRESSIVE,
        neutral,
        "bigbird",
        "softmax",
        margin=0.02,
    ),
    not_worse(
        "no loss at 784 tokens",
        "BigBird reads FashionMNIST pixel by pixel no worse than softmax attention, by a margin of 2 points",
        EXPRESSIVE,
        long_pixels,
        "bigbird",
        "softmax",
        margin=0.02,
    ),
    Claim(
        "work is as computed",
        "A layer takes 4 N D² + 2 D (2 b N + (N − 2 b)(5 + r) b) multiply-adds: linear in N",
        "BigBird: linear in the number of tokens (abstract), with the count of the equations",
        rule="counted",
        task=counts.name,
        metric="multiply_adds",
        method="bigbird",
        baseline="formula",
    ),
)

LRA = {"task": "LRA, Text and Retrieval", "size": "as LRA sets it", "source": "README of the LRA repository"}
paper = (
    PaperNumber("accuracy, BigBird", "64.02 %, 59.29 %", **LRA),
    PaperNumber("accuracy, Longformer", "62.85 %, 56.89 %", **LRA),
    PaperNumber("accuracy, Sparse Transformer", "63.58 %, 59.59 %", **LRA),
    PaperNumber("accuracy, Local", "52.98 %, 53.39 %", **LRA),
    PaperNumber("accuracy, softmax", "64.27 %, 57.46 %", **LRA),
)

EXPERIMENT = Experiment(
    "bigbird",
    "Big Bird: Transformers for Longer Sequences",
    parts=(one_layer, two_layers, neutral, long_pixels, counts),
    claims=claims,
    paper=paper,
    limits=(
        "One colour has to pass; how much a token can pass on from many others at once is another question.",
        "Sixty-four tokens and two layers: reach is a necessary condition, and at length 4,096 perhaps not sufficient.",
        "LRA's local and Sinkhorn attention group every n-th token, not neighbours, and its Longformer has no global "
        "token: its numbers are not those of the patterns here.",
        "Universal approximation and Turing completeness are theorems; no run of any size tests them.",
    ),
)
