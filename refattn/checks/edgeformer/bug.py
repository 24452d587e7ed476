"""Lesson 22, find the bug: layers that share weights, and a cache."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.edgeformer import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def two_tokens():
    """Width 1, two layers of one attention: queries and keys 0, so that weights are equal; values are doubled."""
    return rows([1], [0]), [0, 0], [(rows([0]), rows([0]), rows([2]))]


def tokens(groups, n=5, d=4):
    return seeded(n, d), groups, [tuple(0.6 * seeded(d, d, seed=3 * g + i) for i in range(3)) for g in range(2)]


def small(run):
    return f"Two tokens, two layers of one attention: outputs must be [[9], [5]]; you return {show(run(*two_tokens()))}"


def in_parallel(x, groups, weights):
    """All tokens at once: what a stream must equal."""
    seen = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    for group in groups:
        x = x + answers.attend(*(x @ W.T.to(x.dtype) for W in weights[group]), seen)
    return x


def fact_parallel(run):
    for groups in ([0, 1], [0, 1, 0, 1]):
        args = tokens(groups)
        if not equal([run(*args)], [in_parallel(*args)]):
            return f"Layers of groups {groups}: your last token differs from the parallel form's."


stream = Exercise(
    "edgeformer.stream",
    answers.stream,
    returns="outputs of the last layer [N, D]",
    probes=(
        Probe("Two tokens 1 and 0, two layers that share one attention with equal weights, v = 2x.", two_tokens),
        Probe("Five tokens, D = 4, four layers that use attentions 0, 1, 0, 1.", lambda: tokens([0, 1, 0, 1])),
        Probe("The same with two layers, 0 and 1.", lambda: tokens([0, 1])),
    ),
    variants=(
        Variant(
            "a cache for each attention",
            answers.stream_by_weights,
            lambda run: f"{small(run)}.",
            """Right as long as nobody shares. Two layers with the same weights append to one list here, so each reads
            the other's keys.
            Try: how many entries has each layer seen after t tokens?""",
        ),
        Variant(
            "one cache for all",
            answers.stream_one_cache,
            lambda run: f"{small(run)}.",
            """Now all layers append to one list, whatever their weights.
            Try: how many lists are needed for four layers?""",
        ),
        Variant(
            "keys of the first layer's input",
            answers.stream_first_input,
            lambda run: f"{small(run)}.",
            """No layer sees another's entries any more. But a layer's keys are made of what enters that layer, not of
            what entered the network.
            Try: which x do W_k and W_v read in layer 2?""",
        ),
    ),
    properties=(Property("it equals the parallel form", fact_parallel, "Token by token. Try: one layer."),),
    hints=(
        "Print the length of each cache after token t. What should it be?",
        "Name a cache by the place that uses it: caches[layer], not caches[group].",
    ),
    passed="""Weights are shared; what a layer has seen is its own.
    Next: EdgeFormer's decoder borrows the encoder's weights. Which of its caches could be shared with the encoder?""",
)
