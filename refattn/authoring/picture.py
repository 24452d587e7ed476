"""The README's picture: the map that four mechanisms apply to the same twelve tokens."""

import torch

from refattn import attention, plot

TOKENS, WIDTH, SLOTS = 12, 32, 3
SHARPNESS = 1.6  # factor on query and key weights: fresh weights give maps too even to tell apart


def tokens():
    """Twelve tokens [1, 12, 32] in which neighbours resemble each other, and token 9 repeats token 2."""
    x = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))
    x = x + 0.6 * x.roll(1, 1)
    x[:, 9] = x[:, 2]
    return x


@torch.no_grad()
def effective_map(name, **options):
    """The [12, 12] map of one head of a fresh layer on `tokens()`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layer = attention.build(name, WIDTH, 1, **options)
    for module in layer.modules():
        if isinstance(module, attention.Projections):
            module.query.weight *= SHARPNESS
            module.key.weight *= SHARPNESS
    return layer.attention_maps(tokens())["effective"][0, 0].numpy()


def draw():
    """The figure. Each map has its own colour scale: linear attention's largest weight is an eighth of softmax's."""
    maps = {
        "softmax": effective_map("softmax"),
        "linear": effective_map("linear"),
        f"luna, {SLOTS} slots": effective_map("luna", num_slots=SLOTS),
        f"causal luna, {SLOTS} slots": effective_map("luna", num_slots=SLOTS, is_causal=True),
    }
    return plot.heatmap(maps, shared_scale=False)


if __name__ == "__main__":
    import sys

    draw().savefig(sys.argv[1], bbox_inches="tight")
