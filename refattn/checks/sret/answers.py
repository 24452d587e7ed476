"""Lesson 21: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import copy

import torch


def attend(q, k, v):
    """softmax(q kᵀ / √d) v on the last two axes: given in the notebook."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def sliced_attention(q, k, v, groups):
    slices = (t.reshape(groups, -1, t.shape[-1]) for t in (q, k, v))  # each [G, s, d]
    return attend(*slices).reshape(v.shape)


def sliced_attention_strided(q, k, v, groups):
    slices = (t.reshape(-1, groups, t.shape[-1]).transpose(0, 1) for t in (q, k, v))
    return attend(*slices).transpose(0, 1).reshape(v.shape)


def sliced_attention_global(q, k, v, groups):
    return attend(q, k, v)


def sliced_attention_size(q, k, v, groups):
    return sliced_attention(q, k, v, len(q) // groups)


def sliced_attention_late(q, k, v, groups):
    places = torch.arange(len(q)) // (len(q) // groups)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (weights * (places[:, None] == places)) @ v


def shuffled_attention(q, k, v, groups, permutation):
    y = sliced_attention(q[permutation], k[permutation], v[permutation], groups)
    return y[permutation.argsort()]  # place p held token permutation[p]


def shuffled_attention_forward(q, k, v, groups, permutation):
    return sliced_attention(q[permutation], k[permutation], v[permutation], groups)[permutation]


def shuffled_attention_left(q, k, v, groups, permutation):
    return sliced_attention(q[permutation], k[permutation], v[permutation], groups)


def shuffled_attention_values_stay(q, k, v, groups, permutation):
    return sliced_attention(q[permutation], k[permutation], v, groups)[permutation.argsort()]


def shuffled_attention_swapped(q, k, v, groups, permutation):
    return shuffled_attention(q, k, v, groups, permutation.argsort())


def shuffled_attention_unshuffled(q, k, v, groups, permutation):
    return sliced_attention(q, k, v, groups)


def stage(x, blocks, projections, loops, groups, permutations):
    permutations = iter(permutations)
    for j, project in enumerate(projections):
        again = j % loops > 0  # this block has been applied before
        count = groups[again]
        order = next(permutations) if again and count > 1 else None
        x = project(blocks[j // loops](x, count, order))
    return x


def staged(
    block_of=lambda j, loops, blocks: j // loops,
    projection_of=lambda j, loops: j,
    marks=lambda j, loops: j % loops > 0,
    early=False,
    reuse=False,
    before=False,
):
    """`stage` with another choice of blocks, of projections (None: none), or of applications that are shuffled.

    early: first passes are shuffled too;  reuse: by the first permutation only;  before: projections precede blocks.
    """

    def stage(x, blocks, projections, loops, groups, permutations):
        permutations = iter((permutations[:1] if reuse else permutations) * 9)
        for j in range(len(projections)):
            again, number = marks(j, loops), projection_of(j, loops)
            count = groups[again]
            order = next(permutations) if (early or again) and count > 1 else None
            project = (lambda x: x) if number is None else projections[number]
            block = blocks[block_of(j, loops, len(blocks))]
            x = block(project(x), count, order) if before else project(block(x, count, order))
        return x

    return stage


def stage_copied(x, blocks, projections, loops, groups, permutations):
    blocks = [copy.deepcopy(blocks[j // loops]) for j in range(len(projections))]
    permutations = iter(permutations)
    for j, project in enumerate(projections):
        count = groups[j % loops > 0]
        order = next(permutations) if j % loops and count > 1 else None
        x = project(blocks[j](x, count, order))
    return x


stage_between = staged(projection_of=lambda j, loops: j if j % loops < loops - 1 else None)
stage_unprojected = staged(projection_of=lambda j, loops: None)
stage_shared_projection = staged(projection_of=lambda j, loops: j // loops)
stage_projected_before = staged(before=True)
stage_one_order = staged(reuse=True)
stage_cycled = staged(block_of=lambda j, loops, blocks: j % blocks)
stage_parity = staged(marks=lambda j, loops: j % 2 == 1)
stage_early = staged(early=True)
stage_one_count = staged(marks=lambda j, loops: False)


def schedule(blocks, loops, groups):
    rows = []
    for j in range(blocks * loops):
        again = j % loops > 0  # this block has been applied before
        rows.append([j // loops, groups[again], int(again and groups[again] > 1)])
    return torch.tensor(rows)


def scheduled(row):
    """`schedule` whose row j is row(j, blocks, loops, groups)."""
    return lambda blocks, loops, groups: torch.tensor([row(j, blocks, loops, groups) for j in range(blocks * loops)])


def odd_row(j, blocks, loops, groups):
    count = groups[j % 2]
    return [j // loops, count, int(j % 2 == 1 and count > 1)]


def cycled_row(j, blocks, loops, groups):
    again = j >= blocks
    return [j % blocks, groups[again], int(again and groups[again] > 1)]


def always_row(j, blocks, loops, groups):
    count = groups[j % loops > 0]
    return [j // loops, count, int(count > 1)]


def once_row(j, blocks, loops, groups):
    again = j % loops == 1
    return [j // loops, groups[again], int(again and groups[again] > 1)]


def ever_row(j, blocks, loops, groups):
    return [j // loops, groups[j > 0], int(j > 0 and groups[1] > 1)]


def last_row(j, blocks, loops, groups):
    again = j % loops == loops - 1
    return [j // loops, groups[again], int(again and groups[again] > 1)]


def needless_row(j, blocks, loops, groups):
    again = j % loops > 0
    return [j // loops, groups[again], int(again)]


schedule_odd = scheduled(odd_row)
schedule_cycled = scheduled(cycled_row)
schedule_always = scheduled(always_row)
schedule_once = scheduled(once_row)
schedule_ever = scheduled(ever_row)
schedule_last = scheduled(last_row)
schedule_needless = scheduled(needless_row)
