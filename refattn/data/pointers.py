"""Pointer chasing: a random map of S places onto themselves, followed from every place for k hops. Depth counts.

p:  0 → 2,  1 → 1,  2 → 3,  3 → 0        token i says p(i): 2 1 3 0        two hops p(p(i)): 3 1 0 2
"""

import torch

from refattn.data.task import generated, positive


def pointers(*, symbols=8, hops=3, batch_size=64, test_size=512, seed=0):
    """A map p: {0 … S − 1} → {0 … S − 1}, drawn anew for every example; asked at every token i is p^k(i).

    Inputs are ids `[B, S]`: token i holds p(i), its place says which i that is, so a model needs positions. One look-up
    of another token follows one hop, or doubles what is known: token i that knows p^a(i) can read p^b there, which
    gives p^(a + b)(i). Targets `[B, S]` are scored at every token.

    Args: symbols: S, places and values;  hops: k. One hop is a copy.
    Returns: `Task` with vocab_size = num_classes = max_len = symbols; chance is near 1 / symbols for few hops.
    Raises: ValueError for numbers below 1, or fewer than two symbols.
    """
    positive(hops=hops)
    if symbols < 2:
        raise ValueError(f"symbols={symbols}: wanted 2 or more, one place can only point to itself")

    def draw(size, generator):
        step = torch.randint(symbols, (size, symbols), generator=generator)  # [B, S]: p
        reached = step
        for _ in range(hops - 1):
            reached = step.gather(1, reached)  # p(p^j(i))
        return {"inputs": step, "targets": reached}

    facts = {"vocab_size": symbols, "num_classes": symbols, "max_len": symbols}
    about = f"follow a random map of {symbols} places for {hops} hops, from every place"
    return generated(
        "pointers", draw, batch_size=batch_size, test_size=test_size, seed=seed, description=about, **facts
    )
