"""Mega's own networks: its block, and the encoder that read the Long Range Arena (Ma et al. 2023, section 3.5).

    post:  Y = norm(Mega(X)),  out = norm(FFN(Y) + Y)          pre:  Y = Mega(norm(X), X),  out = Y + FFN(norm(Y))

The layer brings its residual (the update gate) and its norm; the feed-forward net has a plain one. No positions are
added anywhere: the moving average and the relative bias know the order.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.mega import Mega
from refattn.layers.embedding import Embedding
from refattn.layers.feed_forward import FeedForward
from refattn.layers.norms import make_norm
from refattn.models.stack import Block, seeded
from refattn.models.transformer import Classifier


class MegaBlock(Block):
    """A Mega layer and its feed-forward net, with norms of one kind.

    Args: width: D; head_dim: z; ffn_dim: F, 2 D unless given; norm, norm_kind, activation, eps, dropout: of both parts;
        options: see `Mega`.
    """

    def __init__(
        self,
        width,
        head_dim,
        ffn_dim=None,
        *,
        norm="post",
        norm_kind="layer",
        activation="silu",
        eps=1e-5,
        dropout=0.0,
        **options,
    ):
        both = {"activation": activation, "dropout": dropout}
        placing = {"norm": norm, "eps": eps}
        layer = Mega(width, 1, head_dim=head_dim, norm_kind=norm_kind, **placing, **both, **options)
        super().__init__(width, layer, FeedForward(width, ffn_dim or 2 * width, **both), dropout=dropout, **placing)
        self.feed_residual.norm = make_norm(norm_kind, width, eps)


class MegaClassifier(nn.Module):
    """The authors' encoder for whole sequences: blocks, the mean of real tokens, one hidden layer.

    Args:
        vocab_size, input_dim: see `Embedding` (pixels: None and 1).  num_classes: classes C.
        embed_dim, head_dim, ffn_dim, num_layers: D, z, F (2 D unless given), depth.
        norm, norm_kind, dropout: see `MegaBlock`.  seed: of the weights.  options: of every Mega layer.
    """

    def __init__(
        self,
        vocab_size,
        num_classes,
        *,
        embed_dim=64,
        head_dim=16,
        ffn_dim=None,
        num_layers=2,
        norm="post",
        norm_kind="layer",
        dropout=0.0,
        input_dim=None,
        seed=0,
        **options,
    ):
        super().__init__()
        shared = {"norm": norm, "norm_kind": norm_kind, "dropout": dropout}
        with seeded(seed, "embedding"):
            self.embedding = Embedding(vocab_size, embed_dim, positions="none", input_dim=input_dim, dropout=dropout)
        self.blocks = nn.ModuleList()
        for i in range(num_layers):
            with seeded(seed, f"block{i}"):
                self.blocks.append(MegaBlock(embed_dim, head_dim, ffn_dim, **shared, **options))
        self.norm = make_norm(norm_kind, embed_dim) if norm == "pre" else nn.Identity()
        with seeded(seed, "head"):
            self.hidden, self.head = nn.Linear(embed_dim, 2 * embed_dim), nn.Linear(2 * embed_dim, num_classes)
        self.pool = "mean"

    summarise = Classifier.summarise

    def forward(self, inputs, *, key_padding_mask=None, maps=None):
        """Logits [B, C]; key_padding_mask [B, N], True = padding."""
        x = self.embedding(inputs)
        for block in self.blocks:
            if key_padding_mask is not None:
                x = x.masked_fill(key_padding_mask[..., None], 0.0)
            layer_maps = None if maps is None else {}
            x, _ = block(x, {}, key_padding_mask=key_padding_mask, maps=layer_maps)
            if maps is not None:
                maps.append(layer_maps)
        return self.head(F.silu(self.hidden(self.summarise(self.norm(x), key_padding_mask))))

    @torch.no_grad()
    def attention_maps(self, inputs, *, key_padding_mask=None):
        """One dict per layer: {"self": maps of Mega}."""
        maps = []
        self(inputs, key_padding_mask=key_padding_mask, maps=maps)
        return maps
