"""Lesson 10, Luna: checks of its exercises.

Build: pack_unpack, omega, causal_luna, causal_step, and as a stretch padded_batch. Find the bug: initial_slots.
Predict: equal_work, state_numbers. The last word on the causal form has the authors' own code
(XuezheMax/fairseq-apollo).
"""

from refattn.checks.luna.bug import initial_slots
from refattn.checks.luna.causal import causal_luna, omega
from refattn.checks.luna.nested import pack_unpack
from refattn.checks.luna.padding import padded_batch
from refattn.checks.luna.predict import equal_work, state_numbers
from refattn.checks.luna.step import causal_step

EXERCISES = (
    pack_unpack,
    omega,
    causal_luna,
    causal_step,
    initial_slots,
    equal_work,
    state_numbers,
    padded_batch,
)
