"""Lesson 11, build: the one head, its weights and its gates."""

import math

import torch

from refattn.attention.mega import laplace, mega_weights
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.mega import answers

ROOT = math.sqrt(0.5)  # where laplace is ½


def meeting(is_causal=False, bias=0.0):
    """Two tokens, q·k = 2 √½ for every pair: over two keys √½, where laplace is ½; over one key 2 √½."""
    return rows([2 * ROOT], [2 * ROOT]), rows([1], [1]), torch.full((2, 2), bias), is_causal


def pairs(n, is_causal=True):
    q, k = (seeded(64, 3, seed=i)[:n] * 3 for i in range(2))
    return q, k, seeded(64, 64, seed=2)[:n, :n], is_causal


def two(run, *args):
    return show(run(*meeting(*args)))


def fact_causal(run):
    return f"q·k = √2 everywhere, causal: wanted [[0.994, 0], [0.5, 0.5]]; you return {two(run, True)}."


def fact_plain(run):
    return f"q·k = √2 everywhere, two keys: every weight must be 0.5; you return {two(run)}."


def fact_prefix(run):
    whole = run(*pairs(9))
    for n in (1, 4):
        if not equal([run(*pairs(n))], [whole[:n, :n]]):
            return f"The weights of the first {n} tokens change when other tokens follow them."


def fact_package(run):
    q, k, bias, _ = pairs(7)
    for is_causal in (False, True):
        options = {"function": "laplace", "is_causal": is_causal}
        wanted = mega_weights(q[None, None], k[None, None], bias, **options)[0, 0]
        error = (run(q, k, bias, is_causal) - wanted).abs().max().item()
        if not error < 1e-4:
            return f"You differ from refattn.attention.mega by {error:.2g}, is_causal={is_causal}."


laplace_weights = Exercise(
    "mega.laplace_weights",
    answers.laplace_weights,
    returns="A [N, M]",
    probes=(
        Probe("q·k = √2 for both keys, no bias: laplace(√2 / 2) = ½ everywhere.", meeting),
        Probe("The same with bias √½: laplace(√½ + √½) = 0.994 everywhere.", lambda: meeting(bias=ROOT)),
        Probe("Causal: token 0 sees one key, laplace(√2) = 0.994; token 1 sees two.", lambda: meeting(True)),
        Probe("Five causal tokens with biases.", lambda: pairs(5)),
        Probe("Five tokens, not causal.", lambda: pairs(5, False)),
    ),
    variants=(
        Variant(
            "by the length",
            answers.laplace_weights_by_length,
            fact_causal,
            """Without the mask you are right. With it, token 0 sees one key, and you divide by two: the score of a
            token depends on how many come *after* it. No value leaks, only their number; generating, nobody knows it.
            Try: append a token, and print row 0 before and after.""",
        ),
        Variant(
            "by √z",
            answers.laplace_weights_by_root,
            lambda run: (
                fact_plain(run) if not equal([run(*meeting())], [torch.full((2, 2), 0.5)]) else fact_causal(run)
            ),
            """√z is softmax's scale. Its rows share out a 1, however many keys there are. Laplace looks at each score
            alone, so it divides by the number of keys, n.
            Try: eq. 8.""",
        ),
        Variant(
            "hidden scores zero",
            answers.laplace_weights_zero_scores,
            fact_causal,
            f"""The divisor is right. But laplace(0) = {laplace(torch.tensor(0.0)).item():.4f}, not 0: a little of every
            later value gets in. Softmax's masks are added before f, those of laplace and relu² multiply after it.
            Try: which score would laplace make exactly 0? Or zero the weights themselves.""",
        ),
        Variant(
            "not masked",
            answers.laplace_weights_unmasked,
            fact_causal,
            """Right for two-way attention. `is_causal` is not used.
            Try: with it, which entries of A must be 0, and how many keys are left for each row?""",
        ),
        Variant(
            "bias divided",
            answers.laplace_weights_bias_divided,
            lambda run: f"q·k = √2, bias √½, two keys: every weight must be 0.994; you return {two(run, False, ROOT)}.",
            """Without a bias you are right. The bias stands beside the scaled score and is not scaled: a distance
            means the same in a long sequence as in a short one.
            Try: where do the brackets in eq. 4 close?""",
        ),
        Variant(
            "shared out",
            answers.laplace_weights_shared_out,
            lambda run: (
                "q·k = √2 and bias √½, two keys: every weight must be 0.994, whatever the others are; you return "
                f"{two(run, False, ROOT)}."
            ),
            """The scores are right, and softmax's habit is strong: rows of laplace need not sum to one. That is the
            point of it: a query that finds nothing may take nothing.
            Try: leave out the last division.""",
        ),
    ),
    properties=(
        Property("a prefix does not feel what follows", fact_prefix, "τ = the keys that row i sees. Try: one token."),
    ),
    numbers=(Property("it equals refattn", fact_package, "Eqs. 4 and 8. Try: compare without biases first."),),
    hints=(
        "First a matrix of who sees whom; its row sums are n. Then scores over n, plus bias, through laplace, times "
        "that matrix.",
        "seen = ones(N, M).tril() if causal; A = laplace(q @ k.T / seen.sum(-1, keepdim=True) + bias) * seen",
    ),
    passed="""Divided by what a row sees, masked after f, and a prefix does not feel what follows it.
    Next: 1,000 keys, all scores 0, no bias. What do the weights of a row sum to, and what would relu² give?""",
)


def gates(which, n=3, D=2, v=4):
    """Inputs and matrices; the update gate is closed, open or free."""
    R, X, X_prime = (seeded(n, D, seed=i) for i in range(3))
    A = seeded(n, n, seed=3).softmax(-1)
    shapes = {"v": (v, D), "gamma": (v, D), "phi": (D, D), "h": (D, D), "u": (D, v)}
    W = {name: seeded(*shape, seed=4 + i) for i, (name, shape) in enumerate(shapes.items())}
    if which != "free":  # X' is positive then, so ±100 X' saturates every gate
        X_prime, W["phi"] = X_prime.abs() + 1, torch.eye(D) * (100 if which == "open" else -100)
    return R, X, X_prime, A, W


def row(run, which):
    return show(run(*gates(which))[0])


def wanted(which):
    return show(answers.gated(*gates(which))[0])


def fact_closed(run):
    return f"φ = 0, R of token 0 is {show(gates('closed')[0][0])}: that must come out; you return {row(run, 'closed')}."


def fact_open(run):
    return f"φ = 1: token 0 must become Ĥ = {wanted('open')}; you return {row(run, 'open')}."


def fact_far(run):
    """Only A brings anything from other tokens, and it brings X, not X'."""
    R, X, X_prime, A, W = gates("free")
    changed = X_prime.clone()
    changed[2] += 1.0
    before, after = run(R, X, X_prime, A, W)[:2], run(R, X, changed, A, W)[:2]
    if not equal([before], [after]):
        return "Changing X' of token 2 changes the outputs of tokens 0 and 1, though X and A stayed as they were."


gated = Exercise(
    "mega.gated",
    answers.gated,
    returns="Y [N, D]",
    probes=(
        Probe("A closed update gate, φ = 0: Y is R.", lambda: gates("closed")),
        Probe("An open one, φ = 1: Y is Ĥ.", lambda: gates("open")),
        Probe("Three tokens, gates anywhere.", lambda: gates("free")),
    ),
    variants=(
        Variant(
            "values from X'",
            answers.gated_values_averaged,
            fact_open,
            """The carry branch is right. V comes from X, not from X': the average is for looking (Z, and so Q and K)
            and for the gates; what is looked at stays sharp.
            Try: which of the seven equations has an X without a prime?""",
        ),
        Variant(
            "carries X",
            answers.gated_carries_x,
            fact_closed,
            """Ĥ is right. What φ does not rewrite should stay what it *was*, R; X is its normalised copy (pre-norm).
            A stack of such layers would normalise its residual stream again and again. In post-norm X = R, and no test
            there would notice.
            Try: φ = 0. What should a layer do that does nothing?""",
        ),
        Variant(
            "adds R",
            answers.gated_adds,
            fact_open,
            """φ Ĥ is right. The residual is added whole; here φ chooses between new and old, φ and 1 - φ.
            Try: φ = 1. How much of R should be left?""",
        ),
        Variant(
            "gate turned round",
            answers.gated_turned,
            fact_closed,
            """Ĥ is right, and so is R. φ is the *update* gate: at φ = 0 nothing is updated.
            Try: eq. 7, at φ = 0.""",
        ),
        Variant(
            "reset too early",
            answers.gated_resets_early,
            fact_open,
            """The carry branch is right. γ belongs to the token that reads: it acts on O, after A. Yours gates what
            each token *offers*, before A mixes it.
            Try: write (γ ⊙ (A V)) and A (γ ⊙ V) for two tokens. Whose γ stands where?""",
        ),
    ),
    properties=(Property("X' of others is not heard", fact_far, "V comes from X. Try: change one row of X'."),),
    hints=(
        "Five lines: V from X; O = A V; both gates from X'; Ĥ; and the choice between Ĥ and R.",
        """V = silu(X W_vᵀ); gamma = silu(X' W_γᵀ); phi = sigmoid(X' W_φᵀ); H = silu(X' W_hᵀ + (gamma * (A @ V)) W_uᵀ);
        phi * H + (1 - phi) * R.""",
    ),
    passed="""Closed gates hand R through untouched, open ones replace it, and only A brings anything from other tokens.
    Next: one head. The paper shows that with gates it can stand for many; what would γ have to be able to compute?""",
)
