"""JSON files that always hold a whole value, and are short enough to be read and compared line by line."""

import json
import math
import os
import re
from pathlib import Path


def write_json(path, value):
    """Write a value under a name that always holds a whole file, with lists of numbers on one line."""
    text = json.dumps(finite(value), indent=1, allow_nan=False, ensure_ascii=False)
    text = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s*\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def finite(value):
    """The same value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
