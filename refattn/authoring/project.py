"""What pyproject.toml says, for everything that is generated from it."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

UNPINNED = ("peers", "uea")  # extras that one comparison or one experiment needs
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


@dataclass(frozen=True)
class Project:
    """The facts of pyproject.toml. bounds: {package: lowest version}, the dev extra's included."""

    name: str
    version: str
    description: str
    licence: str
    authors: tuple[str, ...]
    python: str
    repository: str
    bounds: dict[str, str]

    @property
    def github(self):
        """ "owner/name" of the repository. Raises: ValueError if it is not a GitHub address."""
        found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", self.repository)
        if not found:
            raise ValueError(
                f"Repository = {self.repository!r} in pyproject.toml: wanted https://github.com/OWNER/NAME"
            )
        return found[1]


def read_project(root):
    """The Project of a folder. Raises: ValueError if there is none, or a requirement is not NAME>=VERSION."""
    path = Path(root) / "pyproject.toml"
    if not path.exists():
        raise ValueError(f"{path} is missing: run this in the root of the repository, or give --root")
    table = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    name = table["name"]
    return Project(
        name=name,
        version=table["version"],
        description=table["description"],
        licence=table["license"],
        authors=tuple(author["name"] for author in table["authors"]),
        python=table["requires-python"],
        repository=table["urls"]["Repository"].rstrip("/"),
        bounds=lower_bounds(name, table["dependencies"], table.get("optional-dependencies", {})),
    )


def lower_bounds(name, dependencies, extras):
    """{package: lowest version} of the dependencies and of the extras; extras may name each other, as NAME[EXTRA]."""
    bounds = {}
    wanted = [line for extra, lines in extras.items() if extra not in UNPINNED for line in lines]
    for requirement in [*dependencies, *wanted]:
        if re.fullmatch(rf"{name}\[[\w,-]+\]", requirement):
            continue  # its packages are listed under that extra
        found = REQUIREMENT.fullmatch(requirement)
        if not found:
            raise ValueError(f"requirement {requirement!r} in pyproject.toml: wanted NAME>=VERSION")
        package, version = found.groups()
        if bounds.setdefault(package, version) != version:
            raise ValueError(f"requirement {requirement!r} in pyproject.toml: elsewhere its bound is {bounds[package]}")
    return bounds


def lowest(project):
    """The lower bounds as the text of a constraints file."""
    return "".join(f"{package}=={version}\n" for package, version in sorted(project.bounds.items()))
