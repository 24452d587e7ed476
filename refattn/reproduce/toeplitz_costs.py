"""Whether the transform and the Toeplitz matrix compute the same, and at what cost each; see `layers/toeplitz.py`."""

import torch

from refattn import measure
from refattn.attention.rpe_fft import nprf_attention
from refattn.reproduce.costs import forward_times, layer_counts

FORMS = {"1-D": {}, "causal": {"is_causal": True}, "padded": {"masked": True}, "2-D": {"grid": True}}


def count_differences(ns, heads=2, width=4, features=5):
    """How many outputs and gradients of transform and matrix differ beyond 10⁻⁹ of the largest (at least of 1)."""
    variants = {}
    for name, form in FORMS.items():
        off = [different(n, heads, width, features, **form) for n in ns]
        variants[name] = {"different": off}
    variants["all forms"] = {"different": [sum(v["different"][i] for v in variants.values()) for i in range(len(ns))]}
    variants["formula"] = {"different": [0] * len(ns)}
    return {"ns": list(ns), "variants": variants}


def different(n, heads, width, features, *, is_causal=False, masked=False, grid=False):
    """How many numbers differ at one length, in float64."""
    generator = torch.Generator().manual_seed(n)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    columns = next(w for w in range(int(n**0.5), 0, -1) if n % w == 0)
    table = (2 * (n // columns) - 1, 2 * columns - 1) if grid else (2 * n - 1,)
    inputs = [draw(2, heads, n, width) for _ in range(3)] + [draw(heads, *table)]
    Omega, weight = draw(features, width), draw(2, heads, n, width)
    mask = torch.arange(n)[None] >= torch.tensor([[n], [n // 2]]) if masked else None
    found = {}
    for product in ("fft", "dense"):
        q, k, v, b = (t.clone().requires_grad_() for t in inputs)
        o = nprf_attention(q, k, v, Omega, b, is_causal=is_causal, key_padding_mask=mask, product=product)
        found[product] = [o, *torch.autograd.grad((o * weight).sum(), (q, k, v, b))]
    pairs = zip(found["fft"], found["dense"], strict=True)
    return sum(int(((x - y).abs() > 1e-9 * max(1.0, float(y.detach().abs().max()))).sum()) for x, y in pairs)


def time_products(**sizes):
    """`forward_times` of both products, and the N from which the transform takes less time."""
    found = forward_times(**sizes)
    dense, fft = (found["variants"][name]["by_length"] for name in ("dense", "fft"))
    meeting = measure.crossover(found["ns"], dense, fft)
    return found | {"crossover": None if meeting is None else round(meeting)}


def count_costs(layers, ns, dim, heads):
    """Multiply-adds of products and transforms, and bytes kept for the backward pass."""
    found = {"ns": list(ns), "variants": layer_counts(layers, ns, dim, heads)}
    dense, fft = (found["variants"][name]["multiply_adds"] for name in ("dense", "fft"))
    return found | {"crossover": round(measure.crossover(ns, dense, fft) or 0)}
