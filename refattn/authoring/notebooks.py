"""Notebook files: read, tidy so that diffs stay small, write, and say what is wrong with stored outputs."""

import hashlib
import re

from refattn.authoring.heads import tags

WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = ("tags", "jupyter", "editable", "deletable")  # of a cell; the rest is what front ends leave behind
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
CHECKED, REVEAL = "nbval-check-output", "reveal"  # tags: output compared by the tests; output hidden in Colab's copy


def read(path):
    """The notebook of a file, of whatever minor version. Raises: ValueError if the file is none."""
    import nbformat

    if not path.is_file():
        raise ValueError(f"{path}: there is no such notebook")
    try:
        return nbformat.v4.reads(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook of format 4: {error}") from None


def text(notebook):
    """The file's text: tidy, valid, the same on every machine."""
    import nbformat

    notebook = nbformat.from_dict(tidy(notebook))
    nbformat.validate(notebook)
    return nbformat.v4.writes(notebook).rstrip("\n") + "\n"


def tidy(notebook):
    """A copy without what changes from run to run: ids, counts and metadata depend on the cells' content alone."""
    cells = [tidy_cell(cell) for cell in notebook["cells"]]
    used = set()
    for cell in cells:
        cell["id"] = unique_id(cell, used)
    executed = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(executed, 1):
        if cell["outputs"] or cell["execution_count"] is not None:  # nbval checks nothing where the count is missing
            cell["execution_count"] = number
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = number
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def tidy_cell(cell):
    """A copy of one cell, without an id."""
    kept = {key: value for key, value in cell["metadata"].items() if key in KEPT_METADATA and value}
    new = {"cell_type": cell["cell_type"], "metadata": kept, "source": cell["source"].rstrip()}
    if cell.get("attachments"):
        new["attachments"] = cell["attachments"]
    if cell["cell_type"] == "code":
        new["execution_count"] = cell.get("execution_count")
        new["outputs"] = tidy_outputs(cell.get("outputs", []))
    return new


def tidy_outputs(outputs):
    """Adjacent pieces of one stream joined; widgets left out, since without their kernel they show an error."""
    new = []
    for output in map(dict, outputs):
        data = dict(output.get("data", {}))
        if data.pop(WIDGET, None) is not None:
            if set(data) <= {"text/plain"}:
                continue
            output["data"] = data
        if output["output_type"] == "stream" and new and new[-1].get("name") == output["name"]:
            new[-1]["text"] += output["text"]
        else:
            new.append(output)
    return new


def unique_id(cell, used):
    """An id made of the cell's text, so that inserting or moving cells changes no other; adds it to `used`."""
    digest = hashlib.sha256(f"{cell['cell_type']}\n{cell['source']}".encode()).hexdigest()[:10]
    name, repeat = digest, 1
    while name in used:
        repeat += 1
        name = f"{digest}-{repeat}"
    used.add(name)
    return name


def without_reveals(notebook):
    """The copy for Colab: cells tagged "reveal" have lost their outputs, so that a reader can predict first."""
    cells = []
    for cell in notebook["cells"]:
        hidden = {"outputs": [], "execution_count": None} if REVEAL in tags(cell) else {}
        cells.append({**cell, **hidden})
    return {**notebook, "cells": cells}


def problems(notebook):
    """Sentences, one for each thing in the stored outputs that a reader should not meet."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        where = f"cell {number} ({cell['source'].strip().splitlines()[0] if cell['source'].strip() else 'empty'})"
        for output in cell["outputs"]:
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output["output_type"] == "error" and "raises-exception" not in tags(cell):
                found.append(f"{where} ends in an error: {output['ename']}: {output['evalue']}")
            if output.get("name") == "stderr":
                found.append(f"{where} writes to stderr: {shown.strip()[:300]}")
            if ADDRESS.search(shown):
                found.append(f"{where} shows a memory address: {shown.strip()[:80]}")
        if CHECKED in tags(cell) and not cell["outputs"]:
            found.append(f"{where} is tagged {CHECKED!r}, but has no stored output to compare with")
    return found
