"""Lesson 03, build: cosFormer's features. Any that have the right products will do, in whatever order."""

import torch

from refattn.checks.compare import equal, golden, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.kernel import answers


def products(attempt):
    """The products φ(q_i)·φ(k_j) of the attempt's features: what eq. (5) speaks of."""

    def run(q, k, M):
        try:
            phi_q, phi_k = (torch.as_tensor(attempt(x, M)) for x in (q, k))
            return phi_q @ phi_k.T
        except Exception as error:
            error.called_with = (q, M)
            raise

    return run


def equal_tokens():
    return torch.ones(3, 1), torch.ones(3, 1), 3


def tokens(n, m, M, d=4):
    return seeded(n, d), seeded(m, d, seed=1), M


def last_row(run):
    row = show(run(*equal_tokens())[2])
    return f"Three equal tokens [1], M* = 3: with the last one they have products 0.5, 0.866, 1; yours {row}"


def fact_distance(run):
    ones = torch.ones(6, 2)
    table = run(ones, ones, 9)
    if not equal([table[1:, 1:]], [table[:-1, :-1]]):
        return f"Six equal tokens: at distance 1 products are {show(table.diagonal(1))}; they should be equal."


def fact_sign(run):
    least = run(*tokens(9, 9, 9)).min().item()
    if least < -1e-5:
        return f"Nine tokens, M* = 9: the least product is {least:.3g}; a weight must not be negative."


def fact_authors(run):
    stored = golden("golden_kernel")
    for b, h in ((0, 0), (1, 1)):
        q, k, wanted = (stored[f"cosformer.{name}"][b, h] for name in "qkA")
        similarity = run(q, k, 8)
        found = similarity / similarity.sum(-1, keepdim=True).clamp(min=1e-6)
        if not equal([found], [wanted]):
            return f"On the authors' inputs the first row of their map is {show(wanted[0])}; yours {show(found[0])}."


ptolemy = Exercise(
    "kernel.ptolemy",
    answers.ptolemy,
    returns="features [N, 2d], whose products are relu(q_i)·relu(k_j) cos(π/2 · (i - j)/M)",
    adapt=products,
    probes=(
        Probe("Three equal tokens [1], M* = 3: products 1, 0.866, 0.5 at distances 0, 1, 2.", equal_tokens),
        Probe("Four queries, seven keys, d = 4, M* = 10.", lambda: tokens(4, 7, 10)),
    ),
    variants=(
        Variant(
            "angles twice as wide",
            answers.ptolemy_wide,
            lambda run: f"{last_row(run)}.",
            """Only distances count, as they should. But half a turn over M* tokens makes the cosine negative beyond
            half of it, and so the weights.
            Try: which angle may two tokens at most be apart, if no cosine is to be negative?""",
        ),
        Variant(
            "no π/2",
            answers.ptolemy_bare_angle,
            lambda run: f"{last_row(run)}.",
            """Only distances count, and nothing is negative. But one radian over M* tokens: the far end keeps cos 1 =
            0.54 where eq. (5) has 0.
            Try: the angle of distance M*, by eq. (5).""",
        ),
        Variant(
            "length in the place of M",
            answers.ptolemy_length,
            lambda run: (
                "Two queries and four keys, all [1], M* = 8: query 0 and key 3 have cos 33.75° = 0.831; "
                f"with yours {show(run(torch.ones(2, 1), torch.ones(4, 1), 8)[0, 3])}."
            ),
            """Right where both sequences have M* tokens. Here they are shorter, and not equally long: positions of
            queries and keys were measured with two rulers.
            Try: which of the function's arguments have you not used?""",
        ),
        Variant(
            "the cosine alone",
            answers.ptolemy_cosine_only,
            lambda run: f"{last_row(run)}.",
            """cos a cos b is half of Ptolemy's identity: it knows where both tokens are, not how far apart.
            Try: the second product, and 2d features.""",
        ),
        Variant(
            "added, not side by side",
            answers.ptolemy_sum,
            lambda run: f"{last_row(run)}.",
            """Cosine and sine are right, and both are there. But (cos a + sin a)(cos b + sin b) has mixed terms.
            Try: multiply it out. Side by side, as 2d features, there are none.""",
        ),
        Variant(
            "without ReLU",
            answers.ptolemy_signed,
            lambda run: f"Four queries, seven keys: your least product is {show(run(*tokens(4, 7, 10)).min())}.",
            """All angles are right. But q·k may be negative, and so may a weight: one of the two properties is gone.
            Try: which function of x has no negative entries?""",
        ),
        Variant(
            "elu + 1 in the place of ReLU",
            answers.ptolemy_elu,
            lambda run: f"{last_row(run)}.",
            """All angles are right, and nothing is negative: it is linear attention's φ, turned. cosFormer's is relu.
            Try: what does each make of -3?""",
        ),
    ),
    properties=(
        Property("only the distance counts", fact_distance, "cos(a - b). Try: six equal tokens."),
        Property("no product is negative", fact_sign, "0 ≤ θ < π/2. Try: the two ends."),
    ),
    numbers=(
        Property("it equals the authors' code", fact_authors, "Five queries, eight keys, M* = 8. Try: query 0, key 7."),
    ),
    hints=(
        "cos(a - b) = cos a cos b + sin a sin b. Which factors belong to token i alone?",
        "θ = arange(N) · π/(2M), as a column; then cat([relu(x) · cos θ, relu(x) · sin θ], -1).",
    ),
    passed="""A weight that knows distance, from features that know only positions; and the authors' own map.
    Next: which other functions of a distance are a short sum of such products?""",
)
