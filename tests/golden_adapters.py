"""How each slug's golden arrays map to our functions and modules: renaming and reshaping only, no mathematics.

An adapter takes a `Case` and returns the outputs by the names they have in the file (without `out.`). Options and
shapes come from the case's `config`, so that cases nobody has seen yet run through the same lines. Gradients of the
loss (Σ out · r over every r in the file, or the output "loss" if the adapter returns one) are the harness's affair;
other gradients an adapter returns itself, as "grad.NAME".
"""

import torch

from refattn import attention
from refattn.attention import linear as linear_file
from refattn.attention import luna as luna_file
from refattn.layers.feed_forward import FeedForward
from refattn.models.stack import Block


def bind(module, tensors):
    """Put `tensors` (by name) in the place of the module's parameters and buffers; every one must fit and be used.

    A parameter that stands in several places is given once, under its first name. Buffers may keep their values.
    """
    bound = {}
    buffers = [(name, buffer) for name, buffer in module.named_buffers() if name in tensors]
    for name, old in [*module.named_parameters(remove_duplicate=False), *buffers]:
        if id(old) not in bound:
            bound[id(old)] = tensors.pop(name)
        tensor = bound[id(old)]
        assert tensor.shape == old.shape, f"{name}: {tuple(tensor.shape)} for {tuple(old.shape)}"
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)
        setattr(module.get_submodule(owner), leaf, tensor)
    assert not tensors, f"nothing takes {sorted(tensors)}"
    return module.double().eval()


def linear_weights(case, names, prefix=""):
    """Weight and bias of linear layers: {our name: the file's suffix} → {our parameter: tensor}."""
    found = {}
    for ours, theirs in names.items():
        found[f"{ours}.weight"] = case[f"w.{prefix}W_{theirs}"]
        if f"w.{prefix}b_{theirs}" in case:
            found[f"{ours}.bias"] = case[f"w.{prefix}b_{theirs}"]
    return found


def norm_weights(case, names):
    """Gain and bias of LayerNorms: {our name: the file's name}."""
    suffixes = (("weight", "g"), ("bias", "b"))
    return {f"{ours}.{w}": case[f"w.{theirs}.{s}"] for ours, theirs in names.items() for w, s in suffixes}


def padding(case, name, size):
    """`in.NAME` as a mask, or a mask made from `in.lengths`, or None."""
    if f"in.{name}" in case:
        return case[f"in.{name}"]
    if "in.lengths" in case:
        return torch.arange(size)[None] >= case["in.lengths"][:, None]
    return None


def linear(case):
    config = case.config
    if config["kind"] == "layer":
        names = {"query": "q", "key": "k", "value": "v", "output": "o"}
        layer = attention.build("linear", config["D"], config["H"], is_causal=config["causal"], eps=config["eps"])
        bind(layer, linear_weights(case, {f"projections.{ours}": theirs for ours, theirs in names.items()}))
        return {"o": layer(case["in.x"], key_padding_mask=padding(case, "pad", config["N"]))[0]}
    q, k, v = case["in.q"], case["in.k"], case["in.v"]
    mask = padding(case, "pad", k.shape[2])
    options = {"is_causal": config["causal"], "key_padding_mask": mask, "eps": config["eps"]}
    outputs = {"o": linear_file.linear_attention(q, k, v, **options)}
    if "out.recurrent" in case:
        outputs["recurrent"] = linear_file.linear_attention_explicit(q, k, v, **options)
    if "out.state_S" in case:
        k = k if mask is None else k.masked_fill(mask[:, None, :, None], -torch.inf)  # φ(−∞) = 0
        S, z = linear_file.prefix_states(k, v)
        outputs |= {"state_S": S[:, :, -1], "state_z": z[:, :, -1]}
    return outputs


def luna_layer(case, prefix="", *, is_causal=False, owner="", norm=None, **form):
    """A Luna module with the options of the case, and its weights by our names (under `owner`)."""
    config = case.config
    heads = {"pack_heads": config.get("H_p", config.get("H_pack", config["H"]))}
    options = {"tied": config["tied"], "num_slots": config["l"], "first_in_chain": False, **heads, **form}
    if norm is None and not is_causal:
        options["slot_norm"] = "none"
    elif config.get("prenorm"):
        options["slot_norm"] = "pre"
    if is_causal and config.get("activation", "").startswith("elu"):
        options["pack_activation"] = "elu"
    options["bias"] = f"w.{prefix}b_Q" in case
    layer = attention.build("luna", config["D"], config["H"], is_causal=is_causal, **options)
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


def luna(case):
    config = case.config
    carry = luna_file.Packed(case["in.p"], case["in.p_mask"] if "in.p_mask" in case else None)
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


ADAPTERS = {"linear": linear, "luna": luna}
TOLERANCES = {}  # slug → (relative, absolute), where a card gives another than the harness's default and says why
INFORMATION = {}  # slug → names of outputs that a file holds for information only
