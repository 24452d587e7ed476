"""SReT for images: a pyramid of recursive stages, and the published configurations (Shen et al. 2022). Card: sret.

    image → stem + position map → stage → grouped convolution → stage → … → mean → LN → linear

See `refattn/models/sret.py` for the stages. There is no class token.
"""

import math

import torch
from torch import nn

from refattn.models.sret import EPS, RecursiveStage, check_count
from refattn.models.stack import per_layer, seeded

TINY = {"widths": (64, 128, 256), "heads": (2, 4, 8), "ffn_ratio": 3.6, "nll_ratio": 1}
PUBLISHED = {  # blocks, loops and (but for the last) groups are the same in all
    "T": TINY,
    "LT": TINY | {"ffn_ratio": 4.0},
    "S": {"widths": (126, 252, 504), "heads": (3, 6, 12), "ffn_ratio": 3.0, "nll_ratio": 2},
    "LT-16-14-1": TINY | {"ffn_ratio": 4.0, "groups": ((16, 1), (14, 1), (1, 1))},
}
SLICES = ((8, 2), (4, 1), (1, 1))


def published(name, image_size=224, num_classes=1000, *, sliced=True, **options):
    """One of the paper's models with fresh weights: "T", "LT", "S" or "LT-16-14-1"; sliced=False: groups of all tokens.

    options: other arguments of `SReT`. Raises: ValueError for another name.
    """
    if name not in PUBLISHED:
        raise ValueError(f"name={name!r}: wanted one of {', '.join(PUBLISHED)}")
    shape = {"blocks": (2, 5, 3), "loops": 2, "groups": SLICES, **PUBLISHED[name]}
    return SReT(image_size, num_classes, **shape | ({} if sliced else {"groups": (1, 1)}) | options)


class Stem(nn.Sequential):
    """3 × 3 convolutions, each with BatchNorm and ReLU: images [B, channels, rows, columns] to [B, C, …].

    Args: channels: of the image;  width: C (the first has C / 2);  strides: one a convolution.
    """

    def __init__(self, channels, width, strides):
        layers, before = [], channels
        for i, stride in enumerate(strides):
            after = width // 2 if i == 0 and len(strides) > 1 else width
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        super().__init__(*layers)


class SReT(nn.Module):
    """The pyramid.

    Args:
        image_size: rows and columns, or one number for both.  num_classes, channels: of the head, of the image.
        widths, heads: C and H of each stage; a width must be a multiple of the one before.
        blocks, loops: K and T of each stage, or one number for all.
        groups: (G of the first pass, of later ones) for all stages, or one such pair a stage.
        ffn_ratio, nll_ratio: h = ⌊ratio · C⌋, likewise h'; nll_ratio None: no non-linear projections.
        stem_strides: one a convolution of the stem; the published models shrink the image eightfold.
        seed, stage: of the weights, and other options of `RecursiveStage`.

    Raises: ValueError for lists of different lengths, widths that do not grow by whole factors, groups that do not
        divide a stage's tokens, or other images.
    """

    def __init__(
        self,
        image_size,
        num_classes,
        *,
        channels=3,
        widths=(32, 64),
        heads=(2, 4),
        blocks=1,
        loops=2,
        groups=(1, 1),
        ffn_ratio=2.0,
        nll_ratio=1.0,
        stem_strides=(2, 2, 2),
        eps=EPS,
        seed=0,
        **stage,
    ):
        super().__init__()
        depth = len(widths)
        if len(heads) != depth:
            raise ValueError(f"heads has {len(heads)} entries: wanted one for each of {depth} stages")
        if any(after % before for before, after in zip(widths[:-1], widths[1:], strict=True)):
            raise ValueError(f"widths={tuple(widths)}: wanted each to be a multiple of the one before")
        blocks, loops = per_layer(blocks, depth, "blocks"), per_layer(loops, depth, "loops")
        one_pair_each = groups and isinstance(groups[0], (list, tuple))
        groups = per_layer(groups, depth, "groups") if one_pair_each else [groups] * depth
        self.channels = channels
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        grid = self.image_size
        for stride in stem_strides:
            grid = tuple(math.ceil(size / stride) for size in grid)
        with seeded(seed, "stem"):
            self.stem = Stem(channels, widths[0], stem_strides)
            self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, widths[0], *grid), std=0.02))
        self.stages, self.pools = nn.ModuleList(), nn.ModuleList()
        for s, width in enumerate(widths):
            nll_hidden = None if nll_ratio is None else int(nll_ratio * width)
            hidden = {"ffn_hidden": int(ffn_ratio * width), "nll_hidden": nll_hidden}
            shape = {"blocks": blocks[s], "loops": loops[s], "groups": groups[s], **hidden, **stage}
            self.stages.append(RecursiveStage(width, heads[s], eps=eps, seed=f"{seed}/stage{s}", **shape))
            rows, columns = grid
            if any(rows * columns % count for _, count, _ in self.stages[s].applications):
                wanted = f"wanted divisors of its {rows} × {columns} tokens"
                raise ValueError(f"groups={tuple(groups[s])} of stage {s}: {wanted}")
            grid = (math.ceil(rows / 2), math.ceil(columns / 2))  # what a pool leaves
            if s + 1 < depth:
                with seeded(seed, f"pool{s}"):
                    self.pools.append(nn.Conv2d(width, widths[s + 1], 3, stride=2, padding=1, groups=width))
        self.norm = nn.LayerNorm(widths[-1], eps=eps)
        with seeded(seed, "head"):
            self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images, *, permutations=None, generator=None, maps=None, states=None):
        """Logits [B, classes]; permutations: one for each shuffled application of all stages, in order of use.

        Raises: ValueError for images of another size, or another number of permutations.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != (self.channels, *self.image_size):
            wanted = ", ".join(map(str, (self.channels, *self.image_size)))
            raise ValueError(f"images have shape {tuple(images.shape)}: wanted [B, {wanted}]")
        kept = {"maps": maps, "states": states, "generator": generator}
        given = check_count(permutations, self.stages)
        x = self.stem(images) + self.positions  # [B, C, rows, columns]
        for s, stage in enumerate(self.stages):
            grid = x.shape[2:]
            tokens = stage(x.flatten(2).transpose(1, 2), permutations=given, **kept)  # row by row
            x = tokens.transpose(1, 2).unflatten(2, grid)
            if s < len(self.pools):
                x = self.pools[s](x)
        return self.head(self.norm(x.mean((2, 3))))

    @torch.no_grad()
    def attention_maps(self, images, **options):
        """One dict per application, first stage first: {"effective" [B, H, N, N], "allow" [N, N]}."""
        maps = []
        self(images, maps=maps, **options)
        return maps


def count_weights(model):
    """{"stem", "stages", "pools", "positions", "head"}: trained numbers, shared blocks once; and their total."""
    named = {"stem": model.stem, "stages": model.stages, "pools": model.pools}
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in named.items()}
    parts |= {"positions": model.positions.numel()}
    parts["head"] = sum(p.numel() for part in (model.norm, model.head) for p in part.parameters())
    return parts | {"total": sum(parts.values())}
