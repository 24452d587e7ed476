"""Lesson 02, build: causal linear attention in chunks."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.cost import answers
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant, at_most


def running_mean():
    """Five tokens with q = k = 0, so that all features are 1 and outputs are running means; chunks of 2."""
    return torch.zeros(5, 2), torch.zeros(5, 2), rows([2], [4], [9], [1], [4]), 2


def tokens(n, chunk, d=4, d_v=3):
    return seeded(n, d), seeded(n, d, seed=1), seeded(n, d_v, seed=2), chunk


def means(run):
    y = show(run(*running_mean())[0].flatten())
    return f"All features 1, values 2, 4, 9, 1, 4, chunks of 2: running means are 2, 3, 5, 4, 4; you return {y}"


def fact_leak(run):
    q, k, v, chunk = tokens(6, 4)
    changed = v.clone()
    changed[2] += 10.0
    moved = (run(q, k, changed, chunk)[0] - run(q, k, v, chunk)[0]).abs().amax(-1)
    if not moved[:2].max() < 1e-4:
        return f"Chunks of 4; the value of token 2 was changed by 10, and outputs 0 … 5 moved by {show(moved)}."


def fact_chunk_size(run):
    q, k, v, _ = tokens(7, 1)
    y = [run(q, k, v, chunk)[0] for chunk in (3, 7)]
    if not equal(y[:1], y[1:]):
        return f"Seven tokens: the last output is {show(y[0][-1])} with chunks of 3 and {show(y[1][-1])} with one of 7."


class Counter(TorchDispatchMode):
    """Counts operators."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += 1
        return operator(*args, **(kwargs or {}))


def fact_operators(run):
    with Counter() as counter:
        run(*tokens(512, 64))
    if counter.count > 1000:
        return (
            f"Every number is right, memory is linear. But 512 tokens in chunks of 64 took {counter.count:,} operators."
        )


def fact_authors(run):
    stored = golden()
    q, k, v = (stored[f"linear.{name}"] for name in "qkv")
    errors = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            wanted = [stored[f"linear.{name}"][b, h] for name in ("o", "state_S", "state_z")]
            found = run(q[b, h], k[b, h], v[b, h], 3)
            errors += [(x.squeeze() - y.squeeze()).abs().max() for x, y in zip(found, wanted, strict=True)]
    worst = max(error.nan_to_num(torch.inf).item() for error in errors)
    if worst > 5e-5:
        return f"Seven tokens through the authors' own code: you differ from it by {worst:.2g}."


chunked_causal = Exercise(
    "cost.chunked_causal",
    answers.chunked_causal,
    returns="outputs [N, d_v], and the state after the last token: S [d, d_v] and z [d]",
    probes=(
        Probe("All features 1, values 2, 4, 9, 1, 4, chunks of 2: running means.", running_mean),
        Probe("8 tokens in chunks of 4, d = 4, d_v = 3.", lambda: tokens(8, 4)),
        Probe("7 tokens in chunks of 3: the last chunk is short.", lambda: tokens(7, 3)),
    ),
    variants=(
        Variant(
            "chunk counted twice",
            answers.chunked_causal_twice,
            lambda run: f"{means(run)}.",
            """The final state is right. But token 0 hears itself twice, and token 1 before its time: through the masked
            products, and once more through a state that was brought up to date before the chunk had used it.
            Try: which tokens should the state hold while chunk 0 is worked on?""",
        ),
        Variant(
            "future inside the chunk",
            answers.chunked_causal_future,
            lambda run: f"{means(run)}.",
            """Between chunks the order is kept, and at the end of each chunk you are right. Inside a chunk everybody
            sees everybody: that part needs a mask, or a state that ends before the chunk begins.
            Try: print the [C, C] products of chunk 0. Which entries are allowed?""",
        ),
        Variant(
            "does not see itself",
            answers.chunked_causal_not_itself,
            lambda run: f"{means(run)}.",
            """The final state is right, and no later token leaks in. But token 0 has nothing to look at, 0/0: causal
            means j ≤ i, the token itself included.
            Try: tril() keeps which diagonal, and tril(-1)?""",
        ),
        Variant(
            "chunks alone",
            answers.chunked_causal_alone,
            lambda run: f"{means(run)}.",
            """Inside a chunk all is right, and the state you return too. It is only never read: at each border the
            past is forgotten.
            Try: print the first output of chunk 1. How many tokens are in it?""",
        ),
        Variant(
            "z forgotten at the border",
            answers.chunked_causal_forgets_z,
            lambda run: f"{means(run)}.",
            """The first chunk is right, and all numerators are. From the second chunk on you divide a sum over all
            tokens by a count of this chunk's.
            Try: all values 1. What must every output be? The denominator is the same sum.""",
        ),
        Variant(
            "padding counted",
            answers.chunked_causal_padded,
            lambda run: (
                "Five tokens with all features 1: z should be [5, 5] at the end; yours is "
                f"{show(run(*running_mean())[2])}."
            ),
            """Every output is right, and S too: padding comes last and has value 0. But φ(0) = 1, so a padded key is a
            token like any other in the denominator, and whatever goes on from this state divides by too much.
            Try: pad after φ, not before.""",
        ),
        Variant(
            "short chunk lost",
            answers.chunked_causal_no_tail,
            lambda run: f"Five tokens in chunks of 2: you return {len(run(*running_mean())[0])} outputs, wanted 5.",
            """Whole chunks are right, and so is what they hand on. The last, short one was dropped: N need not be a
            multiple of C.
            Try: x.split(C) returns the rest as well; or pad, after φ, and cut.""",
        ),
    ),
    properties=(
        Property("no later token changes an earlier output", fact_leak, "Key j ≤ query i. Try: print the mask."),
        Property("the size of a chunk does not matter", fact_chunk_size, "It is bookkeeping. Try: chunks of 1."),
    ),
    costs=(
        at_most(
            512 * 17,
            lambda: tokens(512, 16, 16, 16),
            sizes="N = 512, d = d_v = 16, C = 16",
            says="""A prefix state for every token has N d d_v entries, the whole map N²; a state for every chunk is
            enough, and C² products inside. Linear in N is not yet small.
            Try: write the three counts as functions of C. Which C is best for d = 64?""",
        ),
        Property(
            "few operators",
            fact_operators,
            """A state that moves one token at a time is exact, but no two steps can run side by side, and each is too
            small for a processor. A chunk turns C steps into one matrix product.
            Try: count your Python loop's turns for N = 512, C = 64. Eight are enough.""",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Try: compare the state before the outputs."),),
    hints=(
        "Each output has two parts: what came before its chunk, by the state; its own chunk, by masked products.",
        """For each chunk: inside = (q_c @ k_c.T).tril(); numerator inside @ v_c + q_c @ S; denominator
        inside.sum(-1) + q_c @ z; then, and only then, S += k_c.T @ v_c and z += k_c.sum(0).""",
    ),
    passed="""Causal and exact for any chunk, a state that goes on where the sequence ends, and the authors' own
    numbers.
    Next: with a state for each chunk and C² products inside, N (C + d²/C) numbers are kept. Which C keeps least?""",
)
