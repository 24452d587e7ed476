"""Layer adaptation: what is a layer's own where its matrices are shared with other layers.

Paper: Ge et al., "EdgeFormer: A Parameter-Efficient Transformer for On-Device Seq2seq Generation", EMNLP 2022 (arXiv
2202.07959). Card: edgeformer. Layer i has shared W and b, and of its own

    bias:     q = W_q x + b_qi        all six vectors b_q, b_k, b_v, b_o, b_1, b_2                                   (1)
    adapter:  q = W_q x + b_q + B_i (A_i x + a_i) + β_i        and v likewise; A_i [r, D], B_i [D, r]                (2)
    prefix:   K = [P^K_i; W_k x + b_k],  V = [P^V_i; W_v x + b_v]        P learned rows; never masked                (3)

(2) adds before queries are scaled. All three are made around projections (`refattn.attention.base.Projections`), whose
modules they hold by reference: the same tensors, wherever they are used.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Projections
from refattn.attention.softmax import SoftmaxAttention, softmax_attention, softmax_weights
from refattn.layers.feed_forward import FeedForward

KINDS = ("none", "bias", "adapter", "prefix")
SCHEDULES = {"constant": (1.0,), "falling": (2.0, 1.5, 1.0, 0.5), "rising": (0.5, 1.0, 1.5, 2.0)}


def ranks(layers, rank, schedule="constant"):
    """Rank of each layer's adapter: the schedule's first factors, then its last one again and again; whole numbers.

    The authors' shapes 0, 1 and 2 are constant, falling and rising. Raises: ValueError for another schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r}: wanted one of {', '.join(SCHEDULES)}")
    factors = SCHEDULES[schedule]
    return [int(rank * factors[min(i, len(factors) - 1)]) for i in range(layers)]


class OwnBias(nn.Module):
    """Eq. (1): a linear map with the weight of another and a bias of its own, which begins as a copy of the other's.

    Args: shared: the other `nn.Linear`. It is held whole, its unused bias too: a weight alone would be untied by
        `load_state_dict(assign=True)`.
    """

    def __init__(self, shared):
        super().__init__()
        self.shared = shared
        self.bias = nn.Parameter(shared.bias.detach().clone())

    @property
    def weight(self):
        """The other's, [out, in]."""
        return self.shared.weight

    def forward(self, x):
        """[..., in] to [..., out]."""
        return F.linear(x, self.weight, self.bias)


class WithAdapter(nn.Module):
    """Eq. (2): a shared linear map and a layer's own low-rank one beside it.

    B is not zero at first, as in the authors' code (and unlike LoRA): adapters act from the first step.

    Args: shared: an `nn.Linear`.  rank: r.
    """

    def __init__(self, shared, rank):
        super().__init__()
        self.shared = shared
        self.down, self.up = nn.Linear(shared.in_features, rank), nn.Linear(rank, shared.out_features)

    @property
    def weight(self):
        """The shared map's, [out, in]: without the adapter."""
        return self.shared.weight

    @property
    def bias(self):
        """The shared map's, [out]."""
        return self.shared.bias

    def forward(self, x):
        """[..., in] to [..., out]."""
        return self.shared(x) + self.up(self.down(x))


class Adapted(Projections):
    """Projections that are others' but for some maps. maps: {name: module} in the place of the shared ones."""

    def __init__(self, shared, **maps):
        nn.Module.__init__(self)  # no maps of its own are made
        self.num_heads, self.head_dim = shared.num_heads, shared.head_dim
        for name in ("query", "key", "value", "output"):
            setattr(self, name, maps.get(name, getattr(shared, name)))


class OwnBiasFeedForward(FeedForward):
    """A feed-forward net with the matrices of another and biases of its own."""

    def __init__(self, shared):
        nn.Module.__init__(self)  # no maps of its own are made
        self.activation, self.dropout = shared.activation, shared.dropout
        self.up, self.down = OwnBias(shared.up), OwnBias(shared.down)


class Prefixed(Adapted):
    """Eq. (3): `length` rows of its own before the shared keys and values. For `PrefixAttention` only."""

    def __init__(self, shared, length):
        super().__init__(shared)
        width = self.num_heads * self.head_dim
        self.prefix_keys = nn.Parameter(torch.randn(length, width) * width**-0.5)
        self.prefix_values = nn.Parameter(torch.randn(length, width) * width**-0.5)

    def keys_values(self, context):
        """Keys and values, each `[B, H, P + M, d]`, of a context `[B, M, D]`."""
        own = (self.prefix_keys, self.prefix_values)
        prefixes = (self.split_heads(rows.expand(len(context), -1, -1)) for rows in own)
        shared = super().keys_values(context)
        return tuple(torch.cat(pair, 2) for pair in zip(prefixes, shared, strict=True))


class PrefixAttention(SoftmaxAttention):
    """Softmax attention over P learned rows and the sequence. Its map has P columns more, the first ones."""

    forms = frozenset({"mask"})

    def longer(self, key_padding_mask):
        """The mask with P more keys in front, all visible: masked columns must not shift."""
        if key_padding_mask is None:
            return None
        return F.pad(key_padding_mask, (len(self.projections.prefix_keys), 0), value=False)

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Shapes: see `refattn.attention.base`."""
        self.check_input(x, context, key_padding_mask)
        mask = self.longer(key_padding_mask)
        y = softmax_attention(*self.projections(x), key_padding_mask=mask, dropout_p=self.drop)
        return self.projections.merge(y), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: [B, H, N, P + N]."""
        self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x)
        return {"effective": softmax_weights(q, k, key_padding_mask=self.longer(key_padding_mask))}


def adapt_projections(shared, kind, *, rank=0, prefix=0, first_use=True):
    """Projections of one layer around shared ones: the shared ones themselves, or one of eqs. (1) to (3).

    Args: kind: one of `KINDS`.  rank: r.  prefix: P.  first_use: the layer is the first to use these projections. Kind
        "bias" then adds nothing: it keeps the group's biases, which it shares with the decoder, and with every layer of
        another kind. r = 0 and P = 0 add nothing either.
    Raises: ValueError for another kind.
    """
    check_kind(kind)
    if kind == "bias" and not first_use:
        return Adapted(shared, **{name: OwnBias(getattr(shared, name)) for name in ("query", "key", "value", "output")})
    if kind == "adapter" and rank:
        return Adapted(shared, **{name: WithAdapter(getattr(shared, name), rank) for name in ("query", "value")})
    return Prefixed(shared, prefix) if kind == "prefix" and prefix else shared


def adapt_feed_forward(shared, kind, *, first_use=True):
    """The feed-forward net of one layer around a shared one: with biases of its own for kind "bias"."""
    check_kind(kind)
    return OwnBiasFeedForward(shared) if kind == "bias" and not first_use else shared


def check_kind(kind):
    """Raise a ValueError unless the kind is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"adaptation={kind!r}: wanted one of {', '.join(KINDS)}")
