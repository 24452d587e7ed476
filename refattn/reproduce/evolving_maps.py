"""Measurements of Evolving Attention: what a convolution over maps costs, how alike maps of neighbouring layers are."""

import torch

from refattn import attention, data, measure, train
from refattn.models import CausalLM
from refattn.reproduce.verdict import AGAIN

SHARED = "percent shared"


def count_costs(ns, dim, heads, kernel_size):
    """A first layer, which has no convolution, and a later one: what the convolution adds, beside the formulas."""
    later = {"first_in_chain": False, "kernel_size": kernel_size}
    first, evolved = (attention.build("evolving_attention", dim, heads, **given) for given in ({}, later))
    weights = heads**2 * kernel_size**2
    found = {"multiply_adds": [], "carry_numbers": []}
    for n in ns:
        x = torch.zeros(1, n, dim)
        with torch.no_grad():
            _, carry = first(x)
        work = measure.flops(evolved, x, carry=carry) - measure.flops(first, x)
        found["multiply_adds"].append(work // 2)
        found["carry_numbers"].append(carry.numel())
    added = measure.count_parameters(evolved) - measure.count_parameters(first)
    variants = {
        "convolution": {"parameters": [added], **found},
        "formula": {
            "parameters": [weights + heads],
            "multiply_adds": [weights * n**2 for n in ns],
            "carry_numbers": [heads * n**2 for n in ns],
        },
    }
    return {"ns": list(ns), "variants": variants}


def shared_by_neighbours(maps):
    """Percent of a map that the layer before has as well, mean over layers, heads, sequences and later rows.

    100 Σ_j min(A_ij, A'_ij), with the most alike of the earlier layer's heads. Rows of the second half only: a causal
    row has few keys at first, and shares them by necessity.

    Args: maps: one [B, H, N, N] a layer.
    """
    found = []
    for before, after in zip(maps, maps[1:], strict=False):
        rows = slice(after.shape[2] // 2, None)
        both = torch.minimum(before[:, None, :, rows], after[:, :, None, rows])  # [B, H, H before, rows, N]
        found.append(both.sum(-1).mean((0, 3)).amax(1).mean())
    return 100 * torch.stack(found).mean().item()


def likeness(seeds, steps, layers, length, batch_size):
    """How alike maps of neighbouring layers are in small trained language models, one number a seed."""
    kinds = {"softmax": ("softmax", {}), "residual only": ("evolving_attention", {"beta": 0.0})}
    kinds |= {"evolving": ("evolving_attention", {}), f"softmax{AGAIN}": kinds["softmax"]}
    found = {name: {SHARED: []} for name in kinds}
    for seed in range(seeds):
        task = data.text(length=length, batch_size=batch_size, seed=seed)
        for name, (mechanism, options) in kinds.items():
            own = seed + 10_000 * name.endswith(AGAIN)
            shape = {"embed_dim": 32, "num_heads": 4, "num_layers": layers, "ffn_dim": 64, "max_len": length}
            model = CausalLM(128, attention=mechanism, attention_options=options, **shape, seed=own)
            settings = {"lr": 2e-3, "schedule": "cosine", "device": "cpu", "progress": False}
            train.fit(model, task, steps=steps, seed=own, **settings)
            maps = [layer["self"]["effective"] for layer in model.attention_maps(task.test["inputs"])]
            found[name][SHARED].append(round(shared_by_neighbours(maps), 3))
    return {"baseline": "softmax", "metric": SHARED, "variants": found}
