"""How well random features estimate softmax attention: whole maps and single weights, beside the exact ones."""

import torch

from refattn.attention.performer import performer_weights, positive_features, random_rows, trigonometric_features
from refattn.attention.softmax import softmax_weights
from refattn.data.task import generator
from refattn.reproduce.verdict import AGAIN

ESTIMATES = {
    "orthogonal m=16": {"num_features": 16},
    "orthogonal m=64": {"num_features": 64},
    "orthogonal m=256": {"num_features": 256},
    "independent m=64": {"num_features": 64, "orthogonal": False},
    "trigonometric m=64": {"num_features": 32},  # a row gives two of these, its cosine and its sine
}
BASELINE, SHARED = "orthogonal m=64", "percent shared"


def estimated_map(name, q, k, gaussians):
    """Softmax attention's map as `name` estimates it, [B, H, N, M]; rows of Ω come from the generator `gaussians`."""
    Omega = random_rows(head_dim=q.shape[-1], generator=gaussians, **ESTIMATES[name]).to(q)
    if not name.startswith("trigonometric"):
        return performer_weights(q, k, Omega)
    similarity = trigonometric_features(q, Omega) @ trigonometric_features(k, Omega).transpose(-1, -2)
    return similarity / similarity.sum(-1, keepdim=True)


def overlaps(size, draws, tokens=64, dim=16):
    """Percent of softmax's map that an estimate shares: 100 Σ_j min(A_ij, Â_ij), mean over rows.

    Queries and keys are Gaussian with entries of this size. A draw has its own, and its own Ω, for all estimates.
    """
    found = {name: {SHARED: []} for name in (*ESTIMATES, BASELINE + AGAIN)}
    for draw in range(draws):
        q, k = size * torch.randn(2, 1, 1, tokens, dim, generator=generator(draw, "queries and keys")).double()
        exact = softmax_weights(q, k)
        for name, record in found.items():
            gaussians = generator(draw, "other rows" if name.endswith(AGAIN) else "rows")
            estimate = estimated_map(name.removesuffix(AGAIN), q, k, gaussians)
            common = torch.minimum(exact, estimate).sum(-1).clamp(min=0.0)  # a row may be worse than no estimate
            record[SHARED].append(round(100 * common.mean().item(), 3))
    return {"baseline": BASELINE, "metric": SHARED, "variants": found}


def estimated_weights(size, draws, rows, dim=16):
    """exp(q·k/√d) as many orthogonal rows estimate it, in units of the exact weight; a pair q, k and an Ω a draw."""
    ratios = []
    for draw in range(draws):
        q, k = size * torch.randn(2, 1, dim, generator=generator(draw, "a pair")).double()
        Omega = random_rows(rows, dim, generator=generator(draw, "rows")).to(q)
        product = positive_features(q, Omega) @ positive_features(k, Omega).T
        ratios.append(round((product / (q @ k.T / dim**0.5).exp()).item(), 5))
    return {"variants": {"orthogonal": {"ratio": ratios}}}
