"""The copy task: read symbols, then a separator, then write the same symbols again, one by one.

s₁ s₂ … s_n 0 s₁ s₂ … s_n 0 0 …        (the set-up of Katharopoulos et al. 2020 and Nguyen et al. 2022)
"""

import torch

from refattn.data.task import IGNORED, generated


def copying(*, max_len=32, num_symbols=10, batch_size=32, test_size=256, seed=0):
    """Next-token prediction on copied sequences; n is drawn from max_len/4 … max_len/2 − 2 for each sequence.

    Inputs are ids `[B, max_len]`, 0 = separator and filler. Scored are the separator and the copied symbols: targets at
    positions n − 1 … 2n − 1 (the first half cannot be predicted).

    Returns: `Task` with vocab_size = num_classes = num_symbols + 1.
    Raises: ValueError for a max_len below 8.
    """
    least, most = max_len // 4, max_len // 2 - 2
    if max_len < 8:
        raise ValueError(f"max_len={max_len}: wanted 8 or more")

    def draw(size, generator):
        n = torch.randint(least, most + 1, (size, 1), generator=generator)
        symbols = torch.randint(1, num_symbols + 1, (size, max_len), generator=generator)
        place = torch.arange(max_len + 1)[None]  # one more than the inputs: the last target
        source = torch.where(place < n, place, place - n - 1)  # where each place takes its symbol from
        written = (place != n) & (place < 2 * n + 1)
        tokens = symbols.gather(1, source.clamp(0, max_len - 1)) * written
        scored = (place[:, :-1] >= n - 1) & (place[:, :-1] <= 2 * n - 1)
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:].masked_fill(~scored, IGNORED)}

    facts = {"vocab_size": num_symbols + 1, "num_classes": num_symbols + 1, "max_len": max_len}
    about = f"copy {least} to {most} symbols (of {num_symbols}) after a separator"
    return generated("copying", draw, batch_size=batch_size, test_size=test_size, seed=seed, description=about, **facts)
