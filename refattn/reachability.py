"""Who can hear whom: what a pattern of attention lets through in one layer, and in several.

A pattern is a bool matrix A [N, N], A_ij = 1 where query i may read key j. A layer's residual connection lets every
token keep what it holds, so after L layers token i can depend on token j exactly where

    R_L = (A ∨ I)^L,        products with "or" for + and "and" for ×                                        (1)

is 1. What lies outside R_L cannot be learned, whatever is trained; what lies inside can, in principle.
"""

import torch


def pattern(layer, tokens, seed=0):
    """A of a layer under the attention contract for sequences of N = `tokens`: [N, N], heads united.

    Taken from the mask in its `attention_maps`, or, without one, from the weights that are not zero on one random
    input.
    """
    x = torch.randn(1, tokens, layer.embed_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        maps = layer.attention_maps(x.to(next(layer.parameters())))
    allow = maps["allow"] if "allow" in maps else maps["effective"] != 0
    return allow[0].any(0).expand(tokens, tokens)


def reach(allow, layers):
    """R_L of eq. (1) for L = `layers` ≥ 0 of the same pattern: bool [N, N].

    Args: allow: bool [N, N], or a list of L such patterns, first layer first (`layers` is then their number).
    """
    if layers < 0:
        raise ValueError(f"layers={layers}: wanted 0 or more")
    patterns = [allow] if torch.is_tensor(allow) else list(allow)
    check(*patterns)
    if torch.is_tensor(allow):
        patterns = patterns * layers
    if len(patterns) != layers:
        raise ValueError(f"allow has {len(patterns)} patterns: wanted one, or one for each of layers={layers}")
    heard = torch.eye(len(allow if torch.is_tensor(allow) else patterns[0]), dtype=torch.bool)
    for own in patterns:
        heard = heard | (own.float() @ heard.float() > 0)  # what i holds, or what anyone holds whom i reads
    return heard


def hops(allow):
    """The number of layers after which query i can depend on key j, int64 [N, N]; 0 on the diagonal, −1 for never."""
    check(allow)
    found = torch.full(allow.shape, -1)
    heard, layers = torch.eye(len(allow), dtype=torch.bool), 0
    while (heard & (found < 0)).any():
        found[heard & (found < 0)] = layers
        heard, layers = heard | (allow.float() @ heard.float() > 0), layers + 1
    return found


def density(allow):
    """Share of all pairs that may talk."""
    check(allow)
    return allow.double().mean().item()


def check(*patterns):
    """Raise a ValueError unless all are bool [N, N]."""
    for allow in patterns:
        if allow.dtype != torch.bool or allow.dim() != 2 or allow.shape[0] != allow.shape[1]:
            raise ValueError(f"allow is {allow.dtype} {tuple(allow.shape)}: wanted bool [N, N]")
