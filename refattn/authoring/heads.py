"""The first two cells of every notebook: the Colab badge, and the install that is skipped where refattn is there."""

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

INSTALL = """\
import importlib.util

if importlib.util.find_spec("{name}") is None:  # a fresh Colab runtime; elsewhere this cell does nothing
    %pip install --quiet "{name} @ {repository}/archive/refs/heads/main.zip"
"""


def colab_badge(project, path):
    """Markdown of the badge that opens a file of the repository in Colab. path: from the root, with slashes."""
    address = f"https://colab.research.google.com/github/{project.github}/blob/main/{path}"
    return f"[![Open in Colab]({BADGE})]({address})"


def install(project):
    """Source of the install cell. A zip address: unlike git+https it needs no git, so it serves Windows too."""
    return INSTALL.format(name=project.name, repository=project.repository).rstrip()


def set_head(notebook, project, path):
    """The notebook with its badge cell (opening `path`) and install cell put first, or brought up to date there."""
    body = [cell for cell in notebook["cells"] if not {"badge", "install"} & set(tags(cell))]
    badge_cell = {
        "cell_type": "markdown",
        "metadata": {"tags": ["badge"]},
        "source": colab_badge(project, path),
    }
    install_cell = {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {"tags": ["install"]},
        "outputs": [],
        "source": install(project),
    }
    return {**notebook, "cells": [badge_cell, install_cell, *body]}


def tags(cell):
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])
