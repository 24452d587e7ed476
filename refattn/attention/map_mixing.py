"""Two controls for EIT: softmax attention that mixes its own M maps, with nothing else of EIT.

Talking heads (Shazeer et al. 2020, arXiv 2003.02436): two M × M matrices, before and after the softmax.

    S' = P S,   A = softmax(S'),   A' = R A                       S: the M maps with i = j                       (1)

Logits with a kernel (made for this comparison): each map is convolved with k weights of its own along keys, no more.

    S'^(m)[n, l] = Σ_t w^(m)_t S^(m)[n, l + t − (k − 1) / 2] + b^(m)                                             (2)

Both begin as softmax attention: P, R identity, w a single one in the middle. A cell that may not be seen is zero before
(2), as in EIT. They are no mechanisms of the catalogue: hand them a softmax layer's `projections`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn.attention.base import Attention, default_scale, visible
from refattn.attention.eit import check_kernel
from refattn.attention.softmax import masked_softmax
from refattn.layers.map_convolution import convolve_maps


class MixedMaps(Attention):
    """What both share: softmax attention with something done to its maps. Args: those of `Attention`."""

    forms = frozenset({"causal", "cross", "mask"})

    def logits(self, S, seen):
        """What is done to the logits [B, M, N, L] before the softmax."""
        return S

    def weights(self, A):
        """What is done to the weights [B, M, N, L] after it."""
        return A

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the weights that values get, [B, M, N, L]; `"logits"`: before anything is done to them."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        masks = {"is_causal": self.is_causal, "key_padding_mask": key_padding_mask, "device": q.device}
        seen = visible(q.shape[2], k.shape[2], **masks)
        S = q @ k.transpose(-1, -2) * default_scale(self.head_dim)
        return {"effective": self.weights(masked_softmax(self.logits(S, seen), seen)), "logits": S}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """The mixed maps times values."""
        A = self.attention_maps(x, context, key_padding_mask=key_padding_mask)["effective"]
        _, v = self.projections.keys_values(x if context is None else context)
        return self.projections.merge(F.dropout(A, self.drop) @ v), carry


class TalkingHeads(MixedMaps):
    """Eq. (1). Args: those of `Attention`."""

    def __init__(self, embed_dim, num_heads, **common):
        super().__init__(embed_dim, num_heads, **common)
        self.before, self.after = (nn.Parameter(torch.eye(num_heads)) for _ in range(2))

    def logits(self, S, seen):
        return torch.einsum("mh,bhnl->bmnl", self.before, S)

    def weights(self, A):
        return torch.einsum("mh,bhnl->bmnl", self.after, A)


class KernelLogits(MixedMaps):
    """Eq. (2). Args: those of `Attention`, and kernel: k, odd."""

    def __init__(self, embed_dim, num_heads, *, kernel=3, **common):
        super().__init__(embed_dim, num_heads, **common)
        self.kernel = nn.Parameter(torch.zeros(num_heads, 1, 1, check_kernel("kernel", kernel)))
        self.bias = nn.Parameter(torch.zeros(num_heads))
        with torch.no_grad():
            self.kernel[..., kernel // 2] = 1.0

    def logits(self, S, seen):
        return convolve_maps(S, self.kernel, self.bias, seen=seen, groups=self.num_heads)
