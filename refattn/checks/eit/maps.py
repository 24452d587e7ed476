"""Lesson 14, build: all M² maps, a convolution along keys, and both interactions."""

import torch

from refattn.attention.eit import convolve_keys, interact
from refattn.checks.compare import equal, golden, rows, seeded, show
from refattn.checks.eit import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant


def two_heads():
    """M = 2, one query, one key, d = 1: queries 1 and 2, keys 10 and 100."""
    return rows([[1]], [[2]]), rows([[10]], [[100]])


def heads(M=3, N=4, L=5, d=4):
    return seeded(M, N, d), seeded(M, L, d, seed=1)


def four(run):
    return show(run(*two_heads()).flatten())


def fact_diagonal(run):
    q, k = heads()
    own, wanted = run(q, k)[::4], q @ k.transpose(1, 2) / 2
    if not equal([own], [wanted]):
        return f"M = 3, d = 4: maps 0, 4, 8 must be softmax attention's logits; yours differ, {show(own)}."


def fact_maps_package(run):
    from refattn.attention.eit import many_to_many

    q, k = seeded(4, 6, 8), seeded(4, 7, 8, seed=1)
    error = (run(q, k) - many_to_many(q[None], k[None])[0]).abs().max().item()
    if not error < 1e-4:
        return f"M = 4, N = 6, L = 7, d = 8: you differ from refattn by {error:.2g}."


all_maps = Exercise(
    "eit.all_maps",
    answers.all_maps,
    returns="maps [M², N, L], map i M + j for query head i and key head j",
    probes=(
        Probe("Two heads, d = 1, queries 1 and 2, keys 10 and 100: maps 10, 100, 20, 200.", two_heads),
        Probe("Three heads, N = 4, L = 5, d = 4.", heads),
    ),
    variants=(
        Variant(
            "key heads first",
            answers.all_maps_by_key,
            lambda run: f"Queries 1 and 2, keys 10 and 100: wanted [10, 100, 20, 200]; you return {four(run)}.",
            """All four products are there, and shapes agree; so would those of everything after. But a grouped
            convolution takes M neighbours for one group: yours would mix query heads, and leave key heads apart.
            Try: which index must run fastest, if maps 0 … M - 1 share query head 0?""",
        ),
        Variant(
            "scaled by the model's width",
            answers.all_maps_whole_width,
            lambda run: f"Queries 1 and 2, keys 10 and 100, d = 1: wanted [10, 100, 20, 200]; you return {four(run)}.",
            """The order is right. A product of two heads has d terms, not M d: divide by √d. (An unofficial
            implementation has this, too.)
            Try: the variance of a sum of d products of N(0, 1).""",
        ),
        Variant(
            "not scaled",
            answers.all_maps_unscaled,
            lambda run: (
                f"M = 3, d = 4: the first logit must be {show(answers.all_maps(*heads())[0, 0, 0])}; "
                f"you return {show(run(*heads())[0, 0, 0])}."
            ),
            """All right where d = 1. Here d = 4, and each logit is √d too large.
            Try: divide by √d.""",
        ),
        Variant(
            "one to one",
            answers.all_maps_one_to_one,
            lambda run: f"Two heads must give four maps; you return {len(run(*two_heads()))}, {four(run)}.",
            """These are the maps with i = j, all that softmax attention has. Here each query head meets each key head.
            Try: einsum with a letter of its own for each side's head.""",
        ),
    ),
    properties=(Property("maps i (M + 1) are softmax attention's", fact_diagonal, "i = j. Try: M = 2."),),
    numbers=(Property("it equals refattn", fact_maps_package, "q · k / √d. Try: one pair."),),
    hints=(
        "Two indices for heads, i of the query and j of the key. Which of them may be summed over?",
        'torch.einsum("ind,jld->ijnl", q, k) / d ** 0.5, then flatten the first two axes.',
    ),
    passed="""All pairs, query head by query head, and softmax attention's maps are among them.
    Next: each of the M² maps has rank d. Which rank can a sum of M of them have?""",
)


def peak(channels=1):
    """A map of two queries and five keys, a peak of 1 at query 0, key 2; the kernel takes what stands before."""
    maps = torch.zeros(channels, 2, 5)
    maps[:, 0, 2] = 1.0
    return maps, rows([[1, 0, 0]] * channels).reshape(channels, 1, 3), torch.full((channels,), 0.5), channels


def grouped(groups, k=3, C=4, G=4):
    return seeded(G, 3, 6), seeded(C, G // groups, k, seed=1), seeded(C, seed=2), groups


def row(run):
    return show(run(*peak())[0, 0])


def moved(run):
    return f"Row [0, 0, 1, 0, 0], kernel [1, 0, 0], bias 0.5: wanted [0.5, 0.5, 0.5, 1.5, 0.5]; you return {row(run)}"


def fact_rows_apart(run):
    maps, *rest = grouped(2)
    changed = maps.clone()
    changed[:, 2] += 1.0
    before, after = run(maps, *rest)[:, :2], run(changed, *rest)[:, :2]
    if not equal([before], [after]):
        return f"Row 2 was changed, and rows 0 and 1 went from {show(before[0, 0])} to {show(after[0, 0])}."


def fact_width(run):
    for k in (1, 5, 7):
        if run(*grouped(1, k=k)).shape != (4, 3, 6):
            return f"k = {k}: six keys go in, and {run(*grouped(1, k=k)).shape[-1]} come out."


def fact_convolution_package(run):
    maps, kernel, bias, groups = grouped(3, k=7, C=6, G=9)
    error = (run(maps, kernel, bias, groups) - convolve_keys(maps[None], kernel, bias, groups)[0]).abs().max().item()
    if not error < 1e-4:
        return f"Nine maps, three groups, k = 7: you differ from refattn by {error:.2g}."


key_convolution = Exercise(
    "eit.key_convolution",
    answers.key_convolution,
    returns="maps [C, N, L]",
    probes=(
        Probe("One map, two queries, five keys, kernel [1, 0, 0]: the peak moves one key to the right.", peak),
        Probe("Four maps to four, one group, k = 3.", lambda: grouped(1)),
        Probe("Four maps to four, two groups, k = 5.", lambda: grouped(2, k=5)),
    ),
    variants=(
        Variant(
            "along queries",
            answers.key_convolution_along_queries,
            lambda run: f"{moved(run)}, with another row changed instead.",
            """Groups and bias are right. But your kernel runs down the queries: query n then reads other queries'
            logits, and no order can be kept.
            Try: kernel [C, G / groups, k] has to become [C, G / groups, 1, k]; and the padding goes with it.""",
        ),
        Variant(
            "flipped",
            answers.key_convolution_flipped,
            lambda run: f"{moved(run)}.",
            """A convolution of the mathematics turns its kernel around, and that of neural networks does not:
            W[…, t] meets key l + t - (k - 1)/2, as eq. 3 has it.
            Try: with kernel [1, 0, 0], which key does key 3 read?""",
        ),
        Variant(
            "not centred",
            answers.key_convolution_ahead,
            lambda run: f"{moved(run)}.",
            """Sizes fit, since k - 1 zeros were added. But all on the right: the kernel's first weight meets key l
            itself, not key l - (k - 1)/2.
            Try: (k - 1)/2 zeros on each side.""",
        ),
        Variant(
            "no bias",
            answers.key_convolution_no_bias,
            lambda run: f"{moved(run)}.",
            """The peak is where it should be. A bias for each outgoing map is due: before a ReLU it matters, though the
            softmax would not see it.
            Try: add it, one number a map.""",
        ),
    ),
    properties=(
        Property("rows do not mix", fact_rows_apart, "1 × k, along keys. Try: change one row."),
        Property("as many keys come out as went in", fact_width, "(k - 1)/2 zeros on each side. Try: k = 1."),
    ),
    numbers=(Property("it equals refattn", fact_convolution_package, "eq. 3. Try: one group."),),
    hints=(
        "conv2d takes maps as channels of one image. Which height and which width must the kernel have?",
        "F.conv2d(maps, kernel[:, :, None], bias, padding=(0, k // 2), groups=groups)",
    ),
    passed="""Along keys alone, centred, grouped, with its bias.
    Next: may a causal model use it? Query n may read keys up to n, and the kernel reaches key n + 1.""",
)


def little():
    """Two heads, one query, one key: maps 1, -1, 2, -2; each inner kernel sums its head's two maps with signs."""
    S = rows([[1]], [[-1]], [[2]], [[-2]])
    ones = torch.ones(2, 1, 1)
    f0 = (rows([1, 1], [1, 0], [0, 1], [1, -1]).unsqueeze(-1), torch.zeros(4))
    f1 = (torch.tensor([[[1.0], [-2.0]], [[1.0], [1.0]]]), torch.tensor([0.5, -3.0]))
    return (
        S,
        f0,
        f1,
        (ones.expand(2, 2, 1), rows([1, -1])[0]),
        (torch.tensor([[[1.0], [2.0]], [[-1.0], [1.0]]]), rows([0, 1])[0]),
    )


def drawn(M=3, N=4, L=6, k=3, k2=5, seed=0):
    shapes = {"f0": (2 * M * M, M, k), "f1": (M, 2 * M, k), "g0": (4 * M, M, k2), "g1": (M, 4 * M, k2)}
    parts = [
        (seeded(*shape, seed=seed + n + 1) / shape[1] ** 0.5, seeded(shape[0], seed=seed + n + 9))
        for n, shape in enumerate(shapes.values())
    ]
    return seeded(M * M, N, L, seed=seed), *parts


def both(run):
    return show(run(*little()).flatten())


def by_hand(run):
    wanted = show(answers.interactions(*little()).flatten())
    return f"Two heads, one query, one key, maps 1, -1, 2, -2: wanted {wanted}; you return {both(run)}"


def fact_all_heads(run):
    S, f0, f1, g0, g1 = drawn()
    changed = S.clone()
    changed[0] += 2.0
    moved_heads = (run(changed, f0, f1, g0, g1) - run(S, f0, f1, g0, g1)).abs().amax((1, 2)) > 1e-6
    if not moved_heads.all():
        return f"Map 0 was changed, and only heads {moved_heads.nonzero().flatten().tolist()} of 3 noticed."


def fact_interactions_authors(run):
    stored = golden("golden_eit")
    error = 0.0
    for S, wanted in zip(stored["S"], stored["S_csi"], strict=True):
        parts = [(stored[name], stored[name.lower()]) for name in ("F0", "F1", "G0", "G1")]
        error = max(error, (run(S, *parts) - wanted).abs().max().item())
    if not error < 5e-5:
        return f"Two sequences of the author's code, three heads, kernels 7 and 3: you differ by {error:.2g}."


def fact_interactions_package(run):
    S, f0, f1, g0, g1 = drawn(M=2, seed=20)
    hidden = convolve_keys(S[None], *f0, groups=2).relu()
    error = (run(S, f0, f1, g0, g1) - interact(hidden, (f0, f1), (g0, g1))[1][0]).abs().max().item()
    if not error < 1e-4:
        return f"M = 2, kernels 3 and 5: you differ from refattn by {error:.2g}."


interactions = Exercise(
    "eit.interactions",
    answers.interactions,
    returns="logits [M, N, L]",
    probes=(
        Probe("Two heads, one query, one key, kernels of width 1.", little),
        Probe("Three heads, N = 4, L = 6, kernels 3 and 5.", drawn),
    ),
    variants=(
        Variant(
            "ReLU between the two",
            answers.interactions_relu_between,
            lambda run: f"{by_hand(run)}.",
            """Groups are right, and so are both ReLUs inside. A third one stands after f₁: the second interaction then
            never sees that a head said no.
            Try: print what f₁ returns. Which sign has it, and which has g₀'s input?""",
        ),
        Variant(
            "ReLU at the end",
            answers.interactions_relu_last,
            lambda run: f"{by_hand(run)}.",
            """All is right up to g₁. What it returns are logits: a negative one is a small weight, and 0 is a large one
            among negatives.
            Try: softmax of [-3, -1] and of [0, 0].""",
        ),
        Variant(
            "no ReLU",
            answers.interactions_linear,
            lambda run: f"{by_hand(run)}.",
            """Groups are right. But without a ReLU four convolutions are one: a linear map of M² logits.
            Try: where does the recap have them?""",
        ),
        Variant(
            "less the maximum",
            answers.interactions_less_maximum,
            lambda run: f"{by_hand(run)}.",
            """Subtracting a row's maximum is harmless right before a softmax. Here ReLUs come between: they do see what
            all logits of a row have in common.
            Try: add 5 to all logits of a row, and compare your results.""",
        ),
        Variant(
            "groups across queries",
            answers.interactions_by_key,
            lambda run: f"{by_hand(run)}.",
            """Shapes and ReLUs are right. Your groups are maps of one key head; inner means one *query* head, and
            those M maps are neighbours already.
            Try: no transpose; which maps does group 0 of f₀ read?""",
        ),
    ),
    properties=(Property("a map reaches all heads", fact_all_heads, "g has one group. Try: change one map."),),
    numbers=(
        Property("it equals refattn", fact_interactions_package, "f₀, ReLU, f₁, g₀, ReLU, g₁. Try: f alone."),
        Property("it equals the author's code", fact_interactions_authors, "Kernels 7 and 3. Try: f alone."),
    ),
    hints=(
        "Four convolutions, two ReLUs. How many groups has each convolution, and where do M² maps become M?",
        "f₀ with M groups, ReLU, f₁ with M groups; then g₀ with one, ReLU, g₁ with one. M = f1[0].shape[0].",
    ),
    passed="""Each head fuses its own M maps, then all heads speak, and the result keeps its sign.
    Next: between f₁ and g₀ there is no ReLU. Could they be one convolution? Think of the border.""",
)
