"""Wide or deep: the Long Range Arena's encoder, with as many heads in one layer as in many.

Paper: Brown et al., "Wide Attention Is The Way Forward For Transformers?", 2022 (arXiv 2210.00640). Card:
wide_attention. The network is that of Tay et al. 2021 (arXiv 2011.04006), as their code builds it.

    x = [cls; E[t]] + P       x' = x + MHA(LN(x))       x ← x' + W₂ GELU(W₁ LN(x') + b₁) + b₂                      (1)
    MHA(z) = [A₁ z W_v1ᵀ, …, A_H z W_vHᵀ] W_oᵀ          A_h = softmax(z W_qhᵀ (z W_khᵀ)ᵀ / √d_h)                   (2)
    logits = H₂ ReLU(H₁ p + h₁) + h₂                    p: the CLS token of LN(x), or the mean of real tokens      (3)

The aspect ratio is how T = L · H heads are spread over L layers; all else is kept, the width d_h of a head too. So
W_q, W_k, W_v are [H d_h, D] and W_o is [D, H d_h], with H d_h ≠ D, and attention has the same weights in every shape:

    P = V D + D + L (4 D H d_h) + L (2 D d_ff + d_ff + D) + L (4 D) + 2 D + (D d_ff + d_ff) + (d_ff C + C)         (4)
    M = L (4 n D H d_h + 2 n² H d_h) + L (2 n D d_ff)            multiply-adds of the blocks for n tokens, with CLS (5)
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.layers.pooling import masked_mean
from refattn.layers.positions import Positions
from refattn.models.stack import Stack, per_layer, seeded

POOLS = ("cls", "mean")


def shapes(total_heads, depths=None):
    """[(L, H)] with L · H = total_heads, deepest first: all divisors, or only these depths.

    Raises: ValueError for a depth that does not divide the heads.
    """
    if total_heads < 1:
        raise ValueError(f"total_heads={total_heads}: wanted a positive number")
    divisors = [n for n in range(total_heads, 0, -1) if total_heads % n == 0]
    wrong = [n for n in depths or () if n not in divisors]
    if wrong:
        raise ValueError(f"depths={tuple(depths)}: {wrong[0]} does not divide total_heads={total_heads}")
    return [(n, total_heads // n) for n in divisors if depths is None or n in depths]


def count_weights(vocab_size, num_classes, *, embed_dim, num_layers, num_heads, head_dim, ffn_dim, use_cls=True):
    """Eq. (4) by parts: embedding (with CLS), attention, mlp, norms, head, and their total.

    For attention without biases and fixed positions. Whole numbers in, whole numbers out.
    """
    parts = {
        "embedding": vocab_size * embed_dim + embed_dim * use_cls,
        "attention": num_layers * 4 * embed_dim * num_heads * head_dim,
        "mlp": num_layers * (2 * embed_dim * ffn_dim + ffn_dim + embed_dim),
        "norms": num_layers * 4 * embed_dim + 2 * embed_dim,
        "head": embed_dim * ffn_dim + ffn_dim + ffn_dim * num_classes + num_classes,
    }
    return parts | {"total": sum(parts.values())}


def count_multiply_adds(tokens, *, embed_dim, num_layers, num_heads, head_dim, ffn_dim):
    """Eq. (5) by parts: projections, scores (with the weighted sum of values), mlp, and their total."""
    width = num_heads * head_dim
    parts = {
        "projections": num_layers * 4 * tokens * embed_dim * width,
        "scores": num_layers * 2 * tokens**2 * width,
        "mlp": num_layers * 2 * tokens * embed_dim * ffn_dim,
    }
    return parts | {"total": sum(parts.values())}


class WideEncoder(nn.Module):
    """Eqs. (1) and (2), and p of (3): token ids [B, N] to one vector [B, D].

    Args:
        vocab_size: V.  attention, attention_options: mechanism(s) by name, and their options.
        embed_dim, num_layers, num_heads, head_dim, ffn_dim: D, L, H (of one layer), d_h, d_ff (4 D unless given).
        use_cls: put a learned vector before the tokens.  pool: "cls", or "mean" over real positions.
        positions, max_len: see `Positions`; max_len counts the CLS token too.  activation: see `FeedForward`.
        official: the CLS token is hidden as a key where the first token is padding, as in the authors' code.
        dropout: rate on embeddings, attention weights, branches and inside the MLP.  seed: of the weights.

    Raises: ValueError for another pool, or pool="cls" without a CLS token.
    """

    def __init__(
        self,
        vocab_size,
        *,
        attention="softmax",
        attention_options=None,
        embed_dim=64,
        num_layers=1,
        num_heads=12,
        head_dim=16,
        ffn_dim=None,
        use_cls=True,
        pool="cls",
        positions="sinusoidal",
        max_len=1025,
        activation="gelu_tanh",
        official=False,
        dropout=0.0,
        eps=1e-6,
        seed=0,
    ):
        super().__init__()
        if pool not in POOLS or (pool == "cls" and not use_cls):
            raise ValueError(f"pool={pool!r} with use_cls={use_cls}: wanted 'mean', or 'cls' with use_cls=True")
        self.pool, self.official = pool, official
        with seeded(seed, "embedding"):
            self.tokens = nn.Embedding(vocab_size, embed_dim)  # drawn from N(0, 1)
            self.positions = Positions(positions, embed_dim, max_len)
        self.cls = nn.Parameter(torch.zeros(embed_dim)) if use_cls else None
        self.dropout = nn.Dropout(dropout)
        options = per_layer(attention_options, num_layers, "attention_options")
        options = [{"head_dim": head_dim, "bias": False} | (o or {}) for o in options]
        shared = {"activation": activation, "dropout": dropout, "eps": eps, "seed": seed}
        names = per_layer(attention, num_layers, "attention")
        self.stack = Stack(names, embed_dim, num_heads, ffn_dim=ffn_dim, options=options, **shared)
        for i, block in enumerate(self.stack.blocks):
            with seeded(seed, f"layer{i}/feed-forward, Xavier"):
                for linear in (block.feed_forward.up, block.feed_forward.down):
                    nn.init.xavier_uniform_(linear.weight)
                    nn.init.normal_(linear.bias, std=1e-6)

    def embed(self, inputs, key_padding_mask=None):
        """x of eq. (1), [B, n, D], and the mask [B, n] or None; n = N + 1 with a CLS token."""
        if inputs.dim() != 2 or inputs.is_floating_point():
            raise ValueError(f"inputs {inputs.dtype} {tuple(inputs.shape)}: wanted integer ids [B, N]")
        x = self.tokens(inputs)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1)
            if key_padding_mask is not None:
                first = key_padding_mask[:, :1]
                key_padding_mask = torch.cat([first if self.official else torch.zeros_like(first), key_padding_mask], 1)
        return self.dropout(self.positions(x)), key_padding_mask

    def encode(self, inputs, *, key_padding_mask=None, maps=None):
        """All tokens after the last LayerNorm, [B, n, D], and their mask; `maps`: a list that receives the maps."""
        x, mask = self.embed(inputs, key_padding_mask)
        return self.stack(x, key_padding_mask=mask, maps=maps)[0], mask

    def summarise(self, x, mask):
        """p of eq. (3), [B, D], from the encoded tokens and their mask."""
        return x[:, 0] if self.pool == "cls" else masked_mean(x, mask)

    def forward(self, inputs, *, key_padding_mask=None, maps=None):
        """p of eq. (3), [B, D]; key_padding_mask [B, N], True = padding."""
        return self.summarise(*self.encode(inputs, key_padding_mask=key_padding_mask, maps=maps))

    @torch.no_grad()
    def contributions(self, inputs, *, key_padding_mask=None):
        """What the CLS token of a network with one layer is made of, before the last LayerNorm.

        Returns: {"start": cls + P₀ [B, D], "heads": W_oh A_h,cls,j v_h,j for head h and token j [B, H, n, D],
            "mlp": [B, D], "weights": A_h,cls,j [B, H, n]}; start + Σ heads + mlp is the whole vector (in evaluation).
        Raises: ValueError for more layers than one (tokens are mixed by then), without a CLS token, or for a mechanism
            whose output is not a map times values by heads, times W_o: then the parts would not be the whole.
        """
        if len(self.stack.blocks) != 1 or self.cls is None:
            came = f"{len(self.stack.blocks)} layers, {'no ' if self.cls is None else ''}CLS token"
            raise ValueError(f"contributions of a network with {came}: wanted one layer and a CLS token")
        was_training = self.training
        try:
            return self.eval().take_apart(*self.embed(inputs, key_padding_mask))
        finally:
            self.train(was_training)

    def take_apart(self, x, mask):
        """`contributions` to the CLS token of embedded tokens x [B, n, D]."""
        block, layer = self.stack.blocks[0], self.stack.blocks[0].self_attention
        wanted = "wanted a map times values by heads, through W_o without a bias"
        refused = ValueError(f"contributions of {type(layer).__name__}: {wanted}")
        maps = layer.projections
        if block.self_residual is None or maps.value is None or maps.output.bias is not None:
            raise refused
        z = block.self_residual.before(x)
        weights = layer.attention_maps(z, key_padding_mask=mask)["effective"][:, :, 0]  # [B, H, n]
        values = maps.split_heads(maps.value(z))  # [B, H, n, d_h]
        W_o = maps.output.weight.unflatten(1, (layer.num_heads, layer.head_dim))  # [D, H, d_h]
        heads = torch.einsum("bhj,bhjd,ehd->bhje", weights, values, W_o)
        after = x[:, 0] + heads.sum((1, 2))  # x' of eq. (1)
        whole, tolerance = block.feed(after), torch.finfo(x.dtype).eps ** 0.5
        if not torch.allclose(whole, block(x, {}, key_padding_mask=mask)[0][:, 0], rtol=tolerance, atol=tolerance):
            raise refused
        return {"start": x[:, 0], "heads": heads, "mlp": whole - after, "weights": weights}


class WideClassifier(nn.Module):
    """Eqs. (1) to (3): an encoder of any aspect ratio and its two-layer head.

    Args: vocab_size: V.  num_classes: C.  the rest: see `WideEncoder`; the head is as wide as an MLP, d_ff.
    """

    def __init__(self, vocab_size, num_classes, *, embed_dim=64, ffn_dim=None, seed=0, **shape):
        super().__init__()
        ffn_dim = 4 * embed_dim if ffn_dim is None else ffn_dim
        self.encoder = WideEncoder(vocab_size, embed_dim=embed_dim, ffn_dim=ffn_dim, seed=seed, **shape)
        with seeded(seed, "head"):
            self.hidden, self.head = nn.Linear(embed_dim, ffn_dim), nn.Linear(ffn_dim, num_classes)

    def forward(self, inputs, *, key_padding_mask=None, maps=None):
        """Logits [B, C] of ids [B, N]; key_padding_mask [B, N], True = padding."""
        return self.classify(self.encoder(inputs, key_padding_mask=key_padding_mask, maps=maps))

    def classify(self, p):
        """Eq. (3)."""
        return self.head(F.relu(self.hidden(p)))

    @torch.no_grad()
    def attention_maps(self, inputs, *, key_padding_mask=None):
        """One dict per layer: {"self": maps of the mechanism}; with a CLS token it is row and column 0."""
        maps = []
        self(inputs, key_padding_mask=key_padding_mask, maps=maps)
        return maps


class WideMatcher(nn.Module):
    """Do two documents belong together? Both go through one encoder, their vectors a, b through a head of three layers.

    Args: as `WideClassifier`, and  interaction: "nli" reads [a; b; a·b; a−b], "none" [a; b].
    Raises: ValueError for another interaction.
    """

    def __init__(self, vocab_size, num_classes=2, *, interaction="nli", embed_dim=64, ffn_dim=None, seed=0, **shape):
        super().__init__()
        if interaction not in ("nli", "none"):
            raise ValueError(f"interaction={interaction!r}: wanted 'nli' or 'none'")
        ffn_dim = 4 * embed_dim if ffn_dim is None else ffn_dim
        self.interaction = interaction
        self.encoder = WideEncoder(vocab_size, embed_dim=embed_dim, ffn_dim=ffn_dim, seed=seed, **shape)
        widths = ((4 if interaction == "nli" else 2) * embed_dim, ffn_dim, ffn_dim // 2, num_classes)
        with seeded(seed, "head"):
            self.head = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, inputs, *, other, key_padding_mask=None, other_mask=None):
        """Logits [B, C] of documents `inputs` and `other`, ids [B, N] and [B, M], each with its mask."""
        a = self.encoder(inputs, key_padding_mask=key_padding_mask)
        b = self.encoder(other, key_padding_mask=other_mask)
        x = torch.cat([a, b, a * b, a - b] if self.interaction == "nli" else [a, b], -1)
        for linear in self.head[:-1]:
            x = F.relu(linear(x))
        return self.head[-1](x)
