"""Files that other tools read: environment.yml, CITATION.cff, constraints.txt."""

from importlib.metadata import distribution

CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda-forge's name is another
LINUX_ONLY = ("cuda-", "nvidia-", "triton")  # what PyTorch's Linux builds bring along

NOTE = "# Generated from pyproject.toml by `make sync`: edit that file instead.\n"


def environment(project):
    """The text of environment.yml, for conda."""
    packages = sorted(f"{CONDA_NAMES.get(name, name)}>={version}" for name, version in project.bounds.items())
    lines = [
        f"name: {project.name}",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python{project.python}",
        "  - pip",
        *(f"  - {package}" for package in packages),
        "  - pip:",
        "      - -e .",
    ]
    return NOTE + "\n".join(lines) + "\n"


def citation(project):
    """The text of CITATION.cff."""
    lines = [
        "cff-version: 1.2.0",
        "message: If you use this software, please cite it, and the paper of each method that you use.",
        "type: software",
        f'title: "{project.name}"',
        f'abstract: "{project.description}"',
        f"version: {project.version}",
        f"license: {project.licence}",
        f'repository-code: "{project.repository}"',
        "authors:",
        *(f'  - name: "{author}"' for author in project.authors),
    ]
    return NOTE + "\n".join(lines) + "\n"


def pins(project):
    """The text of constraints.txt: the installed version of every package that the project needs, directly or not.

    Raises: ValueError if one is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    versions, seen = {}, set()
    waiting = [Requirement(name) for name in project.bounds]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        extras = {"", *wanted.extras}
        if (name, *sorted(extras)) in seen:
            continue
        seen.add((name, *sorted(extras)))
        try:
            found = distribution(name)
        except ModuleNotFoundError:
            raise ValueError(f"{name} is not installed here, but wanted by {project.name}") from None
        versions[name] = found.version.split("+")[0]  # 2.8.0+cpu is a build of 2.8.0
        for requirement in map(Requirement, found.requires or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    lines = [
        "# Versions that were tested together. Written by `python -m refattn.authoring pin`.",
        *(pin(name, version) for name, version in sorted(versions.items())),
    ]
    return "\n".join(lines) + "\n"


def pin(name, version):
    """One line of constraints.txt."""
    marker = ' ; sys_platform == "linux"' if name.startswith(LINUX_ONLY) else ""
    return f"{name}=={version}{marker}"


def read_pins(path):
    """{package: version} of a constraints file that `pins` wrote."""
    lines = [line.split(" ;")[0] for line in path.read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")]
    return dict(line.split("==") for line in lines)
