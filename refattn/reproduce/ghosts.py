"""Couplformer's limit, with a number known before the run: one coupled head explains half of a mean of two pixels.

Targets and values are as in `refattn.data.ghosts`. A head gives the pixels at rows r₁, r₂ and columns c₁, c₂ the
weights a_r ā_c. If these do not depend on the values, a linear read-out explains at most, by the inequality of Cauchy
and Schwarz,

    R² = (a₁ ā₁ + a₂ ā₂)² / (2 (a₁² + a₂²) (ā₁² + ā₂²)) ≤ 1/2                                                   (1)

of the target's variance, be it spread over all four corners of the rectangle or all on one mark.
"""

import torch
from torch import nn

from refattn import attention
from refattn.data.ghosts import CHANNELS, ghosts
from refattn.data.task import generator
from refattn.layers.feed_forward import FeedForward
from refattn.models.stack import seeded
from refattn.reproduce.verdict import AGAIN

NETWORKS = {  # name: mechanism, heads, whether a feed-forward net comes first
    "softmax H=1": ("softmax", 1, False),
    "coupled H=1": ("couplformer", 1, False),
    "coupled H=2": ("couplformer", 2, False),
    "coupled H=4": ("couplformer", 4, False),
    "coupled H=1, net before": ("couplformer", 1, True),
}
BASELINE, EXPLAINED = "softmax H=1", "R²"


class Reader(nn.Module):
    """One attention layer without a residual, read out linearly at the first pixel.

    Args: mechanism, heads: of the attention.  net: a feed-forward net, with a residual, before it.  grid: of pixels.
    """

    def __init__(self, mechanism, heads, net, *, grid, width=16, seed=0):
        super().__init__()
        with seeded(seed, "reader"):
            self.embedding = nn.Linear(CHANNELS, width)
            self.positions = nn.Parameter(0.2 * torch.randn(grid[0] * grid[1], width))
            self.net = FeedForward(width) if net else None
            options = {"grid": grid} if mechanism == "couplformer" else {}
            self.attention = attention.build(mechanism, width, heads, **options)
            self.head = nn.Linear(width, 1)

    def tokens(self, images):
        """What the attention reads, [B, N, D]."""
        x = self.embedding(images) + self.positions
        return x if self.net is None else x + self.net(x)

    def forward(self, images):
        """Answers [B] for images [B, N, 2]."""
        return self.head(self.attention(self.tokens(images))[0][:, 0])[:, 0]


def train_reader(name, seed, *, grid, steps, batch_size=64, lr=5e-3, again=False):
    """A trained `Reader`. The data depend on the seed; so do the weights, but for a second run's."""
    model = Reader(*NETWORKS[name], grid=grid, seed=seed + (10_000 if again else 0))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        images, targets, _ = ghosts(batch_size, grid, generator(seed, "ghosts", step))
        optimizer.zero_grad(set_to_none=True)
        (model(images) - targets).square().mean().backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def explained(model, seed, *, grid, test_size=2000):
    """R² of a reader on images never seen: 1 less the share of the targets' variance that is left."""
    images, targets, _ = ghosts(test_size, grid, generator(seed, "ghosts", "test"))
    return 1.0 - ((model(images) - targets).square().mean() / targets.var(correction=0)).item()


def readings(seeds, steps, grid=(6, 6), names=tuple(NETWORKS)):
    """{name: {"R²": one a seed}} of trained readers, softmax's twice: the record of a measurement."""
    found = {}
    for name in (*names, BASELINE + AGAIN):
        known, again = name.removesuffix(AGAIN), name.endswith(AGAIN)
        models = [train_reader(known, seed, grid=grid, steps=steps, again=again) for seed in range(seeds)]
        found[name] = {EXPLAINED: [round(explained(m, seed, grid=grid), 4) for seed, m in enumerate(models)]}
    return {"baseline": BASELINE, "metric": EXPLAINED, "variants": found}
