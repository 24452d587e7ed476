"""Which of the package's own files the numbers of an experiment can depend on, and a digest of them.

Found by reading, not by running: the experiment's file, what it imports, what that imports, and so on. A room's list of
all that is in it (`refattn.attention`, say) is not followed to everything, but to what is named: by a word or a string
of a source that counts. So a paper added next door changes no digest.
"""

import ast
import hashlib
from pathlib import Path

import refattn
from refattn import attention, data, models

ROOT = Path(refattn.__file__).parent
ALWAYS = ("refattn.reproduce.cells",)  # trains and measures
LISTS = ("refattn", "refattn.attention", "refattn.data", "refattn.models", "refattn.reproduce")
JUDGES = ("frame", "claims", "verdict", "results", "figure", "sources")  # of reproduce: they read numbers and make none


def code_digest(experiment_file):
    """A short digest of `sources`, their names included."""
    found = hashlib.sha256()
    for path in sources(experiment_file):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def sources(experiment_file):
    """Sorted paths of the files that the numbers of an experiment can depend on, its own among them if it exists."""
    waiting = [file_of(module) for module in ALWAYS]
    waiting += [Path(experiment_file)] if Path(experiment_file).exists() else []
    found = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file_of(module) for module in needs(path)]
    return sorted(found)


def file_of(module):
    """The file of a module of this package."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def needs(path):
    """Modules of this package that a file imports, or names where a list stands between."""
    imported, words = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            words |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    modules = {name for name in imported if name.split(".")[0] == "refattn" and file_of(name).is_file()}
    modules |= {module for word, module in listed() if word in words}
    skipped = {*LISTS, *(f"refattn.reproduce.{name}" for name in JUDGES)}
    return sorted(modules - skipped)


def listed():
    """[(name, module)] of what the rooms list: mechanisms and tasks by name, and all by class or function."""
    rooms = attention.MECHANISMS, data.TASKS, {name: getattr(models, name) for name in models.__all__}
    things = [(name, thing) for room in rooms for name, thing in room.items()]
    return [(word, thing.__module__) for name, thing in things for word in (name, thing.__name__)]
