"""What low-rank and hashed attention leave out of the map they stand for, measured on maps of trained models."""

import torch
from torch.nn import functional as F

from refattn import train
from refattn.attention.hashing import hash_buckets, random_rotations
from refattn.attention.linformer import linformer_attention
from refattn.attention.softmax import softmax_attention, softmax_weights
from refattn.data.task import generator

# ---- Low rank --------------------------------------------------------------------------------------------------------


def shares(maps):
    """The part of a map's square sum in its first k directions, k = 1 … N, averaged over all maps [..., N, N]."""
    squares = torch.linalg.svdvals(maps) ** 2
    return (squares.cumsum(-1) / squares.sum(-1, keepdim=True)).flatten(0, -2).mean(0)


def all_maps(model, inputs):
    """Attention maps of all layers and heads, [B, layers · H, N, N]."""
    return torch.cat([layer["self"]["effective"] for layer in model.attention_maps(inputs)], 1)


def spectra(tasks, makers, seeds, steps, training, kept, examples=16):
    """Share of the first `kept` directions in maps of untrained and of trained softmax models, by task and seed.

    Args:
        tasks: {name: (seed=…) → Task};  makers: {name: (task, seed) → model};  steps: {name: of training}.
        training: {name: arguments of `train.fit`};  examples: of the test, whose maps are looked at.

    Returns: {"variants": {"name, trained": {"share": one a seed, "by_rank": mean share at each k}, …}}, with a variant
        "nine tenths" to compare with.
    """
    found = {}
    for seed in seeds:
        for name, make_task in tasks.items():
            task = make_task(seed=seed)
            model, inputs = makers[name](task, seed), task.test["inputs"][:examples]
            for state in ("untrained", "trained"):
                if state == "trained":
                    train.fit(model, task, steps=steps[name], seed=seed, device="cpu", progress=False, **training[name])
                found.setdefault(f"{name}, {state}", []).append(shares(all_maps(model.eval(), inputs)))
    variants = {name: summed(by_seed, kept) for name, by_seed in found.items()}
    return {"variants": variants | constant(0.9, len(seeds))}


def summed(by_seed, kept):
    """A variant's record: the share at `kept` of each seed, and the mean at every rank."""
    means = torch.stack(by_seed).mean(0)
    return {"share": [round(float(s[kept - 1]), 5) for s in by_seed], "by_rank": [round(float(m), 4) for m in means]}


def constant(value, seeds, metric="share"):
    """A variant to compare with that is a number: nine tenths of whatever is kept."""
    return {"nine tenths": {metric: [value] * seeds}}


def projections_kept(make_task, maker, seeds, steps, training, rank, fitting, examples=32):
    """How much of attention's output is left if keys and values are mixed down to `rank`: 1 − |ŷ − y|² / |y|².

    For the last layer of a softmax model trained on a task, on test examples that nothing was fitted to: the best map
    of that rank (by singular values, for every map anew), E and F drawn from N(0, 1/k), and E and F fitted to the
    outputs for other examples, `fitting` steps from the same draw.
    """
    variants = {name: {"kept": []} for name in (f"best of rank {rank}", "random E, F", "fitted E, F")}
    for seed in seeds:
        task = make_task(seed=seed)
        model = maker(task, seed)
        train.fit(model, task, steps=steps, seed=seed, device="cpu", progress=False, **training)
        q, k, v = last_heads(model, task.batch(steps)["inputs"])
        E, G = draw = torch.randn(2, rank, k.shape[2], generator=generator(seed, "E, F")) / rank**0.5
        fitted = fit_projections(q, k, v, draw, fitting)
        q, k, v = last_heads(model, task.test["inputs"][:examples])
        y = softmax_attention(q, k, v)
        U, s, Vh = torch.linalg.svd(softmax_weights(q, k))
        best = (U[..., :rank] * s[..., None, :rank]) @ (Vh[..., :rank, :] @ v)
        outputs = (best, linformer_attention(q, k, v, E, G), linformer_attention(q, k, v, *fitted))
        for variant, output in zip(variants.values(), outputs, strict=True):
            variant["kept"].append(round(1 - ((output - y).square().sum() / y.square().sum()).item(), 5))
    return {"variants": variants | constant(0.9, len(seeds), "kept")}


@torch.no_grad()
def last_heads(model, inputs):
    """Queries, keys and values [B, H, N, d] of the last layer, as it receives its input in a post-norm stack."""
    blocks, x, carries = model.encoder.blocks, model.embedding(inputs), {}
    for block in blocks[:-1]:
        x, carries = block(x, carries)
    return blocks[-1].self_attention.projections(blocks[-1].self_residual.before(x))


def fit_projections(q, k, v, draw, steps, lr=1e-2):
    """E and F that bring Linformer's output nearest to softmax attention's, from a first draw."""
    y = softmax_attention(q, k, v)
    matrices = [matrix.clone().requires_grad_() for matrix in draw]
    optimizer = torch.optim.Adam(matrices, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(linformer_attention(q, k, v, *matrices), y).backward()
        optimizer.step()
    return [matrix.detach() for matrix in matrices]


# ---- Hashing ---------------------------------------------------------------------------------------------------------


def clustered(tokens, width, clusters, spread, seed):
    """Vectors about random centres: [1, 1, N, d]."""
    draw = generator(seed, "clusters")
    centres = torch.randn(clusters, width, generator=draw)
    own = torch.randint(clusters, (tokens,), generator=draw)
    return (centres[own] + spread * torch.randn(tokens, width, generator=draw))[None, None]


def random_pairs(allowed, count, seed):
    """So many of the pairs that a mask [N, N] allows, as another mask."""
    places = allowed.flatten().nonzero()[:, 0]
    chosen = torch.zeros(allowed.numel(), dtype=torch.bool)
    chosen[places[torch.randperm(len(places), generator=generator(seed, "pairs"))[:count]]] = True
    return chosen.view_as(allowed)


def mass_met(seeds, rounds, tokens, width, clusters, spread, buckets):
    """The share of true attention on pairs that meet in a bucket, by rounds of hashing, and on as many random pairs.

    Attention is Reformer's: queries are keys, keys of length one, nobody attends to itself.
    Returns: {"rounds", "density": share of pairs that meet, "variants": {"reformer R=…": {"recall": one a seed}, …}}.
    """
    variants, met_share = {}, {r: [] for r in rounds}
    itself = torch.eye(tokens, dtype=torch.bool)
    for seed in seeds:
        qk = clustered(tokens, width, clusters, spread, seed)
        weights = softmax_weights(qk, F.normalize(qk, dim=-1), scale=1.0, allow=~itself)[0, 0]
        found = hash_buckets(qk, random_rotations(width, max(rounds), buckets, generator(seed, "rotations")))[
            0, 0
        ]  # [R, N]
        same = (found[:, :, None] == found[:, None, :]) & ~itself
        for r in rounds:
            met = same[:r].any(0)
            count = int(met.sum())
            met_share[r].append(count / (tokens * (tokens - 1)))
            for name, mask in ((f"reformer R={r}", met), (f"random pairs R={r}", random_pairs(~itself, count, seed))):
                recall = (weights * mask).sum().item() / tokens
                variants.setdefault(name, {"recall": []})["recall"].append(round(recall, 5))
    density = [round(sum(met_share[r]) / len(seeds), 4) for r in rounds]
    return {
        "rounds": list(rounds),
        "density": density,
        "variants": variants | {"all pairs": {"recall": [1.0] * len(seeds)}},
    }
