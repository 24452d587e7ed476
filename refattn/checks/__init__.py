"""Checks of the exercises: one folder a lesson, on one frame.

    from refattn.checks import luna as check
    check.pack_unpack(my_function)

Each folder lists its exercises in `EXERCISES`, in the order of the notebook; its `answers.py` holds a correct answer to
each and the classic wrong ones, without a word of message. `report()` gives the latest result of each exercise that was
attempted in this process, `summary()` prints them, `passed(*names)` asks for some.
"""

from refattn.checks.frame import forget, passed, report, summary

LESSONS = {
    1: "softmax",
    2: "cost",
    3: "kernel",
    4: "sparse",
    10: "luna",
    11: "mega",
    12: "couplformer",
    13: "evolving_attention",
    14: "eit",
    15: "rpe_fft",
    16: "momentum",
    17: "vicinity",
    20: "wide_attention",
    21: "sret",
    22: "edgeformer",
}  # number of the lesson → folder of its checks

__all__ = ["LESSONS", "forget", "passed", "report", "summary"]
