"""Lesson 15, relative positions by FFT: checks of its exercises.

Build: circulant_column, toeplitz_product, nprf, and as a stretch grid_product. Find the bug: unit_rows. Decide:
features_needed, sharpest. There is no public code of the authors: the last word on nprf has an independent computation
in float64, loop by loop.
"""

from refattn.checks.rpe_fft.attention import nprf
from refattn.checks.rpe_fft.bug import unit_rows
from refattn.checks.rpe_fft.grid import grid_product
from refattn.checks.rpe_fft.predict import features_needed, sharpest
from refattn.checks.rpe_fft.products import circulant_column, toeplitz_product

EXERCISES = (
    circulant_column,
    toeplitz_product,
    nprf,
    unit_rows,
    features_needed,
    sharpest,
    grid_product,
)
