"""Mechanisms against softmax attention, in seconds: every cell is timed in one process, in alternation with its reference.

Two references stand beside each mechanism: torch's fused softmax attention, and the mechanism's *floor*, its own linear
layers on the same shapes with nothing between them. What is above the floor is what a better algorithm could still save.

    rows = bench.run(["linear", "luna"], [1024, 4096])
"""

import json
from pathlib import Path

import torch
from torch import nn

from refattn import attention, measure

PROBES = 256, 512  # lengths at which memory is counted, to foresee it at the lengths that are timed


def run(
    mechanisms,
    lengths,
    *,
    dim=64,
    heads=4,
    batch=1,
    rounds=7,
    causal=(False, True),
    backward=True,
    device="cpu",
    memory_limit=4 * 2**30,
    options=None,
    progress=print,
):
    """Time self-attention layers, forward and (unless `backward` is False) forward with backward.

    Args:
        mechanisms: names of `refattn.attention`; softmax joins them if it is not among them.
        lengths: numbers of tokens N.  dim, heads, batch: shape of the layers and of their input [batch, N, dim].
        rounds: times each cell is measured.  causal: which forms.
        memory_limit: bytes a call may need; a cell that would need more is skipped, and says so.
        options: {mechanism: keyword arguments of its constructor}.
        progress: called with each line of the table as soon as it is known, or None.

    Returns: a list of dicts with "mechanism", "n", "causal", "direction", and either "skipped" (the reason) or "seconds",
        "times_softmax" and "times_floor", each as (median, min, max) over rounds ("times_softmax" is None if that was
        skipped).
    Raises: ValueError for an unknown mechanism.
    """
    names = ["softmax", *(name for name in mechanisms if name != "softmax")]
    directions = ["forward", "forward+backward"] if backward else ["forward"]
    rows = []
    say = progress or (lambda line: None)
    say(HEADER)
    for is_causal in causal:
        layers, skipped = {}, {}
        for name in names:
            if is_causal and "causal" not in attention.mechanism(name).forms:
                skipped[name] = "has no causal form"
            else:
                given = {"is_causal": is_causal, **(options or {}).get(name, {})}
                layers[name] = attention.build(name, dim, heads, **given).to(device).eval()
        for n in lengths:
            for direction in directions:
                shape = (batch, n, dim)
                reasons = skipped | too_large(layers, shape, direction, memory_limit)
                rows += cell([name for name in names if name not in reasons], layers, shape, direction, rounds)
                rows += [{"mechanism": name, "skipped": reason} for name, reason in reasons.items()]
                for row in rows[-len(names) :]:
                    row |= {"n": n, "causal": is_causal, "direction": direction}
                    say(line(row))
    return rows


def cell(names, layers, shape, direction, rounds):
    """Rows of the mechanisms `names` at one shape, all timed against each other and against their floors."""
    calls = {name: call(layers[name], shape, direction) for name in names}
    calls |= {f"floor of {name}": floor(layers[name], shape, direction) for name in names}
    found = measure.latency(calls, rounds=rounds)
    return [
        {
            "mechanism": name,
            "seconds": found.seconds[name],
            "times_softmax": found.ratio(name, "softmax") if "softmax" in names else None,
            "times_floor": found.ratio(name, f"floor of {name}"),
        }
        for name in names
    ]


def call(layer, shape, direction):
    """A function without arguments that runs a layer on random input [B, N, D], forward or forward and backward."""
    generator = torch.Generator().manual_seed(0)
    device = next(layer.parameters()).device
    x = torch.randn(shape, generator=generator).to(device)
    return differentiated(lambda: layer(x)[0], x, layer) if direction != "forward" else without_graph(lambda: layer(x))


def floor(layer, shape, direction):
    """The same for the layer's floor: each call of an nn.Linear that the layer makes, alone."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, _: seen.append((module, inputs[0].shape)))
        for module in layer.modules()
        if isinstance(module, nn.Linear)
    ]
    x = torch.zeros(shape, device=next(layer.parameters()).device)
    without_graph(lambda: layer(x))()
    for hook in hooks:
        hook.remove()
    linears = [(module, torch.ones(s, device=x.device)) for module, s in seen]

    def apply():
        return [module(inputs) for module, inputs in linears]

    if direction == "forward":
        return without_graph(apply)
    for _, inputs in linears:
        inputs.requires_grad_()
    return differentiated(apply, [inputs for _, inputs in linears], layer)


def without_graph(function):
    @torch.no_grad()
    def forward():
        return function()

    return forward


def differentiated(function, inputs, layer):
    """`function` and its backward to `inputs` and the parameters, gradients returned rather than accumulated."""
    inputs = [inputs] if torch.is_tensor(inputs) else inputs
    leaves = [x.requires_grad_() for x in inputs] + list(layer.parameters())

    def forward_and_backward():
        y = function()
        outputs = [y] if torch.is_tensor(y) else y
        return torch.autograd.grad(outputs, leaves, [torch.ones_like(y) for y in outputs], allow_unused=True)

    return forward_and_backward


def too_large(layers, shape, direction, limit):
    """{name: reason} for the layers whose call would need more bytes than the limit, foreseen from two short lengths."""
    batch, n, dim = shape
    reasons = {}
    for name, layer in layers.items():
        short, long = (measure.peak_bytes(call(layer, (batch, p, dim), direction)).live for p in PROBES)
        squared = max(0.0, (long - 2 * short) / (2 * PROBES[0] ** 2))  # live ≈ linear · N + squared · N²
        linear = short / PROBES[0] - squared * PROBES[0]
        needed = linear * n + squared * n * n
        if needed > limit:
            reasons[name] = f"needs about {needed / 2**30:.3g} GiB, more than {limit / 2**30:.3g}"
    return reasons


HEADER = f"{'N':>6}  {'form':<7} {'direction':<17} {'mechanism':<20} {'ms: median (min–max)':>27}   × softmax   × floor"


def line(row):
    """One row of the table as text."""
    form = "causal" if row["causal"] else "full"
    start = f"{row['n']:>6}  {form:<7} {row['direction']:<17} {row['mechanism']:<20} "
    if "skipped" in row:
        return f"{start}skipped: {row['skipped']}"
    middle, least, most = (1000 * seconds for seconds in row["seconds"])
    to_softmax = "–" if row["times_softmax"] is None else f"{row['times_softmax'][0]:.3g}"
    return f"{start}{f'{middle:.4g} ({least:.4g}–{most:.4g})':>27} {to_softmax:>11} {row['times_floor'][0]:>9.3g}"


def to_json(rows, path, *, device="cpu"):
    """Write rows and the environment they were measured in."""
    Path(path).write_text(json.dumps({"environment": measure.environment(device), "rows": rows}, indent=1) + "\n")
