"""Lesson 10, build: causal Luna one token at a time, with a state."""

from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.luna import answers
from refattn.checks.luna.causal import fact_authors, indifferent, means, tokens
from refattn.checks.steps import differs_from_itself, grows, through

NEEDS = "at l = 3, d = 4, d_v = 2 it needs 3 · 4 + 3 · 2 and a count"

causal_step = Exercise(
    "luna.causal_step",
    answers.causal_step,
    returns="a pair: the output [d_v] of one token, and the new state",
    adapt=through,
    probes=(
        Probe("One slot, u = 0, values 2, 4, 9, one after the other: 2, 3, 5.", indifferent),
        Probe("Six tokens, three slots, d = 4, d_v = 2: what causal_luna returns.", lambda: tokens(6)),
    ),
    variants=(
        Variant(
            "means without weights",
            answers.causal_step_unweighted,
            lambda run: f"{means(run)}.",
            """The first output is right. 2, 4/2 and 9/3 were added up: each newcomer is divided by its own t, and
            what is there already never is. After t tokens all should count 1/t, the first ones too.
            Try: what must the old mean be multiplied by when a token arrives? Or which quantity needs no such care?""",
        ),
        Variant(
            "halved each time",
            answers.causal_step_halves,
            lambda run: f"{means(run)}.",
            """Old and new, half each: the newest token always counts 1/2, the one before 1/4, and so on. That forgets
            at a fixed rate (lesson 11 has good use for it); eqs. 5 and 6 give all tokens the same 1/t.
            Try: store something that can be added to, and divide only when reading.""",
        ),
        Variant(
            "sums not divided",
            answers.causal_step_sums,
            lambda run: f"{means(run)}.",
            """The sums in your state are just what it should hold. They are to be read as means.
            Try: what else must the state know, to turn a sum into a mean?""",
        ),
        Variant(
            "count one behind",
            answers.causal_step_late_count,
            lambda run: f"{means(run)}: the third is 15/2.",
            """Sums are right, the newcomer included, and so is the first output. But from the second on you divide by
            the number of tokens that came before.
            Try: print sum and count together at t = 2. Is the count brought up to date before or after reading?""",
        ),
        Variant(
            "does not see itself",
            answers.causal_step_not_itself,
            lambda run: f"{means(run)}: the third is 6/3.",
            """The count is right, and no later token is heard. But you read before you write: j ≤ t includes t.
            Try: which comes first in your function, adding A_t v_t or using the sum?""",
        ),
        Variant(
            "forgets",
            answers.causal_step_forgets,
            lambda run: f"{means(run)}: each token alone.",
            """The first token is right. Then every token is treated like a first one: what came before is not in what
            you read.
            Try: call it twice by hand, hand the returned state in, and print it. Does it hold both tokens?""",
        ),
    ),
    properties=(
        Property(
            "a state can be used twice",
            differs_from_itself(tokens),
            """The state that was handed in has changed: += writes into the caller's tensor. Beam search, and anyone
            who tries two continuations of one text, goes on from the same state twice.
            Try: keys = keys + …, which makes a new tensor.""",
            ALMOST,
        ),
    ),
    costs=(
        Property(
            "the state does not grow",
            grows(tokens, NEEDS),
            """A list of all tokens so far is softmax attention's cache. Here one l × d matrix stands for all keys, and
            one for all values.
            Try: write eq. 5 for t and for t - 1. What is the difference?""",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Tied: v = k. Try: the first token first."),),
    hints=(
        "Which quantities of eqs. 5 and 6 at t can be had from those at t - 1 by adding something? Keep these.",
        """State: Σ A_jᵀ k_j [l, d], Σ A_jᵀ v_j [l, d_v], t. Add this token's A[:, None] * k and A[:, None] * v, add
        1 to t; then weights = softmax(keys / t @ q), output = weights @ values / t. State None: zeros, and t = 0.""",
    ),
    passed="""The parallel form's numbers from a state that does not grow and can be continued twice, and the authors'
    own numbers too.
    Next: the sums grow with t, in bfloat16 as well. When does adding one more token change nothing any more?""",
)
