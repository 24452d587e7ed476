"""Couplformer's two image classifiers (Lan, Wang, Wei 2023), with any mechanism per layer.

KCT, "Kronecker compact transformer", is flat: patches → positions → blocks → LN → sequence pooling → linear head. Its
block, inherited from the Compact Transformer (Hassani et al. 2021, arXiv 2104.05704), normalises the stream itself:

    x ← x + attention(LN₁ x)        x ← LN₂ x        x ← x + W₂ GELU(W₁ x)                                       (1)

VIC is hierarchical: stages of ordinary pre-norm blocks, and between them every 2 × 2 neighbours become one token of
twice the width. Sequence pooling is a mean with learned weights:

    y = Σ_n softmax_n(x w + b) x_n                                                                               (2)
"""

import torch
from einops import rearrange
from torch import nn

from refattn import attention
from refattn.layers.positions import Positions
from refattn.models.stack import Block, Stack, per_layer, seeded

POOLS = ("attention", "mean")


class Patches(nn.Module):
    """Images [B, channels, rows, columns] to patches [B, N, D], row by row: a convolution whose stride is its size.

    Raises: ValueError if patches do not tile the image, or for images of another shape.
    """

    def __init__(self, image_size, patch_size, channels, width, *, norm=False):
        super().__init__()
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        if rows % patch_size or columns % patch_size:
            raise ValueError(f"image_size={rows}×{columns} is not a multiple of patch_size={patch_size}")
        self.image_shape, self.grid = (channels, rows, columns), (rows // patch_size, columns // patch_size)
        self.project = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        nn.init.kaiming_normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.norm = nn.LayerNorm(width) if norm else None

    def forward(self, images):
        if tuple(images.shape[1:]) != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images have shape {tuple(images.shape)}: wanted [B, {wanted}]")
        x = self.project(images).flatten(2).transpose(1, 2)
        return x if self.norm is None else self.norm(x)


class PatchMerging(nn.Module):
    """Every 2 × 2 neighbours become one token: side by side, normalised, and mapped to `out` (2 D unless given).

    Raises: ValueError, when called, for a grid that has an odd side or does not hold the tokens.
    """

    def __init__(self, width, out=None):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width if out is None else out, bias=False)

    def forward(self, x, grid):
        """`x [B, N, D]` of grid (h, w) to [B, N / 4, out], of grid (h / 2, w / 2)."""
        rows, columns = grid
        if rows % 2 or columns % 2 or rows * columns != x.shape[1]:
            raise ValueError(f"grid={grid} with N={x.shape[1]} tokens: wanted even sides whose product is N")
        # neighbours in the order (0, 0), (1, 0), (0, 1), (1, 1): the row changes fastest
        x = rearrange(x, "b (h p w q) d -> b (h w) (q p d)", h=rows // 2, p=2, q=2)
        return self.reduce(self.norm(x))


class SequencePooling(nn.Module):
    """Eq. (2): tokens [B, N, D] to [B, D], by a learned score a token."""

    def __init__(self, width):
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x):
        return (self.score(x).softmax(1).transpose(1, 2) @ x)[:, 0]


class MeanPooling(nn.Module):
    """Tokens [B, N, D] to their mean [B, D]."""

    def forward(self, x):
        return x.mean(1)


class CompactBlock(Block):
    """Eq. (1): a block whose second LayerNorm stands in the stream."""

    def feed(self, x):
        x = self.feed_residual.norm(x)
        return x + self.feed_residual.dropout(self.feed_forward(x))


class GridClassifier(nn.Module):
    """What both families share: patches in front, pooling and a head behind, and every layer told its grid."""

    def __init__(self, patches, width, out, num_classes, *, positions, pool, seed):
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r}: wanted one of {', '.join(POOLS)}")
        self.patches, self.grid = patches, patches.grid
        tokens = self.grid[0] * self.grid[1]
        with seeded(seed, "positions"):
            self.positions = Positions(positions, width, tokens)
        with seeded(seed, "head"):
            self.pool = SequencePooling(out) if pool == "attention" else MeanPooling()
            self.head = nn.Linear(out, num_classes)

    def forward(self, images, *, maps=None):
        """Logits [B, num_classes] of images [B, channels, rows, columns]; `maps`, a list, receives a dict a layer."""
        return self.head(self.pool(self.encode(self.positions(self.patches(images)), maps)))

    @torch.no_grad()
    def attention_maps(self, images):
        """One dict per layer: {"self": maps of the mechanism}; token n is the patch (n // columns, n % columns)."""
        maps = []
        self(images, maps=maps)
        return maps

    def begin(self):
        """The authors' first weights of linear maps, mechanisms' aside: normal of size 0.02, cut off; biases zero."""
        for name, part in self.named_modules():
            if isinstance(part, nn.Linear) and "self_attention" not in name:
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


def told_the_grid(names, options, grid):
    """Options of each layer, with the grid for mechanisms that stand on one."""
    found = []
    for name, given in zip(names, per_layer(options, len(names), "attention_options"), strict=True):
        on_grid = "grid" in attention.known_options(attention.mechanism(name))
        found.append(({"grid": grid} if on_grid else {}) | (given or {}))
    return found


class KCT(GridClassifier):
    """The flat classifier, eqs. (1) and (2).

    Args:
        image_size: rows and columns, or one number for both.  num_classes: classes.
        patch_size, channels: edge of a patch in pixels; of the image.
        attention, attention_options: mechanism(s) by name, and their options; the grid is added. The authors' queries,
            keys and values have no bias: {"qkv_bias": False}.
        embed_dim, num_heads, num_layers, ffn_dim: D, H, depth, hidden width (3 D unless given).
        positions: "sinusoidal", "learned" or "none".  pool: "attention", eq. (2), or "mean".
        dropout: rate on attention and branches.  seed: of the weights.

    Raises: ValueError for what does not fit.
    """

    def __init__(
        self,
        image_size,
        num_classes,
        *,
        patch_size=4,
        channels=3,
        attention="couplformer",
        attention_options=None,
        embed_dim=128,
        num_heads=64,
        num_layers=6,
        ffn_dim=None,
        positions="sinusoidal",
        pool="attention",
        dropout=0.0,
        seed=0,
    ):
        with seeded(seed, "patches"):
            patches = Patches(image_size, patch_size, channels, embed_dim)
        shared = {"positions": positions, "pool": pool, "seed": seed}
        super().__init__(patches, embed_dim, embed_dim, num_classes, **shared)
        names = per_layer(attention, num_layers, "attention")
        options = told_the_grid(names, attention_options, self.grid)
        ffn_dim = 3 * embed_dim if ffn_dim is None else ffn_dim
        sizes = {"ffn_dim": ffn_dim, "dropout": dropout}
        self.encoder = Stack(names, embed_dim, num_heads, options=options, seed=seed, **sizes)
        plain = self.encoder.blocks  # the same sub-layers, put together as in eq. (1)
        made = (CompactBlock(embed_dim, b.self_attention, b.feed_forward, dropout=dropout) for b in plain)
        self.encoder.blocks = nn.ModuleList(made)
        with seeded(seed, "begin"):
            self.begin()

    def encode(self, x, maps=None):
        """Tokens [B, N, D] through all blocks and the last LayerNorm."""
        return self.encoder(x, maps=maps)[0]

    def all_blocks(self):
        """Every block, in order."""
        return list(self.encoder.blocks)


class VIC(GridClassifier):
    """The hierarchical classifier. (The authors' pooling fits one stage only; here it fits the last one.)

    Args: as `KCT`, and
        depths: blocks of each stage; patches are merged and the width doubles between stages.
        num_heads: of each stage, or one number for all.  ffn_dim: hidden width of the first stage (2 D unless given).

    Raises: ValueError for what does not fit, such as a grid that cannot be halved.
    """

    def __init__(
        self,
        image_size,
        num_classes,
        *,
        patch_size=4,
        channels=3,
        attention="couplformer",
        attention_options=None,
        embed_dim=96,
        num_heads=48,
        depths=(2, 2, 2),
        ffn_dim=None,
        positions="sinusoidal",
        pool="attention",
        dropout=0.0,
        seed=0,
    ):
        with seeded(seed, "patches"):
            patches = Patches(image_size, patch_size, channels, embed_dim, norm=True)
        out, grid = embed_dim * 2 ** (len(depths) - 1), patches.grid
        shared = {"positions": positions, "pool": pool, "seed": seed}
        super().__init__(patches, embed_dim, out, num_classes, **shared)
        heads, ffn_dim = per_layer(num_heads, len(depths), "num_heads"), 2 * embed_dim if ffn_dim is None else ffn_dim
        self.stages, self.merges = nn.ModuleList(), nn.ModuleList()
        for i, (depth, h) in enumerate(zip(depths, heads, strict=True)):
            width = embed_dim * 2**i
            if i > 0:
                if grid[0] % 2 or grid[1] % 2:
                    raise ValueError(f"depths={tuple(depths)}: a grid of {grid[0]} × {grid[1]} cannot be halved")
                grid = (grid[0] // 2, grid[1] // 2)
                self.merges.append(PatchMerging(width // 2))
            names = per_layer(attention, depth, "attention")
            sizes = {"ffn_dim": ffn_dim * 2**i, "dropout": dropout, "seed": seed, "label": f"stage{i}-layer"}
            stack = Stack(names, width, h, options=told_the_grid(names, attention_options, grid), **sizes)
            stack.norm = None  # one LayerNorm closes the last stage
            self.stages.append(stack)
        self.norm = nn.LayerNorm(out)
        with seeded(seed, "begin"):
            self.begin()

    def encode(self, x, maps=None):
        """Tokens [B, N, D] through all stages to [B, N', D'], normalised."""
        grid = self.grid
        for i, stage in enumerate(self.stages):
            if i > 0:
                x, grid = self.merges[i - 1](x, grid), (grid[0] // 2, grid[1] // 2)
            x, _ = stage(x, maps=maps)
        return self.norm(x)

    def all_blocks(self):
        """Every block, in order."""
        return [block for stage in self.stages for block in stage.blocks]
