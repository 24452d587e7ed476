"""The frame of every experiment: what is declared before a run, and how a run becomes a result.

An experiment is one file, `reproduce/SLUG.py`, with one `EXPERIMENT`: comparisons (models trained on equal terms),
measurements (counts and times), claims about them, and the paper's own numbers. Equal terms means: the same data in the
same order, steps, optimiser and schedule, and (nearly) as many parameters; seed s of one variant is paired with seed s
of another. The baseline of each comparison is run twice, see `verdict`.

Budgets: "demo" (at most 30 s: what a lesson runs live), "quick" (at most 10 minutes on two cores: the recorded
verdict), "colab" (at most 15 minutes on one GPU), and where a whole grid is the claim, "study" (an hour on two cores).
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy
import scipy

import refattn
from refattn import catalog, measure, processes
from refattn.json_files import finite, write_json
from refattn.reproduce.cells import Cell, run_cells
from refattn.reproduce.sources import code_digest
from refattn.reproduce.verdict import AGAIN, Claim, judge, same_as_itself

BUDGETS = {"demo": "cpu", "quick": "cpu", "colab": "auto", "study": "cpu"}  # and the device of each


@dataclass(frozen=True)
class Plan:
    """How much of a part a budget runs.

    seeds: how many (0, 1, …).  steps: of training.  sizes: arguments of the part's function.
    variants: those that are run, all unless given.  dry: sizes that a dry run takes instead.
    """

    seeds: int = 0
    steps: int = 0
    sizes: dict = field(default_factory=dict)
    variants: tuple[str, ...] | None = None
    dry: dict = field(default_factory=dict)

    def shrunk(self):
        """The plan of a dry run."""
        return replace(self, seeds=min(self.seeds, 2), steps=min(self.steps, 2), sizes=self.sizes | self.dry)


@dataclass(frozen=True)
class Comparison:
    """Models trained on equal terms.

    name, description: of the task.  task: (seed=…, **sizes) → `refattn.data.Task`.
    variants: {name: (task, seed) → model}.  baseline: the one that is run twice.
    metric: "accuracy" or "loss".  training: arguments of `train.fit`, the same for all.  plans: {budget: `Plan`}.
    neutral: the task does not favour the method by construction.
    Functions must be importable, or a `functools.partial` of one: cells run in other processes.
    """

    name: str
    description: str
    task: Callable
    variants: dict[str, Callable]
    baseline: str
    metric: str
    training: dict
    plans: dict[str, Plan]
    neutral: bool = False

    def names(self, plan):
        """Variants of a plan, the baseline's second run among them."""
        return [*(self.variants if plan.variants is None else plan.variants), self.baseline + AGAIN]

    def runs(self, plan):
        """(variant, seed) of every cell."""
        return [(name, seed) for seed in range(plan.seeds) for name in self.names(plan)]

    def record(self, plan, found):
        """The part's record in a result, from the numbers of its cells in the order of `runs`."""
        variants = {}
        for (name, _), number in zip(self.runs(plan), found, strict=True):
            variant = variants.setdefault(name, {"parameters": number["parameters"]})
            for metric in ("accuracy", "loss", "training_loss", "training_seconds"):
                variant.setdefault(metric, []).append(number[metric])
        return {
            "neutral": self.neutral,
            "baseline": self.baseline,
            "metric": self.metric,
            "guessing": found[0]["guessing"],
            "steps": plan.steps,
            "sizes": plan.sizes,
            "training": self.training,
            "seeds": list(range(plan.seeds)),
            "variants": variants,
        }


@dataclass(frozen=True)
class Measurement:
    """Counts and times that need no training. measure: (**sizes) → {"variants": {name: {metric: numbers}}, …}."""

    name: str
    description: str
    measure: Callable
    plans: dict[str, Plan]

    def runs(self, plan):
        """(variant, seed) of its one cell."""
        return [(None, None)]

    def record(self, plan, found):
        """The part's record in a result."""
        spent = ("seconds", "cpu_seconds", "finished")
        return {"sizes": plan.sizes, **{key: value for key, value in found[0].items() if key not in spent}}


@dataclass(frozen=True)
class PaperNumber:
    """A number as published, for a column of its own: other tasks, other sizes. source: where, and how sure."""

    what: str
    value: str
    task: str
    size: str
    source: str


@dataclass(frozen=True)
class Experiment:
    """One paper's experiment. title: of the paper.  limits: what cannot be shown at this size, sentences.

    Raises: ValueError for a claim about a part, variant or metric that is not there.
    """

    slug: str
    title: str
    parts: tuple
    claims: tuple[Claim, ...]
    paper: tuple[PaperNumber, ...] = ()
    limits: tuple[str, ...] = ()

    def __post_init__(self):
        parts = {part.name: part for part in self.parts}
        for claim in self.claims:
            if claim.task not in parts:
                raise ValueError(f"claim {claim.name}: task={claim.task!r}: wanted one of {', '.join(parts)}")
            part = parts[claim.task]
            if isinstance(part, Measurement):
                continue
            unknown = {claim.method, claim.baseline, claim.control} - {None, *part.variants}
            if unknown or claim.metric != part.metric:
                came = f"{', '.join(sorted(unknown)) or 'no unknown variant'}; metric {claim.metric!r}"
                wanted = f"of {', '.join(part.variants)}; metric {part.metric!r}"
                raise ValueError(f"claim {claim.name} names {came}: wanted variants {wanted}")

    def parts_of(self, budget):
        """[(part, plan)] of a budget. Raises: ValueError for a budget that is none, or that this experiment lacks."""
        if budget not in BUDGETS:
            raise ValueError(f"budget={budget!r}: wanted one of {', '.join(BUDGETS)}")
        found = [(part, part.plans[budget]) for part in self.parts if budget in part.plans]
        if not found:
            raise ValueError(f"budget={budget!r}: {self.slug} declares nothing for it")
        return found


def names():
    """Slugs of the catalogue that have an experiment."""
    here = Path(__file__).parent
    return [record.slug for record in catalog.RECORDS if (here / f"{record.slug}.py").exists()]


def experiment(slug):
    """The experiment of a paper. Raises: ValueError for a slug that the catalogue lacks, or that has no experiment."""
    record = catalog.get(slug)
    if slug not in names():
        raise ValueError(f"slug={slug!r}: {record.name} has no experiment yet; there is one for {', '.join(names())}")
    return importlib.import_module(f"refattn.reproduce.{slug}").EXPERIMENT


def run(declared, budget="demo", *, out="runs", workers=None, dry=False, progress=True):
    """Run an experiment and judge its claims.

    Args:
        declared: an `Experiment`, or the slug of one.  budget: see the top of this file.
        out: folder; finished cells lie in `out/SLUG-BUDGET/` and are not run again, `result.json` beside them.
        workers: processes of one thread each; 0 trains in this process. Default: two on a CPU, none beside on a GPU. As
            everywhere in Python, a script that starts processes keeps its own calls under `if __name__ == "__main__":`.
        dry: two seeds of two steps each, to see that all of it runs. The numbers mean nothing, and are kept apart.
        progress: show a bar of cells.

    Returns: the result, plain dicts and lists; see `assemble`.
    Raises: ValueError for an unknown budget or slug; ValueError or RuntimeError for a cell that fails;
        KeyboardInterrupt that says where to resume.
    """
    declared = experiment(declared) if isinstance(declared, str) else declared
    parts = declared.parts_of(budget)
    device = processes.choose_device(BUDGETS[budget]).type
    if BUDGETS[budget] == "auto" and device == "cpu" and not dry:
        raise ValueError(f"budget={budget!r} is made for a GPU, and there is none: try 'quick'")
    workers = (min(2, os.cpu_count() or 1) if device == "cpu" else 0) if workers is None else workers
    if workers < 0:
        raise ValueError(f"workers={workers}: wanted 0 or more")
    path = result_file(declared.slug, budget, out=out, dry=dry)
    code = code_digest(Path(__file__).with_name(f"{declared.slug}.py"))
    if dry:
        parts = [(part, plan.shrunk()) for part, plan in parts]
    cells = [Cell(part, plan, *place, device, code) for part, plan in parts for place in part.runs(plan)]
    numbers = run_cells(cells, path.parent, workers=workers, progress=progress)
    found = {(cell.part.name, cell.variant, cell.seed): number for cell, number in zip(cells, numbers, strict=True)}
    result = assemble(declared, budget, parts, found)
    result["environment"] = environment(device, workers)
    result["dry"] = dry
    write_json(path, result)
    return result


def result_file(slug, budget, *, out="runs", dry=False):
    """Where `run` writes its result; the finished cells lie beside it."""
    return Path(out) / f"{slug}-{budget}{'-dry' if dry else ''}" / "result.json"


def assemble(declared, budget, parts, found):
    """The result from the numbers of all cells.

    Args: parts: [(part, plan)];  found: {(part, variant, seed): numbers of the cell}.
    Returns: dict with "tasks" {name: record with "variants" {name: {metric: one number a seed, "parameters": count}}},
        "claims" (each a declared claim and what `judge` found), "paper", "limits", "date", and "seconds": of the clock
        while any cell was running, and of the processors.
    """
    tasks = {}
    for part, plan in parts:
        places = part.runs(plan)
        tasks[part.name] = {
            "description": part.description,
            **part.record(plan, [found[part.name, *p] for p in places]),
        }
    claims = []
    for claim in declared.claims:
        names = tasks[claim.task]["variants"] if claim.task in tasks else {}
        if {claim.method, claim.baseline, claim.control} - {None, *names}:
            continue  # not in this budget
        claims.append(asdict(claim) | judge(claim, tasks))
    for task in tasks.values():
        control = same_as_itself(task)
        if control is not None:
            task["same_as_itself"] = control
    spans = [(number["finished"] - number["seconds"], number["finished"]) for number in found.values()]
    return finite(
        {
            "slug": declared.slug,
            "title": declared.title,
            "budget": budget,
            "date": date.today().isoformat(),
            "seconds": {
                "clock": round(covered(spans), 1),
                "processors": round(sum(number["cpu_seconds"] for number in found.values()), 1),
            },
            "claims": claims,
            "limits": list(declared.limits),
            "paper": [asdict(number) for number in declared.paper],
            "tasks": tasks,
        }
    )


def covered(spans):
    """Length of the union of intervals (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def environment(device, workers):
    """What the numbers were made with; no names of machines or people."""
    found = measure.environment(device)
    found |= {"threads": 1, "workers": max(1, workers)}  # of a cell; cells side by side
    return found | {"refattn": refattn.__version__, "numpy": numpy.__version__, "scipy": scipy.__version__}
