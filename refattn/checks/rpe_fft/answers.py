"""Lesson 15: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch
from torch.nn import functional as F


def phi(x, Omega):
    """Positive random features exp(Ωx − |x|²/2) / √m: given in the notebook."""
    return (x @ Omega.T - x.square().sum(-1, keepdim=True) / 2).exp() / len(Omega) ** 0.5


# ---- The circulant's first column, and the product -------------------------------------------------------------------


def circulant_column(c):
    n = (len(c) + 1) // 2
    return torch.cat([c[:n].flip(0), c.new_zeros(1), c[n:].flip(0)])  # c_0 … c_{−(N−1)}, 0, c_{N−1} … c_1


def circulant_column_transposed(c):
    n = (len(c) + 1) // 2
    return torch.cat([c[n - 1 :], c.new_zeros(1), c[: n - 1]])


def circulant_column_stored(c):
    return F.pad(c, (0, 1))


def circulant_column_flipped(c):
    return F.pad(c.flip(0), (0, 1))


def circulant_column_folded(c):
    n = (len(c) + 1) // 2
    return torch.cat([c[n - 1 : n], c[: n - 1].flip(0) + c[n:].flip(0)])  # what N places leave of it


def circulant_column_halves(c):
    n = (len(c) + 1) // 2
    return torch.cat([c[:n].flip(0), c.new_zeros(1), c[n:]])


def by_spectrum(g, x):
    return torch.fft.irfft(torch.fft.rfft(g)[:, None] * torch.fft.rfft(x, n=len(g), dim=0), n=len(g), dim=0)


def toeplitz_product(c, x):
    return by_spectrum(circulant_column(c), x)[: len(x)]


def toeplitz_product_transposed(c, x):
    return by_spectrum(circulant_column_transposed(c), x)[: len(x)]


def toeplitz_product_wrapped(c, x):
    return by_spectrum(circulant_column_folded(c), x)


def toeplitz_product_last(c, x):
    return by_spectrum(circulant_column(c), x)[len(x) :]


def toeplitz_product_stored(c, x):
    return by_spectrum(circulant_column_stored(c), x)[: len(x)]


# ---- Attention -------------------------------------------------------------------------------------------------------


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def nprf(q, k, v, Omega, b, is_causal):
    phi_q, phi_k = phi(unit(q), Omega), phi(unit(k), Omega)  # [N, m]
    c = (b - b.max()).exp()  # a common factor cancels
    if is_causal:
        c = torch.cat([c[: len(v)], torch.zeros_like(c[len(v) :])])
    X = phi_k[:, :, None] * F.pad(v, (0, 1), value=1.0)[:, None]  # [N, m, d_v + 1]
    Y = toeplitz_product(c, X.flatten(1)).unflatten(1, X.shape[1:])
    R = (phi_q[:, :, None] * Y).sum(1)  # [N, d_v + 1]
    return R[:, :-1] / R[:, -1:]


def by_matrix(q, k, v, Omega, C):
    """Eq. 2 with any matrix in the place of C."""
    weights = phi(q, Omega) @ phi(k, Omega).T * C
    return weights @ v / weights.sum(-1, keepdim=True)


def matrix(c, is_causal=False):
    n = (len(c) + 1) // 2
    C = c.unfold(0, n, 1).flip(0)
    return C.tril() if is_causal else C


def nprf_global(q, k, v, Omega, b, is_causal):
    return by_matrix(q / q.norm(), k / k.norm(), v, Omega, matrix(b.exp(), is_causal))


def nprf_free(q, k, v, Omega, b, is_causal):
    scale = q.shape[-1] ** -0.25
    return by_matrix(q * scale, k * scale, v, Omega, matrix(b.exp(), is_causal))


def nprf_unscaled(q, k, v, Omega, b, is_causal):
    return by_matrix(q, k, v, Omega, matrix(b.exp(), is_causal))


def nprf_sum_first(q, k, v, Omega, b, is_causal):
    return by_matrix(unit(q), unit(k), v, Omega, matrix(torch.ones_like(b), is_causal))


def nprf_no_exponential(q, k, v, Omega, b, is_causal):
    return by_matrix(unit(q), unit(k), v, Omega, matrix(b, is_causal))


def nprf_transposed(q, k, v, Omega, b, is_causal):
    return by_matrix(unit(q), unit(k), v, Omega, matrix(b.exp().flip(0), is_causal))


def nprf_wrapped(q, k, v, Omega, b, is_causal):
    n, c = len(v), b.exp()
    if is_causal:
        c = torch.cat([c[:n], torch.zeros_like(c[n:])])
    place = torch.arange(n)
    return by_matrix(unit(q), unit(k), v, Omega, circulant_column_folded(c)[(place[:, None] - place) % n])


def nprf_plain_denominator(q, k, v, Omega, b, is_causal):
    similarity = phi(unit(q), Omega) @ phi(unit(k), Omega).T
    similarity = similarity.tril() if is_causal else similarity
    return (similarity * matrix(b.exp(), is_causal)) @ v / similarity.sum(-1, keepdim=True)


def nprf_sees_all(q, k, v, Omega, b, is_causal):
    return nprf(q, k, v, Omega, b, False)


# ---- The bug ---------------------------------------------------------------------------------------------------------


def unit_rows(x):
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def unit_rows_global(x):
    return x / x.norm()


def unit_rows_sequence(x):
    return x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-6)


def unit_rows_tokens(x):
    return x / x.norm(dim=-2, keepdim=True).clamp(min=1e-6)


def unit_rows_bare(x):
    return x / x.norm(dim=-1, keepdim=True)


def unit_rows_heads(x):
    return x / x.norm(dim=(1, 3), keepdim=True).clamp(min=1e-6)


def unit_rows_squared(x):
    return x / x.square().sum(-1, keepdim=True).clamp(min=1e-6)


# ---- The grid --------------------------------------------------------------------------------------------------------


def grid_product(c, x):
    h, w = x.shape
    g = F.pad(c.flip(0, 1), (0, 1, 0, 1)).roll((1 - h, 1 - w), (0, 1))  # [2h, 2w]
    spectrum = torch.fft.rfft2(g) * torch.fft.rfft2(x, s=g.shape)
    return torch.fft.irfft2(spectrum, s=g.shape)[:h, :w]


def grid_matrix(c, h, w):
    """The matrix in raster order, entry by entry."""
    row, column = torch.arange(h * w) // w, torch.arange(h * w) % w
    return c[row - row[:, None] + h - 1, column - column[:, None] + w - 1]


def grid_product_transposed(c, x):
    return (grid_matrix(c, *x.shape).T @ x.flatten()).view(x.shape)


def grid_product_swapped(c, x):
    h, w = x.shape
    row, column = torch.arange(h * w) % h, torch.arange(h * w) // h  # as if w rows of h stood in memory
    C = c[row - row[:, None] + h - 1, column - column[:, None] + w - 1]
    return (C @ x.flatten()).view(h, w)


def grid_product_flat(c, x):
    h, w = x.shape
    table = c[h - 1 :, w - 1 :].flatten(), c[:h, :w].flatten()  # one offset: whole rows of the table end to end
    line = torch.cat([table[1][: h * w - 1], table[0]])
    return toeplitz_product(line, x.flatten()[:, None]).view(h, w)


def grid_product_wrapped(c, x):
    h, w = x.shape
    g = F.pad(c.flip(0, 1), (0, 1, 0, 1)).roll((1 - h, 1 - w), (0, 1))
    g = g[:h] + g[h:]
    g = g[:, :w] + g[:, w:]  # what h × w places leave of it
    return torch.fft.irfft2(torch.fft.rfft2(g) * torch.fft.rfft2(x), s=(h, w))
