"""What heads are to each other, and to the answer: how alike their maps are, and what is left without one of them."""

from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.nn import functional as F

from refattn import train
from refattn.reproduce.cells import one_thread


def agreement(maps):
    """Mean cosine between the rows of two heads of one layer, over all pairs, of maps [B, H, N, M]; 1: alike."""
    rows = F.normalize(maps, dim=-1)
    cosines = torch.einsum("bhnm,bgnm->hg", rows, rows) / (maps.shape[0] * maps.shape[2])  # [H, H], mean over rows
    heads = maps.shape[1]
    return float((cosines.sum() - cosines.trace()) / (heads * (heads - 1)))


@torch.no_grad()
def agreement_of(model, inputs):
    """Mean `agreement` over the layers of a classifier."""
    maps = [layer["self"]["effective"] for layer in model.attention_maps(inputs)]
    return sum(map(agreement, maps)) / len(maps)


@contextmanager
def without_head(layer, head):
    """An attention layer whose head has no say inside: its columns of the output matrix are zero."""
    weight, width = layer.projections.output.weight, layer.head_dim
    columns = slice(head * width, (head + 1) * width)
    with torch.no_grad():
        kept = weight[:, columns].clone()
        weight[:, columns] = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            weight[:, columns] = kept


def accuracies_without_heads(model, batch):
    """Test accuracy without one head, for every head of every layer."""
    found = []
    for block in model.encoder.blocks:
        for head in range(block.self_attention.num_heads):
            with without_head(block.self_attention, head):
                found.append(train.evaluate(model, batch)["accuracy"])
    return found


def study_heads(models, make_task, *, seeds, steps, every, training, **sizes):
    """Train classifiers and look at their heads on the way.

    Args: models: {name: (task, seed) → model};  make_task: (seed=…, **sizes) → task;  every: steps between two looks.
    Returns: {"ns": steps of the looks, "variants": {name: numbers, one a seed: "agreement", "diversity" (1 − it),
        "accuracy", "kept" (mean accuracy without one head, as a share of the accuracy) and "worst" (the least); and
        "agreement_by_step": mean over seeds at each look}}.
    """
    looks = list(range(0, steps + 1, every))
    found = {name: {} for name in models}
    for seed in range(seeds):
        task = make_task(seed=seed, **sizes)
        for name, make in models.items():
            model, seen = make(task, seed), {}

            def batch(step, model=model, seen=seen, task=task):
                if step in looks:
                    seen[step] = agreement_of(model, task.test["inputs"])
                return task.batch(step)

            with one_thread():
                watched = replace(task, batch=batch)
                history = train.fit(model, watched, steps=steps, seed=seed, device="cpu", progress=False, **training)
                seen[steps] = agreement_of(model, task.test["inputs"])
                left = [a / max(history.accuracy, 1e-9) for a in accuracies_without_heads(model, task.test)]
            numbers = {"agreement": seen[steps], "diversity": 1.0 - seen[steps], "accuracy": history.accuracy}
            numbers |= {"kept": sum(left) / len(left), "worst": min(left)}
            numbers["looks"] = [seen[look] for look in looks]
            for metric, number in numbers.items():
                found[name].setdefault(metric, []).append(number)
    for numbers in found.values():
        by_step = torch.tensor(numbers.pop("looks")).mean(0).tolist()
        for metric, values in numbers.items():
            numbers[metric] = [round(value, 6) for value in values]
        numbers["agreement_by_step"] = [round(value, 4) for value in by_step]
    return {"ns": looks, "variants": found}
