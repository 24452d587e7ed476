"""Lesson 15, build: normalised kernel attention with relative positions, by FFT."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.rpe_fft import answers


def pointing():
    """Equal keys, values 1, 2, 4; e^b is 1 for every offset but −1, where it is 8. So C is what remains of the map."""
    q = k = rows([3, 4], [3, 4], [3, 4])
    return q, k, rows([1], [2], [4]), rows([1, 0], [0, 1]), rows([1, 8, 1, 1, 1])[0].log(), False


def tokens(n, is_causal=False, d=4, d_v=2, m=5):
    """Keys of different norms; biases that are not symmetric."""
    q, k, v = (seeded(n, width, seed=seed) for seed, width in enumerate((d, d, d_v)))
    return 2 * q, k * (1 + torch.arange(n))[:, None], v, seeded(m, d, seed=3), seeded(2 * n - 1, seed=4), is_causal


def by_hand(run):
    y = show(run(*pointing()).flatten())
    return f"Equal keys, values 1, 2, 4, e^b = 8 for offset -1 alone: wanted [2.33, 1.4, 2.1]; you return {y}"


def of_six(run, is_causal=False):
    found, wanted = (show(f(*tokens(6, is_causal))[1]) for f in (run, answers.nprf))
    return f"Six tokens: output 1 must be {wanted}; yours is {found}"


def fact_scale(run):
    q, k, *rest = tokens(5)
    scaled = k.clone()
    scaled[2] *= 10.0
    before, after = run(q, k, *rest)[0], run(q, scaled, *rest)[0]
    if not equal([before], [after]):
        return f"Key 2 of 5 was made ten times as long, and output 0 went from {show(before)} to {show(after)}."


def fact_future(run):
    q, k, v, *rest = tokens(6, is_causal=True)
    moved = [t.clone() for t in (q, k, v)]
    for t in moved:
        t[5] += 3.0
    before, after = run(q, k, v, *rest)[1], run(*moved, *rest)[1]
    if not equal([before], [after]):
        return f"Causal: token 5 of 6 was changed, and output 1 went from {show(before)} to {show(after)}."


def fact_huge(run):
    *inputs, b, is_causal = tokens(5)
    found, wanted = run(*inputs, b + 200.0, is_causal), run(*inputs, b, is_causal)
    if not equal([found], [wanted]):
        return f"200 was added to every bias, and output 0 went from {show(wanted[0])} to {show(found[0])}."


def heads():
    """[(arguments, wanted outputs, output weights, wanted gradient of b)] of the independent computation."""
    stored, found = golden("golden_rpe_fft"), []
    for case, is_causal in (("1d", False), ("causal", True)):
        q, k, v, o, r = (stored[f"{case}.{name}"] for name in ("q", "k", "v", "o", "r"))
        for h in range(q.shape[1]):
            inputs = q[0, h], k[0, h], v[0, h], stored[f"{case}.Omega"], stored[f"{case}.b"][h], is_causal
            found.append((inputs, o[0, h], r[0, h]))
    return found


def fact_numbers(run):
    errors = [(run(*inputs) - o).abs().max().item() for inputs, o, _ in heads()]
    if not max(errors) < 1e-4:
        return f"Four heads of the independent computation: you differ by {max(errors):.2g}."


def fact_gradient(run):
    for inputs, _, r in heads():
        found = []
        for function in (run, answers.nprf):
            b = inputs[4].clone().requires_grad_()
            y = function(*inputs[:4], b, inputs[5])
            if not y.requires_grad:
                return "Every output is right, but none remembers the biases it was made of: they could not be trained."
            found.append(torch.autograd.grad((y * r).sum(), b)[0])
        if not equal([found[0]], [found[1]]):
            return f"Outputs are right. The gradient of b is {show(found[0][:4])}; wanted {show(found[1][:4])}."


nprf = Exercise(
    "rpe_fft.nprf",
    answers.nprf,
    returns="outputs [N, d_v]",
    probes=(
        Probe("Equal keys, e^b = 8 for offset -1, else 1: (1 + 2 + 4)/3, (8 + 2 + 4)/10, (1 + 16 + 4)/10.", pointing),
        Probe("Six tokens with keys of different norms.", lambda: tokens(6)),
        Probe("The same, causal.", lambda: tokens(6, is_causal=True)),
    ),
    variants=(
        Variant(
            "one norm for all",
            answers.nprf_global,
            lambda run: f"{of_six(run)}.",
            """Positions and sums are right. But q.norm() is one number for the whole tensor: long keys stay long,
            short ones almost vanish, and features are nearly constant. Others have published this line.
            Try: norm(dim=-1, keepdim=True).""",
        ),
        Variant(
            "norms left as they are",
            answers.nprf_free,
            lambda run: f"{of_six(run)}.",
            """Positions and sums are right. x / d^¼ is Performer's scale; this method divides by the norm.
            Try: |q̂| = |k̂| = 1.""",
        ),
        Variant(
            "no scale at all",
            answers.nprf_unscaled,
            lambda run: f"{of_six(run)}.",
            """Positions and sums are right. Features of long vectors are a few giants.
            Try: |q̂| = |k̂| = 1.""",
        ),
        Variant(
            "keys summed first",
            answers.nprf_sum_first,
            lambda run: f"{by_hand(run)}.",
            """Unit norms are right. But once keys and values are summed over j, nothing is left for offsets to act on:
            this is linear attention.
            Try: which axis must the products φ(k_j) v_j keep until C has been applied?""",
        ),
        Variant(
            "no exponential",
            answers.nprf_no_exponential,
            lambda run: f"{by_hand(run)}.",
            """The products are right. A bias is added to a logit, so a weight is *multiplied* by e^b; a bias of 0 is a
            factor of 1, and no weight is negative.
            Try: b = 0 everywhere must be plain kernel attention.""",
        ),
        Variant(
            "offsets reversed",
            answers.nprf_transposed,
            lambda run: f"{by_hand(run)}.",
            """Everything is right for e^b with the offsets the other way round. t = j - i: -1 is the key before.
            Try: your toeplitz_product with c that is not symmetric.""",
        ),
        Variant(
            "wraps around",
            answers.nprf_wrapped,
            lambda run: f"{by_hand(run)}.",
            """Inside the sequence weights are right; at its ends offsets -1 and N - 1 are added together.
            Try: your toeplitz_product, with room for 2N - 1 offsets.""",
        ),
        Variant(
            "denominator without positions",
            answers.nprf_plain_denominator,
            lambda run: f"{by_hand(run)}.",
            """The numerator is right. The denominator is the sum of the very weights that stand in it, so C acts there
            too.
            Try: append a column of ones to v, and both are one product.""",
        ),
        Variant(
            "not causal",
            answers.nprf_sees_all,
            lambda run: f"{of_six(run, True)}.",
            """All is right without an order. With is_causal=True c is zero for positive offsets.
            Try: which entries of b have t > 0?""",
        ),
    ),
    properties=(
        Property("a key's length does not matter", fact_scale, "Every token by its own norm. Try: scale one."),
        Property("no later token changes an earlier output", fact_future, "c_t = 0 for t > 0. Try: two tokens."),
        Property(
            "a constant added to all biases does nothing",
            fact_huge,
            """It cancels in the ratio, but e^200 is no float32 number.
            Try: subtract the largest bias first.""",
        ),
    ),
    costs=(
        at_most(
            1024 * 4 * 5,
            lambda: tokens(1024, d_v=4),
            sizes="N = 1024, m = 5, d_v = 4",
            says="""The N × N map gives the right numbers, and is what this method avoids.
            Try: X [N, m (d_v + 1)], one toeplitz_product, then φ(q).""",
            slack=6,
        ),
    ),
    numbers=(
        Property("it equals the independent computation", fact_numbers, "Eq. 2. Try: one head."),
        Property("so does the gradient of b", fact_gradient, "Through exp and both transforms. Try: drop detach()."),
    ),
    hints=(
        "X_j = φ(k̂_j) times [v_j, 1]: one row of m (d_v + 1) numbers. What does C do to it, and then the queries?",
        "Y = toeplitz_product(c, X.flatten(1)), back to [N, m, d_v + 1]; R = (φ(q̂)[:, :, None] * Y).sum(1); divide.",
    ),
    passed="""Unit norms token by token, offsets the right way round, causal on request, no N × N map, and the numbers
    and gradients of an independent computation.
    Next: with e^b = 8 for one offset and equal keys, how large can one weight be at N = 1000?""",
)
