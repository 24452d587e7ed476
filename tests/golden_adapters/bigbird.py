"""BigBird: its function and its mask, with the random blocks of the case."""

from golden_adapters.shared import padding, pattern_like
from refattn.attention import bigbird


def adapt(case):
    tokens = case["in.q"].shape[2]
    options = {"block": case.config["block"], "key_padding_mask": padding(case, "key_padding_mask", tokens)}
    rand_blocks = case["in.rand_blocks"]
    y = bigbird.bigbird_attention(case["in.q"], case["in.k"], case["in.v"], rand_blocks, **options)
    outputs = {"y": y}
    if "out.allow" in case:
        outputs["allow"] = pattern_like(bigbird.bigbird_mask(tokens, rand_blocks, **options), case["out.allow"])
    return outputs
