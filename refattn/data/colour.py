"""One coloured token among blanks: the smallest task that asks who can hear whom.

· · · · red · · · · · · ·   →   at the last position: red
"""

import torch

from refattn.data.task import IGNORED, Task, generator, positive

ASKED = ("last", "all")


def colour(*, length=64, num_colours=8, asked="last", batch_size=48, seed=0):
    """A sequence of blanks with one coloured token at a random position; which colour is it?

    Inputs are ids `[B, N]`: 0 is a blank, 1 … C are colours. Targets `[B, N]` are the colour, 0 … C − 1, at the
    positions that are asked. No positions are needed. The test holds every position with every colour once, N · C
    sequences: a position that cannot hear the coloured token gives one answer for all colours, and is right for one of
    C, so that a model that answers whatever it hears has an accuracy known beforehand, without sampling noise.

    Args: length, num_colours: N, C.  asked: "last" position only, or "all".
    Returns: `Task` with vocab_size C + 1; chance is 1 / C.
    Raises: ValueError for another word in `asked`, or numbers below 1.
    """
    positive(length=length, num_colours=num_colours, batch_size=batch_size)
    if asked not in ASKED:
        raise ValueError(f"asked={asked!r}: wanted one of {', '.join(ASKED)}")

    def sequences(places, colours):  # [B], [B]
        inputs = torch.zeros(len(places), length, dtype=torch.long)
        inputs.scatter_(1, places[:, None], colours[:, None] + 1)
        targets = colours[:, None].repeat(1, length)
        if asked == "last":
            targets[:, :-1] = IGNORED
        return {"inputs": inputs, "targets": targets}

    def batch(step):
        draw = {"size": (batch_size,), "generator": generator(seed, "train", step)}
        return sequences(torch.randint(length, **draw), torch.randint(num_colours, **draw))

    places, colours = torch.arange(length), torch.arange(num_colours)
    test = sequences(places.repeat_interleave(num_colours), colours.repeat(length))
    facts = {"vocab_size": num_colours + 1, "num_classes": num_colours, "max_len": length}
    about = f"name the colour (of {num_colours}) of the one token of {length} that is not blank"
    return Task("colour", batch, test, **facts, description=about)
