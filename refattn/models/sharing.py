"""Who uses which weights: patterns of sharing over an encoder and a decoder, and what they cost, counted exactly.

Paper: Ge et al., "EdgeFormer", EMNLP 2022 (arXiv 2202.07959). Card: edgeformer. A pattern gives every place of use the
number of its group of weights; places with one number have the same tensors. With widths D, f_e (encoder's feed-forward
nets) and f_d (decoder's), L_e and L_d layers, S source and T target tokens, vocabulary V, A distinct attentions:

    matrices   = A · 4 D² + (distinct encoder nets) 2 D f_e + (distinct decoder nets) 2 D f_d                    (1)
    linear     = L_e S (4 D² + 2 D f_e) + L_d (6 T D² + 2 S D² + u T 2 D f_d)        u uses of the net a layer      (2)
    attention  = L_e 2 S² D + L_d (2 T² D + 2 T S D)              output = T D V                                    (3)

(1) counts what is stored, each group once. (2) and (3) count multiply-adds, every use: sharing saves none of them.
"""

from dataclasses import dataclass

from refattn.layers.adaptation import check_kind, ranks
from refattn.models.stack import per_layer


@dataclass(frozen=True)
class Pattern:
    """The group of weights at every place of use. Attentions have one numbering for both sides, nets one a side.

    encoder_attention, encoder_ffn: of each encoder layer.  decoder_self, decoder_cross, decoder_ffn: of each decoder
    layer.  interleaved: a decoder layer is attention, net, cross attention, the same net again; else it has one net.

    Raises: ValueError unless the tuples of a side are equally long.
    """

    encoder_attention: tuple[int, ...]
    encoder_ffn: tuple[int, ...]
    decoder_self: tuple[int, ...] = ()
    decoder_cross: tuple[int, ...] = ()
    decoder_ffn: tuple[int, ...] = ()
    interleaved: bool = False

    def __post_init__(self):
        for names in (("encoder_attention", "encoder_ffn"), ("decoder_self", "decoder_cross", "decoder_ffn")):
            lengths = [len(getattr(self, name)) for name in names]
            if len(set(lengths)) > 1:
                raise ValueError(f"{', '.join(names)} have lengths {lengths}: wanted one group for every layer")

    @property
    def attentions(self):
        """Number of distinct attentions."""
        return len({*self.encoder_attention, *self.decoder_self, *self.decoder_cross})

    def loads(self):
        """Uses of each group in one pass: {"attention", "encoder net", "decoder net": {group: uses}}."""
        passes = 2 if self.interleaved else 1
        places = {
            "attention": (*self.encoder_attention, *self.decoder_self, *self.decoder_cross),
            "encoder net": self.encoder_ffn,
            "decoder net": self.decoder_ffn * passes,
        }
        return {what: {g: groups.count(g) for g in sorted(set(groups))} for what, groups in places.items()}


def in_turn(layers, groups):
    """Layer i uses group i mod `groups`: every group equally often, as far as it goes."""
    return tuple(i % groups for i in range(layers))


def first_alone(layers, groups):
    """The first `groups` − 1 layers have weights of their own, all others share the last group."""
    return tuple(min(i, groups - 1) for i in range(layers))


def full(encoder_layers, decoder_layers=0):
    """Every layer its own weights, and a standard decoder."""
    own = tuple(range(encoder_layers))
    after = range(encoder_layers, encoder_layers + decoder_layers)
    cross = tuple(i + decoder_layers for i in after)
    return Pattern(own, own, tuple(after), cross, tuple(range(decoder_layers)))


def universal(encoder_layers, decoder_layers=0):
    """One encoder layer and one standard decoder layer, used again and again (a Universal Transformer)."""
    zeros, d = (0,) * encoder_layers, decoder_layers
    return Pattern(zeros, zeros, (1,) * d, (2,) * d, (0,) * d)


def balanced(encoder_layers, decoder_layers=0, *, attentions=4, ffns=2):
    """EdgeFormer: groups in turn; the interleaved decoder borrows the encoder's attentions, two a layer, in turn."""
    own = (tuple((2 * m + k) % attentions for m in range(decoder_layers)) for k in (0, 1))
    nets = in_turn(encoder_layers, ffns), tuple(range(decoder_layers))
    return Pattern(in_turn(encoder_layers, attentions), nets[0], *own, nets[1], interleaved=True)


def unbalanced(encoder_layers, decoder_layers=0, *, attentions=4, ffns=2):
    """As many groups as `balanced`, unevenly used: the first layers have their own, the others share the last."""
    even = balanced(encoder_layers, decoder_layers, attentions=attentions, ffns=ffns)
    uneven = first_alone(encoder_layers, attentions), first_alone(encoder_layers, ffns)
    return Pattern(*uneven, even.decoder_self, even.decoder_cross, even.decoder_ffn, interleaved=True)


PATTERNS = {"full": full, "universal": universal, "balanced": balanced, "unbalanced": unbalanced}


def make_pattern(pattern, encoder_layers, decoder_layers=0, **groups):
    """A `Pattern` by its name in `PATTERNS`. groups: attentions and ffns, where a pattern has them.

    Raises: ValueError for another name, numbers below 1, or more groups than layers that could use them.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern={pattern!r}: wanted one of {', '.join(PATTERNS)}")
    if groups and pattern in ("full", "universal"):
        raise ValueError(f"{', '.join(groups)}: the pattern {pattern!r} has no groups to choose")
    for name, value in {"encoder_layers": encoder_layers, **groups}.items():
        if not 1 <= value <= max(1, encoder_layers):
            raise ValueError(f"{name}={value}: wanted 1 … {max(1, encoder_layers)}")
    if pattern in ("balanced", "unbalanced"):
        groups = {"attentions": min(4, encoder_layers), "ffns": min(2, encoder_layers)} | groups
    return PATTERNS[pattern](encoder_layers, decoder_layers, **groups)


def first_uses(groups):
    """For each place whether it is the first of its group."""
    return [group not in groups[:i] for i, group in enumerate(groups)]


def count_adaptation(pattern, kind, *, embed_dim, encoder_ffn, rank=0, schedule="constant", prefix=0):
    """(matrix parameters, other parameters) that layer adaptation adds: see `refattn.layers.adaptation`.

    Args: kind: one for all encoder layers, or a list with one for each.
    """
    D, layers = embed_dim, len(pattern.encoder_attention)
    kinds, all_ranks = per_layer(kind, layers, "adaptation"), ranks(layers, rank, schedule)
    first = zip(first_uses(pattern.encoder_attention), first_uses(pattern.encoder_ffn), strict=True)
    matrices = others = 0
    for kind, r, (first_attention, first_net) in zip(kinds, all_ranks, first, strict=True):
        check_kind(kind)
        if kind == "bias":
            others += (not first_attention) * 4 * D + (not first_net) * (encoder_ffn + D)
        elif kind == "adapter" and r:
            matrices, others = matrices + 4 * D * r, others + 2 * (r + D)
        elif kind == "prefix":
            others += 2 * prefix * D
    return matrices, others


def count_weights(
    pattern, *, embed_dim, encoder_ffn, decoder_ffn, vocab_size=0, adaptation="none", final_norms=False, **options
):
    """Parameters by parts, shared ones once: matrices (eq. 1), biases, norms, adaptation, embedding.

    Args: final_norms: one LayerNorm more a stack (norm="pre").  options: rank, schedule and prefix of the adaptation.
    Returns: the parts, "matrices with adapters", and "without embedding" (the papers' number) and "total".
    """
    D, nets = embed_dim, (len(set(pattern.encoder_ffn)), len(set(pattern.decoder_ffn)))
    matrices = pattern.attentions * 4 * D * D + nets[0] * 2 * D * encoder_ffn + nets[1] * 2 * D * decoder_ffn
    biases = pattern.attentions * 4 * D + nets[0] * (encoder_ffn + D) + nets[1] * (decoder_ffn + D)
    stacks = 2 if pattern.decoder_self else 1
    norms = (2 * len(pattern.encoder_attention) + 3 * len(pattern.decoder_self) + final_norms * stacks) * 2 * D
    adapters, others = count_adaptation(pattern, adaptation, embed_dim=D, encoder_ffn=encoder_ffn, **options)
    parts = {"matrices": matrices, "biases": biases, "norms": norms, "adaptation": adapters + others}
    whole = sum(parts.values())
    parts |= {"embedding": vocab_size * D, "matrices with adapters": matrices + adapters}
    return parts | {"without embedding": whole, "total": whole + vocab_size * D}


def count_multiply_adds(
    pattern,
    *,
    source,
    target,
    embed_dim,
    encoder_ffn,
    decoder_ffn,
    vocab_size=0,
    adaptation="none",
    rank=0,
    schedule="constant",
    prefix=0,
):
    """Multiply-adds by parts, every use: linear (eq. 2), attention and output (eq. 3), and their total.

    Teacher forced, one pair of sequences. Softmax, norms, biases and look-ups are not counted, as in the papers.
    """
    D, S, T = embed_dim, source, target
    encoder, decoder = len(pattern.encoder_attention), len(pattern.decoder_self)
    passes = 2 if pattern.interleaved else 1
    linear = encoder * S * (4 * D * D + 2 * D * encoder_ffn)
    linear += decoder * (6 * T * D * D + 2 * S * D * D + passes * T * 2 * D * decoder_ffn)
    attention = encoder * 2 * S * S * D + decoder * (2 * T * T * D + 2 * T * S * D)
    kinds = per_layer(adaptation, encoder, "adaptation")
    for kind, r in zip(kinds, ranks(encoder, rank, schedule), strict=True):
        linear += S * 4 * D * r * (kind == "adapter")
        attention += 2 * S * prefix * D * (kind == "prefix")
    parts = {"linear": linear, "attention": attention, "output": T * D * vocab_size if decoder else 0}
    return parts | {"total": sum(parts.values())}
