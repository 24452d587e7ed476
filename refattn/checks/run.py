"""Run an exercise notebook and say which of its exercises pass: what stands behind `python -m refattn check`.

The notebook runs as a reader would run it, from the top, in a kernel of its own and in an empty folder; a cell that
fails does not stop the others. The file is only read.
"""

import asyncio
import json
import os
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

import refattn
from refattn.checks.frame import UNTOUCHED, report

SECONDS = 120  # for one cell; then it is interrupted, as by the stop button, and the next one runs
MISSING = "running notebooks needs Jupyter's packages: pip install 'refattn[notebooks]'"


def run_notebook(path):
    """Run an exercise notebook in a fresh kernel.

    Returns: the report of the kernel's process, see `rows`.
    Raises: ValueError if the file is no notebook, Jupyter's packages are missing, or the kernel dies.
    """
    return execute(path)[0]


def execute(path):
    """`run_notebook`'s rows, and the executed notebook, the file itself unchanged."""
    try:
        from jupyter_client.kernelspec import NoSuchKernel
        from nbclient import NotebookClient
        from nbclient.exceptions import DeadKernelError
        from nbformat.v4 import new_code_cell

        from refattn.authoring.notebooks import read
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error.name} is not there)") from None

    path = Path(path)
    notebook = read(path)
    with tempfile.TemporaryDirectory() as folder:
        empty, answer = Path(folder, "empty"), Path(folder, "report.json")
        empty.mkdir()
        last = f"from refattn.checks.run import write\nwrite({str(answer)!r}, globals())"
        notebook.cells.append(new_code_cell(last))
        with tqdm(total=len(notebook.cells), desc=path.stem, unit="cell", leave=False, disable=None) as bar:
            client = NotebookClient(
                notebook,
                kernel_name="python3",
                allow_errors=True,
                timeout=SECONDS,
                interrupt_on_timeout=True,
                record_timing=False,
                shutdown_kernel="immediate",
                resources={"metadata": {"path": str(empty)}},
                on_cell_complete=lambda **_: bar.update(),
            )
            try:
                run_in_thread(client, env=environment(), stderr=subprocess.DEVNULL)
            except NoSuchKernel:
                raise ValueError(f"{MISSING} (there is no Python kernel)") from None
            except DeadKernelError:
                raise ValueError(f"{path}: its kernel died; too little memory, or a cell that ends it?") from None
        last = notebook.cells.pop()
        if not answer.exists():
            raise ValueError(f"{path}: the kernel cannot report: {problem(last)}")
        return json.loads(answer.read_text(encoding="utf-8")), notebook


async def run(client, stopped, **options):
    """Execute a client's notebook until it is through or `stopped` is set; no kernel stays behind."""
    manager = client.create_kernel_manager()
    task = asyncio.ensure_future(client.async_execute(**options))
    try:
        while not task.done():
            await asyncio.wait([task], timeout=0.2)
            if stopped.is_set():
                task.cancel()
        await task
    finally:
        if manager.has_kernel:
            await manager.shutdown_kernel(now=True)


def run_in_thread(client, **options):
    """`run` outside the main thread: there nbclient would take Ctrl-C for itself, stop the kernel and go on."""
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(asyncio.run, run(client, stopped, **options))
        try:
            while not future.done():
                wait([future], timeout=0.5)  # on Windows, a wait without end would not hear Ctrl-C
        except KeyboardInterrupt:
            stopped.set()
            raise
    return future.result()


def environment():
    """Variables for the kernel: it imports the very refattn that is running here."""
    here = str(Path(refattn.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}


def problem(cell):
    """What the error of an executed cell says, in a line."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    return f"{errors[0].ename}: {errors[0].evalue}".splitlines()[0] if errors else "its last cell did not finish"


# ---- In the kernel --------------------------------------------------------------------------------------------------


def rows(names):
    """The report of this process, and a row "untouched" for each exercise that no check has seen.

    names: the notebook's global names; a folder of checks among them, such as `check`, says which exercises there are.
    Returns: dicts with "exercise", "mark", "stage", "passed" and "message", in the order of the lesson.
    """
    folders = [value for value in names.values() if isinstance(value, ModuleType) and hasattr(value, "EXERCISES")]
    wanted = [exercise.name for folder in folders for exercise in folder.EXERCISES]
    unseen = {"mark": UNTOUCHED, "stage": "untouched", "passed": False, "message": "its check did not run"}
    seen = {row["exercise"]: row for row in report()}
    return [seen.pop(name, {"exercise": name} | unseen) for name in dict.fromkeys(wanted)] + list(seen.values())


def write(path, names):
    """Write `rows` to a file."""
    Path(path).write_text(json.dumps(rows(names)), encoding="utf-8")
