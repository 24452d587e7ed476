"""cosFormer: the layer with its own keys and values, and the map it applies."""

from torch import nn
from torch.nn import functional as F

from golden_adapters.shared import bind, linear_weights, padding
from refattn import attention
from refattn.attention import base, cosformer, linear

FEATURE_MAPS = {"relu": F.relu, "elu": linear.elu_feature_map}


def adapt(case):
    config = case.config
    width, inputs = case["w.W_q"].shape
    output = config.get("out_projection", True)
    made_of = {"bias": "w.b_o" in case, "qkv_bias": "w.b_q" in case, "output": output}
    projections = base.Projections(inputs, config["H"], width // config["H"], **made_of)
    for name, weight in (("key", case["w.W_k"]), ("value", case["w.W_v"])):  # of inputs with a width of their own
        setattr(projections, name, nn.Linear(weight.shape[1], width, bias=made_of["qkv_bias"]))
    options = {"max_len": config["M"], "eps": config["eps"], "feature_map": FEATURE_MAPS[config["feature_map"]]}
    form = {"is_causal": config["causal"], "head_dim": width // config["H"], "projections": projections}
    layer = attention.build("cosformer", inputs, config["H"], **form, **options)
    names = {"query": "q", "key": "k", "value": "v"} | ({"output": "o"} if output else {})
    bind(layer, linear_weights(case, {f"projections.{ours}": theirs for ours, theirs in names.items()}))
    linears = (projections.query, projections.key, projections.value)
    q, k, v = (
        projections.split_heads(project(case[f"in.{name}"]))
        for project, name in zip(linears, ("query", "key", "value"), strict=True)
    )
    options = layer.options() | {"key_padding_mask": padding(case, "pad", k.shape[2])}
    o = projections.merge(cosformer.cosformer_attention(q, k, v, **options))
    return {"o": o, "A": cosformer.cosformer_weights(q, k, **options)}
