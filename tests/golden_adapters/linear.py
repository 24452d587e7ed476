"""Linear attention: its function, its recurrence and its layer."""

import torch

from golden_adapters.shared import bind, linear_weights, padding
from refattn import attention
from refattn.attention import linear


def adapt(case):
    config = case.config
    if config["kind"] == "layer":
        names = {"query": "q", "key": "k", "value": "v", "output": "o"}
        layer = attention.build("linear", config["D"], config["H"], is_causal=config["causal"], eps=config["eps"])
        bind(layer, linear_weights(case, {f"projections.{ours}": theirs for ours, theirs in names.items()}))
        return {"o": layer(case["in.x"], key_padding_mask=padding(case, "pad", config["N"]))[0]}
    q, k, v = case["in.q"], case["in.k"], case["in.v"]
    mask = padding(case, "pad", k.shape[2])
    options = {"is_causal": config["causal"], "key_padding_mask": mask, "eps": config["eps"]}
    outputs = {"o": linear.linear_attention(q, k, v, **options)}
    if "out.recurrent" in case:
        outputs["recurrent"] = linear.linear_attention_explicit(q, k, v, **options)
    if "out.state_S" in case:
        k = k if mask is None else k.masked_fill(mask[:, None, :, None], -torch.inf)  # φ(−∞) = 0
        S, z = linear.prefix_states(k, v)
        outputs |= {"state_S": S[:, :, -1], "state_z": z[:, :, -1]}
    return outputs
