"""Lessons as a reader meets them: opened in JupyterLab, run from the top, sliders moved by keys, menus changed."""

import shutil
from pathlib import Path

import pytest
from browser import CHROMIUM, chromium, jupyterlab

from refattn.authoring.notebooks import read

ROOT = Path(__file__).parents[1]
WITH_CONTROLS = [
    path
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
    if any("widgets.slider(" in cell.source for cell in read(path).cells if cell.cell_type == "code")
]
LAB = "window.jupyterapp"
IDLE = f"[...({LAB}?.shell.widgets('main') ?? [])].some(w => w.sessionContext?.session?.kernel?.status === 'idle')"
CONTROLS = "[...document.querySelectorAll('.jp-OutputArea .noUi-handle, .jp-OutputArea .widget-dropdown select')]"
CHANGE = "new Event('change', {bubbles: true})"
PICTURES = "[...document.querySelectorAll('.jp-OutputArea .widget-image')].map(image => image.src)"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("path", WITH_CONTROLS, ids=[path.stem for path in WITH_CONTROLS])
def test_every_slider_and_menu_of_a_lesson_redraws_its_picture(path, tmp_path):
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
            before, control = page.until(PICTURES), f"{CONTROLS}[{number}]"
            page.evaluate(f"(c => {{c.scrollIntoView(); c.focus()}})({control})")
            if page.evaluate(f"{control}.tagName") == "SELECT":
                page.evaluate(f"(menu => {{menu.selectedIndex = 1; menu.dispatchEvent({CHANGE})}})({control})")
            else:
                at_its_end = page.evaluate(f"(h => h.ariaValueNow === h.ariaValueMax)({control})")
                page.press("ArrowLeft" if at_its_end else "ArrowRight")
            page.until(f"String({PICTURES}) !== {','.join(before)!r}", 20)
            page.screenshot(tmp_path / f"control-{number}.png")
