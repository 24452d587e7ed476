"""Luna: attention, encoder layer, causal attention, decoder layer."""

import re

from golden_adapters.shared import bind, linear_weights, norm_weights, padding
from refattn import attention
from refattn.attention.luna import Packed
from refattn.layers.feed_forward import FeedForward
from refattn.models.stack import Block


def luna_layer(case, prefix="", *, is_causal=False, owner="", norm=None, **form):
    """A Luna module with the options of the case, and its weights by our names (under `owner`)."""
    config = case.config
    heads = {"pack_heads": config.get("H_p", config.get("H_pack", config["H"]))}
    options = {"tied": config["tied"], "num_slots": config["l"], "first_in_chain": False, **heads, **form}
    if norm is None and not is_causal:
        options["slot_norm"] = "none"
    elif config.get("prenorm"):
        options["slot_norm"] = "pre"
    if is_causal and re.search(r"\belu", config.get("activation", "").lower()):  # "elu(x)+1", but not "relu"
        options["pack_activation"] = "elu"
    options["bias"] = f"w.{prefix}b_Q" in case
    layer = attention.build("luna", config["D"], config["H"], is_causal=is_causal, **options)
    if layer.norm is not None:
        layer.norm.eps = config.get("ln_eps", 1e-5)
    names = {"pack.query": "Qp", "pack.key": "Cp", "projections.query": "Q", "projections.output": "O"}
    if config["tied"]:
        names["projections.key"] = "C"
    else:
        names |= {"projections.key": "K", "projections.value": "V"}
        names |= {} if is_causal else {"pack.key": "Kp", "pack.value": "Vp"}
    weights = linear_weights(case, names, prefix)
    if norm is not None and not is_causal:
        weights |= norm_weights(case, {"norm": norm})
    return layer, {owner + name: tensor for name, tensor in weights.items()}


def luna_block(case, block, weights, carry, **inputs):
    """Run a block on the case; its outputs and the maps of its sub-layers."""
    feed = {"feed_forward.up": "1", "feed_forward.down": "2"}
    bind(block, weights | linear_weights(case, feed) | norm_weights(case, {"feed_residual.norm": "ln_f"}))
    maps = {}
    x_out, carries = block(case["in.x"], {"luna": carry}, maps=maps, **inputs)
    return {"x_out": x_out, "p_out": carries["luna"].slots}, maps


def adapt(case):
    config = case.config
    carry = Packed(case["in.p"], case["in.p_mask"] if "in.p_mask" in case else None)
    feed = {"activation": config.get("activation", "relu")}
    placing = {"norm": "pre" if config.get("prenorm") else "post", "eps": config.get("ln_eps", 1e-5)}
    if "w.ln_s.g" in case:  # decoder layer: causal self-attention, then cross attention, both on one P
        own, own_weights = luna_layer(case, "self.", is_causal=True, owner="self_attention.")
        cross, cross_weights = luna_layer(case, "cross.", owner="cross_attention.", norm="ln_p", cross=True)
        net = FeedForward(config["D"], config["d_ffn"], **feed)
        block = Block(config["D"], own, net, cross_attention=cross, **placing)
        norms = norm_weights(case, {"self_residual.norm": "ln_s", "cross_residual.norm": "ln_c"})
        mask = padding(case, "context_mask", config["M"])
        inputs = {"context": case["in.c"], "context_mask": mask, "key_padding_mask": None}
        outputs, maps = luna_block(case, block, own_weights | cross_weights | norms, carry, **inputs)
        return outputs | {"cross_unpack_weights": maps["cross"]["unpack"]}
    if "w.ln_x.g" in case:  # encoder layer
        own, weights = luna_layer(case, owner="self_attention.", norm="ln_p")
        block = Block(config["D"], own, FeedForward(config["D"], config["d_ffn"], **feed), **placing)
        norms = norm_weights(case, {"self_residual.norm": "ln_x"})
        mask = padding(case, "x_mask", config["N"])
        outputs, maps = luna_block(case, block, weights | norms, carry, key_padding_mask=mask)
        return outputs | {"unpack_weights": maps["self"]["unpack"]}
    if "out.pq" in case or "out.y" in case:  # causal attention; the authors ignore the tokens' padding mask here
        layer, weights = luna_layer(case, is_causal=True)
        bind(layer, weights)
        x, state = case["in.x"], layer.init_state(config["B"], carry)
        for t in range(config["N"]):
            _, state = layer.step(x[:, t], state)
        outputs = {name: state[name] for name in ("key_state", "value_state", "pq")}
        y, _ = layer(x, carry=carry)
        return outputs | {"y": y, "unpack_weights": layer.attention_maps(x, carry=carry)["unpack"]}
    layer, weights = luna_layer(case, cross=config.get("cross", False))
    bind(layer, weights)
    context = case["in.c"] if config.get("cross") else None
    mask = padding(case, "context_mask" if "in.context_mask" in case else "x_mask", config["M"])
    y_x, y_p = layer.nested_attention(
        case["in.x"], carry, case["in.x"] if context is None else context, key_padding_mask=mask
    )
    maps = layer.attention_maps(case["in.x"], context, key_padding_mask=mask, carry=carry)
    return {"y_x": y_x, "y_p": y_p, "unpack_weights": maps["unpack"]}
