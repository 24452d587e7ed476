"""Kernel attention with relative positions: a Toeplitz matrix between features, applied by FFT (NPRF with RPE).

Paper: Luo et al., "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding", NeurIPS 2021
(arXiv 2106.12566). Softmax attention with a learned bias b_t for every offset t = j − i has weights

    α_ij ∝ exp(q_i·k_j) e^{b_{j−i}}                                                                          (1)

Only the first factor is a kernel. Features φ replace it, and the second one stays, exactly:

    o_i = φ(q_i) D₁[i] / φ(q_i) D₂[i],                                              c_t = e^{b_t}            (2)
    D₁[i] = Σ_j c_{j−i} φ(k_j)ᵀ v_j,      D₂[i] = Σ_j c_{j−i} φ(k_j)ᵀ

Both sums are products with one N × N Toeplitz matrix C, which `refattn/layers/toeplitz.py` applies in O(N log N). No
feature map of width m < N could hold C: its rank is up to N.

    φ(x) = exp(Ωx − |x|²/2) / √m,    on   q̂ = q / |q|,  k̂ = k / |k|  of every token and head                 (3)

Random features estimate exp(x·y) with a relative variance of (e^{|x+y|²} − 1) / m: at most 53.6 / m for unit vectors,
and up to e^{4R²} / m for vectors of norm R. The price: no weight of unit vectors exceeds another more than e² times. It
is the bias, unbounded, that makes attention sharp again. So both, or neither.

Cost for N tokens: O(N log N m d_v) time and O(N (m + d_v)) memory, since D₁ is made and read in blocks. There is no
state of constant size: a token that is generated reads all tokens before it, O(N (m + d_v)).
"""

import math

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, visible, working_dtype
from refattn.attention.linear import kernel_similarity, kernel_sums
from refattn.attention.performer import FLOOR, constant_features, positive_features, random_rows, trigonometric_features
from refattn.attention.softmax import masked_softmax
from refattn.layers.toeplitz import (
    OffsetBias,
    outer_sums,
    outer_sums_explicit,
    past_only,
    toeplitz_matrix,
    toeplitz_product,
    toeplitz_row,
)

KERNELS = ("positive", "trigonometric", "exact")
PRODUCTS = {"fft": outer_sums, "dense": outer_sums_explicit}
LEAST_NORM = 1e-6


def unit_rows(x):
    """q̂ of eq. (3): every token of every head by its own norm, [B, H, N, d]; float32 for half-precision input."""
    x = x.to(working_dtype(x))
    return x / x.norm(dim=-1, keepdim=True).clamp(min=LEAST_NORM)


def features(q, k, Omega, *, kernel="positive", normalise=True, stabilised=True):
    """φ(q) [B, H, N, m] and φ(k) [B, H, M, m]; for the exact kernel the vectors that are multiplied, [B, H, ·, d].

    Args: as `nprf_attention`; stabilised: leave out what belongs to one query, which cancels in eq. (2).
    """
    scale = 1.0 if normalise else q.shape[-1] ** -0.25
    if normalise:
        q, k = unit_rows(q), unit_rows(k)
    if kernel == "exact":
        return q.to(working_dtype(q)) * scale, k.to(working_dtype(k)) * scale
    if kernel == "positive" and stabilised:
        return constant_features(q, k, Omega, scale=scale)
    make = positive_features if kernel == "positive" else trigonometric_features
    return make(q, Omega, scale=scale), make(k, Omega, scale=scale)


def bounded(b, *, is_causal=False, bias_range=None):
    """b less its largest entry (of offsets that count), so that no e^b overflows, and none is below e^−bias_range.

    The first cancels in eq. (2). The second is a change: weights that far below the largest would drown in the
    rounding of a float32 transform, which is as large in every row as in the largest.
    """
    axes = b.dim() - 1
    with torch.no_grad():
        counted = past_only(b - b.amin(), axes) if is_causal else b - b.amin()  # none below zero, later offsets at it
        largest = counted.flatten(1).amax(1).view(-1, *[1] * axes) + b.amin()
    b = b - largest
    return b if bias_range is None else b.clamp(min=-bias_range)


def offset_weights(b, *, is_causal=False):
    """c of eq. (2) from b [H, …], a table of the same shape; zero for later keys where causal."""
    c = b.to(working_dtype(b)).exp()
    return past_only(c, b.dim() - 1) if is_causal else c


def kernel_states(phi_k, v, c, *, key_padding_mask=None):
    """D₁ [B, H, N, m, d_v] and D₂ [B, H, N, m] of eq. (2): for pictures and proofs, since nobody needs all at once."""
    if key_padding_mask is not None:
        phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0.0)
    outer = phi_k[..., None] * F.pad(v, (0, 1), value=1.0)[..., None, :]  # [B, H, N, m, d_v + 1]
    axes, grid = c.dim() - 1, [(n + 1) // 2 for n in c.shape[1:]]
    tokens_last = on_grid(outer.flatten(3).transpose(-1, -2), grid)
    D = toeplitz_product(c[:, None], tokens_last, axes).flatten(3).transpose(-1, -2)
    D = D[:, :, : v.shape[2]].unflatten(-1, outer.shape[-2:])
    return D[..., :-1], D[..., -1]


def on_grid(x, grid):
    """Tokens on the last axis, [..., N], laid out on a grid, [..., n] or [..., h, w], missing ones as zeros."""
    return F.pad(x, (0, math.prod(grid) - x.shape[-1])).unflatten(-1, grid)


def nprf_weights(q, k, Omega, b, *, is_causal=False, key_padding_mask=None, kernel="positive", normalise=True):
    """The map that eq. (2) applies, or eq. (1) for the exact kernel, [B, H, N, N]; rows sum to one.

    Args: as `nprf_attention`. A row that sees no key is zero.
    """
    tokens, masks = q.shape[2], {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    phi_q, phi_k = features(q, k, Omega, kernel=kernel, normalise=normalise)
    if b is not None:
        check_bias(b, q)
        b = bounded(b.to(phi_q.dtype), is_causal=is_causal)
    if kernel == "exact":
        check_heads(q, k, k, is_causal)
        logits = phi_q @ phi_k.transpose(-1, -2)
        logits = logits if b is None else logits + toeplitz_matrix(b, b.dim() - 1)[:, :tokens, :tokens]
        return masked_softmax(logits, visible(*logits.shape[2:], **masks, device=q.device))
    weights = kernel_similarity(phi_q, phi_k, **masks, floor=FLOOR if b is None else 0.0)
    if b is not None:
        weights = weights * toeplitz_matrix(offset_weights(b), b.dim() - 1)[:, :tokens, :tokens]
    total = weights.sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)


def nprf_attention_explicit(q, k, v, Omega, b, **options):
    """Eq. (2) through the full N × N map: the quadratic twin of `nprf_attention`."""
    weights = nprf_weights(q, k, Omega, b, **options)
    return (weights @ v.to(weights.dtype)).to(v.dtype)


def nprf_attention(
    q, k, v, Omega, b, *, is_causal=False, key_padding_mask=None, kernel="positive", normalise=True, product="fft"
):
    """Eq. (2), in O(N log N).

    Args:
        q, k: queries and keys [B, H, N, d];  v: values [B, H, N, d_v];  Omega: Ω [m, d].
        b: biases by offset t = j − i, [H, 2N − 1], offset t at place t + N − 1; for tokens of a grid h × w in raster
            order [H, 2h − 1, 2w − 1], N ≤ h w; None: no positions, and then kernel attention in linear time.
        is_causal: query i sees keys j ≤ i only.  key_padding_mask: [B, N] bool, True where the key is padding.
        kernel: "positive", eq. (3); "trigonometric", whose weights may be negative; "exact", eq. (1), through the map.
        normalise: q̂ and k̂ of eq. (3); otherwise x / d^¼, as in Performer.
        product: "fft", or "dense": the same sums through the N × N matrix, faster for short sequences.

    Returns: [B, H, N, d_v]. Raises: ValueError if the shapes do not fit.
    """
    options = {"kernel": kernel, "normalise": normalise}
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    if kernel == "exact":
        return nprf_attention_explicit(q, k, v, Omega, b, **options, **masks)
    phi_q, phi_k = features(q, k, Omega, **options)
    if b is None:
        numerator, denominator = kernel_sums(phi_q, phi_k, v, **masks, floor=FLOOR)
        return (numerator / denominator.masked_fill(denominator == 0, 1.0)).to(v.dtype)
    check_bias(b, q)
    c = offset_weights(bounded(b.to(phi_q.dtype), is_causal=is_causal), is_causal=is_causal)
    values = F.pad(v.to(phi_q.dtype), (0, 1), value=1.0)  # the denominator is the same sum with v = 1
    if key_padding_mask is not None:
        values = values.masked_fill(key_padding_mask[:, None, :, None], 0.0)
    grid = [(n + 1) // 2 for n in b.shape[1:]]
    tokens_last = [on_grid(t.transpose(-1, -2), grid) for t in (phi_q, phi_k, values)]
    R = PRODUCTS[product](*tokens_last, c, len(grid)).flatten(3)[..., : v.shape[2]].transpose(-1, -2)
    numerator, denominator = R[..., :-1], R[..., -1:]
    if key_padding_mask is not None:  # where nothing is visible a transform leaves rounding, and not zero
        blind = queries_without_keys(key_padding_mask, is_causal)
        numerator, denominator = numerator.masked_fill(blind, 0.0), denominator.masked_fill(blind, 1.0)
    if kernel == "positive":
        return (numerator / denominator.clamp(min=rounding(phi_q, phi_k, c))).to(v.dtype)
    return (numerator / denominator.masked_fill(denominator == 0, 1.0)).to(v.dtype)


def rounding(phi_q, phi_k, c):
    """The least denominator that is more than rounding, [B, H, N, 1]: ε of the sum with the largest c everywhere."""
    with torch.no_grad():
        most = (phi_q * phi_k.sum(2, keepdim=True)).sum(-1, keepdim=True) * c.flatten(1).amax(1)[:, None, None]
        return (most * torch.finfo(most.dtype).eps).clamp(min=FLOOR)


def queries_without_keys(key_padding_mask, is_causal):
    """Which queries see padding only, [B, 1, N or 1, 1]."""
    real = ~key_padding_mask
    seen = real.cumsum(1) > 0 if is_causal else real.any(1, keepdim=True)
    return ~seen[:, None, :, None]


def check_bias(b, q):
    """Raise a ValueError unless the table of b has a row a head and an entry for every offset of q's tokens."""
    tokens, grid = q.shape[2], [(n + 1) // 2 for n in b.shape[1:]]
    fits = b.dim() in (2, 3) and b.shape[0] == q.shape[1] and all(n % 2 for n in b.shape[1:])
    enough = math.prod(grid) == tokens if b.dim() == 2 else math.prod(grid) >= tokens
    if not fits or not enough:
        wanted = f"[H, 2N − 1] or [H, 2h − 1, 2w − 1] for q {tuple(q.shape)}"
        raise ValueError(f"b has shape {tuple(b.shape)}: wanted {wanted}")


class NPRFAttention(Attention):
    """Multi-head kernel attention with relative positions, eq. (2), by FFT (Luo et al. 2021).

    Args: those of `Attention`, and
        num_features: m (default d ln d, at least d).  orthogonal: rows of Ω.  seed: of Ω; see `Performer`.
        kernel, normalise, product: see `nprf_attention`.
        relative: False leaves out b: with `normalise` the paper's NPRF without RPE, without it a Performer.
        max_len: the longest sequence.  grid: (rows, columns): tokens are those of a picture in raster order, and
            offsets have two parts; a sequence may end before the last row is full.
        bias_std: of the first biases. At 0 the layer starts without any order, and may stay there.
        bias_range: see `bounded`; None lets biases spread without limit, as the equation does.
    """

    forms = frozenset({"causal", "mask", "step"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        num_features=None,
        orthogonal=True,
        seed=None,
        kernel="positive",
        normalise=True,
        product="fft",
        relative=True,
        max_len=1024,
        grid=None,
        bias_std=0.5,
        bias_range=16.0,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        d = self.head_dim
        num_features = max(d, int(d * math.log(d))) if num_features is None else num_features
        sizes = (max_len,) if grid is None else tuple(grid)
        for name, value, known in (("kernel", kernel, KERNELS), ("product", product, tuple(PRODUCTS))):
            if value not in known:
                raise ValueError(f"{name}={value!r}: wanted one of {', '.join(known)}")
        if num_features < 1 or min(sizes) < 1 or len(sizes) > 2:
            came = f"num_features={num_features}, max_len={max_len}, grid={grid}"
            raise ValueError(f"{came}: wanted positive numbers, and two of them for a grid")
        if bias_range is not None and bias_range <= 0:
            raise ValueError(f"bias_range={bias_range}: wanted a positive number, or None")
        self.kernel, self.normalise, self.product, self.bias_range = kernel, normalise, product, bias_range
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        Omega = None if kernel == "exact" else random_rows(num_features, d, orthogonal=orthogonal, generator=generator)
        self.register_buffer("Omega", Omega)
        self.bias = OffsetBias(num_heads, sizes, bias_std) if relative else None

    def offsets(self, tokens):
        """b for so many tokens, within its range; what the range is measured from does not depend on their number."""
        if self.bias is None:
            return None
        b = bounded(self.bias.b, is_causal=self.is_causal, bias_range=self.bias_range)
        return self.bias.cut(b, tokens)

    def options(self):
        """What the functions of this file need to know of the layer, besides Ω, b and the product."""
        return {"is_causal": self.is_causal, "kernel": self.kernel, "normalise": self.normalise}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (2) for every head; dropout acts on the attended values, since there are no weights to drop."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        options = {"key_padding_mask": key_padding_mask, "product": self.product, **self.options()}
        y = nprf_attention(q, k, v, self.Omega, self.offsets(x.shape[1]), **options)
        return self.projections.merge(F.dropout(y, self.drop)), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"` [B, H, N, N], and its two factors: `"content"`, φ(q_i)·φ(k_j) or exp(q_i·k_j), with rows that
        sum to one, and `"toeplitz"`, C [H, N, N], where there are relative positions.
        """
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        options = {"key_padding_mask": key_padding_mask, **self.options()}
        b = self.offsets(x.shape[1])
        maps = {name: nprf_weights(q, k, self.Omega, t, **options) for name, t in (("effective", b), ("content", None))}
        if b is not None:
            C = toeplitz_matrix(offset_weights(b, is_causal=self.is_causal), b.dim() - 1)
            maps["toeplitz"] = C[:, : x.shape[1], : x.shape[1]]
        return maps

    def init_state(self, batch_size, carry=None):
        """Before the first token: no `keys` [B, H, 0, m] (features), no `values` [B, H, 0, d]."""
        if not self.is_causal:
            raise ValueError("init_state needs is_causal=True: only the causal form is read token by token")
        weight = self.projections.query.weight
        width = self.head_dim if self.Omega is None else len(self.Omega)
        empty, dtype = (batch_size, self.num_heads, 0), working_dtype(weight)
        return {"keys": weight.new_zeros(*empty, width, dtype=dtype), "values": weight.new_zeros(*empty, self.head_dim)}

    def step(self, x_t, state):
        """One token, and one row of the map: O(N (m + d_v)) after N tokens."""
        q, k, v = self.projections(x_t[:, None])  # each [B, H, 1, d]
        phi_q, phi_k = features(q, k, self.Omega, kernel=self.kernel, normalise=self.normalise)
        keys, values = (torch.cat(pair, 2) for pair in ((state["keys"], phi_k), (state["values"], v)))
        weights = phi_q @ keys.transpose(-1, -2)  # [B, H, 1, t + 1]
        b, tokens = self.offsets(keys.shape[2]), keys.shape[2]
        if b is not None:
            b = toeplitz_row(b, tokens - 1, b.dim() - 1)[:, None, :tokens].to(weights.dtype)
        if self.kernel == "exact":
            weights = (weights if b is None else weights + b).softmax(-1)
        else:
            weights = weights + FLOOR if b is None else weights * offset_weights(b)
            total = weights.sum(-1, keepdim=True)
            weights = weights / total.masked_fill(total == 0, 1.0)
        y = (weights @ values.to(weights.dtype)).to(v.dtype)
        return self.projections.merge(y)[:, 0], {"keys": keys, "values": values}
