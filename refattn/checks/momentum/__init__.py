"""Lesson 16, Momentum Transformer: checks of its exercises.

Build: weights, momentum_attention, momentum_step, and as a stretch adaptive_connection. Find the bug: last_state.
Predict: half_weight, state_numbers. The last word on the causal form has the authors' own code
(minhtannguyen/momentum-transformer-code-submission, its recurrent module).
"""

from refattn.checks.momentum.attention import momentum_attention
from refattn.checks.momentum.bug import last_state
from refattn.checks.momentum.connection import adaptive_connection
from refattn.checks.momentum.predict import half_weight, state_numbers
from refattn.checks.momentum.step import momentum_step
from refattn.checks.momentum.weights import weights

EXERCISES = (
    weights,
    momentum_attention,
    momentum_step,
    last_state,
    half_weight,
    state_numbers,
    adaptive_connection,
)
