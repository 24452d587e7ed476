"""Lesson 03: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import math

import torch
from torch.nn import functional as F


def phi(x):
    """elu(x) + 1, linear attention's feature map."""
    return F.elu(x) + 1.0


def linear_step(q, k, v, state):
    phi_q, phi_k = phi(q), phi(k)  # [d] each
    S, z = (0.0, 0.0) if state is None else state
    S, z = S + phi_k[:, None] * v, z + phi_k  # [d, d_v] and [d]: new tensors, this token in both
    return phi_q @ S / (phi_q @ z), (S, z)


def stepper(divide, *, features=phi, keeps=True, reads_old=False):
    """`linear_step` that divides by divide(φ(q), φ(k), z, t), or reads or keeps something else."""

    def linear_step(q, k, v, state):
        phi_q, phi_k = features(q), features(k)
        S, z, t = state or (torch.zeros(len(k), len(v)).to(v), torch.zeros_like(k), 0)
        new = S + phi_k[:, None] * v, z + phi_k, t + 1
        if not keeps:
            new = phi_k[:, None] * v, phi_k, 1
        S, z, t = (S, z, t) if reads_old else new
        return phi_q @ S / divide(phi_q, phi_k, z, t), new

    return linear_step


linear_step_bare = stepper(lambda phi_q, phi_k, z, t: 1.0)
linear_step_own_key = stepper(lambda phi_q, phi_k, z, t: phi_q @ phi_k)
linear_step_count = stepper(lambda phi_q, phi_k, z, t: t)
linear_step_not_itself = stepper(lambda phi_q, phi_k, z, t: phi_q @ z, reads_old=True)
linear_step_forgets = stepper(lambda phi_q, phi_k, z, t: phi_q @ z, keeps=False)
linear_step_raw = stepper(lambda phi_q, phi_k, z, t: phi_q @ z, features=lambda x: x)


def favor_features(q, k, Omega, eps):
    m, d = Omega.shape
    q, k = q / d**0.25, k / d**0.25  # both, so that products are q·k/√d
    u_q, u_k = q @ Omega.T, k @ Omega.T  # [N, m], [M, m]
    half_q, half_k = (x.square().sum(-1, keepdim=True) / 2 for x in (q, k))
    phi_q = (u_q - half_q - u_q.amax(-1, keepdim=True)).exp() + eps  # a factor of its own for each query: it cancels
    phi_k = (u_k - half_k - u_k.max()).exp() + eps  # one for all keys: only that cancels
    return phi_q / math.sqrt(m), phi_k / math.sqrt(m)


def favor(
    q,
    k,
    Omega,
    eps,
    *,
    largest_q=lambda u, size: u.amax(-1, keepdim=True),
    largest_k=lambda u, size: u.max(),
    scale=0.25,
    norm_scale=None,
    norm=1.0,
    power=0.5,
):
    """`favor_features` with one thing or another wrong."""
    m, d = Omega.shape
    found = []
    for x, largest in ((q, largest_q), (k, largest_k)):
        u = x / d**scale @ Omega.T
        size = norm * (x / d ** (scale if norm_scale is None else norm_scale)).square().sum(-1, keepdim=True) / 2
        found.append(((u - size - largest(u, size)).exp() + eps) / m**power)
    return tuple(found)


def favor_features_per_key(q, k, Omega, eps):
    return favor(q, k, Omega, eps, largest_k=lambda u, size: u.amax(-1, keepdim=True))


def favor_features_none(q, k, Omega, eps):
    return favor(q, k, Omega, eps, largest_q=lambda u, size: 0.0, largest_k=lambda u, size: 0.0)


def favor_features_whole(q, k, Omega, eps):
    return favor(
        q,
        k,
        Omega,
        eps,
        largest_q=lambda u, size: (u - size).amax(-1, keepdim=True),
        largest_k=lambda u, size: (u - size).max(),
    )


def favor_features_all_queries(q, k, Omega, eps):
    return favor(q, k, Omega, eps, largest_q=lambda u, size: u.max())


def favor_features_unscaled_norm(q, k, Omega, eps):
    return favor(q, k, Omega, eps, norm_scale=0.0)


def favor_features_unscaled(q, k, Omega, eps):
    return favor(q, k, Omega, eps, scale=0.0)


def favor_features_no_norm(q, k, Omega, eps):
    return favor(q, k, Omega, eps, norm=0.0)


def favor_features_by_m(q, k, Omega, eps):
    return favor(q, k, Omega, eps, power=1.0)


def ptolemy(x, M):
    theta = torch.arange(len(x))[:, None] * math.pi / (2 * M)  # [N, 1]
    return torch.cat([F.relu(x) * theta.cos(), F.relu(x) * theta.sin()], -1)  # [N, 2d]


def turned(x, M, *, quarter=math.pi / 2, feature_map=F.relu, combine=lambda c, s: torch.cat([c, s], -1)):
    """`ptolemy` with one thing or another wrong."""
    theta = torch.arange(len(x))[:, None] * quarter / M
    return combine(feature_map(x) * theta.cos(), feature_map(x) * theta.sin())


def ptolemy_wide(x, M):
    return turned(x, M, quarter=math.pi)


def ptolemy_bare_angle(x, M):
    return turned(x, M, quarter=1.0)


def ptolemy_length(x, M):
    return turned(x, len(x))


def ptolemy_cosine_only(x, M):
    return turned(x, M, combine=lambda c, s: c)


def ptolemy_sum(x, M):
    return turned(x, M, combine=lambda c, s: c + s)


def ptolemy_signed(x, M):
    return turned(x, M, feature_map=lambda x: x)


def ptolemy_elu(x, M):
    return turned(x, M, feature_map=phi)


def cosformer_causal(q, k, v, max_len):
    reach = max_len  # a constant: the length of what has been read so far is no property of two tokens
    theta = torch.arange(len(q))[:, None] * math.pi / (2 * reach)  # [N, 1]
    phi_q, phi_k = (torch.cat([F.relu(x) * theta.cos(), F.relu(x) * theta.sin()], -1) for x in (q, k))  # [N, 2d]
    weights = (phi_q @ phi_k.T).tril()  # [N, N]
    return weights @ v / weights.sum(-1, keepdim=True).clamp(min=1e-6)


def causal(q, k, v, theta):
    """`cosformer_causal` with these angles [N, 1]."""
    phi_q, phi_k = (torch.cat([F.relu(x) * theta.cos(), F.relu(x) * theta.sin()], -1) for x in (q, k))
    weights = (phi_q @ phi_k.T).tril()
    return weights @ v / weights.sum(-1, keepdim=True).clamp(min=1e-6)


def cosformer_causal_length(q, k, v, max_len):
    reach = min(len(q), max_len)
    return causal(q, k, v, torch.arange(len(q))[:, None] * math.pi / (2 * reach))


def cosformer_causal_flat(q, k, v, max_len):
    return causal(q, k, v, torch.zeros(len(q), 1))


def cosformer_causal_own_length(q, k, v, max_len):
    place = torch.arange(len(q))[:, None]
    return causal(q, k, v, place * math.pi / (2 * (place + 1)))


def cosformer_causal_wide(q, k, v, max_len):
    return causal(q, k, v, torch.arange(len(q))[:, None] * math.pi / max_len)
