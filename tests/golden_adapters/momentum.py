"""Momentum: causal and non-causal attention in the paper's and the authors' forms; encoders with both connections."""

from functools import partial

import torch

from golden_adapters.shared import bind, linear_weights, norm_weights, padding
from refattn.attention.adaptive_momentum import adaptive_momentum
from refattn.attention.heavy_ball import advance, empty_momentum
from refattn.attention.linear import elu_feature_map
from refattn.attention.momentum import momentum_attention
from refattn.layers.momentum import AdaptiveMomentumResidual, MomentumResidual
from refattn.models.stack import Stack

FEATURE_MAPS = {"elu+1": elu_feature_map}
LINEAR = {"self_attention.projections.query": "q", "self_attention.projections.key": "k"}
LINEAR |= {"self_attention.projections.value": "v", "self_attention.projections.output": "o"}
LINEAR |= {"feed_forward.up": "1", "feed_forward.down": "2"}
NORMS = {"self_residual.norm": "ln1", "feed_residual.norm": "ln2"}


def attention_options(config):
    feature_map = FEATURE_MAPS[config.get("feature_map", "elu+1")]
    return {"gamma": config["gamma"], "eps": config["eps"], "feature_map": feature_map}


def with_gradients(case, outputs):
    """Each output with its own gradients for q, k and v."""
    found = dict(outputs)
    for name, y in outputs.items():
        leaves = {x: case[f"in.{x}"] for x in ("q", "k", "v") if f"grad.{name}.{x}" in case}
        if leaves:
            gradients = torch.autograd.grad((y * case["r.o"]).sum(), list(leaves.values()))
            found |= {f"grad.{name}.{x}": g for x, g in zip(leaves, gradients, strict=True)}
    return found


def causal_case(case):
    config, options = case.config, attention_options(case.config)
    qkv = [case[f"in.{x}"] for x in ("q", "k", "v")]
    mask = padding(case, "mask", config["N"])
    masks = {"is_causal": True, "key_padding_mask": mask}
    outputs = {"parallel": momentum_attention(*qkv, beta=config["beta"], form=FORM, **masks, **options)}
    if "out.recurrent" in case:
        outputs["recurrent"] = momentum_attention(*qkv, beta=config["beta"], **masks, **options)
    if "out.adaptive_state" in case:
        outputs["adaptive_state"], betas = adaptive_momentum(*qkv, authors_start=True, **masks, **options)
    outputs = with_gradients(case, outputs)
    if "out.adaptive_beta" in case:
        outputs["adaptive_beta"] = betas
    if "out.state_S" in case:
        _, k, v = qkv
        state = empty_momentum(*k.shape[:2], k.shape[-1], v.shape[-1], like=k)
        for k_t, v_t in zip(options["feature_map"](k).unbind(2), v.unbind(2), strict=True):
            state = advance(k_t, v_t, state, beta=config["beta"], gamma=config["gamma"])
        outputs |= {f"state_{name}": state[name] for name in ("S", "z", "p")}
    return outputs


def noncausal_case(case):
    qkv, options = [case[f"in.{x}"] for x in ("q", "k", "v")], attention_options(case.config)
    options |= {"beta": case.config["beta"], "form": FORM}
    mask = case["in.mask"] == 0 if "in.mask" in case else None
    outputs = {"lra": momentum_attention(*qkv, key_padding_mask=mask, normaliser="root_length", **options)}
    outputs["normalised"] = momentum_attention(*qkv, **options)
    return with_gradients(case, {name: y for name, y in outputs.items() if f"out.{name}" in case})


def encoder_case(case):
    config = case.config
    step = {"gamma": config["res_gamma"]}
    if config["connection"] == "adaptive":
        residual = partial(AdaptiveMomentumResidual, delta=config["res_delta"], **step)
    else:
        residual = partial(MomentumResidual, beta=config["res_beta"], **step)
    options = {"beta": config["beta"], "gamma": config["gamma"], "eps": config["eps"], "form": FORM}
    depth, placing = config["layers"], {"norm": config["norm"], "activation": config["activation"]}
    shape = {"ffn_dim": config["d_ff"], "is_causal": config["causal"], "residual": residual}
    stack = Stack(["momentum"] * depth, config["D"], config["H"], options=options, **shape, **placing)
    stack.norm = torch.nn.LayerNorm(config["D"]) if config["final_norm"] else None
    weights = norm_weights(case, {"norm": "lnf"}, mark="_") if config["final_norm"] else {}
    for i in range(depth):
        own = linear_weights(case, LINEAR, prefix=f"L{i}.")
        own |= norm_weights(case, {ours: f"L{i}.{theirs}" for ours, theirs in NORMS.items()}, mark="_")
        weights |= {f"blocks.{i}.{name}": tensor for name, tensor in own.items()}
    bind(stack, weights)
    carries, kept, x = {}, [], case["in.x"]
    mask = padding(case, "mask", config["N"])
    for block in stack.blocks:
        x, carries = block(x, carries, key_padding_mask=mask)
        kept.append(carries["residual-self"])
    outputs = {"h": x if stack.norm is None else stack.norm(x)}
    if config["connection"] == "momentum":
        return outputs | {"velocity": torch.stack(kept)}
    outputs["velocity"] = torch.stack([carry.velocity for carry in kept])
    return outputs | {"beta": torch.stack([carry.beta[..., 0] for carry in kept])}


FORM = "parallel_total_length"  # of everything the authors train
KINDS = {"causal": causal_case, "noncausal": noncausal_case, "encoder": encoder_case}


def adapt(case):
    return KINDS[case.config["kind"]](case)
