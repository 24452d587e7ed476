"""Costs of single layers for experiments: what autograd keeps, multiply-adds, and seconds against each other.

Layers are given as {name: (mechanism, options)}, so that a plan can state them.
"""

from functools import partial

import torch

from refattn import attention, measure, processes
from refattn.attention.softmax import softmax_attention_explicit


def build_layers(layers, dim, heads, device="cpu"):
    """{name: layer in evaluation mode}."""
    made = {name: attention.build(mechanism, dim, heads, **options) for name, (mechanism, options) in layers.items()}
    return {name: layer.to(device).eval() for name, layer in made.items()}


def kept_beyond_inputs(function, *shapes):
    """Numbers that autograd keeps for a function of float32 inputs of these shapes, beyond the inputs themselves."""
    inputs = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    return measure.saved_bytes(function, *inputs) // 4 - sum(x.numel() for x in inputs)


def kept_weights(queries, keys, heads, width):
    """Attention weights, a number each, that autograd keeps when `queries` attend to `keys` and the map is stored."""
    return kept_beyond_inputs(softmax_attention_explicit, *((1, heads, n, width) for n in (queries, keys, keys)))


def layer_counts(layers, ns, dim, heads):
    """{name: {"multiply_adds", "saved_bytes": one number a length}} of a layer's forward pass as torch runs it.

    Attention is torch's fused kernel here, which stores no map: its bytes are linear in N whatever the mechanism.
    """
    found = {}
    for name, layer in build_layers(layers, dim, heads).items():
        tokens = [torch.zeros(1, n, dim, requires_grad=True) for n in ns]
        found[name] = {
            "multiply_adds": [measure.flops(layer, x) // 2 for x in tokens],
            "saved_bytes": [measure.saved_bytes(layer, x) for x in tokens],
        }
    return found


@torch.no_grad()
def state_numbers(layer, tokens):
    """Numbers in the state of a layer's step form after so many tokens of one sequence."""
    state = layer.init_state(1)
    for _ in range(tokens):
        _, state = layer.step(torch.zeros(1, layer.embed_dim), state)
    return sum(part.numel() for part in state.values() if torch.is_tensor(part))


def forward_times(layers, ns, dim, heads, rounds, min_seconds, device="cpu"):
    """Seconds of a layer's forward pass on [1, N, dim], all layers timed in turn.

    Returns: {"ns", "variants": {name: {"by_length": median at each N, "seconds": every round at the last N}}}; rounds
        are pairs, since all layers were timed within each.
    """
    device = processes.choose_device(device)
    made = build_layers(layers, dim, heads, device)
    found = {name: {"by_length": []} for name in made}
    for n in ns:
        x = torch.randn(1, n, dim, generator=torch.Generator().manual_seed(0)).to(device)
        with torch.no_grad():
            calls = {name: partial(layer, x) for name, layer in made.items()}
            times = measure.latency(calls, rounds=rounds, min_seconds=min_seconds)
        for name in made:
            found[name]["by_length"].append(float(f"{times.seconds[name][0]:.4g}"))
            found[name]["seconds"] = [float(f"{second:.4g}") for second in times.rounds[name]]
    return {"ns": list(ns), "variants": found}
