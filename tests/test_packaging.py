"""What a stranger's machine meets first: the Makefile, the environment; and files kept in step."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml  # comes with JupyterLab

import refattn
from refattn.authoring.metadata import CONDA_NAMES, read_pins
from refattn.authoring.project import read_project
from refattn.authoring.sync import sync

ROOT = Path(__file__).parents[1]
PROJECT = read_project(ROOT)


def version(words):
    return tuple(int(number) for number in words.split(".") if number.isdigit())


def make(*arguments, path=os.environ["PATH"], **variables):
    """Run make as from a fresh shell. Returns: the completed process."""
    kept = {"PATH": path, "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=kept, capture_output=True, text=True)


def test_everything_generated_is_in_step():
    assert sync(ROOT, check=True) == [], "run `make sync`"


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT.version == refattn.__version__ == str(citation["version"])
    assert citation["repository-code"] == PROJECT.repository


def test_environment_for_conda_has_every_dependency_at_its_bound():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    wanted = {f"{CONDA_NAMES.get(name, name)}>={version}" for name, version in PROJECT.bounds.items()}
    assert wanted | {f"python{PROJECT.python}", "pip"} == {line for line in listed if isinstance(line, str)}


def test_constraints_pin_every_dependency_within_its_bound():
    pins = read_pins(ROOT / "constraints.txt")
    for name, lowest in PROJECT.bounds.items():
        assert version(pins[name]) >= version(lowest), name


def test_constraints_name_versions_only():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if "@" in line or "+" in line or "/" in line or line.startswith("-")]


def test_the_repositorys_address_stands_in_pyproject_alone():
    generated = {"README.md", "CITATION.cff"}
    for path in [*ROOT.glob("*"), *ROOT.glob("refattn/**/*.py")]:
        if path.is_file() and path.name not in generated | {"pyproject.toml"}:
            assert PROJECT.github not in path.read_text(encoding="utf-8", errors="ignore"), path


def test_readme_names_the_repository_by_the_address_in_pyproject():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    clones = re.findall(r"git clone (\S+)", readme)
    assert clones and set(clones) == {PROJECT.repository}


def test_readme_has_the_generated_blocks():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- generated: {name} -->" in readme for name in ("badges", "papers", "bench"))


def test_extras_are_few_and_dev_has_all():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(table["optional-dependencies"]) == {"notebooks", "dev", "peers", "uea"}
    assert "refattn[notebooks]" in table["optional-dependencies"]["dev"]


@pytest.mark.parametrize(
    ("screen", "browser"), [({}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "wayland-0"}, True)]
)
def test_learn_opens_a_browser_only_where_there_is_a_screen(screen, browser):
    commands = make("--dry-run", "learn", **screen).stdout
    assert "jupyter lab --ip=localhost" in commands and "notebooks/00_start_here.ipynb" in commands
    assert ("--no-browser" not in commands) == browser


def test_help_is_the_default_and_names_every_target():
    shown = make().stdout
    for target in ("learn", "test", "lint", "format", "sync", "test-lower-bounds", "peers", "clean", "help"):
        assert f"  make {target} " in shown


def fake_python(folder, name, exit_code):
    """An interpreter for the Makefile's probe to meet: 3 = too old, 4 = without venv."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("pythons", "message"),
    [
        ({}, "no Python 3.11 or newer found"),
        ({"python3": 3}, "no Python 3.11 or newer found"),
        ({"python3": 3, "python3.12": 4}, "python3.12 has no venv module"),
    ],
)
def test_without_a_suitable_python_make_says_so_in_one_line(tmp_path, pythons, message):
    for tool in ("make", "sh", "uname", "test", "echo"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for name, exit_code in pythons.items():
        fake_python(tmp_path, name, exit_code)
    result = make("test", f"VENV={tmp_path / 'venv'}", path=str(tmp_path))
    said = [line for line in result.stderr.splitlines() if "***" not in line]
    assert result.returncode != 0 and len(said) == 1 and message in said[0]


def test_a_suitable_python_is_taken_even_if_it_is_not_the_first(tmp_path):
    fake_python(tmp_path, "python3", 3)
    fake_python(tmp_path, "python3.13", 0)
    (tmp_path / "python3.13").write_text(f'#!/bin/sh\ntest "$1" = -c || echo "$@" > {tmp_path}/called\n')
    make("test", f"VENV={tmp_path / 'venv'}", path=f"{tmp_path}:/usr/bin:/bin")
    assert (tmp_path / "called").read_text() == f"-m venv {tmp_path / 'venv'}\n"
