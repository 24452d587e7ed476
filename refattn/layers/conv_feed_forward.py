"""A feed-forward net that sees neighbours: a depth-wise 3 × 3 convolution between its two linear maps.

As in PVTv2 (Wang et al. 2022, arXiv 2106.13797) and, after it, VVT: zero padding at the border of the image is what
tells a network without position embeddings where the border is.
"""

from einops import rearrange
from torch import nn
from torch.nn import functional as F

from refattn.attention.grid import check_grid, grid_of


class ConvFeedForward(nn.Module):
    """W₂ gelu(depth-wise 3 × 3 (W₁ x)) on tokens [B, N, D] of a grid, row by row.

    Args: width: D;  hidden: width between;  grid: (rows, columns), see `grid_of`; `layer.grid` may be set anew.
    """

    def __init__(self, width, hidden, *, grid=None, dropout=0.0):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.grid, self.dropout = check_grid(grid), nn.Dropout(dropout)

    def forward(self, x):
        """[B, N, D] to [B, N, D]. Raises: ValueError if the grid does not hold N tokens."""
        rows, _ = grid_of(x.shape[1], self.grid)
        image = rearrange(self.up(x), "b (h w) d -> b d h w", h=rows)
        image = F.gelu(self.depthwise(image))
        return self.down(self.dropout(image.flatten(2).transpose(1, 2)))
