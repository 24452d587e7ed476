"""Sequence to sequence, character by character, on real data: how two languages write the same date, country or name.

The data are the Unicode Consortium's (CLDR), as Babel brings them; Babel comes with JupyterLab.

    Mar 5, 1974  →  05.03.1974          (English to German, medium dates)
    Cameroon     →  Kamerun             (territories)
"""

import hashlib
from datetime import date, timedelta
from functools import lru_cache

import torch

from refattn.data.task import IGNORED, from_arrays, positive

PAD, START, END = 0, 1, 2  # ids before those of characters
KINDS = ("dates", "territories", "languages")
FIRST_DAY, LAST_DAY, EVERY = date(1950, 1, 1), date(2049, 12, 31), 3  # every third day is enough
STYLES = ("short", "medium", "long", "full")


def cldr(
    *,
    kind="dates",
    source="en",
    target="de",
    style="medium",
    target_style=None,
    test_share=0.1,
    batch_size=64,
    test_size=512,
    seed=0,
):
    """Write in the target language what is written in the source language.

    A batch: "inputs", ids of source characters [B, S]; "target", the start and the characters so far [B, T]; "targets",
    the same one place on, with the end [B, T], padding not scored. All batches are padded, by `PAD`, to one S and T.
    An example is in the test part if the hash of its *source* says so, whatever the seed is: a source with two targets
    is never on both sides.

    Args:
        kind: "dates" (every third day of a century), "territories" or "languages" (some hundreds of names each).
        source, target: languages, as Babel names them.  style, target_style: of dates, one of `STYLES`.
        test_share: of all examples.  test_size: examples of `task.test`, at most.  seed: of the order in training.

    Returns: `Task` with vocab_size = num_classes: one id a character of either language, and `PAD`, `START`, `END`. Its
        description names the versions of Babel and of the data, and their hash.
    Raises: ValueError where Babel is missing, or for options that do not fit.
    """
    positive(batch_size=batch_size, test_size=test_size)
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share={test_share}: wanted a share between 0 and 1")
    pairs = pairs_of(kind, source, target, style, target_style)
    train, test = halves(pairs, test_share, test_size)
    size = END + 1 + len(letters(pairs))
    return from_arrays(
        "cldr",
        train,
        dict(test),
        batch_size=min(batch_size, len(train["targets"])),
        seed=seed,
        vocab_size=size,
        num_classes=size,
        max_len=max(train["inputs"].shape[1], train["targets"].shape[1]),
        description=f"{kind} from {source} to {target}, {len(pairs):,} pairs, {provenance(pairs)}",
    )


@lru_cache(maxsize=8)
def halves(pairs, test_share, test_size):
    """All training examples, and test_size test examples at most, as batches."""
    held_out = [is_test(source, test_share) for source, _ in pairs]
    train = [pair for pair, held in zip(pairs, held_out, strict=True) if not held]
    test = [pair for pair, held in zip(pairs, held_out, strict=True) if held]
    if not train or not test:
        raise ValueError(f"test_share={test_share} of {len(pairs)} examples leaves one side empty")
    test = sorted(test, key=lambda pair: position(pair[0]))[:test_size]  # by their hashes: a sample in no order
    ids = {letter: number for number, letter in enumerate(letters(pairs), END + 1)}
    lengths = [max(len(pair[side]) for pair in pairs) for side in (0, 1)]
    return encode(train, ids, lengths), encode(test, ids, lengths)


@lru_cache(maxsize=8)
def pairs_of(kind="dates", source="en", target="de", style="medium", target_style=None):
    """Sorted ((source, target), …) as texts, each pair once; arguments as those of `cldr`."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: wanted one of {', '.join(KINDS)}")
    styles = (style, target_style or style)
    for asked in styles:
        if asked not in STYLES:
            raise ValueError(f"style={asked!r}: wanted one of {', '.join(STYLES)}")
    locales = locale(source), locale(target)
    if kind == "dates":
        days = [FIRST_DAY + timedelta(days=n) for n in range(0, (LAST_DAY - FIRST_DAY).days + 1, EVERY)]
        sides = [dates(days, where, asked) for where, asked in zip(locales, styles, strict=True)]
    else:
        names = [getattr(where, kind) for where in locales]
        both = [code for code in names[0] if code in names[1] and not code.isdigit()]  # countries, no continents
        sides = [[str(table[code]) for code in both] for table in names]
    return tuple(sorted({(a, b) for a, b in zip(*sides, strict=True) if a and b}))


def letters(pairs):
    """Every character of some pairs, in order; ids begin at `END` + 1."""
    return "".join(sorted({letter for a, b in pairs for letter in a + b}))


def to_text(ids, known):
    """Ids as text, up to the end: the inverse of `encode`. known: `letters` of the task's pairs."""
    text = ""
    for number in ids:
        if number == END:
            break
        text += known[number - END - 1] if number > END else ""
    return text


def dates(days, where, style):
    """Days as a language writes them, with plain spaces."""
    from babel.dates import format_date

    return [" ".join(format_date(day, style, locale=where).split()) for day in days]


def locale(language):
    """Babel's locale. Raises: ValueError where Babel is missing, or does not know the language."""
    try:
        from babel import Locale, UnknownLocaleError
    except ImportError:
        raise ValueError("this task reads the data of Babel, which is missing here: pip install babel") from None
    try:
        return Locale.parse(language)
    except (UnknownLocaleError, ValueError) as error:
        raise ValueError(f"language={language!r}: {error}") from None


def position(text):
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def is_test(source, share):
    """Whether an example belongs to the test part: by its source's hash."""
    return position(source) < share


def encode(pairs, ids, lengths):
    """Strings as a batch; see `cldr`."""

    def padded(rows, length):
        return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])

    sources, targets = ([[ids[c] for c in pair[side]] for pair in pairs] for side in (0, 1))
    scored = padded([[*row, END] for row in targets], lengths[1] + 1)
    return {
        "inputs": padded(sources, lengths[0]),
        "target": padded([[START, *row] for row in targets], lengths[1] + 1),
        "targets": scored.masked_fill(scored == PAD, IGNORED),
    }


def provenance(pairs):
    """Versions of Babel and of the data's content."""
    import babel

    digest = hashlib.sha256("\n".join(f"{a}\t{b}" for a, b in pairs).encode()).hexdigest()[:8]
    return f"Babel {babel.__version__}, sha256 {digest}"
