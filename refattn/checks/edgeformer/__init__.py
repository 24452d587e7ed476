"""Lesson 22, EdgeFormer: checks of its exercises.

Build: parameters, multiply_adds, interleaved_layer, and as a stretch adapted_attention. Find the bug: stream. Decide:
equal_width, cache_numbers. The last word on counts have the published configurations (the authors' README).
"""

from refattn.checks.edgeformer.bug import stream
from refattn.checks.edgeformer.counts import multiply_adds, parameters
from refattn.checks.edgeformer.layer import interleaved_layer
from refattn.checks.edgeformer.own import adapted_attention
from refattn.checks.edgeformer.predict import cache_numbers, equal_width

EXERCISES = (
    parameters,
    multiply_adds,
    interleaved_layer,
    stream,
    equal_width,
    cache_numbers,
    adapted_attention,
)
