"""The EIT network for sequence to sequence (Zheng et al. 2024): EIT in the encoder alone, pre-norm.

The decoder keeps softmax attention, its own and towards the encoder, as in the authors' code. A classifier or language
model of EIT needs no file: `Classifier(…, attention="eit")` and `CausalLM(…, attention="eit")` are the same blocks.
"""

from refattn.models.stack import Stack
from refattn.models.transformer import EncoderDecoder


class EITEncoderDecoder(EncoderDecoder):
    """Encoder-decoder with EIT in the encoder.

    Args: as `EncoderDecoder`, and
        encoder_attention: mechanism(s) of the encoder, one name or one per layer.  encoder_options: their options.
        attention: of the decoder.
    """

    def __init__(
        self,
        vocab_size,
        *,
        encoder_attention="eit",
        encoder_options=None,
        attention="softmax",
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        ffn_dim=None,
        norm="pre",
        activation="relu",
        dropout=0.0,
        seed=0,
        **more,
    ):
        shape = {"ffn_dim": ffn_dim, "norm": norm, "activation": activation, "dropout": dropout, "seed": seed}
        sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "num_layers": num_layers}
        super().__init__(vocab_size, attention=attention, **sizes, **shape, **more)
        if self.joint:
            raise ValueError(f"attention={attention!r}: wanted a decoder that needs no carry of its encoder")
        names = [encoder_attention] * num_layers if isinstance(encoder_attention, str) else list(encoder_attention)
        if len(names) != num_layers:
            raise ValueError(f"encoder_attention has {len(names)} names: wanted one, or num_layers={num_layers}")
        self.encoder = Stack(names, embed_dim, num_heads, options=encoder_options, label="encoder", **shape)
