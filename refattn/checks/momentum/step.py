"""Lesson 16, build: momentum attention one token at a time."""

from functools import partial

from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.momentum import answers
from refattn.checks.momentum.attention import by_hand, counting, fact_authors, tokens
from refattn.checks.steps import differs_from_itself, grows, through

momentum_step = Exercise(
    "momentum.momentum_step",
    answers.momentum_step,
    returns="a pair: the output [d_v] of one token, and the new state",
    adapt=partial(through, sequences=3, call=lambda step, token, fixed, state: step(*token, state, *fixed)),
    probes=(
        Probe("All similarities 1, values 4, 8, 16 one after the other, β = ½, γ = 1: 4, 7, 35/3.", counting),
        Probe("Six tokens, d = 4, d_v = 2: what momentum_attention returns.", lambda: tokens(6)),
    ),
    variants=(
        Variant(
            "old velocity",
            answers.momentum_step_late,
            lambda run: f"{by_hand(run)}.",
            """Each line is one of eq. 1's, in the other order: S goes on with the velocity of the token before, so the
            newest key is not heard.
            Try: p_i first, then S_i = S_{i-1} - p_i.""",
        ),
        Variant(
            "the state fades",
            answers.momentum_step_fading,
            lambda run: f"{by_hand(run)}.",
            """β stands before S: that is a decaying memory, which other methods have. Here the velocity decays, and the
            state adds it up.
            Try: two matrices, S and p. Which of them does β multiply?""",
        ),
        Variant(
            "no velocity kept",
            answers.momentum_step_forgetful,
            lambda run: f"{by_hand(run)}.",
            """Linear attention times γ: no step goes on. The velocity has to be part of the state.
            Try: return p as well, and print it at the second token.""",
        ),
        Variant(
            "uphill",
            answers.momentum_step_uphill,
            lambda run: f"{by_hand(run)}.",
            """Right but for the sign. p collects -γ U, as a gradient does; the step goes against it.
            Try: S_1 must be + γ U_1.""",
        ),
        Variant(
            "normaliser with momentum",
            answers.momentum_step_normalised,
            lambda run: f"{by_hand(run)}. Token 3 divides by 3 equal similarities.",
            """S is right. But z got a velocity of its own: eq. 2's normaliser has none.
            Try: z_3 for three features of 1.""",
        ),
    ),
    properties=(
        Property(
            "a state can be used twice",
            differs_from_itself(tokens),
            """The state that was handed in has changed: += and -= write into the caller's tensor, and somebody may go
            on from the same state twice (beam search does).
            Try: S = S - p, which makes a new tensor.""",
            ALMOST,
        ),
    ),
    costs=(
        Property(
            "the state does not grow",
            grows(tokens),
            """A list of tokens is softmax attention's cache. S, p and z stand for all of them.
            Try: which of the stored things does the next step read?""",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals the authors' code", fact_authors, "Their recurrent module. Try: one head."),),
    hints=(
        "Three things are carried: S, its velocity p, and z. In which order do S and p move?",
        """p = β p - γ φ(k)ᵀ v; S = S - p; z = z + φ(k); y = φ(q) S / φ(q)·z. State None: zeros.""",
    ),
    passed="""The parallel form's numbers from a state that does not grow and can be continued twice, and the authors'
    own numbers too.
    Next: how many numbers has it more than linear attention's?""",
)
