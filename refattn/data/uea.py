"""Two sets of the UEA archive of multivariate time series, as the package `aeon` brings them along (extra `uea`).

JapaneseVowels: who of nine speakers says "ae"? 12 features, 7 to 29 steps.  BasicMotions: standing, walking, running or
badminton? 6 features of a smart watch, 100 steps.  Bagnall et al., "The UEA multivariate time series classification
archive, 2018" (arXiv 1811.00075). The files are read as they are; `aeon` itself is never imported.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

from refattn.data.task import from_arrays

SETS = ("JapaneseVowels", "BasicMotions")


def uea(*, dataset="JapaneseVowels", per_class=None, batch_size=32, seed=0):
    """Classify whole series; the archive's own split, standardised by each feature's training mean and deviation.

    Inputs `[B, N, features]`, padded with zeros to the longest series of both parts, with `key_padding_mask` `[B, N]`.

    Args: per_class: only so many training series of each class, drawn by `seed`.
    Raises: ValueError for another set, a missing `aeon`, or a number beyond what there is.
    """
    if dataset not in SETS:
        raise ValueError(f"dataset={dataset!r}: wanted one of {', '.join(SETS)}")
    parts = [read(dataset, part) for part in ("TRAIN", "TEST")]
    steps = torch.cat([series for series in parts[0][0]])  # all steps of training, [steps, features]
    mean, deviation = steps.mean(0), steps.std(0).clamp(min=1e-6)
    longest = max(len(series) for part, _ in parts for series in part)
    names = sorted(set(parts[0][1]))
    train, test = (batch_of(part, labels, names, longest, mean, deviation) for part, labels in parts)
    if per_class is not None:
        train = few(train, len(names), per_class, seed)
    facts = {"vocab_size": None, "num_classes": len(names), "max_len": longest}
    sizes = (len(part["targets"]) for part in (train, test))
    about = "{}: {} training and {} test series of {} features".format(dataset, *sizes, len(mean))
    return from_arrays(dataset, train, test, batch_size=batch_size, seed=seed, description=about, **facts)


def read(dataset, part):
    """Series, each [steps, features], and their labels, from one file of the archive's own format.

    Raises: ValueError if `aeon` is not installed.
    """
    found = find_spec("aeon")
    if found is None:
        advice = "pip install --no-deps aeon (its files are read, none of it is run), or the extra refattn[uea]"
        raise ValueError(f"dataset={dataset!r} needs the package aeon: {advice}")
    path = Path(found.submodule_search_locations[0], "datasets", "data", dataset, f"{dataset}_{part}.ts")
    lines = path.read_text(encoding="utf-8").splitlines()
    series, labels = [], []
    for line in lines[1 + next(i for i, text in enumerate(lines) if text.strip().lower() == "@data") :]:
        if not line.strip():
            continue
        *features, label = line.strip().split(":")  # one comma-separated list a feature, then the class
        series.append(torch.tensor([[float(value) for value in feature.split(",")] for feature in features]).T)
        labels.append(label)
    return series, labels


def batch_of(series, labels, names, longest, mean, deviation):
    """A batch of everything: standardised, and padded with zeros at the end."""
    inputs = torch.zeros(len(series), longest, len(mean))
    padding = torch.ones(len(series), longest, dtype=torch.bool)
    for row, values in enumerate(series):
        inputs[row, : len(values)] = (values - mean) / deviation
        padding[row, : len(values)] = False
    targets = torch.tensor([names.index(label) for label in labels])
    return {"inputs": inputs, "targets": targets, "key_padding_mask": padding}


def few(train, classes, per_class, seed):
    """Only `per_class` random series of each class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train["targets"]), generator=generator)
    least = int(train["targets"].bincount().min())
    if not 1 <= per_class <= least:
        raise ValueError(f"per_class={per_class}: wanted 1 … {least}")
    rows = torch.cat([order[train["targets"][order] == c][:per_class] for c in range(classes)])
    return {key: value[rows] for key, value in train.items()}
