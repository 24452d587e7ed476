"""The table behind test_invariants.py: a row per mechanism, and every property that a mechanism does not promise.

options: variants of its options, each run through every property; blocks are small, so N = 333 crosses many borders.
explicit: (layer, args, mask) → the heads' outputs [B, H, N, d] through the mechanism's quadratic or sequential twin.
finish: (layer, args, mask, heads) → y, where a layer is more than `projections.merge` (heads None: no key is visible).
unpromised: {(property, form): reason}, form None = in every form; or a side ("left") for padding there alone, or a type
("bfloat16") for lower precision. Properties are test names without `test_`.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from refattn.attention import (
    bigbird,
    cosformer,
    couplformer,
    eit,
    evolving_attention,
    linear,
    linformer,
    local,
    longformer,
    luna,
    mega,
    momentum,
    performer,
    reformer,
    rpe_fft,
    sinkhorn,
    softmax,
    sparse_transformer,
    synthesizer,
    vicinity,
)
from refattn.attention.adaptive_momentum import adaptive_momentum_explicit
from refattn.attention.grid import grid_of
from refattn.layers import ema


@dataclass(frozen=True)
class Row:
    explicit: object
    options: tuple = ({},)
    unpromised: dict = field(default_factory=dict)
    finish: object = None


def explicit_softmax(layer, args, mask):
    q, k, v = layer.projections(*args)
    return softmax.softmax_attention_explicit(q, k, v, is_causal=layer.is_causal, key_padding_mask=mask)


def explicit_linear(layer, args, mask):
    q, k, v = layer.projections(*args)
    return linear.linear_attention_explicit(q, k, v, key_padding_mask=mask, **layer.options())


def explicit_performer(layer, args, mask):
    q, k, v = layer.projections(*args)
    return performer.performer_attention_explicit(q, k, v, layer.Omega, key_padding_mask=mask, **layer.options())


def explicit_cosformer(layer, args, mask):
    q, k, v = layer.projections(*args)
    return cosformer.cosformer_attention_explicit(q, k, v, key_padding_mask=mask, **layer.options())


def explicit_luna(layer, args, mask):
    x, context = args[0], args[-1]
    if layer.is_causal:
        packed = layer.initial_slots(len(x))
        return luna.causal_luna_explicit(*layer.causal_parts(x, packed, mask), key_padding_mask=mask)[0]
    maps = layer.attention_maps(*args, key_padding_mask=mask)
    Y_P = layer.pack.merge(maps["pack"] @ layer.pack.keys_values(context)[1])
    return maps["unpack"] @ layer.projections.keys_values(Y_P)[1]


def inputs_of_mega(layer, args, mask):
    """q, k, v and gates with the moving average token by token, from the ends that a padded token does not reach."""
    X = layer.before(args[0])
    if layer.cross:
        return layer.cross_inputs(X, args[1])
    if layer.ema is None:
        return layer.inputs(X, X)
    fed = X if mask is None else X.masked_fill(mask[..., None], 0.0)
    averages = layer.ema.coefficients()
    y = ema.ema_explicit(fed, averages[0])[0]
    if len(averages) == 2:
        y = y + ema.ema_explicit(fed.flip(1), averages[1])[0].flip(1)
    return layer.inputs(X, functional.silu(y + layer.ema.omega * X))


def explicit_mega(layer, args, mask):
    q, k, v, _ = inputs_of_mega(layer, args, mask)
    whole = layer.chunk is None
    bias = layer.position_bias.lags(1 - q.shape[1], k.shape[1] - 1) if whole else by_lag_in_chunks(layer, q)
    place = torch.arange(k.shape[1]) - torch.arange(q.shape[1])[:, None] + q.shape[1] - 1  # of the lag j − i
    how = {"function": layer.function, "chunk": layer.chunk, "is_causal": layer.is_causal, "key_padding_mask": mask}
    return mega.mega_attention_explicit(q[:, None], k[:, None], v[:, None], bias[place], **how)


def by_lag_in_chunks(layer, q):
    """A bias for every lag of a sequence; beyond a chunk nobody reads it."""
    reach = min(layer.chunk, q.shape[1]) - 1
    return functional.pad(layer.position_bias.lags(-reach, reach), [q.shape[1] - 1 - reach] * 2)


def finish_mega(layer, args, mask, heads):
    gates = inputs_of_mega(layer, args, mask)[3]
    return layer.finish(args[0], 0.0 if heads is None else heads[:, 0], gates)


def explicit_momentum(layer, args, mask):
    q, k, v = layer.projections(*args)
    twin = adaptive_momentum_explicit if layer.is_adaptive else momentum.momentum_attention_explicit
    return twin(q, k, v, key_padding_mask=mask, **layer.options())


def explicit_eit(layer, args, mask):
    q, k, v = layer.projections(*args)
    options = layer.options() | {"is_causal": layer.is_causal, "key_padding_mask": mask}
    return eit.eit_attention_explicit(q, k, v, **options)


def explicit_rpe_fft(layer, args, mask):
    (x,) = args
    options = {"key_padding_mask": mask, **layer.options()}
    return rpe_fft.nprf_attention_explicit(*layer.projections(x), layer.Omega, layer.offsets(x.shape[1]), **options)


def explicit_vicinity(layer, args, mask):
    qkv, options = layer.heads(*args, mask)
    return vicinity.vicinity_attention_explicit(*qkv, **options)


def finish_vicinity(layer, args, mask, heads):
    nothing = torch.zeros(len(args[0]), layer.num_heads, 1, layer.head_dim, dtype=torch.float64)
    return layer.finish(args[0], nothing if heads is None else heads, mask)


def explicit_linformer(layer, args, mask):
    q, k, v = layer.projections(*args)
    return linformer.linformer_attention_explicit(q, k, v, *layer.length_projection.matrices(), key_padding_mask=mask)


def explicit_local(layer, args, mask):
    return local.local_attention_explicit(*layer.projections(*args), key_padding_mask=mask, **layer.pattern())


def explicit_longformer(layer, args, mask):
    index = layer.global_index(*args, mask)
    qkv, global_qkv = layer.inputs(*args, index)
    masks = {"global_index": index, "key_padding_mask": mask}
    return longformer.longformer_attention_explicit(*qkv, global_qkv, **masks, **layer.options())


def explicit_bigbird(layer, args, mask):
    (x,) = args
    options = {"block": layer.block, "key_padding_mask": mask}
    return bigbird.bigbird_attention_explicit(*layer.projections(x), layer.rand_blocks(x.shape[1]), **options)


def explicit_sparse_transformer(layer, args, mask):
    q, k, v = layer.projections(*args)
    return sparse_transformer.sparse_attention_explicit(q, k, v, key_padding_mask=mask, **layer.options())


def explicit_sinkhorn(layer, args, mask):
    q, k, v = layer.projections(*args)
    S = layer.sort(k, mask)
    return sinkhorn.sinkhorn_attention_explicit(q, k, v, S, key_padding_mask=mask, **layer.options())


def explicit_synthesizer(layer, args, mask):
    (x,) = args
    masks = {"is_causal": layer.is_causal, "key_padding_mask": mask}
    return synthesizer.synthesizer_attention_explicit(layer.logits(x), layer.values(x), **masks)


def explicit_reformer(layer, args, mask):
    return reformer.lsh_attention_explicit(*layer.parts(*args), key_padding_mask=mask, **layer.options())


def explicit_evolving(layer, args, mask):
    qkv, options = layer.projections(*args), layer.options(args[0], args[-1], mask)
    return evolving_attention.evolving_attention_explicit(*qkv, **options)[0]


def explicit_couplformer(layer, args, mask):
    q, k, v = layer.projections(*args)
    grid = grid_of(q.shape[2], layer.grid)
    return couplformer.coupled_attention_explicit(q, k, v, grid, key_padding_mask=mask, **layer.options())


TABLE = {
    "softmax": Row(explicit_softmax, ({}, {"head_dim": 5, "bias": False})),
    "linear": Row(explicit_linear, ({}, {"head_dim": 5})),
    "performer": Row(
        explicit_performer,
        (
            {"num_features": 7},
            {"num_features": 5, "orthogonal": False, "head_dim": 5},
            {"kernel": "relu", "num_features": 9, "row_norms": "sqrt_d"},
            {"kernel": "relu", "num_features": 0},
        ),
    ),
    "cosformer": Row(
        explicit_cosformer,
        ({"max_len": 400}, {"head_dim": 5, "qkv_bias": False}),
        {
            ("rows_sum_to_one", None): "a query without a positive entry where a visible key has one gets a zero row",
            ("permuting_tokens_permutes_outputs", None): "weights depend on distances between positions, by design",
            ("padding_changes_nothing_at_real_positions", "cross"): (
                "padding on the left moves the context's tokens to later positions; on the right: test_cosformer.py"
            ),
        },
    ),
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
    "mega": Row(
        explicit_mega,
        (
            {"ema_dim": 3, "norm": "pre"},
            {"chunk": 8, "function": "laplace", "position_bias": "rotary", "head_dim": 6},
            {"chunk": 5, "ema_dim": 2, "norm": "none", "qkv_bias": False},
            {"ema_dim": 0, "function": "relu2", "norm_kind": "scale"},
        ),
        {
            ("rows_sum_to_one", None): "rows of laplace and relu2 are free; those of softmax: test_mega.py",
            ("permuting_tokens_permutes_outputs", None): "the moving average and the bias know the order, by design",
            ("padding_changes_nothing_at_real_positions", "left"): (
                "padding on the left moves tokens across the borders of chunks; without chunks it agrees: test_mega.py"
            ),
        },
        finish_mega,
    ),
    "eit": Row(
        explicit_eit,
        (
            {},
            {"isi_kernel": 1, "csi_kernel": 5, "isi_ratio": 1, "csi_ratio": 3, "head_dim": 5},
            {"variant": "efficient", "isi_kernel": 3, "qkv_bias": False},
            {"variant": "efficient", "channels": 2, "csi_kernel": 3},
        ),
        {("permuting_tokens_permutes_outputs", None): "kernels reach along the keys, which a permutation changes"},
    ),
    "rpe_fft": Row(
        explicit_rpe_fft,
        (
            {"num_features": 7},
            {"num_features": 5, "grid": (60, 6), "bias_range": None},  # six tokens of padding fill a whole row
            {"num_features": 6, "normalise": False, "head_dim": 5, "bias": False},
            {"kernel": "exact"},
        ),
        {("permuting_tokens_permutes_outputs", None): "weights depend on offsets between positions, by design"},
    ),
    "couplformer": Row(
        explicit_couplformer,
        (  # without a grid N = 33 is 3 × 11, and 333 is 9 × 37
            {},
            {"merge": "pooling", "head_dim": 5},
            {"scale_over": "contraction", "scale_exponent": -0.5, "qkv_bias": False},
        ),
        {
            ("permuting_tokens_permutes_outputs", None): (
                "a token is known by its row and column, and a permutation breaks them; whole rows: test_couplformer.py"
            ),
            **dict.fromkeys(
                [
                    ("padding_changes_nothing_at_real_positions", None),
                    ("padding_changes_nothing_through_two_layers", None),
                ],
                "padding is whole rows or columns of a grid: six more tokens make another; see test_couplformer.py",
            ),
        },
    ),
    "momentum": Row(
        explicit_momentum,
        (  # an adaptive β is a loop over tokens, slow to compile: it meets these properties in test_momentum.py
            {},
            {"beta": 0.6, "gamma": 0.9, "head_dim": 5},
            {"beta": 1.0, "gamma": 0.01, "bias": False},
        ),
        {
            ("rows_sum_to_one", None): "the normaliser has no momentum: rows sum to between γ and γ / (1 − β)",
            ("permuting_tokens_permutes_outputs", None): "a key's weight grows with the number of keys after it",
        },
    ),
    "vicinity": Row(
        explicit_vicinity,
        (
            {},
            {"reweighting": "product", "feature_reduction": 1, "gate_reduction": None},
            {"reweighting": "none", "head_dim": 5, "gate_reduction": 2, "qkv_bias": False},
        ),
        {
            ("rows_sum_to_one", None): "less ε's share, and a query without a positive entry gets a zero row",
            ("permuting_tokens_permutes_outputs", None): (
                "weights depend on places in the grid, by design; without re-weighting: test_vicinity.py"
            ),
            **dict.fromkeys(
                [
                    ("padding_changes_nothing_at_real_positions", None),
                    ("padding_changes_nothing_through_two_layers", None),
                ],
                "six more tokens make another grid; tokens ignored within one: test_vicinity.py",
            ),
            ("lower_precision_agrees_with_float64", "bfloat16"): (
                "a query with entries beside zero loses their signs to rounded inputs; on equal ones: test_vicinity.py"
            ),
        },
        finish_vicinity,
    ),
    "linformer": Row(
        explicit_linformer,
        (
            {"projected_len": 6, "max_len": 400},
            {"projected_len": 5, "sharing": "per_head", "head_dim": 5},
            {"projected_len": 4, "sharing": "key_value", "qkv_bias": False},
        ),
        {
            ("rows_sum_to_one", None): "rows of the map are mixtures of the rows of F, and those are free",
            ("permuting_tokens_permutes_outputs", None): "E and F have a column for each position",
            ("padding_changes_nothing_at_real_positions", "left"): (
                "E and F have a column for each position, and padding on the left moves every token to another"
            ),
        },
    ),
    "local": Row(
        explicit_local,
        (
            {"window": 5},
            {"window": 4, "look_backward": 0, "look_forward": 0},
            {"window": 7, "look_backward": 2, "look_forward": 0, "exact_window": True},
            {"window": 6, "exact_window": True, "head_dim": 5},
        ),
        {
            ("permuting_tokens_permutes_outputs", None): "a token reads its neighbours, which a permutation changes",
            ("padding_changes_nothing_at_real_positions", "left"): (
                "blocks are counted from the first position, and padding on the left moves tokens across their borders"
            ),
        },
    ),
    "longformer": Row(
        explicit_longformer,
        ({"window": 6}, {"window": 4, "dilation": (1, 3)}, {"window": 150, "global_tokens": (), "head_dim": 5}),
        {("permuting_tokens_permutes_outputs", None): "a token reads its neighbours, which a permutation changes"},
    ),
    "bigbird": Row(
        explicit_bigbird,
        (
            {"block": 4, "random_blocks": 2},
            {"block": 7, "random_blocks": 0, "head_dim": 5},
            {"block": 16, "seed": 1, "max_len": 333},
        ),
        {
            ("permuting_tokens_permutes_outputs", None): "blocks are made of neighbours, which a permutation changes",
            **dict.fromkeys(
                [
                    ("padding_changes_nothing_at_real_positions", None),
                    ("padding_changes_nothing_through_two_layers", None),
                ],
                "the last block is global, padding or not, and random blocks are chosen for the padded length",
            ),
        },
    ),
    "sparse_transformer": Row(
        explicit_sparse_transformer,
        (
            {"stride": 7},
            {"stride": 18, "mode": "per_head", "head_dim": 5},
            {"pattern": "fixed", "stride": 8, "num_summary": 3},
            {"pattern": "fixed", "stride": 5, "num_summary": 1, "mode": "per_head"},
        ),
        {
            ("rows_sum_to_one", "causal"): (
                "a fixed head of mode per_head finds no summary at the start: zero rows; see test_sparse_transformer.py"
            ),
            ("permuting_tokens_permutes_outputs", None): "a pattern is made of positions, which a permutation changes",
            ("padding_changes_nothing_at_real_positions", "left"): (
                "padding on the left moves tokens against the fixed blocks; strided: test_sparse_transformer.py"
            ),
        },
    ),
    "sinkhorn": Row(
        explicit_sinkhorn,
        (
            {"block": 8, "max_len": 340},
            {"block": 5, "max_len": 333, "combine": "sum_outputs", "temperature": 2.0, "iterations": 3},
            {"block": 7, "iterations": 1, "head_dim": 5},
        ),
        {
            ("rows_sum_to_one", None): (
                "eq. (2) ends with columns: rows of S sum to one in the limit only; sum_outputs adds two maps"
            ),
            ("permuting_tokens_permutes_outputs", None): "whole blocks are sorted, and a permutation breaks them",
            ("padding_changes_nothing_at_real_positions", "left"): (
                "blocks are counted from the first token, and padding on the left moves tokens between them"
            ),
        },
    ),
    "synthesizer": Row(
        explicit_synthesizer,
        (
            {"max_len": 400},
            {"max_len": 340, "parts": ("random", "factorized_random", "dot"), "mix": True, "rank": 3},
            {"max_len": 350, "parts": ("factorized_dense",), "factors": (16, 22), "hidden_dim": 3, "head_dim": 5},
            {"max_len": 333, "parts": "random", "train_random": False},
        ),
        {
            ("permuting_tokens_permutes_outputs", None): "keys are known by their places, which a permutation changes",
            ("padding_changes_nothing_at_real_positions", "left"): (
                "keys are known by their places, and padding on the left moves every token to a later place"
            ),
        },
    ),
    "evolving_attention": Row(
        explicit_evolving,
        (  # α = 0 needs no previous map, so one layer alone has its convolution
            {},
            {"first_in_chain": False, "alpha": 0.0, "beta": 0.6},
            {"first_in_chain": False, "alpha": 0.0, "beta": 1.0, "kernel_size": (1, 5), "negative_slope": 0.01},
            {"first_in_chain": False, "alpha": 0.0, "kernel_size": (5, 3), "head_dim": 5},
        ),
        {
            ("permuting_tokens_permutes_outputs", None): "a cell reads its neighbours, which a permutation changes",
        },
    ),
    "reformer": Row(
        explicit_reformer,
        (
            {"chunk": 8, "num_buckets": 6, "num_hashes": 3, "attend_across_buckets": True},
            {"chunk": 8, "num_buckets": 6, "num_hashes": 2},
            {"chunk": 5, "num_buckets": 4, "num_hashes": 1, "allow_duplicates": True},
            {"chunk": 7, "attend_across_buckets": True, "allow_duplicates": True, "head_dim": 5, "scale": 1.0},
        ),
        {
            ("causal_prefix_is_the_same_within_a_longer_sequence", None): (
                "later tokens of the same bucket move the borders of chunks, so a token may meet other earlier ones"
            ),
            ("causal_prefix_is_the_same_through_two_layers", None): (
                "later tokens of the same bucket move the borders of chunks, so a token may meet other earlier ones"
            ),
            ("permuting_tokens_permutes_outputs", None): (
                "tokens of one bucket are sorted by position, and the border of a chunk may lie between them"
            ),
            ("lower_precision_agrees_with_float64", "bfloat16"): (
                "rounding moves tokens near the border of two buckets; with equal buckets it agrees: test_reformer.py"
            ),
        },
    ),
}
