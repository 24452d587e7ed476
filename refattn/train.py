"""The one training loop: every model, every task, one device or many; a kill at any moment costs a few steps.

Two ideas keep it short. A batch is a pure function of the step (`task.batch(step)`), and so is every random draw:
before each step the generator is seeded from (seed, step, process). Resuming then needs weights, optimiser and step, no
more, and a resumed run repeats the uninterrupted one bit for bit (on a GPU: as far as its kernels are deterministic).

    model ← AdamW(model, clip(∇ loss), lr · ramp(step))           loss = mean over scored targets of −log p(target)

The same call runs under `torchrun`: each process takes its rows of the batch, gradients are averaged, process 0 writes.
"""

import html
import math
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from refattn import checkpoint as checkpoints
from refattn import processes

IGNORED = -100  # a target that is not scored


@dataclass
class History:
    """What a training run leaves behind, besides the model.

    losses: training loss of every step.  seconds: time spent in steps, over all resumed parts.
    evaluations: dicts with "step" (steps done), "loss" and "accuracy" on the test batch; the last is after training.
    """

    losses: list = field(default_factory=list)
    seconds: float = 0.0
    evaluations: list = field(default_factory=list)

    @property
    def steps(self):
        """Steps done."""
        return len(self.losses)

    @property
    def accuracy(self):
        """Test accuracy after training, in [0, 1]."""
        return self.evaluations[-1]["accuracy"]


def fit(
    model,
    task,
    *,
    steps,
    lr=1e-3,
    weight_decay=0.01,
    warmup=None,
    schedule="linear",
    clip=1.0,
    seed=0,
    device="auto",
    evaluate_every=None,
    checkpoint=None,
    checkpoint_every=100,
    progress=True,
):
    """Train `model` in place on `task.batch(0)`, `task.batch(1)`, …, and evaluate it on `task.test`.

    Args:
        model: `model(batch["inputs"], **rest) -> logits` [B, C] or [B, N, C]; left on the device it was trained on.
        task: has `batch(step)` and `test`; see `refattn.data.Task`.
        steps: number of batches.  lr, weight_decay: of AdamW.  warmup: steps of linear warm-up (default steps // 10).
        schedule: what follows the warm-up: "linear" or "cosine" decay to zero, or "constant".
        clip: largest norm of the whole gradient; None for no clipping.
        seed: of everything random in the model (dropout). The caller's generators are left as they were.
        device: "auto" (a GPU if there is one), "cpu", "cuda", …  evaluate_every: also evaluate every so many steps.
        checkpoint: file to write every `checkpoint_every` steps, at the end, and on Ctrl-C or SIGTERM (once the step is
            done). If it exists, training goes on from there. Under `torchrun` every process must see it.
        progress: show a bar, in a terminal or a running notebook; it leaves nothing behind.

    Returns: `History`.
    Raises: ValueError for a bad argument, a checkpoint of another configuration, or a loss that is not finite.
    """
    warmup = steps // 10 if warmup is None else warmup
    check_arguments(steps, warmup, schedule, seed, checkpoint_every)
    device = processes.choose_device(device)
    rank, world = processes.join(device)
    model.to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay)
    settings = {"steps": steps, "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "schedule": schedule}
    settings |= {"clip": clip, "seed": seed, "processes": world, "task": getattr(task, "name", None)}
    settings |= {"data": checkpoints.digest(task.batch(0)), "model": checkpoints.describe(model)}

    history = History()
    saved = checkpoints.load(checkpoint, settings)
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        history = History(**saved["history"])
    processes.check_same_step(history.steps, world, device)

    def save():
        if checkpoint is None:
            return
        if rank == 0:
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": asdict(history)}
            checkpoints.save(checkpoint, settings, **parts)
        processes.wait(world, device)  # nobody goes on, and perhaps reads the file, before it is there

    parallel = model
    if world > 1:
        parallel = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    stop = checkpoints.StopSignals(active=checkpoint is not None)
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else []
    bar = progress_bar(steps, start=history.steps, show=progress and rank == 0)
    with mode(model, training=True), torch.random.fork_rng(devices=cuda), stop, bar:
        for step in range(history.steps, steps):
            started = time.perf_counter()
            seed_step(seed, step, rank, device)
            for group in optimizer.param_groups:
                group["lr"] = lr * ramp(step, steps=steps, warmup=warmup, schedule=schedule)
            batch = task.batch(step)
            scored = int((batch["targets"] != IGNORED).sum())  # in the whole batch, whatever this process gets of it
            if scored == 0:
                raise ValueError(f"task.batch({step}) has no target to score: all are {IGNORED}")
            batch = to_device(take_rows(batch, processes.share(len(batch["targets"]), rank, world)), device)
            loss = loss_sum(predict(parallel, batch), batch["targets"]) / scored
            value, stopping = processes.total([loss.item(), stop.received is not None], world, device)
            if not math.isfinite(value):
                raise ValueError(f"loss is {value} at step {step}: try a lower lr (now {lr:g}), more warmup, less clip")
            optimizer.zero_grad(set_to_none=True)
            (loss * world).backward()  # DDP takes the mean over processes; the loss is already a share of the sum
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            history.losses.append(value)
            history.seconds += time.perf_counter() - started
            bar.set_postfix(loss=f"{value:.3g}", refresh=False)
            bar.update()
            done = step + 1
            if done == steps or (evaluate_every and done % evaluate_every == 0):
                history.evaluations.append({"step": done, **evaluate(model, task.test)})
            if stopping or done == steps or done % checkpoint_every == 0:
                save()
            if stopping:
                break
    if history.steps < steps:
        raise KeyboardInterrupt  # this process was not the one that received the signal, or its handler let it pass
    return history


@torch.no_grad()
def evaluate(model, batch, *, batch_size=256):
    """Loss and accuracy over the scored targets of a batch, in chunks of `batch_size` rows, with dropout off.

    Returns: {"loss": mean −log p(target), in nats, "accuracy": in [0, 1]}. The model's modes are left as they were.
    Raises: ValueError if no target is scored.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    loss = correct = scored = 0
    with mode(model, training=False):
        for start in range(0, len(batch["targets"]), batch_size):
            chunk = to_device(take_rows(batch, slice(start, start + batch_size)), device)
            logits, targets = predict(model, chunk), chunk["targets"]
            loss += loss_sum(logits, targets).item()
            correct += int((logits.argmax(-1) == targets).sum())  # an ignored target is no class, so it never counts
            scored += int((targets != IGNORED).sum())
    if scored == 0:
        raise ValueError(f"batch has no target to score: all are {IGNORED}")
    return {"loss": loss / scored, "accuracy": correct / scored}


def ramp(step, *, steps, warmup=0, schedule="linear"):
    """Factor on the learning rate at a step: linear warm-up to 1, then linear or cosine decay to 0 at `steps`, or 1."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]


def predict(model, batch):
    """Logits of a batch: inputs by position, everything else but the targets by keyword."""
    rest = {key: value for key, value in batch.items() if key not in ("inputs", "targets")}
    return model(batch["inputs"], **rest)


def loss_sum(logits, targets):
    """Sum of cross-entropies over scored targets: logits [..., C], targets [...] int64."""
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"model gave logits {tuple(logits.shape)}: wanted {(*targets.shape, 'classes')} to fit the targets"
        )
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def take_rows(batch, rows):
    """The batch with only some of its rows; what is no tensor stays as it is."""
    return {key: value[rows] if torch.is_tensor(value) else value for key, value in batch.items()}


def to_device(batch, device):
    return {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}


@contextmanager
def mode(model, *, training):
    """Training or evaluation mode inside; afterwards every submodule has the mode it had."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before.items():
            module.training = was_training


def seed_step(seed, step, rank, device):
    """Seed the generators that dropout reads, as a function of (seed, step, process) alone."""
    number = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)


def progress_bar(total, *, start=0, show=True):
    """A tqdm bar that vanishes when it is done: in a terminal, or in a notebook (whose stored output stays empty)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    options = {"total": total, "initial": start, "leave": False}
    if show and hasattr(shell, "kernel"):
        return tqdm(file=NotebookLine(), mininterval=0.5, ncols=90, **options)
    return tqdm(disable=None if show else True, **options)  # None: only where there is a terminal


class NotebookLine:
    """A text file for tqdm to write to, shown as one line that is overwritten."""

    encoding = "utf-8"

    def __init__(self):
        from IPython.display import HTML, display  # only here: training needs no notebook

        self.make = HTML
        self.handle = display(HTML(""), display_id=True)

    def write(self, text):
        line = html.escape(text.strip())
        self.handle.update(self.make(f"<pre>{line}</pre>" if line else ""))

    def flush(self):
        pass


def check_arguments(steps, warmup, schedule, seed, checkpoint_every):
    for name, value, least in (("steps", steps, 1), ("warmup", warmup, 0), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name}={value}: wanted {least} or more")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every={checkpoint_every}: wanted 1 or more")
    if schedule not in ("linear", "cosine", "constant"):
        raise ValueError(f"schedule={schedule!r}: wanted 'linear', 'cosine' or 'constant'")
