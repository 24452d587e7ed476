"""Three transformers on one stack: a classifier, a causal language model, and an encoder-decoder.

Each takes a mechanism's catalogue name, or a list of names, one per layer; `attention_options` goes to the mechanism
(one dict, or one per layer). Weights depend on `seed` and their place in the model, not on the mechanism beside them.
"""

import torch
from torch import nn

from refattn.layers.embedding import Embedding
from refattn.layers.pooling import masked_mean
from refattn.layers.residual import Residual
from refattn.models.decoding import generate, rereading
from refattn.models.stack import Stack, per_layer, seeded


class Classifier(nn.Module):
    """Encoder with a classifier head, for whole sequences or for every token.

    Args:
        vocab_size, input_dim: see `Embedding`.  num_classes: classes C.
        attention, attention_options: mechanism(s) by name, and their options.
        embed_dim, num_heads, num_layers, ffn_dim: D, H, depth, hidden width (4 D unless given; 0 = none).
        positions, max_len: see `Positions`.
        pool: "mean" over real tokens, "first" token, or "none": logits for every token.
        norm, activation, dropout, seed: see `Stack`.

    Raises: ValueError for an unknown pool or inputs that do not fit.
    """

    def __init__(
        self,
        vocab_size,
        num_classes,
        *,
        attention="softmax",
        attention_options=None,
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        ffn_dim=None,
        positions="sinusoidal",
        max_len=1024,
        pool="mean",
        norm="pre",
        activation="gelu",
        dropout=0.0,
        input_dim=None,
        seed=0,
    ):
        super().__init__()
        if pool not in ("mean", "first", "none"):
            raise ValueError(f"pool={pool!r}: wanted 'mean', 'first' or 'none'")
        self.pool = pool
        shared = {"norm": norm, "activation": activation, "dropout": dropout, "seed": seed}
        places = {"positions": positions, "max_len": max_len, "input_dim": input_dim, "dropout": dropout}
        with seeded(seed, "embedding"):
            self.embedding = Embedding(vocab_size, embed_dim, **places)
        names = per_layer(attention, num_layers, "attention")
        self.encoder = Stack(names, embed_dim, num_heads, ffn_dim=ffn_dim, options=attention_options, **shared)
        with seeded(seed, "head"):
            self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, inputs, *, key_padding_mask=None, maps=None):
        """Logits [B, C], or [B, N, C] with pool="none"; key_padding_mask [B, N], True = padding."""
        x, _ = self.encoder(self.embedding(inputs), key_padding_mask=key_padding_mask, maps=maps)
        return self.head(self.summarise(x, key_padding_mask))

    def summarise(self, x, key_padding_mask):
        """What the head reads: [B, D], or [B, N, D] with pool="none"."""
        if self.pool == "none":
            return x
        return x[:, 0] if self.pool == "first" else masked_mean(x, key_padding_mask)

    @torch.no_grad()
    def attention_maps(self, inputs, *, key_padding_mask=None):
        """One dict per layer: {"self": maps of the mechanism}."""
        maps = []
        self(inputs, key_padding_mask=key_padding_mask, maps=maps)
        return maps


class CausalLM(nn.Module):
    """Causal language model: logits for the next token at every position.

    Args: as `Classifier`, without `num_classes`, `pool` and `input_dim`; `residual`: makes the connections around the
        attentions (a class, or a partial of one), see `Block`.
    """

    def __init__(
        self,
        vocab_size,
        *,
        attention="softmax",
        attention_options=None,
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        ffn_dim=None,
        positions="sinusoidal",
        max_len=1024,
        norm="pre",
        activation="gelu",
        dropout=0.0,
        residual=Residual,
        seed=0,
    ):
        super().__init__()
        shared = {"norm": norm, "activation": activation, "dropout": dropout, "seed": seed}
        with seeded(seed, "embedding"):
            self.embedding = Embedding(vocab_size, embed_dim, positions=positions, max_len=max_len, dropout=dropout)
        names = per_layer(attention, num_layers, "attention")
        options = {"ffn_dim": ffn_dim, "options": attention_options, "is_causal": True, "residual": residual}
        self.decoder = Stack(names, embed_dim, num_heads, **options, **shared)
        with seeded(seed, "head"):
            self.head = nn.Linear(embed_dim, vocab_size)

    def forward(self, inputs, *, key_padding_mask=None, maps=None):
        """Logits [B, N, vocab] from ids [B, N]."""
        x, _ = self.decoder(self.embedding(inputs), key_padding_mask=key_padding_mask, maps=maps)
        return self.head(x)

    attention_maps = Classifier.attention_maps

    def init_state(self, batch_size):
        """Before the first token: a state a layer, and how many tokens came."""
        return {"layers": self.decoder.init_state(batch_size), "count": 0}

    def step(self, token, state):
        """Ids [B] of one token: logits [B, vocab] for the next, and the new state. See `decoding.py`."""
        x_t = self.embedding(token[:, None], start=state["count"])[:, 0]
        x_t, layers = self.decoder.step(x_t, state["layers"])
        return self.head(x_t), {"layers": layers, "count": state["count"] + 1}

    def generate(self, prompt, length, **options):
        """Continue `prompt [B, N]` by at most `length` tokens: [B, N + length].

        With step forms in every layer each token costs what the mechanism's step costs; otherwise the whole prefix is
        read again for every token. options: temperature, generator, end and beams of `decoding.generate`.

        Raises: ValueError for an empty prompt, or options that do not fit.
        """
        if self.decoder.can_step():
            return generate(self.step, self.init_state(len(prompt)), prompt, length, **options)
        step, state = rereading(lambda tokens, _: self(tokens), None, prompt)
        return generate(step, state, prompt, length, **options)


class EncoderDecoder(nn.Module):
    """Encoder-decoder (sequence to sequence): logits for the next target token at every target position.

    Args: as `CausalLM`; `target_vocab` (default: the source's), `cross_attention`: mechanism(s) of the cross attention
        (default: those of `attention`), `cross_options`: its options (default: `attention_options`).
    """

    def __init__(
        self,
        vocab_size,
        *,
        target_vocab=None,
        attention="softmax",
        attention_options=None,
        cross_attention=None,
        cross_options=None,
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        ffn_dim=None,
        positions="sinusoidal",
        max_len=1024,
        norm="pre",
        activation="gelu",
        dropout=0.0,
        seed=0,
    ):
        super().__init__()
        target_vocab = vocab_size if target_vocab is None else target_vocab
        shared = {"norm": norm, "activation": activation, "dropout": dropout, "seed": seed, "ffn_dim": ffn_dim}
        places = {"positions": positions, "max_len": max_len, "dropout": dropout}
        with seeded(seed, "source"):
            self.source = Embedding(vocab_size, embed_dim, **places)
        with seeded(seed, "target"):
            self.target = Embedding(target_vocab, embed_dim, **places)
        names = per_layer(attention, num_layers, "attention")
        crosses = names if cross_attention is None else per_layer(cross_attention, num_layers, "cross_attention")
        cross_options = attention_options if cross_options is None else cross_options
        sides = {"is_causal": True, "cross": True, "cross_names": crosses, "cross_options": cross_options}
        both = {"options": attention_options, **shared}
        # a chain that the decoder goes on with is read after the encoder, and begun before the decoder
        self.joint = joint = Stack.chains_of(names, crosses) & Stack.chains_of(names)
        self.encoder = Stack(names, embed_dim, num_heads, read_after=joint, label="encoder", **both)
        self.decoder = Stack(names, embed_dim, num_heads, started=joint, label="decoder", **sides, **both)
        with seeded(seed, "head"):
            self.head = nn.Linear(embed_dim, target_vocab)

    def encode(self, source, *, key_padding_mask=None, maps=None):
        """The encoded source [B, M, D] and the carries that the decoder goes on with."""
        x, carries = self.encoder(self.source(source), key_padding_mask=key_padding_mask, maps=maps)
        return x, {chain: carry for chain, carry in carries.items() if chain in self.joint}

    def decode(self, target, encoded, carries, *, key_padding_mask=None, maps=None):
        """Logits [B, N, vocab] for target ids [B, N], given the encoded source; the mask is the source's."""
        inputs = {"context": encoded, "context_mask": key_padding_mask, "maps": maps}
        x, _ = self.decoder(self.target(target), carries, **inputs)
        return self.head(x)

    def forward(self, source, *, target, key_padding_mask=None):
        """Logits [B, N, vocab] from source ids [B, M] and target ids so far [B, N]."""
        encoded, carries = self.encode(source, key_padding_mask=key_padding_mask)
        return self.decode(target, encoded, carries, key_padding_mask=key_padding_mask)

    @torch.no_grad()
    def attention_maps(self, source, *, target, key_padding_mask=None):
        """{"encoder": one dict per layer, "decoder": one dict per layer, with "self" and "cross"}."""
        maps = {"encoder": [], "decoder": []}
        encoded, carries = self.encode(source, key_padding_mask=key_padding_mask, maps=maps["encoder"])
        self.decode(target, encoded, carries, key_padding_mask=key_padding_mask, maps=maps["decoder"])
        return maps

    def init_state(self, encoded, carries, *, key_padding_mask=None):
        """Before the first target token: a state a layer, the source read once, and how many tokens came."""
        reads = {"context": encoded, "context_mask": key_padding_mask}
        return {"layers": self.decoder.init_state(len(encoded), carries, **reads), "count": 0}

    def step(self, token, state):
        """Target ids [B] of one token: logits [B, vocab] for the next, and the new state. See `decoding.py`."""
        x_t = self.target(token[:, None], start=state["count"])[:, 0]
        x_t, layers = self.decoder.step(x_t, state["layers"])
        return self.head(x_t), {"layers": layers, "count": state["count"] + 1}

    @torch.no_grad()
    def generate(self, source, start, length, *, key_padding_mask=None, **options):
        """Target ids [B, N + length] that continue `start [B, N]`; the source is encoded once.

        Where every layer can take one token at a time, no token is read twice. options: as `CausalLM.generate`.
        """
        encoded, carries = self.encode(source, key_padding_mask=key_padding_mask)
        if self.decoder.can_step():
            state = self.init_state(encoded, carries, key_padding_mask=key_padding_mask)
            return generate(self.step, state, start, length, **options)
        source_read = (encoded, carries, key_padding_mask)  # of the state, so that beams choose its rows, too
        step, state = rereading(self.read_again, source_read, start)
        return generate(step, state, start, length, **options)

    def read_again(self, target, source_read):
        """`decode` of a source that was read, (encoded, carries, mask)."""
        encoded, carries, mask = source_read
        return self.decode(target, encoded, carries, key_padding_mask=mask)
