"""Lesson 22, otherwise."""

import torch
from torch.nn import functional as F


def parameters_by_shapes(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    shapes = [(D, D)] * 4 * attentions
    shapes += [(D, f_e), (f_e, D)] * encoder_nets + [(D, f_d), (f_d, D)] * decoder_nets
    return sum(rows * columns for rows, columns in shapes)


def parameters_factored(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return torch.tensor(2 * D * (2 * attentions * D + encoder_nets * f_e + decoder_nets * f_d))


def adds_by_products(D, f_e, f_d, L_e, L_d, S, T, V):
    """Every matrix product as (rows, inner, columns)."""

    def attention(queries, keys):
        return [(queries, D, D)] * 2 + [(keys, D, D)] * 2 + [(queries, D, keys), (queries, keys, D)]

    def net(tokens, width):
        return [(tokens, D, width), (tokens, width, D)]

    products = (attention(S, S) + net(S, f_e)) * L_e
    products += (attention(T, T) + net(T, f_d) + attention(T, S) + net(T, f_d)) * L_d + [(T, D, V)]
    return sum(a * b * c for a, b, c in products)


def adds_by_parts(D, f_e, f_d, L_e, L_d, S, T, V):
    linear = L_e * S * (4 * D**2 + 2 * D * f_e) + L_d * (6 * T * D**2 + 2 * S * D**2 + 4 * T * D * f_d)
    return linear + L_e * 2 * S**2 * D + L_d * 2 * T * D * (T + S) + T * D * V


def layer_by_a_loop(x, encoded, own, cross, net, norms):
    subs = (("self", own), ("net", net), ("cross", lambda u: cross(u, encoded)), ("net", net))
    for name, branch in subs:
        x = branch(norms[name](x)) + x
    return x


def layer_by_halves(x, encoded, own, cross, net, norms):
    def half(u, attention, name):
        u = u + attention(norms[name](u))
        return u + net(norms["net"](u))

    return half(half(x, own, "self"), lambda u: cross(u, encoded), "cross")


def stream_in_fixed_room(x, groups, weights):
    """Room for all keys and values from the beginning, the matrices stacked, what is not written yet hidden."""
    n, d = x.shape
    room = x.new_zeros(len(groups), 2, n, d)
    stacked = [torch.cat(matrices) for matrices in weights]
    outputs = torch.empty_like(x)
    for t in range(n):
        y = x[t : t + 1]
        for layer, group in enumerate(groups):
            q, *kept = F.linear(y, stacked[group].to(y.dtype)).chunk(3, dim=-1)
            room[layer, :, t] = torch.cat(kept)
            k, v = room[layer]
            y = y + F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=torch.arange(n)[None] <= t)[0]
        outputs[t] = y[0]
    return outputs


def stream_with_tensors(x, groups, weights):
    keys, values, outputs = {}, {}, []
    for t, token in enumerate(x):
        for layer, group in enumerate(groups):
            q, k, v = (W @ token for W in weights[group])
            keys[layer] = k[None] if t == 0 else torch.cat([keys[layer], k[None]])
            values[layer] = v[None] if t == 0 else torch.cat([values[layer], v[None]])
            token = token + torch.softmax(keys[layer] @ q / len(q) ** 0.5, 0) @ values[layer]
        outputs.append(token)
    return torch.stack(outputs)


def adapted_by_merging(x, padded, W, own):
    """Low-rank maps are added to the matrices, once."""
    W, bias = dict(W), own.get("bias", {})
    if "adapter" in own:
        A_q, B_q, A_v, B_v = own["adapter"]
        W["q"], W["v"] = W["q"] + B_q @ A_q, W["v"] + B_v @ A_v
    q, k, v = (F.linear(x, W[name], bias.get(name)) for name in "qkv")
    hidden = padded
    if "prefix" in own:
        k, v = torch.cat([own["prefix"][0], k]), torch.cat([own["prefix"][1], v])
        hidden = torch.cat([torch.zeros(len(own["prefix"][0]), dtype=torch.bool), hidden])
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=~hidden.expand(len(x), -1))[0]


def adapted_by_removing(x, padded, W, own):
    """Padded keys are taken out, then prefixes put in front."""
    q, k, v = (x @ W[name].mT + own.get("bias", {}).get(name, 0) for name in "qkv")
    A_q, B_q, A_v, B_v = own.get("adapter", (x[:0],) * 4)
    if "adapter" in own:
        q, v = q + (B_q @ (A_q @ x.T)).T, v + (B_v @ (A_v @ x.T)).T
    P_k, P_v = own.get("prefix", (x[:0], x[:0]))
    k, v = torch.cat([P_k, k[~padded]]), torch.cat([P_v, v[~padded]])
    return torch.softmax(q @ k.T / q.shape[1] ** 0.5, -1) @ v


ANSWERS = {
    "edgeformer.parameters": (parameters_by_shapes, parameters_factored),
    "edgeformer.multiply_adds": (adds_by_products, adds_by_parts),
    "edgeformer.interleaved_layer": (layer_by_a_loop, layer_by_halves),
    "edgeformer.stream": (stream_in_fixed_room, stream_with_tensors),
    "edgeformer.adapted_attention": (adapted_by_merging, adapted_by_removing),
}
