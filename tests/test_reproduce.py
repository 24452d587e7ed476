"""Experiments: verdicts on made-up numbers, runs that survive a kill, and recorded results that are what they claim."""

import importlib
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from refattn import reproduce
from refattn.data import vision
from refattn.json_files import finite
from refattn.reproduce import cells, costs, frame, results, sources
from refattn.reproduce.figure import figure, seeds, times
from refattn.reproduce.frame import Comparison, Measurement
from refattn.reproduce.verdict import AGAIN, FAILS, HOLDS, OPEN, Claim, decide, judge, t_interval

# ---- Verdicts -------------------------------------------------------------------------------------------------------

SPREAD = [-0.02, -0.01, 0.0, 0.0, 0.01, 0.02, 0.01, -0.01]
PAIRED = {"statement": "", "source": "", "task": "t", "metric": "accuracy", "method": "m", "baseline": "b"}
BETTER = Claim("better", rule="superiority", **PAIRED)
NO_WORSE = Claim("no worse", rule="non-inferiority", margin=0.05, **PAIRED)
PREDICTED = Claim("as predicted", rule="equivalence", margin=0.05, bound=0.5, **PAIRED | {"baseline": None})


def around(middle, spread=1.0):
    return [middle + spread * s for s in SPREAD]


def record(metric="accuracy", guessing=0.1, **values):
    """A comparison's record with these variants; `again` is the baseline's second run."""
    named = {{"again": f"b{AGAIN}"}.get(name, name): {metric: numbers} for name, numbers in values.items()}
    return {"t": {"baseline": "b", "metric": metric, "guessing": {metric: guessing}, "variants": named}}


@pytest.mark.parametrize(
    "low, high, threshold, above, verdict",
    [
        (0.1, 0.2, 0.0, True, HOLDS),
        (-0.2, -0.1, 0.0, True, FAILS),
        (-0.1, 0.1, 0.0, True, OPEN),
        (0.0, 0.1, 0.0, True, OPEN),  # the border itself decides nothing
        (0.9, 1.1, 1.25, False, HOLDS),
        (1.3, 1.5, 1.25, False, FAILS),
        (1.1, 1.3, 1.25, False, OPEN),
        (-math.inf, math.inf, 0.0, True, OPEN),
    ],
)
def test_an_interval_decides_where_it_lies_beside_its_threshold(low, high, threshold, above, verdict):
    assert decide(low, high, threshold, above=above) == verdict


def test_the_interval_is_students():
    values = around(0.5)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx([wanted.low, wanted.high])
    assert t_interval([0.3, 0.3, 0.3]) == pytest.approx([0.3, 0.3])
    assert t_interval([0.3]) == [-math.inf, math.inf]


@pytest.mark.parametrize(
    "claim, method, verdict",
    [
        (BETTER, 0.60, HOLDS),
        (BETTER, 0.50, OPEN),
        (BETTER, 0.40, FAILS),
        (NO_WORSE, 0.48, HOLDS),  # two points worse, and allowed to be
        (NO_WORSE, 0.45, OPEN),
        (NO_WORSE, 0.40, FAILS),
        (PREDICTED, 0.52, HOLDS),
        (PREDICTED, 0.48, HOLDS),
        (PREDICTED, 0.55, OPEN),
        (PREDICTED, 0.45, OPEN),
        (PREDICTED, 0.60, FAILS),  # better than can be is no success
        (PREDICTED, 0.40, FAILS),
    ],
)
def test_paired_rules_on_made_up_numbers(claim, method, verdict):
    found = judge(claim, record(m=around(method, 2.0), b=around(0.5), again=around(0.5, -1.0)))
    assert (found["verdict"], found["reason"]) == (verdict, "")
    assert found["mean"] == pytest.approx(method - 0.5)


def test_a_lower_loss_is_better_and_relative_margins_are_shares_of_the_baseline():
    claim = replace(NO_WORSE, metric="loss", relative=True)
    assert judge(claim, record("loss", 3.0, m=around(2.06), b=around(2.0)))["verdict"] == HOLDS  # 3 % above
    found = judge(claim, record("loss", 3.0, m=around(2.2), b=around(2.0)))
    assert found["verdict"] == FAILS and found["mean"] == pytest.approx(-0.1, abs=1e-3)


def test_a_relative_margin_of_a_prediction_is_a_share_of_it():
    claim = replace(PREDICTED, metric="loss", relative=True, bound=2.0)
    for loss, verdict in ((2.06, HOLDS), (2.2, FAILS)):
        assert judge(claim, record("loss", 3.0, m=around(loss), b=around(2.0)))["verdict"] == verdict


def test_a_prediction_may_be_perfect_but_not_of_two_seeds_or_beside_a_baseline_unlike_itself():
    perfect = replace(PREDICTED, bound=1.0)
    assert judge(perfect, record(m=[1.0] * 8, b=[1.0] * 8))["verdict"] == HOLDS
    for values in ({"m": [1.0] * 2, "b": [1.0] * 2}, {"m": [1.0] * 8, "b": around(0.5), "again": around(0.6, -1.0)}):
        found = judge(perfect, record(**values))
        assert found["verdict"] == OPEN and found["reason"]


GUARDED = {
    "2 pairs": (NO_WORSE, {"m": [0.5, 0.5], "b": [0.5, 0.5]}),
    "own second run": (BETTER, {"m": around(0.9), "b": around(0.5), "again": around(0.6, -1.0)}),
    "ceiling: both at 1.00$": (BETTER, {"m": [1.0] * 8, "b": [0.999] * 8}),
    "no control": (NO_WORSE, {"m": [1.0] * 8, "b": [1.0] * 8}),
    "not better than guessing": (NO_WORSE, {"m": around(0.14), "b": around(0.14)}),
    "does not tell": (replace(NO_WORSE, control="c"), {"m": [1.0] * 8, "b": [1.0] * 8, "c": [0.99] * 8}),
}


@pytest.mark.parametrize("reason", GUARDED)
def test_a_guard_stands_before_a_cheap_verdict(reason):
    claim, values = GUARDED[reason]
    found = judge(claim, record(**values))
    assert found["verdict"] == OPEN and re.search(reason, found["reason"])


def test_at_a_ceiling_not_worse_counts_if_a_control_fails_there():
    values = {"m": [1.0] * 8, "b": [1.0] * 8, "c": around(0.5)}
    found = judge(replace(NO_WORSE, control="c"), record(**values))
    assert found["verdict"] == HOLDS and found["ceiling"]


def test_counted_claims_want_every_number_equal():
    claim = Claim("n", "", "", rule="counted", task="t", metric="entries", method="m", baseline="formula")
    for numbers, verdict in (([1, 2, 3], HOLDS), ([1, 2, 4], FAILS)):
        variants = {"m": {"entries": numbers}, "formula": {"entries": [1, 2, 3]}}
        assert judge(claim, {"t": {"variants": variants}})["verdict"] == verdict


@pytest.mark.parametrize("power, verdict", [(1.0, HOLDS), (1.25, OPEN), (2.0, FAILS)])
def test_scaling_claims_compare_the_exponents_interval_with_the_bound(power, verdict):
    claim = Claim("s", "", "", rule="scaling", task="t", metric="by_length", method="m", bound=1.25)
    ns, noise = [256, 512, 1024, 2048, 4096], [1.02, 0.98, 1.0, 0.98, 1.02]
    variants = {"m": {"by_length": [n**power * e for n, e in zip(ns, noise, strict=True)]}}
    assert judge(claim, {"t": {"ns": ns, "variants": variants}})["verdict"] == verdict


numbers = st.lists(st.integers(300, 700).map(lambda n: n / 1000), min_size=3, max_size=12)


@settings(deadline=None, max_examples=60)
@given(numbers, st.randoms(use_true_random=False), st.integers(0, 200), st.sampled_from([BETTER, NO_WORSE]))
def test_verdicts_know_no_order_of_seeds_and_never_fall_when_the_method_improves(method, random, gain, claim):
    baseline = [random.randint(300, 700) / 1000 for _ in method]
    before = judge(claim, record(m=method, b=baseline))
    pairs = list(zip(method, baseline, strict=True))
    random.shuffle(pairs)
    shuffled = judge(claim, record(m=[a for a, _ in pairs], b=[b for _, b in pairs]))
    assert shuffled["verdict"] == before["verdict"]
    better = judge(claim, record(m=[a + gain / 1000 for a in method], b=baseline))
    rank = [FAILS, OPEN, HOLDS].index
    assert rank(better["verdict"]) >= rank(before["verdict"])


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"rule": "likelihood"}, "rule='likelihood'"),
        ({"rule": "scaling", "baseline": None}, "bound=None"),
        ({"rule": "superiority", "baseline": None}, "baseline=None"),
        ({"rule": "non-inferiority"}, "margin=0"),
        ({"rule": "superiority", "margin": -1.0}, "margin=-1"),
        ({"rule": "equivalence", "baseline": None, "margin": 0.1}, "bound=None"),
        ({"rule": "equivalence", "bound": 0.5, "margin": 0.1}, "baseline='b'"),
        ({"rule": "equivalence", "baseline": None, "bound": 0.5}, "margin=0"),
    ],
)
def test_a_claim_that_cannot_be_decided_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Claim("c", **PAIRED | wrong)


# ---- Runs -----------------------------------------------------------------------------------------------------------

TINY = """
from functools import partial
from refattn import data
from refattn.models import Classifier
from refattn.reproduce.frame import Comparison, Experiment, Measurement, Plan
from refattn.reproduce.verdict import Claim

calls = []  # (variant, digest of the first batch, digest of the weights) in the order models are made

def model(task, seed, name):
    from refattn.checkpoint import digest
    made = Classifier(task.vocab_size, task.num_classes, embed_dim=8, num_heads=1, num_layers=1, pool="none", seed=seed)
    calls.append((name, digest(task.batch(0)), digest(made.state_dict())))
    return made

def count(ns):
    return {"ns": list(ns), "variants": {"a": {"entries": [n * n for n in ns]}, "formula": {"entries": [1, 4, 9]}}}

recall = Comparison(
    "recall", "a tiny one", task=partial(data.recall, batch_size=8, test_size=16),
    variants={name: partial(model, name=name) for name in ("a", "b")},
    baseline="a", metric="accuracy", training={"lr": 1e-3},
    plans={"demo": Plan(3, STEPS, {"num_keys": 3}), "quick": Plan(2, 1, {"num_keys": 3}, variants=("a",))},
)
squares = Measurement("squares", "counted", count, plans={"demo": Plan(sizes={"ns": (1, 2, 3)})})
claims = (
    Claim("better", "b > a", "", rule="superiority", task="recall", metric="accuracy", method="b", baseline="a"),
    Claim("square", "n²", "", rule="counted", task="squares", metric="entries", method="a", baseline="formula"),
)
EXPERIMENT = Experiment("tiny", "A tiny one", parts=(recall, squares), claims=claims)
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The module of a small experiment: 9 trainings of 4 steps and a count."""
    path = tmp_path / "tiny_experiment.py"
    path.write_text(TINY.replace("STEPS", "4"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("tiny_experiment", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tiny_experiment", module)
    spec.loader.exec_module(module)
    return module


def run_tiny(module, out, **options):
    return reproduce.run(module.EXPERIMENT, "demo", **{"out": out, "workers": 0, "progress": False} | options)


def outcome(result):
    """A result without dates and seconds."""
    tasks = json.loads(json.dumps(result["tasks"]))
    for task in tasks.values():
        for variant in task["variants"].values():
            variant.pop("training_seconds", None)
    return tasks, result["claims"]


def test_a_run_holds_every_seed_its_controls_and_a_verdict_a_claim(tiny, tmp_path):
    result = run_tiny(tiny, tmp_path / "out")
    recall = result["tasks"]["recall"]
    assert set(recall["variants"]) == {"a", "b", f"a{AGAIN}"}
    assert all(len(v["accuracy"]) == 3 for v in recall["variants"].values())
    assert recall["same_as_itself"]["baseline"] == "a" and recall["guessing"]["accuracy"] >= 0.25
    assert [claim["name"] for claim in result["claims"]] == ["better", "square"]
    assert result["claims"][1]["verdict"] == HOLDS
    assert json.loads(reproduce.result_file("tiny", "demo", out=tmp_path / "out").read_text()) == result


def test_variants_of_a_seed_see_the_same_data_and_only_the_second_run_has_other_weights(tiny, tmp_path):
    run_tiny(tiny, tmp_path)
    a, b, again = (tiny.calls[i::3] for i in range(3))
    assert [c[1] for c in a] == [c[1] for c in b] == [c[1] for c in again]
    assert len({c[1] for c in a}) == 3, "each seed has its own data"
    assert [c[2] for c in a] == [c[2] for c in b]  # here a and b are one model, so their weights are the seed's
    assert not {c[2] for c in a} & {c[2] for c in again}


def test_an_interrupted_run_goes_on_with_the_same_numbers_and_runs_nothing_twice(tiny, tmp_path, monkeypatch):
    whole = outcome(run_tiny(tiny, tmp_path / "whole"))
    tiny.calls.clear()
    fit = cells.train.fit

    def stopped(*args, **options):
        if len(tiny.calls) == 5:
            raise KeyboardInterrupt
        return fit(*args, **options)

    monkeypatch.setattr(cells.train, "fit", stopped)
    with pytest.raises(KeyboardInterrupt, match="5 of 10 cells .* goes on from there"):
        run_tiny(tiny, tmp_path / "cut")  # the count and four trainings are done
    monkeypatch.setattr(cells.train, "fit", fit)
    assert outcome(run_tiny(tiny, tmp_path / "cut")) == whole
    assert len(tiny.calls) == 5 + 5, "only the interrupted training is begun again"
    run_tiny(tiny, tmp_path / "cut")
    assert len(tiny.calls) == 10, "a finished run is only read"


KILLED = """
import sys
from refattn import reproduce
import tiny_experiment
if __name__ == "__main__":
    reproduce.run(tiny_experiment.EXPERIMENT, "demo", out=sys.argv[1], workers=2, progress=False)
"""


def test_a_killed_run_of_two_processes_goes_on_with_the_same_numbers(tiny, tmp_path):
    (tmp_path / "tiny_experiment.py").write_text(TINY.replace("STEPS", "60"), encoding="utf-8")
    (tmp_path / "start.py").write_text(KILLED, encoding="utf-8")
    folder = tmp_path / "cut" / "tiny-demo"

    def trained():
        return {path.name: path.read_text() for path in folder.glob("recall--*.json")}

    def start(out):
        return subprocess.Popen([sys.executable, "start.py", out], cwd=tmp_path, start_new_session=True)

    process = start("cut")
    deadline = time.monotonic() + 60
    while not trained() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers notice, and end
    before = trained()
    assert 0 < len(before) < 9, "killed in the middle"
    assert start("cut").wait(timeout=60) == 0
    assert {name: text for name, text in trained().items() if name in before} == before, "finished cells stand"
    spec = importlib.util.spec_from_file_location("tiny_experiment", tmp_path / "tiny_experiment.py")
    spec.loader.exec_module(tiny)
    whole = run_tiny(tiny, tmp_path / "whole")
    assert outcome(json.loads((folder / "result.json").read_text())) == outcome(whole)


def test_numbers_made_by_other_code_are_made_again(tiny, tmp_path, monkeypatch):
    run_tiny(tiny, tmp_path)
    monkeypatch.setattr(frame, "code_digest", lambda path: "other")
    run_tiny(tiny, tmp_path)
    assert len(tiny.calls) == 18


def test_a_cell_that_fails_is_named(tiny, tmp_path):
    broken = replace(tiny.recall, training={"lr": 1e-3, "schedule": "steps"})
    with pytest.raises(ValueError, match="recall--a--0: schedule='steps'"):
        run_tiny(argparse_like(tiny, broken), tmp_path)


def argparse_like(module, part):
    """Something with an EXPERIMENT of one part and no claims."""
    return type("Made", (), {"EXPERIMENT": replace(module.EXPERIMENT, parts=(part,), claims=())})


def test_a_claim_whose_variants_a_budget_lacks_is_left_out(tiny, tmp_path):
    result = reproduce.run(tiny.EXPERIMENT, "quick", out=tmp_path, workers=0, progress=False)
    assert result["claims"] == []


@pytest.mark.parametrize(
    "change, says",
    [({"task": "nothing"}, "task='nothing'"), ({"method": "c"}, "names c"), ({"metric": "loss"}, "metric 'loss'")],
)
def test_an_experiment_refuses_claims_about_what_it_lacks(tiny, change, says):
    with pytest.raises(ValueError, match=says):
        replace(tiny.EXPERIMENT, claims=(replace(tiny.claims[0], **change),))


@pytest.mark.parametrize(
    "slug, options, says",
    [
        ("nothing", {}, "slug='nothing': wanted one of luna, "),
        ("swiftpruner", {}, "SwiftPruner has no experiment yet; there is one for luna"),
        ("luna", {"budget": "large"}, "budget='large': wanted one of demo, quick, colab, study"),
        ("luna", {"workers": -1}, "workers=-1"),
    ],
)
def test_a_run_that_cannot_begin_says_why_in_one_line(slug, options, says, tmp_path):
    with pytest.raises(ValueError, match=says) as error:
        reproduce.run(slug, out=tmp_path, progress=False, **options)
    assert "\n" not in str(error.value)


# ---- Costs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries, keys", [(32, 32), (4, 32), (32, 4), (1, 1)])
def test_kept_weights_are_the_entries_of_the_map(queries, keys):
    assert costs.kept_weights(queries, keys, heads=3, width=8) == 3 * queries * keys


# ---- The experiments that stand -------------------------------------------------------------------------------------

EXPERIMENTS = [reproduce.experiment(slug) for slug in reproduce.names()]
RECORDED = [(slug, budget) for slug in reproduce.names() for budget in reproduce.recorded(slug)]


SERIES = importlib.import_module("refattn.data.uea")  # the package's own name for it is the task


def made_up_images(dataset, root, train, limit):
    generator = torch.Generator().manual_seed(int(train))
    images = torch.rand(limit, 1, 28, 28, generator=generator)
    return {"inputs": images, "targets": torch.arange(limit) % 10}


def made_up_series(dataset, part):
    """As `refattn.data.uea.read`: five series of each class, of the archive's sizes."""
    classes, features, longest = {"JapaneseVowels": (9, 12, 29), "BasicMotions": (4, 6, 100)}[dataset]
    generator = torch.Generator().manual_seed(len(part))
    labels = [str(label) for label in range(classes) for _ in range(5)]
    return [torch.randn(longest, features, generator=generator) for _ in labels], labels


@contextmanager
def functions_called():
    """The files of the functions that are called inside."""
    ran, before = set(), sys.gettrace()
    sys.settrace(lambda frame, *_: ran.add(frame.f_code.co_filename))
    try:
        yield ran
    finally:
        sys.settrace(before)


def unforeseen(files, slug):
    """Files of the package that ran for an experiment and are not among its `sources`."""
    inside = {Path(name) for name in files if Path(name).is_relative_to(sources.ROOT)}
    judging = {sources.file_of(f"refattn.reproduce.{name}") for name in sources.JUDGES}
    known = {*sources.sources(sources.file_of(f"refattn.reproduce.{slug}")), *judging}
    return {
        path.relative_to(sources.ROOT).as_posix() for path in inside - known - set(map(sources.file_of, sources.LISTS))
    }


def test_an_experiments_sources_are_its_own_and_those_it_names():
    found = {path.name for path in sources.sources(sources.file_of("refattn.reproduce.momentum"))}
    assert {"momentum.py", "heavy_ball.py", "copying.py", "softmax.py", "train.py"} <= found
    assert not {"mega.py", "luna.py", "recall.py", "frame.py", "__init__.py"} & found


LONG = [(e, budget) for e in EXPERIMENTS for budget in ("quick", "colab")]
LONG += [(e, "study") for e in EXPERIMENTS if any("study" in part.plans for part in e.parts)]


@pytest.mark.parametrize(("declared", "budget"), LONG, ids=[f"{e.slug}-{budget}" for e, budget in LONG])
def test_a_dry_run_reaches_every_claim_of_its_budget(declared, budget, tmp_path, monkeypatch):
    monkeypatch.setattr(vision, "read", made_up_images)
    monkeypatch.setattr(vision, "unpack_system_files", lambda root: None)
    monkeypatch.setattr(SERIES, "read", made_up_series)
    with functions_called() as ran:
        result = reproduce.run(declared, budget, out=tmp_path, workers=0, dry=True, progress=False)
    assert unforeseen(ran, declared.slug) == set(), "the digest of its sources would miss a change in them"
    parts = {part.name for part, _ in declared.parts_of(budget)}
    assert [c["name"] for c in result["claims"]] == [c.name for c in declared.claims if c.task in parts]
    assert all(reproduce.line(claim).startswith(claim["verdict"]) for claim in result["claims"])
    with pytest.raises(ValueError, match="dry"):
        reproduce.record(result)


@pytest.mark.parametrize("declared", EXPERIMENTS, ids=lambda e: e.slug)
def test_an_experiment_is_declared_as_the_house_wants(declared):
    assert declared.slug in reproduce.names() and declared.limits and declared.paper
    compared = [part for part in declared.parts if isinstance(part, Comparison)]
    judged = {claim.task for claim in declared.claims}
    assert any(part.neutral and part.name in judged for part in compared), "a neutral task, and a claim about it"
    for part in compared:
        least = {"demo": 3, "quick": 8, "colab": 3, "study": 3}
        assert all(plan.seeds >= least[budget] for budget, plan in part.plans.items())


@pytest.mark.parametrize("declared", EXPERIMENTS, ids=lambda e: e.slug)
def test_a_claims_models_have_nearly_as_many_parameters(declared, monkeypatch):
    monkeypatch.setattr(vision, "read", made_up_images)
    monkeypatch.setattr(vision, "unpack_system_files", lambda root: None)
    monkeypatch.setattr(SERIES, "read", made_up_series)
    parts = {part.name: part for part in declared.parts if isinstance(part, Comparison)}
    for claim in (claim for claim in declared.claims if claim.task in parts):
        part = parts[claim.task]
        plan = next(iter(part.plans.values()))
        sizes = plan.sizes | {k: v for k, v in plan.dry.items() if k in ("train_size", "test_size", "batch_size")}
        task = part.task(seed=0, **sizes)
        method, baseline = (
            cells.count_parameters(part.variants[name](task, 0))
            for name in (claim.method, claim.baseline or part.baseline)
        )
        assert method <= 1.02 * baseline, claim.name


@pytest.mark.parametrize("slug, budget", RECORDED)
class TestRecorded:
    def test_holds_what_was_declared(self, slug, budget):
        result, declared = reproduce.load(slug, budget), reproduce.experiment(slug)
        plans = dict((part.name, (part, plan)) for part, plan in declared.parts_of(budget))
        assert (result["slug"], result["budget"], result["dry"]) == (slug, budget, False)
        assert list(result["tasks"]) == list(plans)
        found = {claim["name"]: claim for claim in result["claims"]}
        wanted = [c for c in declared.claims if c.task in plans]
        runs = {name: part.names(plan) for name, (part, plan) in plans.items() if isinstance(part, Comparison)}
        wanted = [c for c in wanted if c.task not in runs or {c.method, c.baseline} - {None} <= set(runs[c.task])]
        assert list(found) == [claim.name for claim in wanted]
        for claim in wanted:
            assert asdict(claim) == {key: found[claim.name][key] for key in asdict(claim)}, claim.name
        for name, (part, plan) in plans.items():
            task = result["tasks"][name]
            assert task["sizes"] == json.loads(json.dumps(plan.sizes))
            if isinstance(part, Measurement):
                continue
            assert (task["steps"], task["training"], task["neutral"]) == (plan.steps, part.training, part.neutral)
            assert task["seeds"] == list(range(plan.seeds)) and list(task["variants"]) == runs[name]
            assert all(len(v[m]) == plan.seeds for v in task["variants"].values() for m in ("accuracy", "loss"))
            assert task["same_as_itself"]["baseline"] == part.baseline

    def test_verdicts_are_those_of_its_numbers(self, slug, budget):
        result = reproduce.load(slug, budget)
        for claim in result["claims"]:
            declared = Claim(**{key: claim[key] for key in asdict(BETTER)})
            again = finite(judge(declared, result["tasks"]))
            assert (again["verdict"], again["reason"]) == (claim["verdict"], claim["reason"])
            for key in ("mean", "interval", "exponent", "differences", "found"):
                assert (key in again) == (key in claim) and again.get(key) == pytest.approx(claim.get(key))

    def test_is_small_kept_its_budget_and_names_no_machine(self, slug, budget):
        text = (results.FOLDER / f"{slug}-{budget}.json").read_text(encoding="utf-8")
        assert len(text.encode()) < 100_000
        assert not re.search(r"/(home|root|tmp|work|Users|mnt|usr)/|\\\\|localhost|hostname", text)
        result = json.loads(text)
        spent = result["seconds"]["clock"]
        if result["environment"]["device"] == "cpu":  # what it takes where nothing else runs
            spent = min(spent, result["seconds"]["processors"] / result["environment"]["workers"])
        assert spent <= {"demo": 30, "quick": 600, "colab": 900, "study": 4500}[budget]

    def test_can_be_drawn(self, slug, budget):
        result = reproduce.load(slug, budget)
        drawn = [claim for claim in result["claims"] if claim["rule"] != "counted"]
        assert len(figure(result).axes) == len(drawn)
        assert len(figure(result, [drawn[0]["name"]]).axes) == 1
        for name, task in result["tasks"].items():
            if "guessing" in task:
                assert seeds(result, name).axes[0].get_ylabel() == f"{task['metric']}, {name}"
        if "times" in result["tasks"]:
            assert times(result).axes


@pytest.mark.parametrize("slug", reproduce.names())
def test_the_lessons_budgets_are_recorded(slug):
    assert {"demo", "quick"} <= set(reproduce.recorded(slug))
    assert set(reproduce.verdicts(slug).values()) <= {HOLDS, FAILS, OPEN}
    words = r"(\d+ of \d+ hold(, \d+ (not|inconclusive))*)?(; )?(\d+ of \d+ counts)?"
    assert re.fullmatch(rf"{words}(; (study|colab): {words})*", reproduce.summary(slug))


def test_counts_do_not_swell_the_number_of_claims_that_hold():
    claims = [{"rule": "superiority", "verdict": verdict} for verdict in (HOLDS, FAILS, OPEN, OPEN)]
    counts = [{"rule": "counted", "verdict": verdict} for verdict in (HOLDS, HOLDS, FAILS)]
    assert results.tally(claims) == "1 of 4 hold, 1 not, 2 inconclusive"
    assert results.tally(claims + counts) == "1 of 4 hold, 1 not, 2 inconclusive; 2 of 3 counts"
    assert results.tally(counts) == "2 of 3 counts"


def test_what_is_not_recorded_is_said_in_one_line():
    with pytest.raises(ValueError, match="budget='quick': swiftpruner has recorded results for no budget"):
        reproduce.load("swiftpruner")
    assert reproduce.verdicts("swiftpruner") == {} and reproduce.summary("swiftpruner") == ""


def test_a_result_is_recorded_and_read_again(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    result = run_tiny(tiny, tmp_path) | {"slug": "linear"}  # a slug that the catalogue knows
    path = reproduce.record(result)
    assert path.name == "linear-demo.json" and reproduce.load("linear", "demo") == result


def test_drawing_refuses_a_name_that_is_not_there(tiny, tmp_path):
    result = run_tiny(tiny, tmp_path)
    for draw in (lambda: figure(result, ["none"]), lambda: seeds(result, "squares"), lambda: times(result)):
        with pytest.raises(ValueError, match="wanted|this result has"):
            draw()
