"""Lesson 04, build: local attention in blocks, without a score for a pair that is not allowed."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.luna.nested import as_matrices
from refattn.checks.sparse import answers


def equal_scores():
    """Seven tokens with q = k = 0, so that outputs are means of the values 1, 2, 4, 8, 16, 32, 64; blocks of 2."""
    return torch.zeros(7, 2), torch.zeros(7, 2), rows([1], [2], [4], [8], [16], [32], [64]), 2


def tokens(n, window, d=4, d_v=3):
    return seeded(n, d), seeded(n, d, seed=1), seeded(n, d_v, seed=2), window


def means(run, *places):
    y = run(*equal_scores()).flatten()
    return ", ".join(f"output {i} is {show(y[i])}" for i in places)


WANTED = "Values 1, 2, 4, 8, 16, 32, 64, equal scores, blocks of 2"


def moved_by(run, j, n=12, window=4):
    """How much every output moves if value j is changed by 10, and if key j is."""
    q, k, v, _ = tokens(n, window)
    other_v, other_k = v.clone(), k.clone()
    other_v[j] += 10.0
    other_k[j] += 10.0
    y = run(q, k, v, window)
    return torch.stack([(run(q, *kv, window) - y).abs().amax(-1) for kv in ((k, other_v), (other_k, v))]).amax(0)


def fact_beyond(run):
    moved = moved_by(run, 2)
    if not moved[8:].max() < 1e-4:
        return f"12 tokens in blocks of 4: token 2 was changed, and outputs 8 … 11 moved by {show(moved[8:])}."


def fact_leak(run):
    moved = moved_by(run, 6)
    if not moved[:6].max() < 1e-4:
        return f"12 tokens in blocks of 4: token 6 was changed, and outputs 0 … 5 moved by {show(moved[:6])}."


def fact_masked(run):
    for n in (9, 12, 13):
        q, k, v, window = tokens(n, 4)
        if not equal([run(q, k, v, window)], [answers.local_attention_masked(q, k, v, window)]):
            return f"{n} tokens in blocks of 4: it differs from softmax attention on all pairs, masked by eq. 3."


def fact_stored(run):
    stored = golden("golden_sparse")
    q, k, v, y = (stored[f"local.{name}"] for name in "qkvy")
    error = (run(q, k, v, 3) - y).abs().max().nan_to_num(torch.inf).item()
    if error > 5e-5:
        return f"Ten tokens in blocks of 3, through another implementation: you differ by {error:.2g}."


local_attention = Exercise(
    "sparse.local_attention",
    answers.local_attention,
    returns="outputs [N, d_v]",
    adapt=as_matrices,
    probes=(
        Probe(f"{WANTED}: outputs are means over the block before and the own one, up to the query.", equal_scores),
        Probe("12 tokens in blocks of 4.", lambda: tokens(12, 4)),
        Probe("10 tokens in blocks of 4: the last block is short.", lambda: tokens(10, 4)),
        Probe("3 tokens in blocks of 4.", lambda: tokens(3, 4)),
    ),
    variants=(
        Variant(
            "grouped",
            answers.local_attention_grouped,
            lambda run: (
                f"{WANTED}: output 3 should be the mean of 1, 2, 4, 8, 3.75, and output 6 that of 16, 32, 64, 37.3; "
                f"{means(run, 3, 6)}."
            ),
            """Sizes fit, and no score is wasted. But the sequence was cut by reshape(w, n), where n numbers in a row
            stay together: your groups hold every n-th token. A published comparison ran on such groups and called them
            local.
            Try: torch.arange(8).reshape(2, 4) and .reshape(4, 2). Where are neighbours in one row?""",
        ),
        Variant(
            "own block only",
            answers.local_attention_own,
            lambda run: f"{WANTED}: output 2 should be the mean of 1, 2, 4, 2.33; {means(run, 2)}.",
            """Blocks are right, and inside them everything. Nobody hears the block before, though; however many layers
            follow, no information ever crosses a border.
            Try: which keys does the first query of block 1 have?""",
        ),
        Variant(
            "sliding window",
            answers.local_attention_sliding,
            lambda run: f"{WANTED}: output 3 should be the mean of 1, 2, 4, 8, 3.75; {means(run, 3)}.",
            """Causal, and local. Yours is the window i − w ≤ j ≤ i, which slides with the query; eq. 3 lets all queries
            of a block read the whole block before.
            Try: ⌊i/w⌋ − ⌊j/w⌋ for i = 3 and j = 0, w = 2.""",
        ),
        Variant(
            "future inside the block",
            answers.local_attention_future,
            lambda run: f"{WANTED}: output 0 should be 1; {means(run, 0)}.",
            """The blocks are right. Inside the own block, queries read on to its end.
            Try: query a of a block stands at w + a among its 2w keys. Which of them come later?""",
        ),
        Variant(
            "zeros before the first block",
            answers.local_attention_zeros,
            lambda run: f"{WANTED}: output 0 should be 1; {means(run, 0)}.",
            """From block 1 on all is right. Before block 0 there are no tokens; the zeros that fill its place have
            logit 0, weight e⁰, and take their share.
            Try: zero is a key like any other. What must its logit be?""",
        ),
        Variant(
            "the last block before the first",
            answers.local_attention_wrapped,
            lambda run: f"{WANTED}: output 0 should be 1; {means(run, 0)}.",
            """From block 1 on all is right. torch.roll goes round in a circle: block 0 reads the end of the sequence.
            Try: mask what stands before block 0.""",
        ),
    ),
    properties=(
        Property("no later token moves an earlier output", fact_leak, "j ≤ i. Try: print the mask of block 0."),
        Property("two blocks on, a token is not heard", fact_beyond, "One block back. Try: change one token."),
        Property("any N", fact_masked, "The end of the last block is padding. Try: N = 9 in blocks of 4."),
    ),
    costs=(
        at_most(
            512 * 32,
            lambda: tokens(512, 16, 16, 16),
            sizes="N = 512, w = 16, d = d_v = 16",
            says="""A mask on all N² scores gives the right numbers, and every score has been computed first. What saves
            is never to ask: 32 blocks, each with 16 queries and 32 keys.
            Try: write the shape of your logits. Where does N stand in it twice?""",
        ),
    ),
    numbers=(
        Property("it equals another implementation", fact_stored, "Blocks of 3. Try: compare outputs one by one."),
    ),
    hints=(
        """Three moves: cut into [n, w, d] (fill up the last block); put the keys of block u − 1 before those of u,
        [n, 2w, d]; one small mask [w, 2w] for all blocks, and a special one for block 0.""",
        """before = torch.cat([torch.zeros_like(k[:1]), k[:-1]]); k = torch.cat([before, k], 1). Query a of a block
        stands at w + a: it sees key b ≤ w + a, in block 0 only b ≥ w as well.""",
    ),
    passed="""Causal, local, right for any N, and n · w · 2w scores where N² were.
    Next: every query has two blocks of keys, and the mask hides up to half of them. Could they be saved too?""",
)
