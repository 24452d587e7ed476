"""The EA-DC-Transformer for time series (Wang et al. 2023), as its authors' code builds it.

Series [B, N, F] are embedded, then run through blocks of two augmented convolutions whose dilation doubles:

    h = √D (W_in x + b_in) + PE
    o, A = AugConv₁(h, A)      o = F₂ σ(F₁ BN(o))      o, A = AugConv₂(o, A)      o = F₄ σ(F₃ BN(o))      h = BN(o + h)
    y = W_out flatten(GELU(h) · mask) + b_out

The convolutions are causal in time, the attention beside them is not. Block 0 starts two maps afresh; from block 1 on
each map goes on from the one before. σ is LeakyReLU. Batch norms count padded steps, as the authors' do.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from refattn.layers.augmented_convolution import AugmentedConv1d
from refattn.models.stack import seeded


class EADCBlock(nn.Module):
    """Two augmented convolutions, each with batch norm and a position-wise net, inside one residual connection.

    Args: width: D.  ffn_dim: hidden width of the nets.  is_first: no map evolves here.  dropout, official: as in
        `EADCTransformer`.  options: of `AugmentedConv1d`.
    """

    def __init__(self, width, ffn_dim, *, is_first, dropout, official, **options):
        super().__init__()
        self.is_first, self.official, self.slope = is_first, official, 0.01
        self.convolutions = nn.ModuleList(AugmentedConv1d(width, width, evolves=not is_first, **options) for _ in "ab")
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in "ab")
        self.up = nn.ModuleList(nn.Conv1d(width, ffn_dim, 1) for _ in "ab")
        self.down = nn.ModuleList(nn.Conv1d(ffn_dim, width, 1) for _ in "ab")
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(dropout)

    def forward(self, h, A=None, *, key_padding_mask=None, maps=None):
        """`h [B, D, N]` and the last map to the same; `maps`, a list, receives a dict for each convolution."""
        o = h
        for place, convolution in enumerate(self.convolutions):
            found = None if maps is None else {}
            A = None if self.is_first else A
            o, A = convolution(o, A, key_padding_mask=key_padding_mask, maps=found)
            if maps is not None:
                maps.append(found)
            hidden = F.leaky_relu(self.up[place](self.norms[place](o)), self.slope)
            o = self.down[place](self.dropout(hidden))
            if A is not None and self.official:
                A = self.dropout(F.leaky_relu(A, self.slope))
        return self.norm(o + h), A


class EADCTransformer(nn.Module):
    """Classifier (or regressor) of multivariate series.

    Args:
        num_features: F.  num_classes: outputs.  max_len: length that series are padded to; the head has a weight for
            every step and channel.
        embed_dim, num_blocks, ffn_dim, num_heads: D, blocks, hidden width, H.  dropout: rate.
        key_ratio, value_ratio: κ and ν; κ = 0 is the authors' DC-Transformer, without attention.
        alpha, beta: weights of the past map and of the convolution; both 0: their A-DC-Transformer, without evolution.
        official: what the authors' code does besides the equations: padding takes part in attention; heads are merged
            without a transpose; maps pass a LeakyReLU and dropout on their way to the next layer.
        random_table: relative positions are noise, drawn anew in every forward pass, as in the authors' code.
        seed: of the weights.

    Raises: ValueError for series of another length or width.
    """

    def __init__(
        self,
        num_features,
        num_classes,
        *,
        max_len,
        embed_dim=64,
        num_blocks=4,
        ffn_dim=256,
        num_heads=8,
        key_ratio=0.25,
        value_ratio=0.25,
        alpha=0.3,
        beta=0.5,
        dropout=0.1,
        official=False,
        random_table=False,
        seed=0,
    ):
        super().__init__()
        self.num_features, self.max_len, self.official = num_features, max_len, official
        with seeded(seed, "embedding"):
            self.embedding = nn.Linear(num_features, embed_dim)
            self.positions = nn.Parameter(torch.empty(max_len, embed_dim).uniform_(-0.02, 0.02))
        self.dropout, self.blocks = nn.Dropout(dropout), nn.ModuleList()
        options = {"key_ratio": key_ratio, "value_ratio": value_ratio, "alpha": alpha, "beta": beta}
        options |= {"num_heads": num_heads, "max_len": max_len, "random_table": random_table}
        options |= {"merge": "authors" if official else "heads", "dropout": dropout, "official": official}
        for i in range(num_blocks):
            with seeded(seed, f"block{i}"):
                self.blocks.append(EADCBlock(embed_dim, ffn_dim, is_first=i == 0, dilation=2**i, **options))
        with seeded(seed, "head"):
            self.head = nn.Linear(max_len * embed_dim, num_classes)

    def embed(self, inputs, key_padding_mask=None):
        """`h [B, D, N]` of series [B, N, F]; padded steps are read as zeros."""
        if tuple(inputs.shape[1:]) != (self.max_len, self.num_features):
            wanted = f"[B, max_len={self.max_len}, num_features={self.num_features}]"
            raise ValueError(f"inputs have shape {tuple(inputs.shape)}: wanted {wanted}")
        if key_padding_mask is not None:
            inputs = inputs.masked_fill(key_padding_mask[..., None], 0.0)
        h = math.sqrt(self.embedding.out_features) * self.embedding(inputs) + self.positions
        return self.dropout(h).transpose(1, 2)

    def forward(self, inputs, *, key_padding_mask=None, maps=None):
        """Logits [B, num_classes]; key_padding_mask [B, N], True = padding; `maps`, a list, receives dicts of maps."""
        h, A = self.embed(inputs, key_padding_mask), None
        for block in self.blocks:
            h, A = block(h, A, key_padding_mask=None if self.official else key_padding_mask, maps=maps)
        return self.read(h, key_padding_mask)

    def read(self, h, key_padding_mask=None):
        """Logits of the last block's output [B, D, N]: every real step and channel has a weight."""
        y = F.gelu(h).transpose(1, 2)
        if key_padding_mask is not None:
            y = y.masked_fill(key_padding_mask[..., None], 0.0)
        return self.head(y.flatten(1))

    @torch.no_grad()
    def attention_maps(self, inputs, *, key_padding_mask=None):
        """One dict per augmented convolution: current, mixed, evolved, effective, heads."""
        maps = []
        self(inputs, key_padding_mask=key_padding_mask, maps=maps)
        return maps
