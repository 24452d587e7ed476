"""Linformer: the layer, self- and cross attention."""

from golden_adapters.shared import bind, linear_weights, padding
from refattn import attention


def adapt(case):
    config = case.config
    context = case["in.context"] if "in.context" in case else None
    options = {"head_dim": config["d_head"], "projected_len": config["k"], "max_len": config["max_len"]}
    options |= {"sharing": config["sharing"], "cross": context is not None}
    options |= {"bias": "w.b_o" in case, "qkv_bias": "w.b_q" in case}
    layer = attention.build("linformer", config["d_model"], config["heads"], **options)
    names = {"query": "q", "key": "k", "value": "v", "output": "o"}
    weights = linear_weights(case, {f"projections.{ours}": theirs for ours, theirs in names.items()})
    weights |= {f"length_projection.{name}": case[f"w.{name}"] for name in ("E", "F") if f"w.{name}" in case}
    bind(layer, weights)
    mask = padding(case, "key_padding_mask", (case["in.x"] if context is None else context).shape[1])
    y, _ = layer(case["in.x"], context, key_padding_mask=mask)
    return {"y": y, "A": layer.attention_maps(case["in.x"], context, key_padding_mask=mask)["A"]}
