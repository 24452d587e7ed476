"""One vector for a sequence of any length."""


def masked_mean(x, key_padding_mask=None):
    """The mean of a sequence's real tokens, [B, N, D] to [B, D]; zero where there are none.

    key_padding_mask: [B, N], True = padding; None: all are real.
    """
    if key_padding_mask is None:
        return x.mean(1)
    real = (~key_padding_mask)[..., None].to(x.dtype)  # [B, N, 1]
    return (x * real).sum(1) / real.sum(1).clamp(min=1.0)
