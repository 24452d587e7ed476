"""Lessons as a reader meets them: opened in JupyterLab, run from the top, their sliders moved by keys."""

import re
import shutil
from pathlib import Path

import pytest
from browser import CHROMIUM, chromium, jupyterlab

from refattn.authoring.notebooks import read

ROOT = Path(__file__).parents[1]
RANGE = re.compile(r"widgets\.slider\(.*=\(", re.DOTALL)  # a list of choices makes a menu, which is no slider
WITH_SLIDERS = [
    path
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
    if any(RANGE.search(cell.source) for cell in read(path).cells if cell.cell_type == "code")
]
LAB = "window.jupyterapp"
IDLE = f"[...({LAB}?.shell.widgets('main') ?? [])].some(w => w.sessionContext?.session?.kernel?.status === 'idle')"
CONTROLS = "[...document.querySelectorAll('.jp-OutputArea .noUi-handle')]"
PICTURES = "[...document.querySelectorAll('.jp-OutputArea .widget-image')].map(image => image.src)"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("path", WITH_SLIDERS, ids=[path.stem for path in WITH_SLIDERS])
def test_every_slider_of_a_lesson_redraws_its_picture(path, tmp_path):
    folder = tmp_path / "lessons"
    folder.mkdir()
    shutil.copy(path, folder)
    with jupyterlab(folder, tmp_path / "settings") as address, chromium(tmp_path / "profile") as page:
        page.send("Page.navigate", url=address(path.name))
        page.until(IDLE)
        page.evaluate(f"{LAB}.shell.activateById([...{LAB}.shell.widgets('main')][0].id)")
        assert page.evaluate(f"{LAB}.commands.execute('notebook:run-all-cells')"), "a cell ended in an error"
        count = page.until(f"{CONTROLS}.length")
        page.until(IDLE)
        for number in range(count):
            before = page.until(PICTURES)
            page.evaluate(f"(handle => {{handle.scrollIntoView(); handle.focus()}})({CONTROLS}[{number}])")
            at_its_end = page.evaluate(f"(h => h.ariaValueNow === h.ariaValueMax)({CONTROLS}[{number}])")
            page.press("ArrowLeft" if at_its_end else "ArrowRight")
            page.until(f"String({PICTURES}) !== {','.join(before)!r}", 20)
            page.screenshot(tmp_path / f"slider-{number}.png")
