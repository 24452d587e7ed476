"""Verdicts: a claim is an inequality written down before the run, and an interval over seeds decides it.

    rule              what is estimated                                    the claim holds if it is
    superiority       mean paired difference, method − baseline            > margin   (0 unless declared)
    non-inferiority   the same                                             > −margin  (declared, never 0)
    equivalence       mean difference, measured − predicted                between −margin and margin (never 0)
    scaling           slope of log(cost) against log(N)                    < bound
    counted           exact whole numbers                                  equal to the formula's, all of them

Differences are signed so that positive favours the method, and paired: both runs of a pair saw the same data in the
same order. Intervals are 95 % t intervals, one claim at a time (with twenty claims, expect one to be off by chance).
An interval on the right side of its threshold says "holds", one on the wrong side "does not hold", and one that
contains it neither. A prediction (`bound`) is a number known before the run: "holds" wants the whole interval within
the margin of it, "does not hold" the whole interval beyond, on one side. Three guards stand before a verdict that would
otherwise be cheap:

  · too few pairs to know their own spread (fewer than `LEAST_PAIRS`);
  · a ceiling: where everyone is perfect nobody can win, and "not worse" counts only if the task is shown to tell a
    worse model apart: the claim's `control`, a variant made to fail, must be found inferior by the same rule;
  · a floor: where the baseline is no better than guessing (by more than the margin), "not worse" is worth nothing.

Before all of them comes the frame's own control: the baseline, run a second time from other weights, must not differ
from itself (A/A). Its interval is a 99 % one, so a sound frame fails it once in a hundred, and then decides nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from refattn.measure import scaling_exponent

HOLDS, FAILS, OPEN = "holds at this scale", "does not hold at this scale", "inconclusive"
SAME, DIFFERENT = "no difference", "difference"
RULES = ("superiority", "non-inferiority", "equivalence", "counted", "scaling")
AGAINST_A_NUMBER = ("equivalence", "scaling")  # rules with a `bound`, and without a baseline
LOWER_IS_BETTER = ("loss", "seconds")
LEAST_PAIRS = 3
CEILING = 0.995  # an accuracy that prints as 1.00
AGAIN = ", again"  # what the second run of a baseline adds to its name


@dataclass(frozen=True)
class Claim:
    """One statement and how it will be decided. Everything here is fixed before a run.

    statement, source: what the paper says, and where.  rule: one of `RULES`.
    task, metric: name of the comparison or measurement, and which of its numbers ("accuracy", "loss", "seconds", …).
    method, baseline: names of variants.  counted: the baseline is the formula.  equivalence, scaling: there is none.
    margin: of the paired rules and equivalence, in units of the metric (accuracy: 0.02 is two points), or, if
        `relative`, as a share of the baseline's or the predicted value.
    bound: of the scaling rule; of equivalence, what is predicted.
    control: a variant made to fail, for non-inferiority at a ceiling.

    Raises: ValueError for a rule that is none, or lacks what it needs.
    """

    name: str
    statement: str
    source: str
    rule: str
    task: str
    metric: str
    method: str
    baseline: str | None = None
    margin: float = 0.0
    relative: bool = False
    bound: float | None = None
    control: str | None = None

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"claim {self.name}: rule={self.rule!r}: wanted one of {', '.join(RULES)}")
        rules = " and ".join(AGAINST_A_NUMBER)
        if (self.rule in AGAINST_A_NUMBER) != (self.bound is not None):
            raise ValueError(f"claim {self.name}: bound={self.bound}: wanted one for {rules}, and only there")
        if (self.rule in AGAINST_A_NUMBER) != (self.baseline is None):
            raise ValueError(f"claim {self.name}: baseline={self.baseline!r}: wanted one for every rule but {rules}")
        if self.margin < 0 or (self.rule in ("non-inferiority", "equivalence") and self.margin == 0):
            raise ValueError(f"claim {self.name}: margin={self.margin}: wanted a positive number")

    @property
    def threshold(self):
        """Where the interval is compared: the margin with its sign (equivalence: either), or the bound; or None."""
        margins = {"superiority": self.margin, "non-inferiority": -self.margin, "equivalence": self.margin}
        return (margins | {"scaling": self.bound}).get(self.rule)


def decide(low, high, threshold, *, above=True):
    """The verdict on "the estimate lies above (or below) the threshold" from its interval."""
    if low > threshold:
        return HOLDS if above else FAILS
    if high < threshold:
        return FAILS if above else HOLDS
    return OPEN


def t_interval(values, confidence=0.95):
    """Student's interval of a mean, [low, high]; without width where all values are equal, infinite for one value."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return [-math.inf, math.inf]
    error = 0.0 if np.ptp(values) == 0 else float(stats.sem(values))  # equal values: no width, not rounding's
    margin = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return [float(values.mean()) - margin, float(values.mean()) + margin]


def paired_differences(method, baseline, metric, *, relative=False):
    """One difference a pair, positive where the method is better. Raises: ValueError unless equally many."""
    if len(method) != len(baseline):
        raise ValueError(f"{len(method)} values of the method, {len(baseline)} of the baseline: wanted pairs")
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    scale = baseline if relative else [1.0] * len(baseline)
    return [round(sign * (a - b) / s, 9) for a, b, s in zip(method, baseline, scale, strict=True)]


def same_as_itself(task):
    """The A/A control of a task's record: its baseline against its second run; None if it was not run twice."""
    again = task["variants"].get(f"{task.get('baseline')}{AGAIN}")
    if again is None:
        return None
    metric = task["metric"]
    differences = paired_differences(again[metric], task["variants"][task["baseline"]][metric], metric)
    low, high = t_interval(differences, confidence=0.99)
    same = low <= 0.0 <= high
    return {
        "baseline": task["baseline"],
        "metric": metric,
        "differences": differences,
        "mean": float(np.mean(differences)),
        "interval": [low, high],
        "confidence": 0.99,
        "verdict": SAME if same else DIFFERENT,
    }


def judge(claim, tasks):
    """What the numbers say about a claim.

    Args: tasks: {name: record}, each with "variants" {name: {metric: numbers, one a seed, length or count}}; a scaling
        task also has "ns"; a comparison also "baseline", "metric" and "guessing" {metric: what guessing would give}.
    Returns: dict with "verdict" and "reason" ("" unless a guard decided); with "differences", "mean", "interval" and
        "ceiling" (paired rules; equivalence has none), "exponent" and "interval" (scaling), or "found" and "expected"
        (counted).
    """
    task = tasks[claim.task]
    values = {name: variant.get(claim.metric) for name, variant in task["variants"].items()}
    if claim.rule == "counted":
        found, expected = values[claim.method], values[claim.baseline]
        return {"found": found, "expected": expected, "verdict": HOLDS if found == expected else FAILS, "reason": ""}
    if claim.rule == "scaling":
        slope, low, high = scaling_exponent(task["ns"], values[claim.method])
        found = {"exponent": slope, "interval": [low, high], "ns": task["ns"]}
        return found | {"verdict": decide(low, high, claim.bound, above=False), "reason": ""}
    if claim.rule == "equivalence":
        return judge_prediction(claim, task, values[claim.method])
    return judge_pairs(claim, task, values)


def judge_prediction(claim, task, measured):
    """Equivalence: whether what was measured lies within the margin of what was predicted, on either side."""
    scale = claim.bound if claim.relative else 1.0
    differences = [round((value - claim.bound) / scale, 9) for value in measured]
    low, high = t_interval(differences)
    reason = too_few(measured) or not_itself(task)
    verdict = decide_within(low, high, claim.margin)
    found = {"differences": differences, "mean": float(np.mean(differences)), "interval": [low, high]}
    return found | {"verdict": OPEN if reason else verdict, "reason": reason}


def decide_within(low, high, margin):
    """The verdict on "the estimate lies within the margin of 0" from its interval."""
    if -margin < low and high < margin:
        return HOLDS
    return FAILS if low > margin or high < -margin else OPEN


def judge_pairs(claim, task, values):
    """The two paired rules, with their guards."""
    method, baseline = values[claim.method], values[claim.baseline]
    differences = paired_differences(method, baseline, claim.metric, relative=claim.relative)
    low, high = t_interval(differences)
    ceiling = claim.metric == "accuracy" and min(*method, *baseline) >= CEILING
    found = {"differences": differences, "mean": float(np.mean(differences)), "interval": [low, high]}
    found |= {"ceiling": ceiling}
    reason = guard(claim, task, values, ceiling)
    verdict = OPEN if reason else decide(low, high, claim.threshold)
    return found | {"verdict": verdict, "reason": reason}


def too_few(values):
    """The reason that there are too few pairs, or ""."""
    return f"{len(values)} pairs, {LEAST_PAIRS} are the least" if len(values) < LEAST_PAIRS else ""


def not_itself(task):
    """The reason that the A/A control has failed, or ""."""
    control = same_as_itself(task)
    failed = control is not None and control["verdict"] != SAME
    return "the baseline differs from its own second run" if failed else ""


def guard(claim, task, values, ceiling):
    """Why nothing can be decided, or ""."""
    if reason := too_few(values[claim.baseline]) or not_itself(task):
        return reason
    if claim.rule == "superiority":
        return "ceiling: both at 1.00" if ceiling else ""
    if not beats_guessing(claim, task, values[claim.baseline]):
        return "the baseline is not better than guessing by more than the margin"
    if claim.control is not None:
        failing = paired_differences(
            values[claim.control], values[claim.baseline], claim.metric, relative=claim.relative
        )
        if decide(*t_interval(failing), claim.threshold) != FAILS:
            return f"the task does not tell the control ({claim.control}) from the baseline"
    elif ceiling:
        return "ceiling: both at 1.00, and no control shows that the task could tell them apart"
    return ""


def beats_guessing(claim, task, baseline):
    """Whether the baseline is better than guessing by more than the claim's margin, with its interval."""
    level = task.get("guessing", {}).get(claim.metric)
    if level is None:
        return True
    gain = paired_differences(baseline, [level] * len(baseline), claim.metric, relative=claim.relative)
    return t_interval(gain)[0] > claim.margin
