"""Couplformer: a map over rows and a map over columns, whose Kronecker product is never formed.

Paper: Lan, Wang, Wei, "Couplformer: Rethinking Vision Transformer with Coupling Attention Map", WACV 2023 (arXiv
2112.05425). Tokens stand on a grid of h rows and w columns, c features a head. Row i is compared with row i' through
the pixels that stand in the same column, and columns likewise:

    R_ii' = s Σ_j Σ_e q_ije k_i'je          C_jj' = s Σ_i Σ_e q_ije k_ij'e          s = c^{−1/4}               (1)
    A = softmax(R)  [h, h]                  Ā = softmax(C)  [w, w]                  over the last axis         (2)
    y_ije = Σ_i' Σ_j' A_ii' Ā_jj' v_i'j'e   that is  Y_e = A V_e Āᵀ  for every feature e                       (3)
    M = A ⊗ Ā,  M_(ij)(i'j') = A_ii' Ā_jj'  the N × N map that (3) applies, if tokens are read row by row      (4)

R and C are the two partial traces of s Q Kᵀ, seen as an array with axes i, j, i', j'. With merge="pooling" queries and
keys are first reduced to their largest feature, and the sum over e falls away:

    q̂_ij = max_e q_ije        k̂_ij = max_e k_ije        the same s                                             (5)

Cost for N = h w tokens of width d: 4 N (h + w) d multiply-adds a head, and h² + w² weights, against 2 N² d and N².
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, working_dtype
from refattn.attention.grid import check_grid, grid_of
from refattn.attention.softmax import masked_softmax

MERGES = ("concat", "pooling")
SCALES = ("channels", "contraction")


def real_lines(key_padding_mask, grid):
    """Rows [B, h] and columns [B, w] with a real token, for a mask of rows × columns; (None, None) without a mask.

    Raises: ValueError if what is real is not all of some rows crossed with some columns: (4) has no weight for that.
        (Not under `torch.compile`, where no value is known.)
    """
    if key_padding_mask is None:
        return None, None
    real = ~key_padding_mask.unflatten(1, grid)  # [B, h, w]
    rows, columns = real.any(2), real.any(1)
    crossed = rows[:, :, None] & columns[:, None, :]
    if not torch.compiler.is_compiling() and not torch.equal(real, crossed):
        raise ValueError(
            "key_padding_mask: wanted whole rows and whole columns of padding; no other mask is a product of two"
        )
    return rows, columns


def coupled_logits(q, k, grid, *, merge="concat", scale_exponent=-0.25, scale_over="channels", key_padding_mask=None):
    """R [B, H, h, h] and C [B, H, w, w] of eq. (1) or (5), after scaling. Args: `coupled_attention`."""
    Q, K, scales = scaled_images(q, k, grid, merge, scale_exponent, scale_over, key_padding_mask)
    # features before columns, [h, c, w]: [h, c·w] for rows and [h·c, w] for columns are then views of one tensor
    R = Q.flatten(3) @ K.flatten(3).transpose(-1, -2)
    C = Q.flatten(2, 3).transpose(-1, -2) @ K.flatten(2, 3)
    return R * scales[0], C * scales[1]


def coupled_weights(q, k, grid, *, key_padding_mask=None, **options):
    """A [B, H, h, h] and Ā [B, H, w, w] of eq. (2); rows sum to one, all zero where every token is padding."""
    rows, columns = real_lines(key_padding_mask, grid)
    R, C = coupled_logits(q, k, grid, key_padding_mask=key_padding_mask, **options)
    seen = (None if lines is None else lines[:, None, None, :] for lines in (rows, columns))
    return tuple(masked_softmax(logits, lines).to(q.dtype) for logits, lines in zip((R, C), seen, strict=True))


def couple(A, A_bar, v):
    """Eq. (3): values [B, H, N, d] mixed by rows and by columns, without the N × N map."""
    h, w = A.shape[-1], A_bar.shape[-1]
    V = features_first(v, (h, w))  # [B, H, h, d, w]
    mixed = V.flatten(2, 3) @ A_bar.transpose(-1, -2)  # [B, H, h·d, w]: within each row, by columns
    mixed = A @ mixed.unflatten(2, (h, -1)).flatten(3)  # [B, H, h, d·w]: then by rows
    return mixed.unflatten(3, (-1, w)).transpose(-1, -2).flatten(2, 3)


def kronecker(A, A_bar):
    """Eq. (4), [B, H, N, N]: the map that `couple` applies implicitly."""
    M = A[..., :, None, :, None] * A_bar[..., None, :, None, :]  # [B, H, i, j, i', j']
    return M.flatten(-4, -3).flatten(-2)


def coupled_attention(q, k, v, grid=None, *, dropout_p=0.0, **options):
    """Eqs. (1) to (3).

    Args:
        q, k, v: queries, keys and values [B, H, N, d] (v of any width).
        grid: rows and columns, h · w = N; without it the most nearly square ones.
        merge: "concat", eq. (1), or "pooling", eq. (5).
        scale_exponent, scale_over: s = n^exponent with n = c ("channels", the authors') or the number of terms in each
            sum ("contraction": with exponent −1/2 logits of random tokens have variance 1 on any grid).
        key_padding_mask: [B, N] bool, True where the key is padding: whole rows, whole columns, or both.
        dropout_p: rate on A and on Ā, each for itself.

    Returns: [B, H, N, d_v].
    Raises: ValueError if shapes, grid, mask or options do not fit.
    """
    check_heads(q, k, v)
    grid = grid_of(q.shape[2], check_grid(grid))
    A, A_bar = (F.dropout(weights, dropout_p) for weights in coupled_weights(q, k, grid, **options))
    return couple(A, A_bar, v)


def coupled_attention_explicit(q, k, v, grid, *, merge="concat", key_padding_mask=None, **scaling):
    """Eqs. (1) to (3) index by index, as they stand above: the twin of `coupled_attention`."""
    rows, columns = real_lines(key_padding_mask, grid)
    s_row, s_column = scales_of(q, grid, rows, columns, merge=merge, **scaling)
    q, k, v = (x.unflatten(2, grid) for x in (q, k, v))  # [B, H, i, j, e]
    if merge == "pooling":
        q, k = q.amax(-1, keepdim=True), k.amax(-1, keepdim=True)
    if rows is not None:
        k = k * (rows[:, None, :, None, None] & columns[:, None, None, :, None])
    R = s_row * torch.einsum("bhije,bhyje->bhiy", q, k)
    C = s_column * torch.einsum("bhije,bhixe->bhjx", q, k)
    A = masked_softmax(R, None if rows is None else rows[:, None, None])
    A_bar = masked_softmax(C, None if rows is None else columns[:, None, None])
    by_rows = torch.einsum("bhiy,bhyxe->bhixe", A, v)
    return torch.einsum("bhjx,bhixe->bhije", A_bar, by_rows).flatten(2, 3)


class Couplformer(Attention):
    """Multi-head coupled attention on a grid of tokens.

    No causal form: an order by which tokens are read is no product of an order of rows and one of columns. Padding must
    be one, too: whole rows, whole columns, or both.

    Args: those of `Attention`, and
        grid: (rows, columns) of the tokens, read row by row; without it the most nearly square grid of N.
        merge, scale_exponent, scale_over: see `coupled_attention`. (Before August 2022 the authors' flat model had the
            exponent −1/2; which one made the printed numbers is not known.)
    """

    forms = frozenset({"mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        grid=None,
        merge="concat",
        scale_exponent=-0.25,
        scale_over="channels",
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        for argument, value, known in (("merge", merge, MERGES), ("scale_over", scale_over, SCALES)):
            if value not in known:
                raise ValueError(f"{argument}={value!r}: wanted one of {', '.join(known)}")
        self.grid, self.merge = check_grid(grid), merge
        self.scale_exponent, self.scale_over = scale_exponent, scale_over

    def options(self):
        """What the functions of this method need to know of the layer."""
        return {"merge": self.merge, "scale_exponent": self.scale_exponent, "scale_over": self.scale_over}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (1) to (3) for every head. Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x)
        masks = {"key_padding_mask": key_padding_mask, "dropout_p": self.drop}
        return self.projections.merge(coupled_attention(q, k, v, self.grid, **masks, **self.options())), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"` [B, H, N, N], eq. (4), made of `"row"` [B, H, h, h] and `"column"` [B, H, w, w], eq. (2).

        Their logits R and C, eq. (1), are there too: `"row_logits"`, `"column_logits"`.
        """
        self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x)
        grid = grid_of(x.shape[1], self.grid)
        options = {"key_padding_mask": key_padding_mask, **self.options()}
        R, C = coupled_logits(q, k, grid, **options)
        A, A_bar = coupled_weights(q, k, grid, **options)
        return {
            "effective": kronecker(A, A_bar),
            "row": A,
            "column": A_bar,
            "row_logits": R,
            "column_logits": C,
        }


def features_first(x, grid):
    """Heads [B, H, N, d] as images [B, H, h, d, w], in one piece of memory."""
    return x.unflatten(2, grid).transpose(-1, -2).contiguous()


def scaled_images(q, k, grid, merge, scale_exponent, scale_over, key_padding_mask):
    """Queries and keys [B, H, h, c or 1, w] in the type that sums are made in, and the scales of R and C."""
    rows, columns = real_lines(key_padding_mask, grid)
    scaling = {"merge": merge, "scale_exponent": scale_exponent, "scale_over": scale_over}
    scales = scales_of(q, grid, rows, columns, **scaling)
    exact = working_dtype(q)  # logits are sums of w·c or h·c products, and grow large
    if merge == "pooling":
        q, k = q.amax(-1, keepdim=True), k.amax(-1, keepdim=True)
    if rows is not None:  # padded pixels would take part in every sum; a zero key suffices, whatever the query is
        k = k.masked_fill(key_padding_mask[:, None, :, None], 0.0)
    return features_first(q, grid).to(exact), features_first(k, grid).to(exact), scales


def scales_of(q, grid, rows=None, columns=None, *, merge="concat", scale_exponent=-0.25, scale_over="channels"):
    """The factors s of R and C for queries [B, H, N, c]: numbers, or [B, 1, 1, 1] where only some lines are real."""
    channels, (h, w) = q.shape[-1], grid
    if scale_over == "channels":
        return (channels**scale_exponent,) * 2
    terms = 1 if merge == "pooling" else channels
    if rows is None:
        return (terms * w) ** scale_exponent, (terms * h) ** scale_exponent
    real = (lines.sum(-1).clamp(min=1)[:, None, None, None] for lines in (columns, rows))  # R sums over columns
    return tuple((terms * count.to(working_dtype(q))) ** scale_exponent for count in real)
