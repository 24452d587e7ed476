"""EdgeFormer: the interleaved decoder, layer adaptation, shared encoders, whole networks, and the card's counts."""

import torch

from golden_adapters.shared import bind, linear_weights, norm_weights, padding
from refattn.attention.base import Projections
from refattn.layers.feed_forward import FeedForward
from refattn.models.edgeformer import DecoderLayer, EdgeFormer
from refattn.models.shared_encoder import SharedEncoder
from refattn.models.sharing import Pattern, balanced, count_multiply_adds, count_weights, full, universal

MAPS = {"query": "q", "key": "k", "value": "v", "output": "o"}
NET = {"up": "1", "down": "2"}
NORMS = {"self_residual.norm": "ln1", "feed_residual.norm": "ln2"}
DECODER_NORMS = {"self_residual.norm": "ln_self", "cross_residual.norm": "ln_cross", "net_residual.norm": "ln_ffn"}


def owned(weights, owner):
    return {f"{owner}{name}": tensor for name, tensor in weights.items()}


def width(case):
    """D, by the arrays, and the number of heads."""
    config, rows = case.config, case["in.x" if "in.x" in case else "w.E"]
    return rows.shape[-1], config.get("heads", config.get("h", config.get("H")))


def prefixes(case, ending):
    """PREFIX of every array w.PREFIX + ending, the decoder's last: whole networks may spell it in several ways."""
    names = [name.removesuffix(ending) for name in case.named("w.") if name.endswith(ending)]
    return sorted(names, key=lambda name: "dec" in name)  # else in the file's order


def placing(config):
    before = config.get("normalize_before", not config.get("post_ln", True))
    return {"norm": "pre" if before else "post", "eps": config.get("ln_eps", 1e-5)}


class Row:
    """Layer i of stacked arrays w.NAME.*, as if the case had its arrays alone."""

    def __init__(self, case, i, prefix=""):
        self.case, self.i, self.prefix = case, i, prefix

    def name(self, asked):
        return asked.replace("w.", f"w.{self.prefix}", 1)

    def __contains__(self, asked):
        return self.name(asked) in self.case

    def __getitem__(self, asked):
        return self.case[self.name(asked)][self.i]


def adapters(case, owner):
    """The file's A, a, B, β of queries and values, by our names of one layer's `Adapted` projections."""
    found = {}
    for ours, theirs in (("query", "q"), ("value", "v")):
        for part, weight, bias in (("down", "A", "a"), ("up", "B", "bb")):
            found[f"{owner}{ours}.{part}.weight"] = case[f"w.{weight}_{theirs}"]
            found[f"{owner}{ours}.{part}.bias"] = case[f"w.{bias}_{theirs}"]
    return found


def bound_encoder(case, pattern):
    """(encoder, its weights by our names) of a network of shared arrays: groups first, then what layers own."""
    D, heads = width(case)
    attentions = torch.nn.ModuleList(Projections(D, heads) for _ in range(len(case["w.attn.W_q"])))
    hidden = case["w.ffn.W_1"].shape[1]
    nets = torch.nn.ModuleList(
        FeedForward(D, hidden, activation=case.config.get("act", "relu")) for _ in range(len(case["w.ffn.W_1"]))
    )
    options = adaptation(case) | placing(case.config)
    return attentions, nets, SharedEncoder(pattern, attentions, nets, D, heads, **options)


def group_weights(case, count, prefix, names, owner):
    found = {}
    for g in range(count):
        found |= owned(linear_weights(Row(case, g, prefix), names), f"{owner}.{g}.")
    return found


def layer_weights(case, layers, owner):
    """LayerNorms of every layer, and adapters if the file has them."""
    found = {}
    for i in range(layers):
        place = f"{owner}.{i}."
        found |= owned(norm_weights(Row(case, i, prefixes(case, "ln1.g")[0]), NORMS), place)
        for prefix in prefixes(case, "A_q"):
            found |= adapters(Row(case, i, prefix), f"{place}self_attention.projections.")
    return found


def adaptation(case):
    """Options of an encoder: adapters of the rank that the file's have, if it has any."""
    ranks = [case[f"w.{prefix}A_q"].shape[-2] for prefix in prefixes(case, "A_q")]
    return {"adaptation": "adapter", "rank": ranks[0]} if ranks else {}


def groups_of(config, layers, attentions, ffns):
    a = config.get("attn_group_of_layer", [i % attentions for i in range(layers)])
    f = config.get("ffn_group_of_layer", [i % ffns for i in range(layers)])
    return tuple(a), tuple(f)


def encoder_case(case):
    layers, count = len(case["w.ln1.g"]), len(case["w.attn.W_q"])
    pattern = Pattern(*groups_of(case.config, layers, count, len(case["w.ffn.W_1"])))
    attentions, nets, encoder = bound_encoder(case, pattern)
    whole = torch.nn.ModuleDict({"attentions": attentions, "nets": nets, "encoder": encoder})
    weights = group_weights(case, count, "attn.", MAPS, "attentions")
    weights |= group_weights(case, len(nets), "ffn.", NET, "nets")
    weights |= layer_weights(case, layers, "encoder.blocks")
    bind(whole, weights | final_norm(case, encoder, "encoder.norm"))
    uses = pattern.loads()
    return {
        "y": encoder(case["in.x"], key_padding_mask=padding(case, "pad", case["in.x"].shape[1])),
        "attn_uses_in_encoder": torch.tensor([uses["attention"].get(group, 0) for group in range(count)]),
        "ffn_uses_in_encoder": torch.tensor([uses["encoder net"].get(group, 0) for group in range(len(nets))]),
    }


def final_norm(case, module, owner):
    """The LayerNorm that ends a pre-LN stack, if the file has one: the only norms there that are not stacked."""
    names = [name for name in prefixes(case, ".g") if case[f"w.{name}.g"].dim() == 1]
    if not names or not isinstance(module.norm, torch.nn.LayerNorm):
        module.norm = torch.nn.Identity()
        return {}
    return norm_weights(case, {owner: names[0 if "encoder" in owner else -1]})


def layer_case(case):
    """One encoder layer, with adapters if the file has them."""
    config, (D, heads) = case.config, width(case)
    maps, net = Projections(D, heads), FeedForward(D, len(case["w.W_1"]), activation=config.get("act", "relu"))
    layer = SharedEncoder(Pattern((0,), (0,)), [maps], [net], D, heads, **adaptation(case), **placing(config))
    layer.norm = torch.nn.Identity()  # a layer, not a stack: a pre-LN one ends without a norm
    whole = torch.nn.ModuleDict({"maps": maps, "net": net, "encoder": layer})
    weights = owned(linear_weights(case, MAPS), "maps.") | owned(linear_weights(case, NET), "net.")
    weights |= owned(norm_weights(case, NORMS), "encoder.blocks.0.")
    weights |= adapters(case, "encoder.blocks.0.self_attention.projections.") if "w.A_q" in case else {}
    bind(whole, weights)
    return {"y": layer(case["in.x"], key_padding_mask=padding(case, "pad", case["in.x"].shape[1]))}


def bias_prefix_case(case):
    """Two layers of the same matrices, the second with its own biases; and one layer with prefixes."""
    config, (D, heads) = case.config, width(case)
    mask, x = padding(case, "pad", case["in.x"].shape[1]), case["in.x"]
    base = owned(linear_weights(case, MAPS), "maps.") | owned(linear_weights(case, NET), "net.")

    def stack(pattern, more, **options):
        maps, net = Projections(D, heads), FeedForward(D, len(case["w.W_1"]), activation=config.get("act", "relu"))
        encoder = SharedEncoder(pattern, [maps], [net], D, heads, **options, **placing(config))
        encoder.norm = torch.nn.Identity()  # layers, not a stack
        bind(torch.nn.ModuleDict({"maps": maps, "net": net, "encoder": encoder}), base | more)
        return encoder

    outputs, first = {}, owned(norm_weights(case, NORMS), "encoder.blocks.0.")
    if "w.second.b_q" in case:
        second = owned(norm_weights(Second(case), NORMS), "encoder.blocks.1.")
        for names, place in ((MAPS, "self_attention.projections."), (NET, "feed_forward.")):
            second |= {f"encoder.blocks.1.{place}{ours}.bias": case[f"w.second.b_{t}"] for ours, t in names.items()}
        encoder = stack(Pattern((0, 0), (0, 0)), first | second, adaptation="bias")
        for i, block in enumerate(encoder.blocks, 1):
            x, _ = block(x, {}, key_padding_mask=mask)
            outputs[f"bias_la_layer{i}"] = x
        outputs |= gradients(case, "bias", outputs["bias_la_layer2"])
    if "w.P_K" in case:
        place = "encoder.blocks.0.self_attention.projections."
        prefixes = {f"{place}prefix_keys": case["w.P_K"], f"{place}prefix_values": case["w.P_V"]}
        options = {"adaptation": "prefix", "prefix": len(case["w.P_K"])}
        y = stack(Pattern((0,), (0,)), first | prefixes, **options)(case["in.x"], key_padding_mask=mask)
        outputs |= {"prefix_la": y} | gradients(case, "prefix", y)
    return outputs


class Second(Row):
    """The case with only the arrays of the second application."""

    def __init__(self, case):
        super().__init__(case, slice(None), "second.")


def gradients(case, name, y):
    """grad.NAME.* of Σ y · r.NAME: the two losses of these cases have gradients of their own."""
    wanted = [key.removeprefix(f"grad.{name}.") for key in case.tensors if key.startswith(f"grad.{name}.")]
    leaves = [case[f"in.{key}" if f"in.{key}" in case else f"w.{key}"] for key in wanted]
    if not wanted:
        return {}
    found = torch.autograd.grad((y * case[f"r.{name}"]).sum(), leaves, retain_graph=True)
    return {f"grad.{name}.{key}": g for key, g in zip(wanted, found, strict=True)}


def decoder_case(case):
    config, (D, heads) = case.config, width(case)
    maps = [Projections(D, heads) for _ in range(2)]
    net = FeedForward(D, len(case["w.W_1"]), activation=config.get("act", "relu"))
    layer = DecoderLayer(D, heads, *maps, net, interleaved=config.get("interleaved", True), **placing(config))
    weights = owned(linear_weights(case, NET), "net.") | norm_weights(case, DECODER_NORMS)
    for side in ("self", "cross"):
        weights |= owned(linear_weights(case, MAPS, f"{side}."), f"{side}_attention.projections.")
    bind(layer, weights)
    masks = {"key_padding_mask": case["in.tgt_pad"] if "in.tgt_pad" in case else None}
    masks["context_mask"] = case["in.src_pad"] if "in.src_pad" in case else None
    found = {}
    y = layer(case["in.x"], case["in.enc"], maps=found, **masks)
    return {"y": y, "cross_attn": found["cross"]["effective"]}


def network_case(case):
    """Source and target ids to logits, all weights stacked by group or layer."""
    config, (D, heads) = case.config, width(case)
    attn, norms, own_norms = (prefixes(case, ending)[0] for ending in ("W_q", "ln1.g", "ln_self.g"))
    net, own_net = prefixes(case, "W_1")  # the encoder's nets and the decoder's
    stacked = (f"w.{attn}W_q", f"w.{norms}ln1.g", f"w.{own_norms}ln_self.g")
    count, layers, decoders = (len(case[name]) for name in stacked)
    attention, ffn = groups_of(config, layers, count, len(case[f"w.{net}W_1"]))
    own = (tuple((2 * m + k) % count for m in range(decoders)) for k in (0, 1))
    pattern = Pattern(attention, ffn, *own, tuple(range(decoders)), interleaved=True)
    model = EdgeFormer(
        len(case["w.E"]),
        pattern=pattern,
        embed_dim=D,
        num_heads=heads,
        encoder_ffn=case[f"w.{net}W_1"].shape[1],
        decoder_ffn=case[f"w.{own_net}W_1"].shape[1],
        activation=config.get("act", "relu"),
        pad=next((config[name] for name in ("pad", "pad_id", "padding_idx", "pad_idx") if name in config), 1),
        **adaptation(case),
        **placing(config),
    )
    weights = {"embedding.weight": case["w.E"]}
    weights |= group_weights(case, len(model.attentions), attn, MAPS, "attentions")
    weights |= group_weights(case, len(model.encoder_nets), net, NET, "encoder_nets")
    weights |= group_weights(case, decoders, own_net, NET, "decoder_nets")
    weights |= layer_weights(case, layers, "encoder.blocks")
    for m in range(decoders):
        weights |= owned(norm_weights(Row(case, m, own_norms), DECODER_NORMS), f"decoder.{m}.")
    weights |= final_norm(case, model.encoder, "encoder.norm") | final_norm(case, model, "norm")
    bind(model, weights)
    if "in.pos_table" in case:  # the authors' table in their precision: whole, or from the first position on
        table, first = case["in.pos_table"], model.pad + 1
        whole = not table[0, : D // 2].any()  # its row 0 is padding's, all zeros, or has the sines of position 0
        model.embedding.positions = torch.cat([table.new_zeros(first, D), table[first:] if whole else table])
    encoded, mask = model.encode(case["in.src"])
    return {"enc": encoded, "logits": model.decode(case["in.tgt"], encoded, mask)}


COLUMNS = {
    "params_no_embeddings": ("without embedding", count_weights),
    "matrix_params_no_embeddings": ("matrices with adapters", count_weights),
    "embedding_params": ("embedding", count_weights),
    "linear_macs": ("linear", count_multiply_adds),
    "attention_macs": ("attention", count_multiply_adds),
    "output_projection_macs": ("output", count_multiply_adds),
}


def named_configuration(name):
    """(pattern, f_e, f_d, adaptation) of a published configuration, by the name it has in the file."""
    rank = next((int(part[1:]) for part in name.split("_") if part[0] == "r" and part[1:].isdigit()), 0)
    depths = [int(part) for part in name.split("_") if part.isdigit()]
    if name.startswith("edgeformer"):
        return balanced(*(depths or (12, 2))), 2048, 128, {"adaptation": "adapter", "rank": rank} if rank else {}
    wide = next((int(part[4:]) for part in name.split("_") if part.startswith("wide")), 2048)
    make = universal if name.startswith("ut") else full
    return make(*(depths or (12, 2))), wide, wide, {}


def cost_case(case):
    config, rows = case.config, []
    lengths = {"source": config["src_len"], "target": config["tgt_len"]}
    for name in config["names"]:
        pattern, f_e, f_d, adaptation = named_configuration(name)
        vocab = 1000 * int(name.rpartition("_")[2].removesuffix("k"))
        options = {"embed_dim": config["d"], "encoder_ffn": f_e, "decoder_ffn": f_d, "vocab_size": vocab, **adaptation}
        counted = {
            count_weights: count_weights(pattern, **options),
            count_multiply_adds: count_multiply_adds(pattern, **options, **lengths),
        }
        rows.append([counted[count][part] for part, count in (COLUMNS[column] for column in config["columns"])])
    return {"table": torch.tensor(rows)}


def adapt(case):
    if "names" in case.config:
        return cost_case(case)
    if "in.src" in case:
        return network_case(case)
    if "w.ln_self.g" in case:
        return decoder_case(case)
    if "w.second.b_q" in case or "w.P_K" in case:
        return bias_prefix_case(case)
    return encoder_case(case) if "w.attn.W_q" in case else layer_case(case)
