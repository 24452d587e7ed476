"""What experiments about shapes of a network need: grids of mechanisms and shapes with means, counts, times, maps.

A shape is (layers, heads of each); its name is "6×2".
"""

from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from types import SimpleNamespace

import torch
from scipy import stats
from torch import nn

from refattn import measure, processes, train
from refattn.models.wide_attention import WideClassifier, count_multiply_adds, count_weights
from refattn.reproduce.frame import Comparison

# ---- Grids -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid(Comparison):
    """A comparison with more variants than are trained: a group's numbers are the means of its members', seed by seed.

    groups: {name: names of variants}; `variants` holds the groups too, as models of all their members side by side.
    """

    groups: dict = field(default_factory=dict)

    def runs(self, plan):
        """(variant, seed) of every cell; groups are not trained."""
        return [(name, seed) for name, seed in super().runs(plan) if name not in self.groups]

    def record(self, plan, found):
        """As a comparison's, with the groups, in the order of `names`."""
        record = super().record(plan, found)
        variants = record["variants"]
        for group, members in self.groups.items():
            own = [variants[name] for name in members]
            numbers = {key: seedwise_means([v[key] for v in own]) for key in own[0] if key != "parameters"}
            variants[group] = {"parameters": sum(v["parameters"] for v in own)} | numbers
        return record | {"variants": {name: variants[name] for name in self.names(plan)}}


def seedwise_means(columns):
    """The mean over lists, place by place."""
    return [round(fmean(values), 6) for values in zip(*columns, strict=True)]


def side_by_side(task, seed, *, makers):
    """The models of a group together; nobody trains them as one."""
    return nn.ModuleList(make(task, seed) for make in makers)


def grid(make, mechanisms, shapes, groups):
    """Variants and groups of a `Grid`: every mechanism in every shape, and for each group one variant a shape.

    Args: make: (task, seed, mechanism=…, shape=…) → model.  groups: {name: mechanisms}.
    """
    variants = {
        f"{mechanism} {layers}×{heads}": partial(make, mechanism=mechanism, shape=(layers, heads))
        for mechanism in mechanisms
        for layers, heads in shapes
    }
    members = {}
    for group, own in groups.items():
        for layers, heads in shapes:
            members[f"{group} {layers}×{heads}"] = tuple(f"{mechanism} {layers}×{heads}" for mechanism in own)
    together = {
        name: partial(side_by_side, makers=[variants[member] for member in own]) for name, own in members.items()
    }
    return {"variants": variants | together, "groups": members}


# ---- Counts and times ------------------------------------------------------------------------------------------------


def network(shape, sizes):
    """A classifier of this shape in evaluation mode; sizes: as `count_weights` takes them."""
    layers, heads = shape
    return WideClassifier(num_layers=layers, num_heads=heads, max_len=4096, **sizes).eval()


def count_shapes(shapes, tokens, sizes):
    """Weights, multiply-adds of the blocks and bytes kept for the backward pass, of a network and by the formulas.

    Nothing is computed: torch's "meta" tensors have shapes alone.  tokens: N, without the CLS token.
    """
    found = {"network": {}, "formula": {}}

    def note(who, **numbers):
        for key, number in numbers.items():
            found[who].setdefault(key, []).append(number)

    body = {key: value for key, value in sizes.items() if key not in ("vocab_size", "num_classes")}
    for layers, heads in shapes:
        with torch.device("meta"):
            model = network((layers, heads), sizes)
            ids = torch.zeros(1, tokens, dtype=torch.long)
            x = model.encoder.embed(ids)[0].detach()
            note(
                "network",
                weights=measure.count_parameters(model),
                attention_weights=sum(measure.count_parameters(b.self_attention) for b in model.encoder.stack.blocks),
                multiply_adds=measure.flops(model.encoder.stack, x) // 2,
                saved_bytes=measure.saved_bytes(model, ids),
            )
        counted = count_weights(**sizes, num_layers=layers, num_heads=heads)
        work = count_multiply_adds(tokens + 1, **body, num_layers=layers, num_heads=heads)
        note("formula", weights=counted["total"], attention_weights=counted["attention"], multiply_adds=work["total"])
    return {"shapes": [list(shape) for shape in shapes], "tokens": tokens, "variants": found}


@torch.no_grad()
def time_shapes(shapes, ns, sizes, rounds, min_seconds, device="cpu"):
    """Seconds of a forward pass for one sequence, shapes timed in turn.

    Returns: {"ns", "variants": {name: {"by_length": median at each N, "seconds": every round at the last N}}}.
    """
    device = processes.choose_device(device)
    models = {f"{layers}×{heads}": network((layers, heads), sizes).to(device) for layers, heads in shapes}
    found = {name: {"by_length": []} for name in models}
    for n in ns:
        ids = torch.arange(n, device=device)[None] % sizes["vocab_size"]
        times = measure.latency(
            {name: partial(model, ids) for name, model in models.items()}, rounds=rounds, min_seconds=min_seconds
        )
        for name in models:
            found[name]["by_length"].append(float(f"{times.seconds[name][0]:.4g}"))
            found[name]["seconds"] = [float(f"{second:.4g}") for second in times.rounds[name]]
    return {"ns": list(ns), "variants": found}


def weigh_grid(make, mechanisms, shapes, groups, tokens, vocab_size, num_classes, rounds, min_seconds):
    """What the networks of a grid weigh, keep for the backward pass of one sequence, and take to answer one.

    The shapes of a mechanism are timed in turn. Of a group, the sums over its mechanisms, round by round.
    Args: make, groups: as in `grid`.  tokens: of the sequence, without the CLS token.
    Returns: {"shapes", "tokens", "variants": {name: {"weights": [one], "saved_bytes": [one], "seconds": [a round]}}}.
    """
    task = SimpleNamespace(vocab_size=vocab_size, num_classes=num_classes, max_len=tokens)
    ids, found = torch.arange(tokens)[None] % vocab_size, {}
    names = {shape: "{}×{}".format(*shape) for shape in map(tuple, shapes)}
    for mechanism in mechanisms:
        models = {name: make(task, 0, mechanism=mechanism, shape=shape).eval() for shape, name in names.items()}
        with torch.no_grad():
            calls = {name: partial(model, ids) for name, model in models.items()}
            times = measure.latency(calls, rounds=rounds, min_seconds=min_seconds)
        for name, model in models.items():
            found[f"{mechanism} {name}"] = {
                "weights": [measure.count_parameters(model)],
                "saved_bytes": [measure.saved_bytes(model, ids)],
                "seconds": times.rounds[name],
            }
    for group, own in groups.items():
        for name in names.values():
            columns = [found[f"{mechanism} {name}"] for mechanism in own]
            found[f"{group} {name}"] = {
                key: [sum(place) for place in zip(*(column[key] for column in columns), strict=True)]
                for key in columns[0]
            }
    for numbers in found.values():
        numbers["seconds"] = [float(f"{second:.4g}") for second in numbers["seconds"]]
    return {"shapes": [list(shape) for shape in shapes], "tokens": tokens, "variants": found}


# ---- What attention weights explain ----------------------------------------------------------------------------------


@torch.no_grad()
def losses_without(model, inputs):
    """How much log p of the predicted class falls if token j is hidden, [B, N] for ids [B, N]."""
    whole = model(inputs).log_softmax(-1)
    chosen = whole.argmax(-1)  # [B]
    tokens = inputs.shape[1]
    one_each = torch.eye(tokens, dtype=torch.bool, device=inputs.device)
    hidden = one_each.repeat(len(inputs), 1)  # [B · N, N]
    without = model(inputs.repeat_interleave(tokens, 0), key_padding_mask=hidden).log_softmax(-1)
    without = without.unflatten(0, (-1, tokens)).gather(2, chosen[:, None, None].expand(-1, tokens, 1))[..., 0]
    return whole.gather(1, chosen[:, None]) - without


def last_layer(model, inputs):
    """What the CLS token of the last layer reads, mean over heads: [B, N]."""
    return model.attention_maps(inputs)[-1]["self"]["effective"].mean(1)[:, 0, 1:]


def rollout(model, inputs):
    """Attention rollout (Abnar and Zuidema 2020): the product of all layers' maps, half of each being the residual."""
    flow = None
    for layer in model.attention_maps(inputs):
        own = layer["self"]["effective"].mean(1)  # [B, n, n]
        own = 0.5 * (own + torch.eye(own.shape[-1], device=own.device))
        flow = own if flow is None else own @ flow
    return flow[:, 0, 1:]


def contribution(model, inputs):
    """Length of what each token puts into the CLS token of a network with one layer, over all heads: [B, N]."""
    return model.encoder.contributions(inputs)["heads"].sum(1).norm(dim=-1)[:, 1:]


def rank_agreement(scores, effects):
    """Spearman's correlation of |effects| with scores, both [B, N], mean over sequences; 0 where one ranks nothing."""
    return fmean(
        float(stats.spearmanr(a, b).statistic) if min(len(set(a)), len(set(b))) > 1 else 0.0
        for a, b in zip(scores.tolist(), effects.abs().tolist(), strict=True)
    )


def explain(make_task, make, wide, deep, seeds, steps, training, examples):
    """How well ways to read a trained network rank its tokens: agreement with hiding each token in turn, by seed.

    Args: make_task: (seed=…) → Task;  make: as in `grid`;  wide, deep: shapes;  training: arguments of `train.fit`.
    """
    ways = {wide: {"weights": last_layer, "contributions": contribution}}
    ways[deep] = {"last layer": last_layer, "rollout": rollout}
    found = {}
    for seed in seeds:
        task = make_task(seed=seed)
        inputs = task.test["inputs"][:examples]
        for shape, own in ways.items():
            model = make(task, seed, mechanism="softmax", shape=shape)
            train.fit(model, task, steps=steps, seed=seed, device="cpu", progress=False, **training)
            model.eval()
            effects = losses_without(model, inputs)
            for way, score in own.items():
                agreed = found.setdefault("{}×{}, {}".format(*shape, way), {"agreement": []})["agreement"]
                agreed.append(round(rank_agreement(score(model, inputs), effects), 5))
    return {"variants": found}
