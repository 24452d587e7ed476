"""Notebooks: each runs alone against the installed wheel, and what is stored in it is fit for a reader."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from refattn.authoring.heads import tags
from refattn.authoring.notebooks import CHECKED, REVEAL, problems, read

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
COPIES = sorted(ROOT.glob("notebooks/colab/*.ipynb"))
EXERCISES = sorted(ROOT.glob("exercises/*.ipynb"))
SOLUTIONS = sorted(ROOT.glob("exercises/solutions/*.ipynb"))
PREDICTION = re.compile(r"^guess\w* = None", re.MULTILINE)


def over(paths):
    """Parametrise a test over notebooks, named by their path."""
    return pytest.mark.parametrize("path", paths, ids=[path.relative_to(ROOT).as_posix() for path in paths])


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this tree, built offline from a copy so that no build folder is left behind."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "refattn", folder / "refattn", ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder / "out", folder)
    return next((folder / "out").glob("refattn-*.whl"))


@pytest.fixture(scope="session")
def wheel_site(wheel, tmp_path_factory):
    """A folder that holds the installed wheel; on PYTHONPATH it goes before the editable install."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--target", folder, wheel)
    return folder


def pip(command, *arguments):
    """Run pip without network and without dependencies."""
    line = [sys.executable, "-m", "pip", command, "--quiet", "--no-index", "--no-deps", *map(str, arguments)]
    result = subprocess.run(line, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("refattn/")}
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("refattn/**/*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name}


def run_alone(path, folder, wheel_site):
    """Run a copy of the notebook under nbval in an empty folder, with refattn imported from the wheel."""
    notebook = nbformat.from_dict(read(path))
    where = f"assert refattn.__file__.startswith({str(wheel_site)!r}), refattn.__file__"
    notebook.cells.append(new_code_cell(f"import refattn\n{where}", id="wheel"))
    nbformat.write(notebook, folder / path.name)
    hidden = {"PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PYTHONPATH": str(wheel_site), "OMP_NUM_THREADS": "1"}  # tests run side by side
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "--color=no"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *nbval, path.name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


@over(LESSONS + SOLUTIONS + EXERCISES)
def test_runs_alone_in_an_empty_folder_and_its_facts_are_those_stored(path, wheel_site, tmp_path):
    result = run_alone(path, tmp_path, wheel_site)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("source", "stored", "passes"),
    [
        ("print(6 * 7)", "42\n", True),
        ("print(6 * 7)", "43\n", False),  # a fact that is no longer what is stored
        ("open('notebooks/00_start_here.ipynb')\nprint(42)", "42\n", False),  # only there in the repository
    ],
)
def test_running_alone_can_fail(source, stored, passes, wheel_site, tmp_path):
    output = nbformat.v4.new_output("stream", name="stdout", text=stored)
    cell = new_code_cell(source, outputs=[output], execution_count=1, metadata={"tags": [CHECKED]})
    (tmp_path / "source").mkdir()
    (tmp_path / "empty").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "source" / "demo.ipynb")
    result = run_alone(tmp_path / "source" / "demo.ipynb", tmp_path / "empty", wheel_site)
    assert (result.returncode == 0) == passes, result.stdout


@over(LESSONS + SOLUTIONS + EXERCISES + COPIES)
def test_begins_with_badge_and_install(path):
    first, second = read(path).cells[:2]
    assert tags(first) == ["badge"] and tags(second) == ["install"]


@over(LESSONS + SOLUTIONS)
def test_stored_outputs_show_no_error_no_warning_and_no_address(path):
    assert problems(read(path)) == []


@over(LESSONS + SOLUTIONS)
def test_was_stored_after_a_complete_run(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count is not None for cell in cells), "python -m refattn.authoring run FILE"


@over([path for path in LESSONS if not path.name.startswith("00_")])
def test_lesson_asks_before_it_tells(path):
    cells = read(path).cells
    asked = [number for number, cell in enumerate(cells) if PREDICTION.search(cell.source)]
    told = [number for number, cell in enumerate(cells) if REVEAL in tags(cell)]
    assert len(asked) >= 3 and len(told) >= 3, "three predictions, and their reveals"
    assert asked[0] < len(cells) / 3, "the first prediction belongs to the hook"
    assert all(question < answer for question, answer in zip(asked, told, strict=False)), (
        "a reveal precedes its question"
    )


@over(LESSONS)
def test_lesson_fits_an_evening(path):
    cells = read(path).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    shown = [
        [line for line in cell.source.splitlines() if line.strip()]
        for cell in cells
        if cell.cell_type == "code" and not cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    assert len(cells) <= 57 and words <= 2800
    assert sum(map(len, shown)) <= 150 and max(map(len, shown)) <= 15


@over(LESSONS)
def test_lesson_has_its_copy_for_colab(path):
    assert path.parent / "colab" / path.name in COPIES


@over(SOLUTIONS)
def test_solution_has_its_learners_notebook(path):
    assert path.parents[1] / path.name in EXERCISES
