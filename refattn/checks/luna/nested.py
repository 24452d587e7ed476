"""Lesson 10, build: pack, then unpack."""

import torch
from torch.utils._pytree import tree_map

from refattn.attention.luna import pack, unpack
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant, at_most
from refattn.checks.luna import answers

MATRICES = ("pack_query", "pack_key", "query", "key", "output")  # W_Qp, W_Cp, W_Q, W_C, W_O


def as_matrices(attempt):
    """An attempt whose results have lost axes of size 1, such as [N, 1, D], on which no check insists."""

    def matrix(part):
        return part.reshape(-1, part.shape[-1]) if 1 in getattr(part, "shape", ())[:-1] else part

    return lambda *inputs: tree_map(matrix, attempt(*inputs))


def equal_tokens(**factors):
    """Four equal tokens, two slots; every projection is the identity, times its factor."""
    eye = rows([1, 0, 0], [0, 1, 0], [0, 0, 1])
    W = {name: factors.get(name, 1.0) * eye for name in MATRICES}
    return rows([2, -1, 0.5]).expand(4, 3).clone(), rows([1, 0, 0], [0, 1, 0]), W


def tokens(n, slots, width=4):
    """Tokens, slots and projections from N(0, 1)."""
    W = {name: seeded(width, width, seed=i) for i, name in enumerate(MATRICES, 2)}
    return seeded(n, width), seeded(slots, width, seed=1), W


def token_of(run, **factors):
    return show(run(*equal_tokens(**factors))[0][0])


def fact_average(run):
    return (
        "Four equal tokens [2, -1, 0.5], identity projections: averaging equal things must return them; you return "
        f"{token_of(run)}."
    )


def fact_one_slot(run):
    y = run(*tokens(5, 1))[0]
    if not equal([y], [y[:1].expand_as(y)]):
        return f"Different tokens, but a single slot: the first two become {show(y[0])} and {show(y[1])}."


def fact_rank(run):
    rank = torch.linalg.matrix_rank(run(*tokens(12, 3, 8))[0].double(), rtol=1e-4).item()
    if rank > 3:
        return f"12 tokens of width 8, 3 slots: your Y_X has rank {rank}."


def fact_order(run):
    x, *others = tokens(5, 2)
    (y_x, y_p), (moved_x, moved_p) = run(*tokens(5, 2)), run(x.flip(0), *others)
    if not equal([moved_x.flip(0), moved_p], [y_x, y_p]):
        return "The same tokens in reversed order: your outputs are not the same ones in reversed order."


def fact_package(run):
    x, p, W = tokens(6, 3, 8)
    K = (x @ W["pack_key"].T)[None, None]
    y_p = pack((p @ W["pack_query"].T)[None, None], K, K)[0, 0]
    K = (y_p @ W["key"].T)[None, None]
    y_x = unpack((x @ W["query"].T)[None, None], K, K)[0, 0] @ W["output"].T
    error = max((a - b).abs().max().item() for a, b in zip(run(x, p, W), (y_x, y_p), strict=True))
    if not error < 1e-3:
        return f"Six tokens, three slots, D = 8: you differ from refattn.attention.luna by {error:.2g}."


pack_unpack = Exercise(
    "luna.pack_unpack",
    answers.pack_unpack,
    returns="Y_X [N, D] and Y_P [l, D]",
    adapt=as_matrices,
    probes=(
        Probe("Four equal tokens [2, -1, 0.5], two slots, identity projections: means of equals.", equal_tokens),
        Probe("Five tokens, two slots, D = 4, entries from N(0, 1).", lambda: tokens(5, 2)),
    ),
    variants=(
        Variant(
            "unpacked from LN(P + Y_P)",
            answers.pack_unpack_normed,
            fact_average,
            """Shapes and row sums are right, so both softmaxes are fine: something that is not an average touched the
            slots between the two steps.
            Try: print the keys that unpack receives. Are they what this layer reads now, or what it hands to the next
            layer?""",
        ),
        Variant(
            "unpacked from P + Y_P",
            answers.pack_unpack_residual,
            fact_average,
            """Both softmaxes are fine, and Y_P is right. What is too much in your token is an average too, of P's own
            rows [1, 0, 0] and [0, 1, 0]: the question was added to the answer. That sum is for the next layer.
            Try: set P to zero. Do you get the token back? Then follow P to where it comes in a second time.""",
        ),
        Variant(
            "unpacked from P",
            answers.pack_unpack_from_p,
            fact_average,
            """Y_P is right, but nobody reads it: your token is an average of P's rows [1, 0, 0] and [0, 1, 0]. P is
            what the slots ask with; Y_P is what they found.
            Try: change one token. Y_P moves. Does another token's Y_X?""",
        ),
        Variant(
            "unpacked from the tokens",
            answers.pack_unpack_from_tokens,
            fact_one_slot,
            """Y_P is right, but nobody reads it: this is softmax attention among the tokens, with all its N² pairs.
            Through one slot only one answer can pass; through l slots, a map of rank l.
            Try: how many rows do the keys have that unpack receives: N, or l?""",
        ),
        Variant(
            "one matrix for both steps",
            answers.pack_unpack_one_matrix,
            lambda run: (
                f"Equal tokens [2, -1, 0.5], identity projections, but W['key'] = 10 I: Y_X must be [20, -10, 5]; "
                f"you return {token_of(run, key=10.0)}."
            ),
            """Pack is right. Tied means that keys and values share a projection inside a step; each step still has
            its own: W['pack_key'] for tokens, W['key'] for slots.
            Try: list which of the five matrices you use. Which one is missing, which one comes twice?""",
        ),
        Variant(
            "W_O on Y_P as well",
            answers.pack_unpack_output_twice,
            lambda run: (
                f"Equal tokens [2, -1, 0.5], identity projections, but W['output'] = 10 I: Y_P must be [2, -1, 0.5]; "
                f"you return {show(run(*equal_tokens(output=10.0))[1][0])}."
            ),
            """Both softmaxes are fine, and with W_O = I all is right. W_O mixes the heads of what the tokens take
            away; the slots are stored as they were packed.
            Try: name the matrices on a value's way from a token to Y_P, which is one, and from there to Y_X, two
            more.""",
        ),
        Variant(
            "no W_O",
            answers.pack_unpack_no_output,
            lambda run: (
                f"Equal tokens [2, -1, 0.5], identity projections, but W['output'] = 10 I: Y_X must be [20, -10, 5]; "
                f"you return {token_of(run, output=10.0)}."
            ),
            """Y_P is right, and so is what the tokens take from it. One projection of the five is not used.
            Try: which one does eq. 2 apply last?""",
        ),
    ),
    properties=(
        Property("one slot has one answer", fact_one_slot, "What passes through one slot is one row. Try: l = 1."),
        Property("Y_X has rank l at most", fact_rank, "N rows are mixed from l. Try: how many keys unpack receives."),
        Property("order does not matter", fact_order, "No step knows a position. Try: swap two tokens."),
    ),
    costs=(
        at_most(
            512 * 4,
            lambda: tokens(512, 4),
            sizes="N = 512, l = 4",
            says="""A product of three matrices can be bracketed two ways: one gives the picture we draw, the other
            gives Luna its cost.
            Try: write the size of each intermediate for both, predict the N where timing shows it, then time it.""",
            slack=16,  # N l D numbers at once, or N D in double precision, are no N²
        ),
    ),
    numbers=(Property("it equals refattn", fact_package, "Eqs. 1 and 2. Try: compare Y_P first."),),
    hints=(
        "attend, twice. Who asks in the first, and who in the second? What does the second read that the first wrote?",
        """Pack: C = x @ W['pack_key'].T, y_p = attend(p @ W['pack_query'].T, C, C). Unpack: S = y_p @ W['key'].T, then
        attend(x @ W['query'].T, S, S) @ W['output'].T. The N × N product of both maps is never needed.""",
    ),
    passed="""Averages of equals are equal, one slot has one answer, Y_X has rank l at most, and no tensor has N²
    entries.
    Next: the effective map has rank l. Does that mean that l slots can tell only l tokens apart?""",
)
