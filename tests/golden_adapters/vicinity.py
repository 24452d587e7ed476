"""Vicinity: re-weighting matrices, attention with and without the clamp, blocks, whole pyramids, and what they cost."""

import torch

from golden_adapters.shared import bind, linear_weights, norm_weights
from refattn import attention
from refattn.attention import vicinity
from refattn.layers.conv_feed_forward import ConvFeedForward
from refattn.models.stack import Block
from refattn.models.vicinity import VVT, published
from refattn.reproduce.image_costs import multiply_adds

PROJECTIONS = {"projections.query": "q", "projections.key": "k", "projections.value": "v", "projections.output": "o"}
ON = {"reweighting": "sum", "clamp": vicinity.OFFICIAL_CLAMP}


def with_prefix(weights, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def convolution(case, ours, theirs, mark="_"):
    """Weight and bias of a convolution: `w.{theirs[0]}` and `w.{theirs[1]}`."""
    names = zip(("weight", "bias"), theirs, strict=True)
    return {f"{ours}.{w}": case[f"w.{name}"] for w, name in names if f"w.{name}" in case}


def attention_weights(case, prefix=""):
    weights = linear_weights(case, PROJECTIONS, prefix)
    for ours, theirs in (("gate.down", "W_fpc1"), ("gate.up", "W_fpc2")):
        if f"w.{prefix}{theirs}" in case:
            weights[f"{ours}.weight"] = case[f"w.{prefix}{theirs}"]
    if f"w.{prefix}W_sr" in case:
        weights |= convolution(case, "reduction.reduce", (f"{prefix}W_sr", f"{prefix}b_sr"))
        weights |= norm_weights(case, {"reduction.norm": f"{prefix}ln_sr"})
    return weights


def attention_options(case, prefix=""):
    """Options that weights tell by their shapes, and those that only the config knows."""
    config, W_q = case.config, case[f"w.{prefix}W_q"]
    gate = case[f"w.{prefix}W_fpc1"] if f"w.{prefix}W_fpc1" in case else None
    clamp = config.get("clip", vicinity.OFFICIAL_CLAMP)
    return {
        "feature_reduction": W_q.shape[1] // W_q.shape[0],
        "gate_reduction": None if gate is None else gate.shape[1] // gate.shape[0],
        "spatial_reduction": case[f"w.{prefix}W_sr"].shape[-1] if f"w.{prefix}W_sr" in case else 1,
        "reweighting": "sum" if config.get("use_sum", True) else "product",
        "eps": config.get("eps", vicinity.EPS),
        "clamp": tuple(clamp) if isinstance(clamp, (list, tuple)) else vicinity.OFFICIAL_CLAMP if clamp else None,
    }


def attention_layer(case, width, heads, grid=None, prefix=""):
    made_of = {"bias": f"w.{prefix}b_o" in case, "qkv_bias": f"w.{prefix}b_q" in case}
    return attention.build("vicinity", width, heads, grid=grid, **made_of, **attention_options(case, prefix))


def grid_in(config):
    return config["H"], config["W"]


def attention_case(case):
    config = case.config
    layer = attention_layer(case, config["C"], config["heads"], grid_in(config))
    if layer.reduction is not None:
        layer.reduction.norm.eps = config.get("ln_sr_eps", 1e-5)
    bind(layer, attention_weights(case))
    outputs = {"y": layer(case["in.x"])[0]}
    layer.clamp = None
    maps = layer.attention_maps(case["in.x"])
    return outputs | {"y_noclip": layer(case["in.x"])[0], "A": maps["effective"], "R": maps["R"]}


def block_weights(case, prefix=""):
    weights = with_prefix(attention_weights(case, prefix), "self_attention.")
    weights |= linear_weights(case, {"feed_forward.up": "1", "feed_forward.down": "2"}, prefix)
    weights |= convolution(case, "feed_forward.depthwise", (f"{prefix}W_dw", f"{prefix}b_dw"))
    norms = {"self_residual.norm": f"{prefix}ln1", "feed_residual.norm": f"{prefix}ln2"}
    return weights | norm_weights(case, norms)


def block_case(case):
    config = case.config
    layer = attention_layer(case, config["C"], config["heads"], grid_in(config))
    feed = ConvFeedForward(config["C"], len(case["w.W_1"]), grid=grid_in(config))
    block = Block(config["C"], layer, feed, norm="pre", eps=config.get("ln_eps", 1e-6))
    bind(block, block_weights(case))
    outputs = {"y": block(case["in.x"], {})[0]}
    layer.clamp = None
    return outputs | {"y_noclip": block(case["in.x"], {})[0]}


def model_case(case):
    """A pyramid; its shape is that of its weights, only heads and strides are the config's."""
    config, images = case.config, case["in.x"] if "in.x" in case else case["in.images"]
    embeds = [case[f"w.stage{s}.embed.W"] for s in stages_in(case)]
    blocks = [[f"stage{s}.block{j}." for j in numbers(case, f"stage{s}.block")] for s in stages_in(case)]
    widths = [len(W) for W in embeds]
    model = VVT(
        tuple(images.shape[2:]),
        len(case["w.W_head"]),
        channels=images.shape[1],
        widths=widths,
        heads=config.get("heads", config.get("num_heads")),
        depths=[len(prefixes) for prefixes in blocks],
        mlp_ratios=[len(case[f"w.{p[0]}W_1"]) // width for p, width in zip(blocks, widths, strict=True)],
        strides=[(W.shape[-1] + 1) // 2 for W in embeds],
        attention_options=[attention_options(case, prefixes[0]) for prefixes in blocks],
        eps=config.get("ln_eps", 1e-6),
    )
    weights = linear_weights(case, {"head": "head"})
    for place, (s, prefixes) in enumerate(zip(stages_in(case), blocks, strict=True)):
        own = convolution(case, "embed.conv", (f"stage{s}.embed.W", f"stage{s}.embed.b"))
        own |= norm_weights(case, {"embed.norm": f"stage{s}.embed.ln", "norm": f"stage{s}.ln"})
        for j, prefix in enumerate(prefixes):
            own |= with_prefix(block_weights(case, prefix), f"blocks.{j}.")
        weights |= with_prefix(own, f"stages.{place}.")
    for part in (m for m in model.modules() if isinstance(m, vicinity.SpatialReduction)):
        part.norm.eps = config.get("ln_sr_eps", 1e-5)
    bind(model, weights)
    outputs = model_outputs(case, model, images)
    if any(name.endswith("_noclip") for name in case.named("out.")):
        for layer in (m for m in model.modules() if isinstance(m, vicinity.Vicinity)):
            layer.clamp = None
        outputs |= {f"{name}_noclip": y for name, y in model_outputs(case, model, images).items()}
    return outputs


def model_outputs(case, model, images):
    """Tokens of each stage and their mean, and the logits under whatever name the file has for them."""
    found = model.features(images)
    pooled = found[-1].mean(1)
    outputs = {f"stage{s}": tokens for s, tokens in zip(stages_in(case), found, strict=True)}
    outputs |= {"features": pooled, "pooled": pooled}
    return outputs | {name: model.head(pooled) for name in ("logits", "y", "out")}


def numbers(case, prefix):
    """Numbers that follow a prefix in the names of weights, in order."""
    return sorted(
        {int(name.removeprefix(prefix).split(".")[0]) for name in case.named("w.") if name.startswith(prefix)}
    )


def stages_in(case):
    return numbers(case, "stage")


def reweight_case(case):
    outputs = {}
    for i, grid in enumerate(case.config["HW"]):
        exact = {"dtype": torch.float64}
        outputs[f"angle_row.{i}"], outputs[f"angle_col.{i}"] = vicinity.angles(grid, **exact)
        for name, reweighting in (("R_sum", "sum"), ("R_prod", "product")):
            outputs[f"{name}.{i}"] = vicinity.reweighting_matrix(grid, reweighting=reweighting, **exact)
    return outputs


def cost_case(case):
    rows, models = [], {}
    for full_name in case.config["names"]:
        name, size = full_name.removeprefix("vvt_").split("@")
        if name not in models:
            with torch.device("meta"):
                models[name] = published(name, num_classes=case.config.get("num_classes", 1000), attention_options=ON)
        model = models[name].set_image_size(int(size))
        counts = {"params": sum(p.numel() for p in model.parameters())} | multiply_adds(model)
        rows.append([counts[column.removesuffix("_macs")] for column in case.config["columns"]])
    return {"table": torch.tensor(rows)}


KINDS = {
    "out.table": cost_case,
    "out.R_sum.0": reweight_case,
    "w.W_head": model_case,
    "w.W_1": block_case,
    "w.W_q": attention_case,
}


def adapt(case):
    return next(adapter for name, adapter in KINDS.items() if name in case)(case)
