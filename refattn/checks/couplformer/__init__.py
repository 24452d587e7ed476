"""Lesson 12, Couplformer: checks of its exercises.

Build: kronecker_map, logits, coupled_attention, and as a stretch nearest_product. Find the bug: mixed. Decide:
equal_maps, ghost_share. The last word on the whole attention has the authors' own code (wer010/Couplformer).
"""

from refattn.checks.couplformer.attention import coupled_attention
from refattn.checks.couplformer.bug import mixed
from refattn.checks.couplformer.logits import logits
from refattn.checks.couplformer.nearest import nearest_product
from refattn.checks.couplformer.predict import equal_maps, ghost_share
from refattn.checks.couplformer.product import kronecker_map

EXERCISES = (
    kronecker_map,
    logits,
    coupled_attention,
    mixed,
    equal_maps,
    ghost_share,
    nearest_product,
)
