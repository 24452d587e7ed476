"""Lesson 20, Wide Attention: checks of its exercises.

Build: weights, attention, decompose. Find the bug: pooled. Decide: ratio. The last word has `refattn`, which is tested
against golden cases.
"""

from refattn.checks.wide_attention.count import ratio, weights
from refattn.checks.wide_attention.heads import attention, decompose
from refattn.checks.wide_attention.pool import pooled

EXERCISES = (
    weights,
    ratio,
    attention,
    decompose,
    pooled,
)
