"""To every exercise one correct answer and the classic wrong ones: one file a lesson, functions only, no messages.

A wrong answer is named after its exercise and its mistake: `weights_no_scale` is `weights` without the scale.
"""
