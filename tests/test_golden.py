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
    assert slug in ADAPTERS, f"{golden_path.name}: no adapter for slug {slug!r} in tests/golden_adapters.py"
    rtol, atol = TOLERANCES.get(slug, DEFAULT_TOLERANCE)
    outputs = ADAPTERS[slug](case)

    loss = sum((outputs[name] * weight).sum() for name, weight in case.named("r.").items())
    expected = {n: t for n, t in case.named("out.").items() if n != "loss" and n not in INFORMATION.get(slug, ())}
    missing = sorted(set(expected) - set(outputs))
    assert not missing, f"the adapter returns nothing for {missing}"
    if "out.loss" in case:
        outputs["loss"], expected["loss"] = loss.reshape(1), case["out.loss"]
    for name, wanted in expected.items():
        message = lambda text, name=name: f"output {name}: {text}"  # noqa: E731
        torch.testing.assert_close(outputs[name].detach().to(wanted), wanted, rtol=rtol, atol=atol, msg=message)

    gradients = case.named("grad.")
    if gradients:
        loss.backward()
    for name, wanted in gradients.items():
        leaf = next(case[n] for n in (name, f"in.{name}", f"w.{name}") if n in case)
        assert leaf.grad is not None, f"no gradient reaches {name}"
        message = lambda text, name=name: f"gradient of {name}: {text}"  # noqa: E731
        torch.testing.assert_close(leaf.grad, wanted, rtol=rtol, atol=atol, msg=message)
