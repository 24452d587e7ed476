"""Lesson 13, build: the mixing rule of a map that evolves."""

import torch

from refattn.attention.evolving_attention import evolve_map, mix_maps
from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.evolving_attention import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant

TINY = "Past 8, current 4, kernel [[-1]], bias 1, α = 0.25, β = 0.5: A_in = 5, ReLU(-5 + 1) = 0, so A = 2.5"


def tiny():
    """One head, one cell, a 1 × 1 kernel."""
    return rows([[8]]), rows([[4]]), rows([[[-1]]]), torch.ones(1), 0.25, 0.5


def no_past():
    return None, rows([[8, 4]]), rows([[[-1]]]), torch.ones(1), 0.25, 0.5


def drawn(kernel=(3, 3), H=2, N=4, M=5, alpha=0.4, beta=0.3):
    C = seeded(H, H, *kernel, seed=3)
    return seeded(H, N, M), seeded(H, N, M, seed=1), C, seeded(H, seed=2), alpha, beta


def two_rows(run):
    return show(run(*drawn())[0, 0])


def cell(run):
    return show(run(*tiny()).flatten()[0])


def tiny_fact(run):
    return f"{TINY}; you return {cell(run)}."


def fact_vanilla(run):
    A_prev, A_cur, C, b, _, _ = drawn()
    if not equal([run(A_prev, A_cur, C, b, 0.0, 0.0)], [A_cur]):
        return "α = β = 0 must give A_cur, softmax attention's logits; it does not."


def fact_gradient(run):
    A_prev, *rest = drawn(alpha=0.4, beta=0.0)
    A_prev = A_prev.requires_grad_()
    y = run(A_prev, *rest)
    if not (torch.is_tensor(y) and y.requires_grad):
        return "No gradient reaches A_prev: a detached map cannot be trained through."
    (gradient,) = torch.autograd.grad(y.sum(), A_prev)
    if not equal([gradient], [torch.full_like(gradient, 0.4)]):
        return f"β = 0, α = 0.4: each cell of A_prev has gradient 0.4; yours has {show(gradient.flatten()[0])}."


def fact_package(run):
    A_prev, A_cur, C, b, alpha, beta = drawn((1, 5), H=3)
    A_in = mix_maps(A_cur, A_prev, alpha)
    error = (run(A_prev, A_cur, C, b, alpha, beta) - evolve_map(A_in[None], C, b, beta=beta)[0]).abs().max().item()
    if not error < 1e-4:
        return f"Three heads, a 1 × 5 kernel: you differ from refattn by {error:.2g}."


def fact_authors(run):
    stored = golden("golden_evolving")
    found = run(*(stored[f"encoder.{name}"] for name in ("A_prev", "A_cur", "C", "b")), 0.5, 0.6)
    error = (found - stored["encoder.A"]).abs().max().item()
    if not error < 5e-5:
        return f"Two heads over an image of 3 × 3 pixels, the authors' code: you differ by {error:.2g}."


evolve = Exercise(
    "evolving_attention.evolve",
    answers.evolve,
    returns="logits A [H, N, M]",
    probes=(
        Probe(f"{TINY}.", tiny),
        Probe("No past, current 8 and 4: A is A_cur.", no_past),
        Probe("Two heads, N = 4, M = 5, a 3 × 3 kernel, α = 0.4, β = 0.3.", drawn),
    ),
    variants=(
        Variant(
            "α and β exchanged",
            answers.evolve_swapped,
            tiny_fact,
            """All parts are there. But α is the weight of the past and β that of the convolution; *the authors' code*
            gives the same two the other way round, under the same letters.
            Try: β = 0. Which of your terms must vanish?""",
        ),
        Variant(
            "past and present exchanged",
            answers.evolve_past_and_present,
            tiny_fact,
            """The convolution has its weight. α belongs to A_prev; at α = 1 the map stays what it was.
            Try: α = 1, β = 0.""",
        ),
        Variant(
            "no ReLU",
            answers.evolve_no_relu,
            tiny_fact,
            """Both mixtures are right. Without σ all layers together are one linear map of all their logits.
            Try: the sign of the convolved cell in the example.""",
        ),
        Variant(
            "ReLU of the sum",
            answers.evolve_relu_of_all,
            lambda run: f"Two heads drawn: wanted {show(answers.evolve(*drawn())[0, 0])}; you return {two_rows(run)}.",
            """Both mixtures are right. But σ stands around the convolution alone. Around the sum no logit is negative:
            a key could be chosen, never avoided.
            Try: what does softmax make of 0 and of -5?""",
        ),
        Variant(
            "the current map convolved",
            answers.evolve_current_only,
            lambda run: f"Two heads drawn: wanted {show(answers.evolve(*drawn())[0, 0])}; you return {two_rows(run)}.",
            """The last mixture is right. But the kernel runs over A_in, in which the past is already.
            Try: α = 1, β = 1. Whose map is convolved?""",
        ),
        Variant(
            "probabilities",
            answers.evolve_probabilities,
            tiny_fact,
            """The rule is right, and what it is applied to is not: maps are logits until the very last step, eq. 4.
            Try: print the sum of a row of what goes in.""",
        ),
        Variant(
            "convolved without a past",
            answers.evolve_always,
            lambda run: f"No past, current 8 and 4: wanted [8, 4]; you return {show(run(*no_past()).flatten())}.",
            """With a past all is right. The first layer has none, and no convolution either: A = A_cur.
            Try: A_prev = None.""",
        ),
    ),
    properties=(
        Property("α = β = 0 is softmax attention", fact_vanilla, "Two mixtures. Try: α = β = 0 on paper."),
        Property("gradients reach the past", fact_gradient, "A_in = α A_prev + …. Try: β = 0."),
    ),
    numbers=(
        Property("it equals refattn", fact_package, "Odd kernels, k // 2 on each side. Try: a 1 × 5 kernel."),
        Property("it equals the authors' code", fact_authors, "Outgoing head first in C. Try: C transposed."),
    ),
    hints=(
        "Two convex mixtures, one after the other, and a convolution with heads as channels in the second.",
        "A_in = α A_prev + (1 - α) A_cur; β · relu(F.conv2d(A_in, C, b, padding=(k_r // 2, k_c // 2))) + (1 - β) A_in.",
    ),
    passed="""α weighs the past, β the convolution, and A stays a map of logits that gradients can cross.
    Next: α = 0.5 and β = 0. How much of the first layer's map is left in the fifth layer's?""",
)
