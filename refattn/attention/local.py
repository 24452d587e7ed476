"""Local attention: a token reads its own block of w tokens and a few blocks beside it.

Papers: Parmar et al., "Image Transformer", ICML 2018 (arXiv 1802.05751), section 3.3; "Local Attention" of Tay et al.,
"Long Range Arena", ICLR 2021 (arXiv 2011.04006).

    allow_ij = 1  ⟺  block(i) − b ≤ block(j) ≤ block(i) + f,   block(i) = ⌊i / w⌋;   causal: and j ≤ i         (1)
    y_i = Σ_j softmax_j(q_i·k_j / √d over allowed j) v_j                                                      (2)

b = f = 0 are separate blocks; no number of layers connects them. b = f = 1 see one block to either side. Eq. (1) gives
the tokens of one block the same keys, so a token at the left border of its block sees further right than left; with
`exact_window` it also asks −f·w ≤ i − j ≤ b·w, a window that moves with the token.

Cost for N tokens: O(N w (1 + b + f) d) time, O(N w (1 + b + f)) scores, no parameters of its own.
"""

import torch

from refattn.attention.base import Attention
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
from refattn.attention.softmax import softmax_attention_explicit, softmax_weights


def local_mask(
    tokens,
    *,
    window,
    look_backward=1,
    look_forward=1,
    is_causal=False,
    exact_window=False,
    key_padding_mask=None,
    device=None,
):
    """Which pairs may talk by eq. (1), the definition: bool [B or 1, 1, N, N]; arguments as of `local_attention`."""
    i = torch.arange(tokens, device=device)
    blocks = i[:, None] // window - i // window  # block(i) − block(j)
    allow = (blocks <= look_backward) & (blocks >= -look_forward)
    allow = allow & within(i[:, None] - i, window, look_backward, look_forward, is_causal, exact_window)
    return allow & as_keys(real_tokens(tokens, key_padding_mask, device=device))


def within(distance, window, look_backward, look_forward, is_causal, exact_window):
    """The part of eq. (1) that depends on the distance i − j alone."""
    allow = distance >= 0 if is_causal else torch.ones_like(distance, dtype=torch.bool)
    if exact_window:
        allow = allow & (distance <= look_backward * window) & (distance >= -look_forward * window)
    return allow


def local_attention_explicit(q, k, v, **pattern):
    """Eq. (2) by the mask of eq. (1) on all N × N scores: the quadratic twin of `local_attention`."""
    return softmax_attention_explicit(q, k, v, allow=local_mask(q.shape[2], **pattern, device=q.device))


def local_attention(
    q,
    k,
    v,
    *,
    window,
    look_backward=1,
    look_forward=1,
    is_causal=False,
    exact_window=False,
    key_padding_mask=None,
    dropout_p=0.0,
):
    """Eq. (2), block by block: no score is computed for a pair that lies beyond the window.

    Args:
        q, k: queries and keys [B, H, N, d];  v: values [B, H, N, d_v]; any N ≥ 1.
        window: w, tokens in a block.  look_backward, look_forward: b and f, blocks read to the left and right.
        is_causal: only j ≤ i.  exact_window: only b·w tokens to the left and f·w to the right, wherever i stands.
        key_padding_mask: [B, N] bool, True where the key is padding.  dropout_p: rate on the weights.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_self_attention(q, k, v, key_padding_mask)
    tokens, reach = q.shape[2], (look_backward * window, look_forward * window)
    k, v = windows(k, window, *reach), windows(v, window, *reach)  # [B, H, n, W, ·], W = (b + 1 + f)·w
    real = real_tokens(tokens, key_padding_mask, device=q.device)
    seen = as_keys(windows(real, window, *reach))  # [B or 1, 1, n, 1, W]: inside the sequence, and no padding
    if is_causal or exact_window:
        distance = window_distance(window, *reach, device=q.device)
        seen = seen & within(distance, window, look_backward, look_forward, is_causal, exact_window)
    elif key_padding_mask is None and look_backward == look_forward == 0 and tokens % window == 0:
        seen = None  # separate blocks that fill the sequence: nothing to hide
    return join(block_attention(split(q, window), k, v, seen, dropout_p=dropout_p), tokens)


class LocalAttention(Attention):
    """Multi-head local attention: softmax attention's layer around eq. (2).

    Args: those of `Attention`, and
        window: w, tokens in a block.
        look_backward, look_forward: b and f, blocks read besides the token's own; f is 1, and 0 when causal.
        exact_window: a window that moves with the token, see eq. (1).
    """

    forms = frozenset({"causal", "mask"})

    def __init__(
        self, embed_dim, num_heads, *, window=64, look_backward=1, look_forward=None, exact_window=False, **common
    ):
        super().__init__(embed_dim, num_heads, **common)
        look_forward = int(not self.is_causal) if look_forward is None else look_forward
        if window < 1:
            raise ValueError(f"window={window}: wanted at least one token")
        if look_backward < 0 or look_forward < 0:
            raise ValueError(f"look_backward={look_backward}, look_forward={look_forward}: wanted 0 or more blocks")
        if self.is_causal and look_forward:
            raise ValueError(f"look_forward={look_forward} with is_causal=True: wanted 0, the future is not visible")
        self.window, self.look_backward, self.look_forward = window, look_backward, look_forward
        self.exact_window = exact_window

    def pattern(self):
        """What `local_mask` and both forms of eq. (2) need to know of the layer."""
        names = ("window", "look_backward", "look_forward", "is_causal", "exact_window")
        return {name: getattr(self, name) for name in names}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (2) for every head. Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x)
        y = local_attention(q, k, v, key_padding_mask=key_padding_mask, dropout_p=self.drop, **self.pattern())
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the map of eq. (2), [B, H, N, N]; `"allow"`: the mask of eq. (1), [B or 1, 1, N, N]."""
        self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x)
        allow = local_mask(x.shape[1], key_padding_mask=key_padding_mask, **self.pattern(), device=x.device)
        return {"effective": softmax_weights(q, k, allow=allow), "allow": allow}
