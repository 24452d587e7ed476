"""Frames shared by all tests: where golden cases lie, and small models that several files use."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tests run side by side, one process a core


def pytest_addoption(parser):
    default = Path(__file__).parent / "golden"
    parser.addoption("--golden-dir", type=Path, default=default, help="directory of golden cases, SLUG--CASE.npz")


def pytest_generate_tests(metafunc):
    if "golden_path" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--golden-dir")
        paths = sorted(folder.glob("*--*.npz"))
        if not paths:
            raise pytest.UsageError(f"--golden-dir {folder}: no SLUG--CASE.npz there")
        metafunc.parametrize("golden_path", paths, ids=[p.stem for p in paths])


@pytest.fixture
def empty_register():
    """Exercises that other tests attempted are forgotten, and these are afterwards."""
    from refattn import checks

    checks.forget()
    yield
    checks.forget()
