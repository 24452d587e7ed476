"""Lesson 21, SReT: checks of its exercises.

Build: sliced_attention, shuffled_attention, stage. Find the bug: schedule. Predict: multiply_adds, reach. The last word
on shuffled attention has the authors' own code (szq0214/SReT), that on the stage `refattn`, which is tested against it.
"""

from refattn.checks.sret.bug import schedule
from refattn.checks.sret.predict import multiply_adds, reach
from refattn.checks.sret.slices import shuffled_attention, sliced_attention
from refattn.checks.sret.stage import stage

EXERCISES = (
    sliced_attention,
    shuffled_attention,
    stage,
    schedule,
    multiply_adds,
    reach,
)
