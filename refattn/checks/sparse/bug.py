"""Lesson 04, find the bug: tokens cut into groups that are no blocks, and a mask that is cut the other way."""

import torch

from refattn.checks.compare import seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.luna.nested import as_matrices
from refattn.checks.sparse import answers


def equal_scores(padded=()):
    """Six tokens with equal scores and values 1, 2, 4, 8, 16, 32; blocks of 3. padded: positions."""
    mask = torch.zeros(6, dtype=torch.bool)
    mask[list(padded)] = True
    return torch.zeros(6, 2), torch.zeros(6, 2), torch.tensor([[1.0], [2], [4], [8], [16], [32]]), mask, 3


def tokens(padded=4):
    mask = torch.arange(12) >= 12 - padded
    return seeded(12, 4), seeded(12, 4, seed=1), seeded(12, 3, seed=2), mask, 4


def means(run, padded=()):
    return show(run(*equal_scores(padded)).flatten(), 3)


ALL = "Values 1, 2, 4, 8, 16, 32, equal scores, blocks of 3: the means of 1, 2, 4 and of 8, 16, 32 are 2.33 and 18.7"
LAST = "Values 1, 2, 4, 8 and a padded 16 and 32, equal scores, blocks of 3: the means are 2.33, and 8 alone"


def fact_neighbours(run):
    q, k, v, mask, window = tokens(0)
    changed = v.clone()
    changed[5] += 10.0
    moved = ((run(q, k, changed, mask, window) - run(q, k, v, mask, window)).abs().amax(-1) > 1e-4).nonzero().flatten()
    if moved.tolist() != [4, 5, 6, 7]:
        return f"12 tokens in blocks of 4: value 5 was changed; outputs {moved.tolist()} moved, wanted [4, 5, 6, 7]."


def fact_padding(run):
    q, k, v, mask, window = tokens(2)
    changed = v.clone()
    changed[10:] += 10.0
    moved = (run(q, k, changed, mask, window) - run(q, k, v, mask, window))[:10].abs().max()
    if not moved < 1e-4:
        return f"12 tokens in blocks of 4, 10 and 11 are padding: their values move real outputs by {show(moved)}."


block_attention = Exercise(
    "sparse.block_attention",
    answers.block_attention,
    returns="outputs [N, d_v]",
    adapt=as_matrices,
    probes=(
        Probe(f"{ALL}.", equal_scores),
        Probe(f"{LAST}.", lambda: equal_scores([4, 5])),
        Probe("12 tokens in blocks of 4, the last 3 are padding.", lambda: tokens(3)),
    ),
    variants=(
        Variant(
            "as it came",
            answers.block_attention_grouped,
            lambda run: f"{ALL}; you return {means(run)}.",
            """Each output is a mean of three values, but of which three? reshape(w, n, d) lays the first n tokens into
            the first row, so a group is a column: every n-th token.
            Try: torch.arange(6).reshape(3, 2). Which numbers are in column 0? And which way is the mask cut?""",
        ),
        Variant(
            "groups, consistently masked",
            answers.block_attention_grouped_mask,
            lambda run: f"{ALL}; you return {means(run)}.",
            """Now the mask hides the tokens that are padding: one of the two faults is gone. Groups still hold every
            n-th token; you have brought the mask into line with the tokens, and not the tokens with the name of the
            function.
            Try: torch.arange(6).reshape(2, 3). Which tokens are in row 0?""",
        ),
        Variant(
            "blocks, mask still across",
            answers.block_attention_mask_left,
            lambda run: f"{LAST}; you return {means(run, [4, 5])}.",
            """Without padding all is right: neighbours are together. But the mask hides other tokens than those that
            are padding.
            Try: which rows of the mask belong to block 0?""",
        ),
        Variant(
            "put back across",
            answers.block_attention_scrambled,
            lambda run: f"{ALL}; you return {means(run)}.",
            """Every mean is that of a block, so tokens are cut rightly. They are put back in the order of columns.
            Try: if [N, d] became [n, w, d] by one reshape, which move undoes it?""",
        ),
        Variant(
            "no mask",
            answers.block_attention_unmasked,
            lambda run: f"{LAST}; you return {means(run, [4, 5])}.",
            """Neighbours are together. The mask is not used any more.
            Try: cut it as the tokens are cut.""",
        ),
    ),
    properties=(
        Property("neighbours are together", fact_neighbours, "Blocks of w tokens in a row. Try: change one value."),
        Property("padding is not heard", fact_padding, "The mask goes with the keys. Try: change a padded value."),
    ),
    hints=(
        "Two faults. Print torch.arange(6) cut as the tokens are cut, and cut as the mask is cut.",
        "reshape(-1, window, d) for tokens, so that blocks are the first axis; reshape(-1, 1, window) for the mask.",
    ),
    passed="""Blocks of neighbours, masked where their padding is, and put back in order.
    Next: both faults left every shape as it was, and a model trained. Which test of one changed token finds them?""",
)
