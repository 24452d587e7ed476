"""The glossary: the paper's symbol, the name in the authors' code and ours, for one and the same thing.

A lesson shows `symbol_box(slug)`; lesson 00 shows the general part.
"""

GLOSSARY = {  # slug → rows of (meaning, ours, the paper's symbol, the name in the authors' code)
    "general": (
        ("batch size", "B", "", "bsz"),
        ("query length; key or context length", "N; M", "n; m", "tgt_len; src_len"),
        ("model width", "D, `embed_dim`", "d_model", "embed_dim"),
        ("heads; width of a head", "H, `num_heads`; d, `head_dim`", "h; d_k", "num_heads; head_dim"),
        ("queries, keys, values", "`q`, `k`, `v`", "Q, K, V", "q, k, v"),
        ("keys to ignore", "`key_padding_mask`, True = ignore", "", "key_padding_mask"),
        ("what a layer hands on besides x", "`carry`", "", ""),
        ("the N × M matrix a mechanism applies", '`attention_maps(x)["effective"]`', "A", "attn_weights"),
    ),
    "softmax": (
        ("scale of the logits", "`scale` = 1/√d", "1/√d_k", "scaling"),
        ("attention map", "A, `softmax_weights`", "softmax(QKᵀ/√d_k)", "attn_weights"),
        ("output matrix", "W_O, `projections.output`", "W^O", "out_proj"),
    ),
    "linear": (
        ("feature map", "φ, `feature_map`", "φ", "feature_map"),
        ("state: sum of φ(k)ᵀ v", "S", "S", "Si"),
        ("state: sum of φ(k)", "z", "Z", "Zi"),
        ("added to the denominator", "`eps`", "", "eps"),
    ),
    "luna": (
        ("packed sequence", "P, `slots`, in `carry`", "P", "pquery, px"),
        ("length of P", "l, `num_slots`", "l", "projected_length"),
        ("pack query projection", "W_Qp, `pack.query`", "W_Q of the pack attention", "pq_proj"),
        ("pack key (and value) projection", "W_Cp, `pack.key`", "W_K of the pack attention", "pc_proj"),
        ("unpack query projection", "W_Q, `projections.query`", "W_Q of the unpack attention", "q_proj"),
        ("unpack key (and value) projection", "W_C, `projections.key`", "W_K of the unpack attention", "c_proj"),
        ("heads of the pack step", "H_p, `pack_heads`", "h", "num_pheads"),
        ("keys and values share a projection", "`tied`", "", "tie_kv"),
        ("pack activation of the causal form", "ω, `pack_activation`", "ω", "pffn_activation"),
        ("use min(l, length) slots", "`dynamic_slots`", "", "dynamic_projection"),
    ),
}


def symbol_box(slug):
    """A Markdown table of one slug's symbols. Raises: ValueError for a slug without a glossary."""
    if slug not in GLOSSARY:
        raise ValueError(f"slug={slug!r}: wanted one of {', '.join(GLOSSARY)}")
    lines = ["| meaning | here | in the paper | in the authors' code |", "| --- | --- | --- | --- |"]
    for row in GLOSSARY[slug]:
        lines.append("| " + " | ".join(cell or "–" for cell in row) + " |")
    return "\n".join(lines)
