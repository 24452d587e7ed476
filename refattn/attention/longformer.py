"""Longformer: a sliding window for every token, and a few global tokens that read all and are read by all.

Paper: Beltagy, Peters, Cohan, "Longformer: The Long-Document Transformer", 2020 (arXiv 2004.05150), section 3.

    allow_ij = 1  ⟺  j = i + t·δ_h, |t| ≤ w/2 (causal: t ≤ 0), or g_j = 1, or g_i = 1                        (1)
    y_i = Σ_j softmax_j(q_i·k_j / √d over allowed j) v_j,    q, k, v by W_q, W_k, W_v,           if g_i = 0     (2)
    y_i = Σ_j softmax_j(q_i·k_j / √d over all j) v_j,        q, k, v by W_q^g, W_k^g, W_v^g,     if g_i = 1     (3)

w is the whole window: w/2 tokens to each side. δ_h is the dilation of head h: a window δ times as long, with gaps. A
local query reads a global key through the local projections of (2). A padded query gives zero. Global tokens break
causality, so the causal form has windows only.

Cost for N tokens, G of them global: O(N (w + G) d) time and O(N (w + G)) scores; 3 D² + 3 D more parameters for (3).
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, Projections
from refattn.attention.blocks import (
    as_keys,
    block_attention,
    check_self_attention,
    join,
    real_tokens,
    split,
    window_distance,
    windows,
)
from refattn.attention.softmax import softmax_attention, softmax_weights

BLOCK = 64  # fewest queries handled at once: a block as short as a narrow window would be too little work


def head_dilations(dilation, heads):
    """δ_h for every head, a tuple. Raises: ValueError unless it is one whole number ≥ 1, or `heads` of them."""
    listed = (dilation,) * heads if isinstance(dilation, int) else tuple(dilation)
    if len(listed) != heads or min(listed) < 1:
        raise ValueError(f"dilation={dilation}: wanted a whole number ≥ 1, or one for each of {heads} heads")
    return listed


def longformer_mask(
    tokens, *, one_sided, dilation=1, heads=1, is_causal=False, global_index=None, key_padding_mask=None, device=None
):
    """Which pairs may talk by eq. (1), the definition: bool [B or 1, H, N, N]; one for H where heads do not differ.

    Args: tokens, heads: N, H;  the rest as in `longformer_attention`.
    """
    dilations = head_dilations(dilation, heads)
    dilations = dilations[:1] if len(set(dilations)) == 1 else dilations
    dilations = torch.tensor(dilations, device=device)[:, None, None]  # δ_h  [H or 1, 1, 1]
    i = torch.arange(tokens, device=device)
    distance = i[:, None] - i
    allow = (distance % dilations == 0) & (distance.abs() <= one_sided * dilations)  # [H or 1, N, N]
    allow = (allow & (distance >= 0) if is_causal else allow)[None]
    if global_index is not None:
        g = are_global(global_index, tokens)  # [B or 1, 1, N, 1]
        allow = allow | g | as_keys(g)
    real = real_tokens(tokens, key_padding_mask, device=device)
    return allow & real & as_keys(real)  # neither a padded query nor a padded key


# ---- Global tokens: a table of positions [B or 1, G]; N, beyond the end, stands where a sequence has fewer -----------


def global_positions(is_global, key_padding_mask=None):
    """The table of positions [B, G] of a mask g [B, N], for sequences whose global tokens differ.

    G is the most that any sequence has, so its size depends on the values of the mask. Padding is never global.
    """
    if key_padding_mask is not None:
        is_global = is_global & ~key_padding_mask
    tokens, most = is_global.shape[1], int(is_global.sum(1).max())
    first = is_global.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # global ones to the front, in order
    return first.where(is_global.gather(1, first), tokens)


def are_global(index, tokens):
    """g as [B or 1, 1, N, 1], from the table of positions."""
    g = torch.zeros(len(index), tokens + 1, dtype=torch.bool, device=index.device).scatter(1, index, True)
    return g[:, None, :tokens, None]


def take(x, index):
    """Rows of x [B, H, N, d] at the positions of the table: [B, H, G, d]; anything where there is none."""
    rows = index.clamp(max=x.shape[2] - 1)[:, None, :, None]
    return x.gather(2, rows.expand(*x.shape[:2], -1, x.shape[3]))


def put(x, index, rows):
    """x [B, H, N, d] with `rows` [B, H, G, d] at the positions of the table; what has none falls off the end."""
    index = index[:, None, :, None].expand_as(rows)
    return F.pad(x, (0, 0, 0, 1)).scatter(2, index, rows)[:, :, :-1]


# ---- Attention ------------------------------------------------------------------------------------------------------


def longformer_weights(q, k, global_q=None, global_k=None, *, global_index=None, key_padding_mask=None, **pattern):
    """The map of eqs. (2) and (3) in full, [B, H, N, N]: rows of global tokens weigh the *global* values.

    Args: as `longformer_attention`.
    """
    masks = {"global_index": global_index, "key_padding_mask": key_padding_mask}
    allow = longformer_mask(q.shape[2], heads=q.shape[1], **masks, **pattern, device=q.device)
    weights = softmax_weights(q, k, allow=allow)
    if global_index is None:
        return weights
    return put(weights, global_index, softmax_weights(global_q, global_k, key_padding_mask=key_padding_mask))


def longformer_attention_explicit(q, k, v, global_qkv=(None, None, None), *, global_index=None, **options):
    """Eqs. (2) and (3) through the N × N map: the quadratic twin of `longformer_attention`."""
    global_q, global_k, global_v = global_qkv
    weights = longformer_weights(q, k, global_q, global_k, global_index=global_index, **options)
    y = weights @ v
    return y if global_index is None else put(y, global_index, take(weights, global_index) @ global_v)


def longformer_attention(
    q,
    k,
    v,
    global_qkv=(None, None, None),
    *,
    one_sided,
    dilation=1,
    is_causal=False,
    global_index=None,
    key_padding_mask=None,
    dropout_p=0.0,
):
    """Eqs. (2) and (3) in linear time.

    Args:
        q, k, v: by the local projections, [B, H, N, ·]; any N ≥ 1.
        global_qkv: by the global ones: queries of the global tokens [B, H, G, d], keys and values of all [B, H, N, ·].
        one_sided: w/2, tokens seen to each side.
        dilation: δ, a number or one for each head.
        is_causal: only t ≤ 0, and no global tokens.
        global_index: positions of the global tokens, [B or 1, G]; N where a sequence has fewer. None: no such tokens.
        key_padding_mask: [B, N] bool, True where the token is padding; such a token is not in the table.
        dropout_p: rate on the weights.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit, or for global tokens in the causal form.
    """
    check_self_attention(q, k, v, key_padding_mask)
    if is_causal and global_index is not None:
        raise ValueError("global_index with is_causal=True: a global token would show the future; wanted None")
    real, dilations = real_tokens(q.shape[2], key_padding_mask, device=q.device), head_dilations(dilation, q.shape[1])
    options = {"one_sided": one_sided, "is_causal": is_causal, "global_index": global_index, "real": real}
    options["dropout_p"] = dropout_p
    if len(set(dilations)) == 1:
        y = window_attention(q, k, v, dilation=dilations[0], **options)
    else:
        groups = {step: [h for h, own in enumerate(dilations) if own == step] for step in sorted(set(dilations))}
        parts = [window_attention(*(x[:, own] for x in (q, k, v)), dilation=d, **options) for d, own in groups.items()]
        order = [h for own in groups.values() for h in own]
        y = torch.cat(parts, 1)[:, [order.index(h) for h in range(len(order))]]
    if global_index is not None:
        rows = softmax_attention(*global_qkv, key_padding_mask=key_padding_mask, dropout_p=dropout_p)  # eq. (3)
        y = put(y, global_index, rows)
    return y if key_padding_mask is None else y.masked_fill(~real, 0.0)


def window_attention(q, k, v, *, one_sided, dilation, is_causal, global_index, real, dropout_p=0.0):
    """Eq. (2) for heads of one dilation δ, [B, H, N, d_v]: every query reads its window and the global keys.

    Tokens of another i mod δ are never in the window: δ strands of every δ-th token, each with a plain window.
    """
    tokens, size, reach = q.shape[2], max(one_sided, BLOCK), (one_sided, 0 if is_causal else one_sided)

    def strands(x, cut, *around):  # [B, H, N, d] to [B, H, δ, N/δ, d] to blocks [B, H, δ·n, C or W, d]
        return cut(split(x, dilation).transpose(-3, -2), size, *around).flatten(2, 3)

    in_window = real if global_index is None else real & ~are_global(global_index, tokens)  # a global key counts once
    keys, values, shown = (strands(x, windows, *reach) for x in (k, v, in_window))
    distance = window_distance(size, *reach, device=q.device)  # [C, W]
    seen = as_keys(shown) & (distance <= reach[0]) & (distance >= -reach[1])  # [B or 1, 1, δ·n, C, W]
    if global_index is not None:
        blocks, width = keys.shape[2], global_index.shape[1]
        keys, values = (
            torch.cat([take(x, global_index)[:, :, None].expand(-1, -1, blocks, -1, -1), own], -2)
            for x, own in ((k, keys), (v, values))
        )
        there = (global_index < tokens)[:, None, None, None].expand(len(seen), *seen.shape[1:4], width)
        seen = torch.cat([there, seen], -1)  # [B or 1, 1, δ·n, C, G + W]
    y = block_attention(strands(q, split), keys, values, seen, dropout_p=dropout_p)  # [B, H, δ·n, C, d_v]
    y = join(y.unflatten(2, (dilation, -1)), -(-tokens // dilation))  # [B, H, δ, N/δ, d_v]
    return join(y.transpose(-3, -2), tokens)


class Longformer(Attention):
    """Multi-head Longformer attention (Beltagy et al. 2020): eqs. (2) and (3) with their two sets of projections.

    Args: those of `Attention`, and
        window: w, even: w/2 tokens to each side (the paper's 512 is 256 to the left and 256 to the right).
        dilation: δ, a number or one for each head; the paper dilates few heads, in higher layers only.
        global_tokens: which tokens are global, counted among the real ones of a sequence, so that padding on the left
            shifts them too; (0,), the class token, unless given; none in the causal form. Where they differ from
            sequence to sequence (the question in question answering), call `attend` with their positions.
    """

    forms = frozenset({"causal", "mask"})

    def __init__(self, embed_dim, num_heads, *, window=128, dilation=1, global_tokens=None, **common):
        super().__init__(embed_dim, num_heads, **common)
        if window < 2 or window % 2:
            raise ValueError(f"window={window}: wanted an even number, half of it to each side")
        global_tokens = (() if self.is_causal else (0,)) if global_tokens is None else tuple(global_tokens)
        if any(p < 0 for p in global_tokens) or len(set(global_tokens)) < len(global_tokens):
            raise ValueError(f"global_tokens={global_tokens}: wanted different positions, 0 or more")
        if self.is_causal and global_tokens:
            raise ValueError(f"global_tokens={global_tokens} with is_causal=True: a global token shows the future")
        self.window, self.dilation, self.global_tokens = window, head_dilations(dilation, num_heads), global_tokens
        self.global_projections = self.copied_projections() if global_tokens else None

    def copied_projections(self):
        """W^g of eq. (3), which begin as copies of the local projections (the authors' choice)."""
        biased = self.projections.query.bias is not None
        copied = Projections(self.embed_dim, self.num_heads, self.head_dim, bias=biased, output=False)
        for name in ("query", "key", "value"):
            getattr(copied, name).load_state_dict(getattr(self.projections, name).state_dict())
        return copied

    def global_index(self, x, key_padding_mask=None):
        """Table [B or 1, G] of the positions of `global_tokens`, N where a sequence is too short; None without any."""
        if not self.global_tokens:
            return None
        counted = real_tokens(x.shape[1], key_padding_mask, device=x.device)[:, 0, :, 0].cumsum(1)  # [B or 1, N]
        wanted = torch.tensor(self.global_tokens, device=x.device).expand(len(counted), -1) + 1
        return torch.searchsorted(counted, wanted)  # where the count first reaches p + 1: token p of the real ones

    def inputs(self, x, index):
        """Queries, keys and values of eq. (2), and the three of eq. (3)."""
        if index is None:
            return self.projections(x), (None, None, None)
        if self.global_projections is None:
            raise ValueError("global tokens were given, but this layer was built with global_tokens=(): it has no W^g")
        tokens = take(x[:, None], index)[:, 0]  # [B, G, D]: only global tokens ask by the global projections
        return self.projections(x), self.global_projections(tokens, x)

    def options(self):
        """What every function of this file needs to know of the layer."""
        return {"one_sided": self.window // 2, "dilation": self.dilation, "is_causal": self.is_causal}

    def attend(self, x, index=None, *, key_padding_mask=None):
        """The heads [B, H, N, d] before the output projection, with the global tokens of a table [B or 1, G]."""
        qkv, global_qkv = self.inputs(x, index)
        options = {"global_index": index, "key_padding_mask": key_padding_mask, "dropout_p": self.drop}
        return longformer_attention(*qkv, global_qkv, **options, **self.options())

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eqs. (2) and (3) for every head. Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        index = self.global_index(x, key_padding_mask)
        return self.projections.merge(self.attend(x, index, key_padding_mask=key_padding_mask)), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the map, [B, H, N, N]; its rows of global tokens weigh the values of eq. (3).

        `"allow"`: the mask of eq. (1), [B or 1, H or 1, N, N].
        """
        self.check_input(x, context, key_padding_mask)
        index = self.global_index(x, key_padding_mask)
        (q, k, _), (global_q, global_k, _) = self.inputs(x, index)
        options = {"global_index": index, "key_padding_mask": key_padding_mask, **self.options()}
        allow = longformer_mask(x.shape[1], heads=self.num_heads, **options, device=x.device)
        return {"effective": longformer_weights(q, k, global_q, global_k, **options), "allow": allow}
