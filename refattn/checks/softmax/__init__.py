"""Lesson 01, softmax attention: checks of its exercises.

Build: weights, attend, split_heads, merge_heads. Find the bug: padded_attention. Predict: map_size, logit_spread.
The last word on numbers has torch's own `scaled_dot_product_attention`.
"""

from refattn.checks.softmax.attend import attend, weights
from refattn.checks.softmax.bug import padded_attention
from refattn.checks.softmax.heads import merge_heads, split_heads
from refattn.checks.softmax.predict import logit_spread, map_size

EXERCISES = (weights, attend, split_heads, merge_heads, padded_attention, map_size, logit_spread)
