"""English text that every Python brings along: the help pages of `pydoc_data.topics`, for small language models."""

import hashlib
import platform

import torch

from refattn.data.task import generated

TEST_SHARE = 0.1  # of the text, its end


def text(*, length=128, batch_size=32, test_size=64, seed=0):
    """Next-character prediction on windows of `length` bytes; the last tenth of the text is for testing only.

    Inputs and targets: bytes below 128 as ids `[B, length]` (others are dropped). The text differs between versions of
    Python: `description` names the version and the text's hash.

    Raises: ValueError for windows longer than the test part.
    """
    from pydoc_data import topics

    pages = "\n".join(topics.topics[key] for key in sorted(topics.topics)).encode("ascii", "ignore")
    letters = torch.frombuffer(bytearray(pages), dtype=torch.uint8).long()
    border = int(len(letters) * (1 - TEST_SHARE))
    train, test = letters[:border], letters[border:]
    if not 1 <= length < len(test):
        raise ValueError(f"length={length}: wanted 1 … {len(test) - 1}")

    def windows(source, size, generator):
        starts = torch.randint(len(source) - length, (size,), generator=generator)
        cut = source[starts[:, None] + torch.arange(length + 1)]  # [B, length + 1]
        return {"inputs": cut[:, :-1], "targets": cut[:, 1:]}

    def draw(size, generator):
        return windows(train, size, generator)

    facts = {"vocab_size": 128, "num_classes": 128, "max_len": length}
    version = ".".join(platform.python_version_tuple()[:2])
    about = f"help pages of Python {version}, {len(pages):,} characters, sha256 {hashlib.sha256(pages).hexdigest()[:8]}"
    task = generated("text", draw, batch_size=batch_size, test_size=1, seed=seed, description=about, **facts)
    evenly = torch.linspace(0, len(test) - length - 1, test_size).long()  # the whole test part, not a random sample
    cut = test[evenly[:, None] + torch.arange(length + 1)]
    task.test.update({"inputs": cut[:, :-1], "targets": cut[:, 1:]})
    return task
