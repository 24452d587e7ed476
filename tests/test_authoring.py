"""The authors' tool: what it generates, that it can be repeated, and that it refuses malformed sources in one line."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from refattn.authoring import __main__ as command_line
from refattn.authoring.exercises import learners_copy, with_stubs
from refattn.authoring.heads import set_head, tags
from refattn.authoring.metadata import pin
from refattn.authoring.notebooks import problems, read, text, tidy, without_reveals
from refattn.authoring.project import lower_bounds, read_project
from refattn.authoring.readme import fill
from refattn.authoring.run import run
from refattn.authoring.sync import sync

ROOT = Path(__file__).parents[1]

SOLUTION = """\
def double(x):
    ### solution
    ### stub: y = ...  # twice x
    ### stub: return y
    return 2 * x
    ### end
"""


def printed(words, **metadata):
    """An executed code cell that printed something."""
    output = new_output("stream", name="stdout", text=words + "\n")
    return new_code_cell(f"print({words!r})", metadata=metadata, outputs=[output], execution_count=7)


@pytest.fixture
def root(tmp_path):
    """A repository with one lesson, one solution and a README."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("# refattn\n<!-- generated: badges -->\n<!-- end: badges -->\nrest\n")
    lesson = [new_markdown_cell("# Seven"), printed("49", tags=["reveal"]), printed("fact")]
    solution = [new_code_cell(SOLUTION), printed("right", tags=["nbval-check-output"])]
    for path, cells in (("notebooks/07_seven.ipynb", lesson), ("exercises/solutions/07_seven.ipynb", solution)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), tmp_path / path)
    return tmp_path


def test_sync_writes_what_check_named_and_then_nothing_is_left(root):
    out_of_step = sync(root, check=True)
    assert out_of_step == [
        "CITATION.cff",
        "README.md",
        "environment.yml",
        "exercises/07_seven.ipynb",
        "exercises/solutions/07_seven.ipynb",
        "notebooks/07_seven.ipynb",
        "notebooks/colab/07_seven.ipynb",
    ]
    assert sync(root) == out_of_step
    assert sync(root, check=True) == []


@pytest.mark.parametrize(
    ("path", "opens"),
    [
        ("notebooks/07_seven.ipynb", "notebooks/colab/07_seven.ipynb"),
        ("notebooks/colab/07_seven.ipynb", "notebooks/colab/07_seven.ipynb"),
        ("exercises/07_seven.ipynb", "exercises/07_seven.ipynb"),
        ("exercises/solutions/07_seven.ipynb", "exercises/solutions/07_seven.ipynb"),
    ],
)
def test_badge_and_install_come_first_and_follow_the_address_in_pyproject(root, path, opens):
    sync(root)
    config = root / "pyproject.toml"
    config.write_text(config.read_text().replace("github.com/refattn/refattn", "github.com/someone/fork"))
    sync(root)
    badge, install, *body = read(root / path).cells
    assert badge.source.endswith(f"(https://colab.research.google.com/github/someone/fork/blob/main/{opens})")
    assert "https://github.com/someone/fork/archive" in install.source
    assert not any({"badge", "install"} & set(tags(cell)) for cell in body)


def test_colabs_copy_hides_only_the_revealed_outputs(root):
    sync(root)
    lesson, copy = (read(root / folder / "07_seven.ipynb") for folder in ("notebooks", "notebooks/colab"))
    assert [cell.source for cell in copy.cells] == [cell.source for cell in lesson.cells]
    assert [len(cell.outputs) for cell in lesson.cells if cell.cell_type == "code"] == [0, 1, 1]
    assert [len(cell.outputs) for cell in copy.cells if cell.cell_type == "code"] == [0, 0, 1]


def test_learners_notebook_has_stubs_and_no_outputs(root):
    sync(root)
    stub, check = read(root / "exercises" / "07_seven.ipynb").cells[2:]
    assert stub.source == "def double(x):\n    y = ...  # twice x\n    return y"
    assert check.outputs == [] and check.execution_count is None and tags(check) == []


def test_a_generated_notebook_without_its_source_is_an_error(root):
    sync(root)
    (root / "exercises/solutions/07_seven.ipynb").unlink()
    with pytest.raises(ValueError, match="exercises/07_seven.ipynb is generated, but its source is gone"):
        sync(root)


@pytest.mark.parametrize(
    ("source", "stubbed"),
    [
        ("x = 1", "x = 1"),
        ("### solution\nx = 1\n### end\ny = 2", "...  # your code here\ny = 2"),
        ("if a:\n    ### solution\n    x = 1\n    ### end", "if a:\n    ...  # your code here"),
        ("### solution\n### stub: if a:\n### stub:     pass\nx = 1\n### end", "if a:\n    pass"),
        ("%matplotlib inline\n### solution\nx = 1\n### end", "%matplotlib inline\n...  # your code here"),
    ],
)
def test_stub_replaces_the_solution_at_its_indentation(source, stubbed):
    assert with_stubs(source) == stubbed


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("### solution\nx = 1", "without '### end'"),
        ("x = 1\n### end", "without '### solution'"),
        ("### solution\n### solution\n### end", "no '### end' has closed"),
        ("### stub: pass", "outside a region"),
        ("### solution\n### stub: return (\n### end", "not valid Python, line 1"),
    ],
)
def test_malformed_solution_regions_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        with_stubs(source)


def test_a_refused_region_names_notebook_and_cell(root, capsys):
    path = root / "exercises/solutions/07_seven.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("### end")]), path)
    assert command_line.main(["--root", str(root), "sync"]) == 1
    error = capsys.readouterr().err
    assert "exercises/solutions/07_seven.ipynb, cell 2: '### end'" in error and error.count("\n") == 1


def test_cells_tagged_solution_only_are_left_out():
    cells = [new_markdown_cell("kept"), new_markdown_cell("why", metadata={"tags": ["solution-only"]})]
    assert [cell["source"] for cell in learners_copy(new_notebook(cells=cells))["cells"]] == ["kept"]


def test_tidy_forgets_what_changes_from_run_to_run():
    cells = [new_markdown_cell("same"), printed("a", execution={"iopub": "12:00"}, tags=["x"]), printed("b")]
    again = [new_markdown_cell("same"), printed("a", execution={"iopub": "13:00"}, tags=["x"]), printed("b")]
    again[1].execution_count = 99
    one = new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3.11.7"}})
    other = new_notebook(cells=again, metadata={"language_info": {"name": "python", "version": "3.12.1"}})
    assert one != other and text(one) == text(other)
    assert text(nbformat.from_dict(tidy(one))) == text(one)
    assert text(one).endswith("}\n") and "3.11" not in text(one) and "12:00" not in text(one)


def test_inserting_a_cell_changes_no_other_id_and_equal_cells_get_different_ids():
    cells = [new_markdown_cell("same"), new_markdown_cell("same"), new_markdown_cell("last")]
    before = [cell["id"] for cell in tidy(new_notebook(cells=cells))["cells"]]
    after = [cell["id"] for cell in tidy(new_notebook(cells=[new_markdown_cell("new"), *cells]))["cells"]]
    assert len(set(before)) == 3 and after[1:] == before


def test_executed_cells_are_counted_and_the_others_stay_uncounted():
    cells = [new_code_cell("x"), printed("a"), new_code_cell("x")]
    assert [cell["execution_count"] for cell in tidy(new_notebook(cells=cells))["cells"]] == [None, 2, None]


def test_widgets_are_not_stored_but_pictures_beside_them_are():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1f"}, "text/plain": "IntSlider()"}
    outputs = [new_output("display_data", data=view), new_output("display_data", data={**view, "image/png": "iVBO"})]
    tidied = tidy(new_notebook(cells=[new_code_cell("slider", outputs=outputs)]))["cells"][0]["outputs"]
    assert [sorted(output["data"]) for output in tidied] == [["image/png", "text/plain"]]


@pytest.mark.parametrize(
    ("output", "tag", "message"),
    [
        (new_output("stream", name="stderr", text="UserWarning: slow"), "x", "writes to stderr: UserWarning: slow"),
        (new_output("error", ename="ValueError", evalue="no"), "x", "ends in an error: ValueError: no"),
        (new_output("stream", name="stdout", text="<object at 0x7f1234567890>"), "x", "shows a memory address"),
        (None, "nbval-check-output", "no stored output"),
        (new_output("error", ename="ValueError", evalue="wanted"), "raises-exception", None),
        (new_output("stream", name="stdout", text="fine"), "nbval-check-output", None),
    ],
)
def test_problems_names_what_a_reader_should_not_meet(output, tag, message):
    cell = new_code_cell("line", outputs=[output] if output else [], metadata={"tags": [tag]})
    found = problems(new_notebook(cells=[cell]))
    assert found == [] if message is None else len(found) == 1 and message in found[0] and "cell 0 (line)" in found[0]


def test_run_stores_outputs_in_place_and_leaves_a_failing_notebook_alone(tmp_path):
    path = tmp_path / "demo.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("import os\nprint(os.listdir('.'))")]), path)
    assert run(path) > 0
    assert read(path).cells[0].outputs[0].text == "[]\n"  # it runs in an empty folder
    warning = new_code_cell("import warnings\nwarnings.warn('slow')")
    for cell, message in ((warning, "not written:.*cell 0 .*slow"), (new_code_cell("1 / 0"), "ZeroDivisionError")):
        nbformat.write(new_notebook(cells=[cell]), path)
        before = path.read_text()
        with pytest.raises(ValueError, match=f"(?s){path}.*{message}"):
            run(path)
        assert path.read_text() == before


def test_run_takes_a_slider_and_stores_none_of_its_state(tmp_path):
    path = tmp_path / "slider.ipynb"
    slider = "import ipywidgets\n\n_ = ipywidgets.interact(lambda n: print(n), n=(1, 4))"
    nbformat.write(new_notebook(cells=[new_code_cell(slider)]), path)
    run(path)
    assert read(path).cells[0].outputs == [] and "widgets" not in read(path).metadata


def test_readme_blocks_are_filled_and_the_rest_is_kept():
    block = "<!-- generated: a -->\n{}<!-- end: a -->"
    filled = "before\n" + block.format("\nnew\n\n") + "\nafter\n"
    assert fill("before\n" + block.format("old\n") + "\nafter\n", {"a": lambda: "new\n"}) == filled
    assert fill(filled, {"a": lambda: "new"}) == filled


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        ("<!-- generated: b -->\n<!-- end: b -->", "unknown block 'b': wanted one of a"),
        ("<!-- generated: a -->\n", "stands alone"),
        ("<!-- generated: a -->\n<!-- generated: a -->\n<!-- end: a -->", "no end marker of its own"),
        ("<!-- generated: a -->\n<!-- end: b -->", "no end marker of its own"),
    ],
)
def test_malformed_readme_markers_are_refused(readme, message):
    with pytest.raises(ValueError, match=message):
        fill(readme, {"a": lambda: "new"})


def test_lower_bounds_follow_extras_that_name_each_other():
    extras = {"one": ["b>=2"], "all": ["refattn[one]", "c>=3.1"]}
    assert lower_bounds("refattn", ["a>=1"], extras) == {"a": "1", "b": "2", "c": "3.1"}


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        (["a"], "wanted NAME>=VERSION"),
        (["a<2"], "wanted NAME>=VERSION"),
        (["a>=1", "a>=2"], "elsewhere its bound is 1"),
    ],
)
def test_a_requirement_without_one_lower_bound_is_refused(dependencies, message):
    with pytest.raises(ValueError, match=message):
        lower_bounds("refattn", dependencies, {})


def test_pins_of_cuda_packages_are_for_linux():
    assert pin("nvidia-cublas", "1") == 'nvidia-cublas==1 ; sys_platform == "linux"'
    assert pin("numpy", "1") == "numpy==1"


def test_an_address_outside_github_is_refused(root):
    config = root / "pyproject.toml"
    config.write_text(config.read_text().replace("https://github.com/", "https://example.org/"))
    with pytest.raises(ValueError, match="wanted https://github.com/OWNER/NAME"):
        set_head(new_notebook(), read_project(root), "notebooks/07_seven.ipynb")


def test_without_a_project_the_command_line_says_so(tmp_path, capsys):
    assert command_line.main(["--root", str(tmp_path), "sync", "--check"]) == 1
    assert "pyproject.toml is missing" in capsys.readouterr().err


def test_reveals_are_found_by_tag():
    hidden, kept = without_reveals(new_notebook(cells=[printed("a", tags=["reveal"]), printed("b")]))["cells"]
    assert hidden["outputs"] == [] and kept["outputs"]
