"""Lesson 03, build: positive random features with the authors' two stabilisers."""

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.kernel import answers

EPS = 1e-4  # the port's


def worked():
    """The lesson's example: d = 1, q = 1, keys 1, 0, -1, Ω = ±1, without ε."""
    return rows([1]), rows([1], [0], [-1]), rows([1], [-1]), 0.0


def tokens(n, m, d=4, rows_of_omega=6, eps=EPS, size=1.0):
    Omega = seeded(rows_of_omega, d, seed=2)
    return size * seeded(n, d), size * seeded(m, d, seed=1), Omega, eps


def shares(phi_q, phi_k):
    similarity = phi_q @ phi_k.T
    return similarity / similarity.sum(-1, keepdim=True)


def hand_shares(run):
    return f"q = 1 gives keys 1, 0, -1 shares 0.51, 0.35, 0.14; with your features {show(shares(*run(*worked()))[0])}"


def query_row(run):
    return f"q = 1, Ω = ±1, ε = 0: φ_q is [0.429, 0.058]; you return {show(run(*worked())[0][0])}"


def key_rows(run):
    wanted = "[[0.429, 0.058], [0.26, 0.26], [0.058, 0.429]]"
    return f"Keys 1, 0, -1, Ω = ±1, ε = 0: φ_k is {wanted}; you return {show(run(*worked())[1])}"


def four_numbers(run):
    wanted, got = (function(*tokens(1, 1, eps=0.0))[0][0, :4] for function in (answers.favor_features, run))
    return f"d = 4: the first entries of φ_q are {show(wanted)}; you return {show(got)}"


def fact_softmax(run):
    q, k = 0.5 * seeded(4, 2), 0.5 * seeded(5, 2, seed=1)
    estimate = shares(*run(q, k, seeded(20_000, 2, seed=2), 0.0))
    exact = (q @ k.T / 2**0.5).softmax(-1)
    off = (estimate - exact).abs().max().item()
    if not off < 0.02:
        return f"Small q and k, 20,000 features, ε = 0: your map differs from softmax's by {off:.2g}."


def fact_finite(run):
    found = [part.isfinite().all().item() for part in run(*tokens(3, 5, size=60.0))]
    if not all(found):
        return "Every number is right. But with entries of size 60, your features are inf or NaN in float32."


def fact_authors(run):
    stored = golden("golden_kernel")
    for b, h in ((0, 0), (1, 1)):
        q, k = (stored[f"performer.{name}"][b, h] for name in "qk")
        found = run(q, k, stored["performer.Omega"], EPS)
        for name, phi in zip(("phi_q", "phi_k"), found, strict=True):
            wanted = stored[f"performer.{name}"][b, h]
            if not equal([phi], [wanted]):
                return f"On the port's inputs its {name} begins {show(wanted[0, :3])}; yours {show(phi[0, :3])}."


favor_features = Exercise(
    "kernel.favor_features",
    answers.favor_features,
    returns="a pair: phi_q [N, m] and phi_k [M, m]",
    probes=(
        Probe("d = 1, q = 1, keys 1, 0, -1, Ω = ±1, ε = 0.", worked),
        Probe("Three queries, five keys, d = 4, m = 6, ε = 0.0001.", lambda: tokens(3, 5)),
    ),
    variants=(
        Variant(
            "a maximum for each key",
            answers.favor_features_per_key,
            lambda run: f"{hand_shares(run)}.",
            """φ_q is right. But each key was divided by a number of its own, and a factor of a key is a weight: it
            stands in the numerator of its own value only. The shares above are those of another attention.
            Try: which factor of φ_k cancels in the fraction, if it is the same for all keys?""",
        ),
        Variant(
            "no stabiliser",
            answers.favor_features_none,
            lambda run: f"{query_row(run)}.",
            """The same attention, as long as it fits: exponents are as wanted. But they leave the range of float32 for
            large q and k, and nothing keeps the largest at a known place beside ε.
            Try: subtract from the exponents what cancels: a number for each query, and one for all keys.""",
        ),
        Variant(
            "maximum of the whole exponent",
            answers.favor_features_whole,
            lambda run: f"{query_row(run)}.",
            """Sound, and for large norms sounder than what the authors do: nothing drowns in ε. It is another
            function, though: theirs takes the maximum of Ωx̃ alone, before |x̃|²/2 is subtracted.
            Try: first u = Ωx̃ and its maximum, then the norm.""",
        ),
        Variant(
            "one maximum for all queries",
            answers.favor_features_all_queries,
            lambda run: (
                f"The first query beside two others: its largest feature is "
                f"{show(run(*tokens(3, 5))[0][0].max())}, and alone it is {show(run(*tokens(1, 5))[0][0].max())}."
            ),
            """Without ε it would cancel all the same. With ε, a query whose exponents lie far below the others' loses
            its features in it: one query's map depends on its neighbours.
            Try: amax over features only, for queries.""",
        ),
        Variant(
            "norm without d^¼",
            answers.favor_features_unscaled_norm,
            lambda run: f"{four_numbers(run)}.",
            """Ωx̃ is right, and so are both maxima. |x̃|²/2 belongs to the same x̃ = x/d^¼: it completes the square, or
            the expectation is not exp(q·k/√d).
            Try: scale x once, at the top, and never use the unscaled one again.""",
        ),
        Variant(
            "no d^¼ at all",
            answers.favor_features_unscaled,
            lambda run: f"{four_numbers(run)}.",
            """Consistent, but it estimates exp(q·k), softmax attention without its 1/√d, and with far more variance.
            Try: half of 1/√d for q and half for k: what is the factor on each?""",
        ),
        Variant(
            "no norm",
            answers.favor_features_no_norm,
            lambda run: f"{hand_shares(run)}.",
            """Both maxima are right. But the mean of e^{ωt} is e^{t²/2}: without -|x̃|²/2, long keys get a weight
            e^{|k̃|²/2} for free.
            Try: E[e^{ω(q+k)}] on paper. What stands there besides e^{qk}?""",
        ),
        Variant(
            "1/m",
            answers.favor_features_by_m,
            lambda run: f"{key_rows(run)}.",
            """Every feature is too small by √m, and in the fraction that cancels: no output shows it. But φ(q)·φ(k)
            should be a *mean* over m draws, and each of the two gives a square root to it.
            Try: what must φ carry, so that the product carries 1/m?""",
        ),
    ),
    properties=(
        Property("with many features it is softmax attention", fact_softmax, "ε = 0, small norms. Try: m = 20,000."),
        Property(
            "large entries stay numbers",
            fact_finite,
            """A quotient of exponentials overflows before it is divided.
            Try: subtract inside the exponent.""",
            ALMOST,
        ),
    ),
    numbers=(
        Property(
            "it equals the port's code",
            fact_authors,
            "performer-pytorch on one head. Try: print both parts of the exponent for the first token.",
        ),
    ),
    hints=(
        "Scale both by d^-¼ first. Then u = Ωx̃, |x̃|²/2, and the largest u: over what, for queries, and for keys?",
        """phi_q: exp(u - |x|²/2 - u.amax(-1, keepdim=True)) + eps;  phi_k: the same with u.max() over all keys and
        features. Both divided by √m.""",
    ),
    passed="""The port's own features, and with many of them softmax attention.
    Next: ε = 0.0001 = e^-9.2. For which |k̃|² is nothing but ε left of a key?""",
)
