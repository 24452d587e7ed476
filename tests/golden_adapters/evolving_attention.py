"""Evolving Attention: one augmented convolution over time, the classifier, two over an image, and single steps."""

import torch

from golden_adapters.shared import bind
from refattn.attention.evolving_attention import current_map, evolving_attention, mix_maps, seen_cells
from refattn.attention.softmax import masked_softmax
from refattn.layers.augmented_convolution import AugmentedConv1d, AugmentedConv2d
from refattn.layers.map_convolution import hide
from refattn.models.evolving_attention import EADCTransformer

KINDS = {"encoder": "self", "decoder": "causal", "cross": "cross"}  # theirs → ours
MAPS = {"A_cur": "current", "A_in": "mixed", "A_logit": "evolved", "weights": "effective", "head": "heads"}
SERIES = {"direction": "K_v", "gain": "K_g", "bias": "b_K", "R": "R", "qkv.weight": "W_qkv", "qkv.bias": "b_qkv"}
SERIES |= {"evolution.weight": "C", "evolution.bias": "b_C"}
IMAGE = {"convolution.weight": "K", "kqv.weight": "W_kqv", "kqv.bias": "b_kqv", "R_w": "R_w", "R_h": "R_h"}
IMAGE |= {"output.weight": "W_o", "output.bias": "b_o", "evolution.weight": "C", "evolution.bias": "b_C"}
POINTWISE = ("qkv.weight", "kqv.weight", "output.weight")  # matrices there, convolutions over one point here
MOMENTS = ("weight", "bias", "running_mean", "running_var")


def weights(case, names, prefix="", suffix=""):
    """Tensors of one augmented convolution by our names, of those that the file has."""
    found = {ours: f"w.{prefix}{theirs}{suffix}" for ours, theirs in names.items()}
    return {ours: pointwise(ours, case[name]) for ours, name in found.items() if name in case}


def pointwise(name, tensor):
    if name not in POINTWISE:
        return tensor
    return tensor[..., None, None] if name.startswith(("kqv", "output")) else tensor[..., None]


def mixing(config):
    ratios = {"num_heads": config["heads"], "key_ratio": config["k_ratio"], "value_ratio": config["v_ratio"]}
    return ratios | {"alpha": config["alpha_paper"], "beta": config["beta_paper"]}


def series_case(case):
    config, evolves = case.config, "w.C" in case
    options = mixing(config) | {"negative_slope": config["leaky_slope"], "max_len": config["L"], "evolves": evolves}
    options |= {"kernel_size": config["kernel_size"], "dilation": config["dilation"]}
    widths = config["in_channels"], config["out_channels"]
    A_prev = case["in.A_prev"] if evolves and "in.A_prev" in case else None
    outputs, maps = {}, {}
    for name, merge in (("y", "authors"), ("y_transposed", "heads")):
        layer = bind(AugmentedConv1d(*widths, merge=merge, **options), weights(case, SERIES))
        outputs[name], _ = layer(case["in.x"], A_prev, maps=maps)
    return outputs | {theirs: maps[ours] for theirs, ours in MAPS.items() if ours in maps}


def model_case(case):
    config, depth = case.config, case.config["n_blocks"]
    shape = {"embed_dim": config["d_model"], "num_blocks": depth, "ffn_dim": config["dim_feedforward"]}
    options = mixing(config) | shape | {"max_len": config["L"], "official": True}
    model = EADCTransformer(config["feat_dim"], config["classes"], **options)
    tensors = {"embedding.weight": case["w.W_in"], "embedding.bias": case["w.b_in"], "positions": case["w.PE"]}
    tensors |= {"head.weight": case["w.W_out"], "head.bias": case["w.b_out"]}
    for i in range(depth):
        theirs, ours = f"w.blk{i}.", f"blocks.{i}."
        for place in range(2):
            own = weights(case, SERIES, prefix=f"blk{i}.", suffix=place + 1)
            tensors |= {f"{ours}convolutions.{place}.{name}": tensor for name, tensor in own.items()}
            for part in ("up", "down"):
                tensors[f"{ours}{part}.{place}.weight"] = case[f"{theirs}F_{part}"][place][..., None]
                tensors[f"{ours}{part}.{place}.bias"] = case[f"{theirs}b_{part}"][place]
        for norm, rows in (("norms.0", "bn_a"), ("norms.1", "bn_b"), ("norm", "bn_res")):
            tensors |= {f"{ours}{norm}.{m}": case[f"{theirs}{rows}"][row] for row, m in enumerate(MOMENTS)}
    bind(model, tensors)
    mask = ~case["in.mask"] if "in.mask" in case else None  # theirs keeps, ours hides
    outputs, h, A = {}, model.embed(case["in.x"], mask), None
    for i, block in enumerate(model.blocks):
        h, A = block(h, A)
        outputs |= {f"block{i}": h, f"A{i}": A}
    return outputs | {"y": model.read(h, mask)}


def image_case(case):
    config, outputs = case.config, {}
    x, A, channels = case["in.x"], None, case.config["in_channels"]
    for i, stride in enumerate(config["strides"]):
        own = weights(case, IMAGE, prefix=f"l{i}.")
        options = mixing(config) | {"grid": x.shape[-2:], "stride": stride, "evolves": "evolution.weight" in own}
        layer = AugmentedConv2d(channels, config["filters"], **options)
        for table in ("R_w", "R_h"):  # a network without relative positions has none: zeros
            own.setdefault(table, torch.zeros(getattr(layer, table).shape, dtype=x.dtype))
        x, A = bind(layer, own)(x, A)
        channels = config["filters"]
        outputs |= {f"y{i}": x, f"A{i}": A}
    return outputs


def step_case(case):
    config = case.config
    q, k, v, A_prev = (case[f"in.{name}"] for name in ("Q", "K", "V", "A_prev"))
    kind, alpha = KINDS[config["mode"]], config["alpha_paper"]
    mask = ~case["in.key_ok"] if "in.key_ok" in case else None
    options = {"alpha": alpha, "beta": config["beta_paper"], "kind": kind, "key_padding_mask": mask}
    options["negative_slope"] = {"relu": 0.0, "leaky_relu": config.get("leaky_slope", 0.01)}[config["activation"]]
    evolution = A_prev, case["w.C"], case["w.b_C"]
    y, A = evolving_attention(q, k, v, *evolution, **options)
    seen, A_cur = seen_cells(q, k, kind=kind, key_padding_mask=mask), current_map(q, k)
    seen = torch.ones(1, 1, 1, 1, dtype=torch.bool) if seen is None else seen
    outputs = {"y": y, "A_logit": A, "A_cur": A_cur, "A_in": hide(mix_maps(A_cur, A_prev, alpha), seen)}
    outputs["weights"] = masked_softmax(A, seen)
    if "out.visible" in case:
        outputs["visible"] = seen[:, 0].expand_as(case["out.visible"])
    if "out.A_logit_shift" in case:
        outputs["A_logit_shift"] = evolving_attention(q, k, v, *evolution, shift=True, **options)[1]
    return outputs


def adapt(case):
    if "in.Q" in case:
        return step_case(case)
    if "w.W_in" in case:
        return model_case(case)
    return image_case(case) if case["in.x"].dim() == 4 else series_case(case)
