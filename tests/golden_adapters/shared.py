"""What several adapters need: weights by our names, masks, and a module that computes with the case's own tensors."""

import torch


def bind(module, tensors):
    """Put `tensors` (by name) in the place of the module's parameters and buffers; every one must fit and be used.

    A parameter that stands in several places is given once, under its first name. Buffers may keep their values, and
    running moments get no gradient: PyTorch refuses them otherwise.
    """
    bound = {}
    buffers = [(name, buffer) for name, buffer in module.named_buffers() if name in tensors]
    for name, old in [*module.named_parameters(remove_duplicate=False), *buffers]:
        if id(old) not in bound:
            bound[id(old)] = tensors.pop(name)
        tensor = bound[id(old)].detach() if "running_" in name else bound[id(old)]
        assert tensor.shape == old.shape, f"{name}: {tuple(tensor.shape)} for {tuple(old.shape)}"
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)
        setattr(module.get_submodule(owner), leaf, tensor)
    assert not tensors, f"nothing takes {sorted(tensors)}"
    return module.double().eval()


def linear_weights(case, names, prefix=""):
    """Weight and bias of linear layers: {our name: the file's suffix} → {our parameter: tensor}."""
    found = {}
    for ours, theirs in names.items():
        found[f"{ours}.weight"] = case[f"w.{prefix}W_{theirs}"]
        if f"w.{prefix}b_{theirs}" in case:
            found[f"{ours}.bias"] = case[f"w.{prefix}b_{theirs}"]
    return found


def norm_weights(case, names, mark="."):
    """Gain and bias of LayerNorms: {our name: the file's name}; `mark` stands between that and g or b."""
    suffixes = (("weight", "g"), ("bias", "b"))
    return {f"{ours}.{w}": case[f"w.{theirs}{mark}{s}"] for ours, theirs in names.items() for w, s in suffixes}


def pattern_like(allow, wanted):
    """A pattern [B or 1, H or 1, N, N] by the axes a file has: [N, N], [H, N, N], [B, N, N] or [B, H, N, N]."""
    for _ in range(allow.dim() - wanted.dim()):
        allow = allow.squeeze(0) if len(allow) == 1 else allow.squeeze(1)
    return allow.expand_as(wanted)


def padding(case, name, size):
    """`in.NAME` as a mask, or a mask made from `in.lengths`, or None."""
    if f"in.{name}" in case:
        return case[f"in.{name}"]
    if "in.lengths" in case:
        return torch.arange(size)[None] >= case["in.lengths"][:, None]
    return None
