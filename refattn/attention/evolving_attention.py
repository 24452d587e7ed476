"""Evolving Attention: logit maps live on from layer to layer, mixed with the previous one and convolved before softmax.

Paper: Wang et al., "Convolution-enhanced Evolving Attention Networks", TPAMI 2023 (arXiv 2212.08330); before that
"Evolving Attention with Residual Convolutions", ICML 2021 (arXiv 2102.12895).

    A_cur = Q Kᵀ / √d                               what this layer alone would attend by                     (1)
    A_in  = α A_prev + (1 − α) A_cur                α weighs the past                                         (2)
    A     = β σ(C * A_in + b) + (1 − β) A_in        β weighs the convolution; heads are its channels          (3)
    Y     = softmax(A) V                            and A, still logits, is the next layer's A_prev           (4)

The first layer has no past: A = A_cur. α = β = 0 is softmax attention, β = 0 a residual connection between maps, a
1 × 1 kernel mixes heads. Where a kernel lies over its cell decides what the cell may know (`layers/map_convolution`):

    self      centred                            causal    the queries and keys up to the cell's
    cross     queries up to the cell's (a decoder's rows are in time), keys centred

Cells that may not be seen are 0 in A_in and in A, −∞ inside the softmax alone. Cost for N tokens and a k × k kernel:
O(N² D + N² H² k²) time, and H N² logits that stay alive for the next layer, so a fused softmax cannot be used.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, default_scale, visible
from refattn.attention.softmax import masked_softmax
from refattn.layers.map_convolution import convolve_maps, hide

KINDS = {"self": (False, False), "causal": (True, True), "cross": (True, False)}  # causal along rows; along columns
STARTS = ("uniform", "identity")


def current_map(q, k, scale=None):
    """Eq. (1), [B, H, N, M]: the logits of softmax attention; `scale` is 1/√d unless given."""
    return q * (default_scale(q.shape[-1]) if scale is None else scale) @ k.transpose(-1, -2)


def mix_maps(A_cur, A_prev, alpha):
    """Eq. (2); A_cur as it is where there is no past."""
    return A_cur if A_prev is None else torch.lerp(A_cur, A_prev, alpha)


def evolve_map(A_in, kernel, bias, *, beta, kind="self", seen=None, negative_slope=0.0, shift=False):
    """Eq. (3); A_in as it is without a kernel.

    Args:
        A_in: mixed logits [B, H, N, M], zero in cells that may not be seen.
        kernel: C [H, H, k_r, k_c], outgoing head first, or None.  bias: b [H].
        beta: β in [0, 1].  kind: one of `KINDS`.  seen: bool, broadcastable to [B, H, N, M], or None: all are.
        negative_slope: of σ below zero: 0 is ReLU; the authors' time-series code has 0.01.
        shift: the paper's recipe for causal kinds: convolve centred, then move the result down (and right). It differs
            in the first rows (columns) alone, which then hold zeros.

    Returns: A [B, H, N, M], zero where not seen.
    Raises: ValueError for a kind that is none, or a kernel that does not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: wanted one of {', '.join(KINDS)}")
    if kernel is None:
        return A_in
    rows, columns = (False, False) if shift else KINDS[kind]
    found = convolve_maps(A_in, kernel, bias, causal_rows=rows, causal_columns=columns)
    found = F.relu(found) if negative_slope == 0 else F.leaky_relu(found, negative_slope)
    if shift:
        found = moved(found, *(k // 2 if ahead else 0 for k, ahead in zip(kernel.shape[2:], KINDS[kind], strict=True)))
    return hide(torch.lerp(A_in, found, beta), seen)


def moved(maps, down, right):
    """Maps [B, H, N, M] with every entry moved down and right, zeros at the upper and the left border."""
    return F.pad(maps, (right, 0, down, 0))[..., : maps.shape[-2], : maps.shape[-1]]


def evolving_logits(q, k, A_prev=None, kernel=None, bias=None, *, alpha, scale=None, seen=None, **evolution):
    """A of eqs. (1) to (3), [B, H, N, M]; eq. (1) is computed at (1 − α) times its size, straight into eq. (2)."""
    if A_prev is None:
        A_in = current_map(q, k, scale)
    else:
        (batch, heads), keys = q.shape[:2], k.flatten(0, 1).transpose(1, 2)
        scale = default_scale(q.shape[-1]) if scale is None else scale
        share = {"beta": alpha, "alpha": (1.0 - alpha) * scale}  # baddbmm's own names: beta·A_prev + alpha·q kᵀ
        A_in = torch.baddbmm(A_prev.flatten(0, 1), q.flatten(0, 1), keys, **share).unflatten(0, (batch, heads))
    return evolve_map(hide(A_in, seen), kernel, bias, seen=seen, **evolution)


def seen_cells(q, k, *, kind, key_padding_mask=None, allow=None):
    """Cells that softmax may read, bool, broadcastable to [B, H, N, M], or None: all."""
    masks = {"is_causal": kind == "causal", "key_padding_mask": key_padding_mask, "device": q.device}
    seen = visible(q.shape[2], k.shape[2], **masks)
    return seen if allow is None else allow if seen is None else seen & allow


def evolving_attention(
    q,
    k,
    v,
    A_prev=None,
    kernel=None,
    bias=None,
    *,
    alpha=0.5,
    beta=0.5,
    kind="self",
    key_padding_mask=None,
    allow=None,
    scale=None,
    dropout_p=0.0,
    **evolution,
):
    """Eqs. (1) to (4).

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d];  v: values [B, H, M, d_v].
        A_prev: the previous layer's logits [B, H, N, M], or None.  kernel, bias: C [H, H, k_r, k_c] and b [H], or None.
        alpha, beta: weights of the past and of the convolution, in [0, 1].  kind: one of `KINDS`.
        key_padding_mask: [B, M] bool, True where the key is padding.
        allow: bool, broadcastable to [B, H, N, M]: other cells are hidden too (rows of padded queries).
        scale: factor on the logits, 1/√d unless given.  evolution: more options of `evolve_map`.

    Returns: Y [B, H, N, d_v] and A [B, H, N, M].
    Raises: ValueError if the shapes or options do not fit.
    """
    check_heads(q, k, v, kind == "causal")
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    check_weights(alpha, beta)
    check_previous(A_prev, (*q.shape[:3], k.shape[2]))
    seen = seen_cells(q, k, kind=kind, key_padding_mask=key_padding_mask, allow=allow)
    evolution |= {"alpha": alpha, "beta": beta, "kind": kind, "scale": scale}
    A = evolving_logits(q, k, A_prev, kernel, bias, seen=seen, **evolution)
    return F.dropout(masked_softmax(A, seen), dropout_p) @ v, A


def evolving_attention_explicit(q, k, v, A_prev=None, kernel=None, bias=None, **options):
    """Eqs. (1) to (4) typed as they stand, each with a tensor of its own: the plain twin of `evolving_attention`."""
    alpha, beta, kind = options.get("alpha", 0.5), options.get("beta", 0.5), options.get("kind", "self")
    seen = seen_cells(q, k, kind=kind, key_padding_mask=options.get("key_padding_mask"), allow=options.get("allow"))
    A_cur = torch.einsum("bhnd,bhmd->bhnm", q, k) / q.shape[-1] ** 0.5
    A_in = hide(A_cur if A_prev is None else alpha * A_prev + (1 - alpha) * A_cur, seen)
    A = A_in
    if kernel is not None:
        (k_r, k_c), (rows, columns) = kernel.shape[-2:], KINDS[kind]
        top, left = k_r - 1 if rows else k_r // 2, k_c - 1 if columns else k_c // 2
        padded = F.pad(A_in, (left, k_c - 1 - left, top, k_r - 1 - top))
        convolved = F.leaky_relu(F.conv2d(padded, kernel, bias), options.get("negative_slope", 0.0))
        A = hide(beta * convolved + (1 - beta) * A_in, seen)
    weights = masked_softmax(A, seen)
    return torch.einsum("bhnm,bhmd->bhnd", weights, v), A


class EvolvingAttention(Attention):
    """Multi-head attention whose logits evolve from layer to layer (Wang et al. 2023): carry = A [B, H, N, M].

    Args: those of `Attention`, and
        alpha: α, weight of the previous map.  beta: β, weight of the convolution.  (The authors' code swaps the names.)
        kernel_size: k for a k × k kernel, or (queries, keys); odd.
        negative_slope: of σ below zero; 0 is ReLU.  shift: see `evolve_map`.
        start: "uniform" (PyTorch's own) or "identity": at first the convolution hands every map on, for fine-tuning.
        first_in_chain: has no previous map and no convolution.  last_in_chain: hands on None.

    In self-attention a padded token is hidden as a query as well, since the convolution looks at other rows: its own
    output is zero before the output projection.
    """

    forms = frozenset({"causal", "cross", "mask"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        alpha=0.5,
        beta=0.5,
        kernel_size=3,
        negative_slope=0.0,
        shift=False,
        start="uniform",
        first_in_chain=True,
        last_in_chain=False,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        check_weights(alpha, beta)
        if start not in STARTS:
            raise ValueError(f"start={start!r}: wanted one of {', '.join(STARTS)}")
        self.alpha, self.beta, self.negative_slope, self.shift = alpha, beta, negative_slope, shift
        self.first_in_chain, self.last_in_chain = first_in_chain, last_in_chain
        self.kind = "cross" if self.cross else "causal" if self.is_causal else "self"
        has_kernel = not first_in_chain and beta > 0
        self.convolution = make_convolution(num_heads, kernel_size, self.kind, start) if has_kernel else None

    @classmethod
    def chain_name(cls, *, cross=False, is_causal=False):
        """A chain for each kind of map: a decoder's maps do not go on from its encoder's."""
        return f"evolving-{'cross' if cross else 'causal' if is_causal else 'self'}"

    def previous(self, carry):
        """The map to go on from, or None in the first layer."""
        if self.first_in_chain and carry is not None:
            raise ValueError("carry was given, but a layer with first_in_chain=True has no convolution to go on with")
        if not self.first_in_chain and carry is None and self.alpha > 0:
            raise ValueError("carry is missing: a layer with first_in_chain=False needs the logits of the layer before")
        return carry

    def options(self, x, context, key_padding_mask=None):
        """What the functions of this file need to know of the layer; padded tokens are hidden as queries too."""
        rows = None if self.cross or key_padding_mask is None else ~key_padding_mask[:, None, :, None]  # [B, 1, N, 1]
        found = {"alpha": self.alpha, "beta": self.beta, "kind": self.kind, "allow": rows}
        found |= {"key_padding_mask": key_padding_mask, "negative_slope": self.negative_slope, "shift": self.shift}
        if self.convolution is None:
            return found
        return found | {"kernel": self.convolution.weight, "bias": self.convolution.bias}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Y and, for the next layer, the logits A [B, H, N, M] (None from the last in the chain)."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        options = self.options(x, context, key_padding_mask)
        y, A = evolving_attention(q, k, v, self.previous(carry), dropout_p=self.drop, **options)
        return self.projections.merge(y), None if self.last_in_chain else A

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: softmax(A); the logits `"current"` (1), `"mixed"` (2), `"evolved"` (3), all [B, H, N, M]."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        options, A_prev = self.options(x, context, key_padding_mask), self.previous(carry)
        check_previous(A_prev, (*q.shape[:3], k.shape[2]))
        masks = {name: options.pop(name) for name in ("allow", "key_padding_mask")}
        seen, alpha = seen_cells(q, k, kind=self.kind, **masks), options.pop("alpha")
        current = hide(current_map(q, k), seen)
        mixed = mix_maps(current, A_prev, alpha)
        evolved = evolve_map(mixed, options.pop("kernel", None), options.pop("bias", None), seen=seen, **options)
        return {"effective": masked_softmax(evolved, seen), "current": current, "mixed": mixed, "evolved": evolved}


def make_convolution(heads, kernel_size, kind, start="uniform"):
    """C and b of eq. (3) as a `Conv2d`, heads as channels. Raises: ValueError for an even or missing size."""
    sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(sizes) != 2 or any(k < 1 or k % 2 == 0 for k in sizes):
        raise ValueError(f"kernel_size={kernel_size}: wanted an odd number, or two: (along queries, along keys)")
    convolution = nn.Conv2d(heads, heads, sizes)
    if start == "identity":
        own = tuple(k - 1 if ahead else k // 2 for k, ahead in zip(sizes, KINDS[kind], strict=True))  # tap on the cell
        with torch.no_grad():
            convolution.weight.zero_()[:, :, *own] = torch.eye(heads)
            convolution.bias.zero_()
    return convolution


def check_weights(alpha, beta):
    """Raise a ValueError unless α and β are both in [0, 1]."""
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value}: wanted a number in [0, 1]")


def check_previous(A_prev, shape):
    """Raise a ValueError unless there is no previous map, or it has this layer's shape."""
    if A_prev is not None and tuple(A_prev.shape) != tuple(shape):
        raise ValueError(f"carry has shape {tuple(A_prev.shape)}: wanted the logits [B, H, N, M] = {tuple(shape)}")
