"""Looking back by a fixed number of places: positions alone decide, content says nothing."""

import torch

from refattn.data.task import IGNORED, generated


def look_back(*, length=48, delay=5, num_symbols=8, batch_size=32, test_size=256, seed=0):
    """Random symbols [B, N]; at every place the target is the symbol `delay` places earlier (the first ones have none).

    Returns: `Task`; chance is 1 / num_symbols.
    """

    def draw(size, generator):
        tokens = torch.randint(num_symbols, (size, length), generator=generator)
        targets = tokens.roll(delay, 1)
        targets[:, :delay] = IGNORED
        return {"inputs": tokens, "targets": targets}

    facts = {"vocab_size": num_symbols, "num_classes": num_symbols, "max_len": length}
    sizes = {"batch_size": batch_size, "test_size": test_size, "seed": seed}
    return generated("look back", draw, description=f"say the symbol {delay} places back", **sizes, **facts)
