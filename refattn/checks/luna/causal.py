"""Lesson 10, build: the causal form. First its activation, then all tokens at once."""

import torch

from refattn.attention.luna import base2_softplus
from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.luna import answers
from refattn.checks.luna.nested import as_matrices


def omega_at(run, u):
    return show(run(rows(u))[0])


def fact_one(run):
    return f"ω(1) = log₂(1 + 2) = 1.58, you return {omega_at(run, 1)}; ω(-1) = 0.585, you return {omega_at(run, -1)}."


def fact_positive(run):
    least = run(torch.linspace(-20, 20, 41)).min().item()
    if not least > 0:
        return f"Between u = -20 and 20 the smallest ω(u) is {least:.3g}; it must be positive."


def fact_reflection(run):
    u = torch.linspace(-8, 8, 17)
    difference = run(u.clone()) - run(-u)
    if not equal([difference], [u]):
        return f"ω(u) - ω(-u) must be u, as for any softplus; at u = 8 it is {show(difference[-1])}."


def fact_package(run):
    u = torch.linspace(-40, 40, 81)
    error = (run(u.clone()) - base2_softplus(u)).abs().max().item()
    if not error < 1e-3:
        return f"u = -40 … 40: you differ from refattn.attention.luna by {error:.2g}."


omega = Exercise(
    "luna.omega",
    answers.omega,
    returns="ω(u), in the shape of u",
    probes=(
        Probe("u = 0, 1, -1: log₂(1 + 2ᵘ) is 1, 1.58 and 0.585.", lambda: (rows(0, 1, -1),)),
        Probe("u = 2000 and -2000: log₂(1 + 2ᵘ) is 2000 and 0.", lambda: (rows(2000, -2000),)),
        Probe("Twelve u from N(0, 1), times 4.", lambda: (4 * seeded(3, 4),)),
    ),
    variants=(
        Variant(
            "natural softplus",
            answers.omega_natural,
            lambda run: f"ω(0) = log₂(1 + 1) = 1; you return {omega_at(run, 0)}, which is ln 2.",
            """Positive, increasing, safe for large u: a softplus, but the natural one, ln(1 + eᵘ). In base 2, ω(0) is
            exactly 1, so a slot that asks nothing (u = 0) holds the plain mean of what it has read.
            Try: softplus(u, β) = ln(1 + e^(βu)) / β. For which β is e^(βu) = 2ᵘ?""",
        ),
        Variant(
            "elu + 1",
            answers.omega_elu,
            fact_one,
            """Positive, increasing, and 1 at 0: this is elu(u) + 1 of lesson 03, which earlier revisions of the
            authors' code used here too. Eq. 4 has another function.
            Try: draw both from -4 to 8. Where do they meet, and how far apart are they on the right?""",
        ),
        Variant(
            "bases mixed",
            answers.omega_mixed,
            fact_one,
            """1 at 0, positive, increasing: the logarithm is in base 2 already. What it is taken of is not: yours is
            log₂(1+eᵘ).
            Try: 2ᵘ = e^(…)? Give softplus that.""",
        ),
        Variant(
            "power only",
            answers.omega_power,
            lambda run: f"ω(10) = log₂(1 + 1024) = 10.0; you return {run(rows(10)).item():,.0f}.",
            """1 at 0, positive, increasing: 2ᵘ alone. A single token with u = 10 would outweigh a thousand others in
            every sum that follows; after the logarithm it outweighs ten.
            Try: what does log₂(1 + 2ᵘ) look like for large u, and for very negative u?""",
        ),
        Variant(
            "overflow",
            answers.omega_overflow,
            lambda run: f"ω(2000) = 2000; you return {omega_at(run, 2000)}.",
            """Moderate u come out right, so the formula is. But 2²⁰⁰⁰ fits in no float (float32 ends at 2¹²⁸), though
            the result would.
            Try: torch has this function in base e, safe for large u: F.softplus(u, beta=…). Or torch.logaddexp2.""",
        ),
    ),
    properties=(
        Property("ω is positive", fact_positive, "Weights of a running mean. Try: u = -20."),
        Property("ω(u) - ω(-u) = u", fact_reflection, "log₂(1 + 2ᵘ) = u + log₂(1 + 2⁻ᵘ). Try: on paper."),
    ),
    numbers=(Property("it equals refattn", fact_package, "log₂(1 + 2ᵘ). Try: compare at u = 30."),),
    hints=(
        "It is a softplus. torch's is ln(1 + e^(βu)) / β; which β turns both e and ln into base 2?",
        "F.softplus(u, beta=math.log(2)); or torch.logaddexp2(u, torch.zeros_like(u)).",
    ),
    passed="""1 at 0, positive, no overflow, and ω(u) - ω(-u) = u.
    Next: why must it be positive, when softmax needs no positive logits?""",
)


def indifferent():
    """Three tokens with values 2, 4, 9; q = k = 0 and u = 0, so the one slot holds running means."""
    q, k, u = (rows([0], [0], [0]) for _ in range(3))
    return q, k, rows([2], [4], [9]), u


def two_slots():
    """One token, q·k = 2, d = 4; u = 0 and log₂ 3, so that A = 1 and 2."""
    return rows([2, 0, 0, 0]), rows([1, 0, 0, 0]), rows([1]), rows([0, 1.5849625])


def tokens(n, slots=3, d=4, d_v=2):
    """Numbers from N(0, 1), the same for the first tokens whatever n is."""
    parts = ((d, 0), (d, 1), (d_v, 2), (slots, 3))
    return tuple(seeded(512, width, seed=seed)[:n] for width, seed in parts)


def means(run):
    y = show(run(*indifferent()).flatten())
    return f"u = 0, so ω = 1; values 2, 4, 9: running means are 2, 3, 5; you return {y}"


def token_two(run, followers):
    """Output of token t = 2 when so many tokens follow."""
    return run(*tokens(2 + followers))[1]


def fact_length(run):
    one, two = token_two(run, 1), token_two(run, 2)
    if not equal([one], [two]):
        return f"Token 2 is {show(one)} when one token follows, {show(two)} when two follow."


def fact_future(run):
    q, k, v, u = tokens(4)
    moved = [t.clone() for t in (q, k, v, u)]
    for t in moved:
        t[3] += 3.0
    before, after = run(q, k, v, u)[1], run(*moved)[1]
    if not equal([before], [after]):
        return f"Token 4 of 4 was changed, in q, k, v and u, and token 2 went from {show(before)} to {show(after)}."


def fact_authors(run):
    stored = golden()
    heads = [[run(*(stored[f"luna.{name}"][b, h] for name in "qkku")) for h in range(2)] for b in range(2)]  # tied
    y = torch.stack([torch.cat(row, -1) for row in heads]).float() @ stored["luna.W_O"].T + stored["luna.b_O"]
    error = (y - stored["luna.y"]).abs().max().item()
    if not error < 5e-5:
        return f"Six tokens of the authors' own code, two heads, behind W_O: you differ by {error:.2g}."


causal_luna = Exercise(
    "luna.causal_luna",
    answers.causal_luna,
    returns="outputs [N, d_v]",
    adapt=as_matrices,
    probes=(
        Probe("One slot, u = 0, values 2, 4, 9: running means 2, 3, 5.", indifferent),
        Probe("One token, q·k = 2, v = 1; two slots with ω(u) = 1 and 2: softmax([2, 4]) on [1, 2].", two_slots),
        Probe("Six tokens, three slots, d = 4, d_v = 2, from N(0, 1).", lambda: tokens(6)),
    ),
    variants=(
        Variant(
            "divided by N",
            answers.causal_luna_by_length,
            fact_length,
            """No later token's value leaks in; only their number matters. While generating, that number is unknown.
            Try: which quantity in your running mean knows the sequence length?""",
        ),
        Variant(
            "softmax over positions",
            answers.causal_luna_over_positions,
            fact_future,
            """The sums stop at t, as they should. But a softmax along the positions has a denominator, and that one
            reads every u, later ones too. It is why the causal form packs with ω, one token at a time.
            Try: compute A for token 1 alone. Which of your operations cannot be done yet?""",
        ),
        Variant(
            "sums over all positions",
            answers.causal_luna_all,
            lambda run: f"{means(run)}. Token 1 has only itself.",
            """The last token is right: it may see all. For the others the sums go too far; each t has a sum of its
            own, over j ≤ t.
            Try: which torch function returns all partial sums along an axis?""",
        ),
        Variant(
            "does not see itself",
            answers.causal_luna_not_itself,
            lambda run: f"{means(run)}. Token 1 has only itself, so it must be 2.",
            """No later token leaks in, and you divide by t. But t terms are due, and one is missing: j ≤ t includes
            t.
            Try: write both sums out for t = 1.""",
        ),
        Variant(
            "sums, not means",
            answers.causal_luna_sums,
            lambda run: f"{means(run)}.",
            """Causal, ω is right, every sum ends at t. But sums grow with t: values swell, and growing keys make the
            softmax over slots ever sharper.
            Try: what would make the second output 3 and the third 5?""",
        ),
        Variant(
            "divided by the sum of A",
            answers.causal_luna_weighted,
            lambda run: (
                f"One token, v = 1; slots with ω(u) = 1 and 2 must hold 1 and 2, and softmax([2, 4]) reads 1.88 from "
                f"them; you return {show(run(*two_slots())[0])}."
            ),
            """Causal, and with u = 0 all is right. You divide by Σ A, which makes a proper weighted mean; eqs. 5 and 6
            divide by the number of tokens t, so that a slot that cares more also speaks louder.
            Try: for one token, the slots are A v and A k. What has become of A in yours?""",
        ),
        Variant(
            "natural softplus",
            answers.causal_luna_natural,
            lambda run: f"{means(run)}, 0.693 times as much; 0.693 is ln 2.",
            """Causal, divided by t, softmax over the slots: all right. Only ω has the wrong base: at u = 0 it must be
            1.
            Try: check.omega first, then use that function here.""",
        ),
        Variant(
            "scaled twice",
            answers.causal_luna_scaled_twice,
            lambda run: (
                f"One token, d = 4, q·k = 2, v = 1; slots with ω(u) = 1 and 2: softmax([2, 4]) on [1, 2] is 1.88; you "
                f"return {show(run(*two_slots())[0])}, which is softmax([1, 2])."
            ),
            """Means, causality and ω are right; the choice among the slots is too soft. q arrives scaled by 1/√d
            already, as the signature says.
            Try: how many times is 1/√d in your logits?""",
        ),
    ),
    properties=(
        Property("no later token changes an earlier output", fact_future, "Sums over j ≤ t. Try: two tokens."),
        Property("appended tokens change no earlier output", fact_length, "Divide by t. Try: one token, then two."),
    ),
    costs=(
        at_most(
            512 * 4 * 4,
            lambda: tokens(512, slots=4, d_v=4),
            sizes="N = 512, l = 4, d = d_v = 4",
            says="""A map of all pairs, masked and multiplied by A, gives the right sums and costs N². A running sum
            holds N · l · d numbers, and a loop that keeps only the latest one l · d.
            Try: A_jᵀ k_j is [l, d]. Make it for all j, then sum along j as you go.""",
            slack=8,  # keys and values at once, or a few copies, are no N²
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Tied: v = k. Try: the first token first."),),
    hints=(
        """Make A_jᵀ k_j, which is [l, d], for every token at once: [N, l, d]. Which operation turns these into all
        prefix sums? Then divide by t, and read with q_t.""",
        """A = omega(u); keys = (A[:, :, None] * k[:, None, :]).cumsum(0) / t with t = torch.arange(1, N + 1) as
        [N, 1, 1]; values likewise from v; weights = softmax over the slots of keys · q; outputs = weights · values.""",
    ),
    passed="""No later token moves an earlier output, appended ones do not either, nothing has N² entries, and the
    authors' own numbers come out.
    Next: two [N, l, d] tensors were kept to read one slice after the other. What would a loop have to remember?""",
)
