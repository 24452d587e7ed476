"""Heavy ball on the state of linear attention: weights by distance, all tokens at once in chunks, and one at a time.

No mechanism of its own; `momentum.py` and `adaptive_momentum.py` are built on it, and their equations are meant.

    p_i = β p_{i-1} − γ k_iᵀ v_i      S_i = S_{i-1} − p_i      so key j weighs w_t = γ (1 + β + … + β^t), t = i − j
"""

import torch
from torch.nn import functional as F

from refattn.attention.base import working_dtype
from refattn.attention.linear import chunk_size, empty_sums


def momentum_factors(steps, beta, gamma=1.0):
    """w_t of eq. (3), γ (1 + β + … + β^t), for `steps` = t + 1 terms (a tensor of whole numbers), in float64."""
    steps = steps.double()
    return gamma * (steps if beta == 1.0 else (1.0 - beta**steps) / (1.0 - beta))  # the limit, where 0 / 0 would stand


def distance_factors(tokens, beta, gamma, device=None):
    """The triangle of w_{i−j} of eq. (3), [N, N], zero above the diagonal; float64."""
    place = torch.arange(tokens, device=device)
    return momentum_factors((place[:, None] - place + 1).clamp(min=0), beta, gamma)


def last_state_factors(keys, beta, gamma, *, form="recurrent", key_padding_mask=None, device=None):
    """Weight of every key in the last state, w_{M−j}: [B or 1, 1, M, 1], float64.

    form: "recurrent" counts real keys only, so padding changes nothing; "parallel_total_length" counts all, eq. (4).
    """
    if key_padding_mask is None or form == "parallel_total_length":
        steps = torch.arange(keys, 0, -1, device=device)[None]
    else:
        steps = (~key_padding_mask).flip(1).cumsum(1).flip(1)  # real keys from this one on
    return momentum_factors(steps, beta, gamma)[:, None, :, None]


def momentum_sums(phi_q, phi_k, v, *, beta, gamma, chunk=None):
    """Both sums of eq. (3) for every i, in linear time: `causal_product` with a velocity, and without one.

    Quadratic inside a chunk of C tokens; between chunks a state S, a velocity m = −p, and z. r tokens after the border,
    what lay before it has become S + (β + … + β^r) m, so a query reads both.

    Args: φ(q), φ(k) [B, H, N, d], v [B, H, N, d_v]; chunk: C, `chunk_size` unless given.
    Returns: numerator [B, H, N, d_v] and denominator [B, H, N, 1], in float32 for half-precision input.
    """
    q, k, v = (t.to(working_dtype(t)) for t in (phi_q, phi_k, v))
    batch_and_heads, tokens, chunk = q.shape[:2], q.shape[2], chunk or chunk_size(k.shape[-1], v.shape[-1])
    triangle = distance_factors(min(tokens, chunk), beta, gamma, q.device).to(q.dtype)
    if tokens <= chunk:
        seen = (q @ k.transpose(-1, -2)).tril()
        return (triangle * seen) @ v, seen.sum(-1, keepdim=True)
    chunks, short = -(-tokens // chunk), -tokens % chunk
    if short:  # zeros fill the last chunk: a zero key adds nothing, and no query reads what comes after
        q, k, v = (F.pad(t, (0, 0, 0, short)) for t in (q, k, v))
    q, k, v = (t.reshape(-1, chunk, t.shape[-1]) for t in (q, k, v))  # [B·H·chunks, C, ·]
    state, velocity, z = states_before(k, v, chunks, beta, gamma)
    steps = torch.arange(1, chunk + 1, device=q.device)
    moved = (beta * momentum_factors(steps, beta)).to(q.dtype)[:, None]  # β + … + β^r, [C, 1]
    seen = (q @ k.transpose(-1, -2)).tril()  # [B·H·chunks, C, C]
    numerator = torch.baddbmm(torch.addcmul(q @ state, moved, q @ velocity), triangle * seen, v)
    denominator = seen.sum(-1, keepdim=True) + q @ z
    return tuple(t.reshape(*batch_and_heads, -1, t.shape[-1])[:, :, :tokens] for t in (numerator, denominator))


def states_before(k, v, chunks, beta, gamma):
    """S, m = −p and z at the beginning of every chunk, from k [B·H·chunks, C, d] and v [B·H·chunks, C, d_v]."""
    size = v.shape[1]
    steps = torch.arange(size, 0, -1, device=k.device)  # from each token to the end of its chunk, itself included
    entering = momentum_factors(steps, beta, gamma), gamma * beta ** (steps - 1).double()  # S, and m
    added = (k.transpose(-1, -2) @ (factors.to(v.dtype)[:, None] * v) for factors in entering)  # [B·H·chunks, d, d_v]
    state, velocity = (t.unflatten(0, (-1, chunks))[:, :-1] for t in added)
    velocity = decayed_cumsum(velocity, beta**size)  # m after each chunk but the last
    moved = (beta * momentum_factors(steps, beta)[0]).to(v.dtype)  # β + … + β^C
    state = (state + moved * F.pad(velocity, (0, 0, 0, 0, 1, -1))).cumsum(1)
    z = k.sum(1).unflatten(0, (-1, chunks))[:, :-1].cumsum(1)[..., None]
    return tuple(F.pad(t, (0, 0, 0, 0, 1, 0)).flatten(0, 1) for t in (state, velocity, z))


def decayed_cumsum(x, decay):
    """x_c + decay · x_{c-1} + decay² · x_{c-2} + … along axis 1, by doubling: log₂ passes, no loop over places."""
    shift = 1
    while shift < x.shape[1] and decay > 1e-30:  # what is smaller is below the last bit of what it would be added to
        x = torch.add(x, F.pad(x[:, :-shift], (0, 0) * (x.dim() - 2) + (shift, 0)), alpha=decay)
        shift, decay = 2 * shift, decay * decay
    return x


def empty_momentum(batch_size, num_heads, num_features, head_dim, like):
    """The state before the first token: `S` and `p` [B, H, d, d_v], `z` [B, H, d], zero; `like` says where."""
    state = empty_sums(batch_size, num_heads, num_features, head_dim, like)
    return state | {"p": torch.zeros_like(state["S"])}


def advance(phi_k, v, state, *, beta, gamma):
    """The state after one token, from φ(k) [B, H, d] and v [B, H, d_v]: O(d d_v), whatever came before.

    beta: β, a number, or one a head [B, H, 1, 1].
    """
    phi_k = phi_k.to(state["z"].dtype)
    p = beta * state["p"] - gamma * phi_k[..., None] * v[..., None, :]
    return state | {"S": state["S"] - p, "p": p, "z": state["z"] + phi_k}


def read(phi_q, state):
    """Numerator [B, H, N, d_v] and denominator [B, H, N, 1] for queries φ(q) [B, H, N, d] that see this state."""
    phi_q = phi_q.to(state["z"].dtype)
    return phi_q @ state["S"], phi_q @ state["z"][..., None]
