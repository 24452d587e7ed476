"""Lesson 17, Vicinity Vision Transformer: checks of its exercises.

Build: factors, vicinity_attention, layer, and as a stretch sharper. Find the bug: key_angles. Predict: equal_work,
half_way. The last word on attention has the authors' own code (OpenNLPLab/Vicinity-Vision-Transformer, unclamped).
"""

from refattn.checks.vicinity.attention import layer, vicinity_attention
from refattn.checks.vicinity.bug import key_angles
from refattn.checks.vicinity.grids import factors, sharper
from refattn.checks.vicinity.predict import equal_work, half_way

EXERCISES = (factors, vicinity_attention, layer, key_angles, equal_work, half_way, sharper)
