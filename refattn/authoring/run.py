"""Execute a notebook in place, as a reader would: from the top, in an empty folder."""

import tempfile
import time
from pathlib import Path

from refattn.authoring import notebooks


def run(path, *, timeout=600):
    """Execute the notebook of a file and store its outputs, tidied; the file stays as it was if anything is wrong.

    timeout: seconds for one cell.  Returns: seconds.
    Raises: ValueError naming the cell that raised, or that wrote to stderr.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    path = Path(path)
    notebook = nbformat.from_dict(notebooks.tidy(notebooks.read(path)))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=timeout,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise ValueError(f"{path}: {error}") from None
    seconds = time.perf_counter() - start
    found = notebooks.problems(notebook)
    if found:
        raise ValueError(f"{path}, not written:\n" + "\n".join(found))
    path.write_text(notebooks.text(notebook), encoding="utf-8", newline="\n")
    return seconds
