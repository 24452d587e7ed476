"""Lesson 04, the stretch: attention among tokens that a hash has put together."""

import math

import torch
from torch.nn import functional as F

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.luna.nested import as_matrices
from refattn.checks.sparse import answers


def two_kinds(rounds=1):
    """Eight tokens, all alike but for their values 1, 2, 4, …, 128; even ones in bucket 0, odd ones in bucket 1."""
    buckets = (torch.arange(8) % 2).expand(rounds, 8).clone()
    return torch.ones(8, 1), rows(*([2.0**i] for i in range(8))), buckets, 2


def second_opinion():
    """The same; a second round parts them at token 4."""
    qk, v, buckets, chunk = two_kinds(2)
    buckets[1] = torch.arange(8) // 4
    return qk, v, buckets, chunk


def straddling():
    """Four tokens alike but for their values; the second chunk's look back goes to another bucket."""
    return torch.ones(4, 1), rows([1], [2], [4], [8]), torch.tensor([[0, 1, 1, 0]]), 2


def unequal():
    """Four tokens in one bucket; token 1 is three times as long as the others."""
    return rows([1], [3], [1], [1]), rows([2], [4], [9], [1]), torch.zeros(1, 4, dtype=torch.int64), 2


def tokens(n, rounds, chunk, d=4, d_v=3):
    """n tokens whose buckets are those of a hash: n / chunk of them."""
    qk = seeded(n, d)
    rotated = torch.einsum("nd,drb->rnb", qk, seeded(d, rounds, max(1, n // chunk // 2), seed=3))
    return qk, seeded(n, d_v, seed=2), torch.cat([rotated, -rotated], -1).argmax(-1), chunk


def outputs(run, *places):
    y = run(*two_kinds()).flatten()
    return ", ".join(f"output {i} is {show(y[i])}" for i in places)


ALIKE = "Eight tokens alike, values 1, 2, 4, … 128, even ones in bucket 0, chunks of 2"


def fact_one_bucket(run):
    qk, v = seeded(8, 4), seeded(8, 3, seed=1)
    keys = F.normalize(qk, dim=-1)
    logits = (qk @ keys.T / math.sqrt(4)).masked_fill(torch.eye(8, dtype=torch.bool), -1e4)
    full = logits.masked_fill(~torch.ones(8, 8, dtype=torch.bool).tril(), -1e9).softmax(-1) @ v
    if not equal([run(qk, v, torch.zeros(1, 8, dtype=torch.int64), 4)], [full]):
        return "One round, one bucket, two chunks: all pairs meet, so it must be full causal attention, itself masked."


def fact_leak(run):
    qk, v, buckets, chunk = tokens(16, 2, 4)
    changed = v.clone()
    changed[9] += 10.0
    moved = (run(qk, changed, buckets, chunk) - run(qk, v, buckets, chunk)).abs().amax(-1)
    if not moved[:9].max() < 1e-4:
        return f"16 tokens: value 9 was changed, and outputs 0 … 8 moved by {show(moved[:9])}."


def fact_stored(run):
    stored = golden("golden_sparse")
    parts = zip(*(stored[f"lsh.{name}"] for name in ("qk", "v", "buckets", "y")), strict=True)
    errors = [(run(qk, v, buckets, 4) - y).abs().max().nan_to_num(torch.inf).item() for qk, v, buckets, y in parts]
    if max(errors) > 5e-5:
        return f"16 tokens, two rounds, through another implementation: you differ by {max(errors):.2g}."


lsh_attention = Exercise(
    "sparse.lsh_attention",
    answers.lsh_attention,
    returns="outputs [N, d_v]",
    adapt=as_matrices,
    probes=(
        Probe(f"{ALIKE}, one round: token 4 reads 0 and 2, and so returns 2.5.", two_kinds),
        Probe("The same tokens and a second round, in which 0 … 3 share a bucket, and 4 … 7.", second_opinion),
        Probe("Four tokens, buckets 0, 1, 1, 0, chunks of 2.", straddling),
        Probe("16 tokens, one round, chunks of 4.", lambda: tokens(16, 1, 4)),
        Probe("24 tokens, three rounds, chunks of 4.", lambda: tokens(24, 3, 4)),
    ),
    variants=(
        Variant(
            "reads itself",
            answers.lsh_attention_itself,
            lambda run: f"{ALIKE}: token 4 should read 0 and 2, mean 2.5; {outputs(run, 4)}.",
            """Sorted, cut, masked, put back: all right. But queries are keys here, and nobody is more like a token than
            itself: q·k̂ is largest there, and every output would be mostly its own value.
            Try: give a pair i = j a logit so low that it counts only where nobody else is met.""",
        ),
        Variant(
            "met twice, counted twice",
            answers.lsh_attention_twice,
            lambda run: (
                f"Two rounds; token 6 meets 2 and 4 in the first and 4, 5 in the second: the mean of 4, 16, 32 is "
                f"17.3; yours is {show(run(*second_opinion())[6, 0])}."
            ),
            """One round is right. With more, a key that was met in c rounds stands c times in the sum.
            Try: subtract log c from its logit: c · e^(L − log c) = e^L.""",
        ),
        Variant(
            "rounds averaged",
            answers.lsh_attention_mean,
            lambda run: (
                f"Two rounds; token 6 meets 2 and 4 in the first and 4, 5 in the second: the mean of 4, 16, 32 is "
                f"17.3; yours is {show(run(*second_opinion())[6, 0])}."
            ),
            """Each round is right. A plain mean of rounds gives the same say to one that met a single stranger and to
            one that met all friends.
            Try: weigh round r by its own denominator: y = Σ_r z_r y_r / Σ_r z_r. Which sum is that, multiplied out?""",
        ),
        Variant(
            "no look back",
            answers.lsh_attention_no_look_back,
            lambda run: f"{ALIKE}: token 4 should read 0 and 2, which stand in the chunk before; {outputs(run, 4)}.",
            """Inside a chunk all is right. A bucket does not end where a chunk does: the rest of it stands in the chunk
            before.
            Try: .roll(1, dims=…) along the chunks.""",
        ),
        Variant(
            "across buckets",
            answers.lsh_attention_across,
            lambda run: (
                "Four tokens alike, values 1, 2, 4, 8, buckets 0, 1, 1, 0, chunks of 2: token 1 is the first of its "
                f"bucket, and so reads itself, 2; yours reads {show(run(*straddling())[1, 0])}."
            ),
            """Sorted, cut, put back: all right. Where a chunk holds the end of one bucket and the start of the next,
            strangers meet. (Reformer may allow that; here only pairs of the same bucket count.)
            Try: compare the buckets of query and key.""",
        ),
        Variant(
            "long keys",
            answers.lsh_attention_long_keys,
            lambda run: (
                "Four tokens 1, 3, 1, 1 of width 1, values 2, 4, 9, 1, one bucket: token 2 reads two keys, both of "
                f"length 1, and returns 3; yours returns {show(run(*unequal())[2, 0])}."
            ),
            """Who meets whom is right. Keys must have length one: k̂_j = q_j / |q_j|. With q·q as logits, a long key is
            like everybody.
            Try: F.normalize(qk, dim=-1) for the keys only.""",
        ),
        Variant(
            "not sorted",
            answers.lsh_attention_unsorted,
            lambda run: f"{ALIKE}: token 4 should read 0 and 2, mean 2.5; {outputs(run, 4)}.",
            """Chunks are right, and buckets are compared. But tokens stand in their old order, so a chunk holds
            neighbours in the text, and few of them share a bucket.
            Try: buckets.argsort(stable=True) first; then cut.""",
        ),
        Variant(
            "left sorted",
            answers.lsh_attention_left_sorted,
            lambda run: f"{ALIKE}: output 1 should be token 1's own value, 2; {outputs(run, 1)}.",
            """Every output is right, and stands where its token stood in the sorted list.
            Try: order.argsort() says where token i stands; read the outputs there.""",
        ),
    ),
    properties=(
        Property("one bucket is full attention", fact_one_bucket, "Two chunks see each other. Try: N = 8, chunk 4."),
        Property("no later token moves an earlier output", fact_leak, "j ≤ i, by position. Try: compare positions."),
    ),
    costs=(
        at_most(
            2 * 512 * 32,
            lambda: tokens(512, 2, 16, 16, 16),
            sizes="N = 512, two rounds, m = 16, d = d_v = 16",
            says="""A mask of who has met whom has N² entries, and to compare all with all was what hashing should save.
            Try: 32 chunks of 16 queries and 32 keys a round. Compare positions and buckets in there.""",
        ),
    ),
    numbers=(Property("it equals another implementation", fact_stored, "Two rounds. Try: with one of them."),),
    hints=(
        """order = buckets.argsort(dim=-1, stable=True); positions cut into chunks, order.reshape(R, -1, m), and the
        chunk before, .roll(1, 1). Everything else (buckets, q, k̂, v) is looked up by these positions.""",
        """c of a pair: in each round, is the key's chunk the query's or the one before, and the bucket the same? Sum it
        over rounds. Then logits − log c, numerators and denominators of all rounds on one scale, unsorted by
        order.argsort(), added, divided.""",
    ),
    passed="""Sorted, met, counted once, put back; full attention where all share a bucket; and no N² tensor.
    Next: R rounds cost R times as much. Which pairs does the tenth round still find?""",
)
