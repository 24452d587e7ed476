"""The table behind test_invariants.py: a row per mechanism, and every property that a mechanism does not promise.

options: variants of its options, each run through every property; blocks are small, so that N = 333 crosses many borders.
explicit: (layer, args, mask) → the heads' outputs [B, H, N, d] through the mechanism's quadratic or sequential twin.
unpromised: {(property, form): reason}, form None = in every form. Properties are test names without `test_`.
"""

from dataclasses import dataclass, field

from refattn.attention import linear, luna, softmax


@dataclass(frozen=True)
class Row:
    explicit: object
    options: tuple = ({},)
    unpromised: dict = field(default_factory=dict)


def explicit_softmax(layer, args, mask):
    q, k, v = layer.projections(*args)
    return softmax.softmax_attention_explicit(q, k, v, is_causal=layer.is_causal, key_padding_mask=mask)


def explicit_linear(layer, args, mask):
    q, k, v = layer.projections(*args)
    return linear.linear_attention_explicit(q, k, v, key_padding_mask=mask, **layer.options())


def explicit_luna(layer, args, mask):
    x, context = args[0], args[-1]
    if layer.is_causal:
        packed = layer.initial_slots(len(x))
        return luna.causal_luna_explicit(*layer.causal_parts(x, packed, mask), key_padding_mask=mask)[0]
    maps = layer.attention_maps(*args, key_padding_mask=mask)
    Y_P = layer.pack.merge(maps["pack"] @ layer.pack.keys_values(context)[1])
    return maps["unpack"] @ layer.projections.keys_values(Y_P)[1]


TABLE = {
    "softmax": Row(explicit_softmax, ({}, {"head_dim": 5, "bias": False})),
    "linear": Row(explicit_linear, ({}, {"head_dim": 5})),
    "luna": Row(
        explicit_luna,
        (
            {"num_slots": 3},
            {"num_slots": 5, "tied": False, "pack_heads": 4, "slot_norm": "pre"},
            {"num_slots": 4, "pack_activation": "elu", "slot_norm": "none", "qkv_bias": False},
        ),
        {
            ("rows_sum_to_one", "causal"): (
                "eq. (4) packs by an un-normalised running mean: rows of the product are free"
            ),
        },
    ),
}
