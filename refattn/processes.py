"""Which device to compute on, and the few lines that let one training loop run as many processes under `torchrun`."""

import atexit
import os

import torch
from torch import distributed


def choose_device(name="auto"):
    """The torch.device behind a name; "auto" is a GPU if there is one for every process of this machine, else the CPU.

    Raises: ValueError for a GPU that is not there.
    """
    local_rank, local_world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if name == "auto":
        name = "cuda" if torch.cuda.device_count() >= local_world else "cpu"
    device = torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise ValueError(f"device={name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def join(device):
    """This process's number and how many there are: (0, 1) unless started by `torchrun` or already in a group."""
    if distributed.is_available() and distributed.is_torchelastic_launched() and not distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group()
        atexit.register(lambda: distributed.is_initialized() and distributed.destroy_process_group())
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share(rows, rank, world):
    """The slice of a batch's rows that process `rank` of `world` trains on; together the slices are the batch."""
    if rows < world:
        raise ValueError(f"a batch of {rows} rows cannot be shared by {world} processes: wanted one row each at least")
    return slice(rows * rank // world, rows * (rank + 1) // world)


def total(values, world, device):
    """Sums of numbers over all processes, as a list of floats."""
    if world == 1:
        return values
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(summed)
    return summed.tolist()


def wait(world, device):
    """Return when every process is here."""
    total([0], world, device)


def check_same_step(step, world, device):
    """Raise a ValueError if the processes found different checkpoints."""
    if total([step], world, device)[0] != step * world:
        raise ValueError(f"checkpoint: this process is at step {step}, others elsewhere; all must see the same file")
