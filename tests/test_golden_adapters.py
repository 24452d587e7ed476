"""Adapters on layouts that no case of `tests/golden` has: small made-up cases, each with a reference written out again.

Each case goes through the very test that the golden files go through, outputs and gradients.
"""

import math

import numpy as np
import pytest
import torch
from made_up_cases import Draw, Names, agrees, attend

PAD = 1  # of EdgeFormer's ids


def late(lengths, size):
    """Padding at the end, [B, N]."""
    return np.arange(size)[None] >= np.array(lengths)[:, None]


def around(layer, name, x, branch, pre):
    """A residual connection with its norm before the branch or after the sum."""
    return x + branch(layer.norm(name, x)) if pre else layer.norm(name, x + branch(x))


def encoder_layer(maps, net, norms, x, hidden, pre):
    x = around(norms, "ln1", x, lambda z: maps.attention(z, z, 2, hidden), pre)
    return around(norms, "ln2", x, net.net, pre)


def positions(rows, width):
    half = width // 2
    angle = np.arange(rows)[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
    return np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)


@pytest.mark.parametrize(
    ("prefixes", "final", "table"),  # prefixes: of attentions, nets and norms of the encoder, and of the decoder
    (
        (("attn.", "ffn.", "", "dec.", "dec."), (), "pad row zero"),
        (("enc.attn.", "enc.ffn.", "enc.", "dec.ffn.", "dec."), (), "pad row not zero"),
        (("attn.", "enc_ffn.", "", "dec_ffn.", ""), ("enc_norm", "dec_norm"), "from the first position"),
        (("attn.", "ffn.", "", "", ""), ("ln_final", "dec.ln_final"), "pad row zero"),
    ),
)
def test_edgeformer_network_with_padding(tmp_path, prefixes, final, table):
    D, layers, groups, decoders, pre, draw = 8, 5, 4, 2, bool(final), Draw()
    attn, enc, enc_norms, dec, dec_norms = prefixes
    draw.arrays["in.src"] = np.array([[2, 5, 3, 6, 4], [4, 4, 2, PAD, PAD]])
    draw.arrays["in.tgt"] = np.array([[0, 3, 6, 2], [0, 5, PAD, PAD]])
    rows = positions(5 + PAD + 1, D)
    rows[PAD] *= table != "pad row zero"
    draw.arrays["in.pos_table"] = rows[PAD + 1 :] if table == "from the first position" else rows
    draw.add("w.E", 7, D)
    draw.maps(attn, lead=(groups,), q=(D, D), k=(D, D), v=(D, D), o=(D, D))
    draw.maps(enc, lead=(2,), **{"1": (6, D), "2": (D, 6)})
    draw.norms(D, f"{enc_norms}ln1", f"{enc_norms}ln2", lead=(layers,))
    draw.maps(dec, lead=(decoders,), **{"1": (3, D), "2": (D, 3)})
    draw.norms(D, *(f"{dec_norms}ln_{part}" for part in ("self", "cross", "ffn")), lead=(decoders,))
    draw.norms(D, *final)  # a pre-LN stack ends with one

    def reference(t):
        def embed(ids):
            real = ids != PAD
            places = torch.from_numpy(rows).double()[real.cumsum(1) + PAD] * real[..., None]
            vectors = torch.where(real[..., None], t["w.E"][ids], t["w.E"][ids].detach())  # padding gets no gradient
            return math.sqrt(D) * vectors + places

        hidden = (t["in.src"] == PAD)[:, None]
        x = embed(t["in.src"]) * ~hidden.transpose(1, 2)
        for i in range(layers):
            parts = Names(t, attn, i % groups), Names(t, enc, i % 2), Names(t, enc_norms, i)
            x = encoder_layer(*parts, x, hidden, pre)
        x = Names(t).norm(final[0], x) if pre else x
        future = torch.ones(4, 4, dtype=torch.bool).triu(1) | (t["in.tgt"] == PAD)[:, None]
        y = embed(t["in.tgt"])
        for m in range(decoders):
            own, cross = (Names(t, attn, (2 * m + k) % groups) for k in (0, 1))
            net, norms = Names(t, dec, m), Names(t, dec_norms, m)
            y = around(norms, "ln_self", y, lambda z, maps=own: maps.attention(z, z, 2, future), pre)
            y = around(norms, "ln_ffn", y, net.net, pre)
            y = around(norms, "ln_cross", y, lambda z, maps=cross: maps.attention(z, x, 2, hidden), pre)
            y = around(norms, "ln_ffn", y, net.net, pre)
        y = Names(t).norm(final[1], y) if pre else y
        return {"enc": x, "logits": y @ t["w.E"].T}

    config = {"d": D, "heads": 2, "pad": PAD, "normalize_before": pre}
    agrees(tmp_path, "edgeformer", config, draw.arrays, reference, ("enc", "logits"))


def test_edgeformer_stack_with_groups_that_no_layer_uses_and_no_final_norm(tmp_path):
    D, draw = 8, Draw()
    draw.add("in.x", 2, 3, D)
    draw.maps("attn.", lead=(4,), q=(D, D), k=(D, D), v=(D, D), o=(D, D))
    draw.maps("ffn.", lead=(2,), **{"1": (6, D), "2": (D, 6)})
    draw.norms(D, "ln1", "ln2", lead=(3,))
    attention, nets = [2, 0, 2], [1, 1, 1]

    def reference(t):
        x = t["in.x"]
        for i, (a, f) in enumerate(zip(attention, nets, strict=True)):
            x = encoder_layer(Names(t, "attn.", a), Names(t, "ffn.", f), Names(t, "", i), x, None, pre=True)
        return {"y": x, "attn_uses_in_encoder": torch.tensor([1, 0, 2, 0]), "ffn_uses_in_encoder": torch.tensor([0, 3])}

    config = {"d": D, "heads": 2, "post_ln": False, "attn_group_of_layer": attention, "ffn_group_of_layer": nets}
    agrees(tmp_path, "edgeformer", config, draw.arrays, reference, ("y",))


def test_edgeformer_own_biases_in_pre_norm_layers(tmp_path):
    D, draw = 8, Draw()
    draw.add("in.x", 2, 3, D)
    shapes = {"q": (D, D), "k": (D, D), "v": (D, D), "o": (D, D), "1": (6, D), "2": (D, 6)}
    draw.maps("", **shapes)
    draw.maps("second.", **shapes)
    draw.norms(D, "ln1", "ln2", "second.ln1", "second.ln2")
    arrays = {name: array for name, array in draw.arrays.items() if "second.W" not in name}

    def reference(t):
        first = Names(t)
        second = Names(t | {f"w.second.W_{name}": t[f"w.W_{name}"] for name in shapes}, "second.")
        y = encoder_layer(first, first, first, t["in.x"], None, pre=True)
        return {"bias_la_layer1": y, "bias_la_layer2": encoder_layer(second, second, second, y, None, pre=True)}

    config = {"d": D, "heads": 2, "post_ln": False}
    agrees(tmp_path, "edgeformer", config, arrays, reference, ("bias_la_layer1", "bias_la_layer2"))


def test_sret_groups_without_biases_of_queries_keys_and_values(tmp_path):
    N, C, draw = 6, 4, Draw()
    draw.add("in.x", 2, N, C)
    draw.arrays["in.perm"] = draw.rng.permutation(N)
    draw.maps("", q=(C, C), k=(C, C), v=(C, C), o=(C, C))
    arrays = {name: array for name, array in draw.arrays.items() if name not in ("w.b_q", "w.b_k", "w.b_v")}

    def reference(t):
        place, layer = torch.argsort(t["in.perm"]), Names(t)
        groups = {"y_first": torch.arange(N) // 2, "y_recur": place // 3}  # 3 of 2 tokens, 2 of 3 permuted ones
        x = t["in.x"]
        return {name: layer.attention(x, x, 2, group[:, None] != group) for name, group in groups.items()}

    config = {"C": C, "H": 2, "G1": 3, "G2": 2}
    agrees(tmp_path, "sret", config, arrays, reference, ("y_first", "y_recur"))


@pytest.mark.parametrize("names", (("c", "context_mask"), ("enc", "enc_mask")))
def test_mega_cross_attention_after_batch_norm_in_evaluation(tmp_path, names):
    D, z, most, draw = 4, 2, 4, Draw()
    context, mask = (f"in.{name}" for name in names)
    draw.add("in.x", 2, 3, D)
    draw.add(context, 2, 4, D)
    draw.arrays[mask] = late((4, 3), 4)
    draw.norms(D, "norm")
    draw.add("w.norm.running_mean", D)
    draw.arrays["w.norm.running_var"] = np.linspace(0.5, 1.5, D, dtype=np.float32)
    draw.maps("", v=(D, D), phi=(D, D), gamma=(D, D), q=(z, D), k=(z, D))
    draw.add("w.U_h", D, D)
    draw.add("w.b_u", D)
    draw.add("w.rel", 2 * most - 1)
    silu = lambda x: x / (1 + torch.exp(-x))  # noqa: E731

    def reference(t):
        layer, R, C = Names(t), t["in.x"], t[context]
        spread = torch.sqrt(layer["norm.running_var"] + 1e-5)
        X = (R - layer["norm.running_mean"]) / spread * layer["norm.g"] + layer["norm.b"]
        bias = torch.stack([t["w.rel"][most - 1 - i : 2 * most - 1 - i] for i in range(3)])
        scores = layer.map("q", X) @ layer.map("k", C).transpose(1, 2) / math.sqrt(z) + bias
        A = scores.masked_fill(t[mask][:, None], -1e300).softmax(-1)
        gated = silu(layer.map("gamma", X)) * (A @ silu(layer.map("v", C)))
        update = torch.sigmoid(layer.map("phi", X))
        return {"y": update * silu(gated @ t["w.U_h"].T + t["w.b_u"]) + (1 - update) * R, "attn": A[:, None]}

    config = {"D": D, "z": z, "norm": "batchnorm", "max_positions": most, "attention_fn": "softmax"}
    agrees(tmp_path, "mega", config, draw.arrays, reference, ("y",))


def test_mega_padding_feeds_nothing_into_the_state(tmp_path):
    D, h, N, draw = 3, 2, 5, Draw()
    draw.add("in.x", 2, N, D)
    draw.arrays["in.x_mask"] = late((5, 2), N)
    for name in ("alpha_raw", "delta_raw", "ema_beta", "ema_eta"):
        draw.add(f"w.{name}", D, h)
    draw.add("w.ema_omega", D)

    def reference(t):
        alpha, delta = torch.sigmoid(t["w.alpha_raw"]), torch.sigmoid(t["w.delta_raw"])
        taps = [(t["w.ema_eta"] * alpha * t["w.ema_beta"] * (1 - alpha * delta) ** n).sum(1) for n in range(N)]
        state, states, averages = torch.zeros(2, D, h), [], []
        for x_t in (t["in.x"] * ~t["in.x_mask"][..., None]).unbind(1):
            state = alpha * t["w.ema_beta"] * x_t[..., None] + (1 - alpha * delta) * state
            states.append(state)
            averages.append((t["w.ema_eta"] * state).sum(-1) / math.sqrt(h))
        average = torch.stack(averages, 1)
        y = average + t["w.ema_omega"] * t["in.x"]
        outputs = {"ema": average, "y": y * torch.sigmoid(y), "kernel": torch.stack(taps, 1) / math.sqrt(h)}
        return outputs | {"h_last": states[-1], "h_split": states[2]}

    agrees(tmp_path, "mega", {"D": D, "h": h, "split": 3}, draw.arrays, reference, ("y", "h_last"))


def test_wide_attention_with_mean_pooling_biases_and_no_cls(tmp_path):
    D, H, width, draw = 4, 3, 6, Draw()
    draw.arrays["in.ids"] = np.array([[3, 1, 4, 2], [2, 4, 0, 0]])
    draw.add("w.E", 5, D)
    shapes = {"q": (width, D), "k": (width, D), "v": (width, D), "o": (D, width), "1": (5, D), "2": (D, 5)}
    draw.maps("l0.", **shapes)
    draw.norms(D, "l0.ln1", "l0.ln2", "lnf", mark="_")
    for name, shape in {"H_1": (5, D), "h_1": (5,), "H_2": (3, 5), "h_2": (3,)}.items():
        draw.add(f"w.{name}", *shape)
    rate = np.arange(4)[:, None] * 10000.0 ** (-2 * np.arange(2) / D)
    P = torch.from_numpy(np.stack([np.sin(rate), np.cos(rate)], -1).reshape(4, D))  # interleaved

    def reference(t):
        layer, pad = Names(t, "l0."), t["in.ids"] == 0
        x = t["w.E"][t["in.ids"]] + P
        z = layer.norm("ln1", x, 1e-3, "_")
        y, A = attend(layer.map("q", z), layer.map("k", z), layer.map("v", z), H, pad[:, None])
        x = x + layer.map("o", y)
        tanh = lambda u: 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))  # noqa: E731
        x = x + layer.net(layer.norm("ln2", x, 1e-3, "_"), tanh)
        x = Names(t).norm("lnf", x, 1e-3, "_")
        p = torch.stack([row[~out].mean(0) for row, out in zip(x, pad, strict=True)])
        logits = torch.relu(p @ t["w.H_1"].T + t["w.h_1"]) @ t["w.H_2"].T + t["w.h_2"]
        weights = sum(tensor.numel() for name, tensor in t.items() if name.startswith("w."))
        return {"A0": A, "encoded": x, "logits": logits, "n_params": torch.tensor(weights)}

    config = {"vocab": 5, "d_model": D, "layers": 1, "heads": H, "d_head": 2, "d_ff": 5, "classes": 3}
    config |= {"use_cls": False, "pool": "mean", "layernorm_eps": 1e-3, "gelu": "tanh", "qkv_bias": True}
    agrees(tmp_path, "wide_attention", config, draw.arrays, reference, ("logits",))


def test_luna_encoder_layer_with_another_eps(tmp_path):
    D, draw = 4, Draw()
    draw.add("in.x", 2, 3, D)
    draw.add("in.p", 2, 2, D)
    draw.maps("", Qp=(D, D), Cp=(D, D), Q=(D, D), C=(D, D), O=(D, D), **{"1": (5, D), "2": (D, 5)})
    draw.norms(D, "ln_x", "ln_p", "ln_f")

    def reference(t):
        layer, x, p = Names(t), t["in.x"], t["in.p"]
        y_p, _ = attend(layer.map("Qp", p), *(layer.map("Cp", x),) * 2, 2)
        y_x, unpack = attend(layer.map("Q", x), *(layer.map("C", y_p),) * 2, 2)
        x, p = layer.norm("ln_x", x + layer.map("O", y_x), 0.1), layer.norm("ln_p", p + y_p, 0.1)
        return {"x_out": layer.norm("ln_f", x + layer.net(x), 0.1), "p_out": p, "unpack_weights": unpack}

    config = {"N": 3, "l": 2, "D": D, "H": 2, "H_pack": 2, "d_ffn": 5, "tied": True, "ln_eps": 0.1}
    agrees(tmp_path, "luna", config, draw.arrays, reference, ("x_out", "p_out"))


def test_evolving_step_without_a_mask(tmp_path):
    H, N, M, d, draw = 2, 3, 4, 2, Draw()
    for name, shape in {"Q": (N, d), "K": (M, d), "V": (M, d), "A_prev": (N, M)}.items():
        draw.add(f"in.{name}", 2, H, *shape)
    draw.add("w.C", H, H, 3, 3)
    draw.add("w.b_C", H)

    def reference(t):
        current = t["in.Q"] @ t["in.K"].transpose(2, 3) / math.sqrt(d)
        mixed = 0.4 * t["in.A_prev"] + 0.6 * current
        wide = torch.zeros(2, H, N + 2, M + 2).double()
        wide[:, :, 1:-1, 1:-1] = mixed
        cells = [(u, v, wide[:, :, u : u + N, v : v + M]) for u in range(3) for v in range(3)]
        convolved = sum(torch.einsum("hg,bgnm->bhnm", t["w.C"][..., u, v], part) for u, v, part in cells)
        evolved = 0.3 * torch.relu(convolved + t["w.b_C"][:, None, None]) + 0.7 * mixed
        weights = evolved.softmax(-1)
        outputs = {"A_cur": current, "A_in": mixed, "A_logit": evolved, "weights": weights}
        return outputs | {"y": weights @ t["in.V"], "visible": torch.ones(2, N, M, dtype=torch.bool)}

    config = {"mode": "encoder", "alpha_paper": 0.4, "beta_paper": 0.3, "activation": "relu"}
    agrees(tmp_path, "evolving_attention", config, draw.arrays, reference, ("y", "A_logit"))
