"""A small vision transformer: an image cut into patches, each a token (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

import torch
from einops import rearrange
from torch import nn

from refattn.layers.embedding import Embedding
from refattn.models.stack import Stack, per_layer, seeded


class ViT(nn.Module):
    """Image classifier on patches, any mechanism per layer; mean pooling over patches.

    Args:
        image_size: rows and columns, or one number for both.  patch_size: edge of a patch in pixels.
        channels: of the image.
        num_classes and the rest: as `Classifier`.

    Raises: ValueError if patches do not tile the image, or for images of another shape.
    """

    def __init__(
        self,
        image_size,
        num_classes,
        *,
        patch_size=4,
        channels=1,
        attention="softmax",
        attention_options=None,
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        ffn_dim=None,
        positions="learned",
        norm="pre",
        activation="gelu",
        dropout=0.0,
        seed=0,
    ):
        super().__init__()
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        if rows % patch_size or columns % patch_size:
            raise ValueError(f"image_size={rows}×{columns} is not a multiple of patch_size={patch_size}")
        self.image_shape, self.patch_size = (channels, rows, columns), patch_size
        self.grid = (rows // patch_size, columns // patch_size)
        shared = {"norm": norm, "activation": activation, "dropout": dropout, "seed": seed}
        places = {"positions": positions, "max_len": self.grid[0] * self.grid[1], "dropout": dropout}
        with seeded(seed, "embedding"):
            self.embedding = Embedding(None, embed_dim, input_dim=channels * patch_size**2, **places)
        names = per_layer(attention, num_layers, "attention")
        self.encoder = Stack(names, embed_dim, num_heads, ffn_dim=ffn_dim, options=attention_options, **shared)
        with seeded(seed, "head"):
            self.head = nn.Linear(embed_dim, num_classes)

    def patches(self, images):
        """Images [B, channels, rows, columns] to flattened patches [B, N, channels · patch²], row by row."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images have shape {tuple(images.shape)}: wanted [B, {', '.join(map(str, self.image_shape))}]"
            )
        edge = self.patch_size
        return rearrange(images, "b c (rows p) (columns q) -> b (rows columns) (c p q)", p=edge, q=edge)

    def forward(self, images, *, maps=None):
        """Logits [B, classes]."""
        x, _ = self.encoder(self.embedding(self.patches(images)), maps=maps)
        return self.head(x.mean(1))

    @torch.no_grad()
    def attention_maps(self, images):
        """One dict per layer: {"self": maps of the mechanism}; token n is the patch (n // columns, n % columns)."""
        maps = []
        self(images, maps=maps)
        return maps
