"""Performer: its features and its attention, with the authors' stabiliser."""

from golden_adapters.shared import padding
from refattn.attention import performer

INFORMATION = ("exact_softmax",)  # what the features approximate


def adapt(case):
    config = case.config
    q, k, v = case["in.q"], case["in.k"], case["in.v"]
    options = {"kernel": config["kind"], "stabiliser": "maximum", "eps": config.get("feature_eps")}
    options["key_padding_mask"] = padding(case, "pad", k.shape[2])
    if "d^" not in config.get("scale", "d^"):
        options["scale"] = 1.0
    Omega = case["w.Omega"] if config.get("projection", True) else None
    phi_q, phi_k = performer.features(q, k, Omega, **options)
    if config["causal"]:  # the authors' causal form alone adds to the denominator
        options["denominator_eps"] = config["causal_eps"]
    o = performer.performer_attention(q, k, v, Omega, is_causal=config["causal"], **options)
    return {"o": o, "phi_q": phi_q, "phi_k": phi_k}
