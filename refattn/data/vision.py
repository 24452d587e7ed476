"""FashionMNIST and CIFAR-10 through torchvision, which downloads them and verifies their checksums."""

import os
import shutil
from pathlib import Path

import torch
from torch.nn import functional as F

from refattn.data.task import from_arrays

SYSTEM_FASHION = Path(
    "/usr/share/datasets/fashion-mnist"
)  # where Debian's package dataset-fashion-mnist puts the files


def fashion_mnist(*, root=None, **options):
    """FashionMNIST (Xiao et al. 2017, arXiv 1708.07747): 70,000 grey images of clothes, 28 × 28, ten classes.

    Options: those of `image_task`. Files of Debian's package are used if they are there; otherwise torchvision downloads.
    """
    root = folder(root)
    copy_system_files(root)
    return image_task("FashionMNIST", root, **options)


def cifar10(*, root=None, **options):
    """CIFAR-10 (Krizhevsky 2009): 60,000 colour images, 32 × 32, ten classes. Options: those of `image_task`."""
    return image_task("CIFAR10", folder(root), **options)


def image_task(dataset, root, *, size=None, as_sequence=False, train_size=None, test_size=None, batch_size=128, seed=0):
    """A task on a torchvision data set, kept in memory.

    Args:
        size: edge in pixels after average pooling; must divide the original (28 → 14 or 7).
        as_sequence: grey levels `[B, size², channels]` in 0 … 1, row by row, instead of images `[B, channels, size, size]`.
        train_size, test_size: only so many, the first ones.

    Raises: ValueError for a size that does not divide; RuntimeError, in one line, if the files can neither be found nor
        downloaded, or are damaged.
    """
    parts = [read(dataset, root, train, limit) for train, limit in ((True, train_size), (False, test_size))]
    edge = parts[0]["inputs"].shape[-1]
    size = edge if size is None else size
    if size < 1 or edge % size:
        raise ValueError(f"size={size}: wanted a divisor of {edge}")
    for part in parts:
        images = F.avg_pool2d(part["inputs"], edge // size)
        part["inputs"] = images.flatten(2).transpose(1, 2).contiguous() if as_sequence else images
    facts = {"vocab_size": None, "num_classes": 10, "max_len": size * size}
    about = f"{dataset}, {size} × {size}" + (", pixel by pixel" if as_sequence else "")
    return from_arrays(dataset.lower(), *parts, batch_size=batch_size, seed=seed, description=about, **facts)


def read(dataset, root, train, limit):
    """Images [B, channels, rows, columns] in 0 … 1 and labels of one part of a torchvision data set."""
    from torchvision import datasets  # a second to import: only when asked for

    try:
        part = getattr(datasets, dataset)(root, train=train, download=True)
    except Exception as error:  # offline, a damaged file, no room: all end here
        raise RuntimeError(
            f"{dataset} is not in {root} and could not be downloaded ({type(error).__name__}); "
            f"connect once, put torchvision's files there, or name another folder by root= or REFATTN_DATA"
        ) from error
    images = torch.as_tensor(part.data[:limit])
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return {"inputs": images.float() / 255, "targets": torch.as_tensor(part.targets[:limit])}


def folder(root):
    """Where data sets live: `root`, else the environment's REFATTN_DATA, else ~/.cache/refattn."""
    return Path(root or os.environ.get("REFATTN_DATA") or Path.home() / ".cache" / "refattn")


def copy_system_files(root, source=SYSTEM_FASHION):
    """Bring the system's FashionMNIST files to where torchvision looks for them, those whose checksum it knows."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import check_integrity

    target = root / "FashionMNIST" / "raw"
    for name, checksum in FashionMNIST.resources:
        if not (target / name).exists() and check_integrity(source / name, checksum):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
            extract(target / name)


def extract(archive):
    """Unpack NAME.gz beside itself, as torchvision expects it."""
    from torchvision.datasets.utils import extract_archive

    extract_archive(str(archive), str(archive.parent))
