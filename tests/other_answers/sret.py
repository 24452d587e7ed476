"""Lesson 21, otherwise."""

import torch
from torch.nn import functional as F


def sliced_by_loop(q, k, v, groups):
    parts = []
    for query, key, value in zip(q.chunk(groups), k.chunk(groups), v.chunk(groups), strict=True):
        parts.append(torch.softmax(query @ key.T / key.shape[-1] ** 0.5, -1) @ value)
    return torch.cat(parts)


def sliced_by_torch(q, k, v, groups):
    size = len(q) // groups
    heads = (t.view(1, groups, size, t.shape[-1]) for t in (q, k, v))  # slices in the place of heads
    return F.scaled_dot_product_attention(*heads)[0].flatten(0, 1)


def shuffled_by_scatter(q, k, v, groups, permutation):
    y = sliced_by_loop(q[permutation], k[permutation], v[permutation], groups)
    found = torch.empty_like(y)
    found[permutation] = y
    return found


def shuffled_by_members(q, k, v, groups, permutation):
    found = torch.zeros_like(v)
    for members in permutation.reshape(groups, -1):
        found[members] = sliced_by_loop(q[members], k[members], v[members], 1)
    return found


def stage_by_blocks(x, blocks, projections, loops, groups, permutations):
    waiting, orders = list(projections), list(permutations)
    for block in blocks:
        for turn in range(loops):
            if turn == 0:
                x = block(x, groups[0])
            elif groups[1] == 1:
                x = block(x, 1)
            else:
                x = block(x, groups[1], orders.pop(0))
            x = waiting.pop(0)(x)
    return x


def stage_by_index(x, blocks, projections, loops, groups, permutations):
    used = 0
    for j in range(len(blocks) * loops):
        block, turn = divmod(j, loops)
        order = None
        if turn > 0 and groups[1] != 1:
            order, used = permutations[used], used + 1
        x = projections[j](blocks[block](x, groups=groups[min(turn, 1)], permutation=order))
    return x


def stage_by_pop(x, blocks, projections, loops, groups, permutations):
    for b, block in enumerate(blocks):
        for turn in range(loops):
            order = permutations.pop(0) if turn and groups[1] > 1 else None  # from the very list that was handed in
            x = projections[b * loops + turn](block(x, groups[turn > 0], order))
    return x


def schedule_by_blocks(blocks, loops, groups):
    first, later = [groups[0], 0], [groups[1], int(groups[1] > 1)]
    return torch.tensor([[b, *(later if turn else first)] for b in range(blocks) for turn in range(loops)])


def schedule_by_tensors(blocks, loops, groups):
    block = torch.arange(blocks).repeat_interleave(loops)
    turn = torch.arange(loops).repeat(blocks)
    count = torch.where(turn == 0, groups[0], groups[1])
    return torch.stack([block, count, ((turn > 0) & (count > 1)).long()], 1)


ANSWERS = {
    "sret.sliced_attention": (sliced_by_loop, sliced_by_torch),
    "sret.shuffled_attention": (shuffled_by_scatter, shuffled_by_members),
    "sret.stage": (stage_by_blocks, stage_by_index, stage_by_pop),
    "sret.schedule": (schedule_by_blocks, schedule_by_tensors),
}
