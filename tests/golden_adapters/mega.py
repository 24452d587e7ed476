"""Mega: the moving average, attention functions and biases, layers (also in chunks), cross attention, blocks."""

import torch

from golden_adapters.shared import bind, padding
from refattn.attention.mega import FUNCTIONS, Mega, laplace
from refattn.layers.ema import DampedEMA, ema_state
from refattn.layers.relative_bias import RotaryBias, SimpleBias
from refattn.models.mega import MegaBlock

NORM_KINDS = {"layernorm": "layer", "scalenorm": "scale", "rmsnorm": "rms", "batchnorm": "batch"}
NORM_NAMES = {"g": "weight", "b": "bias"}  # running moments have the same names here
PLAIN = ("kappa_q", "kappa_k", "mu_q", "mu_k")


def norm(case, ours, theirs):
    return {f"{ours}{NORM_NAMES.get(name, name)}": t for name, t in case.named(f"w.{theirs}.").items()}


def joined(case, ours, names):
    """Several maps as the one matrix that they are slices of."""
    weights = {f"{ours}.weight": torch.cat([case[f"w.W_{name}"] for name in names])}
    biased = f"w.b_{names[0]}" in case
    return weights | ({f"{ours}.bias": torch.cat([case[f"w.b_{name}"] for name in names])} if biased else {})


def average(case, owner=""):
    names = {"alpha_raw": "alpha_raw", "delta_raw": "delta_raw"} | {n: f"ema_{n}" for n in ("beta", "eta", "omega")}
    return {owner + ours: case[f"w.{theirs}"] for ours, theirs in names.items()}


def layer_weights(case):
    """Weights of a Mega layer by our names."""
    cross = "w.W_k" in case
    weights = joined(case, "joint", ("phi", "gamma", "q") if cross else ("phi", "z", "gamma", "h"))
    weights |= {"output.weight": case["w.U_h"]} | ({"output.bias": case["w.b_u"]} if "w.b_u" in case else {})
    weights |= joined(case, "value", ("v",)) | norm(case, "norm.", "norm")
    weights |= {f"position_bias.{name}": case[f"w.{name}"] for name in ("rel", "rot_a", "rot_b") if f"w.{name}" in case}
    if cross:
        return weights | joined(case, "key", ("k",))
    weights |= {name: case[f"w.{name}"] for name in PLAIN}
    return weights | (average(case, "ema.") if "w.alpha_raw" in case else {})


def layer_options(case):
    """Options of a Mega layer or block; the width of what attends is `head_dim`."""
    config, cross = case.config, "w.W_k" in case
    chunk = config.get("chunk") or -1
    options = {
        "head_dim": config["z"],
        "function": config.get("attention_fn", "softmax"),
        "activation": config.get("activation", "silu"),
        "position_bias": config.get("rel_pos_bias", "simple"),
        "max_len": config.get("max_positions", 1024),
        "chunk": chunk if chunk > 0 else None,
        "norm": "pre" if config.get("prenorm", True) else "post",
        "norm_kind": NORM_KINDS[config.get("norm", "layernorm")],
        "eps": config.get("norm_eps", 1e-5),
        "bias": "w.b_v" in case,
        "is_causal": config.get("causal", False) and not cross,
        "cross": cross,
        "authors_masks": True,
    }
    if not cross:
        options |= {"value_dim": config["v"], "ema_dim": config.get("h", 0), "truncation": config.get("truncation")}
        options["bidirectional"] = config.get("bidirectional_ema", not options["is_causal"])
    return options


def ema_case(case):
    config, x = case.config, case["in.x"]
    shape = {"bidirectional": config.get("bidirectional", False), "truncation": config.get("truncation")}
    layer = bind(DampedEMA(config["D"], config["h"], **shape), average(case))
    mask = padding(case, "x_mask", x.shape[1])
    outputs = {"y": layer(x, mask), "ema": layer.average(x, mask), "kernel": torch.cat(layer.kernels(x.shape[1]))}
    if not layer.bidirectional:
        (coeff,) = layer.coefficients()
        x = x if mask is None else x.masked_fill(mask[..., None], 0.0)  # padding feeds nothing into the state
        outputs["h_last"] = ema_state(x, coeff)
        if config.get("split"):
            outputs["h_split"] = ema_state(x[:, : config["split"]], coeff)
    return outputs


def functions_case(case):
    config, logits = case.config, case["in.logits"]
    found = {"softmax": logits.softmax(-1), "laplace": laplace(logits, config["mu"], config["sigma"])}
    found["relu2"] = FUNCTIONS["relu2"](logits)
    outputs = dict(found)
    for name, A in found.items():
        outputs[f"grad.in.logits.{name}"] = torch.autograd.grad((A * case["r.A"]).sum(), logits)[0]
    biases = {"rel": ("bias_simple", SimpleBias(config["max_positions"]))}
    biases["rot_a"] = ("bias_rotary", RotaryBias(config["z"]))
    for first, (name, bias) in biases.items():
        weights = ("rel",) if first == "rel" else ("rot_a", "rot_b")
        outputs[name] = bind(bias, {w: case[f"w.{w}"] for w in weights})(config["n"], config["n"])
    return outputs | {"loss": ((outputs["bias_simple"] + outputs["bias_rotary"]) * case["r.bias"]).sum()}


def adapt(case):
    if "in.logits" in case:
        return functions_case(case)
    if "w.U_h" not in case:
        return ema_case(case)
    config, x, options = case.config, case["in.x"], layer_options(case)
    if "w.W_1" in case:
        block = MegaBlock(config["D"], options.pop("head_dim"), config["d_ffn"], **options)
        feed = {"feed_forward.up": ("1",), "feed_forward.down": ("2",)}
        weights = {f"self_attention.{name}": t for name, t in layer_weights(case).items()}
        for ours, theirs in feed.items():
            weights |= joined(case, ours, theirs)
        bind(block, weights | norm(case, "feed_residual.norm.", "norm_f"))
        maps = {}
        y, _ = block(x, {}, key_padding_mask=padding(case, "x_mask", x.shape[1]), maps=maps)
        return shaped(case, {"y": y, "attn": maps["self"]["chunks"]})
    layer = bind(Mega(config["D"], 1, **options), layer_weights(case))
    if layer.cross:
        others = [t for name, t in case.named("in.").items() if not name.startswith("x")]
        context = next(t for t in others if t.is_floating_point())
        mask = next((t for t in others if t.dtype == torch.bool), None)
        args, masks = (x, context), {"key_padding_mask": mask}
    else:
        args, masks = (x,), {"key_padding_mask": padding(case, "x_mask", x.shape[1])}
    outputs = {"y": layer(*args, **masks)[0], "attn": layer.attention_maps(*args, **masks)["chunks"]}
    if layer.is_causal:
        state = layer.init_state(len(x))
        for x_t in x.unbind(1):
            _, state = layer.step(x_t, state)
        outputs |= {"cache_k": state["keys"], "cache_v": state["values"]}
        outputs |= {} if state["ema"] is None else {"ema_state": state["ema"]}
    return shaped(case, outputs)


def shaped(case, outputs):
    """The attention map by the axes that the file has."""
    return outputs | ({"attn": outputs["attn"].reshape(case["out.attn"].shape)} if "out.attn" in case else {})
