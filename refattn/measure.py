"""What a method costs: parameters, FLOPs, bytes kept for backward, largest tensors, seconds; and how each grows with N.

Counts are exact and the same on every machine. Seconds are not: they are measured alternately in one process, so that
whatever slows the machine slows all alike, and are best read as ratios.
"""

import math
import platform
import sys
import weakref
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from refattn.flop_count import flops

# torch's benchmark tools warn where there is a CUDA compiler and no GPU, as in Colab's plain runtimes; nobody need know
with redirect_stderr(StringIO()):
    from torch.utils.benchmark import Timer

__all__ = ["Exponent", "Latencies", "Peak", "count_parameters", "crossover", "environment", "flops", "latency"]
__all__ += ["peak_bytes", "saved_bytes", "scaling_exponent"]


def count_parameters(module, *, trainable=True):
    """Number of parameters of a module, shared ones once; only those that are trained, or with trainable=False all."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


# ---- Memory ---------------------------------------------------------------------------------------------------------


class _Saved:
    """A tensor that autograd keeps; autograd holds this object, so it lives exactly as long as the tensor is kept."""

    def __init__(self, tensor):
        base = tensor if tensor._base is None else tensor._base
        self.is_parameter = isinstance(base, nn.Parameter)
        self.tensor = tensor.detach()  # the tensor itself would keep its own graph alive


def saved_bytes(function, *args, **kwargs):
    """Exact bytes that autograd keeps for the backward pass when `function(*args, **kwargs)` returns.

    A storage counts once and whole, however many views of it are kept; parameters do not count, inputs do. What a
    custom autograd function hides in attributes of its context is not seen.
    """
    kept = []

    def pack(tensor):
        saved = _Saved(tensor)
        kept.append(weakref.ref(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        result = function(*args, **kwargs)  # named, so that its graph is alive while we count
    alive = [saved for saved in (reference() for reference in kept) if saved is not None]
    storages = {
        s.tensor.untyped_storage()._cdata: s.tensor.untyped_storage().nbytes() for s in alive if not s.is_parameter
    }
    del result
    return sum(storages.values())


@dataclass
class Peak:
    """What a call created.

    live: most bytes alive at once.  largest, shape, entries: bytes, shape and numbers in the largest single tensor.
    """

    live: int = 0
    largest: int = 0
    shape: tuple = ()
    entries: int = 0


class _Allocations(TorchDispatchMode):
    """Follows every storage that appears as the result of an operator until it is freed."""

    def __init__(self):
        super().__init__()
        self.peak, self.live, self.known = Peak(), 0, {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            self.note(tensor, created=False)
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self.note(tensor, created=True)
        return result

    def note(self, tensor, *, created):
        if not torch.is_tensor(tensor) or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        size = size if created else 0  # what was there before is not ours

        def freed(_):
            del self.known[key]
            self.live -= size

        self.known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak.live = max(self.peak.live, self.live)
        if size and size >= self.peak.largest:  # of equals the last, which has its heads apart again after a bmm
            self.peak.largest, self.peak.shape = size, tuple(tensor.shape)
            self.peak.entries = size // tensor.element_size()


def peak_bytes(function, *args, **kwargs):
    """Largest tensor and most live bytes that `function(*args, **kwargs)` creates (its inputs do not count): a `Peak`.

    Sees every tensor an operator returns, backward included if it is run inside; not a fused kernel's workspace.
    """
    with _Allocations() as allocations:
        function(*args, **kwargs)
    return allocations.peak


# ---- Time -----------------------------------------------------------------------------------------------------------


@dataclass
class Latencies:
    """Seconds per call. rounds: {name: [one per round]}, where the same round ran under the same conditions."""

    rounds: dict

    @property
    def seconds(self):
        """{name: (median, min, max)} over rounds."""
        return {name: _middle_and_ends(values) for name, values in self.rounds.items()}

    def ratios(self, name, reference):
        """How many times the time of `reference` the function `name` takes, one number a round."""
        return [a / b for a, b in zip(self.rounds[name], self.rounds[reference], strict=True)]

    def ratio(self, name, reference):
        """(median, min, max) of `ratios`."""
        return _middle_and_ends(self.ratios(name, reference))


def _middle_and_ends(values):
    return median(values), min(values), max(values)


def latency(functions, *, rounds=7, min_seconds=0.05):
    """Time functions against each other: every round times each once, in alternating order; on a GPU to completion.

    Args: functions: {name: callable without arguments};  min_seconds: of calls of one function in one round.
    Returns: `Latencies`.
    """
    timers = {}
    for name, function in functions.items():
        function()  # caches, lazy initialisation, compilation
        timers[name] = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    found = {name: [] for name in functions}
    for i in range(rounds):
        for name in list(functions)[:: 1 if i % 2 == 0 else -1]:
            found[name].append(timers[name].blocked_autorange(min_run_time=min_seconds).median)
    return Latencies(found)


# ---- Growth ---------------------------------------------------------------------------------------------------------


class Exponent(NamedTuple):
    """value ≈ c · N^slope, with a confidence interval on the slope."""

    slope: float
    low: float
    high: float


def scaling_exponent(ns, values, *, confidence=0.95):
    """Slope of log(value) against log(N) by least squares, with its t interval: an `Exponent`.

    Two points lie on a line whatever they are: their interval is (−inf, inf). An exact power law has low = high.
    The interval describes scatter about a straight line, not a line that bends: leave out N too small for the trend.

    Raises: ValueError for fewer than two different N, or anything that is not positive.
    """
    x, y = _logs("ns", ns), _logs("values", values)
    if len(x) != len(y) or len(set(x)) < 2:
        raise ValueError(f"ns={list(ns)}, values={list(values)}: wanted equally many, and at least two different N")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    if len(x) == 2:
        return Exponent(slope, -math.inf, math.inf)
    variance = float(np.sum((dy - slope * dx) ** 2)) / (len(x) - 2)
    margin = stats.t.ppf((1 + confidence) / 2, len(x) - 2) * math.sqrt(variance / float(dx @ dx))
    return Exponent(slope, slope - margin, slope + margin)


def crossover(ns, a, b):
    """Smallest N from which method b costs less than a, between measured N by log–log interpolation.

    Args: ns: increasing lengths;  a, b: costs at these lengths.
    Returns: N as a float; the first N if b is cheaper there already; None if b never is.
    Raises: ValueError if lengths differ or do not increase, or for a cost that is not positive.
    """
    n, a, b = _logs("ns", ns), _logs("a", a), _logs("b", b)
    if not len(n) == len(a) == len(b) or np.any(np.diff(n) <= 0):
        raise ValueError(f"ns={list(ns)}: wanted increasing lengths, one for each of {len(a)} and {len(b)} costs")
    ratio = b - a
    for i, r in enumerate(ratio):
        if r < 0:
            before = ratio[i - 1] if i else 0.0
            return float(ns[0]) if i == 0 else float(np.exp(n[i] - (n[i] - n[i - 1]) * r / (r - before)))
    return None


def _logs(name, values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"{name}={values.tolist()}: wanted a list of positive numbers")
    return np.log(values)


def environment(device="cpu"):
    """What measurements depend on: versions, processor, threads and device; no names of machines or people."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in described.splitlines() if line.startswith("model name")]
    device = torch.device(device)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": sys.platform,
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
