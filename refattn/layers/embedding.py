"""From inputs to model width: token ids, several ids a token, or real vectors."""

import math

import torch
from torch import nn

from refattn.layers.positions import Positions


class Embedding(nn.Module):
    """Token embeddings plus positions.

    Args:
        vocab_size: number of token ids; a tuple for several ids a token, whose embeddings are summed ([B, N, columns]);
            None for real vectors, mapped by a linear layer.
        width: D.  positions, max_len: see `Positions`.  input_dim: width of real vectors (vocab_size None).

    Raises: ValueError for inputs that do not fit.
    """

    def __init__(self, vocab_size, width, *, positions="sinusoidal", max_len=1024, input_dim=None, dropout=0.0):
        super().__init__()
        if (vocab_size is None) == (input_dim is None):
            raise ValueError(f"vocab_size={vocab_size}, input_dim={input_dim}: wanted exactly one of the two")
        self.sizes = (vocab_size,) if isinstance(vocab_size, int) else vocab_size
        self.single = isinstance(vocab_size, int)
        if self.sizes is None:
            self.project = nn.Linear(input_dim, width)
        else:
            self.tables = nn.ModuleList(nn.Embedding(size, width) for size in self.sizes)
            for table in self.tables:
                nn.init.normal_(table.weight, std=width**-0.5)
        self.scale = math.sqrt(width)  # embeddings of standard deviation 1 beside positions of size 1
        self.positions, self.dropout = Positions(positions, width, max_len), nn.Dropout(dropout)

    def forward(self, inputs, start=0):
        """ids [B, N], ids [B, N, columns] or vectors [B, N, input_dim] to [B, N, D]; `start`: position of the first."""
        return self.dropout(self.positions(self.embed(inputs), start))

    def embed(self, inputs):
        """Embeddings without positions, [B, N, D]."""
        if self.sizes is None:
            if inputs.dim() != 3 or inputs.shape[-1] != self.project.in_features:
                raise ValueError(
                    f"inputs {tuple(inputs.shape)}: wanted [B, N, {self.project.in_features}] real vectors"
                )
            return self.project(inputs)
        columns = inputs[..., None] if self.single else inputs
        wanted = "[B, N]" if self.single else f"[B, N, {len(self.sizes)}]"
        if columns.dim() != 3 or columns.shape[-1] != len(self.sizes) or inputs.is_floating_point():
            raise ValueError(f"inputs {inputs.dtype} {tuple(inputs.shape)}: wanted integer ids {wanted}")
        return self.scale * torch.stack([table(columns[..., c]) for c, table in enumerate(self.tables)]).sum(0)
