"""What low-rank and hashed attention leave out: known cases of what the experiments measure."""

import pytest
import torch

from refattn import data
from refattn.attention.softmax import softmax_attention, softmax_weights
from refattn.reproduce import approximations
from refattn.reproduce.bigbird import allowed, predicted, scanner
from refattn.reproduce.linformer import pixels, softmax_scanner


def test_shares_of_known_maps():
    equal_rows = torch.full((1, 6, 6), 1 / 6)
    torch.testing.assert_close(approximations.shares(equal_rows), torch.ones(6))
    torch.testing.assert_close(approximations.shares(torch.eye(6)[None]), torch.arange(1, 7) / 6)


def test_the_last_layers_heads_are_those_of_the_model():
    task = data.digits(as_sequence=True)
    model, inputs = scanner(task, 0, attention="softmax"), task.test["inputs"][:3]
    q, k, _ = approximations.last_heads(model, inputs)
    torch.testing.assert_close(softmax_weights(q, k), model.attention_maps(inputs)[-1]["self"]["effective"])


def test_the_best_map_of_full_rank_keeps_all_and_fitting_improves_a_draw():
    options = {"steps": 2, "training": {"lr": 1e-3}, "fitting": 40}
    kept = {
        rank: approximations.projections_kept(pixels, softmax_scanner, range(1), rank=rank, **options)["variants"]
        for rank in (8, 64)
    }
    assert kept[64]["best of rank 64"]["kept"][0] == pytest.approx(1, abs=1e-4)
    for found in kept.values():
        assert found["fitted E, F"]["kept"][0] > found["random E, F"]["kept"][0]


def test_linformer_with_the_identity_keeps_all():
    q, k, v = torch.randn(3, 2, 1, 8, 4, generator=torch.Generator().manual_seed(0))
    E = torch.eye(8)
    torch.testing.assert_close(approximations.linformer_attention(q, k, v, E, E), softmax_attention(q, k, v))
    fitted = approximations.fit_projections(q, k, v, [E, E], steps=3)
    assert all((matrix - E).abs().max() < 0.1 for matrix in fitted)


def test_more_rounds_meet_more_and_random_pairs_meet_their_share():
    shape = {"tokens": 64, "width": 8, "clusters": 4, "spread": 0.3, "buckets": 8}
    found = approximations.mass_met(range(4), (1, 4, 16), **shape)
    hashed, drawn = (
        [found["variants"][f"{kind} R={r}"]["recall"] for r in found["rounds"]] for kind in ("reformer", "random pairs")
    )
    for fewer, more in zip(hashed, hashed[1:], strict=False):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))
    for recall, density in zip(drawn, found["density"], strict=True):
        assert sum(recall) / 4 == pytest.approx(density, abs=0.06)
    assert all(met > by_chance + 0.1 for met, by_chance in zip(hashed[0], drawn[0], strict=True))


def test_random_pairs_are_as_many_and_allowed():
    mask = approximations.random_pairs(~torch.eye(9, dtype=torch.bool), 20, seed=0)
    assert mask.sum() == 20 and not mask.diagonal().any()


@pytest.mark.parametrize("name, layers, level", [("softmax", 1, 1.0), ("local blocks", 2, 0.2344), ("bigbird", 2, 1.0)])
def test_predicted_accuracies(name, layers, level):
    """What a block of 8 of 64 hears, and one in 8 of the rest: 1/8 + 7/8 · 1/8."""
    assert predicted(name, layers) == level


def test_every_pattern_lets_a_token_read_itself():
    assert allowed("sparse_transformer fixed").diagonal().all() and allowed("bigbird").diagonal().all()
