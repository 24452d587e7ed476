"""FashionMNIST and CIFAR-10 through torchvision, which downloads them and verifies their checksums."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import torch
from torch.nn import functional as F

from refattn.data.task import from_arrays

SYSTEM_FASHION = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
FASHION_FILES = {  # SHA-256 of their content, unpacked
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def fashion_mnist(*, root=None, **options):
    """FashionMNIST (Xiao et al. 2017, arXiv 1708.07747): 70,000 grey images of clothes, 28 × 28, ten classes.

    Options: those of `image_task`. Files of Debian's package are used if they are there; else torchvision downloads.
    """
    root = folder(root)
    unpack_system_files(root)
    return image_task("FashionMNIST", root, **options)


def cifar10(*, root=None, **options):
    """CIFAR-10 (Krizhevsky 2009): 60,000 colour images, 32 × 32, ten classes. Options: those of `image_task`."""
    return image_task("CIFAR10", folder(root), **options)


def image_task(dataset, root, *, size=None, as_sequence=False, train_size=None, test_size=None, batch_size=128, seed=0):
    """A task on a torchvision data set, kept in memory.

    Args:
        size: edge in pixels after average pooling; must divide the original (28 → 14 or 7).
        as_sequence: pixels `[B, size², channels]`, row by row, instead of images `[B, channels, size, size]`.
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


def unpack_system_files(root, source=SYSTEM_FASHION):
    """Unpack the system's FashionMNIST files to where torchvision looks for them; a damaged one is left alone.

    The package has compressed the published files anew, so what is verified is their content.
    """
    target = root / "FashionMNIST" / "raw"
    for name, wanted in FASHION_FILES.items():
        if (target / name).exists():
            continue
        try:
            content = gzip.decompress((source / f"{name}.gz").read_bytes())
        except (OSError, EOFError, zlib.error):  # not there, or damaged
            continue
        if hashlib.sha256(content).hexdigest() == wanted:
            target.mkdir(parents=True, exist_ok=True)
            unfinished = target / f"{name}.{os.getpid()}.tmp"  # several processes may come here at once
            unfinished.write_bytes(content)
            unfinished.replace(target / name)
