"""SReT: slices and their shuffling, shared blocks and their gradients, costs, depth, and the pointers task."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from refattn import attention, data, measure, train
from refattn.attention.softmax import softmax_attention
from refattn.layers.coefficients import CoefficientResidual
from refattn.layers.sliced import (
    Sliced,
    cut,
    inverse,
    put_back,
    slice_mask,
    sliced_attention,
    sliced_attention_explicit,
)
from refattn.models.sret import (
    RecursiveBlock,
    RecursiveClassifier,
    RecursiveStage,
    count_multiply_adds,
    soft_label_loss,
)
from refattn.models.sret_pyramid import PUBLISHED, SReT, count_weights, published
from refattn.reproduce.image_costs import multiply_adds

CYCLE = torch.tensor([1, 2, 0, 5, 3, 4])  # two 3-cycles: not its own inverse


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shuffled(tokens, seed=0):
    return torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))


def stage(**options):
    return RecursiveStage(8, 2, **{"ffn_hidden": 16} | options).double()


# ---- Slices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permutation", [None, CYCLE, shuffled(6)], ids=["in order", "cycles", "random"])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_slices_equal_the_mask_of_who_is_in_one_slice(groups, permutation):
    q, k, v = (numbers(2, 2, 6, 4, seed=s).requires_grad_() for s in range(3))
    fast = sliced_attention(q, k, v, groups, permutation=permutation)
    explicit = sliced_attention_explicit(q, k, v, groups, permutation=permutation)
    torch.testing.assert_close(fast, explicit, rtol=1e-12, atol=1e-12)
    weights = numbers(*fast.shape, seed=9)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), (q, k, v)) for y in (fast, explicit)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_one_slice_is_softmax_attention_and_slices_of_one_token_are_its_value():
    q, k, v = (numbers(1, 2, 6, 4, seed=s) for s in range(3))
    torch.testing.assert_close(sliced_attention(q, k, v, 1, permutation=CYCLE), softmax_attention(q, k, v))
    torch.testing.assert_close(sliced_attention(q, k, v, 6, permutation=CYCLE), v)


def test_what_was_shuffled_and_cut_is_put_back():
    x = numbers(2, 6, 3)
    assert torch.equal(put_back(cut(x, 2, CYCLE), CYCLE), x)
    assert torch.equal(cut(x, 2, CYCLE)[:, 0], x[:, [1, 2, 0]])  # place p holds token π(p)
    assert not torch.equal(inverse(CYCLE), CYCLE) and torch.equal(CYCLE[inverse(CYCLE)], torch.arange(6))


@pytest.mark.parametrize("permutation", [None, CYCLE])
def test_a_sliced_mechanism_applies_the_map_it_shows(permutation):
    layer = Sliced(attention.build("softmax", 8, 2)).double()
    x, slicing = numbers(2, 6, 8), {"groups": 3, "permutation": permutation}
    maps, projections = layer.attention_maps(x, **slicing), layer.attention.projections
    torch.testing.assert_close(projections.merge(maps["effective"] @ projections(x)[2]), layer(x, **slicing))
    heads = sliced_attention(*projections(x), 3, permutation=permutation)
    torch.testing.assert_close(projections.merge(heads), layer(x, **slicing))
    assert torch.equal(maps["effective"][0, 0] != 0, maps["allow"])
    assert torch.equal(maps["allow"], slice_mask(6, 3, permutation))


def test_padding_is_masked_inside_the_slice_it_was_shuffled_to():
    layer, x = Sliced(attention.build("softmax", 8, 2)).double(), numbers(1, 6, 8)
    mask = torch.tensor([[False, False, False, False, True, True]])
    other = x.clone()
    other[:, 4:] = 9.0
    a, b = (layer(t, groups=2, permutation=CYCLE, key_padding_mask=mask) for t in (x, other))
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert not torch.allclose(a[:, :4], layer(x, groups=2, permutation=CYCLE)[:, :4])


def test_without_shuffling_two_passes_never_leave_the_slice_and_with_it_they_do():
    def reached(permutation):
        first, second = slice_mask(64, 8), slice_mask(64, 8, permutation)
        return (second.float() @ first.float() > 0).float().mean().item()

    assert reached(None) == 1 / 8
    assert reached(shuffled(64)) > 0.6


# ---- Blocks, stages, networks ----------------------------------------------------------------------------------------

OWNERS = [name for name in attention.names() if attention.mechanism(name).owns_residual]


@pytest.mark.parametrize("name", [name for name in attention.names() if name not in OWNERS])
def test_any_mechanism_runs_on_slices_and_every_parameter_gets_a_gradient(name):
    model = RecursiveClassifier(7, 3, embed_dim=16, attention=name, loops=2, groups=(2, 2), nll_hidden=8, pool="none")
    inputs = torch.randint(7, (2, 16), generator=torch.Generator().manual_seed(0))
    logits = model(inputs)
    assert logits.shape == (2, 16, 3)
    logits.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", OWNERS)
def test_a_mechanism_with_a_residual_of_its_own_is_refused(name):
    with pytest.raises(ValueError, match=f"attention='{name}' owns its residual"):
        RecursiveBlock(8, 2, 16, attention=name)


def test_a_shared_blocks_gradient_is_the_sum_over_its_passes():
    shared, x = stage(blocks=1, loops=3, groups=(2, 2)), numbers(2, 6, 8)
    apart = stage(blocks=3, loops=1)
    for block in apart.blocks:
        block.load_state_dict(shared.blocks[0].state_dict())
    orders = [shuffled(6, seed) for seed in range(2)]
    y = shared(x, permutations=iter(orders))
    z = x
    for block, order in zip(apart.blocks, (None, *orders), strict=True):
        z = block(z, groups=2, permutation=order)
    torch.testing.assert_close(y, z)
    y.square().sum().backward(), z.square().sum().backward()
    for parameters in zip(shared.blocks[0].parameters(), *(b.parameters() for b in apart.blocks), strict=True):
        one, *three = (p.grad for p in parameters)
        torch.testing.assert_close(one, sum(three))


def test_passes_share_weights_and_neither_time_nor_activations():
    x = numbers(1, 12, 8)
    twice, blocks = stage(blocks=1, loops=2), stage(blocks=2, loops=1)
    assert 2 * measure.count_parameters(twice) == measure.count_parameters(blocks)
    assert measure.flops(twice, x) == measure.flops(blocks, x)
    assert measure.saved_bytes(twice, x) == measure.saved_bytes(blocks, x)
    assert sum(t.numel() for t in twice.state_dict().values()) == measure.count_parameters(twice)


def test_non_linear_projections_follow_every_application_or_every_block():
    assert len(stage(blocks=2, loops=3, nll_hidden=8).projections) == 6
    assert len(stage(blocks=2, loops=3, nll_hidden=8, shared_nll=True).projections) == 2
    states = []
    model = stage(blocks=2, loops=2, nll_hidden=8)
    x = numbers(1, 4, 8)
    y = model(x, states=states)
    assert len(states) == 4 and torch.equal(states[-1], y)
    torch.testing.assert_close(states[0], model.projections[0](model.blocks[0](x)))
    model = stage(blocks=2, loops=2, nll_hidden=8, shared_nll=True)
    model(x, states=states)
    for before, after, own in ((4, 5, 0), (5, 6, 1)):  # block 0 again, then block 1
        torch.testing.assert_close(states[after], model.projections[own](model.blocks[own](states[before])))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"loops": 2}, [(0, 4, False), (0, 2, True), (1, 4, False), (1, 2, True)]),
        ({"loops": 2, "official_marker": True}, [(0, 4, False), (0, 2, True), (1, 4, False), (1, 2, True)]),
        ({"loops": 2, "groups": (4, 1)}, [(0, 4, False), (0, 1, False), (1, 4, False), (1, 1, False)]),
        ({"loops": 3}, [(0, 4, False), (0, 2, True), (0, 2, True), (1, 4, False), (1, 2, True), (1, 2, True)]),
        (
            {"loops": 3, "official_marker": True},  # block 1 begins with what counts as a second pass
            [(0, 4, False), (0, 2, True), (0, 4, False), (1, 2, True), (1, 4, False), (1, 2, True)],
        ),
    ],
)
def test_which_application_is_sliced_how(options, wanted):
    assert stage(blocks=2, **{"groups": (4, 2)} | options).applications == wanted


def test_a_test_repeats_itself_unless_the_authors_way_is_asked_for():
    x = numbers(1, 12, 8)

    def same(model, **options):
        return torch.equal(model(x, **options), model(x, **options))

    model = stage(groups=(3, 3))
    assert not same(model.train()) and same(model.eval())
    assert not same(stage(groups=(3, 3), random_evaluation=True).eval())
    assert same(stage(groups=(3, 1), random_evaluation=True).eval()), "one slice needs no shuffling"
    drawn = [model(x, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(*drawn[:2]) and not torch.equal(*drawn[1:])
    assert torch.equal(model(x, permutations=iter([shuffled(12)])), drawn[0])
    second, third = (stage(loops=3, groups=(3, 3)).eval().permutation(64, place) for place in (1, 2))
    assert not torch.equal(second, third), "every application has an order of its own"


def test_a_network_with_coefficients_begins_as_one_without():
    x = numbers(1, 6, 8)
    learned, plain = (stage(nll_hidden=8, coefficients=c) for c in (True, False))
    torch.testing.assert_close(learned(x), plain(x))
    assert measure.count_parameters(learned) - measure.count_parameters(plain) == 4 + 2 * 2


def test_padding_is_read_by_no_pass_and_by_no_mean():
    model = RecursiveClassifier(7, 3, embed_dim=16, nll_hidden=8).double().eval()
    long = torch.randint(7, (2, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(8).expand(2, 8) >= 5
    torch.testing.assert_close(model(long, key_padding_mask=mask), model(long[:, :5]))


def test_dropout_acts_inside_the_branchs_coefficient():
    connection, x = CoefficientResidual(8, dropout=0.5).double(), numbers(16, 8)
    nn.init.constant_(connection.stream, 2.0), nn.init.constant_(connection.branch, 3.0)
    added = connection.after(x, torch.ones_like(x))[0] - 2 * x
    assert added.round(decimals=9).unique().tolist() == [0.0, 6.0], "3 times nothing, or 3 / (1 − rate)"
    torch.testing.assert_close(connection.eval().after(x, torch.ones_like(x))[0], 2 * x + 3)


@torch.no_grad()
def test_a_test_compiles_to_one_graph_for_each_length():
    torch.compiler.reset()
    model = stage(groups=(3, 3)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    for x in (numbers(1, 6, 8), numbers(1, 9, 8)):
        torch.testing.assert_close(compiled(x), model(x))


def test_a_hundred_passes_through_one_block_learn():
    task = data.pointers(symbols=6, hops=2, batch_size=16, test_size=16)
    task = replace(task, batch=lambda step: task.test)  # one batch again and again: nothing but steps lowers the loss
    facts = {"embed_dim": 16, "num_heads": 2, "max_len": 6, "ffn_hidden": 32, "pool": "none"}
    model = RecursiveClassifier(6, 6, loops=100, **facts)
    assert len(model.stage.applications) == 100 and measure.count_parameters(model.stage) < 2400
    history = train.fit(model, task, steps=16, lr=3e-3, warmup=4, device="cpu", progress=False)
    assert max(history.losses[-4:]) < min(history.losses[:4]) - 0.05
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.stage.parameters())


def pyramid(**options):
    return SReT(16, 5, widths=(6, 12), heads=(1, 2), groups=((4, 2), (2, 1)), stem_strides=(2, 2), **options)


def test_a_pyramid_reads_images_and_every_parameter_gets_a_gradient():
    model, images = pyramid(blocks=2), torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    maps = model.eval().attention_maps(images)
    assert [m["effective"].shape for m in maps] == [(3, 1, 16, 16)] * 4 + [(3, 2, 4, 4)] * 4
    assert torch.equal(model(images), model(images))


def test_the_last_norm_sees_the_mean_of_an_odd_grid_too():
    model, seen = SReT((17, 23), 5), []
    model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    assert model(torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(0))).shape == (1, 5)
    assert seen == [(1, 64)]


def test_first_weights_are_the_authors_and_every_stage_has_its_own():
    model = SReT(16, 5, widths=(16, 16), heads=(2, 2), stem_strides=(2,))
    queries = []
    for one in model.stages:
        maps = one.blocks[0].attention.attention.projections
        for linear in (maps.query, maps.key, maps.value, maps.output):  # uniform below 1 / √16, biases too
            assert 0.9 < linear.weight.abs().max() * 4 <= 1.0 and linear.bias.any()
        queries.append(maps.query.weight)
    assert not torch.equal(*queries)
    assert model.positions.std().item() == pytest.approx(0.02, rel=0.1)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_state_dict_and_counts_hold_a_shared_block_once():
    model = pyramid(blocks=1, loops=4)
    assert (
        sum(p.numel() for p in model.state_dict(keep_vars=True).values() if p.requires_grad)
        == count_weights(model)["total"]
    )
    assert count_weights(model)["total"] == measure.count_parameters(model)


def test_soft_labels():
    teacher, student = numbers(4, 7).requires_grad_(), numbers(4, 7, seed=1).requires_grad_()
    hard = F.cross_entropy(student, teacher.argmax(1))
    torch.testing.assert_close(soft_label_loss(student, 1e4 * teacher), hard)
    for temperature in (1.0, 3.0):
        same = teacher.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(soft_label_loss(same, teacher, temperature), same)
        assert slope.abs().max() < 1e-12, "least where both agree"
    doubled = soft_label_loss(2 * student, 2 * teacher, 2.0)
    torch.testing.assert_close(doubled, soft_label_loss(student, teacher))
    doubled.backward()
    assert student.grad.any() and teacher.grad is None


# ---- Costs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [(1, 1), (4, 2), (6, 6)])
def test_multiply_adds_of_a_stage_are_those_of_the_equation(groups):
    model, x = stage(blocks=2, groups=groups, nll_hidden=8), numbers(1, 24, 8)
    hidden = {"ffn_hidden": 16, "nll_hidden": 8}
    counts = [count_multiply_adds(24, 8, groups=g, **hidden)["total"] for _, g, _ in model.applications]
    assert measure.flops(model, x) == 2 * sum(counts)


def formula(widths, ratio, nll_ratio, image=224, classes=1000, applications=(4, 10, 6), blocks=(2, 5, 3)):
    """The card's count of parameters."""
    first, last = widths[0], widths[-1]
    total = 27 * (first // 2) + 3 * (first // 2) + 9 * (first // 2) * first + 3 * first + 9 * first**2 + 3 * first
    total += first * (image // 8) ** 2 + sum(10 * C for C in widths[1:]) + 2 * last + last * classes + classes
    for C, L, K in zip(widths, applications, blocks, strict=True):
        h, hidden = int(ratio * C), int(nll_ratio * C)
        total += K * (4 * C**2 + 8 * C + 2 * h * C + h + C + 4) + L * (2 * hidden * C + hidden + 3 * C + 2)
    return total


COUNTS = {"T": 4_755_979, "LT": 4_988_024, "S": 20_899_692, "LT-16-14-1": 4_988_024}  # of the card


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_the_parameters_of_the_formula_and_save_what_the_paper_says(name):
    with torch.device("meta"):
        model, whole = published(name), published(name, sliced=False)
    shape = PUBLISHED[name]
    counted = formula(shape["widths"], shape["ffn_ratio"], shape["nll_ratio"])
    assert count_weights(model)["total"] == counted == COUNTS[name]
    sliced, plain = (sum(multiply_adds(m).values()) for m in (model, whole))
    assert 0.10 < 1 - sliced / plain < 0.19


# ---- Bad input, and the task -----------------------------------------------------------------------------------------


def sliced_twice(permutations):
    return RecursiveClassifier(7, 3, groups=(2, 2))(torch.ones(1, 6, dtype=torch.long), permutations=permutations)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: cut(torch.ones(1, 6, 2), 4), "groups=4: wanted a divisor of the N=6 tokens"),
        (lambda: cut(torch.ones(1, 6, 2), 2, torch.arange(5)), r"permutation has shape \(5,\)"),
        (lambda: sliced_attention(*torch.ones(3, 1, 1, 6, 2), 5), "groups=5"),
        (lambda: stage(loops=0), "loops=0"),
        (lambda: stage(groups=(2, 0)), r"groups=\(2, 0\)"),
        (lambda: stage(groups=(2,), official_marker=True), "wanted two with official_marker"),
        (lambda: stage(nll_hidden=0), "nll_hidden=0: wanted positive numbers, or nll_hidden=None"),
        (lambda: stage(groups=(2, 2))(numbers(1, 6, 8), permutations=iter([])), "permutation None: wanted"),
        (lambda: RecursiveClassifier(4, 4, pool="last"), "pool='last'"),
        (lambda: sliced_twice([]), "permutations has 0 entries: wanted one a shuffled application, 1"),
        (lambda: sliced_twice([CYCLE, CYCLE]), "permutations has 2 entries"),
        (lambda: sliced_twice([CYCLE * 0]), r"permutation of shape \(6,\): wanted \[N=6\] with each of 0 … 5 once"),
        (lambda: sliced_twice([torch.arange(5)]), r"permutation of shape \(5,\)"),
        (lambda: soft_label_loss(*torch.ones(2, 3, 4, 5)), r"student \(3, 4, 5\), .*wanted logits \[B, classes\]"),
        (lambda: soft_label_loss(torch.ones(3, 5), torch.ones(1, 5)), r"teacher \(1, 5\)"),
        (lambda: published("XL"), "name='XL': wanted one of T, LT"),
        (lambda: SReT(32, 5, widths=(8, 12), heads=(1, 1)), "wanted each to be a multiple"),
        (lambda: SReT(32, 5, widths=(8, 16), heads=(1,)), "heads has 1 entries"),
        (lambda: SReT(32, 5, widths=(8, 16), heads=(1, 1), blocks=(1, 2, 3)), "blocks has 3 entries"),
        (lambda: SReT(32, 5, nll_ratio=0.0), "nll_hidden=0"),
        (lambda: SReT(32, 5, groups=()), r"groups=\(\)"),
        (lambda: SReT(24, 5, groups=(3, 2)), r"groups=\(3, 2\) of stage 0: wanted divisors of its 3 × 3 tokens"),
        (lambda: SReT(32, 5, groups=((4, 2), (3, 1))), r"groups=\(3, 1\) of stage 1: .* 2 × 2 tokens"),
        (lambda: pyramid()(torch.ones(1, 3, 16, 16), permutations=[]), "permutations has 0 entries"),
        (lambda: pyramid()(torch.ones(1, 3, 8, 8)), r"images have shape \(1, 3, 8, 8\): wanted \[B, 3, 16, 16\]"),
        (lambda: data.pointers(symbols=1), "symbols=1"),
        (lambda: data.pointers(hops=0), "hops=0"),
    ],
)
def test_wrong_input_is_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()


@pytest.mark.parametrize(("symbols", "hops"), [(8, 3), (10, 5), (4, 1)])
def test_pointers_are_followed_hop_by_hop(symbols, hops):
    task = data.build("pointers", symbols=symbols, hops=hops, batch_size=6, test_size=10)
    assert (task.vocab_size, task.num_classes, task.max_len) == (symbols,) * 3
    for batch in (task.batch(0), task.test):
        for step, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
            for start, target in enumerate(targets):
                place = start
                for _ in range(hops):
                    place = step[place]
                assert place == target
    assert torch.equal(task.batch(3)["inputs"], task.batch(3)["inputs"])
    assert not torch.equal(task.batch(3)["inputs"], task.batch(4)["inputs"])
