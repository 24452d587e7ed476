"""Synthesizer beyond the invariants table: its parts by hand, what they cost, what they bind to places."""

import pytest
import torch

from refattn import attention, measure
from refattn.attention import synthesizer

D, HEADS, LEN = 6, 2, 11


def make(*parts, **options):
    torch.manual_seed(0)
    layer = attention.build("synthesizer", D, HEADS, parts=parts, max_len=LEN, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return layer


def draw(tokens=9, batch=2):
    return torch.randn(batch, tokens, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(network, x, head):
    """Eq. (2) for one token x [D] and one head: as many numbers as the network has outputs."""
    W1, b1, W2, b2 = (t[head] for t in network.weights())
    return [
        sum(w * max(0.0, h) for w, h in zip(row, W1 @ x + b1, strict=True)) + b for row, b in zip(W2, b2, strict=True)
    ]


def test_dense_logits_by_hand():
    layer, x = make("dense"), draw()
    wanted = by_hand(layer.dense, x[1, 4], head=1)[:9]
    torch.testing.assert_close(layer.logits(x)[1, 1, 4], torch.stack(wanted))


@pytest.mark.parametrize("factors", [(4, 3), (3, 4), (1, 11), (11, 1), None])
def test_factorized_dense_logits_by_hand(factors):
    """Place j takes factor j // b of a and j % b of b, also where a · b is more than the places there are."""
    layer, x = make("factorized_dense", factors=factors), draw()
    a, b = (by_hand(network, x[1, 4], head=1) for network in (layer.a, layer.b))
    assert len(a) * len(b) >= LEN
    wanted = [a[j // len(b)] * b[j % len(b)] for j in range(9)]
    torch.testing.assert_close(layer.logits(x)[1, 1, 4], torch.stack(wanted))


def test_random_and_factorized_random_are_one_map_for_all_sequences():
    layer, x = make("random", "factorized_random", rank=2), draw()
    logits = layer.logits(x)
    assert logits.shape == (1, HEADS, 9, 9)
    wanted = layer.R[1, 4, 7] + layer.R1[1, 4, 0] * layer.R2[1, 7, 0] + layer.R1[1, 4, 1] * layer.R2[1, 7, 1]
    torch.testing.assert_close(logits[0, 1, 4, 7], wanted)
    effective = layer.attention_maps(x)["effective"]
    torch.testing.assert_close(effective[0], effective[1])


def test_a_mixture_is_weighted_by_a_softmax_and_a_sum_is_not():
    parts, x = ("dense", "random", "dot"), draw()
    layer = make(*parts, mix=True)
    maps = layer.attention_maps(x)
    torch.testing.assert_close(maps["mix"].sum().item(), 1.0)
    wanted = sum(weight * maps[part] for weight, part in zip(maps["mix"], parts, strict=True))
    torch.testing.assert_close(layer.logits(x), wanted)
    torch.testing.assert_close(maps["effective"], wanted.softmax(-1))
    layer.mix = None
    torch.testing.assert_close(layer.logits(x), sum(maps[part] for part in parts))


def test_the_output_is_the_effective_map_times_values():
    layer, x = make("dense", "dot"), draw()
    y = layer.projections.merge(layer.attention_maps(x)["effective"] @ layer.values(x))
    torch.testing.assert_close(y, layer(x)[0])


def test_only_the_places_in_use_get_a_gradient():
    layer = make("random")
    layer(draw(tokens=7))[0].square().sum().backward()
    assert (layer.R.grad[:, :7, :7] != 0).all()
    assert not layer.R.grad[:, 7:].any() and not layer.R.grad[:, :, 7:].any()


def test_parameter_counts_are_those_of_the_paper():
    """Besides W_V and W_O, and W_Q and W_K for dot: dense H (dD + d + N_max d + N_max), random H N_max², ..."""
    d = D // HEADS
    per_map = D * D + D
    counts = {
        "dense": HEADS * (d * D + d + LEN * d + LEN),
        "random": HEADS * LEN**2,
        "factorized_random": 2 * HEADS * LEN * 2,
        "factorized_dense": HEADS * (2 * (d * D + d) + (3 + 4) * (d + 1)),
        "dot": 2 * per_map,
    }
    for part, own in counts.items():
        layer = make(part, rank=2, factors=(3, 4))
        assert measure.count_parameters(layer) == 2 * per_map + own, part


def test_a_frozen_random_map_is_saved_but_not_trained():
    layer = make("random", train_random=False)
    assert "R" in layer.state_dict() and "R" not in dict(layer.named_parameters())


def test_a_sequence_beyond_max_len_is_refused_and_the_longest_is_not():
    layer = make("dense")
    layer(draw(tokens=LEN))
    with pytest.raises(ValueError, match=f"N=12 tokens: wanted at most max_len={LEN}"):
        layer(draw(tokens=LEN + 1))


def test_shared_projections_give_queries_keys_and_values():
    shared = attention.Projections(D, HEADS).double()
    layer = attention.build("synthesizer", D, HEADS, parts="dot", projections=shared, max_len=LEN).double()
    softmax = attention.build("softmax", D, HEADS, projections=shared)
    torch.testing.assert_close(layer(draw())[0], softmax(draw())[0])


def test_dropout_differs_between_sequences_that_share_a_map():
    layer = make("random", dropout=0.5)
    torch.manual_seed(0)
    y, _ = layer(draw()[:1].expand(2, -1, -1))
    assert not torch.allclose(y[0], y[1])


MISTAKES = {
    "parts=": [{"parts": ()}, {"parts": ("dense", "sparse")}, {"parts": ("dot", "dot")}],
    "factors=": [{"parts": "factorized_dense", "factors": (3, 3), "max_len": 10}],
    "max_len=0": [{"max_len": 0}],
    "rank=0": [{"rank": 0}],
    "hidden_dim=0": [{"hidden_dim": 0}],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_option_is_named(words):
    for options in MISTAKES[words]:
        with pytest.raises(ValueError, match=words):
            attention.build("synthesizer", D, HEADS, **options)


def test_logits_that_are_not_for_these_values_are_refused():
    with pytest.raises(ValueError, match="key_padding_mask"):
        mask = torch.zeros(1, 3, dtype=torch.bool)
        synthesizer.synthesizer_attention(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 3), key_padding_mask=mask)
