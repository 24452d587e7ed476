"""Lesson 22, find the bug: layers that share weights, and a cache."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.edgeformer import answers
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant


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


class Products(TorchDispatchMode):
    """Multiply-adds of matrix products: of all together, and of the largest one."""

    FIRST = {"mm": 0, "mv": 0, "bmm": 0, "dot": 0, "addmm": 1, "addmv": 1, "baddbmm": 1}  # operator: its left factor
    total = largest = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        place = self.FIRST.get(operator.overloadpacket.__name__)
        if place is not None:
            found = result.numel() * args[place].shape[-1]
            self.total, self.largest = self.total + found, max(self.largest, found)
        return result


def multiplied(run, n=16, d=16):
    with Products() as products:
        run(*tokens([0, 1], n, d))
    return products


def fact_again(run, n=16, d=16):
    needed = 2 * sum(3 * d * d + 2 * t * d for t in range(1, n + 1))  # two layers: projections, then t keys and values
    if (found := multiplied(run).total) > 2 * needed:
        return (
            f"Every number is right. But {n} tokens, D = {d}, two layers took {found:,} multiply-adds; {needed:,} are "
            "enough."
        )


def fact_at_once(run, n=16, d=16):
    if (found := multiplied(run).largest) >= n * d * d:
        return (
            f"Every number is right. But with {n} tokens, D = {d}, one of your products has {found:,} multiply-adds; a "
            f"matrix and one token make {d * d}."
        )


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
        Variant("a cache for each attention", answers.stream_by_weights, lambda run: f"{small(run)}.", given=True),
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
    costs=(
        Property(
            "no token is computed twice",
            fact_again,
            """What token t has made once, keys and values of every layer, is made again for each later token.
            Try: how many products with W_k does token 1 need in all? What has to be kept so that it is one a layer?""",
            ALMOST,
        ),
        Property(
            "one token at a time",
            fact_at_once,
            """All tokens go through a matrix together. That is the parallel form; in a stream the next token is not
            there yet, since it is chosen from what this one gives.
            Try: a loop over tokens outside, over layers inside.""",
            ALMOST,
        ),
    ),
    hints=(
        "Layers with the same weights append to one list, and read each other's keys. How long is it after token t?",
        "Name a cache by the place that uses it: caches[layer], not caches[group].",
    ),
    passed="""Weights are shared; what a layer has seen is its own.
    Next: EdgeFormer's decoder borrows the encoder's weights. Which of its caches could be shared with the encoder?""",
)
