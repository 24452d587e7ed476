"""Lesson 14, find the bug: keys that may not be seen are hidden once, and speak from the second convolution on."""

import torch

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.eit import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def convolutions(M=1, k=3, seed=0):
    """f and g, M maps to M."""
    if M == 1:
        return (torch.ones(1, 1, k), torch.ones(1)), (torch.ones(1, 1, k), torch.zeros(1))
    return tuple((seeded(M, M, k, seed=seed + n), seeded(M, seed=seed + n + 5)) for n in (1, 2))


def three_keys():
    """One query, two real keys with logits 1 and 2, a third that is padding and holds 50."""
    return rows([[1, 2, 50]]), torch.tensor([[True, True, False]]), *convolutions()


def square(tokens=5, shown=5):
    """A causal row for each query, of `tokens` keys."""
    S = seeded(2, 6, 6)[:, :tokens, :tokens]
    seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return S, seen, *convolutions(M=2)


def padded(to):
    """Four real keys, then padding up to `to`."""
    S = torch.cat([seeded(2, 3, 4, seed=3), 30.0 * torch.ones(2, 3, to - 4)], -1)
    return S, (torch.arange(to) < 4).expand(3, to), *convolutions(M=2)


def by_hand(run):
    S, seen, f, g = three_keys()
    wanted = show(answers.hidden_keys(S, seen, f, g)[0, 0])
    return f"Logits 1 and 2, padding 50, kernels [1, 1, 1], f's bias 1: wanted {wanted}; you return "


def fact_padding(run):
    short, long = run(*padded(4))[..., :4], run(*padded(6))[..., :4]
    if not equal([short], [long]):
        return f"A row over four keys is {show(short[0, 0])} alone, and {show(long[0, 0])} with two of padding."


def fact_future(run):
    S, *rest = square()
    changed = S + 5.0 * torch.ones(5, 5).triu(1)
    before, after = run(S, *rest), run(changed, *rest)
    if not equal([before], [after]):
        return (
            f"Logits above the diagonal were changed, and row 1 went from {show(before[0, 1])} to {show(after[0, 1])}."
        )


hidden_keys = Exercise(
    "eit.hidden_keys",
    answers.hidden_keys,
    returns="weights [M, N, L]",
    probes=(
        Probe("One query, two real keys and one of padding, kernels [1, 1, 1].", three_keys),
        Probe("Two heads, five tokens, causal.", square),
        Probe("Two heads, four real keys and two of padding.", lambda: padded(6)),
        Probe("The same four keys alone.", lambda: padded(4)),
    ),
    variants=(
        Variant(
            "hidden once",
            answers.hidden_keys_once,
            lambda run: f"{by_hand(run)}{show(run(*three_keys())[0, 0])}.",
            """What padding says is hidden, since it is zero at first. But the first convolution writes into every cell,
            padding too: its bias, and what stands beside. The second one reads that. (Older generations of the
            authors' code hide once.)
            Try: print the hidden maps at the padded key. What is outside a map, and what should be there?""",
        ),
        Variant(
            "hidden at the end alone",
            answers.hidden_keys_at_the_end,
            lambda run: f"{by_hand(run)}{show(run(*three_keys())[0, 0])}: 50 is heard.",
            """Padding gets no weight of its own. But a kernel of width 3 carries its logit to its neighbour, twice.
            Try: which keys does key 1 read, in the first convolution?""",
        ),
        Variant(
            "minus infinity first",
            answers.hidden_keys_infinite,
            lambda run: f"{by_hand(run)}{show(run(*three_keys())[0, 0])}.",
            """For a softmax alone -∞ would be right. A convolution multiplies it: by 0 it gives NaN, by a negative
            weight +∞, and by any other it swallows the neighbourhood.
            Try: what does a convolution find outside the map?""",
        ),
        Variant(
            "nothing at the end",
            answers.hidden_keys_not_at_the_end,
            lambda run: f"{by_hand(run)}{show(run(*three_keys())[0, 0])}.",
            """The logits of real keys are right. A softmax over all of them gives padding a share, too.
            Try: the sum of the weights of real keys.""",
        ),
        Variant(
            "zero at the end",
            answers.hidden_keys_zero_at_the_end,
            lambda run: f"{by_hand(run)}{show(run(*three_keys())[0, 0])}.",
            """Zero is nothing for a convolution. For a softmax it is e⁰ = 1.
            Try: -∞ there.""",
        ),
    ),
    properties=(
        Property("padding changes nothing", fact_padding, "Hide before each. Try: one key more."),
        Property("no later key is heard", fact_future, "Hide before each. Try: two tokens."),
    ),
    hints=(
        "Follow the padded key's cell: what is in it before f, before g, and before the softmax?",
        "masked_fill(~seen, 0) before every convolution; masked_fill(~seen, -inf) before the softmax only.",
    ),
    passed="""Hidden cells are zero before each convolution, as the world outside the map is, and -∞ for the softmax.
    Next: a causal row n reaches key n + 1 with its kernel. Why is that no look ahead, once these cells are zero?""",
)
