"""Lesson 01, build: the attention map, then attention itself, causal on request."""

import torch
from torch.nn import functional as F

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.softmax import answers


def agreeing():
    """Two queries, three keys, d = 4: dot products 4 where they agree, else 0."""
    return rows([2, 0, 0, 0], [0, 2, 0, 0]), rows([2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0])


def loud():
    """Logits 5000 and 4950: no float holds their exponentials."""
    return rows([100, 0, 0, 0]), rows([100, 0, 0, 0], [99, 0, 0, 0])


def largest_weight(run, d):
    """Mean largest weight over 16 keys, entries from N(0, 1)."""
    return run(seeded(64, d), seeded(16, d, seed=1)).max(-1).values.mean().item()


def fact_widths(run):
    narrow, wide = largest_weight(run, 4), largest_weight(run, 256)
    return (
        f"q and k from N(0, 1), 16 keys: your largest weight is {narrow:.2f} on average at d = 4 and {wide:.2f} at "
        "d = 256; it should depend on the keys, not on how wide they are."
    )


def fact_row_sums(run):
    sums = run(seeded(3, 8), seeded(5, 8, seed=1)).sum(-1)
    if not equal([sums], [torch.ones(3)]):
        return f"The weights of three queries sum to {show(sums)}, not to 1."


def fact_shift(run):
    q, k = seeded(3, 8), seeded(5, 8, seed=1)
    moved = (run(q, k + seeded(8, seed=2)) - run(q, k)).abs().max().item()
    if not moved < 1e-4:
        return f"Adding one and the same vector to all keys moved a weight by {moved:.2g}."


weights = Exercise(
    "softmax.weights",
    answers.weights,
    returns="weights [..., N, M], a row for each query",
    probes=(
        Probe("d = 4; q = [2, 0, 0, 0] and [0, 2, 0, 0], keys these two and [0, 0, 2, 0].", agreeing),
        Probe("Logits 5000 and 4950.", loud),
        Probe(
            "q [2, 3, 4, 5] and k [2, 3, 6, 5]: batch and heads in front.",
            lambda: (seeded(2, 3, 4, 5), seeded(2, 3, 6, 5)),
        ),
    ),
    variants=(
        Variant(
            "no scale",
            answers.weights_no_scale,
            fact_widths,
            """Rows sum to one and the order of the weights is right; only the contrast is off. A dot product of d such
            terms has standard deviation √d, so wide heads make softmax a maximum, which passes no gradient on.
            Try: print the standard deviation of your logits at d = 4, 64 and 256. What brings all three to 1?""",
        ),
        Variant(
            "scaled by d",
            answers.weights_scaled_by_d,
            fact_widths,
            """Rows sum to one, and something does calm the logits, but too much: 1/16 = 0.06 is no preference at all.
            Over d independent terms variances add up; standard deviations do not.
            Try: print the standard deviation of q·k at d = 64 and at d = 256: twice as large, or four times?""",
        ),
        Variant(
            "scaled after the softmax",
            answers.weights_scaled_after,
            lambda run: (
                f"At d = 4 the weights of one query sum to {show(run(*agreeing())[0].sum())}: a weighted mean "
                "needs weights that sum to 1."
            ),
            """Each row has the ratios of a softmax. Dividing behind it shrinks the result; dividing in front of it
            softens the choice, and that is what the scale is for.
            Try: give it three equal keys. What should each weight be, and what comes?""",
        ),
        Variant(
            "softmax over queries",
            answers.weights_over_queries,
            lambda run: (
                f"Two queries, three keys: your rows sum to {show(run(*agreeing()).sum(-1))}, your columns to "
                f"{show(run(*agreeing()).sum(-2))}."
            ),
            """The logits are right. But here every key shares itself out among the queries; attention is a query that
            shares itself out among the keys.
            Try: name both axes of your logits. Along which of them does one query's attention lie?""",
        ),
        Variant(
            "overflow",
            answers.weights_overflow,
            lambda run: f"Logits 5000 and 4950 must give weights [1, 0]; you return {show(run(*loud())[0])}.",
            """Small logits come out right, so the formula is. But e⁵⁰⁰⁰ fits in no float, and ∞/∞ is not a number. On
            paper, one constant taken off all logits of a row changes nothing.
            Try: which constant makes the largest exponential of a row exactly 1? Or does torch do it already?""",
        ),
    ),
    properties=(
        Property(
            "every row sums to one",
            fact_row_sums,
            """A query's weights are a distribution.
            Try: sum one row by hand.""",
        ),
        Property(
            "adding one vector to all keys changes nothing",
            fact_shift,
            """It adds one constant to every logit of a row, which softmax does not see.
            Try: print the logits of one row before and after.""",
        ),
    ),
    hints=(
        "Three steps: similarities, scale, distribution. Check the shape after each: [..., N, M] from the first on.",
        "k.transpose(-1, -2) works with any number of axes in front; divide by the square root of d = q.shape[-1]; "
        ".softmax(axis) with the axis that runs over keys.",
    ),
    passed="""Rows are distributions, at any width, for logits of 5000 too, and shifting all keys by one vector changes
    nothing.
    Next: shifting all keys is invisible. What about shifting all queries? Predict, then try.""",
)


def indifferent(is_causal=True):
    """Three tokens with zero queries and keys: every visible token counts the same."""
    return torch.zeros(3, 2), torch.zeros(3, 2), rows([3, 0], [6, 0], [9, 3]), is_causal


def heads(is_causal, queries=5):
    q = seeded(2, 3, queries, 4)
    return q, seeded(2, 3, 5, 4, seed=1), seeded(2, 3, 5, 6, seed=2), is_causal


def first_with_last(run, last):
    """Output of token 0 of four, when the value of token 3 is `last`."""
    q, k = seeded(4, 8), seeded(4, 8, seed=1)
    return run(q, k, rows([1], [2], [3], [last]), True)[0, 0].item()


def fact_leak(run):
    before, after = first_with_last(run, 4), first_with_last(run, 400)
    if not abs(before - after) < 1e-4:
        return f"Causal: token 0 is {before:.3g} when the last token's value is 4, and {after:.3g} when it is 400."


def fact_inside(run):
    y, v = run(*heads(False)), heads(False)[2]
    if not ((y <= v.amax(-2, keepdim=True) + 1e-4) & (y >= v.amin(-2, keepdim=True) - 1e-4)).all():
        return "An output lies outside the range of the values: no mean can."


def fact_torch(run):
    q, k, v = (seeded(2, 3, 33, 8, seed=i) for i in range(3))
    error = (run(q, k, v, True) - F.scaled_dot_product_attention(q, k, v, is_causal=True)).abs().max().item()
    if not error < 1e-4:
        return f"33 tokens: you differ from torch's scaled_dot_product_attention by {error:.2g}."


def causal_rows(run):
    """What the three indifferent tokens become, in words."""
    return f"Causal, zero queries, values [3, 0], [6, 0], [9, 3]: you return {show(run(*indifferent()))}"


attend = Exercise(
    "softmax.attend",
    answers.attend,
    returns="attended values [..., N, d_v]",
    probes=(
        Probe(
            "is_causal=True, zero queries, values [3, 0], [6, 0], [9, 3]: each token is the mean of those so far.",
            indifferent,
        ),
        Probe("is_causal=False, zero queries, values [3, 0], [6, 0], [9, 3]: all see all.", lambda: indifferent(False)),
        Probe("Causal, 5 tokens, 2 × 3 heads, d = 4, d_v = 6.", lambda: heads(True)),
        Probe("Not causal, 2 queries on 5 keys.", lambda: heads(False, queries=2)),
    ),
    variants=(
        Variant(
            "no mask",
            answers.attend_unmasked,
            fact_leak,
            """Without is_causal every number is right. With it, nothing changes: the argument is not used yet.
            Try: write down, for 3 tokens, which of the 9 pairs may talk. Which torch function draws that shape?""",
        ),
        Variant(
            "masked after the softmax",
            answers.attend_masked_late,
            lambda run: f"{causal_rows(run)}. Token 0 sees only itself, so it must be [3, 0].",
            """No later value is mixed in, but later keys still took their share of the 1 before they were struck out.
            The shares that remain sum to less than one.
            Try: print the row sums of your weights. Then either share out again, or strike out earlier.""",
        ),
        Variant(
            "logits set to zero",
            answers.attend_zeroed_logits,
            fact_leak,
            """The triangle is the right one, and without is_causal all is right. But a logit of 0 is not silence: e⁰ =
            1, an average key.
            Try: which logit has exponential zero?""",
        ),
        Variant(
            "sees the future",
            answers.attend_future,
            lambda run: f"{causal_rows(run)}. The last token is allowed to see all three, the first only itself.",
            """Exactly one triangle is visible, and rows sum to one; it is the other triangle.
            Try: in your mask, row i is query i. Print it for 3 tokens: which row must be all True?""",
        ),
        Variant(
            "does not see itself",
            answers.attend_not_itself,
            lambda run: f"{causal_rows(run)}. Token 0 has only itself, and should be [3, 0].",
            """No later token leaks in. But a row with nothing to look at is 0/0; position i's output is used to
            predict token i + 1, so token i itself is known.
            Try: print your mask for 3 tokens. Is its diagonal True?""",
        ),
    ),
    properties=(
        Property(
            "no later token changes an earlier output",
            fact_leak,
            """Causal means: key j ≤ query i.
            Try: print the mask.""",
        ),
        Property(
            "outputs stay within the values",
            fact_inside,
            """A weighted mean cannot leave its values.
            Try: sum a row.""",
        ),
    ),
    numbers=(
        Property(
            "it equals torch's kernel",
            fact_torch,
            """The formula is eq. 2.
            Try: compare at 3 tokens first.""",
        ),
    ),
    hints=(
        "Your weights do the case without a mask. With one, hide the pairs before the softmax shares out the 1.",
        "torch.ones(N, M, dtype=torch.bool).tril() is True where key j ≤ query i; "
        "logits.masked_fill(~that, -torch.inf), then softmax, then @ v.",
    ),
    passed="""Every output is a mean of values it may see, no later token moves an earlier one, and torch's fused
    kernel agrees.
    Next: the kernel never stores the N × M map. At which N would your map alone fill 1 GiB, in float32, one head?""",
)
