"""Lesson 02, measuring cost: checks of its exercises.

Build: fit_exponent, kernel_map, linear_attention, chunked_causal. Find the bug: seconds_per_call. Predict:
equal_memory, equal_time. The last word on chunked_causal has the authors' own code (idiap/fast-transformers).
"""

from refattn.checks.cost.bug import seconds_per_call
from refattn.checks.cost.chunks import chunked_causal
from refattn.checks.cost.linear import kernel_map, linear_attention
from refattn.checks.cost.predict import equal_memory, equal_time
from refattn.checks.cost.slope import fit_exponent

EXERCISES = (
    fit_exponent,
    kernel_map,
    linear_attention,
    chunked_causal,
    seconds_per_call,
    equal_memory,
    equal_time,
)
