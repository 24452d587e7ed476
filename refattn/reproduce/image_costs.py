"""What image classifiers and both forms of vicinity attention cost: multiply-adds by kind, and seconds in turn.

Counting is done on torch's meta device, shapes without numbers: a model of any size is counted in a moment, and what is
counted is what it runs.
"""

from bisect import bisect_left
from functools import partial

import torch

from refattn import measure
from refattn.attention.vicinity import OFFICIAL_CLAMP, vicinity_attention, vicinity_attention_explicit
from refattn.models.vicinity import published

CLAMPED = {"clamp": OFFICIAL_CLAMP}  # the authors' path: its only products are those of the formula
KINDS = {  # kind → operators
    "linear": ("aten.addmm", "aten.mm", "aten.linear"),
    "conv": ("aten.convolution",),
    "attention": ("aten.bmm", "aten.baddbmm"),  # products with two operands that both depend on the image
}


@torch.no_grad()
def multiply_adds(model):
    """{"linear", "conv", "attention": multiply-adds for one image} of a model with `channels` and `image_size`.

    Build the model under `torch.device("meta")`. Raises: ValueError for an operator that is of no kind.
    """
    images = torch.empty(1, model.channels, *model.image_size, device="meta")
    counts = measure.flops(model.eval(), images, by_operator=True)
    kinds = {operator: kind for kind, operators in KINDS.items() for operator in operators}
    unknown = sorted(set(counts) - set(kinds))
    if unknown:
        raise ValueError(f"model runs {', '.join(unknown)}: wanted only {', '.join(kinds)}")
    found = dict.fromkeys(KINDS, 0)
    for operator, flops in counts.items():
        found[kinds[operator]] += flops // 2
    return found


def count_pyramids(sides, name="tiny"):
    """Multiply-adds for one image of a published model, and of the same with softmax attention, by the image's side."""
    variants = {}
    for variant, attention, options in (("VVT", "vicinity", CLAMPED), ("softmax", "softmax", {})):
        with torch.device("meta"):
            model = published(name, attention=attention, attention_options=options)
        counts = [multiply_adds(model.set_image_size(side)) for side in sides]
        variants[variant] = {kind: [count[kind] for count in counts] for kind in counts[0]}
        variants[variant]["all"] = [sum(count.values()) for count in counts]
        if variant == "VVT":
            layers = [block.self_attention for stage in model.stages for block in stage.blocks]
            formula = [core(model.set_image_size(side).stages) for side in sides]
            variants["8 N D² / (H ρ²)"] = {"attention": formula, "layers": [len(layers)]}
    return {"ns": [side**2 for side in sides], "sides": list(sides), "variants": variants}


def core(stages):
    """8 N D² / (H ρ²) multiply-adds a layer, with d = D / (H ρ), over all layers of a pyramid."""
    layers = [(stage.grid, block.self_attention) for stage in stages for block in stage.blocks]
    return sum(8 * rows * columns * layer.num_heads * layer.head_dim**2 for (rows, columns), layer in layers)


def first_cheaper(head_dims):
    """The least N at which the linear form multiplies less than the explicit one, tokens in a single row."""

    def counted(function, n, d, **options):
        q, k, v = torch.empty(3, 1, 1, n, d, device="meta")
        return measure.flops(function, q, k, v, (1, n), **options)

    def first(d):
        def cheaper(n):
            return counted(vicinity_attention, n, d, **CLAMPED) < counted(vicinity_attention_explicit, n, d)

        lengths = range(1, 8 * d)  # one count grows with N, the other with N²: they cross once
        return lengths[bisect_left(lengths, True, key=cheaper)]

    found = {"linear form": {"first_n": [first(d) for d in head_dims]}}
    return {"variants": found | {"4 d + 1": {"first_n": [4 * d + 1 for d in head_dims]}}, "ns": list(head_dims)}


def forms_in_turn(ns, heads, dim, rounds, min_seconds):
    """Seconds of both forms of eq. (3) on the same queries, keys and values; every round at the last N as well."""
    functions = {"linear form": vicinity_attention, "quadratic form": vicinity_attention_explicit}
    found = {name: {"by_length": []} for name in functions}
    for n in ns:
        q, k, v = torch.randn(3, 1, heads, n, dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            calls = {name: partial(function, q, k, v, None) for name, function in functions.items()}
            times = measure.latency(calls, rounds=rounds, min_seconds=min_seconds)
        for name, record in found.items():
            record["by_length"].append(float(f"{times.seconds[name][0]:.4g}"))
            record["seconds"] = [float(f"{second:.4g}") for second in times.rounds[name]]
    return {"ns": list(ns), "variants": found}
