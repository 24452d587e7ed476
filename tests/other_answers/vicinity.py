"""Lesson 17, otherwise."""

import math

import torch


def factors_by_loops(rows, columns):
    found = []
    for y in range(rows):
        for x in range(columns):
            a, b = math.pi * y / (2 * rows), math.pi * x / (2 * columns)
            found.append([math.sin(b), math.cos(b), math.sin(a), math.cos(a)])  # in another order
    return torch.tensor(found, dtype=torch.float64)


def factors_by_outer_axes(rows, columns):
    a = torch.arange(rows)[:, None].expand(rows, columns) / rows * math.pi / 2
    b = torch.arange(columns).expand(rows, columns) / columns * math.pi / 2
    return torch.stack([f(t).flatten() for t in (a, b) for f in (torch.cos, torch.sin)], 1)


def attention_by_einsum(q, k, v, F):
    F = F.to(q)
    state = torch.einsum("nd,nf,ne->dfe", k.clamp(min=0), F, torch.cat([v, torch.ones_like(v[:, :1])], 1))
    sums = torch.einsum("nd,nf,dfe->ne", q.clamp(min=0), F, state)
    return sums[:, :-1] / (sums[:, -1:] + 1e-4)


def attention_by_four_sums(q, k, v, F):
    q, k, F = q.relu(), k.relu(), F.to(q)
    above = below = 0
    for column in F.T:
        phi_q, phi_k = q * column[:, None], k * column[:, None]
        above = above + phi_q @ (phi_k.T @ v)
        below = below + phi_q @ phi_k.sum(0)
    return above / (below + 1e-4)[:, None]


def layer_by_functional(x, W, b, F):
    linear = torch.nn.functional.linear
    q, k, v = (linear(x, W[name], b[name]) for name in ("query", "key", "value"))
    z = linear(attention_by_four_sums(q, k, v, F), W["output"], b["output"])
    gate = torch.sigmoid(linear(torch.relu(linear(x.mean(0, keepdim=True), W["down"])), W["up"]))
    return torch.addcmul(z, z, gate)


def layer_by_columns(x, W, b, F):
    q, k, v = (torch.stack([row @ W[n].T + b[n] for row in x]) for n in ("query", "key", "value"))
    z = attention_by_einsum(q, k, v, F) @ W["output"].T + b["output"]
    hidden = torch.clamp(W["down"] @ (x.sum(0) / len(x)), min=0)
    return z + z / (1 + torch.exp(-(W["up"] @ hidden)))


def angles_by_loops(rows, columns, r):
    places = [(y, x) for y in range(rows // r) for x in range(columns // r)]
    return tuple(
        torch.tensor([math.pi / 2 * r * place[axis] / size for place in places], dtype=torch.float64)
        for axis, size in enumerate((rows, columns))
    )


def angles_from_tokens(rows, columns, r):
    kept = torch.arange(rows * columns).reshape(rows, columns)[: rows - rows % r : r, : columns - columns % r : r]
    kept = kept.flatten()
    return math.pi / 2 / rows * (kept // columns), math.pi / 2 / columns * (kept % columns)


def sharper_by_repeated_products(rows, columns, power):
    def axis(size):
        angle = torch.arange(size, dtype=torch.float64) * math.pi / (2 * size)
        one = torch.stack([angle.cos(), angle.sin()], 1)
        found = torch.ones(size, 1, dtype=torch.float64)
        for _ in range(power):  # 2^p columns, where p + 1 are enough
            found = (found[:, :, None] * one[:, None, :]).flatten(1)
        return found

    return torch.cat([axis(rows).repeat_interleave(columns, 0), axis(columns).repeat(rows, 1)], 1)


def sharper_by_eigenvectors(rows, columns, power):
    def axis(size):
        angle = torch.arange(size, dtype=torch.float64) * math.pi / (2 * size)
        values, vectors = torch.linalg.eigh((angle[:, None] - angle).cos() ** power)
        return vectors * values.clamp(min=0).sqrt()

    return torch.cat([axis(rows).repeat_interleave(columns, 0), axis(columns).repeat(rows, 1)], 1)


ANSWERS = {
    "vicinity.factors": (factors_by_loops, factors_by_outer_axes),
    "vicinity.vicinity_attention": (attention_by_einsum, attention_by_four_sums),
    "vicinity.layer": (layer_by_functional, layer_by_columns),
    "vicinity.key_angles": (angles_by_loops, angles_from_tokens),
    "vicinity.sharper": (sharper_by_repeated_products, sharper_by_eigenvectors),
}
