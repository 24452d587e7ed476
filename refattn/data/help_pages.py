"""Which of eight help pages of Python is this passage from? Real text, byte by byte, and a label for all of it."""

import hashlib
import platform

import torch

from refattn.data.task import generated, generator, positive

PAGES = ("specialnames", "compound", "types", "formatstrings", "string-methods", "typesseq", "debugger", "typesmapping")
BLOCK = 512  # characters; a passage lies within one block, and one block in five is for testing only


def help_pages(*, length=64, batch_size=32, test_size=1024, seed=0):
    """Passages of `length` bytes from `pydoc_data.topics`, all pages equally often, and the page's number as target.

    Words tell the pages apart, as in telling good reviews from bad ones; hardly any passage has all that is needed.
    The pages share hardly any text. Which blocks are for testing depends on the seed; a page repeats some phrases, so
    of passages of 32 bytes about 3 % occur in 4,800 for training, too. Bytes below 128 as ids `[B, length]`, others are
    dropped; the text differs between versions of Python: `description` names the version and its hash.

    Raises: ValueError for passages longer than a block.
    """
    from pydoc_data import topics

    positive(length=length)
    if length > BLOCK:
        raise ValueError(f"length={length}: wanted 1 … {BLOCK}")
    raw = [topics.topics[name].encode("ascii", "ignore") for name in PAGES]
    blocks = []  # of each page, [blocks, BLOCK]; what is left over at its end is dropped
    for page in raw:
        letters = torch.frombuffer(bytearray(page), dtype=torch.uint8).long()
        blocks.append(letters[: len(letters) // BLOCK * BLOCK].view(-1, BLOCK))
    orders = [torch.randperm(len(page), generator=generator(seed, "blocks", i)) for i, page in enumerate(blocks)]
    tests = [page[order[: len(page) // 5]] for page, order in zip(blocks, orders, strict=True)]
    trains = [page[order[len(page) // 5 :]] for page, order in zip(blocks, orders, strict=True)]

    def draw(source, size, draws):
        targets = torch.randint(len(PAGES), (size,), generator=draws)
        shares = torch.rand(2, size, generator=draws)
        counts = torch.tensor([len(page) for page in source])[targets]
        first = torch.tensor([0, *(len(page) for page in source[:-1])]).cumsum(0)[targets]
        block = first + (shares[0] * counts).long()
        start = (shares[1] * (BLOCK - length + 1)).long()
        inputs = torch.cat(source)[block[:, None], start[:, None] + torch.arange(length)]  # [B, length]
        return {"inputs": inputs, "targets": targets}

    facts = {"vocab_size": 128, "num_classes": len(PAGES), "max_len": length}
    version = ".".join(platform.python_version_tuple()[:2])
    whole = b"".join(raw)
    about = f"{len(PAGES)} help pages of Python {version}, {len(whole):,} characters"
    about += f", sha256 {hashlib.sha256(whole).hexdigest()[:8]}"
    options = {"batch_size": batch_size, "test_size": 1, "seed": seed, "description": about}
    task = generated("help_pages", lambda size, draws: draw(trains, size, draws), **options, **facts)
    task.test.update(draw(tests, test_size, generator(seed, "test")))
    return task
