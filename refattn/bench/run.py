"""Mechanisms × lengths × directions: seconds, bytes kept for backward, and how many times softmax and the floor."""

import torch
from torch import nn

from refattn import attention, measure

CHUNKED = {"mega": {"chunk": 128}}  # options without which a mechanism is quadratic, as its paper has it too
PROBES = 256, 512  # lengths at which memory is counted, to foresee it at the lengths that are timed


def run(
    mechanisms,
    lengths,
    *,
    dim=64,
    heads=4,
    batch=1,
    rounds=7,
    min_seconds=0.05,
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
        rounds, min_seconds: how often each cell is measured, and for how long each time.  causal: which forms.
        memory_limit: bytes a call may need; a cell that would need more is skipped, and says so.
        options: {mechanism: keyword arguments of its constructor}.
        progress: called with each line of the table as soon as it is known, or None.

    Returns: a list of dicts with "n", "causal", "direction", "mechanism", and either "skipped" (the reason), or
        "seconds", "times_softmax" and "times_floor", each (median, min, max) over rounds, and "saved_bytes", kept for
        the backward pass; "times_softmax" is None where softmax was skipped.
    Raises: ValueError for an unknown mechanism or option.
    """
    names = ["softmax", *(name for name in mechanisms if name != "softmax")]
    directions = ["forward", "forward+backward"] if backward else ["forward"]
    say = progress or (lambda line: None)
    say(HEADER)
    rows = []
    for is_causal in causal:
        layers, lacking = {}, {}
        for name in names:
            if is_causal and "causal" not in attention.mechanism(name).forms:
                lacking[name] = "has no causal form"
                continue
            given = (options or {}).get(name, {})
            layers[name] = build(name, dim, heads, max(lengths), is_causal=is_causal, **given).to(device)
        for n in lengths:
            for direction in directions:
                shape = (batch, n, dim)
                skipped = lacking | too_large(layers, shape, direction, memory_limit)
                timed = {name: layer for name, layer in layers.items() if name not in skipped}
                measured = cell(timed, shape, direction, rounds, min_seconds)
                measured |= {name: {"skipped": reason} for name, reason in skipped.items()}
                place = {"n": n, "causal": is_causal, "direction": direction}
                rows += [place | {"mechanism": name} | measured[name] for name in names]
                for row in rows[-len(names) :]:
                    say(line(row))
    return rows


def build(name, dim, heads, max_len, **options):
    """A mechanism in evaluation mode, with `max_len` where it has that option."""
    bound = "max_len" in attention.known_options(attention.mechanism(name))
    return attention.build(name, dim, heads, **({"max_len": max_len} if bound else {}) | options).eval()


def cell(layers, shape, direction, rounds, min_seconds):
    """{mechanism: its numbers} at one shape, all timed against each other and against their floors."""
    calls = {name: call(layer, shape, direction) for name, layer in layers.items()}
    calls |= {f"floor of {name}": floor(layer, shape, direction) for name, layer in layers.items()}
    found = measure.latency(calls, rounds=rounds, min_seconds=min_seconds)
    return {
        name: {
            "seconds": found.seconds[name],
            "times_softmax": found.ratio(name, "softmax") if "softmax" in layers else None,
            "times_floor": found.ratio(name, f"floor of {name}"),
            "saved_bytes": kept_bytes(layer, shape),
        }
        for name, layer in layers.items()
    }


def tokens(layer, shape):
    """Random input [B, N, D] where the layer is, the same for every layer."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(layer.parameters()).device)


def output_of(layer, x):
    """What a layer makes of x, without its carry."""
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


def kept_bytes(layer, shape):
    """Bytes that autograd keeps for the backward pass."""
    return measure.saved_bytes(output_of, layer, tokens(layer, shape).requires_grad_())


def call(layer, shape, direction):
    """A function without arguments that runs a layer on random input [B, N, D], forward or forward and backward."""
    x = tokens(layer, shape)
    if direction == "forward":
        return without_graph(lambda: output_of(layer, x))
    return differentiated(lambda: output_of(layer, x), x, layer)


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
    """{name: reason} for layers whose call would need more bytes than the limit, foreseen from two short lengths."""
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


HEADER = (
    f"{'N':>6}  {'form':<7} {'direction':<17} {'mechanism':<20} {'ms: median (min–max)':>27}   × softmax   × floor"
    f"  KiB kept"
)


def line(row):
    """One row of the table as text."""
    form = "causal" if row["causal"] else "full"
    start = f"{row['n']:>6}  {form:<7} {row['direction']:<17} {row['mechanism']:<20} "
    if "skipped" in row:
        return f"{start}skipped: {row['skipped']}"
    middle, least, most = (1000 * seconds for seconds in row["seconds"])
    to_softmax = "–" if row["times_softmax"] is None else f"{row['times_softmax'][0]:.3g}"
    times = f"{f'{middle:.4g} ({least:.4g}–{most:.4g})':>27} {to_softmax:>11} {row['times_floor'][0]:>9.3g}"
    return f"{start}{times} {row['saved_bytes'] / 1024:>9,.0f}"
