"""Lesson 14, EIT: checks of its exercises.

Build: all_maps, key_convolution, interactions. Find the bug: hidden_keys. Predict: more_parameters, map_work. As a
stretch recall_by_hand. The last word on the interactions has the first author's own code (zhengkid/PartialFormer).
"""

from refattn.checks.eit.bug import hidden_keys
from refattn.checks.eit.maps import all_maps, interactions, key_convolution
from refattn.checks.eit.predict import map_work, more_parameters
from refattn.checks.eit.recall import recall_by_hand

EXERCISES = (
    all_maps,
    key_convolution,
    interactions,
    hidden_keys,
    more_parameters,
    map_work,
    recall_by_hand,
)
