"""RPE by FFT: attention, its map, and the Toeplitz products of features and values, in one and two dimensions."""

from refattn.attention import rpe_fft
from refattn.layers.toeplitz import toeplitz_matrix

KERNELS = {"PRF": "positive", "TRF": "trigonometric"}


def adapt(case):
    config, (q, k, v), b = case.config, (case[f"in.{x}"] for x in ("q", "k", "v")), case["w.b"]
    mask = case["in.mask"] == 0 if "in.mask" in case else None
    chosen = {"kernel": KERNELS[config.get("feature_map", "PRF")], "normalise": config["normalise"]}
    masks = {"is_causal": config["causal"], "key_padding_mask": mask}
    phi_q, phi_k = rpe_fft.features(q, k, case["w.Omega"], **chosen, stabilised=False)
    c = rpe_fft.offset_weights(b, is_causal=config["causal"])
    D1, D2 = rpe_fft.kernel_states(phi_k, v, c, key_padding_mask=mask)
    return {
        "o": rpe_fft.nprf_attention(q, k, v, case["w.Omega"], b, **chosen, **masks),
        "A": rpe_fft.nprf_weights(q, k, case["w.Omega"], b, **chosen, **masks),
        "C": toeplitz_matrix(c, c.dim() - 1),
        "phi_q": phi_q,
        "phi_k": phi_k,
        "D1": D1,
        "D2": D2,
    }
