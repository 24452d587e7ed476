"""Lesson 17: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import math

import torch

EPS = 1e-4
HALF_PI = math.pi / 2


def places(rows, columns):
    """Row and column of every token, read row by row."""
    token = torch.arange(rows * columns)
    return token // columns, token % columns


def turned(a, b):
    return torch.stack([a.cos(), a.sin(), b.cos(), b.sin()], -1)


def factors(rows, columns):
    y, x = places(rows, columns)
    return turned(HALF_PI * y / rows, HALF_PI * x / columns)  # [N, 4]


def factors_swapped(rows, columns):
    y, x = places(rows, columns)
    return turned(HALF_PI * y / columns, HALF_PI * x / rows)


def factors_column_by_column(rows, columns):
    x, y = places(columns, rows)
    return turned(HALF_PI * y / rows, HALF_PI * x / columns)


def factors_to_the_end(rows, columns):
    y, x = places(rows, columns)
    return turned(HALF_PI * y / max(1, rows - 1), HALF_PI * x / max(1, columns - 1))


def factors_full_turn(rows, columns):
    y, x = places(rows, columns)
    return turned(math.pi * y / rows, math.pi * x / columns)


def factors_product(rows, columns):
    y, x = places(rows, columns)
    a, b = HALF_PI * y / rows, HALF_PI * x / columns
    return torch.stack([a.cos() * b.cos(), a.cos() * b.sin(), a.sin() * b.cos(), a.sin() * b.sin()], -1)


def features(x, F):
    """relu(x) ⊗ F: [N, d] and [N, m] to [N, m, d]."""
    return x.relu()[:, None, :] * F.to(x.dtype)[:, :, None]


def vicinity_attention(q, k, v, F):
    phi_q, phi_k = (features(x, F).flatten(1) for x in (q, k))  # [N, 4d]
    M, s = phi_k.T @ v, phi_k.sum(0)  # [4d, d_v], [4d]: shared by all queries
    return (phi_q @ M) / ((phi_q @ s)[:, None] + EPS)


def attended(S, v):
    return S @ v / (S.sum(-1, keepdim=True) + EPS)


def vicinity_attention_map(q, k, v, F):
    F = F.to(q.dtype)
    return attended((q.relu() @ k.relu().T) * (F @ F.T), v)


def vicinity_attention_blocks(q, k, v, F):
    outputs = 0.0
    for phi_q, phi_k in zip(features(q, F).unbind(1), features(k, F).unbind(1), strict=True):  # [N, d] each
        outputs = outputs + (phi_q @ (phi_k.T @ v)) / ((phi_q @ phi_k.sum(0))[:, None] + EPS)
    return outputs


def vicinity_attention_blocks_mean(q, k, v, F):
    return vicinity_attention_blocks(q, k, v, F) / F.shape[1]


def vicinity_attention_scaled(q, k, v, F):
    S = (q @ k.T / math.sqrt(q.shape[-1])).relu()
    F = F.to(q.dtype)
    return attended(S * (F @ F.T), v)


def vicinity_attention_no_relu(q, k, v, F):
    F = F.to(q.dtype)
    return attended((q @ k.T) * (F @ F.T), v)


def vicinity_attention_no_factors(q, k, v, F):
    return attended(q.relu() @ k.relu().T, v)


def vicinity_attention_queries_only(q, k, v, F):
    F = F.to(q.dtype)
    return attended((q.relu() @ k.relu().T) * F.sum(-1, keepdim=True), v)


def vicinity_attention_undivided(q, k, v, F):
    F = F.to(q.dtype)
    return ((q.relu() @ k.relu().T) * (F @ F.T)) @ v


def mapped(x, W, b, name):
    return x @ W[name].T + b[name]


def attend_reduced(x, W, b, F):
    q, k, v = (mapped(x, W, b, name) for name in ("query", "key", "value"))  # [N, D / ρ]
    return vicinity_attention(q, k, v, F)


def gate_of(mean, W):
    return ((mean @ W["down"].T).relu() @ W["up"].T).sigmoid()


def layer(x, W, b, F):
    z = mapped(attend_reduced(x, W, b, F), W, b, "output")  # [N, D]
    return z * (1 + gate_of(x.mean(0), W))


def layer_squeezed(x, W, b, F):
    return mapped(attend_reduced(x, W, b, F), W, b, "output") * gate_of(x.mean(0), W)


def layer_residual(x, W, b, F):
    z = mapped(attend_reduced(x, W, b, F), W, b, "output")
    return z + x * gate_of(x.mean(0), W)


def layer_gate_of_output(x, W, b, F):
    z = mapped(attend_reduced(x, W, b, F), W, b, "output")
    return z * (1 + gate_of(z.mean(0), W))


def layer_gate_a_token(x, W, b, F):
    z = mapped(attend_reduced(x, W, b, F), W, b, "output")
    return z * (1 + gate_of(x, W))


def layer_ungated(x, W, b, F):
    return mapped(attend_reduced(x, W, b, F), W, b, "output")


def key_angles(rows, columns, r):
    keys_down, keys_across = rows // r, columns // r
    key = torch.arange(keys_down * keys_across)
    return HALF_PI * r * (key // keys_across) / rows, HALF_PI * r * (key % keys_across) / columns


def key_angles_fractional(rows, columns, r):
    key = torch.arange((rows // r) * (columns // r))
    a = HALF_PI * (key // (columns / r)) / (rows / r)
    b = HALF_PI * (key % (columns / r)) / (columns / r)
    return a, b


def key_angles_stretched(rows, columns, r):
    keys_down, keys_across = rows // r, columns // r
    key = torch.arange(keys_down * keys_across)
    return HALF_PI * (key // keys_across) / keys_down, HALF_PI * (key % keys_across) / keys_across


def key_angles_unscaled(rows, columns, r):
    keys_down, keys_across = rows // r, columns // r
    key = torch.arange(keys_down * keys_across)
    return HALF_PI * (key // keys_across) / rows, HALF_PI * (key % keys_across) / columns


def sharper(rows, columns, power):
    y, x = places(rows, columns)

    def axis(angle):  # [N, p + 1]: (cos cos + sin sin)^p by the binomial theorem
        terms = [
            math.sqrt(math.comb(power, t)) * angle.cos() ** (power - t) * angle.sin() ** t for t in range(power + 1)
        ]
        return torch.stack(terms, -1)

    return torch.cat([axis(HALF_PI * y / rows), axis(HALF_PI * x / columns)], -1)


def sharper_harmonic(rows, columns, power):
    y, x = places(rows, columns)
    return turned(power * HALF_PI * y / rows, power * HALF_PI * x / columns)


def sharper_entries(rows, columns, power):
    return factors(rows, columns) ** power


def sharper_whole(rows, columns, power):
    F = factors(rows, columns)
    found = F
    for _ in range(power - 1):
        found = (found[:, :, None] * F[:, None, :]).flatten(1)
    return found


def sharper_unchanged(rows, columns, power):
    return factors(rows, columns)
