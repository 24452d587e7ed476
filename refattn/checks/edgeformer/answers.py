"""Lesson 22: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch
from torch.nn import functional as F


def attend(q, k, v, seen=None):
    """One head: q [N, d], k, v [M, d]; seen: bool [N, M] or [M]. Given in the notebook."""
    logits = q @ k.T / q.shape[-1] ** 0.5
    if seen is not None:
        logits = logits.masked_fill(~seen, float("-inf"))
    return logits.softmax(-1) @ v


def norm(x):
    """LayerNorm without gains. Given in the notebook."""
    return F.layer_norm(x, x.shape[-1:])


# ---- Counts ----------------------------------------------------------------------------------------------------------


def parameters(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return attentions * 4 * D * D + encoder_nets * 2 * D * f_e + decoder_nets * 2 * D * f_d


def parameters_of_uses(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return (12 + 2 * decoder_nets) * 4 * D * D + 12 * 2 * D * f_e + decoder_nets * 2 * D * f_d


def parameters_of_all_uses(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return parameters_of_uses(D, f_e, 2 * f_d, attentions, encoder_nets, decoder_nets)


def parameters_widths_swapped(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return parameters(D, f_d, f_e, attentions, encoder_nets, decoder_nets)


def parameters_with_biases(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    biases = attentions * 4 * D + encoder_nets * (f_e + D) + decoder_nets * (f_d + D)
    return parameters(D, f_e, f_d, attentions, encoder_nets, decoder_nets) + biases


def parameters_net_twice(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return parameters(D, f_e, 2 * f_d, attentions, encoder_nets, decoder_nets)


def parameters_decoder_attention(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return parameters(D, f_e, f_d, attentions + 2 * decoder_nets, encoder_nets, decoder_nets)


def parameters_three_maps(D, f_e, f_d, attentions, encoder_nets, decoder_nets):
    return parameters(D, f_e, f_d, attentions, encoder_nets, decoder_nets) - attentions * D * D


def adds(D, f_e, f_d, L_e, L_d, S, T, V, *, passes=2, source=None, output=True, maps=2, pairs=None):
    """passes: of the decoder's net a layer.  source: tokens that cross attention makes keys of.  maps: products of a
    map, queries with keys and weights with values.  pairs: of target tokens."""
    source, pairs = S if source is None else source, T * T if pairs is None else pairs
    linear = L_e * S * (4 * D * D + 2 * D * f_e) + L_d * T * (6 * D * D + passes * 2 * D * f_d)
    linear += L_d * 2 * source * D * D
    attention = L_e * S * S * D + L_d * (pairs * D + T * S * D)
    return linear + attention * maps + T * D * V * output


def multiply_adds(D, f_e, f_d, L_e, L_d, S, T, V):
    encoder = L_e * (S * (4 * D * D + 2 * D * f_e) + 2 * S * S * D)
    own = T * (4 * D * D + 2 * T * D)
    cross = 2 * T * D * D + 2 * S * D * D + 2 * T * S * D
    nets = 2 * T * 2 * D * f_d  # the same net runs twice in a layer
    return encoder + L_d * (own + cross + nets) + T * D * V


def multiply_adds_once(D, f_e, f_d, L_e, L_d, S, T, V):
    encoder = 4 * (S * 4 * D * D + 2 * S * S * D) + 2 * S * 2 * D * f_e  # each of 4 attentions and 2 nets once
    return encoder + multiply_adds(D, f_e, f_d, 0, L_d, S, T, V)


def multiply_adds_encoder_once(D, f_e, f_d, L_e, L_d, S, T, V):
    """4 attentions and 2 nets of the encoder once, every layer's maps."""
    return multiply_adds(D, f_e, f_d, L_e, L_d, S, T, V) - S * ((L_e - 4) * 4 * D * D + (L_e - 2) * 2 * D * f_e)


def multiply_adds_stored(D, f_e, f_d, L_e, L_d, S, T, V):
    """Every distinct matrix once: the decoder's attentions are the encoder's, its net one a layer."""
    once = multiply_adds_encoder_once(D, f_e, f_d, L_e, L_d, S, T, V)
    return once - L_d * (6 * T * D * D + 2 * S * D * D + T * 2 * D * f_d)


def multiply_adds_no_source(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, source=0)


def multiply_adds_source_of_target(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, source=T)


def multiply_adds_no_output(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, output=False)


def multiply_adds_one_net(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, passes=1)


def multiply_adds_no_maps(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, maps=0)


def multiply_adds_no_values(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, maps=1)


def multiply_adds_visible(D, f_e, f_d, L_e, L_d, S, T, V):
    return adds(D, f_e, f_d, L_e, L_d, S, T, V, pairs=T * (T + 1) // 2)


def multiply_adds_flops(D, f_e, f_d, L_e, L_d, S, T, V):
    return 2 * multiply_adds(D, f_e, f_d, L_e, L_d, S, T, V)


# ---- The layer -------------------------------------------------------------------------------------------------------


def interleaved_layer(x, encoded, own, cross, net, norms):
    u = x + own(norms["self"](x))
    u = u + net(norms["net"](u))
    u = u + cross(norms["cross"](u), encoded)
    return u + net(norms["net"](u))  # the same net, the same norm


def interleaved_layer_post(x, encoded, own, cross, net, norms):
    u = norms["self"](x + own(x))
    u = norms["net"](u + net(u))
    u = norms["cross"](u + cross(u, encoded))
    return norms["net"](u + net(u))


def interleaved_layer_standard(x, encoded, own, cross, net, norms):
    u = x + own(norms["self"](x))
    u = u + cross(norms["cross"](u), encoded)
    return u + net(norms["net"](u))


def interleaved_layer_one_net(x, encoded, own, cross, net, norms):
    u = x + own(norms["self"](x))
    u = u + net(norms["net"](u))
    return u + cross(norms["cross"](u), encoded)


def interleaved_layer_third_norm(x, encoded, own, cross, net, norms):
    u = interleaved_layer_one_net(x, encoded, own, cross, net, norms)
    return u + net(F.layer_norm(u, u.shape[-1:]))


def interleaved_layer_last_norm(x, encoded, own, cross, net, norms):
    return norms["net"](interleaved_layer(x, encoded, own, cross, net, norms))


def interleaved_layer_no_residual(x, encoded, own, cross, net, norms):
    u = own(norms["self"](x))
    u = net(norms["net"](u))
    u = cross(norms["cross"](u), encoded)
    return net(norms["net"](u))


def interleaved_layer_cross_replaces(x, encoded, own, cross, net, norms):
    u = x + own(norms["self"](x))
    u = u + net(norms["net"](u))
    u = cross(norms["cross"](u), encoded)
    return u + net(norms["net"](u))


def interleaved_layer_normed_stream(x, encoded, own, cross, net, norms):
    u = norms["self"](x)
    u = norms["net"](u + own(u))
    u = norms["cross"](u + net(u))
    u = norms["net"](u + cross(u, encoded))
    return u + net(u)


def interleaved_layer_stale(x, encoded, own, cross, net, norms):
    u = x + own(norms["self"](x))
    after = u + net(norms["net"](u))
    u = after + cross(norms["cross"](u), encoded)
    return u + net(norms["net"](u))


# ---- The stream ------------------------------------------------------------------------------------------------------


def streamed(x, groups, weights, cached):
    """Tokens one by one through layers; `cached(layer, group)` names the cache that a layer appends to and reads."""
    caches, outputs = {}, []
    for x_t in x:
        for layer, group in enumerate(groups):
            W_q, W_k, W_v = weights[group]
            cache = caches.setdefault(cached(layer, group), [])
            cache.append((W_k @ x_t, W_v @ x_t))
            keys, values = (torch.stack(part) for part in zip(*cache, strict=True))
            x_t = x_t + attend((W_q @ x_t)[None], keys, values)[0]
        outputs.append(x_t)
    return torch.stack(outputs)


def stream(x, groups, weights):
    caches = [[] for _ in groups]  # one for every layer, whoever's weights it uses
    outputs = []
    for x_t in x:
        for cache, group in zip(caches, groups, strict=True):
            W_q, W_k, W_v = weights[group]
            cache.append((W_k @ x_t, W_v @ x_t))
            keys, values = (torch.stack(part) for part in zip(*cache, strict=True))
            x_t = x_t + attend((W_q @ x_t)[None], keys, values)[0]
        outputs.append(x_t)
    return torch.stack(outputs)


def stream_by_weights(x, groups, weights):
    return streamed(x, groups, weights, lambda layer, group: group)


def stream_one_cache(x, groups, weights):
    return streamed(x, groups, weights, lambda layer, group: 0)


def stream_first_input(x, groups, weights):
    """Keys and values once a group, of the token as it came in: cheap, and another network."""
    outputs = []
    for t in range(len(x)):
        x_t = x[t]
        for group in groups:
            W_q, W_k, W_v = weights[group]
            x_t = x_t + attend((W_q @ x_t)[None], x[: t + 1] @ W_k.T, x[: t + 1] @ W_v.T)[0]
        outputs.append(x_t)
    return torch.stack(outputs)


# ---- What is a layer's own -------------------------------------------------------------------------------------------


def adapted_attention(x, padded, W, own):
    q, k, v = (x @ W[name].T for name in "qkv")
    for name in own.get("bias", ()):
        q, k, v = (part + own["bias"][n] if n == name else part for n, part in zip("qkv", (q, k, v), strict=True))
    if "adapter" in own:
        A_q, B_q, A_v, B_v = own["adapter"]
        q, v = q + x @ A_q.T @ B_q.T, v + x @ A_v.T @ B_v.T
    seen = ~padded
    if "prefix" in own:
        P_k, P_v = own["prefix"]
        k, v = torch.cat([P_k, k]), torch.cat([P_v, v])
        seen = F.pad(seen, (len(P_k), 0), value=True)
    return attend(q, k, v, seen)


def adapting(
    *, after_scaling=False, keys_too=False, values=True, shifted=False, projected=False, hidden=False, padding=True
):
    """`adapted_attention` with one mistake."""

    def wrong(x, padded, W, own):
        q, k, v = (x @ W[name].T + own.get("bias", {}).get(name, 0.0) for name in "qkv")
        if "adapter" in own:
            A_q, B_q, A_v, B_v = own["adapter"]
            more = x @ A_q.T @ B_q.T
            q = q + more * (q.shape[-1] ** 0.5 if after_scaling else 1.0)
            k = k + more if keys_too else k
            v = v + x @ A_v.T @ B_v.T if values else v
        seen = ~padded if padding else padded | True
        if "prefix" in own:
            P_k, P_v = own["prefix"]
            if projected:
                P_k, P_v = P_k @ W["k"].T, P_v @ W["v"].T
            k, v = torch.cat([P_k, k]), torch.cat([P_v, v])
            sides = (0, len(P_k)) if shifted else (len(P_k), 0)
            seen = F.pad(seen, sides, value=not hidden)
        return attend(q, k, v, seen)

    return wrong


adapted_attention_after_scaling = adapting(after_scaling=True)
adapted_attention_keys_too = adapting(keys_too=True)
adapted_attention_queries_only = adapting(values=False)
adapted_attention_shifted = adapting(shifted=True)
adapted_attention_projected = adapting(projected=True)
adapted_attention_hidden = adapting(hidden=True)
adapted_attention_all_heard = adapting(padding=False)
