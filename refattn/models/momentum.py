"""The Momentum Transformer as its authors train it on the copy task (Nguyen et al. 2022, section 4.1 and their code).

Symbol and position are not added but stand side by side, half of the width each. Blocks are post-norm with ReLU:

    u = connection(x, attention(x))        y = LN(u)        x' = LN(y + FFN(y))        one more LN before the head

The connection is plain, has a constant momentum, or an adaptive one; the feed-forward net's is always plain.
"""

import torch
from torch import nn

from refattn.layers.embedding import Embedding
from refattn.layers.momentum import AdaptiveMomentumResidual, MomentumResidual
from refattn.layers.positions import sinusoidal
from refattn.layers.residual import Residual
from refattn.models.stack import seeded
from refattn.models.transformer import CausalLM

CONNECTIONS = {"plain": Residual, "momentum": MomentumResidual, "adaptive": AdaptiveMomentumResidual}


class SideBySide(nn.Module):
    """Token embeddings [B, N, D/2] beside sinusoidal positions [N, D/2]. Raises: ValueError for an odd width."""

    def __init__(self, vocab_size, width, *, dropout=0.0):
        super().__init__()
        if width % 2:
            raise ValueError(f"embed_dim={width}: wanted an even width, half for symbols and half for positions")
        self.symbols = Embedding(vocab_size, width // 2, positions="none")
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs, start=0):
        """ids [B, N] to [B, N, D]; `start`: position of the first."""
        x = self.symbols(inputs)
        places = sinusoidal(x.shape[1], x.shape[2], start=start, device=x.device, dtype=x.dtype)
        return self.dropout(torch.cat([x, places.expand_as(x)], -1))


class MomentumLM(CausalLM):
    """The authors' causal language model, with any attention and any connection.

    Args: as `CausalLM` (no positions, norm, activation or residual: those are the authors'), and
        connection: "plain", "momentum" or "adaptive".  connection_options: see `MomentumResidual` and
            `AdaptiveMomentumResidual`.

    Raises: ValueError for another connection.
    """

    def __init__(
        self,
        vocab_size,
        *,
        attention="momentum",
        connection="plain",
        connection_options=None,
        embed_dim=64,
        dropout=0.0,
        seed=0,
        **shape,
    ):
        if connection not in CONNECTIONS:
            raise ValueError(f"connection={connection!r}: wanted one of {', '.join(CONNECTIONS)}")
        options = connection_options or {}

        def residual(width, **placing):
            return CONNECTIONS[connection](width, **options, **placing)

        theirs = {"positions": "none", "norm": "post", "activation": "relu", "residual": residual}
        common = {"embed_dim": embed_dim, "dropout": dropout, "seed": seed}
        super().__init__(vocab_size, attention=attention, **theirs, **common, **shape)
        with seeded(seed, "embedding"):
            self.embedding = SideBySide(vocab_size, embed_dim, dropout=dropout)
        with seeded(seed, "head"):
            self.head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, vocab_size))

    @torch.no_grad()
    def betas(self, inputs):
        """β of every layer and token, [layers, B, N], for ids [B, N]. Raises: ValueError if none is adaptive."""
        found, carries, x = [], {}, self.embedding(inputs)
        for block in self.decoder.blocks:
            x, carries = block(x, carries)
            carry = carries.get("residual-self")
            if not hasattr(carry, "beta"):
                raise ValueError("connection: wanted 'adaptive'; a constant β is the same for every token")
            found.append(carry.beta[..., 0])
        return torch.stack(found)
