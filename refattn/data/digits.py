"""scikit-learn's handwritten digits: 1,797 images of 8 × 8 pixels with 17 grey levels, bundled, so always at hand."""

import torch

from refattn.data.task import from_arrays

LEVELS = 17  # grey levels 0 … 16


def digits(*, as_sequence=False, batch_size=64, seed=0):
    """Ten classes; a fixed, stratified split into 1,437 training and 360 test images, the same for every seed.

    Inputs: images `[B, 1, 8, 8]` in 0 … 1, or (as_sequence) grey levels as ids `[B, 64]`, row by row.
    """
    from sklearn.datasets import load_digits  # a second to import: only when asked for
    from sklearn.model_selection import train_test_split

    data = load_digits()
    levels, labels = torch.tensor(data.images, dtype=torch.long), torch.tensor(data.target, dtype=torch.long)
    inputs = levels.flatten(1) if as_sequence else (levels.float() / (LEVELS - 1))[:, None]
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=data.target)
    parts = ({"inputs": inputs[rows], "targets": labels[rows]} for rows in (train, test))
    facts = {"vocab_size": LEVELS if as_sequence else None, "num_classes": 10, "max_len": 64}
    about = "handwritten digits, 8 × 8" + (", pixel by pixel" if as_sequence else "")
    return from_arrays("digits", *parts, batch_size=batch_size, seed=seed, description=about, **facts)
