"""Augmented convolutions: some output channels come from a convolution, the others from attention whose maps evolve.

Paper: Wang et al., "Convolution-enhanced Evolving Attention Networks", TPAMI 2023 (arXiv 2212.08330), built on Bello et
al., "Attention Augmented Convolutional Networks", ICCV 2019 (arXiv 1904.09925). With D outgoing channels:

    y = [conv(x); attention(x)]        D − d_v and d_v channels, d_k = ⌊κ D⌋, d_v = ⌊ν D⌋, both shared by H heads   (1)
    A_cur[p, q] = q_p · k_q + q_p · R[q − p]        q scaled by √(H / d_k); R learned, the same for all heads     (2)

Over an image R is two tables, one for columns and one for rows: q·R_w[c' − c] + q·R_h[r' − r]. A_cur then evolves by
eqs. (2) to (4) of `attention/evolving_attention.py`; A, the logits, go to the next augmented convolution.
"""

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from refattn.attention.evolving_attention import check_weights, evolve_map, make_convolution, mix_maps
from refattn.attention.softmax import masked_softmax
from refattn.layers.map_convolution import hide
from refattn.layers.relative_bias import toeplitz

MERGES = ("heads", "authors")


def relative_logits(q, table):
    """q_p · R[q − p] of eq. (2).

    Args: q: queries [..., N, d].  table: R [2 L − 1, d] with L ≥ N, lags −(L − 1) … L − 1.
    Returns: [..., N, N].
    """
    tokens, middle = q.shape[-2], len(table) // 2
    lags = table[middle - tokens + 1 : middle + tokens]  # −(N − 1) … N − 1
    return torch.einsum("...pd,dpq->...pq", q, toeplitz(lags.T, tokens, tokens))


class AugmentedConvolution(nn.Module):
    """What both kinds share: the widths of eq. (1), the projection, and attention over maps that evolve.

    Args:
        out_channels: D.  num_heads: H.  key_ratio, value_ratio: κ and ν; κ = 0 leaves a plain convolution.
        alpha, beta, negative_slope: see `EvolvingAttention`.  evolves: owns a convolution over maps (not the first).
        map_kernel: its size.

    Raises: ValueError for channels that the heads do not divide.
    """

    def __init__(
        self, out_channels, *, num_heads, key_ratio, value_ratio, alpha, beta, negative_slope, evolves, map_kernel=3
    ):
        super().__init__()
        check_weights(alpha, beta)
        self.num_heads, self.alpha, self.beta, self.negative_slope = num_heads, alpha, beta, negative_slope
        self.key_width = int(key_ratio * out_channels)  # d_k
        self.value_width = int(value_ratio * out_channels) if self.key_width else 0  # d_v
        for ratio, width in (("key_ratio", self.key_width), ("value_ratio", self.value_width)):
            if width % num_heads or (self.key_width and width < num_heads):
                raise ValueError(f"{ratio} gives {width} channels of {out_channels}: wanted a multiple of {num_heads}")
        has_kernel = evolves and beta > 0 and self.key_width > 0
        self.evolution = make_convolution(num_heads, map_kernel, "self") if has_kernel else None

    def new_table(self, length):
        """R for sequences up to this length, [2 L − 1, d_k / H]."""
        width = self.key_width // self.num_heads
        return nn.Parameter(torch.randn(2 * length - 1, width) * width**-0.5)

    def split_heads(self, x):
        """`[B, channels, N]` to `[B, H, N, channels / H]`."""
        return rearrange(x, "b (h d) n -> b h n d", h=self.num_heads)

    def attend(self, q, k, v, relative, A_prev, seen=None):
        """Heads [B, H, N, d_v / H] and the maps on the way: current, mixed, evolved (logits), effective (weights)."""
        q = q * (self.key_width / self.num_heads) ** -0.5
        current = hide(q @ k.transpose(-1, -2) + relative(q), seen)
        mixed, evolved = current, current
        if A_prev is not None and A_prev.shape == current.shape:  # a map of another size cannot be gone on with
            mixed = mix_maps(current, A_prev, self.alpha)
            C = self.evolution
            kernel, bias = (None, None) if C is None else (C.weight, C.bias)
            evolved = evolve_map(mixed, kernel, bias, beta=self.beta, seen=seen, negative_slope=self.negative_slope)
        weights = masked_softmax(evolved, seen)
        return weights @ v, {"current": current, "mixed": mixed, "evolved": evolved, "effective": weights}


class AugmentedConv1d(AugmentedConvolution):
    """Dilated causal convolution beside attention over the whole series: the operator of the EA-DC-Transformer.

    Args: those of `AugmentedConvolution` by keyword, and
        in_channels; max_len: longest series.  kernel_size, dilation: of the convolution over time.
        merge: "heads", or "authors": their code reshapes [B, H, N, d_v / H] without a transpose, which mixes time and
            channels unless d_v = H.
        random_table: R is drawn anew in every forward pass, never learned, as in the authors' code.

    The attention is not causal. Raises: ValueError for a series beyond max_len, or another merge.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        *,
        max_len,
        kernel_size=3,
        dilation=1,
        num_heads=8,
        key_ratio=0.25,
        value_ratio=0.25,
        alpha=0.3,
        beta=0.5,
        negative_slope=0.01,
        evolves=True,
        merge="heads",
        random_table=False,
    ):
        shared = {"num_heads": num_heads, "key_ratio": key_ratio, "value_ratio": value_ratio, "evolves": evolves}
        super().__init__(out_channels, alpha=alpha, beta=beta, negative_slope=negative_slope, **shared)
        if merge not in MERGES:
            raise ValueError(f"merge={merge!r}: wanted one of {', '.join(MERGES)}")
        self.kernel_size, self.dilation, self.max_len = kernel_size, dilation, max_len
        self.merge, self.random_table = merge, random_table
        plain = nn.Conv1d(in_channels, out_channels - self.value_width, kernel_size)
        self.direction, self.bias = plain.weight, plain.bias  # v and b of K = g v / |v|
        self.gain = nn.Parameter(plain.weight.detach().flatten(1).norm(dim=1)[:, None, None])  # so that K = v at first
        if self.key_width:
            self.qkv = nn.Conv1d(in_channels, 2 * self.key_width + self.value_width, 1)
            self.R = self.new_table(max_len)

    def convolve(self, x):
        """The convolution's channels, [B, D − d_v, N]: step t sees steps up to t."""
        kernel = self.gain * self.direction / self.direction.flatten(1).norm(dim=1)[:, None, None]
        past = (self.kernel_size - 1) * self.dilation
        return F.conv1d(F.pad(x, (past, 0)), kernel, self.bias, dilation=self.dilation)

    def forward(self, x, A_prev=None, *, key_padding_mask=None, maps=None):
        """`x [B, channels, N]` and the map of the layer before to `[B, D, N]` and this layer's map [B, H, N, N].

        key_padding_mask: [B, N], True = padding: hidden as key and as query.  maps: a dict that receives the maps.
        """
        if x.shape[-1] > self.max_len:
            raise ValueError(f"series of {x.shape[-1]} steps: the layer was built with max_len={self.max_len}")
        if not self.key_width:
            return self.convolve(x), None
        widths = [self.key_width, self.key_width, self.value_width]
        q, k, v = (self.split_heads(part) for part in self.qkv(x).split(widths, 1))
        real = None if key_padding_mask is None else ~key_padding_mask
        seen = None if real is None else real[:, None, None, :] & real[:, None, :, None]
        table = torch.randn_like(self.R) if self.random_table else self.R
        heads, found = self.attend(q, k, v, lambda q: relative_logits(q, table), A_prev, seen)
        if maps is not None:
            maps |= found | {"heads": heads}
        merged = heads.transpose(2, 3) if self.merge == "heads" else heads
        return torch.cat([self.convolve(x), merged.reshape(len(x), -1, x.shape[-1])], 1), found["evolved"]


class AugmentedConv2d(AugmentedConvolution):
    """3 × 3 convolution beside attention over all pixels: the operator of the evolving ResNet.

    Args: those of `AugmentedConvolution` by keyword, and
        in_channels; grid: rows and columns of the image that comes in.  stride: 1 or 2.
        downsample: the attention works on an image pooled once more, and its output is enlarged again (bilinear).

    Raises: ValueError for an image of another size.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        *,
        grid,
        stride=1,
        downsample=False,
        num_heads=8,
        key_ratio=0.25,
        value_ratio=0.125,
        alpha=0.5,
        beta=1.0,
        negative_slope=0.0,
        evolves=True,
    ):
        shared = {"num_heads": num_heads, "key_ratio": key_ratio, "value_ratio": value_ratio, "evolves": evolves}
        super().__init__(out_channels, alpha=alpha, beta=beta, negative_slope=negative_slope, **shared)
        if stride not in (1, 2):
            raise ValueError(f"stride={stride}: wanted 1 or 2")
        self.grid, self.stride, self.poolings = tuple(grid), stride, (stride == 2) + downsample
        self.convolution = nn.Conv2d(in_channels, out_channels - self.value_width, 3, stride, padding=1, bias=False)
        if self.key_width:
            self.kqv = nn.Conv2d(in_channels, 2 * self.key_width + self.value_width, 1)
            rows, columns = self.grid
            for _ in range(self.poolings):
                rows, columns = -(-rows // 2), -(-columns // 2)
            self.R_h, self.R_w = self.new_table(rows), self.new_table(columns)
            self.output = nn.Conv2d(self.value_width, self.value_width, 1)

    def relative(self, q, grid):
        """The logits of both tables, [B, H, N, N], for queries [B, H, N, d] of pixels row by row."""
        image = q.unflatten(2, grid)  # [B, H, rows, columns, d]
        across = relative_logits(image, self.R_w)[..., None, :]  # [B, H, rows, columns, 1, columns]
        down = relative_logits(image.transpose(2, 3), self.R_h).transpose(2, 3)[..., None]  # […, rows, 1]
        return (across + down).flatten(4, 5).flatten(2, 3)

    def forward(self, x, A_prev=None, *, maps=None):
        """`x [B, channels, rows, columns]` and the map before to `[B, D, rows, columns]` and the map [B, H, N, N]."""
        if tuple(x.shape[-2:]) != self.grid:
            raise ValueError(f"image of {tuple(x.shape[-2:])} pixels: the layer was built with grid={self.grid}")
        plain = self.convolution(x)
        if not self.key_width:
            return plain, None
        for _ in range(self.poolings):  # zeros at the border are not counted; even edges have them at the end only
            edge = (x.shape[-2] % 2, x.shape[-1] % 2)
            x = F.avg_pool2d(x, 3, 2, padding=edge, ceil_mode=True, count_include_pad=False)
        widths, grid = [self.key_width, self.key_width, self.value_width], x.shape[-2:]
        k, q, v = (self.split_heads(part.flatten(2)) for part in self.kqv(x).split(widths, 1))
        heads, found = self.attend(q, k, v, lambda q: self.relative(q, grid), A_prev)
        if maps is not None:
            maps |= found | {"heads": heads}
        y = self.output(rearrange(heads, "b h n d -> b (h d) n").unflatten(2, grid))
        if y.shape[-2:] != plain.shape[-2:]:
            y = F.interpolate(y, size=plain.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([plain, y], 1), found["evolved"]
