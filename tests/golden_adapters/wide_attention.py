"""Wide Attention: the Long Range Arena's encoder in any shape, with its gradients, and the table of sizes."""

import torch

from golden_adapters.shared import bind, linear_weights, norm_weights
from refattn import measure
from refattn.models.wide_attention import WideClassifier, count_multiply_adds, count_weights

LINEAR = {"self_attention.projections.query": "q", "self_attention.projections.key": "k"}
LINEAR |= {"self_attention.projections.value": "v", "self_attention.projections.output": "o"}
LINEAR |= {"feed_forward.up": "1", "feed_forward.down": "2"}
NORMS = {"self_residual.norm": "ln1", "feed_residual.norm": "ln2"}


def sizes_case(case):
    counts = {"params": [], "attention_params": [], "mlp_params": [], "macs": []}
    for row in case["in.configs"].tolist():
        c = dict(zip(case.config["columns"], row, strict=True))
        shape = {"embed_dim": c["d_model"], "num_layers": c["layers"], "num_heads": c["heads"]}
        shape |= {"head_dim": c["d_head"], "ffn_dim": c["d_ff"]}
        weights = count_weights(c["vocab"], c["classes"], use_cls=bool(c["use_cls"]), **shape)
        counts["params"].append(weights["total"])
        counts["attention_params"].append(weights["attention"])
        counts["mlp_params"].append(weights["mlp"])
        counts["macs"].append(count_multiply_adds(c["seq_len"] + c["use_cls"], **shape)["total"])
    return {name: torch.tensor(numbers) for name, numbers in counts.items()}


def adapt(case):
    if "in.configs" in case:
        return sizes_case(case)
    c = case.config
    shape = {"embed_dim": c["d_model"], "num_layers": c["layers"], "num_heads": c["heads"]}
    shape |= {"head_dim": c["d_head"], "ffn_dim": c["d_ff"], "use_cls": "w.cls" in case}
    shape |= {"pool": c.get("pool", "cls" if "w.cls" in case else "mean"), "eps": c.get("layernorm_eps", 1e-6)}
    shape |= {"attention_options": {"qkv_bias": "w.l0.b_q" in case, "bias": "w.l0.b_o" in case}}
    activation = "gelu_tanh" if c.get("gelu", "tanh") == "tanh" else "gelu"
    model = WideClassifier(c["vocab"], c["classes"], activation=activation, official=True, **shape)
    weights = {"encoder.tokens.weight": case["w.E"]} | ({"encoder.cls": case["w.cls"]} if "w.cls" in case else {})
    weights |= norm_weights(case, {"encoder.stack.norm": "lnf"}, mark="_")
    for i in range(c["layers"]):
        own = linear_weights(case, LINEAR, prefix=f"l{i}.")
        own |= norm_weights(case, {ours: f"l{i}.{theirs}" for ours, theirs in NORMS.items()}, mark="_")
        weights |= {f"encoder.stack.blocks.{i}.{name}": tensor for name, tensor in own.items()}
    for ours, number in (("hidden", 1), ("head", 2)):
        weights |= {f"{ours}.weight": case[f"w.H_{number}"], f"{ours}.bias": case[f"w.h_{number}"]}
    count = measure.count_parameters(model)
    bind(model, weights)
    mask, maps = case["in.ids"] == 0, []
    encoded, mask = model.encoder.encode(case["in.ids"], key_padding_mask=mask, maps=maps)
    outputs = {"encoded": encoded, "logits": model.classify(model.encoder.summarise(encoded, mask))}
    outputs |= {f"A{i}": layer["self"]["effective"] for i, layer in enumerate(maps)}
    return outputs | {"n_params": count}
