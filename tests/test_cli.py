"""The command line as a stranger meets it: what is printed, the exit code, and each error in one line on stderr."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import refattn.checks.run
from refattn import catalog, reproduce
from refattn.__main__ import main


@pytest.fixture
def cli(capsys):
    """Runs a command in this process. Returns: exit code, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse ends the process itself
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def blocked(tmp_path):
    """A path below a file: nobody can write there, not even root."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


def write_notebook(folder, name, *sources):
    folder.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), folder / f"{name}.ipynb")


# ---- Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, code, says",
    [
        ("", 2, "required: COMMAND"),
        ("train", 2, "invalid choice: 'train'"),
        ("reproduce", 2, "required: SLUG"),
        ("reproduce nothing", 1, "slug='nothing': wanted one of "),
        ("reproduce swiftpruner", 1, "SwiftPruner has no experiment yet"),
        ("reproduce luna --budget huge", 1, "budget='huge': wanted one of demo, quick, colab, study"),
        ("reproduce luna --workers -1", 1, "workers=-1: wanted 0 or more"),
        ("reproduce luna --dry --record", 1, "--record with --dry"),
        ("bench --lengths 64 0", 1, "wanted 1 or more"),
        ("bench --lengths many", 2, "invalid int value: 'many'"),
        ("bench --rounds 0", 1, "wanted 1 or more"),
        ("bench --names nothing --lengths 8", 1, "'nothing': wanted one of "),
        ("bench --names softmax --lengths 8 --dim 7 --heads 2", 1, "embed_dim=7"),
        ("bench --lengths 8 --device toaster", 1, "toaster"),
        ("check --folder nowhere", 1, "no NN_name.ipynb in nowhere"),
    ],
)
def test_an_error_is_one_line_on_stderr(command, code, says, cli):
    found, _, err = cli(*command.split())
    assert found == code and says in err, err
    assert err.startswith(("refattn: ", "python -m refattn")) and err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize(
    "command", ["reproduce luna --dry --workers 0 --out", "bench --names softmax --lengths 8 --forward --out"]
)
def test_a_place_that_cannot_be_written_is_said_before_any_work(command, blocked, cli):
    code, out, err = cli(*command.split(), blocked / "result.json")
    assert code == 1 and str(blocked.parent) in err and err.count("\n") == 1 and out == ""


@pytest.mark.parametrize("stop, says", [(KeyboardInterrupt(), "stopped"), (KeyboardInterrupt("go on with …"), "go on")])
def test_ctrl_c_says_what_stands_and_exits_with_130(stop, says, cli, monkeypatch):
    def stopped(*args, **kwargs):
        raise stop

    monkeypatch.setattr(reproduce, "run", stopped)
    code, _, err = cli("reproduce", "luna")
    assert code == 130 and err.startswith(f"refattn: {says}") and err.count("\n") == 1


def test_a_reader_who_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "refattn", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == "" and process.wait(timeout=60) == 1


# ---- What the commands do -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes(cli):
    code, out, _ = cli("--help")
    assert code == 0 and all(word in out for word in ("list", "reproduce", "bench", "check", "Exit codes"))


def test_list_shows_every_record_and_its_verdicts(cli):
    code, out, err = cli("list")
    head, *lines = out.splitlines()
    assert (code, err) == (0, "") and head.split()[0] == "slug"
    assert [line.split()[0] for line in lines] == [record.slug for record in catalog.RECORDS]
    for line, record in zip(lines, catalog.RECORDS, strict=True):
        assert record.name in line and line.endswith(reproduce.summary(record.slug) or "–")


def test_reproduce_runs_dry_and_says_that_its_numbers_mean_nothing(cli, tmp_path):
    code, out, err = cli("reproduce", "luna", "--dry", "--workers", 0, "--out", tmp_path)
    assert code == 0 and "dry run: these numbers mean nothing" in out
    path = tmp_path / "luna-demo-dry" / "result.json"
    result = json.loads(path.read_text())
    assert str(path) in out and path.with_name("claims.png").exists()
    assert result["claims"] and all(reproduce.line(claim) in out for claim in result["claims"])


def test_bench_writes_its_numbers_and_a_picture(cli, tmp_path):
    path = tmp_path / "new" / "bench.json"
    code, out, _ = cli("bench", "--names", "linear", "--lengths", 8, 16, "--forward", "--rounds", 1, "--out", path)
    assert code == 0 and str(path) in out and path.with_suffix(".png").exists()
    rows = json.loads(path.read_text())["rows"]
    assert {row["mechanism"] for row in rows} == {"softmax", "linear"} and {row["n"] for row in rows} == {8, 16}


def test_check_tells_passed_from_not_passed(cli, tmp_path):
    given = "from refattn.checks.softmax import map_size as check"
    write_notebook(tmp_path, "01_one", given, "check(512, 'c')")
    write_notebook(tmp_path, "02_two", given, "check(512, 'c')", "check(512, 'a')", "a cell that fails")
    code, out, _ = cli("check", "1", "--folder", tmp_path)
    assert code == 0 and out.splitlines()[1].split() == ["✓", "softmax.map_size", "passed"]
    code, out, _ = cli("check", "two", "--folder", tmp_path)
    assert code == 1 and out.splitlines()[1].split() == ["◐", "softmax.map_size", "property"]


ROWS = {
    "all": [{"mark": "✓", "exercise": "a.b", "stage": "passed", "passed": True, "message": ""}],
    "some": [{"mark": "✗", "exercise": "a.b", "stage": "shape", "passed": False, "message": ""}],
    "none": [],
}


@pytest.mark.parametrize("found, code", [("all all", 0), ("all some", 1), ("none all", 1), ("none none", 1)])
def test_check_passes_only_if_every_notebook_does(found, code, cli, tmp_path, monkeypatch):
    rows = iter(found.split())
    monkeypatch.setattr(refattn.checks.run, "run_notebook", lambda path: ROWS[next(rows)])
    write_notebook(tmp_path, "03_a")
    write_notebook(tmp_path, "04_b")
    write_notebook(tmp_path, "scratch")  # no exercises by its name
    assert cli("check", "--folder", tmp_path)[0] == code
    assert next(rows, None) is None, "each notebook was run"


@pytest.mark.parametrize("asked, ran", [("3", "03_a"), ("03", "03_a"), ("b", "04_b"), ("04_b", "04_b")])
def test_check_finds_a_notebook_by_number_or_name(asked, ran, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(refattn.checks.run, "run_notebook", lambda path: ROWS["all"])
    for name in ("03_a", "04_b"):
        write_notebook(tmp_path, name)
    code, out, _ = cli("check", asked, "--folder", tmp_path)
    assert code == 0 and out.splitlines()[0] == str(tmp_path / f"{ran}.ipynb") and out.count(os.linesep) == 2


def test_check_names_what_it_knows_instead_of_what_it_does_not(cli, tmp_path):
    write_notebook(tmp_path, "03_a")
    code, _, err = cli("check", "99", "--folder", tmp_path)
    assert code == 1 and err == "refattn: no exercises '99': wanted some of 03_a\n"
    code, _, err = cli("check", "3", "--folder", tmp_path / "nothing")
    assert code == 1 and "name their --folder" in err
