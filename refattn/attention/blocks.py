"""Blocks: how a sparse pattern becomes a fast one. No mechanism of its own; several are built on it.

A mask on an N × N score matrix saves nothing: every score is still computed. The saving comes from never asking: cut
the queries into n blocks of C tokens, hand each block a short list of W keys that holds all it may see, and attend
inside. That is N · W scores for N · N, and the only masks left are small ones inside a block.

    split, join         a sequence into blocks of C tokens, zeros filling the last one, and back
    windows             for each block the stretch of tokens around it: a view, since neighbours overlap
    gather              for each block the tokens of other blocks, by a table of block numbers
    block_attention     softmax attention of each block to its own keys
    real_tokens         which tokens are no padding; goes through `split`, `windows`, `gather` beside the keys
    as_keys             what came out, along the axis of keys: a mask for `block_attention`
    window_distance     i − j for query i and key j of a window: what the masks inside a window are made of

Shapes: tokens [B, H, N, d], blocks [B, H, n, C, d], keys by block [B, H, n, W, d], seen [B or 1, H or 1, n, C or 1, W].
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import check_heads, check_mask
from refattn.attention.softmax import masked_attention


def check_self_attention(q, k, v, key_padding_mask=None):
    """Raise a ValueError unless q, k, v [B, H, N, ·] and the mask [B, N] belong to one sequence."""
    check_heads(q, k, v)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    if q.shape[2] != k.shape[2]:
        raise ValueError(f"q has N={q.shape[2]} tokens, k and v have M={k.shape[2]}: wanted N = M, one sequence")


def split(x, size):
    """A sequence [..., N, d] as blocks [..., n, C, d] of `size` = C tokens; zeros (False) fill the last one."""
    short = -x.shape[-2] % size  # what the last block lacks
    x = F.pad(x, (0, 0, 0, short)) if short else x  # padding by nothing would be a copy
    return x.unflatten(-2, (-1, size))


def join(blocks, tokens):
    """Blocks [..., n, C, d] as a sequence [..., N, d] again, cut to its N = `tokens`."""
    return blocks.flatten(-3, -2)[..., :tokens, :]


def windows(x, size, before=0, after=0):
    """For each block of C = `size` tokens the block itself with `before` tokens to the left and `after` to the right.

    Neighbouring windows overlap, so this is a view with overlapping strides on one padded copy of x: W / C times less
    memory than a copy of each. Zeros (False) stand for tokens beyond the ends.

    Args: x [..., N, d].
    Returns: [..., n, W, d], W = before + C + after.
    """
    return split(x, size) if before == after == 0 else _Windows.apply(x, size, before, after)


class _Windows(torch.autograd.Function):
    """`windows` with a gradient of its own: torch's for `unfold` asks each entry where it came from, which is slow."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, size, before, after):
        short = -x.shape[-2] % size
        return F.pad(x, (0, 0, before, after + short)).unfold(-2, before + size + after, size).transpose(-1, -2)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.size, ctx.before, _ = inputs
        ctx.tokens = x.shape[-2]

    @staticmethod
    def backward(ctx, gradient):
        """A token stands in several windows, and their gradients add up: a block-long piece of all windows at once."""
        count, pieces = gradient.shape[-3], gradient.split(ctx.size, -2)  # pieces [..., n, C or less, d]
        total = gradient.new_zeros(*gradient.shape[:-3], count + len(pieces) - 1, ctx.size, gradient.shape[-1])
        for i, piece in enumerate(pieces):
            total[..., i : i + count, : piece.shape[-2], :] += piece
        return total.flatten(-3, -2)[..., ctx.before : ctx.before + ctx.tokens, :], None, None, None


def window_distance(size, before=0, after=0, *, device=None):
    """i − j for query i and key j of a window, [C, W]: the same for every block, since both shift together."""
    queries = torch.arange(before, before + size, device=device)
    return queries[:, None] - torch.arange(before + size + after, device=device)


def gather(blocks, table):
    """For each query block the tokens of the blocks that a table lists.

    Args:
        blocks: [B, H or 1, n, C, d].
        table: block numbers 0 … n − 1, [n_q, t], or [H, n_q, t] with a list for each head.

    Returns: [B, H or 1, n_q, t·C, d]: a copy, t times the size of what is read.
    """
    count = blocks.shape[2]
    if table.dim() == 2:
        found = blocks.index_select(2, table.flatten())  # [B, H, n_q·t, C, d]
    else:
        blocks = blocks.expand(-1, len(table), -1, -1, -1)
        first = torch.arange(len(table), device=table.device)[:, None, None] * count  # each head's, all heads in a row
        found = blocks.flatten(1, 2).index_select(1, (table + first).flatten())  # [B, H·n_q·t, C, d]
    queries, listed = table.shape[-2:]
    return found.reshape(*blocks.shape[:2], queries, listed * blocks.shape[3], blocks.shape[4])


def real_tokens(tokens, key_padding_mask=None, *, device=None):
    """True at tokens that are no padding, [B or 1, 1, N, 1]: what `split`, `windows` and `gather` fill up is False."""
    if key_padding_mask is None:
        return torch.ones(1, 1, tokens, 1, dtype=torch.bool, device=device)
    return ~key_padding_mask[:, None, :, None]


def as_keys(real):
    """`real_tokens`, cut by `windows` or `gather` or not, along the axis of keys: [..., W, 1] to [..., 1, W]."""
    return real.transpose(-1, -2)


def block_attention(q, k, v, seen=None, *, scale=None, dropout_p=0.0):
    """Softmax attention of each block of queries to its own keys; a query that sees none gets zero.

    Args:
        q: [B, H, n, C, d];  k: [B, H, n, W, d];  v: [B, H, n, W, d_v]; views as `windows` gives them are not copied.
        seen: bool, [B or 1, H or 1, n or 1, C or 1, W], True = visible; None if all are.
        scale: factor on the logits, 1/√d unless given.  dropout_p: rate on the weights.

    Returns: [B, H, n, C, d_v].
    """
    batch_heads = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # the fused kernel has two leading axes: (B H) and n
    if seen is None:
        y = F.scaled_dot_product_attention(q, k, v, scale=scale, dropout_p=dropout_p)
    else:
        if seen.shape[:2] != (1, 1):  # a mask that differs within (B H) is copied for each
            seen = seen.expand(*batch_heads, -1, -1, -1)
        y = masked_attention(q, k, v, seen.flatten(0, 1), scale=scale, dropout_p=dropout_p)
    return y.unflatten(0, batch_heads)
