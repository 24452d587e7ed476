"""Momentum attention whose β follows the state: critically damped heavy ball, one token at a time.

Paper: Nguyen et al. 2022 (arXiv 2208.00579), the adaptive rule, here on the state of attention. With U_i = φ(k_i)ᵀ v_i:

    β_i = clip((1 − √(γ ‖U_i − U_{i-1}‖ / ‖p_{i-1}‖))², 0, 1 − δ)      one number a head and token              (1)
    p_i = β_i p_{i-1} − γ U_i      S_i = S_{i-1} − p_i                                                       (2)
    w_ij = γ Σ_{t=j}^{i} β_{j+1} β_{j+2} … β_t      what key j weighs for query i                            (3)

β_i needs ‖p_{i-1}‖, which depends on every β before it: unlike a constant β this is no sum that could be bracketed
anew, so the fast form is the loop over tokens, and the explicit twin takes its β and forms the map of (3).
"""

import torch

from refattn.attention.base import check_heads, check_mask
from refattn.attention.heavy_ball import advance, empty_momentum, read
from refattn.attention.linear import EPS, elu_feature_map, kernel_similarity
from refattn.layers.momentum import TINY, adaptive_beta, check_momentum, guarded_norm


def empty_adaptive(batch_size, num_heads, num_features, head_dim, like):
    """`empty_momentum`, and the last token's `U` [B, H, d, d_v], zero."""
    state = empty_momentum(batch_size, num_heads, num_features, head_dim, like)
    return state | {"U": torch.zeros_like(state["S"])}


def adaptive_advance(phi_k, v, state, *, gamma, delta):
    """Eqs. (1) and (2) for one token, φ(k) [B, H, d] and v [B, H, d_v]: the new state, and β [B, H, 1, 1].

    β is zero where there is no velocity yet, and is never NaN, nor is its gradient.
    """
    U = phi_k.to(state["z"].dtype)[..., None] * v[..., None, :]
    change, speed = guarded_norm(U - state["U"], (-2, -1)), guarded_norm(state["p"], (-2, -1))
    beta = adaptive_beta(gamma * change, speed, delta) * (speed > TINY)
    return advance(phi_k, v, state, beta=beta, gamma=gamma) | {"U": U}, beta


def adaptive_momentum(
    q,
    k,
    v,
    *,
    gamma,
    delta=1e-4,
    is_causal=False,
    key_padding_mask=None,
    feature_map=elu_feature_map,
    eps=EPS,
    authors_start=False,
):
    """Eqs. (1) and (2), token by token: O(N d d_v) time, and as much memory when it is to be differentiated.

    Args:
        q, k, v, is_causal, feature_map, eps: as `momentum_attention`.  gamma: γ;  delta: δ.
        key_padding_mask: [B, M] bool, True where the key is padding: such a token is skipped, state and β.
        authors_start: the first token moves the state by U_1, not by γ U_1, as in the authors' code.

    Returns: y [B, H, N, d_v], and β [B, H, M], 1 at padding (the velocity stays).
    Raises: ValueError if the shapes or options do not fit.
    """
    check_momentum(0.0, gamma, delta)
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    phi_q, phi_k = feature_map(q), feature_map(k)
    state = empty_adaptive(*k.shape[:2], k.shape[-1], v.shape[-1], like=k)
    sums, betas = [], []
    for t in range(k.shape[2]):
        step = 1.0 if authors_start and t == 0 else gamma
        after, beta = adaptive_advance(phi_k[:, :, t], v[:, :, t], state, gamma=step, delta=delta)
        if key_padding_mask is not None:
            real = ~key_padding_mask[:, t, None, None, None]  # [B, 1, 1, 1]
            seen = {name: real if name != "z" else real[..., 0] for name in state}
            after = {name: torch.where(seen[name], after[name], state[name]) for name in state}
            beta = torch.where(real, beta, 1.0)
        state = after
        betas.append(beta[..., 0, 0])
        if is_causal:
            sums.append(read(phi_q[:, :, t : t + 1], state))
    numerator, denominator = (torch.cat(s, 2) for s in zip(*sums, strict=True)) if is_causal else read(phi_q, state)
    return (numerator / (denominator + eps)).to(v.dtype), torch.stack(betas, -1)


def adaptive_factors(beta, gamma, key_padding_mask=None):
    """w of eq. (3), [B, H, M, M], zero above the diagonal, from β [B, H, M]: row i is what the state after i holds."""
    place = torch.arange(beta.shape[-1], device=beta.device)
    later = place[:, None] > place  # rows t, columns j
    kept = torch.where(later, beta[..., :, None], 1.0).cumprod(-2).tril()  # β_{j+1} … β_t: U_j in the velocity at t
    if key_padding_mask is not None:
        kept = kept.masked_fill(key_padding_mask[:, None, :, None], 0.0)  # no step is taken there
    return gamma * kept.cumsum(-2)


def adaptive_weights(
    q,
    k,
    v,
    *,
    gamma,
    delta=1e-4,
    is_causal=False,
    key_padding_mask=None,
    feature_map=elu_feature_map,
    eps=EPS,
):
    """The map that eq. (2) applies, [B, H, N, M], and β [B, H, M]; β depends on the values, so they are needed too."""
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    options = {"gamma": gamma, "delta": delta, "feature_map": feature_map, "eps": eps}
    beta = adaptive_momentum(q, k, v, **masks, **options)[1]
    factors = adaptive_factors(beta, gamma, key_padding_mask)
    similarity = kernel_similarity(feature_map(q), feature_map(k), **masks)
    weights = (factors if is_causal else factors[..., -1:, :]).to(similarity.dtype) * similarity
    return weights / (similarity.sum(-1, keepdim=True) + eps), beta


def adaptive_momentum_explicit(q, k, v, **options):
    """Eq. (3) through the full N × M map, with the β that the loop found: the quadratic twin of `adaptive_momentum`."""
    return adaptive_weights(q, k, v, **options)[0] @ v
