"""Learner's notebooks from solutions: exercises/solutions/NN_name.ipynb is the one source of exercises/NN_name.ipynb.

In a code cell of the solution,

    def pack(queries, keys):
        ### solution
        ### stub: weights = ...  # softmax over which axis?
        ### stub: return None
        return (queries @ keys.mT).softmax(-1)
        ### end

becomes

    def pack(queries, keys):
        weights = ...  # softmax over which axis?
        return None

Without a `### stub:` line the stub is `...  # your code here`. Cells tagged "solution-only" are left out, and so are
all outputs.
"""

import ast

from refattn.authoring.heads import tags
from refattn.authoring.notebooks import CHECKED

BEGIN, STUB, END = "### solution", "### stub:", "### end"
DEFAULT_STUB = "...  # your code here"


def learners_copy(notebook):
    """The learner's notebook. Raises: ValueError naming the cell with unpaired markers or a stub that is no Python."""
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        if "solution-only" in tags(cell):
            continue
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        try:
            source = with_stubs(cell["source"])
        except ValueError as error:
            raise ValueError(f"cell {number}: {error}") from None
        kept = {"tags": [tag for tag in tags(cell) if tag != CHECKED]}  # what a stub prints is not the solution's
        metadata = {**cell["metadata"], **kept}
        cells.append({**cell, "source": source, "metadata": metadata, "outputs": [], "execution_count": None})
    return {**notebook, "cells": cells}


def with_stubs(source):
    """The source of a code cell with its solution regions replaced by their stubs."""
    lines, stub, indent = [], None, ""  # stub: lines collected since BEGIN, None outside a region
    for line in source.splitlines():
        word = line.strip()
        if word == BEGIN:
            if stub is not None:
                raise ValueError(f"{BEGIN!r} inside a region that no {END!r} has closed")
            stub, indent = [], line[: line.index("#")]
        elif word == END:
            if stub is None:
                raise ValueError(f"{END!r} without {BEGIN!r}")
            lines += [indent + text for text in stub or [DEFAULT_STUB]]
            stub = None
        elif word.startswith(STUB):
            if stub is None:
                raise ValueError(f"{STUB!r} outside a region: it belongs between {BEGIN!r} and {END!r}")
            stub.append(line.split(STUB)[1].removeprefix(" "))
        elif stub is None:
            lines.append(line)
    if stub is not None:
        raise ValueError(f"{BEGIN!r} without {END!r}")
    stubbed = "\n".join(lines)
    if stubbed != source.rstrip("\n"):
        check_python(stubbed)
    return stubbed


def check_python(source):
    """Raise ValueError unless the source is Python; lines for IPython (% and !) are left aside."""
    python = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.splitlines())
    try:
        ast.parse(python)
    except SyntaxError as error:
        raise ValueError(f"the stub is not valid Python, line {error.lineno}: {error.msg}") from None
