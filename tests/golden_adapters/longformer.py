"""Longformer: its function on given queries, keys and values, and its layer before the output projection."""

from golden_adapters.shared import bind, linear_weights, padding, pattern_like
from refattn import attention
from refattn.attention import base, longformer


def adapt(case):
    config = case.config
    pattern = {"one_sided": config["one_sided"], "dilation": config["dilation"], "is_causal": config["causal"]}
    tokens = (case["in.q"] if "in.q" in case else case["in.x"]).shape[-2]
    mask = padding(case, "key_padding_mask", tokens)
    index = longformer.global_positions(case["in.global_mask"], mask) if "in.global_mask" in case else None
    masks = {"global_index": index, "key_padding_mask": mask}
    if "in.q" in case:
        q, k, v = case["in.q"], case["in.k"], case["in.v"]
        # a core has one set of projections, so global tokens use the same q, k, v
        global_qkv = (None, None, None) if index is None else (longformer.take(q, index), k, v)
        y = longformer.longformer_attention(q, k, v, global_qkv, **pattern, **masks)
    else:
        layer = given_layer(case, has_globals=index is not None)
        y = layer.projections.merge(layer.attend(case["in.x"], index, key_padding_mask=mask))
    outputs = {"y": y}
    if "out.allow" in case:
        allow = longformer.longformer_mask(tokens, heads=config["heads"], **pattern, **masks)
        outputs["allow"] = pattern_like(allow, case["out.allow"])
    return outputs


def given_layer(case, has_globals):
    """The module with the weights of the case; without a matrix W_o in the file it leaves heads concatenated."""
    width, heads = case.config["d_model"], case.config["heads"]
    names = {f"projections.{ours}": theirs for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"))}
    if has_globals:
        names |= {f"global_{ours}": f"{theirs}g" for ours, theirs in names.items()}
    if "w.W_o" in case:
        names["projections.output"] = "o"
    projections = base.Projections(width, heads, qkv_bias="w.b_q" in case, bias="w.b_o" in case, output="w.W_o" in case)
    options = {ours: case.config[theirs] for ours, theirs in (("window", "window"), ("dilation", "dilation"))}
    options |= {"is_causal": case.config["causal"], "projections": projections}
    options["global_tokens"] = (0,) if has_globals else ()  # it owns W^g then; `attend` is told which tokens they serve
    return bind(attention.build("longformer", width, heads, **options), linear_weights(case, names))
