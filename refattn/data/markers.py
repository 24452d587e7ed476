"""The latest marker: noise, now and then a marker, and at every position the question which one came last.

· B · · · A · ·     targets: B B B B B A A A     (position 0 always holds a marker)
"""

import torch

from refattn.data.task import IGNORED, Task, generator, positive

KINDS = 2  # of markers; ids 0 and 1, noise is what follows


def markers(*, length=64, num_noise=6, rate=0.1, beyond=None, batch_size=32, test_size=512, seed=0):
    """Ids `[B, N]`: markers 0 and 1 with probability `rate`, else one of `num_noise` others; targets are markers.

    Made for memories that overwrite, such as a moving average: the newest counts and all else is to be forgotten. In
    training every position is scored.

    Args: beyond: c; the test scores only positions whose latest marker stands in an earlier chunk of c tokens, so that
        who sees a chunk alone can but guess. None: it scores all.
    Returns: `Task` with vocab_size = num_noise + 2; chance is 1 / 2.
    Raises: ValueError for numbers below 1, or a rate outside (0, 1).
    """
    positive(length=length, num_noise=num_noise, beyond=1 if beyond is None else beyond, batch_size=batch_size)
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate={rate}: wanted a probability between 0 and 1")
    place = torch.arange(length)

    def draw(size, generator):
        is_marker = torch.rand(size, length, generator=generator) < rate
        is_marker[:, 0] = True
        kinds = torch.randint(KINDS, (size, length), generator=generator)
        noise = torch.randint(KINDS, KINDS + num_noise, (size, length), generator=generator)
        latest = torch.where(is_marker, place, 0).cummax(1).values  # where the last marker so far stands
        return {"inputs": torch.where(is_marker, kinds, noise), "targets": kinds.gather(1, latest)}, latest

    test, latest = draw(test_size, generator(seed, "test"))
    if beyond is not None:
        test["targets"] = test["targets"].masked_fill(latest // beyond == place // beyond, IGNORED)
    facts = {"vocab_size": KINDS + num_noise, "num_classes": KINDS, "max_len": length}
    about = "which marker came last" + ("" if beyond is None else f", where it is beyond a border of {beyond}")
    return Task(
        "markers", lambda step: draw(batch_size, generator(seed, "train", step))[0], test, **facts, description=about
    )
