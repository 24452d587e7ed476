"""Associative recall: some pairs, then one of their keys; say the token that followed it. Keys and values are tokens.

k₃ v₇  k₀ v₁  k₉ v₇   k₀        target: v₁, at the last token
"""

import torch

from refattn.data.task import IGNORED, generated


def associative_recall(*, num_keys=12, num_values=12, num_pairs=5, batch_size=64, test_size=512, seed=0):
    """Pairs of a key and its value as two tokens, different keys in a sequence, then a key that was among them.

    Inputs are ids `[B, 2 P + 1]`: keys 0 … K − 1, values K … K + V − 1. Targets `[B, 2 P + 1]` are values 0 … V − 1, at
    the last token only. Unlike in `recall`, a value stands beside its key, not in the same token: one attention layer
    that finds the key has not yet found the value.

    Args: num_keys, num_values: ids of each kind;  num_pairs: P.
    Returns: `Task`; chance is 1 / num_values, and 1 / num_pairs for who has noticed which values occur.
    Raises: ValueError for more pairs than keys.
    """
    if num_pairs > num_keys:
        raise ValueError(f"num_pairs={num_pairs}: wanted at most num_keys={num_keys}, since keys of a sequence differ")
    length = 2 * num_pairs + 1

    def draw(size, generator):
        keys = torch.rand(size, num_keys, generator=generator).argsort(1)[:, :num_pairs]  # [B, P], all different
        values = torch.randint(num_values, (size, num_pairs), generator=generator)
        asked = torch.randint(num_pairs, (size, 1), generator=generator)
        pairs = torch.stack([keys, num_keys + values], -1).flatten(1)  # [B, 2 P]
        targets = torch.full((size, length), IGNORED)
        targets[:, -1:] = values.gather(1, asked)
        return {"inputs": torch.cat([pairs, keys.gather(1, asked)], 1), "targets": targets}

    facts = {"vocab_size": num_keys + num_values, "num_classes": num_values, "max_len": length}
    about = f"say which of {num_values} values followed one of {num_pairs} keys"
    sizes = {"batch_size": batch_size, "test_size": test_size, "seed": seed}
    return generated("associative_recall", draw, description=about, **sizes, **facts)
