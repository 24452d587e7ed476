"""What EIT's layers compute and hold, counted, beside the formulas of their equations."""

from refattn.attention import build
from refattn.attention.eit import eit_attention_explicit
from refattn.measure import count_parameters, flops
from refattn.reproduce.costs import build_layers, layer_counts


def sizes_of(layer):
    """M, d, the first convolution's weights [C, M, k], and the weights of all later ones."""
    later = sum(conv.weight.numel() for conv in (*layer.isi[1:], *layer.csi))
    return layer.num_heads, layer.head_dim, layer.isi[0].weight.shape, later


def plain_work(layer, n):
    """Multiply-adds of a layer through M² maps: projections, eq. (1), the convolutions of (2) and (3), eq. (4)."""
    M, d, first, later = sizes_of(layer)
    return 4 * n * layer.embed_dim**2 + n * n * (M * M * d + first.numel() + later + M * d)


def keys_work(layer, n):
    """The same with the first convolution applied to the keys, eq. (7): C maps come of it at once."""
    M, d, first, later = sizes_of(layer)
    return 4 * n * layer.embed_dim**2 + n * d * first.numel() + n * n * (first[0] * d + later + M * d)


def plain(layer, x):
    """A layer's forward pass through all M² maps."""
    y = eit_attention_explicit(*layer.projections(x), **layer.options())
    return layer.projections.merge(y)


def count_costs(layers, ns, dim, heads, large):
    """What layers compute at each length, counted, beside formulas; and their parameters beyond softmax attention's."""
    found = layer_counts(layers, ns, dim, heads)
    made = build_layers(layers, dim, heads)
    for name in ("eit", "eit efficient"):
        x = [made[name].projections.query.weight.new_zeros(1, n, dim) for n in ns]
        found[f"{name}, plain"] = {"multiply_adds": [flops(plain, made[name], tokens) // 2 for tokens in x]}
        found[f"{name}, plain, formula"] = {"multiply_adds": [plain_work(made[name], n) for n in ns]}
        found[f"{name}, formula"] = {"multiply_adds": [keys_work(made[name], n) for n in ns]}
    for (mechanism, options), name in ((layers["eit"], "eit"), (layers["eit efficient"], "eit efficient")):
        layer, bare = (build(kind, *large, **more) for kind, more in ((mechanism, options), ("softmax", {})))
        found[name]["more_parameters"] = [count_parameters(layer) - count_parameters(bare)]
    M = large[1]
    wide = 2 * M * M  # ρ = 2, c = 8, kernels 7 and 3
    full = wide * M * 7 + wide + M * 2 * M * 7 + M + 2 * (8 * M * M * 3) + 8 * M + M
    found["eit, formula"]["more_parameters"] = [full]
    found["eit efficient, formula"]["more_parameters"] = [2 * M * M + 2 * M + M * 2 * M + M]
    return {"ns": list(ns), "variants": found}
