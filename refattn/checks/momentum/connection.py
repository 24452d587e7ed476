"""Lesson 16, stretch: the adaptive momentum connection."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.momentum import answers
from refattn.layers.momentum import AdaptiveMomentumResidual, Moving


def two_tokens():
    """‖a − a_before‖ / ‖v‖ is ¼ for token 1 and 9 for token 2, so β = ¼, and 4 clipped at 0.9."""
    a, before = rows([1, 0], [0, 9]), rows([0, 0], [0, 0])
    return rows([0, 0], [0, 0]), a, before, rows([4, 0], [0, 1]), 1.0, 0.1


def slower():
    """A ratio of 9/4, so that 1 − √r is negative, and β = ¼."""
    return rows([0, 0]), rows([9, 0]), rows([0, 0]), rows([0, 4]), 1.0, 0.1


def tokens(n=5, d=4):
    x, a, before, velocity = (seeded(n, d, seed=seed) for seed in range(4))
    return x, a, before, velocity, 0.9, 1e-4


def velocities(run):
    v = show(run(*two_tokens())[1])
    return f"β must be ¼ for token 1 and 0.9 (clipped) for token 2, so v = [[0, 0], [0, -8.1]]; you return {v}"


def one(run):
    v = show(run(*slower())[1])
    return f"a - a_before of length 9, v = [0, 4]: r = 9/4, β = (1 - 3/2)² = ¼, so v = [-9, 1]; you return {v}"


def gradient(run):
    x, a, before, velocity, gamma, delta = tokens()
    a.requires_grad_()
    u = run(x, a, before, velocity, gamma, delta)[0]
    return torch.autograd.grad(u.square().sum(), a)[0]


def fact_gradient(run):
    found, wanted = gradient(run), gradient(answers.adaptive_connection)
    if not equal([found], [wanted]):
        return (
            f"Every number is right. But the gradient of Σu² for a begins {show(found[0])}; wanted {show(wanted[0])}."
        )


def fact_empty(run):
    x, a, before, velocity, gamma, delta = tokens()
    for t in (a, before, velocity):
        t[1] = 0.0  # a token whose branch is empty: fully padded, say
        t.requires_grad_()
    u, v = run(x, a, before, velocity, gamma, delta)
    grads = torch.autograd.grad(u.square().sum() + v.sum(), (a, before, velocity), allow_unused=True)
    if not all(t.isfinite().all() for t in (u, v, *(g for g in grads if g is not None))):
        where = "output" if not (u.isfinite().all() and v.isfinite().all()) else "gradient"
        return f"Token 1 of 5 has a = a_before = v = 0, and a NaN or infinity stands in the {where}."


def fact_package(run):
    x, a, before, velocity, gamma, delta = tokens()
    wanted = AdaptiveMomentumResidual(4, gamma=gamma, delta=delta).add(x, a, Moving(velocity, before, None))
    error = max(
        (g - w).abs().max().item() for g, w in zip(run(*tokens()), (wanted[0], wanted[1].velocity), strict=True)
    )
    if not error < 5e-5:
        return f"Five tokens, D = 4: you differ from refattn by {error:.2g}."


adaptive_connection = Exercise(
    "momentum.adaptive_connection",
    answers.adaptive_connection,
    returns="a pair: u [N, D] and the new velocity [N, D]",
    probes=(
        Probe("Two tokens with ratios ¼ and 9, δ = 0.1: β = ¼, and 4 clipped at 0.9.", two_tokens),
        Probe("One token with a ratio of 9/4: β = (1 - 3/2)² = ¼.", slower),
        Probe("Five tokens, D = 4, γ = 0.9.", tokens),
    ),
    variants=(
        Variant(
            "one β for all",
            answers.adaptive_connection_whole,
            lambda run: f"{velocities(run)}.",
            """The rule is right, and so is the clip. But the lengths are taken of the whole tensor, so all tokens of a
            batch share one β, and a token's output depends on its neighbours.
            Try: over which axis is a token's own length?""",
        ),
        Variant(
            "root missing",
            answers.adaptive_connection_no_root,
            lambda run: f"{velocities(run)}.",
            """One β a token, clipped last: right. Critical damping is (1 - √(γλ))², and the ratio estimates γλ itself.
            Try: r = ¼ must give ¼, and r = 9/4 too.""",
        ),
        Variant(
            "clipped too early",
            answers.adaptive_connection_early_clip,
            lambda run: f"{one(run)}.",
            """Right where the ratio is below 1. Above, 1 - √r is negative, and your clip makes 0 of it before it is
            squared.
            Try: square first.""",
        ),
        Variant(
            "not clipped",
            answers.adaptive_connection_unclipped,
            lambda run: f"{velocities(run)}.",
            """The rule is right. From r = 4 on it gives β above 1, and a velocity that grows from layer to layer.
            Try: clamp(0, 1 - delta), last.""",
        ),
        Variant(
            "feature by feature",
            answers.adaptive_connection_entries,
            lambda run: f"{velocities(run)}.",
            """The ratio is taken entry by entry, so every feature has its own β, and a zero entry divides by zero.
            Try: a length is one number a token.""",
        ),
    ),
    properties=(
        Property(
            "gradients flow through β",
            fact_gradient,
            """β is a function of a, too, and the authors detach nothing.
            Try: drop detach() and no_grad().""",
            ALMOST,
        ),
        Property(
            "an empty branch stays finite",
            fact_empty,
            """0/0 is no β, and the root's slope at 0 is infinite: clamp repairs neither.
            Try: bound both squared lengths from below, at 1e-24, before you take the root.""",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals refattn", fact_package, "u = x - γ v, with the new v. Try: one token."),),
    hints=(
        "Two lengths a token, [N, 1], over features. Then √, then square, then clip; v = β v - a; u = x - γ v.",
        "length = x.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt(), which has no NaN in its gradient.",
    ),
    passed="""One β a token, gradients through it, and nothing breaks where nothing moves.
    Next: two unrelated branches of equal length have r = √2. Which β is that, and what is left of the velocity?""",
)
