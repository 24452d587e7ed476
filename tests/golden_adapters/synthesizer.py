"""Synthesizer: the layer, with any parts."""

import torch

from golden_adapters.shared import bind, linear_weights, padding
from refattn import attention
from refattn.attention.synthesizer import TokenNetwork

NETWORKS = {"dense": ("W1", "b1", "W2", "b2"), "a": ("A1", "a1", "A2", "a2"), "b": ("B1", "bb1", "B2", "bb2")}


def networks(case):
    """The networks by token, {our name: (W1, b1, W2, b2)}; the file may hold one for all heads, or no bias."""
    heads, found = case.config["heads"], {}
    by_head = lambda t, dims: t if t.dim() == dims else t.expand(heads, *t.shape)  # noqa: E731
    for owner, (W1, b1, W2, b2) in NETWORKS.items():
        if f"w.{W1}" in case:
            layers = []
            for W, b in ((W1, b1), (W2, b2)):
                weight = by_head(case[f"w.{W}"], 3)
                bias = by_head(case[f"w.{b}"], 2) if f"w.{b}" in case else torch.zeros(weight.shape[:2]).double()
                layers += [weight, bias]
            found[owner] = layers
    return found


def projections(case):
    """W_v, W_o and, by heads, W_q and W_k; what has no bias in the file gets zeros."""
    found = linear_weights(case, {"projections.value": "v", "projections.output": "o"})
    for ours, theirs in {"projections.query": "q", "projections.key": "k"}.items():
        if f"w.W_{theirs}" in case:
            found[f"{ours}.weight"] = case[f"w.W_{theirs}"].reshape(-1, case.config["d_model"])
            if f"w.b_{theirs}" in case:
                found[f"{ours}.bias"] = case[f"w.b_{theirs}"].flatten()
    for name in [n for n in found if n.endswith(".weight")]:
        found.setdefault(name.replace("weight", "bias"), torch.zeros(len(found[name]), dtype=torch.float64))
    return found


def adapt(case):
    config, named = case.config, projections(case)
    layer = attention.build(
        "synthesizer",
        config["d_model"],
        config["heads"],
        head_dim=case["w.W_v"].shape[0] // config["heads"],
        parts=config["parts"],
        mix=config["mix"],
        max_len=config["max_len"],
        is_causal=config["causal"],
        rank=config.get("factor_rank") or 1,
        factors=config.get("factor_ab"),
    )
    for owner, tensors in networks(case).items():  # of whatever hidden width the file has
        (_, hidden, width), outputs = tensors[0].shape, tensors[2].shape[1]
        setattr(layer, owner, TokenNetwork(width, config["heads"], hidden, outputs))
        named |= {f"{owner}.{name}": t for name, t in zip(("W1", "b1", "W2", "b2"), tensors, strict=True)}
    named |= {name: case[f"w.{name}"] for name in ("R", "R1", "R2", "mix") if f"w.{name}" in case}
    bind(layer, named)
    x, mask = case["in.x"], padding(case, "key_padding_mask", case["in.x"].shape[1])
    maps = layer.attention_maps(x, key_padding_mask=mask)
    return {"A": maps["effective"], "y": layer(x, key_padding_mask=mask)[0]}
