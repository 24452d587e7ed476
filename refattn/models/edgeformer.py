"""EdgeFormer: an encoder-decoder whose layers share weights evenly, with a light decoder that borrows the encoder's.

Paper: Ge et al., "EdgeFormer: A Parameter-Efficient Transformer for On-Device Seq2seq Generation", EMNLP 2022 (arXiv
2202.07959). Card: edgeformer. Encoder layer i, with weights of its groups and LayerNorms (and adaptation) of its own:

    u = LN¹_i(x + Att_{a(i)}(x, x))        x ← LN²_i(u + F_{f(i)}(u))                                            (1)

Interleaved decoder layer m: attention, net, attention, net. The net G_m (narrower than x) and its norm run twice:

    u₁ = LNˢ(x + Att_{s(m)}(x, x; causal))    u₂ = LNᶠ(u₁ + G(u₁))
    u₃ = LNᶜ(u₂ + Att_{c(m)}(u₂, e))          x ← LNᶠ(u₃ + G(u₃))                                                (2)

Every attention of (2) stands before a net, as in (1): so it can use an encoder group's weights. Each use is a module of
its own around the shared projections: a cache belongs to a use, not to the weights. Who shares what: `sharing.py`.
Written is post-LN, the authors' form; norm="pre" moves each LN to its sub-layer's input and adds one a stack.
"""

import torch
from torch import nn

from refattn.attention.softmax import SoftmaxAttention
from refattn.layers.residual import Residual
from refattn.layers.tied_embedding import TiedEmbedding
from refattn.models.decoding import generate, rereading
from refattn.models.shared_encoder import SharedEncoder, pattern_of, shared_attentions, shared_nets
from refattn.models.stack import seeded


class DecoderLayer(nn.Module):
    """Eq. (2), or the standard decoder layer (attention, cross attention, net) with interleaved=False.

    Args: self_attention, cross_attention: projections.  net: the feed-forward net.  the rest: see `SharedEncoder`.
    """

    def __init__(self, embed_dim, num_heads, self_attention, cross_attention, net, *, interleaved=True, **placing):
        super().__init__()
        heads = {"embed_dim": embed_dim, "num_heads": num_heads, "dropout": placing.get("dropout", 0.0)}
        self.self_attention = SoftmaxAttention(is_causal=True, projections=self_attention, **heads)
        self.cross_attention = SoftmaxAttention(cross=True, projections=cross_attention, **heads)
        self.net, self.interleaved = net, interleaved
        self.self_residual, self.cross_residual, self.net_residual = (Residual(embed_dim, **placing) for _ in range(3))

    def run(self, x, attend_self, attend_cross):
        """The sub-layers in their order, on [..., D]."""
        x = self.self_residual.around(x, attend_self)
        if self.interleaved:
            x = self.net_residual.around(x, self.net)
        x = self.cross_residual.around(x, attend_cross)
        return self.net_residual.around(x, self.net)  # if interleaved, the same net and norm again

    def forward(self, x, encoded, *, key_padding_mask=None, context_mask=None, maps=None):
        """x [B, T, D], encoded source [B, S, D] to [B, T, D]; masks of the target and the source, True = padding."""

        def attend(name, layer, *context, key_padding_mask):
            def branch(x):
                if maps is not None:
                    maps[name] = layer.attention_maps(x, *context, key_padding_mask=key_padding_mask)
                return layer(x, *context, key_padding_mask=key_padding_mask)[0]

            return branch

        own = attend("self", self.self_attention, key_padding_mask=key_padding_mask)
        return self.run(x, own, attend("cross", self.cross_attention, encoded, key_padding_mask=context_mask))

    def init_state(self, encoded, context_mask=None):
        """Nothing of the target yet; the source's keys and values [B, H, S, d], computed once."""
        read = self.cross_attention.read_context(encoded, context_mask)
        return {"self": self.self_attention.init_state(len(encoded)), "cross": read}

    def step(self, x_t, state):
        """One target token [B, D]: its output and the new state."""
        after = dict(state)

        def attend_self(x_t):
            y_t, after["self"] = self.self_attention.step(x_t, state["self"])
            return y_t

        return self.run(x_t, attend_self, lambda x_t: self.cross_attention.answer(x_t, state["cross"])), after


class EdgeFormer(nn.Module):
    """The encoder-decoder: logits for the next target token at every target position.

    Args:
        vocab_size: V, of source and target together.  pad: id of padding.
        pattern: "full", "universal", "balanced" (EdgeFormer), "unbalanced", or a `Pattern`; attentions, ffns: groups of
            the last two (4 and 2, or as many as there are layers).
        embed_dim, num_heads: D, H.  encoder_layers, decoder_layers: L_e, L_d (12 and 2, or a `Pattern`'s).
        encoder_ffn, decoder_ffn: f_e (4 D unless given) and f_d (D / 4 in an interleaved decoder, else f_e).
        adaptation, rank, schedule, prefix, attention, attention_options, norm: see `SharedEncoder`.
        activation, dropout, eps: of the nets and connections.  max_len: longest sequence.  seed: of the weights.

    Raises: ValueError for options that do not fit.
    """

    def __init__(
        self,
        vocab_size,
        *,
        pattern="balanced",
        attentions=None,
        ffns=None,
        embed_dim=64,
        num_heads=4,
        encoder_layers=None,
        decoder_layers=None,
        encoder_ffn=None,
        decoder_ffn=None,
        activation="relu",
        norm="post",
        dropout=0.0,
        eps=1e-5,
        pad=0,
        max_len=256,
        seed=0,
        **encoder,
    ):
        super().__init__()
        asked = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
        pattern = pattern_of(pattern, (12, 2), attentions=attentions, ffns=ffns, **asked)
        if not pattern.decoder_self:
            raise ValueError("decoder_layers=0: wanted 1 or more")
        encoder_ffn = 4 * embed_dim if encoder_ffn is None else encoder_ffn
        if decoder_ffn is None:
            decoder_ffn = max(1, embed_dim // 4) if pattern.interleaved else encoder_ffn
        self.pattern, self.pad = pattern, pad
        placing = {"norm": norm, "dropout": dropout, "eps": eps}
        nets = {"activation": activation, "dropout": dropout}
        with seeded(seed, "embedding"):
            self.embedding = TiedEmbedding(vocab_size, embed_dim, pad=pad, max_len=max_len, dropout=dropout)
        self.attentions = shared_attentions(pattern, embed_dim, num_heads, seed)
        self.encoder_nets = shared_nets(pattern.encoder_ffn, embed_dim, encoder_ffn, f"{seed}/encoder", **nets)
        self.decoder_nets = shared_nets(pattern.decoder_ffn, embed_dim, decoder_ffn, f"{seed}/decoder", **nets)
        parts = (pattern, self.attentions, self.encoder_nets)
        self.encoder = SharedEncoder(*parts, embed_dim, num_heads, seed=seed, **placing, **encoder)
        self.decoder = nn.ModuleList()
        for s, c, g in zip(pattern.decoder_self, pattern.decoder_cross, pattern.decoder_ffn, strict=True):
            weights = (self.attentions[s], self.attentions[c], self.decoder_nets[g])
            options = {"interleaved": pattern.interleaved, **placing}
            self.decoder.append(DecoderLayer(embed_dim, num_heads, *weights, **options))
        self.norm = nn.LayerNorm(embed_dim, eps=eps) if norm == "pre" else nn.Identity()

    def padding(self, tokens):
        """[B, N], True where an id is padding; None where none is (a compiled network always has the mask).

        Whether there is any depends on the data: an accelerator is waited for here, once for every source and target.
        """
        mask = tokens == self.pad
        return mask if torch.compiler.is_compiling() or bool(mask.any()) else None

    def encode(self, source, *, maps=None):
        """The encoded source [B, S, D] and its mask [B, S] or None, of ids [B, S]."""
        mask, x = self.padding(source), self.embedding(source)
        if mask is not None:
            x = x.masked_fill(mask[..., None], 0.0)
        return self.encoder(x, key_padding_mask=mask, maps=maps), mask

    def decode(self, target, encoded, context_mask=None, *, maps=None):
        """Logits [B, T, V] for target ids so far [B, T], given the encoded source and its mask."""
        x, masks = self.embedding(target), {"key_padding_mask": self.padding(target), "context_mask": context_mask}
        for layer in self.decoder:
            layer_maps = None if maps is None else {}
            x = layer(x, encoded, maps=layer_maps, **masks)
            if maps is not None:
                maps.append(layer_maps)
        return self.embedding.logits(self.norm(x))

    def forward(self, source, *, target):
        """Logits [B, T, V] from source ids [B, S] and target ids so far [B, T]."""
        return self.decode(target, *self.encode(source))

    def init_state(self, encoded, context_mask=None):
        """Before the first target token: a cache a layer, and how many tokens came."""
        return {"layers": [layer.init_state(encoded, context_mask) for layer in self.decoder], "count": 0}

    def step(self, token, state):
        """Target ids [B], real ones: logits [B, V] for the next, and the new state. See `decoding.py`.

        Raises: ValueError for more tokens than max_len.
        """
        x_t, after = self.embedding(token[:, None], start=state["count"])[:, 0], []
        for layer, cache in zip(self.decoder, state["layers"], strict=True):
            x_t, cache = layer.step(x_t, cache)
            after.append(cache)
        return self.embedding.logits(self.norm(x_t)), {"layers": after, "count": state["count"] + 1}

    @torch.no_grad()
    def attention_maps(self, source, *, target):
        """{"encoder": one dict per layer with "self", "decoder": one per layer with "self" and "cross"}."""
        maps = {"encoder": [], "decoder": []}
        self.decode(target, *self.encode(source, maps=maps["encoder"]), maps=maps["decoder"])
        return maps

    @torch.no_grad()
    def generate(self, source, start, length, *, cached=True, **options):
        """Target ids that continue `start` [B, N] by at most `length`: greedy, drawn, or by beam search.

        Padding is never written. What is written last is not read: N + length − 1 may be max_len.

        Args: cached: keys and values are kept; False reads the whole prefix again for every token.  options: of
            `decoding.generate`.
        Raises: ValueError for padding in `start`, more tokens than max_len, or as `decoding.generate`.
        """
        if bool((start == self.pad).any()):
            raise ValueError(f"start holds the id of padding, {self.pad}: wanted real tokens")
        encoded, mask = self.encode(source)
        if cached:
            step, state = self.step, self.init_state(encoded, mask)
        else:
            step, state = rereading(lambda tokens, context: self.decode(tokens, *context), (encoded, mask), source)
        return generate(step, state, start, length, never=self.pad, **options)
