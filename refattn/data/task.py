"""A task: batches as a pure function of the training step, and one fixed test batch.

Because a batch depends on nothing but the step, a resumed run sees what the uninterrupted one saw, and all models of an
experiment see the same data in the same order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

IGNORED = -100  # a target that is not scored (the `ignore_index` of torch's cross-entropy)


@dataclass(frozen=True)
class Task:
    """What a model is trained and tested on.

    A batch is a dict of tensors: "inputs", "targets" (int64 [B] or [B, N]; -100 = not scored), sometimes
    "key_padding_mask" (bool [B, N], True = padding), and whatever else the model takes by keyword.

    name: short name.  batch: step → batch, the same for the same step.  test: a batch never seen in training.
    vocab_size: number of token ids; a tuple for several ids a token ([B, N, columns]); None for real vectors or images.
    num_classes: classes of the targets.  max_len: longest sequence, in tokens.  description: one line for people.
    """

    name: str
    batch: Callable[[int], dict]
    test: dict
    vocab_size: int | tuple[int, ...] | None
    num_classes: int
    max_len: int
    description: str = ""


def generator(seed, *labels):
    """A torch generator that depends on the seed and the labels alone (numbers or text), independent between them."""
    words = [seed, *(int.from_bytes(str(label).encode(), "little") for label in labels)]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def generated(name, draw, *, batch_size, test_size, seed, **facts):
    """A task whose examples are made on the fly: `draw(size, generator) -> batch`.

    Training and test batches come from independent streams of random numbers.
    """
    positive(batch_size=batch_size, test_size=test_size)
    test = draw(test_size, generator(seed, "test"))
    return Task(name, lambda step: draw(batch_size, generator(seed, "train", step)), test, **facts)


def from_arrays(name, train, test, *, batch_size, seed=0, **facts):
    """A task over a finite data set: every epoch in an order of its own, drawn from (seed, epoch).

    Args: train, test: batches that hold everything, on one first axis;  facts: the other fields of `Task`.
    A batch that reaches past the end of an epoch is filled from the next one, so all batches have one size.

    Raises: ValueError for a batch larger than the data set, or tensors of different lengths.
    """
    positive(batch_size=batch_size)
    sizes = {key: len(value) for key, value in train.items()}
    size = sizes["targets"]
    if set(sizes.values()) != {size}:
        raise ValueError(f"train: tensors of different lengths {sizes}")
    if batch_size > size:
        raise ValueError(f"batch_size={batch_size}: wanted at most the {size} examples there are")

    def batch(step):
        places = range(step * batch_size, (step + 1) * batch_size)
        epochs = sorted({place // size for place in places})
        orders = {epoch: torch.randperm(size, generator=generator(seed, "epoch", epoch)) for epoch in epochs}
        rows = torch.stack([orders[place // size][place % size] for place in places])
        return {key: value[rows] for key, value in train.items()}

    return Task(name, batch, test, **facts)


def positive(**numbers):
    """Raise a ValueError for the first number that is not at least one."""
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value}: wanted 1 or more")
