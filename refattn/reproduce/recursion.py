"""Networks of SReT's experiment, equally large within a comparison, and counts of what the published ones cost."""

from functools import partial

import torch

from refattn import measure
from refattn.layers.sliced import sliced_attention
from refattn.models.sret import RecursiveClassifier
from refattn.models.sret_pyramid import SReT, published
from refattn.reproduce.image_costs import multiply_adds

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------


def chaser(task, seed, *, embed_dim=32, **stage):
    """Classifies every token of a pointer map."""
    facts = {"num_classes": task.num_classes, "max_len": task.max_len, "pool": "none"}
    return RecursiveClassifier(task.vocab_size, embed_dim=embed_dim, num_heads=2, seed=seed, **facts, **stage)


def reader(task, seed, **stage):
    """Digits as 64 tokens of width 16. With h = 32 a pass costs as much for its maps as for its weights."""
    shape = {"channels": 1, "widths": (16,), "heads": (2,), "stem_strides": (1,), "nll_ratio": None}
    return SReT(8, task.num_classes, seed=seed, ffn_hidden=32, **shape, **stage)


def painter(task, seed, *, width=64, heads=2, **stage):
    """Photographs as 16 × 16 tokens, or clothes as 14 × 14."""
    channels, size = task.test["inputs"].shape[1:3]
    shape = {"channels": channels, "widths": (width,), "heads": (heads,), "stem_strides": (1, 2), "nll_ratio": None}
    return SReT(size, task.num_classes, seed=seed, **shape, **stage)


NLL = {"ffn_hidden": 64, "nll_hidden": 32}
WIDE = {"ffn_hidden": 131}  # as many parameters, without NLL
CHASERS = {
    "1 pass": partial(chaser, loops=1, **WIDE),
    "2 passes": partial(chaser, loops=2, **WIDE),
    "4 passes": partial(chaser, loops=4, **WIDE),
    "2 blocks": partial(chaser, blocks=2, loops=1, ffn_hidden=32),
    "2 passes, NLL": partial(chaser, loops=2, **NLL),
    "2 passes, NLL, plain residuals": partial(chaser, loops=2, coefficients=False, **NLL),
    "2 passes, NLL, slices 2-1": partial(chaser, loops=2, groups=(2, 1), **NLL),
    "2 passes, NLL, slices 2-2": partial(chaser, loops=2, groups=(2, 2), **NLL),
}
READERS = {
    "1 pass": partial(reader, loops=1),
    "2 passes": partial(reader, loops=2),
    "2 passes, slices 4-2": partial(reader, loops=2, groups=(4, 2)),
    "3 passes, slices 4-4-2": partial(reader, loops=3, groups=(4, 4, 2)),
}
SMALL = {"embed_dim": 16, "ffn_hidden": 32}
DEEP = {
    "1 pass, tokens alone": partial(chaser, loops=1, groups=(8,), **SMALL),
    "100 passes": partial(chaser, loops=100, **SMALL),
    "100 passes, plain residuals": partial(chaser, loops=100, coefficients=False, **SMALL),
}
PAINTERS = {
    "1 pass": partial(painter, blocks=2, loops=1, ffn_hidden=259),
    "2 passes": partial(painter, blocks=2, loops=2, ffn_hidden=259),
    "2 passes, NLL": partial(painter, blocks=2, loops=2, ffn_hidden=128, nll_hidden=64),
    "2 passes, NLL, slices 4-2": partial(painter, blocks=2, loops=2, ffn_hidden=128, nll_hidden=64, groups=(4, 2)),
    "4 blocks": partial(painter, blocks=4, loops=1, ffn_hidden=64),
}
CLOTHES = {"width": 48, "heads": 3, "ffn_hidden": 96}
SKETCHERS = {
    "1 pass": partial(painter, loops=1, **CLOTHES),
    "2 passes": partial(painter, loops=2, **CLOTHES),
    "2 passes, slices 4-2": partial(painter, loops=2, groups=(4, 2), **CLOTHES),
}

# ---- Counts ----------------------------------------------------------------------------------------------------------

REPORTED = {  # model: (MACs in 0.1 G, parameters in 0.1 M), from the table of the authors' repository
    ("T", True): (11, 48),
    ("T", False): (14, 48),
    ("LT", True): (12, 50),
    ("LT", False): (14, 50),
    ("LT-16-14-1", True): (12, 50),
    ("S", True): (42, 209),
    ("S", False): (47, 209),
}


def count_published(image_size):
    """Multiply-adds and parameters of the paper's models, counted on what runs, beside what the authors report."""
    exact = {"multiply_adds": [], "parameters": []}
    for name, sliced in REPORTED:
        with torch.device("meta"):
            model = published(name, image_size, sliced=sliced)
        exact["multiply_adds"].append(sum(multiply_adds(model).values()))
        exact["parameters"].append(measure.count_parameters(model))
    rounded = [[round(n / unit) for n in exact[name]] for name, unit in (("multiply_adds", 1e8), ("parameters", 1e5))]
    reported = [list(column) for column in zip(*REPORTED.values(), strict=True)]
    metrics = ("hundred_million_multiply_adds", "hundred_thousand_parameters")
    variants = {
        "counted": exact | dict(zip(metrics, rounded, strict=True)),
        "reported": dict(zip(metrics, reported, strict=True)),
    }
    return {"models": [f"{name}{'' if sliced else ' unsliced'}" for name, sliced in REPORTED], "variants": variants}


def count_slices(tokens, dim, heads, groups):
    """Multiply-adds of attention for passes with these groups, and for one pass over all tokens."""
    q = torch.empty(1, heads, tokens, dim // heads, device="meta")
    passes = [[measure.flops(sliced_attention, q, q, q, g) // 2 for g in counts] for counts in groups]
    whole = measure.flops(sliced_attention, q, q, q, 1) // 2
    variants = {"passes": [sum(numbers) for numbers in passes], "one global pass": [whole] * len(groups)}
    return {"groups": groups, "variants": {name: {"multiply_adds": numbers} for name, numbers in variants.items()}}
