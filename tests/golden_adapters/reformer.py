"""Reformer: buckets and attention on given vectors, with stored rotations."""

from golden_adapters.shared import padding
from refattn.attention import reformer

TOLERANCE = (1e-9, 1e-8)  # the oracle takes log(c + 1e-9) of the counts where duplicates are removed


def scale_of(config):
    """Ours for the file's words: None is 1/√d."""
    scale = config.get("scale", "1/sqrt(d)")
    if isinstance(scale, (int, float)) and not isinstance(scale, bool):
        return float(scale)
    return None if "sqrt" in str(scale) else 1.0


def adapt(case):
    config, qk = case.config, case["in.qk"]
    buckets = reformer.hash_buckets(qk, case["in.rotations"])
    y = reformer.lsh_attention(
        qk,
        case["in.v"],
        buckets,
        chunk=config["chunk"],
        is_causal=config["causal"],
        key_padding_mask=padding(case, "key_padding_mask", qk.shape[2]),
        attend_across_buckets=config["attend_across_buckets"],
        allow_duplicates=config["allow_duplicates"],
        hash_padding=True,
        scale=scale_of(config),
    )
    return {"buckets": buckets, "y": y}
