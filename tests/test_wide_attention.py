"""Wide Attention: shapes and what they weigh, gradients, any mechanism, masks, contributions, bad input."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from refattn import attention, data, measure
from refattn.data.help_pages import PAGES
from refattn.models.wide_attention import (
    WideClassifier,
    WideEncoder,
    WideMatcher,
    count_multiply_adds,
    count_weights,
    shapes,
)
from refattn.reproduce.aspect_ratio import last_layer, losses_without, rank_agreement, rollout, weigh_grid
from refattn.reproduce.wide_attention import TEN, WHOLE, reach, ten_pages

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 6], [2, 7, 1, 8, 0, 0, 0]])
MASK = IDS == 0


def model(layers=1, heads=6, **options):
    sizes = {"embed_dim": 8, "head_dim": 4, "ffn_dim": 16, "max_len": 16}
    return WideClassifier(11, 3, num_layers=layers, num_heads=heads, **sizes | options)


def test_shapes_come_deepest_first():
    assert shapes(12) == [(12, 1), (6, 2), (4, 3), (3, 4), (2, 6), (1, 12)]
    assert shapes(12, (1, 6)) == [(6, 2), (1, 12)]


@pytest.mark.parametrize(("layers", "heads"), shapes(12))
def test_counts_are_those_of_the_equations(layers, heads):
    found = model(layers, heads)
    sizes = {"embed_dim": 8, "num_layers": layers, "num_heads": heads, "head_dim": 4, "ffn_dim": 16}
    assert measure.count_parameters(found) == count_weights(11, 3, **sizes)["total"]
    x = found.encoder.embed(IDS)[0][:1]
    assert measure.flops(found.encoder.stack, x.detach()) == 2 * count_multiply_adds(8, **sizes)["total"]


def test_attention_weighs_the_same_in_every_shape_and_bytes_halve():
    sizes = {"embed_dim": 512, "head_dim": 64, "ffn_dim": 2048}
    counts = [count_weights(257, 2, num_layers=n, num_heads=h, **sizes) for n, h in shapes(48, (6, 3, 2, 1))]
    assert {count["attention"] for count in counts} == {4 * 512 * 48 * 64}
    assert round(counts[0]["total"] / counts[-1]["total"], 2) == 2.10


@pytest.mark.parametrize("name", TEN)
def test_every_mechanism_trains_all_its_weights_in_every_shape(name):
    for layers, heads in ((3, 2), (1, 6)):
        found = model(layers, heads, attention=name, attention_options=reach(8, 4).get(name))
        found(IDS, key_padding_mask=MASK).square().sum().backward()
        without = [n for n, p in found.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not without


def test_padding_is_not_read():
    found = model(2, 3).eval()
    with torch.no_grad():
        short = found(IDS[1:, :4])
        torch.testing.assert_close(found(IDS, key_padding_mask=MASK)[1:], short)
        mean = model(2, 3, pool="mean").eval()
        torch.testing.assert_close(mean(IDS, key_padding_mask=MASK)[1:], mean(IDS[1:, :4]))


def test_the_cls_token_is_hidden_only_where_the_authors_hide_it():
    ids, mask = torch.tensor([[0, 1, 2]]), torch.tensor([[True, False, False]])
    ours, theirs = (
        model(official=official).attention_maps(ids, key_padding_mask=mask)[0]["self"]["effective"][..., 0]
        for official in (False, True)
    )
    assert ours.all() and not theirs.any()


def test_first_weights_are_those_of_the_long_range_arena():
    found = WideClassifier(257, 3, embed_dim=32, num_heads=4, head_dim=8, ffn_dim=64)
    feed = found.encoder.stack.blocks[0].feed_forward
    for linear in (feed.up, feed.down):  # Xavier: uniform below √(6 / (32 + 64))
        assert 0.97 < linear.weight.abs().max() / (6 / 96) ** 0.5 <= 1.0
        assert 0 < linear.bias.abs().max() < 1e-5
    assert found.encoder.tokens.weight.std().item() == pytest.approx(1.0, rel=0.05) and not found.encoder.cls.any()
    x = torch.linspace(-3, 3, 7)
    assert torch.equal(feed.activation(x), F.gelu(x, approximate="tanh"))
    assert {m.eps for m in found.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


def test_dropout_reaches_embeddings_and_is_off_where_contributions_are_counted():
    encoder = model(dropout=0.5).encoder
    with torch.random.fork_rng():
        torch.manual_seed(0)
        once, again = (encoder.embed(IDS)[0] for _ in range(2))
    assert not torch.equal(once, again)
    starts = [encoder.contributions(IDS)["start"] for _ in range(2)]
    assert torch.equal(*starts) and all(module.training for module in encoder.modules())


REFUSED = ("luna", "mega", "vicinity")  # two maps, a whole layer, features gated after the map
ADDING = [name for name in attention.names() if name not in REFUSED]


@pytest.mark.parametrize(("name", "mask"), [(n, None) for n in ADDING] + [(n, MASK) for n in TEN])
def test_contributions_sum_to_the_cls_token(name, mask):
    encoder = model(attention=name, attention_options=reach(8, 4).get(name)).double().encoder
    parts = encoder.contributions(IDS, key_padding_mask=mask)
    whole = parts["start"] + parts["heads"].sum((1, 2)) + parts["mlp"]
    torch.testing.assert_close(encoder.stack.norm(whole), encoder(IDS, key_padding_mask=mask), rtol=0, atol=1e-10)
    assert parts["heads"].shape == (2, 6, 8, 8) and parts["weights"].shape == (2, 6, 8)


@pytest.mark.parametrize("interaction", ["nli", "none"])
def test_a_matcher_reads_two_documents_by_one_encoder_and_compares_their_vectors(interaction):
    found = WideMatcher(11, embed_dim=8, num_heads=6, head_dim=4, max_len=16, interaction=interaction).double()
    other, other_mask = IDS[:, 1:6], MASK[:, 1:6]
    a, b = found.encoder(IDS, key_padding_mask=MASK), found.encoder(other, key_padding_mask=other_mask)
    first, second, third = found.head
    assert [first.out_features, second.out_features, third.out_features] == [32, 16, 2]
    x = torch.cat([a, b, a * b, a - b] if interaction == "nli" else [a, b], -1)
    logits = found(IDS, other=other, key_padding_mask=MASK, other_mask=other_mask)
    torch.testing.assert_close(logits, third(second(first(x).relu()).relu()))


def contributions_of(name):
    return model(heads=2, attention=name).encoder.contributions(IDS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapes(12, (5,)), "depths=.*5 does not divide total_heads=12"),
        (lambda: shapes(0), "total_heads=0"),
        (lambda: WideEncoder(11, use_cls=False), "pool='cls' with use_cls=False"),
        (lambda: WideMatcher(11, interaction="sum"), "interaction='sum'"),
        (lambda: model(2, 3, attention_options=[{}]), "attention_options has 1 entries"),
        (lambda: model(2, 3).encoder.contributions(IDS), "wanted one layer"),
        (lambda: model(attention_options={"bias": True}).encoder.contributions(IDS), "without a bias"),
        *((partial(contributions_of, name), "wanted a map times values") for name in REFUSED),
        (lambda: model()(IDS.float()), "wanted integer ids"),
    ],
)
def test_bad_input_is_answered_with_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- What attention weights explain ----------------------------------------------------------------------------------


def showing(*maps):
    """A network whose layers have these maps [n, n]."""
    return SimpleNamespace(attention_maps=lambda inputs: [{"self": {"effective": m[None, None]}} for m in maps])


def test_a_rollout_goes_from_the_last_layer_to_the_first():
    first, last = (torch.rand(3, 3, generator=torch.Generator().manual_seed(s)).softmax(-1) for s in (0, 1))
    wanted = ((last + torch.eye(3)) / 2) @ ((first + torch.eye(3)) / 2)
    torch.testing.assert_close(rollout(showing(first, last), None), wanted[None, 0, 1:])
    torch.testing.assert_close(last_layer(showing(first, last), None), last[None, 0, 1:])


class Sum(torch.nn.Module):
    """Logits: the sum of what is seen, and 0."""

    def forward(self, inputs, key_padding_mask=None):
        seen = inputs if key_padding_mask is None else inputs.masked_fill(key_padding_mask, 0)
        return torch.stack([seen.sum(1), torch.zeros_like(seen[:, 0])], 1).double()


def test_a_loss_without_a_token_is_that_of_the_class_predicted_with_it():
    inputs = torch.tensor([[1, 3, 0], [2, -9, 5]])  # of classes 0 and 1
    total, sign = inputs.sum(1, keepdim=True), torch.tensor([[1], [-1]])
    wanted = F.logsigmoid((sign * total).double()) - F.logsigmoid((sign * (total - inputs)).double())
    torch.testing.assert_close(losses_without(Sum(), inputs), wanted)


def test_explanations_are_computed_where_the_model_is():
    assert losses_without(Sum(), IDS.to("meta")).device.type == "meta"
    assert rollout(showing(torch.ones(3, 3, device="meta")), None).device.type == "meta"


def test_agreement_is_of_ranks_with_sizes_and_none_where_nothing_is_ranked():
    scores, effects = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, -5.0, 900.0]])
    assert rank_agreement(scores, effects) == pytest.approx(1.0)
    assert rank_agreement(scores, effects.flip(1)) == pytest.approx(-1.0)
    assert rank_agreement(scores, torch.ones(1, 3)) == rank_agreement(torch.ones(1, 3), effects) == 0.0
    both = torch.cat([effects, torch.ones(1, 3)])
    assert rank_agreement(scores.expand(2, 3), both) == pytest.approx(0.5), "a mean over sequences"


# ---- Its data and its grid -------------------------------------------------------------------------------------------


def test_passages_are_from_the_page_they_name_and_those_for_testing_lie_in_other_blocks(monkeypatch):
    from pydoc_data import topics

    def made_up(seed):  # the real pages repeat phrases, and differ between versions of Python
        return bytes(torch.randint(97, 123, (8000,), generator=torch.Generator().manual_seed(seed)).tolist()).decode()

    monkeypatch.setattr(topics, "topics", {name: made_up(seed) for seed, name in enumerate(PAGES)})
    task = data.help_pages(length=48, batch_size=256, test_size=256)
    pages = [topics.topics[name].encode() for name in PAGES]
    seen = set()
    for batch in (*map(task.batch, range(20)), task.test):
        for row, target in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
            assert bytes(row) in pages[target]
            if batch is not task.test:
                seen |= {tuple(row[i : i + 40]) for i in range(9)}
    assert len(seen) > 10_000
    assert not any(tuple(row[i : i + 40]) in seen for i in range(9) for row in task.test["inputs"].tolist())
    assert len(task.test["targets"].unique()) == len(PAGES)


def test_pages_differ_between_seeds_and_agree_for_a_step():
    one, again, other = (data.help_pages(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.batch(3)["inputs"], again.batch(3)["inputs"])
    assert not torch.equal(one.batch(3)["inputs"], other.batch(3)["inputs"])
    with pytest.raises(ValueError, match="length=513"):
        data.help_pages(length=513)


def test_a_groups_costs_are_the_sums_of_its_members():
    def make(task, seed, mechanism, shape):
        return model(*shape, attention=mechanism)

    plan = {"mechanisms": ("softmax", "linear"), "shapes": [(2, 1), (1, 2)], "groups": {"both": ("softmax", "linear")}}
    sizes = {"tokens": 6, "vocab_size": 11, "num_classes": 3, "rounds": 2, "min_seconds": 0.0}
    found = weigh_grid(make, **plan, **sizes)["variants"]
    for shape in ("2×1", "1×2"):
        both, softmax, linear = (found[f"{name} {shape}"] for name in ("both", "softmax", "linear"))
        for key in ("weights", "saved_bytes", "seconds"):
            wanted = [a + b for a, b in zip(softmax[key], linear[key], strict=True)]
            assert both[key] == pytest.approx(wanted, rel=1e-2) and min(wanted) > 0
    assert found["softmax 2×1"]["weights"] == [measure.count_parameters(model(2, 1))]


def test_every_mechanism_is_told_the_length_and_how_far_to_reach():
    told = reach(33, 8)
    assert told["local"] == {"window": 8} and told["linformer"] == {"max_len": 33, "projected_len": 16}
    assert set(told) < set(TEN)


def test_a_groups_numbers_are_the_means_of_its_members_seed_by_seed():
    plan = ten_pages.plans["study"]
    runs = ten_pages.runs(plan)
    assert not any(name in ten_pages.groups for name, _ in runs)
    keys = ("accuracy", "loss", "training_loss", "training_seconds")
    numbers = [{key: float(i) for key in keys} | {"parameters": i, "guessing": {}} for i in range(len(runs))]
    found = ten_pages.record(plan, numbers)["variants"]
    assert list(found) == ten_pages.names(plan)
    for group, members in WHOLE.items():
        own = [found[f"{name} 6×2"] for name in members]
        together = found[f"{group} 6×2"]
        assert together["parameters"] == sum(v["parameters"] for v in own)
        wanted = [sum(values) / len(own) for values in zip(*(v["accuracy"] for v in own), strict=True)]
        assert together["accuracy"] == pytest.approx(wanted, abs=1e-6)
