"""Recorded results: package data, `results/SLUG-BUDGET.json`, made by `python -m refattn reproduce SLUG --record`."""

import json
from pathlib import Path

from refattn import catalog
from refattn.json_files import write_json
from refattn.reproduce.frame import BUDGETS
from refattn.reproduce.verdict import FAILS, HOLDS, OPEN

FOLDER = Path(__file__).parent / "results"


def recorded(slug):
    """Budgets of which a result is recorded. Raises: ValueError for a slug that the catalogue lacks."""
    catalog.get(slug)
    return [budget for budget in BUDGETS if (FOLDER / f"{slug}-{budget}.json").exists()]


def load(slug, budget="quick"):
    """A recorded result, as `run` returned it. Raises: ValueError if that is not recorded."""
    known = recorded(slug)
    if budget not in known:
        raise ValueError(f"budget={budget!r}: {slug} has recorded results for {', '.join(known) or 'no budget'}")
    return json.loads((FOLDER / f"{slug}-{budget}.json").read_text(encoding="utf-8"))


def record(result):
    """Keep a result as package data. Returns: the file. Raises: ValueError for a dry run's, which means nothing."""
    if result["dry"]:
        raise ValueError("dry=True: the numbers of a dry run are not recorded")
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{result['slug']}-{result['budget']}.json"
    write_json(path, result)
    return path


def verdicts(slug, budget="quick"):
    """{claim: verdict} of a recorded result; empty if there is none."""
    if budget not in recorded(slug):
        return {}
    return {claim["name"]: claim["verdict"] for claim in load(slug, budget)["claims"]}


def summary(slug):
    """The verdicts in a few words for a table, such as "7 of 9 hold, 2 inconclusive; 3 of 3 counts".

    Counts are arithmetic, so they do not help an experiment to its number of claims that hold. Verdicts of a larger
    budget follow with its name: "…; study: 3 of 9 hold, 6 inconclusive". "" if nothing is recorded.
    """
    found = {budget: tally(load(slug, budget)["claims"]) for budget in recorded(slug) if budget != "demo"}
    return "; ".join(f"{budget}: {words}" if budget != "quick" else words for budget, words in found.items())


def tally(claims):
    """Judged claims in a few words."""
    counted, tested = ([c["verdict"] for c in claims if (c["rule"] == "counted") == exact] for exact in (True, False))
    words = []
    if tested:
        others = {text: tested.count(verdict) for verdict, text in ((FAILS, "not"), (OPEN, "inconclusive"))}
        rest = [f"{number} {text}" for text, number in others.items() if number]
        words.append(", ".join([f"{tested.count(HOLDS)} of {len(tested)} hold", *rest]))
    if counted:
        words.append(f"{counted.count(HOLDS)} of {len(counted)} counts")
    return "; ".join(words)


def line(claim):
    """A judged claim on one line: verdict, name, estimate with interval (and threshold), seeds."""
    text = f"{claim['verdict']:<29} {claim['name']}: {estimate(claim)}"
    return f"{text} ({claim['reason']})" if claim["reason"] else text


def estimate(claim):
    """What was found, and what it was compared with, in words."""
    if claim["rule"] == "counted":
        found, expected = claim["found"], claim["expected"]
        equal = sum(a == b for a, b in zip(found, expected, strict=True))
        of = "the formula's" if claim["baseline"].endswith("formula") else claim["baseline"]
        return f"{claim['metric'].replace('_', ' ')} equal {of} in {equal} of {len(found)} cases"
    low, high = (float("nan") if end is None else end for end in claim["interval"])
    if claim["rule"] == "scaling":
        return f"exponent {claim['exponent']:.2f} [{low:.2f}, {high:.2f}], wanted < {claim['bound']:g}"
    if claim["rule"] == "equivalence":
        return predicted(claim, low, high)
    unit, factor = (" %", 100) if claim["relative"] else (" points", 100) if claim["metric"] == "accuracy" else ("", 1)
    wanted = claim["margin"] * (1 if claim["rule"] == "superiority" else -1)
    numbers = f"{factor * claim['mean']:+.2f}{unit} [{factor * low:+.2f}, {factor * high:+.2f}]"
    what = "rounds" if claim["metric"] == "seconds" else "seeds"
    ceiling = "; both at the ceiling" if claim["ceiling"] else ""
    against = f"{claim['method']} against {claim['baseline']}"
    return f"{against} {numbers}, wanted > {factor * wanted:g}{unit}, {len(claim['differences'])} {what}{ceiling}"


def predicted(claim, low, high):
    """`estimate` of an equivalence claim: what was predicted, and how far the measured values lie from it."""
    unit, factor = (" %", 100) if claim["relative"] else (" points", 100) if claim["metric"] == "accuracy" else ("", 1)
    off = f"{factor * claim['mean']:+.2f}{unit} [{factor * low:+.2f}, {factor * high:+.2f}]"
    wanted = f"wanted within ±{factor * claim['margin']:g}{unit}, {len(claim['differences'])} seeds"
    return f"{claim['method']}, predicted {claim['bound']:.3g}, is off by {off}, {wanted}"
