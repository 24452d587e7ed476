"""Lesson 13, Evolving Attention: checks of its exercises.

Build: evolve, causal_convolution. Find the bug: merge_heads. Predict: convolution_work, live_cells. Stretch:
ngrams_by_hand. Last words: for the mixing rule the authors' code (`evolving_attention--image2d`), for the causal
convolution brute force (`--step_decoder`), for merged heads their own heads (`--augconv1d`).
"""

from refattn.checks.evolving_attention.bug import merge_heads
from refattn.checks.evolving_attention.causal import causal_convolution
from refattn.checks.evolving_attention.circuit import ngrams_by_hand
from refattn.checks.evolving_attention.mixing import evolve
from refattn.checks.evolving_attention.predict import convolution_work, live_cells

EXERCISES = (evolve, causal_convolution, merge_heads, convolution_work, live_cells, ngrams_by_hand)
