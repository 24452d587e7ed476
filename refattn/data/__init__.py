"""Small tasks: generated, bundled, or downloaded by torchvision. Each is a `Task`, made by a function of its options.

task = refattn.data.build("recall", num_keys=8)
task.batch(0)["inputs"]        # [64, 16, 2]; the same for the same step, always
"""

from refattn.data.colour import colour
from refattn.data.copying import copying
from refattn.data.digits import digits
from refattn.data.listops import listops
from refattn.data.markers import markers
from refattn.data.recall import recall
from refattn.data.task import IGNORED, Task, from_arrays, generated
from refattn.data.text import text
from refattn.data.vision import cifar10, fashion_mnist

TASKS = {
    "recall": recall,
    "colour": colour,
    "copying": copying,
    "markers": markers,
    "listops": listops,
    "digits": digits,
    "text": text,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}


def names():
    """Names of all tasks."""
    return list(TASKS)


def build(name, **options):
    """A task by name. Raises: ValueError for an unknown name or a value the task refuses."""
    if name not in TASKS:
        raise ValueError(f"task={name!r}: wanted one of {', '.join(TASKS)}")
    return TASKS[name](**options)


__all__ = ["IGNORED", "Task", "build", "from_arrays", "generated", "names", *TASKS]
