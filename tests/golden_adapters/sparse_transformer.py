"""Sparse Transformer: its function and its mask."""

from golden_adapters.shared import padding, pattern_like
from refattn.attention import sparse_transformer


def adapt(case):
    config = case.config
    q, k, v = case["in.q"], case["in.k"], case["in.v"]
    options = {"pattern": config["pattern"], "stride": config["stride"], "num_summary": config.get("c") or 1}
    options |= {"mode": config["mode"], "is_causal": config["causal"]}
    options["key_padding_mask"] = padding(case, "key_padding_mask", q.shape[2])
    outputs = {"y": sparse_transformer.sparse_attention(q, k, v, **options)}
    if "out.allow" in case:
        allow = sparse_transformer.sparse_mask(q.shape[2], heads=q.shape[1], **options)
        outputs["allow"] = pattern_like(allow, case["out.allow"])
    return outputs
