"""Lesson 03, kernel attention: checks of its exercises.

Build: linear_step, favor_features, ptolemy. Find the bug: cosformer_causal. Predict: features_needed, state_or_cache.
The last word on what is built has the authors' own code (idiap/fast-transformers, OpenNLPLab/cosFormer), on random
features the port lucidrains/performer-pytorch.
"""

from refattn.checks.kernel.bug import cosformer_causal
from refattn.checks.kernel.features import favor_features
from refattn.checks.kernel.predict import features_needed, state_or_cache
from refattn.checks.kernel.ptolemy import ptolemy
from refattn.checks.kernel.step import linear_step

EXERCISES = (
    linear_step,
    favor_features,
    ptolemy,
    cosformer_causal,
    features_needed,
    state_or_cache,
)
