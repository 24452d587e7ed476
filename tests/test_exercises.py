"""Exercise notebooks: each lesson's checks in their order, learners' copies that give nothing away, and the runner."""

import os
import re
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from refattn import catalog, checks
from refattn.authoring.exercises import BEGIN, END, STUB, learners_copy
from refattn.authoring.heads import tags
from refattn.authoring.notebooks import CHECKED, read
from refattn.checks.run import execute, rows, run_notebook

ROOT = Path(__file__).parents[1]
SOLUTIONS = sorted(ROOT.glob("exercises/solutions/*.ipynb"))
FOLDERS = {number: import_module(f"refattn.checks.{name}") for number, name in checks.LESSONS.items()}

notebooks = pytest.mark.parametrize("path", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])


def exercises_of(path):
    return FOLDERS[int(path.name[:2])].EXERCISES


def test_each_lesson_with_checks_has_its_notebook():
    assert {int(path.name[:2]) for path in SOLUTIONS} == set(checks.LESSONS)
    assert {path.stem for path in SOLUTIONS} <= {entry.file for entry in catalog.LESSONS}


@notebooks
def test_every_exercise_of_the_lesson_is_checked_in_order(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    checked = [(found[1], cell) for cell in code if (found := re.search(r"^check\.(\w+)\(", cell.source, re.MULTILINE))]
    assert [name for name, _ in checked] == [exercise.short for exercise in exercises_of(path)]
    assert all(CHECKED in tags(cell) for _, cell in checked)
    assert code[-1].source == "summary()"


def regions(notebook):
    """Lines of the solution regions of a notebook, and those of their stubs."""
    solved, stubs = set(), set()
    for cell in notebook.cells:
        inside = False
        for line in map(str.strip, cell.source.splitlines()):
            inside = (inside or line == BEGIN) and line != END
            if line.startswith(STUB):
                stubs.add(line.removeprefix(STUB).strip())
            elif inside and line != BEGIN:
                solved.add(line)
    return solved, stubs


@notebooks
def test_the_learners_notebook_gives_nothing_away(path):
    solution = read(path)
    copy = nbformat.from_dict(learners_copy(solution))
    solved, stubs = regions(solution)
    secret = {line for line in solved - stubs if len(line) > 8}
    code = {line.strip() for cell in copy.cells if cell.cell_type == "code" for line in cell.source.splitlines()}
    prose = "\n".join(cell.source for cell in copy.cells if cell.cell_type != "code")
    assert secret and not secret & code
    assert not {line for line in secret if len(line) > 20 and line in prose}
    assert not any(marker in line for line in code for marker in (BEGIN, STUB, END))
    assert not any(cell.get("outputs") or "solution-only" in tags(cell) for cell in copy.cells)


@notebooks
def test_the_learners_notebook_runs_to_the_end_with_nothing_passed(path, tmp_path):
    nbformat.write(nbformat.from_dict(learners_copy(read(path))), tmp_path / path.name)
    found, executed = execute(tmp_path / path.name)
    assert [row["exercise"] for row in found] == [exercise.name for exercise in exercises_of(path)]
    assert not any(row["passed"] for row in found)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output.evalue for output in outputs if output.output_type == "error"] == []


def test_an_exercise_whose_check_did_not_run_is_untouched():
    checks.forget()  # other tests of this process have attempted exercises too
    lesson = FOLDERS[1]
    lesson.attend(lesson.attend.answer)
    found = rows({"check": lesson, "re": re})
    assert [row["exercise"] for row in found] == [exercise.name for exercise in lesson.EXERCISES]
    assert [row["exercise"] for row in found if row["passed"]] == ["softmax.attend"]
    assert {row["stage"] for row in found if not row["passed"]} == {"untouched"}
    assert rows({}) == checks.report()


def write_notebook(path, *sources):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def test_a_notebook_runs_in_an_empty_folder_and_goes_on_after_an_error(tmp_path):
    sources = (
        "import os\nassert os.listdir() == []\nfrom refattn.checks import softmax as check",
        "1 / 0",
        "check.map_size(512, 'c')",
        "check.logit_spread(nowhere)",
    )
    path = write_notebook(tmp_path / "some.ipynb", *sources)
    before = path.read_text()
    stages = {row["exercise"]: row["stage"] for row in run_notebook(path)}
    assert stages.pop("softmax.map_size") == "passed" and set(stages.values()) == {"untouched"}
    assert path.read_text() == before


def test_a_kernel_that_dies_is_an_error_in_one_line(tmp_path):
    path = write_notebook(tmp_path / "dies.ipynb", "import os\nos._exit(1)")
    with pytest.raises(ValueError, match=r"dies.ipynb: its kernel died; .*\?$"):
        run_notebook(path)


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl-C there")
def test_ctrl_c_stops_the_kernel_too(tmp_path):
    note = tmp_path / "pid"
    path = write_notebook(
        tmp_path / "long.ipynb",
        f"import os, pathlib, time\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))\ntime.sleep(60)",
    )

    def press():
        while not (note.exists() and note.read_text()):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest-xdist may ignore it
    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run_notebook(path)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_what_is_no_notebook_is_an_error_in_one_line(tmp_path):
    (tmp_path / "empty.ipynb").write_text("")
    with pytest.raises(ValueError, match="empty.ipynb is not a notebook"):
        run_notebook(tmp_path / "empty.ipynb")
    with pytest.raises(ValueError, match="there is no such notebook"):
        run_notebook(tmp_path / "missing.ipynb")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbclient", None)
    with pytest.raises(ValueError, match=r"pip install 'refattn\[notebooks\]'.*nbclient"):
        run_notebook(tmp_path / "any.ipynb")
