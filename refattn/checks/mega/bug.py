"""Lesson 11, find the bug: a kernel that is kept for later, and no longer fits."""

from refattn.checks.compare import rows, show
from refattn.checks.frame import Exercise, Probe, Variant
from refattn.checks.mega import answers

FIRST, AGAIN, CHANGED, LONGER = "first call", "second call", "after a step of training", "for a longer sequence"


def used(attempt):
    """What an attempt returns in one of the four situations above, for (weights, which)."""

    def run(*args):
        *weights, which = args
        weights, cache = [w.clone() for w in weights], {}
        found = attempt(weights, 3, cache)
        if which == AGAIN:
            return attempt(weights, 3, cache)
        if which == CHANGED:
            weights[0].mul_(0.5)  # in place, as optimisers and load_state_dict do
            return attempt(weights, 3, cache)
        return attempt(weights, 5, cache) if which == LONGER else found

    return run


def probe(which, text):
    return Probe(f"α = 0.8, δ = 0.5: {text}", lambda: (rows([0.8]), rows([0.5]), rows([1]), rows([1]), which))


def taps(run, which):
    return show(run(rows([0.8]), rows([0.5]), rows([1]), rows([1]), which)[0])


def fact_changed(run):
    return (
        f"The first kernel is {taps(run, FIRST)}, as it should be. Then α becomes 0.4, in place: wanted "
        f"[0.4, 0.32, 0.256]; you return {taps(run, CHANGED)}."
    )


kernel_of = Exercise(
    "mega.kernel_of",
    answers.kernel_of,
    returns="K [D, length]",
    adapt=used,
    probes=(
        probe(FIRST, "three taps, 0.8, 0.48, 0.288."),
        probe(AGAIN, "the same call once more must give the same."),
        probe(CHANGED, "α is halved in place; three taps of the new weights, 0.4, 0.32, 0.256."),
        probe(LONGER, "first three taps, then five."),
    ),
    variants=(
        Variant(
            "stale",
            answers.kernel_of_stale,
            lambda run: f"{fact_changed(run)} And of five taps asked for, {taps(run, LONGER)} come.",
            """What was computed once is handed out for ever: after a step of training, after loading a checkpoint, for
            a longer sequence. Nothing fails, and the loss in evaluation belongs to weights that no longer exist.
            Try: on which of its arguments does a kernel depend? On which does your cache?""",
        ),
        Variant(
            "by length only",
            answers.kernel_of_by_length,
            fact_changed,
            """A longer sequence gets its longer kernel now. But the kernel depends on the weights too, and these change
            in place: they are the same tensors with other numbers.
            Try: evaluate, train one step, evaluate again.""",
        ),
        Variant(
            "too short",
            answers.kernel_of_by_values,
            lambda run: f"Three taps were asked for first, then five; you return {taps(run, LONGER)}.",
            """New weights get a new kernel. But a longer sequence is handed the taps of a shorter one, and forgets all
            that lies further back.
            Try: which other argument must the cache know?""",
        ),
    ),
    hints=(
        "A cache needs a key that changes whenever the value would. Name everything that the value depends on.",
        "The simplest repair keeps nothing: return kernel(*weights, length). It costs D h T powers, once a batch.",
    ),
    passed="""New weights, in place or not, and longer sequences get the kernel that is theirs.
    Next: which test, with no look into the code, would have found this in the authors' layer?""",
)
