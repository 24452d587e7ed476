"""Lesson 16, otherwise."""

import torch
from torch.nn import functional as F


def weights_by_sums(tokens, beta, gamma):
    powers = torch.tensor([beta**t for t in range(tokens)])
    rows = [F.pad(gamma * powers[: i + 1].cumsum(0).flip(0), (0, tokens - 1 - i)) for i in range(tokens)]
    return torch.stack(rows)


def weights_by_recurrence(tokens, beta, gamma):
    p, S, rows = torch.zeros(tokens), torch.zeros(tokens), []
    for i in range(tokens):
        p = beta * p - gamma * F.one_hot(torch.tensor(i), tokens)
        S = S - p
        rows.append(S)
    return torch.stack(rows)


def attention_token_by_token(phi_q, phi_k, v, beta, gamma):
    state, outputs = None, []
    for token in zip(phi_q, phi_k, v, strict=True):
        y, state = step_with_a_dictionary(*token, state, beta, gamma)
        outputs.append(y)
    return torch.stack(outputs)


def attention_by_two_loops(phi_q, phi_k, v, beta, gamma):
    plain = fading = z = 0.0
    outputs = []
    for q, k, value in zip(phi_q, phi_k, v, strict=True):
        U = torch.outer(k, value)
        plain, fading, z = plain + U, beta * fading + U, z + k
        outputs.append(gamma * (q @ (plain - beta * fading)) / (1 - beta) / (q @ z))
    return torch.stack(outputs)


def step_with_a_dictionary(phi_q, phi_k, v, state, beta, gamma):
    old = state or {"S": 0.0, "forward": 0.0, "z": 0.0}
    forward = beta * old["forward"] + gamma * torch.outer(phi_k, v)  # −p
    new = {"S": old["S"] + forward, "forward": forward, "z": old["z"] + phi_k}
    return torch.einsum("d,de->e", phi_q, new["S"]) / phi_q.dot(new["z"]), new


def step_with_two_sums(phi_q, phi_k, v, state, beta, gamma):
    plain, fading, z = (0.0, 0.0, 0.0) if state is None else state
    U = torch.outer(phi_k, v)
    plain, fading, z = plain + U, beta * fading + U, z + phi_k
    return gamma / (1 - beta) * (phi_q @ (plain - beta * fading)) / (phi_q @ z), (plain, fading, z)


def state_by_sequence(phi_k, v, lengths, beta, gamma):
    states = []
    for k, values, n in zip(phi_k, v, lengths.tolist(), strict=True):
        p = S = torch.zeros(k.shape[1], values.shape[1], dtype=values.dtype)
        for j in range(n):
            p = beta * p - gamma * torch.outer(k[j], values[j])
            S = S - p
        states.append(S)
    return torch.stack(states)


def state_by_masked_count(phi_k, v, lengths, beta, gamma):
    real = (torch.arange(v.shape[1]) < lengths[:, None]).to(v.dtype)
    steps = real.flip(1).cumsum(1).flip(1)
    w = gamma * (1 - beta**steps) / (1 - beta) * real
    return phi_k.transpose(1, 2) @ (w[..., None] * v)


def connection_by_token(x, a, before, velocity, gamma, delta):
    moved = []
    for branch, old, v in zip(a, before, velocity, strict=True):
        if not (v != 0).any() or torch.equal(branch, old):
            beta = torch.zeros(()) if not (v != 0).any() else torch.tensor(1 - delta)
        else:
            change, speed = (branch - old).square().sum(), v.square().sum()
            beta = (1 - (change / speed) ** 0.25).square().clamp(max=1 - delta)
        moved.append(beta * v - branch)
    moved = torch.stack(moved)
    return x - gamma * moved, moved


def connection_by_roots(x, a, before, velocity, gamma, delta):
    change, speed = (t.square().sum(-1, keepdim=True).clamp_min(1e-24) for t in (a - before, velocity))
    ratio = torch.exp((change.log() - speed.log()) / 4)  # √(‖Δa‖ / ‖v‖)
    beta = torch.minimum((ratio - 1) ** 2, torch.full_like(ratio, 1 - delta))
    moved = torch.addcmul(-a, beta, velocity)
    return torch.add(x, moved, alpha=-gamma), moved


ANSWERS = {
    "momentum.weights": (weights_by_sums, weights_by_recurrence),
    "momentum.momentum_attention": (attention_token_by_token, attention_by_two_loops),
    "momentum.momentum_step": (step_with_a_dictionary, step_with_two_sums),
    "momentum.last_state": (state_by_sequence, state_by_masked_count),
    "momentum.adaptive_connection": (connection_by_token, connection_by_roots),
}
