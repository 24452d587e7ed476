"""What attention maps cost for the backward pass, in one attention and in whole networks: stored, fused and coupled."""

import math

import torch
from torch.nn import functional as F

from refattn import measure
from refattn.attention.couplformer import coupled_attention
from refattn.attention.softmax import SoftmaxAttention, softmax_weights
from refattn.models.couplformer import KCT
from refattn.reproduce.costs import kept_weights

DROPOUT = 0.1  # on maps, in the authors' training
CLAIMED = 28  # percent, of the abstract
HEADS = 4  # coupled networks have D / HEADS heads


class StoredSoftmax(SoftmaxAttention):
    """Softmax attention as it is written down: the N × N map is a tensor, kept for the backward pass."""

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        q, k, v = self.projections(x)
        A = F.dropout(softmax_weights(q, k), self.drop)
        return self.projections.merge(A @ v), carry


def count_maps(grids, heads, dim):
    """Numbers in the maps that one attention keeps, beside the formulas."""
    width = dim // heads
    counted = {"coupled": [coupled_numbers(grid, heads, width) for grid in grids]}
    counted["softmax"] = [kept_weights(h * w, h * w, heads, width) for h, w in grids]
    counted["formula"] = [heads * (h**2 + w**2) for h, w in grids]
    return {"ns": [h * w for h, w in grids], "variants": {name: {"map_numbers": n} for name, n in counted.items()}}


def coupled_numbers(grid, heads, width):
    """Entries of A and Ā that autograd keeps: all that is kept but the images of q, k, v and the half-mixed values."""
    tokens = grid[0] * grid[1]
    q, k, v = (torch.zeros(1, heads, tokens, width, requires_grad=True) for _ in range(3))
    kept = measure.saved_bytes(coupled_attention, q, k, v, grid) // q.element_size()
    return kept - 4 * q.numel()


def network(kind, width, heads, side, layers):
    """A flat classifier on `side` × `side` patches: "coupled", or softmax "fused", "stored" or "stored, dropout"."""
    shape = {"embed_dim": width, "num_layers": layers, "ffn_dim": 3 * width, "positions": "learned", "patch_size": 4}
    name = "couplformer" if kind.startswith("coupled") else "softmax"
    model = KCT(4 * side, 10, attention=name, num_heads=heads, attention_options={"qkv_bias": False}, **shape)
    for block in model.all_blocks():
        if kind.startswith("stored"):
            projections = block.self_attention.projections
            block.self_attention = StoredSoftmax(width, heads, projections=projections)
        block.self_attention.dropout = DROPOUT if kind.endswith("dropout") else 0.0
    return model.train()


def network_bytes(kind, width, heads, side, layers):
    """Bytes that a network keeps for the backward pass of one image."""
    return measure.saved_bytes(network(kind, width, heads, side, layers), torch.zeros(1, 3, 4 * side, 4 * side))


def count_networks(networks):
    """Bytes of each network (width, heads of softmax, side, layers), and the percent that coupling saves of them."""
    kept = {}
    for kind in ("stored, dropout", "stored", "fused", "coupled, dropout", "coupled"):
        sizes = [(w, w // HEADS if kind.startswith("coupled") else h, side, layers) for w, h, side, layers in networks]
        kept[kind] = [network_bytes(kind, *size) for size in sizes]
    found = {name: {"saved_bytes": values} for name, values in kept.items()}
    for kind in ("stored, dropout", "stored", "fused"):
        ours = kept["coupled, dropout" if kind.endswith("dropout") else "coupled"]
        percents = [round(100 * (1 - a / b), 1) for a, b in zip(ours, kept[kind], strict=True)]
        capped = [min(math.floor(percent), CLAIMED) for percent in percents]
        found[f"against {kind}"] = {"percent saved": percents, "percent saved, up to 28": capped}
    claimed = {"percent saved, up to 28": [CLAIMED] * len(networks)}
    return {"networks": [list(network) for network in networks], "variants": found | {"the abstract's 28": claimed}}
