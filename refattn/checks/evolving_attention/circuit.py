"""Lesson 13, stretch: a kernel by hand that matches n-grams, without any training."""

import torch
from torch.nn import functional as F

from refattn.checks.compare import show
from refattn.checks.evolving_attention import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.data import ngrams

SEGMENT = (1, 2, 3, 1, 4, 5)  # after 1 comes 2, or 4: it takes the token before to tell


def layer(ids, kernel, only=None):
    """The next tokens that one head predicts, [B, N]: the previous layer's map says which tokens are the same.

    `only`: the one tap of the kernel that is kept.
    """
    kernel = torch.as_tensor(kernel, dtype=torch.float32).reshape(1, 1, 3, 3)
    if only is not None:
        kept = torch.zeros(1, 1, 3, 3)
        kept[0, 0, only[0], only[1]] = 1.0
        kernel = kernel * kept
    same = (ids[:, None, :, None] == ids[:, None, None, :]).float().tril()  # [B, 1, N, N]
    A = F.conv2d(F.pad(same, (2, 0, 2, 0)), kernel).relu()
    later = torch.ones_like(A, dtype=torch.bool).triu(1)
    weights = A.masked_fill(later, -torch.inf).softmax(-1)[:, 0]
    return (weights @ F.one_hot(ids, int(ids.max()) + 1).float()).argmax(-1)


def given(ids, last=6):
    """Sequences, and the layer, of whose answers the last ones count."""
    return ids, lambda ids, kernel: layer(ids, kernel)[:, -last:]


def ambiguous():
    """1 2 3 1 4 5 three times; after "5 1" comes 2, after "3 1" comes 4."""
    return given(torch.tensor([SEGMENT * 3]))


def outvoted():
    """2 3 4, fourteen zeros, and 2 3 again: after it comes 4."""
    return given(torch.tensor([[2, 3, 4, *[0] * 14, 2, 3]]), last=1)


def repeated():
    """Sequences without a repeated symbol within their segment of 7."""
    orders = torch.rand(20, 12, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :7]
    return given(orders.repeat(1, 4), last=14)


def accuracy(run, **options):
    test = ngrams(test_size=200, seed=5, most=10).test
    found = run(test["inputs"], lambda ids, kernel: layer(ids, kernel, **options))
    late = test["targets"].clone()
    late[:, :20] = -100  # twice round at least
    return (found == late)[late != -100].double().mean().item()


def answers_to(run):
    return f"1 2 3 1 4 5 again and again: after it must come 2 3 1 4 5 1; your kernel says {show(run(*ambiguous())[0])}"


def fact_accuracy(run):
    if not accuracy(run) >= 0.95:
        return f"200 new sequences of segments of 6 to 10: {accuracy(run):.1%} are right; 95 % are wanted."


def fact_two_taps(run):
    one = max(accuracy(run, only=tap) for tap in ((2, 1), (1, 0)))
    if not accuracy(run) > one + 0.02:
        return f"Both taps together are right in {accuracy(run):.1%}, one alone in {one:.1%}."


ngrams_by_hand = Exercise(
    "evolving_attention.ngrams_by_hand",
    answers.ngrams_by_hand,
    returns="the layer's answers, ids [B, N]",
    probes=(
        Probe("1 2 3 1 4 5 three times: the last six answers are 2 3 1 4 5 1.", ambiguous),
        Probe("2 3 4, fourteen zeros, 2 3: the last answer is 4.", outvoted),
        Probe("Twenty segments of seven different symbols, four times each.", repeated),
    ),
    variants=(
        Variant(
            "the same token",
            answers.ngrams_by_hand_same_token,
            lambda run: f"{answers_to(run)}.",
            """Two taps on a diagonal: right, and the match is found. But these are the taps with equal offsets in rows
            and columns; they find the token that *is* mine, and its neighbour is wanted.
            Try: I stand at query p. Which cell of my own row says that key q - 1 is like me?""",
        ),
        Variant(
            "one tap",
            answers.ngrams_by_hand_one_tap,
            lambda run: f"{answers_to(run)}.",
            """Keys that come after a token like mine: found. But 1 is followed by 2 and by 4; only the token before
            tells which.
            Try: a second tap that asks the same question for query p - 1.""",
        ),
        Variant(
            "rows and columns exchanged",
            answers.ngrams_by_hand_turned,
            lambda run: f"{answers_to(run)}.",
            """Two taps one step apart: right. But the first index of a kernel goes with queries. Yours finds keys that
            are like the token *before* me: a memory of the past, no prediction.
            Try: kernel[2, 1] lies over which query, and which key?""",
        ),
        Variant(
            "too soft",
            answers.ngrams_by_hand_soft,
            lambda run: f"2 3 4, fourteen zeros, 2 3: wanted 4; your kernel says {show(run(*outvoted())[0])}.",
            """Both taps are the right ones. At height 1 a perfect match is e² = 7.4 against 1 of every other key, and
            fourteen small voices win.
            Try: a larger weight.""",
        ),
    ),
    properties=(
        Property("new segments are gone on with", fact_accuracy, "Two taps, high. Try: print the kernel."),
        Property("both taps are needed", fact_two_taps, "One for my token, one for the one before. Try: one."),
    ),
    hints=(
        """The map says same[p, q] = 1 if tokens p and q are equal. Key q is a good answer for query p if it comes after
        a token like mine: which cell says so? And after what like the token before me?""",
        "kernel[2, 1]: same row, one key back. kernel[1, 0]: one row up, two keys back. Both 20 or so.",
    ),
    passed="""Two taps of nine, no training: a map of equal tokens becomes a map of what comes next.
    Next: softmax attention needs a layer more for this. What does that layer carry, which a tap reads for nothing?""",
)
