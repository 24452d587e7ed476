"""Local attention: its function and its mask."""

from golden_adapters.shared import padding, pattern_like
from refattn.attention import local


def adapt(case):
    config = case.config
    names = {"window": "window", "look_backward": "look_backward", "look_forward": "look_forward"}
    names |= {"is_causal": "causal", "exact_window": "exact_window"}
    options = {ours: config[theirs] for ours, theirs in names.items()}
    tokens = case["in.q"].shape[2]
    options["key_padding_mask"] = padding(case, "key_padding_mask", tokens)
    outputs = {"y": local.local_attention(case["in.q"], case["in.k"], case["in.v"], **options)}
    if "out.allow" in case:
        outputs["allow"] = pattern_like(local.local_mask(tokens, **options), case["out.allow"])
    return outputs
