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
    "performer": (
        ("number of random features", "m, `num_features`", "m", "nb_features"),
        ("random rows, one a feature", "Ω, `Omega`", "ω₁ … ω_m", "projection_matrix"),
        ("positive features", "φ, `positive_features`", "φ", "nonnegative_softmax_kernel_feature_creator"),
        ("norms of orthogonal rows: χ or √d", "`row_norms`", "", "ortho_scaling"),
        ("subtracted before the exponential", "`stabiliser`", "", "jnp.max(data_dash)"),
        ("added to every feature", "ε, `eps`", "ε", "numerical_stabilizer, kernel_epsilon"),
        ("features without exponentials", '`kernel="relu"`', "Performer-ReLU", "make_fast_generalized_attention"),
    ),
    "cosformer": (
        ("features of a token", "φ, `cosformer_features`", "ϕ with cos and sin", "q_, k_"),
        ("what keeps weights non-negative", "relu, `feature_map`", "ReLU", "act_fun"),
        ("length in the cosine", "M*, `max_len`", "M", "m"),
        ("angle of a position", "θ", "π i / 2M", "weight_index"),
        ("the least denominator", "`eps`", "", "eps"),
    ),
    "linformer": (
        ("mixtures of keys and values", "k, `projected_len`", "k", "compressed length"),
        ("what mixes keys; values", "E; F, in `length_projection`", "E_i; F_i", "compress_k; compress_v"),
        ("mixed keys; values", "K̄; V̄", "E_i K W_i^K; F_i V W_i^V", "k; v"),
        ("low-rank map", "A, `linformer_weights`", "P̄", "attn_weights"),
        ("who shares E and F", "`sharing`", "headwise, key-value sharing", "shared_kv_compressed"),
        ("layers share them", "one `length_projection`", "layerwise sharing", "shared_layer_kv_compressed"),
        ("columns of E and F", "`max_len`", "n", "max_seq_len"),
    ),
    "local": (
        ("tokens in a block", "w, `window`", "l_q", "block_size"),
        ("blocks read to the left; to the right", "b, `look_backward`; f, `look_forward`", "l_m − l_q", ""),
        ("pairs that may talk", 'allow, `attention_maps(x)["allow"]`', "", ""),
        ("a window that moves with the token", "`exact_window`", "", ""),
    ),
    "longformer": (
        ("tokens of a window, both sides together", "w, `window`", "w", "attention_window (one side, a list by layer)"),
        ("dilation of a head", "δ_h, `dilation`", "d", "attention_dilation"),
        ("global tokens", "g, `global_tokens`", "g", "attention_mask > 0"),
        ("local projections", "W_q, W_k, W_v, `projections`", "Q_s, K_s, V_s", "query, key, value"),
        ("projections of global tokens", "W^g, `global_projections`", "Q_g, K_g, V_g", "query_global, key_global, …"),
        ("pairs that may talk", 'allow, `attention_maps(x)["allow"]`', "", ""),
    ),
    "bigbird": (
        ("tokens in a block", "b, `block`", "b", "from_block_size, to_block_size"),
        ("random blocks of an inner block", "r, `random_blocks`", "r", "num_rand_blocks"),
        ("which ones", "R, `rand_blocks(N)`", "", "rand_attn"),
        ("pairs that may talk", 'allow, `attention_maps(x)["allow"]`', "A(i, j)", "band_mask, from_mask, to_mask"),
    ),
    "sparse_transformer": (
        ("stride, and tokens in a block", "l, `stride`", "l", "local_attn_ctx"),
        ("the two patterns", 'A¹ ∪ A², or `mode="first"`, `"second"`', "A^(1), A^(2)", 'attn_mode="local", "strided"'),
        ("which pair of them", "`pattern`", "strided, fixed", "attn_mode"),
        ("summary columns of a block", "c, `num_summary`", "c", "vertsize · blocksize"),
        ("what a head reads", "`mode`", "merged head, interleaved", ""),
        ("pairs that may talk", 'allow, `attention_maps(x)["allow"]`', "S_i", "get_attn_mask"),
    ),
    "sinkhorn": (
        ("tokens in a block; blocks", "b, `block`; n", "b; N_B", "block_size; num_query_blocks"),
        ("the most blocks that can be sorted", "n_max, `max_blocks`", "", "max_num_blocks"),
        ("what describes a block", "p, `pool_blocks`", "ψ(X)", "sum_key"),
        ("logits of the sort", "R, `sort_logits`", "R", "sort_out"),
        ("soft permutation of blocks", 'S, `attention_maps(x)["S"]`', "S(R)", "permutation"),
        ("weights of the sort", "W, β: `W_sort`, `b_sort`", "W_P, W_B", "an unnamed DenseGeneral"),
        ("temperature; rounds", "τ, `temperature`; T, `iterations`", "τ; k", "temp; n_iters"),
        ("keys and values that were brought", "K̃, Ṽ, `bring`", "ψ_S(K), ψ_S(V)", "sorted_key, sorted_value"),
    ),
    "synthesizer": (
        ("logits that compare nothing", "B, `part_logits`", "B; R", "syn_weights"),
        ("network of a token", "W₁, b₁, W₂, b₂: `dense`", "F(X)", "dense_syn, dense_syn_len"),
        ("one map for all sequences", "R, `R`", "R", "random"),
        ("its two factors; their rank", "R₁, R₂: `R1`, `R2`; k, `rank`", "R₁, R₂; k", "random1, random2; k"),
        ("two short rows of a token", "a_i, b_i, `factors`", "A, B", ""),
        ("which parts", "`parts`", "Dense, Random, Factorized", "synthesizer_mode"),
        ("weights of the mixture", "α, `mix`", "α", ""),
        ("the longest sequence", "N_max, `max_len`", "l", "max_length"),
    ),
    "reformer": (
        ("queries that are keys too", "`qk`", "Q = K", "qk"),
        ("random directions", "Ω, `rotations`", "R", "random_rotations"),
        ("buckets; how many", 'h, `attention_maps(x)["buckets"]`; n, `num_buckets`', "h(x); b", "buckets; n_buckets"),
        ("rounds", "R, `num_hashes`", "n_rounds", "n_hashes"),
        ("tokens in a chunk", "m, `chunk`", "m", "seqlen / n_bins"),
        ("tokens of a round in sorted order", '`attention_maps(x)["order"]`', "s_i", "st"),
        ("how often two tokens meet", 'c, `attention_maps(x)["met"]`', "N_{i,j}", "dup_counts"),
        ("keys of other buckets in the same chunks", "`attend_across_buckets`", "", "attend_across_buckets"),
        ("count them as often as they are met", "`allow_duplicates`", "", "allow_duplicate_attention"),
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
    "mega": (
        ("width of queries and keys", "z, `head_dim`", "z", "zdim"),
        ("width of the values", "v, `value_dim`", "v", "hdim"),
        ("dimensions of the average, a feature", "h, `ema_dim`", "h", "ndim"),
        ("weight of the input in the average", "α, σ(`ema.alpha_raw`)", "α", "sigmoid(move.delta)"),
        ("damping of the forgetting", "δ, σ(`ema.delta_raw`)", "δ", "sigmoid(move.alpha)"),
        ("expansion; contraction", "β; η, `ema.beta`; `ema.eta`", "β; η", "move.beta; move.gamma"),
        ("what is kept from step to step", "φ = 1 − α⊙δ, `log_decay`", "1 − α⊙δ", "q"),
        ("kernel of the average", "K, `ema_kernel`", "K", "kernel"),
        ("input past the average", "ω, `ema.omega`", "", "move.omega"),
        ("output of the average", "X', `smooth`", "X'", "mx"),
        ("shared representation", "Z", "Z", "z"),
        ("scale and offset of queries and keys", "κ, μ, `kappa_q` …", "κ, μ", "gamma, beta"),
        ("reset gate; update gate", "γ; φ(x)", "γ; φ", "r; u"),
        ("attention function", "f, `function`", "f", "attention_activation"),
        ("bias by distance", "b, `position_bias`", "b_rel", "rel_pos_bias"),
        ("tokens in a chunk", "c, `chunk`", "c", "chunk_size"),
        ("kernel cut to its first taps", "T, `truncation`", "", "truncation"),
    ),
    "momentum": (
        ("velocity of the state", "p", "p_i", "Pi"),
        ("how much velocity stays; step size", "β, `beta`; γ, `gamma`", "β; γ", "mu; stepsize"),
        ("what key j weighs after t more tokens", "w_t, `momentum_factors`", "", ""),
        ("every query reads the last state", '`form="parallel_total_length"`', "", "causal_momentum_attention"),
        ("the same two of the connection", "β, γ of `MomentumResidual`", "β̃; γ̃", "res_mu; res_stepsize"),
        ("velocity of the stream", "v, the connection's `carry`", "v", ""),
        ("how far an adaptive β stays below 1", "δ, `delta`", "δ", "res_delta"),
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
