"""Lesson 14, otherwise."""

import torch
from torch.nn import functional as F


def maps_by_loops(q, k):
    M, d = len(q), q.shape[-1]
    return torch.stack([q[i] @ k[j].T / d**0.5 for i in range(M) for j in range(M)])


def maps_by_broadcasting(q, k):
    pairs = (q * q.shape[-1] ** -0.5)[:, None] @ k[None].mT  # [M, M, N, L]
    return pairs.reshape(-1, q.shape[1], k.shape[1])


def convolution_of_rows(maps, kernel, bias, groups):
    rows = maps.transpose(0, 1)  # [N, G, L]: a row of all maps is one signal
    return F.conv1d(rows, kernel, bias, padding="same", groups=groups).transpose(0, 1)


def convolution_tap_by_tap(maps, kernel, bias, groups):
    taps, keys = kernel.shape[-1], maps.shape[-1]
    framed = F.pad(maps, (taps // 2, taps // 2)).chunk(groups)
    found = []
    for part, weight in zip(framed, kernel.chunk(groups), strict=True):
        found.append(sum(torch.einsum("cg,gnl->cnl", weight[..., t], part[..., t : t + keys]) for t in range(taps)))
    return torch.cat(found) + bias.view(-1, 1, 1)


def interactions_head_by_head(S, f0, f1, g0, g1):
    M = len(f1[0])
    inner = []
    for maps, w0, b0, w1, b1 in zip(*(t.chunk(M) for t in (S, *f0, *f1)), strict=True):
        inner.append(convolution_of_rows(convolution_of_rows(maps, w0, b0, 1).relu(), w1, b1, 1))
    return convolution_of_rows(convolution_of_rows(torch.cat(inner), *g0, 1).clamp(min=0), *g1, 1)


def interactions_in_double(S, f0, f1, g0, g1):
    S, (F0, a), (F1, b), (G0, c), (G1, d) = S.double(), *((w.double(), bias.double()) for w, bias in (f0, f1, g0, g1))
    M = len(F1)
    for weight, bias, groups, last in ((F0, a, M, False), (F1, b, M, True), (G0, c, 1, False), (G1, d, 1, True)):
        S = convolution_tap_by_tap(S, weight, bias, groups)
        S = S if last else torch.relu(S)
    return S


def hidden_by_products(S, seen, f, g):
    real = seen.to(S.dtype)
    hidden = convolution_of_rows(torch.where(seen, S, torch.zeros_like(S)), *f, 1).relu() * real
    logits = convolution_of_rows(hidden, *g, 1)
    shares = (logits - logits.masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)).exp() * real
    return shares / shares.sum(-1, keepdim=True)


def hidden_by_a_floor(S, seen, f, g):
    for weight, bias in (f, g):
        S = convolution_tap_by_tap(torch.where(seen, S, 0.0), weight, bias, 1)
        S = S.relu() if weight is f[0] else S
    return torch.where(seen, S, torch.finfo(S.dtype).min).softmax(-1)


def recall_with_a_larger_width(ids, num_keys, num_values, layer):
    D = num_keys + num_values
    W = torch.zeros(D, D)
    W[:num_keys, :num_keys] = 10 * torch.eye(num_keys)
    return layer(ids, W, 2 * W, F.one_hot(torch.arange(num_keys, D), D).float(), torch.tensor([0.5, 0.0, 0.0]))


def recall_with_a_difference(ids, num_keys, num_values, layer):
    keys = F.one_hot(torch.arange(num_keys), num_keys + num_values)
    values = F.one_hot(torch.arange(num_keys, num_keys + num_values))
    return layer(ids, keys, keys, values, [50.0, -5.0, 0.0]).double()


ANSWERS = {
    "eit.all_maps": (maps_by_loops, maps_by_broadcasting),
    "eit.key_convolution": (convolution_of_rows, convolution_tap_by_tap),
    "eit.interactions": (interactions_head_by_head, interactions_in_double),
    "eit.hidden_keys": (hidden_by_products, hidden_by_a_floor),
    "eit.recall_by_hand": (recall_with_a_larger_width, recall_with_a_difference),
}
