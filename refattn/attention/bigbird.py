"""BigBird: blocks of tokens read their neighbours, a few random blocks, and two global ones.

Paper: Zaheer et al., "Big Bird: Transformers for Longer Sequences", NeurIPS 2020 (arXiv 2007.14062), section 2; the
ITC form, whose global tokens belong to the sequence.

With n blocks of b tokens, block u of head h reads

    u ∈ {0, n − 1}:     all blocks                                                                          (1)
    otherwise:          {0, n − 1} ∪ {u − 1, u, u + 1} ∪ R_{h,u},   R_{h,u}: r random blocks                  (2)
    y_i = Σ_j softmax_j(q_i·k_j / √d over the tokens j of these blocks) v_j                                 (3)

R is drawn once, without replacement, from the blocks that (2) does not read anyway. The first and the last block
connect any two tokens in two layers. A padded query gives zero. There is no causal form: the first block reads all.

Cost for N tokens: O(N b (5 + r) d) time and O(N b (5 + r)) scores, no parameters.
"""

import torch

from refattn.attention.base import Attention
from refattn.attention.blocks import as_keys, block_attention, check_self_attention, gather, join, real_tokens, split
from refattn.attention.softmax import softmax_attention, softmax_attention_explicit, softmax_weights


def inner_blocks(tokens, block):
    """n − 2, how many blocks follow eq. (2); 0 where every block is global."""
    return max(0, -(-tokens // block) - 2)


def choose_blocks(draws, inner):
    """R of eq. (2) for each head and inner block: r different blocks, none of them read anyway.

    Where fewer than r are left (n < 5 + r), 0 stands for a missing one: that block is read already.

    Args: draws: random whole numbers ≥ 0, far larger than n, [H, n − 2 or more, r]: one for each choice.  inner: n − 2.
    Returns: [H, n − 2, r].
    """
    u = torch.arange(1, inner + 1, device=draws.device)
    first, last = (u - 1).clamp(min=1), (u + 1).clamp(max=inner)  # the inner blocks in the window of u
    window = last - first + 1
    left = inner - window  # how many there are to choose from
    ranks = draws.new_empty(draws.shape[0], inner, 0)  # of the chosen, among those left: 0 … left − 1
    for j in range(draws.shape[2]):
        rank = draws[:, :inner, j] % (left - j).clamp(min=1)  # counted without the j chosen before …
        for before in ranks.sort(-1).values.unbind(-1):
            rank = rank + (rank >= before)  # … so step over them, in rising order
        ranks = torch.cat([ranks, rank[..., None]], -1)
    blocks = ranks + 1
    blocks = blocks + (blocks >= first[:, None]) * window[:, None]  # step over the window
    return blocks.where(torch.arange(draws.shape[2], device=draws.device) < left[:, None], 0)


def bigbird_mask(tokens, rand_blocks, *, block, key_padding_mask=None, device=None):
    """Which pairs may talk by eqs. (1) and (2), the definition: bool [B or 1, H, N, N].

    Args: tokens: N;  the rest as in `bigbird_attention`.
    """
    u = torch.arange(inner_blocks(tokens, block) + 2, device=device)
    ends = (u == 0) | (u == u[-1])
    near = (u[:, None] - u).abs() <= 1
    reads = (near | ends | ends[:, None]).repeat(len(rand_blocks), 1, 1)  # [H, n, n]
    reads[:, 1:-1] = reads[:, 1:-1].scatter(2, rand_blocks, True)
    of = torch.arange(tokens, device=device) // block  # the block of each token
    real = real_tokens(tokens, key_padding_mask, device=device)
    return reads[:, of[:, None], of] & real & as_keys(real)  # neither a padded query nor a padded key


def bigbird_attention_explicit(q, k, v, rand_blocks, **options):
    """Eq. (3) by the mask on all N × N scores: the quadratic twin of `bigbird_attention`."""
    return softmax_attention_explicit(q, k, v, allow=bigbird_mask(q.shape[2], rand_blocks, **options, device=q.device))


def bigbird_attention(q, k, v, rand_blocks, *, block, key_padding_mask=None, dropout_p=0.0):
    """Eq. (3), block by block.

    Args:
        q, k: queries and keys [B, H, N, d];  v: values [B, H, N, d_v]; any N ≥ 1, the last block may be incomplete.
        rand_blocks: R, numbers of blocks, [H, n − 2, r]; one that eq. (2) lists twice counts once.
        block: b, tokens in a block.
        key_padding_mask: [B, N] bool, True where the token is padding.  dropout_p: rate on the weights.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_self_attention(q, k, v, key_padding_mask)
    tokens, inner = q.shape[2], inner_blocks(q.shape[2], block)
    if rand_blocks.shape[:2] != (q.shape[1], inner):
        raise ValueError(f"rand_blocks has shape {tuple(rand_blocks.shape)}: wanted [H={q.shape[1]}, n − 2={inner}, r]")
    masks = {"key_padding_mask": key_padding_mask, "dropout_p": dropout_p}
    real = real_tokens(tokens, key_padding_mask, device=q.device)
    if inner == 0:
        y = softmax_attention(q, k, v, **masks)
    else:
        last = (inner + 1) * block  # where the last block begins
        ends = softmax_attention(torch.cat([q[:, :, :block], q[:, :, last:]], 2), k, v, **masks)  # eq. (1)
        middle = inner_attention(q[:, :, block:last], k, v, real, rand_blocks, block, dropout_p)  # eq. (2)
        y = torch.cat([ends[:, :, :block], middle, ends[:, :, block:]], 2)
    return y if key_padding_mask is None else y.masked_fill(~real, 0.0)


def inner_attention(q, k, v, real, rand_blocks, block, dropout_p):
    """Eq. (3) for the inner blocks, q [B, H, (n − 2)·b, d], which read a list of 5 + r blocks each."""
    heads, inner, _ = rand_blocks.shape
    u = torch.arange(1, inner + 1, device=q.device)
    fixed = torch.stack([torch.zeros_like(u), torch.full_like(u, inner + 1), u - 1, u, u + 1], -1)  # [n − 2, 5]
    table = torch.cat([fixed.expand(heads, -1, -1), rand_blocks], -1)  # [H, n − 2, 5 + r]
    again = (table[..., None] == table[..., None, :]).tril(-1).any(-1)  # listed before: block 0 is also the left of 1
    keys, values, there = (gather(split(x, block), table) for x in (k, v, real))  # [B, H, n − 2, (5 + r)·b, ·]
    seen = as_keys(there) & ~again.repeat_interleave(block, -1)[:, :, None]
    return join(block_attention(split(q, block), keys, values, seen, dropout_p=dropout_p), q.shape[2])


class BigBird(Attention):
    """Multi-head BigBird attention, ITC form (Zaheer et al. 2020): softmax attention's layer around eq. (3).

    Args: those of `Attention`, and
        block: b, tokens in a block.
        random_blocks: r, random blocks that an inner block reads.
        max_len: most tokens that random numbers are drawn for.
        seed: of the random blocks; None takes one from torch's generator, as the weights do, so that layers differ.

    The choice of R for N tokens depends on seed, head, block and N alone. It is kept with the weights.
    """

    forms = frozenset({"mask"})

    def __init__(self, embed_dim, num_heads, *, block=64, random_blocks=3, max_len=1024, seed=None, **common):
        super().__init__(embed_dim, num_heads, **common)
        if block < 1 or random_blocks < 0 or max_len < 1:
            came = f"block={block}, random_blocks={random_blocks}, max_len={max_len}"
            raise ValueError(f"{came}: wanted block and max_len of 1 or more, random_blocks of 0 or more")
        self.block, self.random_blocks, self.max_len = block, random_blocks, max_len
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
        shape = (num_heads, inner_blocks(max_len, block), random_blocks)
        self.register_buffer("draws", torch.randint(2**31, shape, generator=generator))

    def rand_blocks(self, tokens):
        """R of eq. (2) for N tokens, [H, n − 2, r]. Raises: ValueError for more than `max_len` tokens."""
        if tokens > self.max_len:
            raise ValueError(f"x has {tokens} tokens: wanted at most max_len={self.max_len}")
        return choose_blocks(self.draws, inner_blocks(tokens, self.block))

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (3) for every head. Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        options = {"block": self.block, "key_padding_mask": key_padding_mask, "dropout_p": self.drop}
        y = bigbird_attention(*self.projections(x), self.rand_blocks(x.shape[1]), **options)
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the map of eq. (3), `"allow"`: the mask of eqs. (1) and (2), both [B (or 1), H, N, N]."""
        self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x)
        rand_blocks, options = self.rand_blocks(x.shape[1]), {"block": self.block, "key_padding_mask": key_padding_mask}
        allow = bigbird_mask(x.shape[1], rand_blocks, **options, device=x.device)
        return {"effective": softmax_weights(q, k, allow=allow), "allow": allow}
