"""Networks assembled from `attention` and `layers`."""

from refattn.models.transformer import CausalLM, Classifier, EncoderDecoder
from refattn.models.vit import ViT

__all__ = ["CausalLM", "Classifier", "EncoderDecoder", "ViT"]
