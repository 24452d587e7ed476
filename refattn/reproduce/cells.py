"""Cells: one training or one measurement each, written to a file the moment it is finished, never run twice.

A cell depends on its settings alone (each seeds itself), so cells may run in any order, in any number of processes, and
a run that was killed goes on where it stood. A file counts only if its settings are those asked for, the digest of the
sources it depends on among them: numbers made by other code are made again.
"""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch

from refattn import train
from refattn.checkpoint import digest
from refattn.json_files import write_json
from refattn.measure import count_parameters
from refattn.reproduce.verdict import AGAIN

AGAIN_SEED = 10_000  # what the second run of a baseline adds to the seed of its weights; its data stay the same


@dataclass(frozen=True)
class Cell:
    """What to run: `part` is a comparison or a measurement (variant and seed None) of the frame, `plan` its sizes."""

    part: object
    plan: object
    variant: str | None
    seed: int | None
    device: str
    code: str

    @property
    def name(self):
        """Its file's name, without the ending."""
        words = (self.part.name, self.variant, self.seed)
        return "--".join(re.sub(r"[^A-Za-z0-9=.]+", "-", str(word)).strip("-") for word in words if word is not None)

    @property
    def settings(self):
        """Everything that its numbers depend on, as plain values."""
        asked = {"task": self.part.name, "variant": self.variant, "seed": self.seed, "device": self.device}
        asked |= {"steps": self.plan.steps, "sizes": self.plan.sizes, "training": getattr(self.part, "training", None)}
        asked |= {"code": self.code, "torch": torch.__version__}
        return json.loads(json.dumps(asked))


def run_cell(cell, folder, progress=False):
    """The numbers of a cell: read from its file, or computed and written."""
    path = Path(folder) / f"{cell.name}.json"
    found = finished(cell, folder)
    if found is not None:
        return found
    unfinished = path.with_name(f"{cell.name}--{digest(cell.settings)}.checkpoint")
    started, cpu = time.perf_counter(), time.process_time()
    with one_thread():
        if cell.variant is None:
            found = cell.part.measure(**cell.plan.sizes)
        else:
            found = train_model(cell, unfinished, progress)
    spent = {"seconds": round(time.perf_counter() - started, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    found = json.loads(json.dumps(spent | {"finished": round(time.time(), 2)} | found))
    write_json(path, {"settings": cell.settings, "found": found})
    unfinished.unlink(missing_ok=True)
    return found


def finished(cell, folder):
    """The numbers of a cell that has been run with these settings, or None."""
    path = Path(folder) / f"{cell.name}.json"
    try:
        saved = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return saved["found"] if saved.get("settings") == cell.settings else None


def train_model(cell, checkpoint, progress):
    """Train one model and evaluate it. The data depend on the seed; so do the weights, but for a second run's."""
    comparison, plan = cell.part, cell.plan
    task = comparison.task(seed=cell.seed, **plan.sizes)
    variant, seed = cell.variant, cell.seed
    if variant.endswith(AGAIN):
        variant, seed = variant.removesuffix(AGAIN), seed + AGAIN_SEED
    model = comparison.variants[variant](task, seed)
    history = train.fit(
        model,
        task,
        steps=plan.steps,
        seed=seed,
        device=cell.device,
        checkpoint=checkpoint,
        checkpoint_every=500,
        progress=progress,
        **comparison.training,
    )
    last = history.evaluations[-1]
    parameters = count_parameters(model)
    recent = history.losses[-max(1, plan.steps // 10) :]
    return {
        "parameters": parameters,
        "accuracy": round(last["accuracy"], 6),
        "loss": round(last["loss"], 6),
        "training_loss": round(sum(recent) / len(recent), 6),  # of the last tenth of the steps
        "training_seconds": round(history.seconds, 2),
        "guessing": guessing(task.test["targets"]),
    }


def guessing(targets):
    """What the frequencies of the targets alone give: the most frequent class, and the entropy in nats."""
    scored = targets[targets != train.IGNORED].flatten()
    share = scored.bincount().double() / len(scored)
    share = share[share > 0]
    return {"accuracy": round(float(share.max()), 6), "loss": round(float(-(share * share.log()).sum()), 6)}


@contextmanager
def one_thread():
    """One thread for torch inside, so that sums are added in the same order wherever a cell runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_cells(cells, folder, *, workers, progress):
    """Run what is not finished, in this process (workers=0) or in others; measurements first and alone.

    Returns: the numbers of each cell, in order.
    Raises: ValueError or RuntimeError naming the cell that failed; KeyboardInterrupt that says where to resume.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    waiting = [cell for cell in cells if finished(cell, folder) is None]
    measured, trained = ([c for c in waiting if (c.variant is None) == wanted] for wanted in (True, False))
    alone, shared = (measured, trained) if workers else (measured + trained, [])
    children = set(multiprocessing.active_children())
    bar = train.progress_bar(len(cells), start=len(cells) - len(waiting), show=progress)
    try:
        with bar:
            for cell in alone:  # nothing else runs beside a measurement of time
                bar.set_postfix_str(cell.name)
                named(cell, run_cell, cell, folder, progress)
                bar.update()
            if shared:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(min(workers, len(shared)), context, initializer=start_worker) as pool:
                    futures = {pool.submit(run_cell, cell, folder): cell for cell in shared}
                    try:
                        for future in as_completed(futures):
                            named(futures[future], future.result)
                            bar.set_postfix_str(futures[future].name)
                            bar.update()
                    except BaseException:
                        pool.shutdown(wait=False, cancel_futures=True)
                        for child in set(multiprocessing.active_children()) - children:
                            child.terminate()  # training notes the signal, ends its step, writes its checkpoint
                        raise
    except KeyboardInterrupt:
        done = sum(finished(cell, folder) is not None for cell in cells)
        raise KeyboardInterrupt(
            f"stopped: {done} of {len(cells)} cells are finished in {folder}; the same call goes on from there"
        ) from None
    return [finished(cell, folder) for cell in cells]


def named(cell, function, *args):
    """The result of a call; its ValueError or RuntimeError (no data, a worker killed) with the cell's name."""
    try:
        return function(*args)
    except (ValueError, RuntimeError) as error:
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        raise kind(f"{cell.name}: {error}") from error


def start_worker():
    """One thread a worker; Ctrl-C is the parent's affair; and no worker outlives its parent, however that ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
