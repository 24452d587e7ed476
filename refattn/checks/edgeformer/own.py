"""Lesson 22, stretch: three ways for a layer to have something of its own, behind one interface."""

import torch

from refattn.attention.base import Projections
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.edgeformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.layers.adaptation import PrefixAttention, Prefixed


def identity(d):
    return {name: torch.eye(d) for name in "qkv"}


def prefixed():
    """Queries 0, so weights are equal; one prefix row of value 8, tokens 2 and 4, the second one padded."""
    W = {"q": rows([0]), "k": rows([1]), "v": rows([1])}
    return rows([2], [4]), torch.tensor([False, True]), W, {"prefix": (rows([5]), rows([8]))}


def bit():
    """D = 4; the adapter adds 1 to the first query of token 1, whose key 1 then weighs e^0.5 against 1."""
    x = rows([1, 0, 0, 0], [0, 1, 0, 0])
    W = {"q": torch.zeros(4, 4), "k": torch.eye(4), "v": torch.eye(4)}
    A, B = rows([1, 0, 0, 0]), rows([1, 0, 0, 0]).T
    return x, torch.zeros(2, dtype=torch.bool), W, {"adapter": (A, B, A, torch.zeros(4, 1))}


def all_of(*kinds, n=5, d=4, r=2, p=3):
    own = {
        "bias": {name: seeded(d, seed=i) for i, name in enumerate("qkv")},
        "adapter": tuple(0.5 * seeded(*shape, seed=9 + i) for i, shape in enumerate([(r, d), (d, r)] * 2)),
        "prefix": (seeded(p, d, seed=20), seeded(p, d, seed=21)),
    }
    W = {name: 0.7 * seeded(d, d, seed=30 + i) for i, name in enumerate("qkv")}
    return seeded(n, d, seed=40), torch.arange(n) >= n - 2, W, {kind: own[kind] for kind in kinds}


def small(run):
    found = show(run(*prefixed())[0])
    return f"A prefix of value 8, tokens 2 and (padded) 4, equal weights: token 1 must read [5]; yours reads {found}"


def lifted(run):
    found = show(run(*bit())[0, :2])
    return f"D = 4, the adapter adds 1 to a query: its weights must be [0.622, 0.378]; yours are {found}"


def first_row(run, kind):
    wanted, found = (show(function(*all_of(kind))[0]) for function in (answers.adapted_attention, run))
    return f"Five tokens, {kind} alone: row 1 must be {wanted}; yours is {found}."


def fact_nothing(run):
    x, padded, W, own = all_of("adapter")
    A_q, B_q, A_v, B_v = own["adapter"]
    tied = run(x, padded, W, {})
    empty = {"adapter": (A_q, 0 * B_q, A_v, 0 * B_v), "prefix": (x[:0], x[:0])}
    for kind, value in empty.items():
        if not equal([run(x, padded, W, {kind: value})], [tied]):
            return f"{kind}: with B = 0, or a prefix of length 0, the tied layer must come out; yours is another."


def fact_package(run):
    x, padded, W, own = all_of("prefix")
    layer = PrefixAttention(4, 1, projections=Prefixed(Projections(4, 1, bias=False, output=False), 3))
    maps = layer.projections
    with torch.no_grad():
        for name, linear in zip("qkv", (maps.query, maps.key, maps.value), strict=True):
            linear.weight.copy_(W[name])
        maps.prefix_keys.copy_(own["prefix"][0]), maps.prefix_values.copy_(own["prefix"][1])
        wanted = layer(x[None], key_padding_mask=padded[None])[0][0]
    error = (run(x, padded, W, own) - wanted).abs().max().item()
    if not error < 1e-4:
        return f"A prefix of 3, five tokens: you differ from refattn by {error:.2g}."


adapted_attention = Exercise(
    "edgeformer.adapted_attention",
    answers.adapted_attention,
    returns="outputs of one head [N, D]",
    probes=(
        Probe("One prefix row of value 8, tokens 2 and 4 (padded), all weights equal.", prefixed),
        Probe("D = 4, an adapter that lifts one query by 1.", bit),
        Probe("Five tokens, two padded, biases.", lambda: all_of("bias")),
        Probe("The same with adapters.", lambda: all_of("adapter")),
        Probe("The same with a prefix of 3.", lambda: all_of("prefix")),
        Probe("All three.", lambda: all_of("bias", "adapter", "prefix")),
    ),
    variants=(
        Variant(
            "mask shifted",
            answers.adapted_attention_shifted,
            lambda run: f"{small(run)}.",
            """The prefix stands in front, the mask was made longer at its end: it hides the wrong keys by p places.
            Try: print keys and mask side by side.""",
        ),
        Variant(
            "prefix hidden",
            answers.adapted_attention_hidden,
            lambda run: f"{small(run)}.",
            """Padding is hidden where it should be. But the prefix is hidden, too, and has no effect.
            Try: a prefix is never padding.""",
        ),
        Variant(
            "prefix projected",
            answers.adapted_attention_projected,
            lambda run: first_row(run, "prefix"),
            """Mask and order are right. Here prefix rows are keys and values already; W_k and W_v do not read them.
            Try: identity matrices, where you are right, against W = 2.""",
        ),
        Variant(
            "adapter after scaling",
            answers.adapted_attention_after_scaling,
            lambda run: f"{lifted(run)}.",
            """The low-rank map is right, but √D times too strong: it is added to a query that has been scaled.
            Try: add first, then divide q·k by √D.""",
        ),
        Variant(
            "adapter on keys",
            answers.adapted_attention_keys_too,
            lambda run: first_row(run, "adapter"),
            """Queries and values are adapted as they should be. Keys have no adapter in the authors' code.
            Try: which two maps does eq. 4 change?""",
        ),
        Variant(
            "adapter on queries alone",
            answers.adapted_attention_queries_only,
            lambda run: first_row(run, "adapter"),
            """Queries are adapted, and before they are scaled. Values have an adapter of their own.
            Try: which two maps does eq. 4 change?""",
        ),
        Variant(
            "padding heard",
            answers.adapted_attention_all_heard,
            lambda run: f"{small(run)}.",
            """What a layer has of its own is all there. But padded keys are read like others.
            Try: what does attend do with its fourth argument?""",
        ),
    ),
    properties=(
        Property("an adaptation without effect is the tied layer", fact_nothing, "All three only add. Try: B = 0."),
    ),
    numbers=(Property("it equals refattn", fact_package, "[P; W x], never masked. Try: p = 1."),),
    hints=(
        "Begin with q, k, v of the shared matrices. Each kind changes one step; none changes attend.",
        "F.pad(~padded, (len(P_k), 0), value=True) is the longer mask.",
    ),
    passed="""Three kinds, one interface, and none of them has any effect where it is empty.
    Next: the budget is 2,000 parameters, D = 32, four layers. Which kind, on which layers?""",
)
