"""EIT: the layer with all its maps, full and efficient, self- and cross attention."""

from golden_adapters.shared import bind, linear_weights, padding
from refattn import attention

PROJECTIONS = {f"projections.{name}": name[0] for name in ("query", "key", "value")} | {"projections.output": "o"}
CONVOLUTIONS = {"full": {"isi.0": "F0", "isi.1": "F1", "csi.0": "G0", "csi.1": "G1"}}
CONVOLUTIONS["efficient"] = {"isi.0": "F", "csi.0": "G"}
RENAMED = {"hidden_channels": "channels"}
OPTIONS = ("variant", "isi_kernel", "csi_kernel", "isi_ratio", "csi_ratio", "hidden_channels")


def layer_of(case):
    config = case.config
    options = {RENAMED.get(name, name): config[name] for name in OPTIONS if name in config}
    options |= {"is_causal": config["causal"], "cross": config.get("cross_attention", False)}
    options |= {"bias": "w.b_o" in case, "qkv_bias": "w.b_q" in case}
    layer = attention.build("eit", config["d_model"], config["heads"], **options)
    weights = linear_weights(case, PROJECTIONS)
    for ours, theirs in CONVOLUTIONS[options["variant"]].items():
        weights |= {f"{ours}.weight": case[f"w.{theirs}"], f"{ours}.bias": case[f"w.{theirs.lower()}"]}
    return bind(layer, weights)


def adapt(case):
    layer = layer_of(case)
    context = case["in.memory"] if layer.cross else None
    masks = {
        "key_padding_mask": padding(case, "key_padding_mask", case["in.x" if context is None else "in.memory"].shape[1])
    }
    maps = layer.attention_maps(case["in.x"], context, **masks)
    y, _ = layer(case["in.x"], context, **masks)
    return {"S": maps["logits"], "S_isi": maps["isi"], "S_csi": maps["csi"], "A": maps["effective"], "y": y}
