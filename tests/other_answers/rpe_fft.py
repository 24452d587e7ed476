"""Lesson 15, otherwise."""

import numpy as np
import torch
from torch.nn import functional as F


def column_entry_by_entry(c):
    n = (len(c) + 1) // 2
    g = torch.zeros(2 * n, dtype=c.dtype)
    for t in range(1 - n, n):
        g[-t % (2 * n)] = c[t + n - 1]
    return g


def column_by_roll(c):
    n = (len(c) + 1) // 2
    return torch.roll(F.pad(c.flip(0), (0, 1)), 1 - n)


def product_by_power_of_two(c, x):
    """The correlation's other bracketing: the table as it is stored, and a crop from its middle."""
    n = len(x)
    size = 1 << (3 * n).bit_length()
    spectrum = torch.fft.fft(c.flip(0), n=size)[:, None] * torch.fft.fft(x, n=size, dim=0)
    return torch.fft.ifft(spectrum, dim=0).real[n - 1 : 2 * n - 1].to(x.dtype)


def product_by_conjugate(c, x):
    n = len(x)
    forwards = F.pad(c, (0, 1)).roll(1 - n)  # c_0, c_1, …: of the transposed matrix
    spectrum = torch.fft.rfft(forwards).conj()[:, None] * torch.fft.rfft(x.T, n=2 * n).T
    return torch.fft.irfft(spectrum.T, n=2 * n).T[:n]


def phi(x, Omega):
    return torch.exp(F.normalize(x, dim=-1) @ Omega.T)  # what all tokens have in common cancels


def nprf_feature_by_feature(q, k, v, Omega, b, is_causal):
    c = (b - b.amax()).exp()
    c = c * (torch.arange(len(b)) < len(v)) if is_causal else c
    values, total = torch.cat([v, torch.ones_like(v[:, :1])], 1), 0.0
    for a, feature in zip(phi(q, Omega).T, phi(k, Omega).T, strict=True):
        total = total + a[:, None] * product_by_conjugate(c, feature[:, None] * values)
    return total[:, :-1] / total[:, -1:]


def nprf_by_two_products(q, k, v, Omega, b, is_causal):
    if is_causal:
        b = b.masked_fill(torch.arange(len(b)) >= len(v), -torch.inf)
    c, a, keys = torch.softmax(b, 0), phi(q, Omega), phi(k, Omega)
    D1 = product_by_power_of_two(c, torch.einsum("nm,ne->nme", keys, v).flatten(1)).view(len(v), -1, v.shape[1])
    D2 = product_by_power_of_two(c, keys)
    return torch.einsum("nm,nme->ne", a, D1) / (a * D2).sum(1)[:, None]


def unit_by_torch(x):
    return F.normalize(x, dim=-1, eps=1e-6)


def unit_by_root(x):
    return x * torch.rsqrt(x.pow(2).sum(3, keepdim=True).clamp_min(1e-12))


def grid_by_numpy(c, x):
    h, w = x.shape
    padded = np.zeros((2 * h, 2 * w))
    rows, columns = np.meshgrid(np.arange(1 - h, h), np.arange(1 - w, w), indexing="ij")
    padded[-rows % (2 * h), -columns % (2 * w)] = c.numpy()
    spectrum = np.fft.fft2(padded) * np.fft.fft2(x.numpy(), s=padded.shape)
    return np.fft.ifft2(spectrum).real[:h, :w]


def grid_by_convolution(c, x):
    """Row offsets one after the other, each a product along the rows."""
    h, w = x.shape
    y = torch.zeros_like(x)
    for dr in range(1 - h, h):
        moved = F.pad(x, (0, 0, max(0, -dr), max(0, dr)))[max(0, dr) : max(0, dr) + h]  # row i holds x[i + dr]
        y = y + product_by_conjugate(c[dr + h - 1], moved.T).T
    return y


ANSWERS = {
    "rpe_fft.circulant_column": (column_entry_by_entry, column_by_roll),
    "rpe_fft.toeplitz_product": (product_by_power_of_two, product_by_conjugate),
    "rpe_fft.nprf": (nprf_feature_by_feature, nprf_by_two_products),
    "rpe_fft.unit_rows": (unit_by_torch, unit_by_root),
    "rpe_fft.grid_product": (grid_by_numpy, grid_by_convolution),
}
