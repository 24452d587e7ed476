"""Dates written out character by character by trained encoder-decoders: exact matches and character errors."""

import torch

from refattn import data, train
from refattn.data.cldr import END, START, letters, pairs_of, to_text


def edit_distance(a, b):
    """The least number of characters to insert, delete or replace that makes text b of text a."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def written_by(model, task, known, *, beams=1):
    """(what the model writes, what is right): texts for the inputs of `task.test`. A written START or PAD is a "�"."""
    inputs, targets = task.test["inputs"], task.test["targets"]
    start = torch.full((len(inputs), 1), START)
    ids = model.eval().generate(inputs, start, targets.shape[1], end=END, beams=beams)[:, 1:]
    ids = ids.masked_fill(ids < END, END + 1 + len(known))  # the letter after the known ones
    return [[to_text(row, known + "�") for row in rows.tolist()] for rows in (ids, targets)]


def write_dates(models, training, seeds, steps, beams, kind="dates", **sizes):
    """Train models {name: (task, seed) → model} on dates, then let them write the test part, greedily and by a beam.

    Returns: {"variants": {name, or name with its beams: {"exact match": a share a seed, "character errors": edits per
        character of the right text}}}.
    """
    asked = {name: sizes[name] for name in ("source", "target", "style", "target_style") if name in sizes}
    known, found = letters(pairs_of(kind, **asked)), {}
    for seed in range(seeds):
        task = data.cldr(kind=kind, seed=seed, **sizes)
        for name, make in models.items():
            model = make(task, seed)
            train.fit(model, task, steps=steps, seed=seed, device="cpu", progress=False, **training)
            for how, width in ((name, 1), (f"{name}, {beams} beams", beams)):
                written, right = written_by(model, task, known, beams=width)
                record = found.setdefault(how, {"exact match": [], "character errors": []})
                exact = sum(a == b for a, b in zip(written, right, strict=True))
                errors = sum(edit_distance(a, b) for a, b in zip(written, right, strict=True))
                record["exact match"].append(round(exact / len(right), 6))
                record["character errors"].append(round(errors / sum(map(len, right)), 6))
    return {"variants": found}
