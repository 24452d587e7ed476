"""Lesson 20, find the bug: the mean of a text, and of what was appended to it."""

import torch
from torch.nn import functional as F

from refattn.checks.compare import equal, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.wide_attention import answers
from refattn.models import Classifier


def padded_after(lengths, n):
    """[B, n] bool: True beyond each length."""
    return torch.arange(n)[None] >= torch.tensor(lengths)[:, None]


def two_words():
    """Words 4 and 8, then padding, whose vector is −6: a mean of 6."""
    return torch.tensor([[[4.0], [8.0], [-6.0]]]), padded_after([2], 3)


def a_zero():
    """A word whose vector is 4, and one whose vector is 0, then padding: a mean of 2."""
    return torch.tensor([[[4.0], [0.0], [-6.0]]]), padded_after([2], 3)


def two_texts():
    """A text of two words and one of four, in one batch: means 6 and 5."""
    x = torch.tensor([[[4.0], [8.0], [-6.0], [-6.0]], [[2.0], [4.0], [6.0], [8.0]]])
    return x, padded_after([2, 4], 4)


def batch():
    return seeded(3, 5, 2), padded_after([5, 2, 1], 5)


def by_hand(run):
    return f"Words 4 and 8 and one padding: wanted [6]; you return {show(run(*two_words()).flatten())}"


def by_hand_zero(run):
    return f"Words 4 and 0 and one padding: wanted [2]; you return {show(run(*a_zero()).flatten())}"


def together(run):
    return f"Words 4, 8 beside a text 2, 4, 6, 8: wanted [6, 5]; you return {show(run(*two_texts()).flatten())}"


def fact_more_padding(run):
    x, padding = batch()
    more = run(F.pad(x, (0, 0, 0, 3), value=9.0), F.pad(padding, (0, 3), value=True))
    if not equal([more], [run(x, padding)]):
        return "Three paddings more at the end of every text, and your means change."


def fact_package(run):
    x, padding = batch()
    if not equal([run(x, padding)], [Classifier.summarise(Classifier(3, 2, pool="mean"), x, padding)]):
        return "Texts of 5, 2 and 1 words: your means are not refattn's."


pooled = Exercise(
    "wide_attention.pooled",
    answers.pooled,
    returns="a mean of real words for each text, [B, D]",
    probes=(
        Probe("Words 4 and 8, and one padding: 6.", two_words),
        Probe("Words 4 and 0, and one padding: 2.", a_zero),
        Probe("Words 4 and 8 beside a text of four: 6 and 5.", two_texts),
        Probe("Texts of 5, 2 and 1 words, D = 2.", batch),
    ),
    variants=(
        Variant(
            "divided by n",
            answers.pooled_over_all,
            lambda run: f"{by_hand(run)}.",
            given=True,
        ),
        Variant(
            "zeros are padding",
            answers.pooled_over_nonzero,
            lambda run: f"{by_hand_zero(run)}.",
            """Where no word is 0 all is right. But a word may well be: it is a word by its place, whatever its numbers.
            Try: count what padding says, and not what stands there.""",
        ),
        Variant(
            "padding is a word",
            answers.pooled_with_padding,
            lambda run: f"{by_hand(run)}.",
            """After the layers padded places hold numbers like all others: position, bias, whatever they attended to.
            Try: what must stand in a place that is not to be heard, before you add?""",
        ),
        Variant(
            "the mean of the padding",
            answers.pooled_padding_only,
            lambda run: f"{by_hand(run)}.",
            """A mean of the right kind, over the wrong places: padding is True where a word is *not*.
            Try: ~padding.""",
        ),
        Variant(
            "one count for all",
            answers.pooled_one_count,
            lambda run: f"{together(run)}.",
            """One text alone is right. In a batch every text has a length of its own, and yours share one.
            Try: sum(1, keepdim=True), a count a row.""",
        ),
    ),
    properties=(
        Property(
            "more padding changes nothing",
            fact_more_padding,
            "A prediction may not depend on how long the longest text of its batch is. Try: count real words.",
        ),
    ),
    numbers=(Property("it equals refattn", fact_package, "A sum of real words by their number. Try: one text alone."),),
    hints=(
        "Padding adds nothing to the sum; still it counts. A text of 2 words in a batch of width 1,000 is divided by "
        "1,000, and reaches the classifier 500 times too small. By how many should a sum of two words be divided?",
        "words.sum(1) / (~padding).sum(1, keepdim=True)",
    ),
    passed="""A text is what it says, not how much room was left for it.
    Next: the authors' comparisons ran code that divides by n. With all texts cut to one length, does it matter?""",
)
