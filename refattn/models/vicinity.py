"""The Vicinity Vision Transformer: a pyramid of vicinity attention for images (Sun et al. 2023, their classifier).

    stage: overlapping convolution with stride s (window max(3, 2 s − 1)) → LN → blocks → LN     four, s = 4, 2, 2, 2
    block: x ← x + VA(LN x),   x ← x + FF(LN x)        FF with a depth-wise 3 × 3 convolution; VA: `Vicinity`
    head:  mean over the last stage's tokens → linear

There are no position embeddings: position comes from the re-weighting, the convolutions and their zero padding. No
parameter depends on the image's size. The authors' stochastic depth is part of their long recipe, and not here.
"""

import math

import torch
from torch import nn

from refattn import attention
from refattn.layers.conv_feed_forward import ConvFeedForward
from refattn.layers.feed_forward import FeedForward
from refattn.models.stack import Block, per_layer, seeded

WIDTHS, HEADS = (96, 160, 320, 512), (1, 2, 5, 8)
PUBLISHED = {
    "tiny": {"depths": (2, 2, 2, 2), "mlp_ratios": (8, 8, 4, 4)},
    "small": {"depths": (3, 3, 9, 3), "mlp_ratios": (8, 8, 4, 4)},
    "medium": {"depths": (3, 3, 27, 3), "mlp_ratios": (8, 8, 4, 4)},
    "large": {"depths": (4, 4, 36, 4), "mlp_ratios": (4, 4, 4, 4)},
}


def published(name, image_size=224, num_classes=1000, **options):
    """One of the paper's four models, "tiny" … "large", with fresh weights. options: other arguments of `VVT`.

    Raises: ValueError for another name.
    """
    if name not in PUBLISHED:
        raise ValueError(f"name={name!r}: wanted one of {', '.join(PUBLISHED)}")
    shape = {"widths": WIDTHS, "heads": HEADS, "strides": (4, 2, 2, 2), "authors_init": True, **PUBLISHED[name]}
    return VVT(image_size, num_classes, **shape | options)


class PatchEmbedding(nn.Module):
    """Images [B, C, rows, columns] to tokens [B, N, D] by a convolution whose windows overlap, and a LayerNorm."""

    def __init__(self, channels, width, stride):
        super().__init__()
        window = max(3, 2 * stride - 1)
        self.conv = nn.Conv2d(channels, width, window, stride=stride, padding=window // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, images):
        return self.norm(self.conv(images).flatten(2).transpose(1, 2))


class Stage(nn.Module):
    """One level of the pyramid: `embed`, `blocks`, `norm`; `grid` is where its tokens stand."""

    def __init__(self, channels, width, stride, eps=1e-6):
        super().__init__()
        self.embed, self.stride = PatchEmbedding(channels, width, stride), stride
        self.blocks, self.norm = nn.ModuleList(), nn.LayerNorm(width, eps=eps)
        self.grid = None

    def forward(self, images, maps=None):
        """[B, C, rows, columns] to [B, N, D]."""
        x = self.embed(images)
        for block in self.blocks:
            layer_maps = None if maps is None else {}
            x, _ = block(x, {}, maps=layer_maps)
            if maps is not None:
                maps.append(layer_maps)
        return self.norm(x)


class VVT(nn.Module):
    """Vicinity Vision Transformer, or the same pyramid with other mechanisms.

    Args:
        image_size: rows and columns, or one number for both.  num_classes, channels: of the head, of the image.
        widths, heads, depths, mlp_ratios, strides: one number a stage (heads of all stages must divide their widths).
        attention: mechanism of all stages by its catalogue name, or a list with one name a stage.
        attention_options: its options, one dict or one a stage; a mechanism on a grid gets the stage's by itself.
        depthwise: whether the feed-forward nets have their convolution.  dropout, eps, seed: as in `Stack`.
        authors_init: their initial weights, which are for widths of hundreds; else each part has its own.

    Raises: ValueError for lists of different lengths, a mechanism with a carry, or images of another shape.
    """

    def __init__(
        self,
        image_size,
        num_classes,
        *,
        channels=3,
        widths=(16, 32),
        heads=(1, 2),
        depths=(1, 1),
        mlp_ratios=(2, 2),
        strides=(2, 2),
        attention="vicinity",
        attention_options=None,
        depthwise=True,
        dropout=0.0,
        eps=1e-6,
        authors_init=False,
        seed=0,
    ):
        super().__init__()
        depth = len(widths)
        given = {"heads": heads, "depths": depths, "mlp_ratios": mlp_ratios, "strides": strides}
        for argument, numbers in given.items():
            if len(numbers) != depth:
                raise ValueError(f"{argument} has {len(numbers)} entries: wanted one for each of {depth} stages")
        names = per_layer(attention, depth, "attention")
        options = per_layer(attention_options, depth, "attention_options")
        shared = {"depthwise": depthwise, "dropout": dropout, "eps": eps, "seed": seed}
        self.channels, self.stages = channels, nn.ModuleList()
        for s, width in enumerate(widths):
            with seeded(seed, f"stage{s}"):
                stage = Stage(channels if s == 0 else widths[s - 1], width, strides[s], eps)
            shape = {"heads": heads[s], "hidden": round(mlp_ratios[s] * width), **shared}
            labels = [f"stage{s}/layer{j}" for j in range(depths[s])]
            stage.blocks.extend(make_block(label, names[s], options[s] or {}, width, **shape) for label in labels)
            self.stages.append(stage)
        with seeded(seed, "head"):
            self.head = nn.Linear(widths[-1], num_classes)
        if authors_init:
            with seeded(seed, "authors"):
                initialise(self)
        self.set_image_size(image_size)

    def set_image_size(self, image_size):
        """Read images of another size from now on; weights stay."""
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        grid = self.image_size
        for stage in self.stages:
            grid = stage.grid = tuple(math.ceil(size / stage.stride) for size in grid)
            for block in stage.blocks:
                for part in (block.self_attention, block.feed_forward):
                    if hasattr(part, "grid"):
                        part.grid = grid
        return self

    def features(self, images, *, maps=None):
        """Tokens of every stage after its norm, a list of [B, N, D]."""
        wanted = (self.channels, *self.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != wanted:
            raise ValueError(f"images have shape {tuple(images.shape)}: wanted [B, {', '.join(map(str, wanted))}]")
        found = []
        for stage in self.stages:
            tokens = stage(images, maps)
            found.append(tokens)
            images = tokens.transpose(1, 2).unflatten(2, stage.grid)
        return found

    def forward(self, images, *, maps=None):
        """Logits [B, classes]."""
        return self.head(self.features(images, maps=maps)[-1].mean(1))

    @torch.no_grad()
    def attention_maps(self, images):
        """One dict per layer, first stage first: {"self": maps of the mechanism}."""
        maps = []
        self(images, maps=maps)
        return maps


def make_block(label, name, options, width, *, heads, hidden, depthwise, dropout, eps, seed):
    """A pre-norm block; attention and feed-forward net draw their weights apart from each other."""
    with seeded(seed, f"{label}/self"):
        layer = attention.build(name, width, heads, dropout=dropout, **options)
        if layer.chain_name() is not None or layer.owns_residual:
            raise ValueError(f"attention={name!r} hands a carry on or is a whole layer: wanted a plain mechanism")
    with seeded(seed, f"{label}/feed-forward"):
        if depthwise:
            feed = ConvFeedForward(width, hidden, dropout=dropout)
        else:
            feed = FeedForward(width, hidden, activation="gelu", dropout=dropout)
    return Block(width, layer, feed, norm="pre", dropout=dropout, eps=eps)


def initialise(module):
    """The authors' initial weights: linear σ = 0.02, cut at ±2; convolutions by their fan-out; biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2.0 / fan_out))
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.bias is not None:
            nn.init.zeros_(part.bias)
