"""Convolutions over attention maps: a stack of maps is an image whose channels are maps (heads, or pairs of heads).

    (C * A)[h, p, q] = Σ_g Σ_{u,v} C[h, g, u, v] A[g, p + u − o_r, q + v − o_c]        A is zero outside the map    (1)

A cross-correlation, as everywhere in deep learning. The offsets say where a k_r × k_c kernel lies over the cell that it
writes, and so what the cell may know:

    centred        o = (k − 1) / 2      as much before the cell as after it
    causal         o = k − 1            the cell itself and what comes before it, along rows, columns or both

A cell that may not be seen (a later key, padding) must be zero before a convolution, which is what lies outside the map
as well; −∞ would swallow its whole neighbourhood. −∞ has its place inside the softmax alone (`masked_softmax`).
"""

import torch
from torch.nn import functional as F


def hide(maps, seen):
    """Maps [..., N, M] with zeros where `seen` (bool, broadcastable, None: all are) is False."""
    return maps if seen is None else maps.masked_fill(~seen, 0.0)


def convolve_maps(maps, kernel, bias=None, *, seen=None, causal_rows=False, causal_columns=False, groups=1):
    """Eq. (1), with a bias for every outgoing map.

    Args:
        maps: logits [B, G, N, M].  kernel: [H, G / groups, k_r, k_c], odd sizes.  bias: [H], or None.
        seen: bool, broadcastable to [B, 1, N, M], True = may be seen: other cells are zero before the convolution.
            After it they hold what the kernel put there: the caller hides them again.
        causal_rows, causal_columns: offsets along queries and along keys; centred unless causal.
        groups: kernels that stay among their own G / groups maps.

    Returns: [B, H, N, M].
    Raises: ValueError for maps or a kernel that do not fit.
    """
    check_kernel(maps, kernel, groups)
    maps, (k_r, k_c) = hide(maps, seen), kernel.shape[-2:]
    if not (causal_rows or causal_columns):
        return F.conv2d(maps, kernel, bias, padding=(k_r // 2, k_c // 2), groups=groups)
    above, left = k_r - 1 if causal_rows else k_r // 2, k_c - 1 if causal_columns else k_c // 2
    framed = F.pad(maps, (left, k_c - 1 - left, above, k_r - 1 - above))
    return F.conv2d(framed, kernel, bias, groups=groups)


def convolve_maps_explicit(maps, kernel, bias=None, *, seen=None, causal_rows=False, causal_columns=False, groups=1):
    """Eq. (1) tap by tap: every tap takes a shifted copy of the maps; the twin of `convolve_maps`."""
    (k_r, k_c), (rows, columns) = kernel.shape[-2:], maps.shape[-2:]
    o_r, o_c = (k - 1 if ahead else k // 2 for k, ahead in ((k_r, causal_rows), (k_c, causal_columns)))
    framed = F.pad(hide(maps, seen), (o_c, k_c - 1 - o_c, o_r, k_r - 1 - o_r)).unflatten(1, (groups, -1))
    kernel = kernel.unflatten(0, (groups, -1))  # [groups, H / groups, G / groups, k_r, k_c]
    total = 0.0
    for u in range(k_r):
        for v in range(k_c):
            shifted = framed[..., u : u + rows, v : v + columns]
            total = total + torch.einsum("x h g, b x g n m -> b x h n m", kernel[..., u, v], shifted)
    total = total.flatten(1, 2)
    return total if bias is None else total + bias[:, None, None]


def check_kernel(maps, kernel, groups=1):
    """Raise a ValueError unless maps [B, G, N, M] and an odd kernel [H, G / groups, k_r, k_c] fit together."""
    if maps.dim() != 4:
        raise ValueError(f"maps have shape {tuple(maps.shape)}: wanted [B, G, N, M]")
    fits = kernel.dim() == 4 and kernel.shape[1] * groups == maps.shape[1] and kernel.shape[0] % groups == 0
    if not fits or kernel.shape[2] % 2 == 0 or kernel.shape[3] % 2 == 0:
        wanted = f"[H, {maps.shape[1]} / groups={groups}, k_r, k_c] with odd k_r and k_c"
        raise ValueError(f"kernel has shape {tuple(kernel.shape)}: wanted {wanted}")
