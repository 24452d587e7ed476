"""Sinkhorn attention: the sort, with the case's noise, and attention on what it brings."""

from golden_adapters.shared import padding
from refattn.attention import sinkhorn


def adapt(case):
    config, masks = case.config, {"is_causal": case.config["causal"], "block": case.config["block"]}
    q, k, v = case["in.q"], case["in.k"], case["in.v"]
    masks["key_padding_mask"] = padding(case, "key_padding_mask", q.shape[2])
    W, b = case["w.W_sort"], case["w.b_sort"]
    gumbel = case["in.gumbel"] if "in.gumbel" in case else None
    sorting = {"temperature": config["temperature"], "iterations": config["sinkhorn_iters"], "gumbel": gumbel}
    S = sinkhorn.sort_matrix(k, W, b, **sorting, **masks)
    return {"S": S, "y": sinkhorn.sinkhorn_attention(q, k, v, S, combine=config["combine"], **masks)}
