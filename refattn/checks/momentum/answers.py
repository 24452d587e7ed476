"""Lesson 16: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch


def decayed(x, beta):
    """x_i + β x_{i-1} + β² x_{i-2} + … along the first axis: given in the notebook."""
    shift = 1
    while shift < len(x):
        x = torch.cat([x[:shift], x[shift:] + beta * x[:-shift]])
        shift, beta = 2 * shift, beta * beta
    return x


def weights(tokens, beta, gamma):
    place = torch.arange(tokens)
    terms = (place[:, None] - place + 1).clamp(min=0)  # i − j + 1 terms of 1 + β + β² + …, none for the future
    return gamma * (1 - beta**terms) / (1 - beta)


def by_distance(tokens, weight):
    place = torch.arange(tokens)
    return weight(place[:, None] - place).tril()


def weights_newest_zero(tokens, beta, gamma):
    return by_distance(tokens, lambda t: gamma * (1 - beta ** t.clamp(min=0)) / (1 - beta))


def weights_velocity(tokens, beta, gamma):
    return by_distance(tokens, lambda t: gamma * beta ** t.clamp(min=0))


def weights_total(tokens, beta, gamma):
    steps = tokens - torch.arange(tokens)
    return (gamma * (1 - beta**steps) / (1 - beta)).expand(tokens, tokens).tril()


def weights_no_step(tokens, beta, gamma):
    return weights(tokens, beta, 1.0)


def weights_unmasked(tokens, beta, gamma):
    place = torch.arange(tokens)
    return gamma * (1 - beta ** (place[:, None] - place + 1).double()).float() / (1 - beta)


def momentum_attention(phi_q, phi_k, v, beta, gamma):
    U = phi_k[:, :, None] * v[:, None, :]  # [N, d, d_v]
    S = gamma / (1 - beta) * (U.cumsum(0) - beta * decayed(U, beta))  # the plain sum less what is still to come
    z = phi_k.cumsum(0)  # [N, d]: no momentum
    return (phi_q[:, None, :] @ S)[:, 0] / (phi_q * z).sum(-1, keepdim=True)


def weighted(phi_q, phi_k, v, factors, normaliser=None):
    """Σ_j factors_ij (φ(q_i)·φ(k_j)) v_j over the same sum with `normaliser` (ones, unless given) and without v."""
    similarity = (phi_q @ phi_k.T).tril()
    total = similarity if normaliser is None else normaliser.to(v.dtype) * similarity
    return (factors.to(v.dtype) * similarity) @ v / total.sum(-1, keepdim=True)


def momentum_attention_total(phi_q, phi_k, v, beta, gamma):
    return weighted(phi_q, phi_k, v, weights_total(len(v), beta, gamma))


def momentum_attention_normalised(phi_q, phi_k, v, beta, gamma):
    factors = weights(len(v), beta, gamma)
    return weighted(phi_q, phi_k, v, factors, factors)


def momentum_attention_velocity(phi_q, phi_k, v, beta, gamma):
    return weighted(phi_q, phi_k, v, weights_velocity(len(v), beta, gamma))


def momentum_attention_newest_zero(phi_q, phi_k, v, beta, gamma):
    return weighted(phi_q, phi_k, v, weights_newest_zero(len(v), beta, gamma))


def momentum_attention_undivided(phi_q, phi_k, v, beta, gamma):
    return (weights(len(v), beta, gamma).to(v.dtype) * (phi_q @ phi_k.T)) @ v


def momentum_step(phi_q, phi_k, v, state, beta, gamma):
    S, p, z = (0.0, 0.0, 0.0) if state is None else state
    p = beta * p - gamma * phi_k[:, None] * v  # [d, d_v]
    S, z = S - p, z + phi_k
    return phi_q @ S / (phi_q @ z), (S, p, z)


def stepper(move):
    """`momentum_step` whose S, p and z go on as move(S, p, z, U, φ(k), β, γ) says."""

    def momentum_step(phi_q, phi_k, v, state, beta, gamma):
        U = phi_k[:, None] * v
        empty = (torch.zeros_like(U), torch.zeros_like(U), torch.zeros_like(phi_k))
        S, p, z = move(*(empty if state is None else state), U, phi_k, beta, gamma)
        return phi_q @ S / (phi_q @ z), (S, p, z)

    return momentum_step


def late(S, p, z, U, k, beta, gamma):
    return S - p, beta * p - gamma * U, z + k


def fading(S, p, z, U, k, beta, gamma):
    return beta * S + gamma * U, p, z + k


def forgetful(S, p, z, U, k, beta, gamma):
    return S + gamma * U, p, z + k


def uphill(S, p, z, U, k, beta, gamma):
    p = beta * p - gamma * U
    return S + p, p, z + k


momentum_step_late = stepper(late)
momentum_step_fading = stepper(fading)
momentum_step_forgetful = stepper(forgetful)
momentum_step_uphill = stepper(uphill)


def momentum_step_normalised(phi_q, phi_k, v, state, beta, gamma):
    S, p, z, w = (0.0, 0.0, 0.0, 0.0) if state is None else state
    p, w = beta * p - gamma * phi_k[:, None] * v, beta * w - gamma * phi_k
    S, z = S - p, z - w
    return phi_q @ S / (phi_q @ z), (S, p, z, w)


def last_state(phi_k, v, lengths, beta, gamma):
    steps = (lengths[:, None] - torch.arange(phi_k.shape[1])).clamp(min=0)  # [B, N]: real keys from this one on
    w = gamma * (1 - beta**steps) / (1 - beta)  # 0 at padding
    return torch.einsum("bn,bnd,bne->bde", w.to(v.dtype), phi_k, v)


def last_state_by(steps, real, phi_k, v, beta, gamma):
    w = gamma * (1 - beta ** steps.double()) / (1 - beta) * real
    return torch.einsum("bn,bnd,bne->bde", w.to(v.dtype), phi_k, v)


def real_keys(phi_k, lengths):
    return torch.arange(phi_k.shape[1]) < lengths[:, None]


def last_state_padded(phi_k, v, lengths, beta, gamma):
    steps = phi_k.shape[1] - torch.arange(phi_k.shape[1])
    return last_state_by(steps, real_keys(phi_k, lengths), phi_k, v, beta, gamma)


def last_state_newest_zero(phi_k, v, lengths, beta, gamma):
    steps = (lengths[:, None] - torch.arange(phi_k.shape[1]) - 1).clamp(min=0)
    return last_state_by(steps, real_keys(phi_k, lengths), phi_k, v, beta, gamma)


def last_state_unmasked(phi_k, v, lengths, beta, gamma):
    steps = lengths[:, None] - torch.arange(phi_k.shape[1])
    return last_state_by(steps, 1.0, phi_k, v, beta, gamma)


def last_state_longest(phi_k, v, lengths, beta, gamma):
    steps = (lengths.max() - torch.arange(phi_k.shape[1])).clamp(min=0)
    return last_state_by(steps, real_keys(phi_k, lengths), phi_k, v, beta, gamma)


def length_of(x):
    return x.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt()  # never 0, so that no gradient is NaN


def adaptive_connection(x, a, before, velocity, gamma, delta):
    ratio = length_of(a - before) / length_of(velocity)  # [N, 1]
    beta = (1 - ratio.sqrt()).square().clamp(0, 1 - delta)
    velocity = beta * velocity - a
    return x - gamma * velocity, velocity


def connected(beta_of):
    """`adaptive_connection` with β = beta_of(a − a_before, velocity, δ)."""

    def adaptive_connection(x, a, before, velocity, gamma, delta):
        velocity = beta_of(a - before, velocity, delta) * velocity - a
        return x - gamma * velocity, velocity

    return adaptive_connection


def clipped(ratio, delta):
    return (1 - ratio.sqrt()).square().clamp(0, 1 - delta)


adaptive_connection_whole = connected(lambda d, v, delta: clipped(d.norm() / v.norm(), delta))
adaptive_connection_no_root = connected(
    lambda d, v, delta: (1 - length_of(d) / length_of(v)).square().clamp(0, 1 - delta)
)
adaptive_connection_early_clip = connected(
    lambda d, v, delta: (1 - (length_of(d) / length_of(v)).sqrt()).clamp(0, 1 - delta).square()
)
adaptive_connection_unclipped = connected(lambda d, v, delta: (1 - (length_of(d) / length_of(v)).sqrt()).square())
adaptive_connection_entries = connected(lambda d, v, delta: clipped((d / v).abs(), delta))
adaptive_connection_detached = connected(lambda d, v, delta: clipped(length_of(d) / length_of(v), delta).detach())
adaptive_connection_bare = connected(
    lambda d, v, delta: clipped(d.norm(dim=-1, keepdim=True) / v.norm(dim=-1, keepdim=True), delta)
)
