"""SReT: group attention, a recursive stage, the whole pyramid, the soft-label loss, and what published models cost."""

import torch

from golden_adapters.shared import bind, linear_weights, norm_weights
from refattn.attention.base import Projections
from refattn.layers.sliced import sliced_attention
from refattn.models.sret import RecursiveStage, soft_label_loss
from refattn.models.sret_pyramid import SReT, published
from refattn.reproduce.image_costs import multiply_adds

BLOCK = {"residual.stream": "c1", "residual.branch": "c2"}
BLOCK |= {"feed.residual.stream": "c3", "feed.residual.branch": "c4"}


def attention_case(case):
    config, x = case.config, case["in.x"]
    heads = Projections(config["C"], config["H"], bias="w.b_o" in case, qkv_bias="w.b_q" in case)
    bind(heads, linear_weights(case, {"query": "q", "key": "k", "value": "v", "output": "o"}))
    first = sliced_attention(*heads(x), config["G1"])
    shuffled = case["in.perm"] if config["G2"] > 1 else None
    again = sliced_attention(*heads(x), config["G2"], permutation=shuffled)
    outputs = {"y_first": heads.merge(first), "y_recur": heads.merge(again)}
    # the weights r are named without the y_ of the outputs
    return outputs | {name: outputs[f"y_{name}"] for name in ("first", "recur")}


def renamed(weights, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def numbers(case, prefix):
    """Numbers that follow a prefix in the names of weights, in order."""
    return sorted(
        {int(name.removeprefix(prefix).split(".")[0]) for name in case.named("w.") if name.startswith(prefix)}
    )


def block_weights(case, prefix):
    weights = linear_weights(case, {"attention.attention.projections.output": "o", "feed.feed_forward.up": "1",
                                    "feed.feed_forward.down": "2"}, prefix)  # fmt: skip
    for kind, mark in (("weight", "W"), ("bias", "b")):
        if f"w.{prefix}{mark}_qkv" in case:
            parts = case[f"w.{prefix}{mark}_qkv"].chunk(3)
            names = (f"attention.attention.projections.{name}.{kind}" for name in ("query", "key", "value"))
            weights |= dict(zip(names, parts, strict=True))
    weights |= norm_weights(case, {"residual.norm": f"{prefix}ln1", "feed.residual.norm": f"{prefix}ln2"})
    return weights | {ours: case[f"w.{prefix}{theirs}"] for ours, theirs in BLOCK.items()}


def projection_weights(case, prefix):
    weights = linear_weights(case, {"feed_forward.up": "1", "feed_forward.down": "2"}, prefix)
    weights |= norm_weights(case, {"residual.norm": f"{prefix}ln"})
    return weights | {f"residual.{ours}": case[f"w.{prefix}{c}"] for ours, c in (("stream", "c1"), ("branch", "c2"))}


def stage_weights(case, prefix=""):
    weights = {}
    for b in numbers(case, f"{prefix}block"):
        weights |= renamed(block_weights(case, f"{prefix}block{b}."), f"blocks.{b}.")
    for j in numbers(case, f"{prefix}nll"):
        weights |= renamed(projection_weights(case, f"{prefix}nll{j}."), f"projections.{j}.")
    return weights


def convolution(case, ours, theirs):
    return {f"{ours}.weight": case[f"w.{theirs}.W"], f"{ours}.bias": case[f"w.{theirs}.b"]}


def rows_of(case, name):
    return len(case[name]) if name in case else None


def stage_case(case):
    config, x = case.config, case["in.x"]
    width, blocks = x.shape[1], config["recursive_num"]
    stage = RecursiveStage(
        width,
        config["heads"],
        blocks=blocks,
        loops=config.get("loops", config["depth"] // blocks),
        groups=(config.get("G1", 1), config.get("G2", 1)),
        ffn_hidden=len(case["w.block0.W_1"]),
        nll_hidden=rows_of(case, "w.nll0.W_1"),
        official_marker=True,
        attention_options={"qkv_bias": "w.block0.b_qkv" in case},
        eps=config.get("ln_eps", 1e-6),
    )
    bind(stage, stage_weights(case))
    permutations = iter(case["in.perms"].reshape(-1, x[0, 0].numel())) if "in.perms" in case else None
    y = stage(x.flatten(2).transpose(1, 2), permutations=permutations)
    return {"y": y.transpose(1, 2).unflatten(2, x.shape[2:])}


def model_case(case):
    config, images = case.config, case["in.x"]
    stages = numbers(case, "stage")
    depth, blocks = config["depth"], config["recursive_num"]
    model = SReT(
        tuple(images.shape[2:]),
        len(case["w.W_head"]),
        channels=images.shape[1],
        widths=[base * heads for base, heads in zip(config["base_dims"], config["heads"], strict=True)],
        heads=config["heads"],
        blocks=blocks,
        loops=[n // k for n, k in zip(depth, blocks, strict=True)],
        groups=list(zip(config.get("groups1", [1] * len(depth)), config.get("groups2", [1] * len(depth)), strict=True)),
        ffn_ratio=config["mlp_ratio"],
        nll_ratio=config.get("np_mlp_ratio", 1),
        official_marker=True,
        attention_options={"qkv_bias": "w.stage0.block0.b_qkv" in case},
        eps=config.get("ln_eps", 1e-6),
    )
    weights = {"positions": case["w.pos"]} | linear_weights(case, {"head": "head"}) | norm_weights(case, {"norm": "ln"})
    for i in numbers(case, "stem.conv"):
        weights |= convolution(case, f"stem.{3 * i - 3}", f"stem.conv{i}")
        weights |= norm_weights(case, {f"stem.{3 * i - 2}": f"stem.bn{i}"})
        for name in ("mean", "var"):
            weights[f"stem.{3 * i - 2}.running_{name}"] = case[f"w.stem.bn{i}.{name}"]
    for s in stages:
        weights |= renamed(stage_weights(case, f"stage{s}."), f"stages.{s}.")
        if f"w.pool{s}.W" in case:
            weights |= convolution(case, f"pools.{s}", f"pool{s}")
    for part in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        part.eps = config.get("bn_eps", 1e-5)
    bind(model, weights)
    given = case.named("in.perm.")
    order = sorted(given, key=lambda name: [int(part.strip("stagep")) for part in name.split(".")])
    logits = model(images, permutations=[given[name] for name in order])
    return {"logits": logits, "y": logits}


def loss_case(case):
    outputs = {}
    for temperature in case.config["T"]:
        student = case["in.student"] if temperature == 1 else case["in.student"].detach().requires_grad_()
        loss = soft_label_loss(student, case["in.teacher"].detach(), temperature)
        mark = "" if temperature == 1 else f"_T{temperature:g}"
        outputs[f"loss{mark}"] = loss
        if mark:
            outputs[f"grad.student{mark}"] = torch.autograd.grad(loss, student)[0]
    return outputs


def cost_case(case):
    rows = []
    for full_name in case.config["names"]:
        name = full_name.removeprefix("SReT_").removesuffix("_wo_slice").replace("_", "-")
        with torch.device("meta"):
            sizes = (case.config.get("image", 224), case.config.get("num_classes", 1000))
            model = published(name, *sizes, sliced=not full_name.endswith("_wo_slice"))
        counts = {"params": sum(p.numel() for p in model.parameters())} | multiply_adds(model)
        rows.append([counts[column.removesuffix("_macs")] for column in case.config["columns"]])
    return {"table": torch.tensor(rows)}


KINDS = {
    "out.table": cost_case,
    "out.loss": loss_case,
    "w.W_head": model_case,
    "in.perm": attention_case,
    "w.W_q": attention_case,
    "w.block0.W_qkv": stage_case,
}


def adapt(case):
    return next(adapter for name, adapter in KINDS.items() if name in case)(case)
