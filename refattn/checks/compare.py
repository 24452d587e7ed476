"""Comparing what a reader's function returns, and showing numbers, shapes and errors as a reader would."""

import inspect
import linecache
import os
import re
import textwrap
import traceback
from pathlib import Path

import numpy as np
import torch

WIDTH = 112  # characters a line of a message
GLUE = "\0"  # stands for a space at which no line is broken
# folders of code that is not the reader's: this package, installed packages, Python itself
FOREIGN = tuple(
    f"{folder}{os.sep}"  # so that a folder of the reader's whose name only begins like one of these is theirs
    for folder in (Path(__file__).parents[1], Path(torch.__file__).parents[1], Path(inspect.__file__).parent)
)


def as_tensors(output):
    """An output as a flat list of tensors. Raises: TypeError, ValueError or RuntimeError if it cannot be one."""
    if isinstance(output, tuple) or (isinstance(output, list) and output and torch.is_tensor(output[0])):
        return [part for item in output for part in as_tensors(item)]
    if output is None:
        raise TypeError("None is not a tensor")
    return [torch.as_tensor(output).detach().cpu()]


def shapes(tensors):
    """Shapes without axes of size 1, on which no check insists."""
    return [tuple(size for size in t.shape if size != 1) for t in tensors]


def equal(got, wanted, rtol=1e-4, atol=2e-5):
    """Whether two lists of tensors hold the same numbers to float32 rounding, in any number type; NaN equals NaN."""
    if shapes(got) != shapes(wanted):
        return False
    pairs = zip(got, wanted, strict=True)
    return all(torch.allclose(g.double().squeeze(), w.double().squeeze(), rtol, atol, equal_nan=True) for g, w in pairs)


def readable(number, digits=3, comma=","):
    """A number as texts print it: 0.667, 2,048 or 52,183,040, and neither 5.22e+07 nor -0."""
    if isinstance(number, bool):
        return str(number)
    if isinstance(number, int):
        return f"{number:{comma}}"
    text = f"{number + 0.0:{comma}.{digits}g}"  # -0.0 + 0.0 is 0.0
    return f"{number:{comma}.0f}" if "e+" in text and abs(number) < 1e15 else text


def show(numbers, digits=3, comma=","):
    """Numbers to three digits, such as [0.67, 0.33], whole thousands in full; of more than 12 only the first four."""
    numbers = torch.as_tensor(numbers).detach()
    if numbers.dim() == 0:
        return readable(numbers.item(), digits, comma)
    if numbers.numel() > 12:
        return f"{show(numbers.flatten()[:4], digits)[:-1]}, …]"
    return "[" + ", ".join(show(part, digits, comma="") for part in numbers) + "]"  # there a comma ends a number


def rows(*numbers):
    """A float32 tensor from rows of numbers."""
    return torch.tensor(numbers, dtype=torch.float32)


def seeded(*shape, seed=0):
    """Numbers from N(0, 1) that are the same in every session."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def golden(file="golden"):
    """Numbers of the authors' own code, for the last stage of a check: {"linear.q": tensor, …}, float32.

    "golden": from the cases linear--causal and luna--causal_tied; for Luna, inputs are already projected and scaled.
    "golden_sparse": from sparse_transformer--strided_merged and --fixed_merged, local--previous_block_causal (a head)
    and reformer--two_rounds_no_duplicates. "golden_kernel": from performer--softmax and cosformer--cross, whose inputs
    are already projected. "golden_vicinity": from vicinity--vicinity_attention, by heads, and its weights.
    "golden_couplformer": from couplformer--attention_square and --attention_pooling, projected, as images by heads.
    "golden_evolving": from evolving_attention--image2d (encoder), --step_decoder and --augconv1d (series).
    Read anew each time: an attempt may write into its arguments.
    """
    with np.load(Path(__file__).with_name(f"{file}.npz"), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def own_line(error):
    """Where in the reader's own code an exception arose, and what it says; no frame of any package."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    where = next((frame for frame in frames if not frame.filename.startswith(FOREIGN)), None)
    message = f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"
    if where is None:  # it was called in a way it does not allow, or what it returned is of no use
        return f"It stops before its first line, or after its last:\n  {message}"
    code = linecache.getline(where.filename, where.lineno).strip()
    return f"It stops in line {where.lineno} of {where.name}:\n    {code}\n  {message}"


def wrap(text, first="", later=""):
    """Text broken into lines of at most `WIDTH` characters, its own line breaks kept, and a row of numbers whole."""
    lines = re.sub(r"\[[^][]*\]", lambda row: row[0].replace(" ", GLUE), text).split("\n")
    filled = (textwrap.fill(line, WIDTH, initial_indent=first, subsequent_indent=later) for line in lines)
    return "\n".join(filled).replace(GLUE, " ")
