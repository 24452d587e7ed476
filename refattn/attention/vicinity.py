"""Vicinity attention: linear attention on a grid, with weights that fade with the row and the column distance.

Paper: Sun et al., "Vicinity Vision Transformer", TPAMI 2023 (arXiv 2206.10552). For token i at row y_i and column x_i
of H × W tokens:

    a_i = π/2 · y_i / H            b_i = π/2 · x_i / W            in [0, π/2), so no cosine below is negative     (1)
    R_ij = cos(a_i − a_j) + cos(b_i − b_j)            "sum";      cos(a_i − a_j) · cos(b_i − b_j)  "product"      (2)
    S_ij = relu(q_i)·relu(k_j) R_ij                   o_i = Σ_j S_ij v_j / (Σ_j S_ij + ε)                         (3)
    F_i = [cos a_i, sin a_i, cos b_i, sin b_i]        R_ij = F_i·F_j, for the product likewise with four products (4)
    φ(x_i) = relu(x_i) ⊗ F_i                          S_ij = φ(q_i)·φ(k_j), exactly                               (5)

So (3) is kernel attention (see `linear.py`) with features four times as wide as a head: cosFormer's idea in two axes.
The cosine of the Manhattan distance, cos(|Δa| + |Δb|), is not among the choices: it has no factors per token.

Around it stand two ideas for a network whose width is large and whose grid is fine:

    FRA, feature reduction     q, k and v have D / ρ features, and only the output matrix returns to D
    FPC, feature preserving    z ← z ⊙ (1 + g),   g = σ(U₂ relu(U₁ x̄)),   x̄ the mean of the inputs at full width  (6)

Cost for N tokens of head width d: O(N d²) time and O(d²) state, four times those of linear attention; the explicit form
takes fewer multiply-adds where N < 4 d.
"""

import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, head_width, working_dtype
from refattn.attention.grid import check_grid, grid_of
from refattn.attention.linear import kernel_similarity, kernel_sums
from refattn.layers.pooling import masked_mean

EPS = 1e-4  # ε of eq. (3), the authors'
OFFICIAL_CLAMP = (1e-4, 1e4)
REWEIGHTINGS = ("sum", "product", "none")  # "none": R = 1, linear attention with relu features


def angles(grid, *, device=None, dtype=None):
    """Eq. (1) for a grid (H, W), row by row: a and b, each [N]. The divisors are H and W, not H − 1 and W − 1."""
    rows, columns = (torch.arange(size, device=device, dtype=dtype or torch.get_default_dtype()) for size in grid)
    a, b = rows * (math.pi / 2 / grid[0]), columns * (math.pi / 2 / grid[1])
    return a.repeat_interleave(grid[1]), b.repeat(grid[0])


def reweighting_matrix(grid, key_grid=None, *, reweighting="sum", device=None, dtype=None):
    """R of eq. (2), straight from the distances: [N, M] for queries on `grid` and keys on `key_grid` (the same, unless
    keys were reduced)."""
    check_reweighting(reweighting)
    where = {"device": device, "dtype": dtype}
    (a, b), (a_k, b_k) = angles(grid, **where), angles(key_grid or grid, **where)
    if reweighting == "none":
        return a.new_ones(len(a), len(a_k))
    by_row, by_column = (a[:, None] - a_k).cos(), (b[:, None] - b_k).cos()
    return by_row + by_column if reweighting == "sum" else by_row * by_column


def position_factors(grid, *, reweighting="sum", device=None, dtype=None):
    """F of eq. (4), [N, 4] ([N, 1] for "none"): R = F Fᵀ."""
    check_reweighting(reweighting)
    a, b = angles(grid, device=device, dtype=dtype)
    if reweighting == "none":
        return torch.ones_like(a)[:, None]
    by_row, by_column = (torch.stack([angle.cos(), angle.sin()], -1) for angle in (a, b))  # each [N, 2]
    if reweighting == "sum":
        return torch.cat([by_row, by_column], -1)
    return (by_row[:, :, None] * by_column[:, None]).flatten(1)


def vicinity_features(x, grid, *, reweighting="sum"):
    """φ of eq. (5): queries or keys [B, H, N, d] to [B, H, N, 4d], none negative; float32 for half-precision input.

    Factors are made anew at every call, N · 4 numbers beside N · 4d, so that their precision is always that of x.
    """
    dtype = working_dtype(x)
    factors = position_factors(grid, reweighting=reweighting, device=x.device, dtype=dtype)  # [N, 4]
    return (x.relu().to(dtype)[..., None, :] * factors[..., None]).flatten(-2)


def vicinity_weights(q, k, grid, key_grid=None, *, reweighting="sum", key_padding_mask=None, eps=EPS):
    """The map that `vicinity_attention` applies implicitly, straight from eqs. (2) and (3).

    Returns: [B, H, N, M]; rows sum to one less ε's share, and a query without a positive entry gets a row of zeros.
    """
    similarity = kernel_similarity(q.relu(), k.relu(), key_padding_mask=key_padding_mask)  # [B, H, N, M]
    grid, key_grid = grid_of(q.shape[2], grid), grid_of(k.shape[2], key_grid or grid)
    where = {"device": q.device, "dtype": q.dtype}
    S = similarity * reweighting_matrix(grid, key_grid, reweighting=reweighting, **where)
    return S / (S.sum(-1, keepdim=True) + eps)


def vicinity_attention_explicit(q, k, v, grid, key_grid=None, **options):
    """Eq. (3) through the full N × M map: the quadratic twin of `vicinity_attention`."""
    return vicinity_weights(q, k, grid, key_grid, **options) @ v


def vicinity_attention(q, k, v, grid, key_grid=None, *, reweighting="sum", key_padding_mask=None, eps=EPS, clamp=None):
    """Kernel attention with the features of eq. (5): eq. (3), linear in the number of tokens.

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d];  v: values [B, H, M, d_v]. Neither is scaled by 1/√d.
        grid: (rows, columns) of the queries, see `grid_of`;  key_grid: of the keys, the same unless they were reduced.
        reweighting: "sum" (the authors' models), "product", or "none".
        key_padding_mask: [B, M] bool, True where the key is to be ignored. It keeps its place in the grid.
        eps: added to the denominator.
        clamp: None, or the authors' (least, most) magnitude, see `clamp_magnitude`.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit, or for another reweighting.
    """
    check_heads(q, k, v)
    grid, key_grid = grid_of(q.shape[2], grid), grid_of(k.shape[2], key_grid or grid)
    phi_q, phi_k = (vicinity_features(x, g, reweighting=reweighting) for x, g in ((q, grid), (k, key_grid)))
    if clamp is not None:
        return clamped_attention(phi_q, phi_k, v, clamp, key_padding_mask=key_padding_mask, eps=eps).to(v.dtype)
    numerator, denominator = kernel_sums(phi_q, phi_k, v, key_padding_mask=key_padding_mask)
    return (numerator / (denominator + eps)).to(v.dtype)


def clamp_magnitude(x, clamp):
    """sgn(x) · min(max(|x|, least), most), for clamp = (least, most); zeros stay zero. None leaves x as it is.

    The authors' guard for half precision. It moves every small number to ±least, and stops its gradient.
    """
    return x if clamp is None else x.sign() * x.abs().clamp(*clamp)


def clamped_attention(phi_q, phi_k, v, clamp, *, key_padding_mask=None, eps=EPS):
    """Eq. (3) as the authors' code runs it: state, 1/denominator, numerator and output are clamped, in this order."""
    check_mask(key_padding_mask, phi_k.shape[0], phi_k.shape[2])
    if key_padding_mask is not None:
        phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0.0)
    M = clamp_magnitude(phi_k.transpose(-1, -2) @ v.to(phi_k.dtype), clamp)  # [B, H, 4d, d_v]
    denominator = (phi_q * phi_k.sum(2, keepdim=True)).sum(-1, keepdim=True)  # [B, H, N, 1]
    scale = clamp_magnitude(1.0 / (denominator + eps), clamp)
    return clamp_magnitude(clamp_magnitude(phi_q @ M, clamp) * scale, clamp)


def check_reweighting(reweighting):
    """Raise a ValueError unless it is one of `REWEIGHTINGS`."""
    if reweighting not in REWEIGHTINGS:
        raise ValueError(f"reweighting={reweighting!r}: wanted one of {', '.join(REWEIGHTINGS)}")


class FeaturePreserving(nn.Module):
    """The gate g of eq. (6), one number a feature, from the mean of all tokens: [B, N, D] to [B, 1, D].

    Args: width: D;  reduction: κ, the hidden width is D / κ.
    """

    def __init__(self, width, reduction=1):
        super().__init__()
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)

    def forward(self, x, key_padding_mask=None):
        """`x [B, N, D]`: the layer's own input; tokens under the mask do not count."""
        mean = masked_mean(x, key_padding_mask)[:, None]  # [B, 1, D]
        return self.up(self.down(mean).relu()).sigmoid()


class SpatialReduction(nn.Module):
    """Keys and values from a coarser grid: a convolution that takes r × r tokens to one, and a LayerNorm.

    Args: width: D;  reduction: r.
    """

    def __init__(self, width, reduction):
        super().__init__()
        self.reduce = nn.Conv2d(width, width, reduction, stride=reduction)
        self.norm = nn.LayerNorm(width)
        self.reduction = reduction

    def grid(self, grid):
        """The coarser grid. Raises: ValueError unless r divides rows and columns."""
        if grid[0] % self.reduction or grid[1] % self.reduction:
            raise ValueError(f"grid={grid}: wanted multiples of spatial_reduction={self.reduction}")
        return tuple(size // self.reduction for size in grid)

    def forward(self, x, grid):
        """[B, N, D] to [B, N / r², D]."""
        image = rearrange(x, "b (h w) d -> b d h w", h=grid[0])
        return self.norm(self.reduce(image).flatten(2).transpose(1, 2))


class Vicinity(Attention):
    """Multi-head vicinity attention (Sun et al. 2023): eq. (3) in a reduced space, and the gate of eq. (6).

    Args: those of `Attention` (head_dim: of the reduced space, D / (H ρ) unless given), and
        grid: (rows, columns) of the tokens, read row by row; without it the most nearly square grid of N. No parameter
            depends on it, so `layer.grid` may be set anew for another image size.
        reweighting: "sum" (the paper's models), "product", or "none".
        feature_reduction: ρ of FRA.  gate_reduction: κ of FPC, or None for no gate.
        spatial_reduction: r; keys and values come from r × r times fewer tokens (1 in all published models).
        eps, clamp: as in `vicinity_attention`; the clamp also follows the output matrix and the gate. The authors'
            code always clamps, by `OFFICIAL_CLAMP`; here None does not.

    Raises: ValueError for a reduction that does not divide what it reduces, or a grid that does not hold the tokens.
    """

    forms = frozenset({"mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        grid=None,
        reweighting="sum",
        feature_reduction=2,
        gate_reduction=1,
        spatial_reduction=1,
        eps=EPS,
        clamp=None,
        head_dim=None,
        **common,
    ):
        if head_dim is None:
            head_dim = divided(head_width(embed_dim, num_heads), feature_reduction, "feature_reduction", "head width")
        super().__init__(embed_dim, num_heads, head_dim=head_dim, **common)
        check_reweighting(reweighting)
        if eps <= 0 or spatial_reduction < 1:
            came = f"eps={eps}, spatial_reduction={spatial_reduction}"
            raise ValueError(f"{came}: wanted a positive eps and a reduction of 1 or more")
        self.grid, self.reweighting, self.eps, self.clamp = check_grid(grid), reweighting, eps, clamp
        self.gate = None
        if gate_reduction is not None:
            divided(embed_dim, gate_reduction, "gate_reduction", "embed_dim")
            self.gate = FeaturePreserving(embed_dim, gate_reduction)
        self.reduction = SpatialReduction(embed_dim, spatial_reduction) if spatial_reduction > 1 else None

    def heads(self, x, key_padding_mask):
        """Queries, keys, values [B, H, ·, d], and the options of this file's functions, grids among them."""
        self.check_input(x, key_padding_mask=key_padding_mask)
        grid = key_grid = grid_of(x.shape[1], self.grid)
        context = x
        if self.reduction is not None:
            if key_padding_mask is not None:
                raise ValueError("key_padding_mask with spatial_reduction: a reduced key mixes tokens; wanted no mask")
            key_grid = self.reduction.grid(grid)
            context = self.reduction(x, grid)
        options = {"grid": grid, "key_grid": key_grid, "key_padding_mask": key_padding_mask}
        return self.projections(x, context), options | {"reweighting": self.reweighting, "eps": self.eps}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (3) and (6); dropout acts on the attended values, since there are no weights to drop."""
        self.check_input(x, context, key_padding_mask)
        qkv, options = self.heads(x, key_padding_mask)
        heads = vicinity_attention(*qkv, clamp=self.clamp, **options)
        return self.finish(x, F.dropout(heads, self.drop), key_padding_mask), carry

    def finish(self, x, heads, key_padding_mask=None):
        """The output matrix and the gate of eq. (6): heads [B, H, N, d] to [B, N, D]."""
        z = clamp_magnitude(self.projections.merge(heads), self.clamp)
        if self.gate is None:
            return z
        return clamp_magnitude(z * (1.0 + self.gate(x, key_padding_mask)), self.clamp)

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the implicit map [B, H, N, M], unclamped; `"similarity"`: relu(q)·relu(k); `"R"`: [N, M]."""
        self.check_input(x, context, key_padding_mask)
        (q, k, _), options = self.heads(x, key_padding_mask)
        where = {"device": q.device, "dtype": q.dtype, "reweighting": self.reweighting}
        return {
            "effective": vicinity_weights(q, k, **options),
            "similarity": kernel_similarity(q.relu(), k.relu(), key_padding_mask=key_padding_mask),
            "R": reweighting_matrix(options["grid"], options["key_grid"], **where),
        }


def divided(width, reduction, argument, what):
    """width / reduction. Raises: ValueError unless it is whole."""
    if reduction < 1 or width % reduction:
        raise ValueError(f"{argument}={reduction}: wanted a divisor of the {what}, {width}")
    return width // reduction
