"""Toeplitz products: sums over positions whose weights depend on the offset alone, in O(N log N) by FFT.

    Y_i = Σ_j c_{j−i} X_j                                       one number c_t for every offset t = j − i    (1)
    g_r = c_{−r} for r = 0 … N − 1,   g_{L−r} = c_r for r = 1 … N − 1,   0 between,   L ≥ 2N − 1             (2)
    Y = the first N rows of irfft(rfft(g) · rfft(X))            X filled up with zeros to length L           (3)

(2) is the first column of a circulant matrix whose first N × N block is the Toeplitz matrix of (1): with L < 2N − 1 the
ends of the sequence would meet. Positions on a grid, in raster order, have two offsets, and a 2-D transform:

    Y_{i,k} = Σ_{j,l} c_{j−i, l−k} X_{j,l}                                                                   (4)

What attention needs of (1) is read at once by the queries, feature by feature, so that the N × m × d_v products of
keys and values never stand in memory together (`outer_sums`):

    R_i = Σ_r a_ir Σ_j c_{j−i} b_jr V_j                                                                      (5)

Tables of c have 2n − 1 entries an axis, offset t at place t + n − 1.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from refattn.layers.relative_bias import toeplitz

BLOCK = 2**18  # numbers transformed together on a CPU: more of them leave its cache, fewer are all overhead
BLOCK_ON_GPU = 2**25  # where every call costs a launch


def fft_length(least):
    """The smallest even length ≥ `least` that is 2^a 3^b 5^c: prime factors are what transforms are slow at."""
    best, fives = 2 ** max(1, math.ceil(math.log2(max(1, least)))), 1
    while fives < best:
        threes = fives
        while threes < best:
            length = threes * 2
            while length < least:
                length *= 2
            best, threes = min(best, length), threes * 3
        fives *= 5
    return best


def circulant(c, axes=1):
    """g of eq. (2) from a table of c, [..., L], or [..., L, L'] for two axes: each with zeros between its ends."""
    for axis in range(-axes, 0):
        n = (c.shape[axis] + 1) // 2
        fill = [0, 0] * (-1 - axis) + [0, fft_length(2 * n - 1) - (2 * n - 1)]
        c = F.pad(c.flip(axis), fill).roll(1 - n, axis)  # flipped: entry r is what a query r places later sees
    return c


def toeplitz_product(c, x, axes=1):
    """Eqs. (1) and (3), or (4), along the last axis, or the last two.

    Args: c: table [..., 2N − 1], or [..., 2h − 1, 2w − 1];  x: [..., N], or [..., h, w]; leading axes broadcast.
    Returns: Y, as x. Raises: ValueError for a table of another size.
    """
    check_table(c, x.shape[-axes:])
    return filtered(torch.fft.rfftn(circulant(c, axes), dim=places(axes)), x, axes)


def toeplitz_matrix(c, axes=1):
    """The matrix of eq. (1), [..., N, N], or of eq. (4) in raster order, [..., h w, h w]: N² numbers from 2N − 1."""
    if axes == 1:
        n = (c.shape[-1] + 1) // 2
        return toeplitz(c, n, n)
    h, w = ((size + 1) // 2 for size in c.shape[-2:])
    whole = c.unfold(-2, h, 1).flip(-3).unfold(-2, w, 1).flip(-3)  # [..., i, k, j, l]
    return whole.reshape(*c.shape[:-2], h * w, h * w)


def toeplitz_row(c, place, axes=1):
    """One row of `toeplitz_matrix`, [..., N]: that of the query at a place (in raster order), without the others."""
    sizes = [(n + 1) // 2 for n in c.shape[-axes:]]
    spots = (place,) if axes == 1 else divmod(place, sizes[1])
    for axis, n, spot in zip(range(-axes, 0), sizes, spots, strict=True):
        c = c.narrow(axis, n - 1 - spot, n)
    return c if axes == 1 else c.flatten(-2)


def toeplitz_product_explicit(c, x, axes=1):
    """Eq. (1) or (4) by the whole matrix: the quadratic twin of `toeplitz_product`."""
    y = toeplitz_matrix(c, axes) @ x.flatten(-axes)[..., None]
    return y[..., 0].unflatten(-1, x.shape[-axes:])


def past_only(c, axes=1):
    """The table with zeros for all offsets of later keys, in raster order for two axes: products become causal."""
    sizes = c.shape[-axes:]
    n = math.prod(sizes)  # odd: read in raster order, offset 0 stands in the middle and later ones behind it
    later = (torch.arange(n, device=c.device) > n // 2).view(sizes)
    return c.masked_fill(later, 0.0)


def outer_sums(a, b, values, c, axes=1):
    """Eq. (5), block by block, forwards and backwards: memory is that of the arguments, time O(N log N m d_v).

    Args:
        a: [B, H, m, N];  b: [B, H, m, N];  values: [B, H, d_v, N] (two axes: [..., h, w] for N).
        c: table [H, 2N − 1], or [H, 2h − 1, 2w − 1].

    Returns: R [B, H, d_v, N], or [B, H, d_v, h, w]. Raises: ValueError for a table of another size.
    """
    check_table(c, values.shape[-axes:])
    flat = [t.flatten(0, 1).contiguous() for t in (a, b, values)]
    return _OuterSums.apply(*flat, circulant(c, axes), axes).unflatten(0, values.shape[:2])


def outer_sums_explicit(a, b, values, c, axes=1):
    """Eq. (5) by the whole matrix: the quadratic twin of `outer_sums`, and faster where N is small."""
    a, b, flat = (t.flatten(-axes).transpose(-1, -2) for t in (a, b, values))
    R = ((a @ b.transpose(-1, -2)) * toeplitz_matrix(c, axes)) @ flat
    return R.transpose(-1, -2).unflatten(-1, values.shape[-axes:])


class _OuterSums(torch.autograd.Function):
    """Eq. (5) for G sequences, [G, m, …], [G, m, …], [G, e, …], and g [H, …]. Backward transforms again what it needs.

    Autograd by itself would keep every transform of the forward pass: several times N m d_v numbers.
    """

    @staticmethod
    def forward(a, b, values, g, axes):
        spectrum = spectra(g, len(a), axes)
        R = torch.zeros_like(values)
        for rows, features in blocks(a, values, g):
            X = b[rows, features, None] * values[rows, None]  # [·, ·, e, …]
            Y = filtered(spectrum[rows], X, axes)
            R[rows] += (a[rows, features, None] * Y).sum(1)
        return R

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.axes = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, gradient):
        a, b, values, g = ctx.saved_tensors
        axes, sizes, kept = ctx.axes, g.shape[1:], values.shape[2:]
        spectrum = spectra(g, len(a), axes)
        grad_a, grad_b, grad_values = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(values)
        correlation = torch.zeros_like(spectrum[:, 0, 0])  # of what came in with what goes back, by offset: for g
        for rows, features in blocks(a, values, g):
            weights, keys, v, r = a[rows, features, None], b[rows, features, None], values[rows, None], gradient[rows]
            X = torch.fft.rfftn(keys * v, s=sizes, dim=places(axes))
            dY = torch.fft.rfftn(weights * r[:, None], s=sizes, dim=places(axes))
            Y = cropped(torch.fft.irfftn(spectrum[rows] * X, s=sizes, dim=places(axes)), kept)
            dX = cropped(torch.fft.irfftn(spectrum[rows].conj() * dY, s=sizes, dim=places(axes)), kept)  # C transposed
            grad_a[rows, features] = (Y * r[:, None]).sum(2)
            grad_b[rows, features] = (dX * v).sum(2)
            grad_values[rows] += (dX * keys).sum(1)
            correlation[rows] += (X.conj() * dY).sum((1, 2))
        correlation = correlation.unflatten(0, (-1, len(g))).sum(0)
        return grad_a, grad_b, grad_values, torch.fft.irfftn(correlation, s=sizes, dim=places(axes)), None


def places(axes):
    """The last axes, as the transforms want them."""
    return tuple(range(-axes, 0))


def spectra(g, sequences, axes):
    """The spectrum of each sequence's g, [G, 1, 1, …], for sequences that take turns with the H rows of g."""
    spectrum = torch.fft.rfftn(g, dim=places(axes))
    return spectrum.repeat(sequences // len(g), *[1] * axes)[:, None, None]


def filtered(spectrum, x, axes):
    """Eq. (3): x [..., N] times a spectrum of length L, cropped to N."""
    sizes = [fft_length(2 * n - 1) for n in x.shape[-axes:]]
    transformed = torch.fft.rfftn(x, s=sizes, dim=places(axes))  # fills up with zeros
    return cropped(torch.fft.irfftn(transformed * spectrum, s=sizes, dim=places(axes)), x.shape[-axes:])


def cropped(y, sizes):
    """The first entries along the last axes."""
    for axis, n in enumerate(sizes, start=-len(sizes)):
        y = y.narrow(axis, 0, n)
    return y


def blocks(a, values, g):
    """Pairs of slices (sequences, features) that cover a [G, m, …], each of about `BLOCK` transformed numbers."""
    room = (BLOCK if a.device.type == "cpu" else BLOCK_ON_GPU) // (values.shape[1] * g[0].numel())
    features = min(a.shape[1], max(1, room))
    rows = max(1, room // a.shape[1])
    for first in range(0, a.shape[0], rows):
        for r in range(0, a.shape[1], features):
            yield slice(first, first + rows), slice(r, r + features)


def check_table(c, sizes):
    """Raise a ValueError unless the table has 2n − 1 offsets for every axis of n places."""
    wanted = [2 * n - 1 for n in sizes]
    if list(c.shape[-len(wanted) :]) != wanted:
        raise ValueError(f"c has shape {tuple(c.shape)}: wanted {wanted} offsets for {tuple(sizes)} places")


class OffsetBias(nn.Module):
    """A learned number b for every head and offset, [H, 2n − 1]; for a grid [H, 2h − 1, 2w − 1].

    Args: num_heads: H;  sizes: (n,) or (h, w), the longest sequence or the largest grid;  std: of its first values.
    """

    def __init__(self, num_heads, sizes, std):
        super().__init__()
        self.sizes = tuple(sizes)
        self.b = nn.Parameter(torch.randn(num_heads, *(2 * n - 1 for n in sizes)) * std)

    def extent(self, tokens):
        """What so many tokens fill: (tokens,), or (rows, columns), the last row perhaps in part.

        Raises: ValueError for more tokens than there are places.
        """
        if tokens > math.prod(self.sizes):
            built = f"max_len={self.sizes[0]}" if len(self.sizes) == 1 else f"grid={self.sizes}"
            raise ValueError(f"sequence of {tokens} tokens: the position bias was built with {built}")
        return (tokens,) if len(self.sizes) == 1 else (-(-tokens // self.sizes[1]), self.sizes[1])

    def cut(self, table, tokens):
        """The offsets that occur among so many tokens: the middle of a table as large as b."""
        for axis, (n, used) in enumerate(zip(self.sizes, self.extent(tokens), strict=True), start=1):
            table = table.narrow(axis, n - used, 2 * used - 1)
        return table
