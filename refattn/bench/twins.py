"""A mechanism's own equations as they stand, on the weights of a layer: what a better order of the same sums saves.

For a quadratic mechanism they are the paper's equations typed plainly, for a linear one its N × N form.
"""

import torch
from torch import nn

from refattn.attention import couplformer, eit, evolving_attention, momentum, rpe_fft, vicinity
from refattn.attention.grid import grid_of
from refattn.bench.run import build

LONGEST = 1024  # tokens: beyond, M² maps or a product per pair of tokens need gigabytes


class Plain(nn.Module):
    """A layer computed by its explicit form; `twin`: (layer, x) → y."""

    def __init__(self, layer, twin):
        super().__init__()
        self.layer, self.twin = layer, twin

    def forward(self, x):
        return self.twin(self.layer, x)


class SecondInChain(nn.Module):
    """A layer that goes on from logits [1, H, N, N], which are given; `twin` as for `Plain`, or None."""

    def __init__(self, layer, tokens, twin=None):
        super().__init__()
        self.layer, self.twin = layer, twin
        A_prev = torch.randn(1, layer.num_heads, tokens, tokens, generator=torch.Generator().manual_seed(1))
        self.register_buffer("A_prev", A_prev)

    def forward(self, x):
        return self.layer(x, carry=self.A_prev)[0] if self.twin is None else self.twin(self.layer, x, self.A_prev)


def plain_momentum(layer, x):
    heads = momentum.momentum_attention_explicit(*layer.projections(x), **layer.options())
    return layer.projections.merge(heads)


def plain_vicinity(layer, x):
    qkv, options = layer.heads(x, None)
    return layer.finish(x, vicinity.vicinity_attention_explicit(*qkv, **options))


def plain_rpe_fft(layer, x):
    offsets = layer.offsets(x.shape[1])
    heads = rpe_fft.nprf_attention_explicit(*layer.projections(x), layer.Omega, offsets, **layer.options())
    return layer.projections.merge(heads)


def plain_eit(layer, x):
    options = layer.options() | {"is_causal": layer.is_causal}
    return layer.projections.merge(eit.eit_attention_explicit(*layer.projections(x), **options))


def plain_couplformer(layer, x):
    grid = grid_of(x.shape[1], layer.grid)
    heads = couplformer.coupled_attention_explicit(*layer.projections(x), grid, **layer.options())
    return layer.projections.merge(heads)


def plain_evolving(layer, x, A_prev):
    options = layer.options(x, x)
    heads, _ = evolving_attention.evolving_attention_explicit(*layer.projections(x), A_prev, **options)
    return layer.projections.merge(heads)


def second(mechanism, dim, heads, n, causal, **options):
    """Our layer as the second of a chain."""
    return SecondInChain(build(mechanism, dim, heads, n, is_causal=causal, first_in_chain=False, **options), n)


def plain_second(dim, heads, n, causal):
    layer = build("evolving_attention", dim, heads, n, is_causal=causal, first_in_chain=False)
    return SecondInChain(layer, n, plain_evolving)


def plainly(mechanism, twin):
    """The builder of a mechanism's explicit form: (dim, heads, N, causal) → module."""

    def made(dim, heads, n, causal):
        return Plain(build(mechanism, dim, heads, n, is_causal=causal), twin)

    return made
