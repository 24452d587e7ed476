"""Small tasks: generated, bundled, or downloaded by torchvision. Each is a `Task`, made by a function of its options.

task = refattn.data.build("recall", num_keys=8)
task.batch(0)["inputs"]        # [64, 16, 2]; the same for the same step, always
"""

from refattn.data.associative_recall import associative_recall
from refattn.data.cldr import cldr
from refattn.data.colour import colour
from refattn.data.copying import copying
from refattn.data.digits import digits
from refattn.data.help_pages import help_pages
from refattn.data.listops import listops
from refattn.data.look_back import look_back
from refattn.data.markers import markers
from refattn.data.ngrams import ngrams
from refattn.data.pointers import pointers
from refattn.data.recall import recall
from refattn.data.regions import regions
from refattn.data.task import IGNORED, Task, from_arrays, generated
from refattn.data.text import text
from refattn.data.uea import uea
from refattn.data.vision import cifar10, fashion_mnist

TASKS = {
    "recall": recall,
    "associative_recall": associative_recall,
    "pointers": pointers,
    "colour": colour,
    "copying": copying,
    "look_back": look_back,
    "markers": markers,
    "ngrams": ngrams,
    "listops": listops,
    "regions": regions,
    "digits": digits,
    "text": text,
    "help_pages": help_pages,
    "uea": uea,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cldr": cldr,
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
