"""Lesson 04, build: the two patterns of Sparse Transformer."""

import torch
from torch.utils._pytree import tree_map

from refattn.checks.compare import golden
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.sparse import answers


def as_numbers(attempt):
    """Its masks as 0 and 1, which read better in a message than False and True."""

    def to_numbers(part):
        return part.int() if torch.is_tensor(part) and part.dtype == torch.bool else part

    return lambda *args: tree_map(to_numbers, attempt(*args))


def keys(mask, query):
    """The keys that a query may read, such as [3, 4, 5]."""
    return str(mask[query].nonzero().flatten().tolist())


def fact_future(run, *sizes):
    for name, mask in zip(("first", "second"), run(12, *sizes), strict=True):
        later = mask.triu(1).nonzero()
        if len(later):
            i, j = later[0].tolist()
            return f"12 tokens: in your {name} pattern query {i} reads key {j}, which comes later."


def fact_strided_width(run):
    near, far = (mask[11].sum().item() for mask in run(12, 4))
    if (near, far) != (5, 3):
        return f"12 tokens, stride 4: your query 11 reads {near} near keys and {far} far ones; wanted 5 and 3."


def fact_stored(run, name, *sizes):
    wanted = golden("golden_sparse")[f"{name}.allow"]
    first, second = run(len(wanted), *sizes)
    differs = ((first != 0) | (second != 0)) != wanted
    if differs.any():
        i, j = differs.nonzero()[0].tolist()
        return f"{len(wanted)} tokens, l = 4, the two united: the stored mask differs first at query {i}, key {j}."


def strided_row(run):
    near, far = run(6, 2)
    return (
        "6 tokens, stride 2: query 3 should read near keys [1, 2, 3] and far keys [1, 3]; yours are "
        f"{keys(near, 3)} and {keys(far, 3)}."
    )


strided_patterns = Exercise(
    "sparse.strided_patterns",
    answers.strided_patterns,
    returns="two masks [N, N]: near keys, and far ones",
    adapt=as_numbers,
    probes=(
        Probe("6 tokens, stride 2, rows are queries.", lambda: (6, 2)),
        Probe("7 tokens, stride 3.", lambda: (7, 3)),
        Probe("3 tokens, stride 5.", lambda: (3, 5)),
    ),
    variants=(
        Variant(
            "window of l keys",
            answers.strided_patterns_short,
            strided_row,
            """Causal, and the far keys are right. The window is one key short: eq. 1 reaches back *l* keys and then has
            the query itself, l + 1 in all. United with the far pattern nobody would notice, since i − l is a far key
            too; in heads of their own, one would.
            Try: i − l ≤ j ≤ i. For i = 3, l = 2, which j?""",
        ),
        Variant(
            "columns from the left",
            answers.strided_patterns_columns,
            strided_row,
            """Causal, and the near keys are right. Your far keys are the same columns for all queries, counted from the
            left; a stride is counted back from the query. (Fixed columns are the other pattern, of the next exercise.)
            Try: write j mod l and (i − j) mod l for i = 3 and all j.""",
        ),
        Variant(
            "both sides",
            answers.strided_patterns_both_sides,
            strided_row,
            """Distances are right, on both sides. Sparse Transformer writes images and music one element at a time:
            j ≤ i.
            Try: which sign has i − j for a key that comes later?""",
        ),
        Variant(
            "future only",
            answers.strided_patterns_future,
            strided_row,
            """Distances are right, and turned round: rows are queries here, columns are keys.
            Try: print i[:, None] - i for four tokens. Which entry belongs to query 3 and key 0?""",
        ),
    ),
    properties=(
        Property("no later key is read", lambda run: fact_future(run, 4), "j ≤ i. Try: print both masks."),
        Property("5 near keys and 3 far ones", fact_strided_width, "l + 1, and ⌊i/l⌋ + 1. Try: query 11."),
    ),
    numbers=(
        Property(
            "it equals the stored mask",
            lambda run: fact_stored(run, "strided", 4),
            "Near or far. Try: print that row.",
        ),
    ),
    hints=(
        "Both depend on i − j alone. Make that matrix first: torch.arange(N)[:, None] - torch.arange(N).",
        "near: 0 ≤ i − j ≤ l. far: i − j ≥ 0 and a multiple of l.",
    ),
    passed="""l + 1 near keys, every l-th far one, nothing later; and united, the stored mask of another implementation.
    Next: a query reads about l + N/l keys. Which l makes that least?""",
)


def fixed_row(run):
    own, summary = run(6, 3, 1)
    return (
        f"6 tokens, blocks of 3, c = 1: query 4 should read own keys [3, 4] and summary keys [2]; yours are "
        f"{keys(own, 4)} and {keys(summary, 4)}."
    )


def two_summaries(run):
    own, summary = run(8, 4, 2)
    return (
        f"8 tokens, blocks of 4, c = 2: query 7 should read own keys [4, 5, 6, 7] and summary keys [2, 3, 6, 7]; yours "
        f"are {keys(own, 7)} and {keys(summary, 7)}."
    )


def fact_summary_columns(run):
    columns = run(12, 4, 2)[1].any(0).nonzero().flatten().tolist()
    if columns != [2, 3, 6, 7, 10, 11]:
        return f"12 tokens, blocks of 4, c = 2: your summary columns are {columns}; wanted [2, 3, 6, 7, 10, 11]."


fixed_patterns = Exercise(
    "sparse.fixed_patterns",
    answers.fixed_patterns,
    returns="two masks [N, N]: the own block, and the summary keys",
    adapt=as_numbers,
    probes=(
        Probe("6 tokens in blocks of 3, c = 1, rows are queries.", lambda: (6, 3, 1)),
        Probe("8 tokens in blocks of 4, c = 2.", lambda: (8, 4, 2)),
        Probe("7 tokens in blocks of 3, c = 2: the last block is short.", lambda: (7, 3, 2)),
    ),
    variants=(
        Variant(
            "first keys of a block",
            answers.fixed_patterns_first,
            fixed_row,
            """The own block is right. Your summaries are the *first* keys of each block; when block u is being written,
            its first key has read nothing of it. The last one has read it all.
            Try: which key of a causal block knows the most about it?""",
        ),
        Variant(
            "column 0 as well",
            answers.fixed_patterns_wrapped,
            fixed_row,
            """The own block and the last columns are right; the first column of each block is open too. A published
            comparison's code has that: the paper counts positions from 1, Python from 0.
            Try: for l = 3, c = 1: which j in 0 … 5 have j mod 3 ≥ 2?""",
        ),
        Variant(
            "one summary too few",
            answers.fixed_patterns_fewer,
            two_summaries,
            """The own block is right. With > where ≥ belongs, c − 1 columns are left, and none at all for c = 1.
            Try: list j mod 4 for j = 0 … 7; how many are ≥ 2, how many > 2?""",
        ),
        Variant(
            "sliding window",
            answers.fixed_patterns_sliding,
            fixed_row,
            """Summaries are right. Your window slides with the query; here the blocks stand still, and the first query
            of a block reads nobody of the block before, but through a summary.
            Try: ⌊j / l⌋ and ⌊i / l⌋ for i = 3, j = 2, l = 3.""",
        ),
        Variant(
            "both sides",
            answers.fixed_patterns_both_sides,
            fixed_row,
            """Blocks and columns are right. Both patterns also ask j ≤ i, the summaries too: a query may not read the
            summary of a block that is still to come.
            Try: .tril().""",
        ),
    ),
    properties=(
        Property("no later key is read", lambda run: fact_future(run, 4, 2), "j ≤ i. Try: print both masks."),
        Property("c columns a block", fact_summary_columns, "j mod l ≥ l − c. Try: list j mod l."),
    ),
    numbers=(
        Property(
            "it equals the stored mask",
            lambda run: fact_stored(run, "fixed", 4, 1),
            "Own or summary. Try: print that row.",
        ),
    ),
    hints=(
        "The number of a token's block is i // l. A summary is a property of the key alone: j % l.",
        "own: i // l == j // l. summary: j % l ≥ l − c. Both with j ≤ i: .tril().",
    ),
    passed="""Own block, c summary columns a block, nothing later; and united, the stored mask.
    Next: give one head the first pattern, and another the second. What does the second head read for query 0?""",
)
