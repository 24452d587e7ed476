"""Experiments: one file a paper, each claim with its rule declared before the run, and the results that were recorded.

reproduce.run("luna", "demo")      # run now: at most half a minute
reproduce.load("luna", "quick")    # what was recorded, with every seed
reproduce.line(claim)              # a claim of a result, in words
"""

from refattn.reproduce.frame import BUDGETS, experiment, names, result_file, run
from refattn.reproduce.results import line, load, record, recorded, summary, verdicts

__all__ = ["BUDGETS", "experiment", "line", "load", "names", "record", "recorded", "result_file", "run", "summary"]
__all__ += ["verdicts"]
