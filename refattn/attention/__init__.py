"""Attention mechanisms: one file each, all under the contract written at the top of `base.py`.

layer = refattn.attention.build("luna", embed_dim=64, num_heads=4, num_slots=16)
y, carry = layer(x)                                    # x, y: [B, N, 64]
picture = layer.attention_maps(x)["effective"]         # [B, G, N, N]
"""

import inspect

from refattn.attention.base import Attention, Projections
from refattn.attention.bigbird import BigBird
from refattn.attention.cosformer import CosFormer
from refattn.attention.couplformer import Couplformer
from refattn.attention.eit import EIT
from refattn.attention.evolving_attention import EvolvingAttention
from refattn.attention.linear import LinearAttention
from refattn.attention.linformer import Linformer
from refattn.attention.local import LocalAttention
from refattn.attention.longformer import Longformer
from refattn.attention.luna import Luna
from refattn.attention.mega import Mega
from refattn.attention.momentum import MomentumAttention
from refattn.attention.performer import Performer
from refattn.attention.reformer import Reformer
from refattn.attention.rpe_fft import NPRFAttention
from refattn.attention.sinkhorn import Sinkhorn
from refattn.attention.softmax import SoftmaxAttention
from refattn.attention.sparse_transformer import SparseTransformer
from refattn.attention.synthesizer import Synthesizer
from refattn.attention.vicinity import Vicinity

MECHANISMS = {  # catalogue name → module
    "softmax": SoftmaxAttention,
    "linear": LinearAttention,
    "performer": Performer,
    "cosformer": CosFormer,
    "luna": Luna,
    "mega": Mega,
    "couplformer": Couplformer,
    "eit": EIT,
    "rpe_fft": NPRFAttention,
    "momentum": MomentumAttention,
    "vicinity": Vicinity,
    "linformer": Linformer,
    "local": LocalAttention,
    "longformer": Longformer,
    "bigbird": BigBird,
    "sparse_transformer": SparseTransformer,
    "sinkhorn": Sinkhorn,
    "synthesizer": Synthesizer,
    "reformer": Reformer,
    "evolving_attention": EvolvingAttention,
}


def names():
    """Names of all mechanisms, in the order of the catalogue."""
    return list(MECHANISMS)


def mechanism(name):
    """The module class behind a catalogue name. Raises: ValueError for a name that is not one."""
    if name not in MECHANISMS:
        raise ValueError(f"attention={name!r}: wanted one of {', '.join(MECHANISMS)}")
    return MECHANISMS[name]


def build(name, embed_dim, num_heads, **options):
    """A mechanism by its catalogue name; usable as it comes, with no options.

    Raises: ValueError for an unknown name, an unknown option, or a value the mechanism refuses.
    """
    cls = mechanism(name)
    known = known_options(cls)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has: {', '.join(sorted(known))}")
    return cls(embed_dim, num_heads, **options)


def known_options(cls):
    """Keyword arguments of a mechanism's constructor, those of `Attention` included."""
    own, common = (inspect.signature(c.__init__).parameters.values() for c in (cls, Attention))
    return {p.name for p in (*own, *common) if p.kind is p.KEYWORD_ONLY}


__all__ = ["Attention", "Projections", "build", "mechanism", "names"]
