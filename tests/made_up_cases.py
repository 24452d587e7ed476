"""Made-up golden cases: arrays drawn by name, and the pieces that references of several methods are written from.

Plain tensor code in float64 that shares nothing with `refattn`; names and layout are those of the golden files.
"""

import json
import math

import numpy as np
import test_golden
import torch


class Draw:
    """Float32 arrays by name, drawn from one generator."""

    def __init__(self):
        self.rng, self.arrays = np.random.default_rng(0), {}

    def add(self, name, *shape, around=0.0):
        self.arrays[name] = (around + 0.6 * self.rng.standard_normal(shape)).astype(np.float32)

    def maps(self, prefix, lead=(), **shapes):
        """W_NAME and b_NAME for NAME=(out, in), each behind the axes `lead`."""
        for name, shape in shapes.items():
            self.add(f"w.{prefix}W_{name}", *lead, *shape)
            self.add(f"w.{prefix}b_{name}", *lead, shape[0])

    def norms(self, width, *names, lead=(), mark="."):
        for name in names:
            self.add(f"w.{name}{mark}g", *lead, width, around=1.0)
            self.add(f"w.{name}{mark}b", *lead, width)


def agrees(folder, slug, config, arrays, reference, losses):
    """Write the case (arrays, outputs and gradients of `reference`, random r for `losses`), and run the golden test."""
    rng, loss, saved = np.random.default_rng(1), 0.0, dict(arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.double().requires_grad_("running_" not in name)
    outputs = reference(tensors)
    for name in losses:
        saved[f"r.{name}"] = rng.standard_normal(outputs[name].shape).astype(np.float32)
        loss = loss + (outputs[name] * torch.from_numpy(saved[f"r.{name}"])).sum()
    leaves = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is not None:
            saved[f"grad.{name.partition('.')[2]}"] = gradient.numpy()
    saved |= {f"out.{name}": tensor.detach().numpy() for name, tensor in outputs.items()}
    path = folder / f"{slug}--made_up.npz"
    np.savez(path, meta=json.dumps({"slug": slug, "case": "made_up", "config": config}), **saved)
    test_golden.test_case_agrees_with_the_authors_code(path)


def norm(x, gain, offset, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps) * gain + offset


def attend(q, k, v, heads, hidden=None):
    """(heads side by side [B, N, width], maps [B, H, N, M]); hidden: bool, broadcastable to [B, N, M]."""
    outputs, maps = [], []
    for q_h, k_h, v_h in zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True):
        scores = q_h @ k_h.transpose(1, 2) / math.sqrt(q_h.shape[-1])
        maps.append((scores if hidden is None else scores.masked_fill(hidden, -1e300)).softmax(-1))
        outputs.append(maps[-1] @ v_h)
    return torch.cat(outputs, -1), torch.stack(maps, 1)


class Names:
    """Affine maps and norms of one layer by their names in a file; `row`: of stacked arrays."""

    def __init__(self, tensors, prefix="", row=...):
        self.tensors, self.prefix, self.row = tensors, prefix, row

    def __getitem__(self, name):
        return self.tensors[f"w.{self.prefix}{name}"][self.row]

    def map(self, name, x):
        return x @ self[f"W_{name}"].T + (self[f"b_{name}"] if f"w.{self.prefix}b_{name}" in self.tensors else 0.0)

    def norm(self, name, x, eps=1e-5, mark="."):
        return norm(x, self[f"{name}{mark}g"], self[f"{name}{mark}b"], eps)

    def net(self, x, act=torch.relu):
        return self.map("2", act(self.map("1", x)))

    def attention(self, x, y, heads, hidden):
        return self.map("o", attend(self.map("q", x), self.map("k", y), self.map("v", y), heads, hidden)[0])
