"""Wide Attention: shapes and what they weigh, gradients, any mechanism, masks, contributions, bad input."""

import pytest
import torch

from refattn import data, measure
from refattn.data.help_pages import PAGES
from refattn.models.wide_attention import (
    WideClassifier,
    WideEncoder,
    WideMatcher,
    count_multiply_adds,
    count_weights,
    shapes,
)
from refattn.reproduce.wide_attention import TEN, WHOLE, reach, ten_pages

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 6], [2, 7, 1, 8, 0, 0, 0]])
MASK = IDS == 0


def model(layers=1, heads=6, **options):
    sizes = {"embed_dim": 8, "head_dim": 4, "ffn_dim": 16, "max_len": 16}
    return WideClassifier(11, 3, num_layers=layers, num_heads=heads, **sizes | options)


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


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
def test_contributions_sum_to_the_cls_token(mask):
    encoder = model().double().encoder
    parts = encoder.contributions(IDS, key_padding_mask=mask)
    whole = parts["start"] + parts["heads"].sum((1, 2)) + parts["mlp"]
    torch.testing.assert_close(encoder.stack.norm(whole), encoder(IDS, key_padding_mask=mask), rtol=0, atol=1e-10)
    assert parts["heads"].shape == (2, 6, 8, 8) and parts["weights"].shape == (2, 6, 8)


def test_two_documents_share_one_encoder():
    found = WideMatcher(11, embed_dim=8, num_heads=6, head_dim=4, max_len=16).eval()
    with torch.no_grad():
        logits = found(IDS, other=IDS[:, :5], key_padding_mask=MASK, other_mask=MASK[:, :5])
        swapped = found(IDS[:, :5], other=IDS, key_padding_mask=MASK[:, :5], other_mask=MASK)
    assert logits.shape == (2, 2) and not torch.allclose(logits, swapped)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapes(12, (5,)), "depths=.*5 does not divide total_heads=12"),
        (lambda: shapes(0), "total_heads=0"),
        (lambda: WideEncoder(11, use_cls=False), "pool='cls' with use_cls=False"),
        (lambda: WideMatcher(11, interaction="sum"), "interaction='sum'"),
        (lambda: model(2, 3, attention_options=[{}]), "attention_options has 1 entries"),
        (lambda: model(2, 3).encoder.contributions(IDS), "wanted one layer"),
        (lambda: model()(IDS.float()), "wanted integer ids"),
    ],
)
def test_bad_input_is_answered_with_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- Its data and its grid -------------------------------------------------------------------------------------------


def test_passages_are_from_the_page_they_name_and_those_for_testing_lie_in_other_blocks():
    from pydoc_data import topics

    task = data.help_pages(length=48, batch_size=256, test_size=256)
    pages = [topics.topics[name].encode("ascii", "ignore") for name in PAGES]
    seen = set()
    for batch in (*map(task.batch, range(20)), task.test):
        for row, target in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
            assert bytes(row) in pages[target]
            if batch is not task.test:
                seen |= {tuple(row[i : i + 40]) for i in range(9)}
    met = sum(any(tuple(row[i : i + 40]) in seen for i in range(9)) for row in task.test["inputs"].tolist())
    assert met < 0.1 * len(task.test["inputs"]), "only phrases that a page repeats; without a border a third are met"
    assert len(task.test["targets"].unique()) == len(PAGES)


def test_pages_differ_between_seeds_and_agree_for_a_step():
    one, again, other = (data.help_pages(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.batch(3)["inputs"], again.batch(3)["inputs"])
    assert not torch.equal(one.batch(3)["inputs"], other.batch(3)["inputs"])
    with pytest.raises(ValueError, match="length=513"):
        data.help_pages(length=513)


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
