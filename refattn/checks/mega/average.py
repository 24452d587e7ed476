"""Lesson 11, build: the damped moving average, as a kernel and as a convolution."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.mega import answers
from refattn.layers.ema import Coefficients, ema_explicit


def one_dimension():
    """α = 0.8, δ = 0.5: the input counts 0.8, and 1 − 0.4 = 0.6 stays from step to step."""
    return rows([0.8]), rows([0.5]), rows([1]), rows([1]), 3


def four_dimensions():
    """The same four times: a sum of four, over √4."""
    return tuple(torch.full((1, 4), value) for value in (0.8, 0.5, 1.0, 1.0)) + (3,)


def several(length=9, width=3, dims=4):
    raw = [seeded(width, dims, seed=i) for i in range(4)]
    return raw[0].sigmoid(), raw[1].sigmoid(), raw[2], raw[3], length


def tap_row(run, make=one_dimension):
    return show(run(*make())[0])


def fact_taps(run):
    return f"α = 0.8, δ = 0.5, β = η = 1: wanted [0.8, 0.48, 0.288]; you return {tap_row(run)}."


def fact_recurrence(run):
    """The kernel is what eq. 1 answers to a single 1."""
    alpha, delta, beta, eta, length = several()
    coeff = Coefficients(torch.log1p(-alpha * delta), alpha * beta, eta / 2)
    impulse = torch.zeros(1, length, 3)
    impulse[:, 0] = 1.0
    wanted = ema_explicit(impulse, coeff)[0][0].T
    error = (run(alpha, delta, beta, eta, length) - wanted).abs().max().item()
    if not error < 1e-4:
        return f"Eq. 1 fed with 1, 0, 0, … must return the kernel; yours differs from that by {error:.2g}."


kernel = Exercise(
    "mega.kernel",
    answers.kernel,
    returns="K [D, length]",
    probes=(
        Probe("α = 0.8, δ = 0.5, β = η = 1: the kernel is 0.8 · 0.6^τ = 0.8, 0.48, 0.288.", one_dimension),
        Probe("The same in four dimensions: 4 · 0.8 · 0.6^τ / √4 = 1.6, 0.96, 0.576.", four_dimensions),
        Probe("Three features with four dimensions each, nine taps.", several),
    ),
    variants=(
        Variant(
            "no root of h",
            answers.kernel_no_root,
            lambda run: (
                f"Four equal dimensions: wanted [1.6, 0.96, 0.576]; you return {tap_row(run, four_dimensions)}."
            ),
            """With one dimension you are right. A sum of h independent terms grows as √h, so the authors' code divides
            by it; the paper's equation leaves that out, and no number agrees without it.
            Try: at h = 1, 4 and 16, by which factor is your first tap too large?""",
        ),
        Variant(
            "α and δ exchanged",
            answers.kernel_swapped,
            fact_taps,
            """What stays is right, 1 - αδ = 0.6: there the two look alike. What enters is not: α gates the input, δ
            only dampens the forgetting. (In the authors' code the parameter *called* delta is this α.)
            Try: the first tap is what a token itself adds to its own average. Which of the two is that?""",
        ),
        Variant(
            "(1 - α) δ",
            answers.kernel_damped_wrongly,
            fact_taps,
            """The first tap is right. Damping multiplies the *forgetting* α, not what is kept: 1 - αδ, and not
            (1 - α) δ. Yours makes memory shorter; damping is there to make it longer.
            Try: δ = 0.01. Should an average that hardly forgets keep 0.99 or 0.01 of itself?""",
        ),
        Variant(
            "not damped",
            answers.kernel_undamped,
            fact_taps,
            """The first tap is right, and a plain moving average it is: 1 - α stays. Then a memory is long only if
            hardly anything enters. With δ both can be large.
            Try: where should δ stand, so that δ = 1 is the plain average?""",
        ),
        Variant(
            "nothing gated",
            answers.kernel_no_gain,
            fact_taps,
            """All ratios are right: 0.6 stays from step to step. But a token enters whole, and eq. 1 lets in α β x.
            Try: the first tap on paper, from s₀ = 0.""",
        ),
    ),
    properties=(Property("it is the answer to a single 1", fact_recurrence, "Eq. 1. Try: three steps on paper."),),
    hints=(
        "Feed eq. 1 with 1, 0, 0, 0 on paper: s is αβ, then φαβ, then φ²αβ. Read it with η, and add the dimensions up.",
        "phi = 1 - alpha * delta; powers = phi[:, :, None] ** torch.arange(length); multiply by αβη, sum over h, "
        "divide by √h.",
    ),
    passed="""The kernel is what eq. 1 answers to a single 1, in any number of dimensions.
    Next: K takes D · h · N powers, with no batch in it. For which batch sizes is that the larger part of the work?""",
)


def last_one():
    """Three tokens, the last is 1: nobody before it may know."""
    return rows([0], [0], [1]), rows([1, 0.5, 0.25])


def signal(n, width=4):
    return seeded(512, width)[:n], 0.9 ** torch.arange(512.0)[:n] * seeded(width, 1, seed=1)


def answer_to(run, x):
    """What comes out for K = 1, ½, ¼, without a transform's rounding."""
    return show(run(rows(*([value] for value in x)), last_one()[1])[:, 0].round(decimals=5).abs())


def fact_wrap(run):
    return f"x = 0, 0, 1 and K = 1, ½, ¼: wanted [0, 0, 1]; you return {answer_to(run, (0, 0, 1))}."


def fact_causal(run):
    x, K = signal(8)
    changed = x.clone()
    changed[-1] += 100.0
    before, after = run(x, K)[:-1], run(changed, K)[:-1]
    if not (before - after).abs().max() < 1e-3:
        return f"Adding 100 to the last of 8 tokens changes earlier outputs by {(before - after).abs().max():.3g}."


def fact_sum(run):
    x, K = signal(40)
    wanted = torch.stack([sum(K[:, i] * x[t - i] for i in range(t + 1)) for t in range(40)])
    if not equal([run(x, K)], [wanted]):
        return "Forty tokens: your outputs are not Σ K_τ x_{t-τ}."


convolve = Exercise(
    "mega.convolve",
    answers.convolve,
    returns="averages [N, D]",
    probes=(
        Probe("x = 0, 0, 1 and K = 1, ½, ¼: only the last output is not 0.", last_one),
        Probe("x = 1, 0, 0 comes out as the kernel.", lambda: (rows([1], [0], [0]), rows([1, 0.5, 0.25]))),
        Probe("Nine tokens with four features.", lambda: signal(9)),
    ),
    variants=(
        Variant(
            "wrapped around",
            answers.convolve_wrapped,
            fact_wrap,
            """A transform of length N believes that the sequence is a ring: what runs out at the end comes in at the
            start. No shape shows it, nor does a falling loss; a decoder trained so reads its own answers.
            Try: how long is the whole convolution of two sequences of length 3? Give the transform that room.""",
        ),
        Variant(
            "reads ahead",
            answers.convolve_ahead,
            fact_wrap,
            """Room enough, nothing wraps. But a conjugated spectrum turns the kernel round: Σ K_τ x_{t+τ}, the
            *other* direction of eq. 3. Many a library's "convolution" is this correlation.
            Try: x = 1, 0, 0. Does the kernel come out, or only its first tap?""",
        ),
        Variant(
            "the tail",
            answers.convolve_tail,
            fact_wrap,
            """The transform has room enough. You took the half in which the sequence only fades away.
            Try: print all 2N samples. Which of them belong to the positions 0 … N - 1?""",
        ),
        Variant(
            "one step late",
            answers.convolve_not_itself,
            lambda run: f"x = 1, 0, 0 and K = 1, ½, ¼: wanted [1, 0.5, 0.25]; you return {answer_to(run, (1, 0, 0))}.",
            """Causal it is, one step too much: output t reads x up to t - 1. Eq. 2 begins at τ = 0.
            Try: x = 1, 0, 0. Where does the first tap come out?""",
        ),
    ),
    properties=(
        Property("no output knows what comes later", fact_causal, "Causality. Try: change the last token."),
        Property("it is eq. 2", fact_sum, "Σ K_τ x_{t-τ}. Try: three tokens on paper."),
    ),
    costs=(
        at_most(
            512 * 8,
            lambda: signal(512),
            sizes="N = 512, D = 4",
            says="""A matrix with K along its diagonals does it too, with N² entries, or N² for each feature. Eq. 2 is a
            convolution: by a transform it needs N log N.
            Try: torch.fft.rfft of both, along the positions.""",
        ),
    ),
    hints=(
        "A convolution is a product of spectra, but of a ring's. Make the ring so long that the tail does not meet the "
        "start.",
        "n = 2 * len(x); irfft(rfft(x.T, n) * rfft(K, n), n)[:, : len(x)].T",
    ),
    passed="""Σ K_τ x_{t-τ}, no output knows what comes later, and no N × N matrix was made.
    Next: to read both ways you add the other kernel's *conjugate* spectrum. How many transforms does that save?""",
)
