"""Everything generated: what it should say, and what is out of step."""

from pathlib import Path

from refattn.authoring import metadata, notebooks
from refattn.authoring.exercises import learners_copy
from refattn.authoring.heads import set_head
from refattn.authoring.project import read_project
from refattn.authoring.readme import fill, readme_blocks

SOURCES = "[0-9][0-9]_*.ipynb"


def sync(root, *, check=False):
    """Write every generated file that is missing or out of step; with `check`, write nothing.

    Returns: their paths from the root, with slashes, sorted.
    Raises: ValueError if a source is malformed, or a generated notebook has lost its source.
    """
    root = Path(root)
    changed = []
    for path, wanted in sorted(artefacts(root).items()):
        target = root / path
        if target.exists() and target.read_text(encoding="utf-8") == wanted:
            continue
        changed.append(path)
        if not check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(wanted, encoding="utf-8", newline="\n")
    return changed


def artefacts(root):
    """{path from the root: text it should have} of everything generated."""
    root = Path(root)
    project = read_project(root)
    texts = {
        "environment.yml": metadata.environment(project),
        "CITATION.cff": metadata.citation(project),
        **lessons(root, project),
        **exercises(root, project),
    }
    if (root / "README.md").exists():
        texts["README.md"] = fill((root / "README.md").read_text(encoding="utf-8"), readme_blocks(project))
    for folder in ("notebooks/colab", "exercises"):
        for path in root.glob(f"{folder}/*.ipynb"):
            if f"{folder}/{path.name}" not in texts:
                raise ValueError(f"{folder}/{path.name} is generated, but its source is gone: delete it")
    return texts


def lessons(root, project):
    """Each lesson, and its copy for Colab. The badge of both opens the copy, where nothing is given away."""
    texts = {}
    for path in root.glob(f"notebooks/{SOURCES}"):
        copy = f"notebooks/colab/{path.name}"
        notebook = set_head(notebooks.read(path), project, copy)
        texts[f"notebooks/{path.name}"] = notebooks.text(notebook)
        texts[copy] = notebooks.text(notebooks.without_reveals(notebook))
    return texts


def exercises(root, project):
    """Each solution, and the learner's notebook made of it."""
    texts = {}
    for path in root.glob(f"exercises/solutions/{SOURCES}"):
        solution, learners = f"exercises/solutions/{path.name}", f"exercises/{path.name}"
        notebook = notebooks.read(path)
        texts[solution] = notebooks.text(set_head(notebook, project, solution))
        try:
            copy = learners_copy(set_head(notebook, project, learners))
        except ValueError as error:
            raise ValueError(f"{solution}, {error}") from None
        texts[learners] = notebooks.text(copy)
    return texts
