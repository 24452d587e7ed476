"""Couplformer: the coupled attention of both families, their classifiers, and the merging of patches."""

from golden_adapters.shared import bind
from refattn.attention.couplformer import Couplformer
from refattn.models.couplformer import KCT, VIC, PatchMerging


def attention_weights(case, prefix=""):
    """Weights of the projections: W_qkv has all heads of q, then of k, then of v."""
    found = {}
    for kind, name in (("weight", f"w.{prefix}W_qkv"), ("bias", f"w.{prefix}b_qkv")):
        if name in case:
            parts = zip(("query", "key", "value"), case[name].chunk(3), strict=True)
            found |= {f"projections.{part}.{kind}": tensor for part, tensor in parts}
    found["projections.output.weight"] = case[f"w.{prefix}W_o"]
    if f"w.{prefix}b_o" in case:
        found["projections.output.bias"] = case[f"w.{prefix}b_o"]
    return found


def norm(case, ours, theirs):
    """Gain and bias, which a file has as two rows."""
    return dict(zip((f"{ours}.weight", f"{ours}.bias"), case[f"w.{theirs}"], strict=True))


def affine(case, ours, weight, bias):
    found = {f"{ours}.weight": case[f"w.{weight}"]}
    return found | ({f"{ours}.bias": case[f"w.{bias}"]} if f"w.{bias}" in case else {})


def options(config):
    """Of the attention, the grid aside."""
    found = {"merge": config.get("merge", "concat"), "scale_exponent": config.get("scale_exponent", -0.25)}
    return found | ({"scale_over": config["scale_over"]} if "scale_over" in config else {})


def attention_case(case):
    config = case.config
    grid = {"grid": (config["height"], config["width"])}
    biases = {"bias": "w.b_o" in case, "qkv_bias": "w.b_qkv" in case}
    layer = Couplformer(config["dim"], config["heads"], **grid, **biases, **options(config))
    bind(layer, attention_weights(case))
    x = case["in.x"]
    maps, mixed = layer.attention_maps(x), []
    layer.projections.output.register_forward_pre_hook(lambda module, inputs: mixed.append(inputs[0]))
    names = {"row_logits": "row_logits", "col_logits": "column_logits", "A_row": "row", "A_col": "column"}
    outputs = {theirs: maps[ours] for theirs, ours in names.items()} | {"kron": maps["effective"]}
    return outputs | {"y": layer(x)[0], "mixed": mixed[0]}


def model_case(case):
    config, family = case.config, KCT if case.config["family"] == "kct" else VIC
    layers = sum(name.endswith(".W_qkv") for name in case.named("w."))
    hidden, channels = case["w.blk0.F1"].shape[0], case["in.x"].shape[1]
    shape = {"patch_size": config["patch"], "channels": channels, "ffn_dim": hidden, "embed_dim": config["dim"]}
    shape |= {"num_heads": config["heads"], "positions": "learned"}  # the file's table, whatever made it
    depth = {"num_layers": layers} if family is KCT else {"depths": (layers,)}
    biases = {"qkv_bias": "w.blk0.b_qkv" in case, "bias": "w.blk0.b_o" in case}
    size, classes = tuple(case["in.x"].shape[2:]), case["w.W_head"].shape[0]
    pool = {"pool": "attention" if "w.w_pool" in case else "mean"}
    model = family(size, classes, **shape, **depth, **pool, attention_options=options(config) | biases)
    weights = affine(case, "patches.project", "W_patch", "b_patch") | {"positions.table": case["w.PE"]}
    weights |= norm(case, "patches.norm", "ln_patch") if "w.ln_patch" in case else {}
    stack = "encoder" if family is KCT else "stages.0"
    for i in range(layers):
        own = {f"self_attention.{name}": tensor for name, tensor in attention_weights(case, f"blk{i}.").items()}
        own |= affine(case, "feed_forward.up", f"blk{i}.F1", f"blk{i}.b_F1")
        own |= affine(case, "feed_forward.down", f"blk{i}.F2", f"blk{i}.b_F2")
        own |= norm(case, "self_residual.norm", f"blk{i}.ln1") | norm(case, "feed_residual.norm", f"blk{i}.ln2")
        weights |= {f"{stack}.blocks.{i}.{name}": tensor for name, tensor in own.items()}
    weights |= norm(case, "norm" if family is VIC else "encoder.norm", "ln_f")
    weights |= affine(case, "pool.score", "w_pool", "b_pool") if "w.w_pool" in case else {}
    bind(model, weights | affine(case, "head", "W_head", "b_head"))
    blocks = []
    for block in model.all_blocks():
        block.register_forward_hook(lambda module, inputs, outputs: blocks.append(outputs[0]))
    y = model(case["in.x"])
    return {"y": y} | {f"block{i}": x for i, x in enumerate(blocks)}


def merging_case(case):
    grid = (case.config["height"], case.config["width"])
    layer = PatchMerging(case["in.x"].shape[-1], case["w.W_red"].shape[0])
    bind(layer, norm(case, "norm", "ln") | {"reduce.weight": case["w.W_red"]})
    return {"y": layer(case["in.x"], grid)}


def adapt(case):
    if "family" in case.config:
        return model_case(case)
    return merging_case(case) if "w.W_red" in case else attention_case(case)
