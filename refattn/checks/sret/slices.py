"""Lesson 21, build: attention inside slices, and slices of shuffled tokens."""

import torch

from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant, at_most
from refattn.checks.sret import answers


def six(groups=2):
    """Six tokens whose keys are all alike: a slice's output is the mean of its values."""
    return torch.zeros(6, 1), torch.zeros(6, 1), rows([0], [3], [6], [9], [12], [21]), groups


def four():
    """Four such tokens, shuffled by a 3-cycle, which is not its own inverse."""
    return torch.zeros(4, 1), torch.zeros(4, 1), rows([0], [2], [4], [10]), 2, torch.tensor([1, 2, 0, 3])


def tokens(n, groups, d=4, d_v=3):
    return *(seeded(n, width, seed=seed) for seed, width in enumerate((d, d, d_v))), groups


def shuffled(n, groups, **widths):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5))
    return *tokens(n, groups, **widths), order


def by_hand(run):
    y = show(run(*six()).flatten())
    return f"Equal keys, values 0, 3, 6 | 9, 12, 21: wanted [3, 3, 3, 14, 14, 14]; you return {y}"


def by_hand_shuffled(run):
    y = show(run(*four()).flatten())
    return f"Equal keys, values 0, 2, 4, 10, order 1, 2 | 0, 3: wanted [5, 3, 3, 5]; you return {y}"


def leak(run, make, mates):
    """Fact for a `Property`: a token changes the output of one that is not in its slice. mates: of token 0."""

    def fact():
        q, k, v, *rest = make()
        before = run(q.clone(), k.clone(), v.clone(), *rest)
        k[0], v[0] = 5.0, 5.0
        changed = (run(q, k, v, *rest) - before).abs().amax(-1) > 1e-6
        outside = [i for i in range(len(changed)) if changed[i] and i not in mates]
        if outside:
            return f"Token 0 was changed, and token {outside[0]}, which is in another slice, heard it."

    return fact()


def fact_leak(run):
    return leak(run, lambda: tokens(8, 2), range(4))


def fact_leak_shuffled(run):
    q, k, v, groups, order = shuffled(8, 2)
    first = order.tolist()[:4]
    mates = first if 0 in first else order.tolist()[4:]
    return leak(run, lambda: shuffled(8, 2), mates)


def fact_all_in_one(run):
    """With one slice the order of tokens cannot matter."""
    q, k, v, *_ = shuffled(6, 1)
    if not equal([run(*shuffled(6, 1))], [answers.attend(q, k, v)]):
        return "With one slice, shuffling must change nothing: softmax attention asks for no order. Yours changes."


def overwritten(run, make):
    """Fact for a `Property`: q, k or v is another tensor's after the call."""
    given, before = make(), make()
    run(*given)
    names = [name for name, now, was in zip("qkv", given, before, strict=False) if not torch.equal(now, was)]
    if names:
        return f"Every number is right. But you overwrote {' and '.join(names)}."


def fact_kept(run):
    return overwritten(run, lambda: tokens(6, 3))


def fact_kept_shuffled(run):
    return overwritten(run, lambda: shuffled(8, 2))


def fact_authors(run):
    stored = golden("golden_sret")
    errors = []
    for q, k, v, wanted in zip(*(stored[name] for name in ("q", "k", "v", "y_recur")), strict=True):
        heads = [run(q[h], k[h], v[h], int(stored["groups"]), stored["perm"]) for h in range(len(q))]
        y = torch.cat([torch.as_tensor(y).to(q) for y in heads], -1) @ stored["W_o"].T + stored["b_o"]
        errors.append((y - wanted).abs().max().item())
    if not max(errors) < 5e-5:
        return f"Twelve tokens through the authors' group attention, two heads: you differ by {max(errors):.2g}."


KEPT = """Whoever called still has these tensors, and goes on with them: in place, y = f(q, k, v) changes two things.
Try: q = q[...], a new tensor under an old name, in place of q[:] = ...; likewise k and v."""

COST = """The mask of who is in one slice gives the right numbers, but all N² scores are computed first, and most are
thrown away. Nothing is saved so.
Try: cut q, k and v into [G, s, d], and let attend do all slices at once."""

sliced_attention = Exercise(
    "sret.sliced_attention",
    answers.sliced_attention,
    returns="outputs [N, d_v]",
    probes=(
        Probe("Equal keys, values 0, 3, 6 | 9, 12, 21, two slices: the means of both.", six),
        Probe("Six tokens, d = 4, d_v = 3, three slices.", lambda: tokens(6, 3)),
        Probe("The same in one slice: softmax attention.", lambda: tokens(6, 1)),
    ),
    variants=(
        Variant(
            "every G-th token",
            answers.sliced_attention_strided,
            lambda run: f"{by_hand(run)}.",
            """These are slices, and each attends to itself alone. But tokens 0, 2, 4 share one: reshape read G as the
            inner axis. Slices are stretches: tokens 0, 1, 2.
            Try: torch.arange(6).reshape(2, 3) beside reshape(3, 2).T.""",
        ),
        Variant(
            "not sliced",
            answers.sliced_attention_global,
            lambda run: f"{by_hand(run)}.",
            """Every token reads all: that is G = 1.
            Try: the value 21 may not reach token 0.""",
        ),
        Variant(
            "slices of G tokens",
            answers.sliced_attention_size,
            lambda run: f"{by_hand(run)}.",
            """Slices are stretches and attend to themselves. But G is how many slices there are, not how many tokens
            one has.
            Try: with G = 1 there must be one slice of all.""",
        ),
        Variant(
            "cut after the softmax",
            answers.sliced_attention_late,
            lambda run: f"{by_hand(run)}.",
            """Nobody hears another slice. But weights were divided by the sum over all N keys, so what is left of a
            row sums to less than one.
            Try: hide scores before the softmax, or better: do not compute them.""",
        ),
    ),
    properties=(
        Property("q, k and v stay as they were", fact_kept, KEPT, ALMOST),
        Property("no slice hears another", fact_leak, "A slice attends to itself. Try: two slices of one."),
    ),
    costs=(at_most(512 * 64, lambda: tokens(512, 8, d_v=4), sizes="N = 512, G = 8", says=COST),),
    hints=(
        "attend works on the last two axes. Which third axis in front of them makes it do all slices at once?",
        "t.reshape(groups, -1, t.shape[-1]) for q, k and v; attend; then reshape to [N, d_v].",
    ),
    passed="""Slices are stretches, no slice hears another, and N²/G scores are all that is computed.
    Next: the scale is 1/√d, whatever G is. Why does it not depend on how many keys a query sees?""",
)

shuffled_attention = Exercise(
    "sret.shuffled_attention",
    answers.shuffled_attention,
    returns="outputs [N, d_v], in the order in which the queries came",
    probes=(
        Probe("Equal keys, values 0, 2, 4, 10, order 1, 2 | 0, 3: means 3 and 5.", four),
        Probe("Eight tokens, d = 4, d_v = 3, two slices.", lambda: shuffled(8, 2)),
        Probe("Nine tokens, three slices.", lambda: shuffled(9, 3)),
    ),
    variants=(
        Variant(
            "shuffled twice",
            answers.shuffled_attention_forward,
            lambda run: f"{by_hand_shuffled(run)}.",
            """Slices are right, and so are their numbers. But y[permutation] shuffles once more: it undoes only a
            permutation that is its own inverse, such as a swap.
            Try: torch.arange(4)[permutation], then what brings that back.""",
        ),
        Variant(
            "not put back",
            answers.shuffled_attention_left,
            lambda run: f"{by_hand_shuffled(run)}.",
            """Each output is right, and stands where the shuffled sequence had it. The residual is added next: token 0
            would get what is token 1's. Such a network still trains, only noisily.
            Try: return y in the order of q.""",
        ),
        Variant(
            "values not shuffled",
            answers.shuffled_attention_values_stay,
            lambda run: f"{by_hand_shuffled(run)}.",
            """Outputs go back to their places. But keys moved and values stayed, so key and value of one token are no
            longer side by side.
            Try: the three of them, the same way.""",
        ),
        Variant(
            "the other way round",
            answers.shuffled_attention_swapped,
            lambda run: f"{by_hand_shuffled(run)}.",
            """You shuffle by the inverse and put back by the permutation: consistent, but other tokens share a slice.
            Place p is to hold token permutation[p].
            Try: which tokens are in the first slice for [1, 2, 0, 3]?""",
        ),
        Variant(
            "not shuffled",
            answers.shuffled_attention_unshuffled,
            lambda run: f"{by_hand_shuffled(run)}.",
            """These are the slices of the first pass. Twice the same slices, and no word ever leaves them.
            Try: q[permutation].""",
        ),
    ),
    properties=(
        Property("q, k and v stay as they were", fact_kept_shuffled, KEPT, ALMOST),
        Property("no slice hears another", fact_leak_shuffled, "Those that share a slice now. Try: who are they?"),
        Property("one slice makes any order right", fact_all_in_one, "The order must not matter. Try: G = 1."),
    ),
    costs=(at_most(512 * 64, lambda: shuffled(512, 8, d_v=4), sizes="N = 512, G = 8", says=COST),),
    numbers=(Property("it equals the authors' code", fact_authors, "Their second pass. Try: one head."),),
    hints=(
        "Three steps: shuffle q, k and v; sliced_attention; put the outputs back. Which index undoes an index?",
        "y[permutation.argsort()]: argsort of a permutation is its inverse.",
    ),
    passed="""Shuffled, cut, put back; no slice hears another, and the authors' own numbers come out.
    Next: Wq, Wk, Wv and Wo act on each token alone. Does it matter whether you put back before Wo or after?""",
)
