"""Repeated segments: noise that comes round again and again. Who finds where it was heard before can go on.

c a f b d a │ c a f b d a │ c a f …        after "c a" has been heard twice, "f" can be known
"""

import torch

from refattn.data.task import IGNORED, Task, generator, positive

ASKED = ("repeats", "first", "all")


def ngrams(
    *,
    length=32,
    num_symbols=12,
    least=6,
    most=14,
    asked="repeats",
    tested=None,
    batch_size=32,
    test_size=256,
    seed=0,
):
    """Next-token prediction on a random segment of least … most symbols, repeated to the end of the sequence.

    Inputs are ids `[B, length]`, targets the next ids. Asked are positions once the segment has begun to repeat
    ("repeats"), the targets inside the first round, which nobody can know ("first": accuracy beyond 1 / num_symbols is
    a leak from the future), or "all".

    Args: asked: what is scored in training.  tested: in the test, as in training unless given.
    Returns: `Task` with vocab_size = num_classes = num_symbols.
    Raises: ValueError for numbers below 1, segments that do not fit, or another `asked`.
    """
    tested = asked if tested is None else tested
    positive(length=length, num_symbols=num_symbols, least=least, batch_size=batch_size, test_size=test_size)
    if not least <= most < length:
        raise ValueError(f"least={least}, most={most}, length={length}: wanted least ≤ most < length")
    for name, value in (("asked", asked), ("tested", tested)):
        if value not in ASKED:
            raise ValueError(f"{name}={value!r}: wanted one of {', '.join(ASKED)}")
    place = torch.arange(length + 1)[None]  # one more than the inputs: the last target

    def draw(size, generator, scored):
        period = torch.randint(least, most + 1, (size, 1), generator=generator)
        segment = torch.randint(num_symbols, (size, most), generator=generator)
        tokens = segment.gather(1, place % period)  # [B, length + 1]
        heard = place[:, :-1] >= period  # the token read here stood one period before
        first = place[:, 1:] < period  # the target lies in the first round
        keep = {"repeats": heard, "first": first, "all": torch.ones_like(heard)}[scored]
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:].masked_fill(~keep, IGNORED)}

    return Task(
        "ngrams",
        lambda step: draw(batch_size, generator(seed, "train", step), asked),
        draw(test_size, generator(seed, "test"), tested),
        vocab_size=num_symbols,
        num_classes=num_symbols,
        max_len=length,
        description=f"a segment of {least} to {most} symbols (of {num_symbols}), again and again",
    )
