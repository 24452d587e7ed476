"""Lesson 15, find the bug: unit norms that are not."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.rpe_fft import answers


def two_tokens():
    """One head, tokens [3, 4] and [0, 2]."""
    return (rows([3, 4], [0, 2])[None, None],)


def batch():
    return (seeded(2, 2, 3, 4),)


def by_hand(run):
    return f"Tokens [3, 4] and [0, 2]: wanted [0.6, 0.8] and [0, 1]; you return {show(run(*two_tokens())[0, 0])}"


def fact_alone(run):
    (x,) = batch()
    moved = x.clone()
    moved[0, 0, 2] *= 100.0
    before, after = run(x)[0, 0, 0], run(moved)[0, 0, 0]
    if not equal([before], [after]):
        return f"Token 2 was made longer, and token 0 went from {show(before)} to {show(after)}."


def fact_empty(run):
    x = rows([3, 4], [0, 0])[None, None].requires_grad_()
    y = run(x)
    if not y.isfinite().all():
        return f"Tokens [3, 4] and [0, 0]: the second becomes {show(y[0, 0, 1])}; a number is wanted."
    if y.requires_grad and not torch.autograd.grad(y.sum(), x)[0].isfinite().all():
        return "Tokens [3, 4] and [0, 0]: outputs are numbers, but 1 NaN or more stands in the gradient."


unit_rows = Exercise(
    "rpe_fft.unit_rows",
    answers.unit_rows,
    returns="x̂ [B, H, N, d], every row of length 1",
    probes=(
        Probe("Tokens [3, 4] and [0, 2]: [0.6, 0.8] and [0, 1].", two_tokens),
        Probe("Two sequences, two heads, three tokens.", batch),
    ),
    variants=(
        Variant(
            "one norm for all",
            answers.unit_rows_global,
            lambda run: f"{by_hand(run)}.",
            """One number for the whole tensor, other sequences of the batch included. Loss curves look calm, because
            features are almost constant, and attention says almost nothing.
            Try: over which axis is a token's own length?""",
        ),
        Variant(
            "one norm a sequence",
            answers.unit_rows_sequence,
            lambda run: f"{by_hand(run)}.",
            """Sequences and heads no longer mix. Tokens still do: with N of them, rows are √N times too short.
            Try: the last axis alone.""",
        ),
        Variant(
            "features, not tokens",
            answers.unit_rows_tokens,
            lambda run: f"{by_hand(run)}.",
            """Columns have length 1 now: each feature over all tokens, later ones included.
            Try: dim=-1.""",
        ),
        Variant(
            "heads together",
            answers.unit_rows_heads,
            lambda run: (
                f"{show(run(*batch())[0].norm(dim=-1)[:, 0])} are the lengths of token 0 in two heads; wanted 1."
            ),
            """Right for one head. With several each has a share of a length of 1.
            Try: print the norms, [B, H, N].""",
        ),
        Variant(
            "divided by the square",
            answers.unit_rows_squared,
            lambda run: f"{by_hand(run)}.",
            """One factor a token, as it should be. But |x|² is not |x|.
            Try: the length of [3, 4].""",
        ),
    ),
    properties=(
        Property("tokens do not mix", fact_alone, "One token, one norm. Try: two tokens."),
        Property(
            "a zero token stays a number",
            fact_empty,
            """Everything else is right. 0/0 would spread from one padded token through the whole loss.
            Try: .clamp(min=1e-6) on the norm.""",
            ALMOST,
        ),
    ),
    hints=("What is the shape of the norm that you divide by?", "x.norm(dim=-1, keepdim=True).clamp(min=1e-6)."),
    passed="""Every token by its own norm, and a zero token does no harm.
    Next: with unit norms, what are the largest and the smallest logit q̂·k̂?""",
)
