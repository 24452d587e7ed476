"""The training loop: resumes exactly, shares work between processes exactly, and says clearly what is wrong.

As a script (run by tests below, also under torchrun) this file trains once: `test_train.py RESULT [CHECKPOINT STEP]`.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from refattn import train

STEPS = 9


@dataclass
class Words:
    """Sequences of words to label, each with another number of scored targets."""

    name: str = "words"
    seed: int = 0
    at_step: tuple = (None, None)  # (step, function to call there)

    def batch(self, step):
        if step == self.at_step[0]:
            self.at_step[1]()
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        inputs = torch.randint(0, 11, (6, 5), generator=generator)
        scored = torch.arange(5) <= torch.arange(6)[:, None]  # rows have 1, 2, …, 5, 5 targets
        return {"inputs": inputs, "targets": torch.where(scored, inputs % 4, -100), "shift": torch.ones(6, 1, 1)}

    @property
    def test(self):
        return self.batch(10**6)


class Tagger(nn.Module):
    """A small network with dropout; `shift` is an input that only keywords reach."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Embedding(11, 16), nn.Dropout(dropout), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)
        )

    def forward(self, inputs, shift):
        return self.layers(inputs) + shift


def make_model(dropout=0.2, seed=0):
    torch.manual_seed(seed)
    return Tagger(dropout)


def fit(model, task=None, **options):
    options = {"steps": STEPS, "lr": 1e-2, "device": "cpu", "progress": False} | options
    return train.fit(model, task or Words(), **options)


def run_script(*arguments, processes=1):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(train.__file__).parents[1])}
    command = [sys.executable, *launcher, __file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def assert_same_weights(a, b, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()), **tolerance)


@pytest.fixture(scope="module")
def uninterrupted():
    model = make_model()
    return model, fit(model)


def test_a_run_killed_in_the_middle_resumes_bit_for_bit(tmp_path, uninterrupted):
    killed = run_script(
        tmp_path / "never.pt", tmp_path / "run.pt", 5
    )  # SIGKILL in step 5, after checkpoints at 2 and 4
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "never.pt").exists() and (tmp_path / "run.pt").exists()
    model, reached = make_model(seed=1), []
    resumed = fit(model, Words(at_step=(4, lambda: reached.append(4))), checkpoint=tmp_path / "run.pt")
    assert reached == [4]  # it went on from there, and not from the start
    assert resumed.losses == uninterrupted[1].losses and resumed.evaluations == uninterrupted[1].evaluations
    assert_same_weights(model, uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tmp_path, number, uninterrupted):
    def stop(*_):
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            task = Words(at_step=(5, lambda: signal.raise_signal(number)))
            fit(make_model(), task, checkpoint=tmp_path / "run.pt")
        assert signal.getsignal(number) is stop
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["history"]["losses"]) == 6
    model = make_model(seed=1)
    assert fit(model, checkpoint=tmp_path / "run.pt").losses == uninterrupted[1].losses
    assert_same_weights(model, uninterrupted[0])


def test_a_crash_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    fit(make_model(), checkpoint=tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()

    def half(parts, file):
        file.write(b"half a checkpoint")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        train.checkpoints.save(tmp_path / "run.pt", {}, model=1)
    assert (tmp_path / "run.pt").read_bytes() == before


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = fit(make_model(), checkpoint=tmp_path / "run.pt")
    model = make_model(seed=1)
    again = fit(model, Words(at_step=(STEPS - 1, pytest.fail)), checkpoint=tmp_path / "run.pt")
    assert again == first
    assert train.evaluate(model, Words().test)["loss"] == first.evaluations[-1]["loss"]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 2e-2},
        {"seed": 1},
        {"steps": STEPS + 1},
        {"task": Words(name="other")},
        {"task": Words(seed=1)},
        {"model": make_model(dropout=0.3)},
    ],
    ids=["lr", "seed", "steps", "task", "data", "model"],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, request):
    fit(make_model(), checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=rf"another run: it differs in.*{request.node.callspec.id}"):
        fit(change.pop("model", make_model()), change.pop("task", None), checkpoint=tmp_path / "run.pt", **change)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "run.pt").write_text("not this")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        fit(make_model(), checkpoint=tmp_path / "run.pt")


def test_two_processes_compute_what_one_does(tmp_path):
    run = run_script(tmp_path / "two.pt", processes=2)
    assert run.returncode == 0, run.stderr
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    model = make_model(dropout=0.0)
    one = fit(model)
    assert two["losses"] == pytest.approx(one.losses, rel=1e-5)
    torch.testing.assert_close(two["model"], dict(model.state_dict()), rtol=1e-4, atol=1e-5)


def test_the_seed_decides_and_the_callers_generator_does_not_notice(uninterrupted):
    model = make_model()
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert fit(model).losses == uninterrupted[1].losses
    assert torch.equal(torch.get_rng_state(), before)
    assert fit(make_model(), seed=1).losses != uninterrupted[1].losses


def test_training_learns_and_evaluates_when_asked():
    model = make_model(dropout=0.0)
    history = fit(model, steps=60, lr=3e-2, evaluate_every=25, schedule="cosine")
    assert [e["step"] for e in history.evaluations] == [25, 50, 60] and history.steps == 60
    assert history.accuracy == 1.0 and history.losses[-1] < 0.1 * history.losses[0]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluate_scores_only_targets_and_restores_each_mode(batch_size):
    model, batch = make_model(dropout=0.5), Words().test
    model.layers[2].eval()  # a part that its owner froze
    scores = train.evaluate(model, batch, batch_size=batch_size)
    assert [m.training for m in model.layers] == [True, True, False, True, True]
    logits = model.eval()(batch["inputs"], batch["shift"])
    scored = batch["targets"] != -100
    chosen = torch.log_softmax(logits, -1)[scored].gather(1, batch["targets"][scored][:, None])
    assert scores["loss"] == pytest.approx(-chosen.mean().item(), rel=1e-5)
    assert scores["accuracy"] == pytest.approx((logits.argmax(-1) == batch["targets"])[scored].float().mean().item())


def test_the_learning_rate_warms_up_then_decays():
    def factors(schedule):
        return [train.ramp(s, steps=10, warmup=2, schedule=schedule) for s in range(10)]

    assert factors("linear") == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert factors("cosine")[2] == 1 and factors("cosine")[6] == pytest.approx(0.5)
    assert factors("constant") == [0.5] + [1] * 9


def test_a_loss_that_is_not_finite_stops_at_its_step():
    model = make_model()

    def poison():
        model.layers[2].weight.data.fill_(float("nan"))

    with pytest.raises(ValueError, match="loss is nan at step 3"):
        fit(model, Words(at_step=(3, poison)))


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"schedule": "step"}, {"seed": -1}, {"checkpoint_every": 0}, {"warmup": -1}, {"device": "cuda:99"}],
)
def test_a_bad_argument_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        fit(make_model(), **bad)


def test_logits_that_do_not_fit_the_targets_are_refused():
    batch = Words().test | {"targets": torch.zeros(6, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"logits \(6, 5, 4\).*wanted \(6, 'classes'\)"):
        train.evaluate(make_model(), batch)


def test_the_bar_is_silent_without_a_terminal(capfd):
    fit(make_model(), progress=True)
    assert capfd.readouterr() == ("", "")


def main(result, checkpoint=None, kill_at=None):
    """Train in this process: without dropout if many share the work, killed in step `kill_at` if one is given."""
    many = "LOCAL_RANK" in os.environ
    task = Words(at_step=(kill_at and int(kill_at), lambda: os.kill(os.getpid(), signal.SIGKILL)))
    model = make_model(dropout=0.0 if many else 0.2)
    if many and os.environ["RANK"] == "1":
        nn.init.zeros_(model.layers[2].weight)  # process 0's weights count
    history = fit(model, task, checkpoint=checkpoint, checkpoint_every=2)
    if os.environ.get("RANK", "0") == "0":
        torch.save({"model": model.state_dict(), "losses": history.losses}, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
