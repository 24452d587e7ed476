"""EIT: every query head meets every key head, and the maps talk to each other before the softmax.

Paper: Zheng et al., "EIT: Enhanced Interactive Transformer", ACL 2024 (arXiv 2212.10197); its attention is called EMHA.

    S^(iM+j) = Q^(i) K^(j)ᵀ / √d              many to many: M² maps, those of one query head side by side        (1)
    Ṡ = f₁(ReLU(f₀(S)))                        inner-subspace interaction: the M maps of query head i become one  (2)
    S̈ = g₁(ReLU(g₀(Ṡ)))                        cross-subspace interaction: all heads with all                     (3)
    Y^(m) = softmax(S̈^(m)) V^(m)               one softmax, at the end                                            (4)
    Ṡ = ReLU(F(S)),  S̈ = G(Ṡ)                  the efficient variant, E-EIT: one convolution for each             (5)

f, F have M groups (one a query head), g, G have none. All run along keys alone, kernels 1 × k, never across queries:

    conv(Z)[c, n, l] = β_c + Σ_c' Σ_t W[c, c', t] Z[c', n, l + t − (k − 1) / 2]       Z is zero outside the map   (6)

A cell that may not be seen is zero before every convolution, and −∞ for the softmax alone. The first convolution is
linear in S, and S is linear in the keys; so it may as well be applied to the keys, and M² maps need not exist:

    f₀(S)^(c) = Q^(i) K'^(c)ᵀ / √d + β_c        with K' = f₀ * K, a convolution over key heads and positions      (7)

Cost for N tokens, M heads: O(N² M D) as (1) has it. With (7) only as many maps as f₀ returns, ρ M² (E-EIT: 2 M).
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, default_scale, visible
from refattn.attention.softmax import masked_softmax
from refattn.layers.map_convolution import convolve_maps, hide

VARIANTS = {"full": {"isi": 7, "csi": 3}, "efficient": {"isi": 1, "csi": 1}}  # and the kernels they come with
ZEROING = ("each", "first", "never")


def many_to_many(q, k):
    """Eq. (1): queries [B, M, N, d] and keys [B, M, L, d] to maps [B, M², N, L], the key head running fastest."""
    pairs = (q * default_scale(q.shape[-1]))[:, :, None] @ k[:, None].transpose(-1, -2)  # [B, i, j, N, L]
    return pairs.flatten(1, 2)


def convolve_keys(maps, kernel, bias=None, groups=1, *, relu=False):
    """Eq. (6) by matrix products, and a ReLU if wanted; the same as a grouped `conv2d` with kernels 1 × k.

    Args: maps [B, G, N, L];  kernel [C, G / groups, k], k odd;  bias [C] or None.
    Returns: [B, C, N, L].

    A shift costs memory, a product does not: whichever side of the product has fewer maps is shifted. Bias and ReLU
    write in place, before the result gets its shape: an operation in place on a view costs its gradient a copy.
    """
    (channels, reads, taps), (rows, columns) = kernel.shape, maps.shape[-2:]
    weight = kernel.unflatten(0, (groups, -1))  # [groups, C / groups, G / groups, k]
    maps = maps.unflatten(1, (groups, reads))
    if taps > 1 and channels < maps.shape[1] * reads:  # product first: k results for each outgoing map
        tapped = weight.permute(0, 3, 1, 2).flatten(1, 2) @ maps.flatten(3)  # [B, groups, k · C / groups, N L]
        tapped = F.pad(tapped.unflatten(2, (taps, -1)).unflatten(4, (rows, columns)), [taps // 2] * 2)
        found = sum(tapped[:, :, t, ..., t : t + columns] for t in range(taps))
    else:
        if taps > 1:  # shifts first: k copies of each incoming map
            framed = F.pad(maps, [taps // 2] * 2)
            maps = torch.stack([framed[..., t : t + columns] for t in range(taps)], 3).flatten(2, 3)  # … G / groups · k
        found = weight.flatten(2) @ maps.flatten(3)  # [B, groups, C / groups, N L]
    return finish(found, bias, relu).reshape(-1, channels, rows, columns)


def finish(found, bias, relu):
    """Bias and ReLU, in place, on a tensor that nobody else holds: [B, groups, C / groups, …]."""
    if bias is not None:
        found = found.add_(bias.reshape(found.shape[1:3] + (1,) * (found.dim() - 3)))
    return found.relu_() if relu else found


def first_maps(q, k, kernel, bias, seen=None):
    """ReLU(f₀(S)) [B, C, N, L]: by eq. (7) where all queries see the same keys, else by eqs. (1) and (6).

    Args: seen: bool [1 or B, 1, 1 or N, L], True = visible, or None: all are.
    """
    heads = q.shape[1]
    differs = seen is not None and seen.shape[2] > 1  # causal: what a tap may read depends on the query
    if differs and kernel.shape[-1] > 1:
        return convolve_maps(many_to_many(q, k), kernel[:, :, None], bias, seen=seen, groups=heads).relu_()
    keys = convolve_keys(hide(k.transpose(-1, -2), None if differs else seen), kernel)  # [B, C, d, L]
    found = (q * default_scale(q.shape[-1]))[:, :, None] @ keys.unflatten(1, (heads, -1))  # [B, M, C / M, N, L]
    if differs:
        found = hide(found, seen[:, :, None])
    return finish(found, bias, relu=True).flatten(1, 2)


def interact(inner, isi, csi, seen=None):
    """Eqs. (2) and (3), or (5), after the first convolution and its ReLU.

    Args: inner: `first_maps` [B, C, N, L];  isi, csi: kernels and biases, [(weight, bias), …].
    Returns: Ṡ [B, M (E-EIT: C), N, L] and S̈ [B, M, N, L], hidden cells not yet hidden again.
    """
    for weight, bias in isi[1:]:
        inner = convolve_keys(hide(inner, seen), weight, bias, groups=weight.shape[0])
    inner = hide(inner, seen)
    across = convolve_keys(inner, *csi[0], relu=len(csi) > 1)
    for weight, bias in csi[1:]:
        across = convolve_keys(hide(across, seen), weight, bias)
    return inner, across


def eit_logits(q, k, isi, csi, *, seen=None, zeroing="each"):
    """Ṡ and S̈ of eqs. (2) and (3), or (5); cells that may not be seen hold whatever the kernels put there.

    Args: q [B, M, N, d];  k [B, M, L, d];  isi, csi: kernels [C, G / groups, k] and biases [C], [(weight, bias), …],
        one pair each in the efficient variant, else two.  seen: as `first_maps`.  zeroing: see `EIT`.
    """
    first, later = hidden_cells(seen, zeroing)
    return interact(first_maps(q, k, *isi[0], seen=first), isi, csi, later)


def eit_attention(q, k, v, isi, csi, *, is_causal=False, key_padding_mask=None, zeroing="each", dropout_p=0.0):
    """Eqs. (1) to (5), without M² maps unless it is causal.

    Args:
        q: queries [B, M, N, d];  k: keys [B, M, L, d];  v: values [B, M, L, d_v].
        isi, csi: see `eit_logits`.
        is_causal: query n sees keys l ≤ n only (needs N == L).
        key_padding_mask: [B, L] bool, True where the key is padding.
        zeroing: see `EIT`.  dropout_p: rate on the weights.

    Returns: [B, M, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask, "device": q.device}
    seen = visible(q.shape[2], k.shape[2], **masks)
    _, logits = eit_logits(q, k, isi, csi, seen=seen, zeroing=zeroing)
    return F.dropout(masked_softmax(logits, seen), dropout_p) @ v


def eit_logits_explicit(q, k, isi, csi, *, seen=None, zeroing="each"):
    """S, Ṡ and S̈, the card's equations as they stand: M² maps, then one convolution after another."""
    first, later = hidden_cells(seen, zeroing)
    heads = q.shape[1]
    S = hide(torch.einsum("bind,bjld->bijnl", q, k).flatten(1, 2) / q.shape[-1] ** 0.5, first)
    weights = [(weight[:, :, None], bias) for weight, bias in (*isi, *csi)]  # [C, G / groups, 1, k]
    if len(weights) == 2:
        inner = hide(F.relu(convolve_maps(S, *weights[0], groups=heads)), later)
        return S, inner, convolve_maps(inner, *weights[1])
    inner = convolve_maps(F.relu(convolve_maps(S, *weights[0], groups=heads)), *weights[1], seen=later, groups=heads)
    inner = hide(inner, later)
    return S, inner, convolve_maps(F.relu(convolve_maps(inner, *weights[2])), *weights[3], seen=later)


def eit_attention_explicit(q, k, v, isi, csi, *, is_causal=False, key_padding_mask=None, zeroing="each"):
    """Eqs. (1) to (5) through all M² maps: the plain twin of `eit_attention`."""
    seen = visible(q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask, device=q.device)
    logits = eit_logits_explicit(q, k, isi, csi, seen=seen, zeroing=zeroing)[-1]
    return masked_softmax(logits, seen) @ v


class EIT(Attention):
    """Enhanced multi-head attention (Zheng et al. 2024): self-, cross- and causal form.

    Args: those of `Attention`, and
        variant: "full", eqs. (2) and (3), or "efficient", eq. (5).
        isi_kernel, csi_kernel: widths along keys, odd; 7 and 3 as the authors' code has them (efficient: 1 and 1).
        isi_ratio, csi_ratio: ρ and c: hidden maps for each incoming one, ρ M² and c M (full only).
        channels: C, hidden maps of the efficient variant, a multiple of the heads; 2 M unless given.
        zeroing: which convolutions find cells that may not be seen at zero: "each", as is sound; "first" or "never", as
            older generations of the authors' code: then results depend on padding, and a causal layer sees ahead.

    Values keep M heads. Step form: a cache of keys and values; a new row of maps reads no other row.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        variant="full",
        isi_kernel=None,
        csi_kernel=None,
        isi_ratio=2,
        csi_ratio=8,
        channels=None,
        zeroing="each",
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r}: wanted one of {', '.join(VARIANTS)}")
        hidden_cells(None, zeroing)
        M, kernels = num_heads, VARIANTS[variant]
        inner = check_kernel("isi_kernel", kernels["isi"] if isi_kernel is None else isi_kernel)
        cross = check_kernel("csi_kernel", kernels["csi"] if csi_kernel is None else csi_kernel)
        if variant == "efficient":
            C = 2 * M if channels is None else channels
            if C < 1 or C % M:
                raise ValueError(f"channels={channels}: wanted a multiple of num_heads={M}")
            self.isi = nn.ModuleList([nn.Conv1d(M * M, C, inner, groups=M)])
            self.csi = nn.ModuleList([nn.Conv1d(C, M, cross)])
        else:
            if channels is not None:
                raise ValueError(f"channels={channels}: only variant='efficient' has them")
            if isi_ratio < 1 or csi_ratio < 1:
                raise ValueError(f"isi_ratio={isi_ratio}, csi_ratio={csi_ratio}: wanted 1 or more")
            wide, tall = isi_ratio * M * M, csi_ratio * M
            self.isi = nn.ModuleList([nn.Conv1d(M * M, wide, inner, groups=M), nn.Conv1d(wide, M, inner, groups=M)])
            self.csi = nn.ModuleList([nn.Conv1d(M, tall, cross), nn.Conv1d(tall, M, cross)])
        self.variant, self.zeroing = variant, zeroing

    def make_projections(self, *, bias, qkv_bias):
        projections = super().make_projections(bias=bias, qkv_bias=qkv_bias)
        projections.reset_parameters(gain=2**-0.5)
        return projections

    def options(self):
        """What the functions of this file need to know of the layer: kernels, and how cells are hidden."""
        kernels = ([(conv.weight, conv.bias) for conv in convolutions] for convolutions in (self.isi, self.csi))
        return {**dict(zip(("isi", "csi"), kernels, strict=True)), "zeroing": self.zeroing}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (1) to (5) for every head."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        masks = {"is_causal": self.is_causal, "key_padding_mask": key_padding_mask}
        y = eit_attention(q, k, v, dropout_p=self.drop, **masks, **self.options())
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: softmax(S̈) [B, M, N, L]; and, hidden cells zero, `"logits"` (1) [B, M², N, L], `"isi"`: Ṡ and
        `"csi"`: S̈ [B, M, N, L] (E-EIT: Ṡ has C maps)."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        masks = {"is_causal": self.is_causal, "key_padding_mask": key_padding_mask, "device": q.device}
        seen = visible(q.shape[2], k.shape[2], **masks)
        S, inner, across = eit_logits_explicit(q, k, seen=seen, **self.options())
        found = {"logits": hide(S, seen), "isi": hide(inner, seen), "csi": hide(across, seen)}
        return {"effective": masked_softmax(across, seen), **found}

    def init_state(self, batch_size, carry=None):
        """An empty cache: keys and values `[B, M, 0, d]`."""
        weight = self.projections.query.weight
        empty = weight.new_zeros(batch_size, self.num_heads, 0, self.head_dim)
        return {"keys": empty, "values": empty}

    def step(self, x_t, state):
        """One token: its row of all maps over all keys so far."""
        q, k, v = self.projections(x_t[:, None])
        state = {"keys": torch.cat([state["keys"], k], 2), "values": torch.cat([state["values"], v], 2)}
        y = eit_attention(q, state["keys"], state["values"], **self.options())
        return self.projections.merge(y)[:, 0], state


def hidden_cells(seen, zeroing):
    """`seen` as the first convolution is to know it, and as the later ones. Raises: ValueError for an unknown word."""
    if zeroing not in ZEROING:
        raise ValueError(f"zeroing={zeroing!r}: wanted one of {', '.join(ZEROING)}")
    return (None if zeroing == "never" else seen), (seen if zeroing == "each" else None)


def check_kernel(name, width):
    """The width. Raises: ValueError unless it is odd: an even kernel would change the number of keys."""
    if width < 1 or width % 2 == 0:
        raise ValueError(f"{name}={width}: wanted an odd width")
    return width
