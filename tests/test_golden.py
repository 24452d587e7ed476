"""Parity with the authors' own code: every golden case, outputs and gradients, in float64.

`pytest tests/test_golden.py --golden-dir DIR` runs every case in any directory of the same layout.
"""

import json

import numpy as np
import torch
from golden_adapters import ADAPTERS, INFORMATION, TOLERANCES

DEFAULT_TOLERANCE = (1e-9, 1e-10)  # relative, absolute


class Case:
    """The arrays of one file as float64 tensors; inputs and weights are leaves that collect gradients."""

    def __init__(self, path):
        with np.load(path, allow_pickle=False) as arrays:
            self.meta = json.loads(str(arrays["meta"]))
            self.tensors = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files if name != "meta"}
        self.config = self.meta["config"]
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point():
                self.tensors[name] = tensor.double().requires_grad_(name.startswith(("in.", "w.")))

    def __getitem__(self, name):
        return self.tensors[name]

    def __contains__(self, name):
        return name in self.tensors

    def named(self, prefix):
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def test_case_agrees_with_the_authors_code(golden_path):
    case = Case(golden_path)
    slug = case.meta["slug"]
    assert slug in ADAPTERS, f"{golden_path.name}: no adapter for slug {slug!r} in tests/golden_adapters"
    rtol, atol = TOLERANCES.get(slug, DEFAULT_TOLERANCE)
    outputs = ADAPTERS[slug](case)

    loss = outputs.get("loss")
    if loss is None:
        loss = sum((outputs[name] * weight).sum() for name, weight in case.named("r.").items() if name in outputs)
    expected = {name: t for name, t in case.named("out.").items() if name not in INFORMATION.get(slug, ())}
    if torch.is_tensor(loss) and "loss" in expected:
        outputs["loss"] = loss.reshape(expected["loss"].shape)
    missing = sorted(set(expected) - set(outputs))
    assert not missing, f"the adapter returns nothing for {missing}"
    for name, wanted in expected.items():
        agree(f"output {name}", outputs[name], wanted, rtol, atol)

    gradients = case.named("grad.")
    if torch.is_tensor(loss) and loss.requires_grad:
        loss.backward()
    for name, wanted in gradients.items():
        leaf = next((case[n] for n in (name, f"in.{name}", f"w.{name}") if n in case), None)
        found = outputs.get(f"grad.{name}") if leaf is None else leaf.grad
        assert found is not None, f"no gradient reaches {name}"
        agree(f"gradient of {name}", found, wanted, rtol, atol)


def agree(what, found, wanted, rtol, atol):
    """Equal up to the tolerance, and numbers of the same kind: a count must be a whole number here too."""
    found = torch.as_tensor(found).detach()
    assert found.is_floating_point() == wanted.is_floating_point(), f"{what}: {found.dtype} for {wanted.dtype}"
    message = lambda text: f"{what}: {text}"  # noqa: E731
    torch.testing.assert_close(found.to(wanted), wanted.detach(), rtol=rtol, atol=atol, msg=message)
