"""Lesson 04, sparse and low-rank attention: checks of its exercises.

Build: strided_patterns, fixed_patterns, heard, local_attention, and as a stretch lsh_attention. Find the bug:
block_attention. Predict: window_depth, equal_work. The last word on masks and numbers have other implementations: an
independent one for Sparse Transformer's masks, the packages local-attention and reformer-pytorch for the rest.
"""

from refattn.checks.sparse.bug import block_attention
from refattn.checks.sparse.hearing import heard
from refattn.checks.sparse.local import local_attention
from refattn.checks.sparse.lsh import lsh_attention
from refattn.checks.sparse.patterns import fixed_patterns, strided_patterns
from refattn.checks.sparse.predict import equal_work, window_depth

EXERCISES = (
    strided_patterns,
    fixed_patterns,
    heard,
    local_attention,
    block_attention,
    window_depth,
    equal_work,
    lsh_attention,
)
