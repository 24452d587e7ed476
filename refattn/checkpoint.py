"""Checkpoints that survive a kill at any moment, and know which run they belong to."""

import hashlib
import os
import signal
import threading
from pathlib import Path

import torch


def save(path, settings, **parts):
    """Write `parts` (tensors, numbers, text, and lists and dicts of them) and the run's settings to a file.

    Another file is written first and then takes the name, so the name always holds a complete checkpoint.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "wb") as file:
        torch.save({"settings": settings, **parts}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load(path, settings):
    """The parts that `save` wrote, or None if there is no file.

    Raises: ValueError for a file that cannot be read, or that belongs to a run with other settings.
    """
    if path is None or not Path(path).exists():
        return None
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
        found = parts.pop("settings")
    except Exception as error:  # a foreign or damaged file fails in many ways
        raise ValueError(f"checkpoint={str(path)!r} is not a readable checkpoint: {error}") from error
    differing = [name for name in (settings | found) if settings.get(name) != found.get(name)]
    if differing:
        listed = ", ".join(f"{name} (file: {found.get(name)}, now: {settings.get(name)})" for name in differing)
        raise ValueError(
            f"checkpoint={str(path)!r} is of another run: it differs in {listed}. Delete it or name another"
        )
    return parts


def digest(tree):
    """A short text that changes if any tensor or value in a (nested) dict, list or tuple changes."""
    found = hashlib.sha256()
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            node = [item for pair in sorted(node.items()) for item in pair]
        if isinstance(node, (list, tuple)):
            found.update(f"{type(node).__name__}{len(node)}".encode())
            todo.extend(node)
        elif torch.is_tensor(node):
            found.update(f"{node.dtype}{tuple(node.shape)}".encode())
            found.update(node.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(node).encode())
    return found.hexdigest()[:12]


def describe(model):
    """A digest of a model: its modules, their plain attributes (rates, sizes, flags), its shapes; not its weights."""
    parts = []
    for name, module in model.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
        plain.pop("training")
        parts.append((name, type(module).__name__, plain))
    for name, tensor in model.state_dict(keep_vars=True).items():
        parts.append((name, str(tensor.shape), str(tensor.dtype), tensor.requires_grad))
    return digest(parts)


class StopSignals:
    """Inside, Ctrl-C and SIGTERM are noted in `received` and delivered at the end: no step is left half done.

    A second signal is delivered at once. Outside the main thread, or if not `active`, signals act as usual.
    """

    def __init__(self, active=True):
        self.active = active and threading.current_thread() is threading.main_thread()
        self.received, self.handlers = None, {}

    def __enter__(self):
        if self.active:
            self.handlers = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind, error, trace):
        self.restore()
        if kind is None and self.received is not None:
            signal.raise_signal(self.received)

    def note(self, number, frame):
        if self.received is not None:
            self.restore()
            signal.raise_signal(number)
        self.received = number

    def restore(self):
        for number, handler in self.handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.handlers = {}
