"""An encoder whose layers share their matrices by a pattern, each with LayerNorms (and a little more) of its own.

Paper: Ge et al., "EdgeFormer", EMNLP 2022 (arXiv 2202.07959). Card: edgeformer. Layer i uses the attention of group
a(i) and the net of group f(i); what else it may have of its own is in `refattn.layers.adaptation`.

    u = LN¹_i(x + Att_{a(i)}(x, x))        x ← LN²_i(u + F_{f(i)}(u))                                            (1)
"""

import torch
from torch import nn

from refattn import attention as mechanisms
from refattn.attention.base import Projections
from refattn.layers.adaptation import PrefixAttention, adapt_feed_forward, adapt_projections, ranks
from refattn.layers.embedding import Embedding
from refattn.layers.feed_forward import FeedForward
from refattn.models.sharing import Pattern, first_uses, make_pattern
from refattn.models.stack import Block, per_layer, seeded

GAIN = 2**-0.5  # of the initial queries, keys and values


class SharedEncoder(nn.Module):
    """Eq. (1), by any pattern of sharing.

    Args:
        pattern: a `Pattern`.  attentions, nets: its groups of projections and of feed-forward nets, `ModuleList`s.
        embed_dim, num_heads: D, H.  attention, attention_options: mechanism by name, and its options; its heads are as
            wide as those of the projections.
        adaptation: what each layer has of its own, one of `KINDS` or a list with one for each layer; rank, schedule and
            prefix: of adapters and prefixes.
        norm, dropout, eps: see `Residual`.  seed: of what is a layer's own.

    Raises: ValueError for a mechanism that hands something on, or is a whole layer; or prefixes without softmax.
    """

    def __init__(
        self,
        pattern,
        attentions,
        nets,
        embed_dim,
        num_heads,
        *,
        attention="softmax",
        attention_options=None,
        adaptation="none",
        rank=0,
        schedule="constant",
        prefix=0,
        norm="post",
        dropout=0.0,
        eps=1e-5,
        seed=0,
    ):
        super().__init__()
        layers, made = len(pattern.encoder_attention), mechanisms.mechanism(attention)
        kinds = per_layer(adaptation, layers, "adaptation")
        if made.owns_residual or made.chain_name() is not None:
            raise ValueError(f"attention={attention!r}: wanted a mechanism inside a residual, that hands nothing on")
        if "prefix" in kinds and attention != "softmax":
            raise ValueError(f"adaptation='prefix' with attention={attention!r}: wanted 'softmax'")
        options = {"dropout": dropout, "head_dim": embed_dim // num_heads, **(attention_options or {})}
        groups = zip(pattern.encoder_attention, pattern.encoder_ffn, strict=True)
        first = zip(first_uses(pattern.encoder_attention), first_uses(pattern.encoder_ffn), strict=True)
        plan = zip(groups, first, kinds, ranks(layers, rank, schedule), strict=True)
        self.blocks = nn.ModuleList()
        for i, ((a, f), (first_a, first_f), kind, r) in enumerate(plan):
            with seeded(seed, f"encoder{i}"):
                maps = adapt_projections(attentions[a], kind, rank=r, prefix=prefix, first_use=first_a)
                net = adapt_feed_forward(nets[f], kind, first_use=first_f)
                if kind == "prefix" and prefix:
                    layer = PrefixAttention(embed_dim, num_heads, projections=maps, dropout=dropout)
                else:
                    layer = mechanisms.build(attention, embed_dim, num_heads, projections=maps, **options)
            self.blocks.append(Block(embed_dim, layer, net, norm=norm, dropout=dropout, eps=eps))
        self.norm = nn.LayerNorm(embed_dim, eps=eps) if norm == "pre" else nn.Identity()

    def forward(self, x, *, key_padding_mask=None, maps=None):
        """[B, S, D] to [B, S, D]; `maps`, a list, receives one dict of maps a layer."""
        for block in self.blocks:
            layer_maps = None if maps is None else {}
            x, _ = block(x, {}, key_padding_mask=key_padding_mask, maps=layer_maps)
            if maps is not None:
                maps.append(layer_maps)
        return self.norm(x)


class SharedClassifier(nn.Module):
    """A class for every token from a `SharedEncoder` alone: to study patterns of sharing without a decoder.

    A token is the sum of two embeddings of equal size, of its symbol and of its place.

    Args: vocab_size, num_classes: V, C.  num_layers: 6, or a `Pattern`'s.  max_len: number of places.  the rest: see
        `SharedEncoder` and `EdgeFormer`.
    """

    def __init__(
        self,
        vocab_size,
        num_classes,
        *,
        pattern="balanced",
        attentions=None,
        ffns=None,
        embed_dim=32,
        num_heads=4,
        num_layers=None,
        ffn_dim=None,
        activation="relu",
        norm="pre",
        max_len=256,
        seed=0,
        **encoder,
    ):
        super().__init__()
        asked = {"encoder_layers": num_layers, "decoder_layers": 0}
        self.pattern = pattern_of(pattern, (6, 0), attentions=attentions, ffns=ffns, **asked)
        ffn_dim = 4 * embed_dim if ffn_dim is None else ffn_dim
        self.max_len = max_len
        with seeded(seed, "embedding"):
            self.embedding = Embedding((vocab_size, max_len), embed_dim, positions="none")
        self.attentions = shared_attentions(self.pattern, embed_dim, num_heads, seed)
        self.nets = shared_nets(self.pattern.encoder_ffn, embed_dim, ffn_dim, f"{seed}/encoder", activation=activation)
        parts = (self.pattern, self.attentions, self.nets)
        self.encoder = SharedEncoder(*parts, embed_dim, num_heads, norm=norm, seed=seed, **encoder)
        with seeded(seed, "head"):
            self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, inputs, *, key_padding_mask=None):
        """Logits [B, N, C] of ids [B, N]; key_padding_mask [B, N], True = padding."""
        if inputs.dim() != 2 or inputs.shape[1] > self.max_len:
            raise ValueError(f"inputs have shape {tuple(inputs.shape)}: wanted [B, N] with N up to {self.max_len}")
        places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
        x = self.embedding(torch.stack([inputs, places], -1))
        return self.head(self.encoder(x, key_padding_mask=key_padding_mask))


def pattern_of(pattern, layers, **asked):
    """A `Pattern` as it is given, or by its name.

    Args: layers: of the encoder and the decoder, where not asked.  asked: encoder_layers, decoder_layers, attentions,
        ffns; None is not asked.
    Raises: ValueError for a `Pattern` that has other numbers than asked, or group numbers with a gap.
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    if not isinstance(pattern, Pattern):
        return make_pattern(pattern, **dict(zip(("encoder_layers", "decoder_layers"), layers, strict=True)) | asked)
    has = {"encoder_layers": len(pattern.encoder_ffn), "decoder_layers": len(pattern.decoder_ffn)}
    has |= {"attentions": pattern.attentions, "ffns": len(set(pattern.encoder_ffn))}
    for name, value in asked.items():
        if value != has[name]:
            raise ValueError(f"{name}={value}: the pattern has {has[name]}")
    for what, uses in pattern.loads().items():
        if list(uses) != list(range(len(uses))):
            raise ValueError(f"pattern: its {what} groups are {list(uses)}, wanted 0, 1, … without a gap")
    return pattern


def shared_attentions(pattern, embed_dim, num_heads, seed):
    """Projections of every group of a pattern."""
    made = nn.ModuleList()
    for group in range(pattern.attentions):
        with seeded(seed, f"attention {group}"):
            made.append(Projections(embed_dim, num_heads))
            made[-1].reset_parameters(GAIN)
    return made


def shared_nets(groups, width, hidden, label, **options):
    """A feed-forward net for every group."""
    made = nn.ModuleList()
    for group in range(len(set(groups))):
        with seeded(label, f"net {group}"):
            made.append(FeedForward(width, hidden, **options))
    return made
