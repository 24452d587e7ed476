"""Lesson 11, Mega: checks of its exercises.

Build: kernel, convolve, laplace_weights, gated, and as a stretch stream. Find the bug: kernel_of. Predict: half_life,
held. The last word on each has the package, which is tested against the authors' own code (facebookresearch/mega).
"""

from refattn.checks.mega.average import convolve, kernel
from refattn.checks.mega.bug import kernel_of
from refattn.checks.mega.head import gated, laplace_weights
from refattn.checks.mega.predict import half_life, held
from refattn.checks.mega.stream import stream

EXERCISES = (
    kernel,
    convolve,
    laplace_weights,
    gated,
    kernel_of,
    half_life,
    held,
    stream,
)
