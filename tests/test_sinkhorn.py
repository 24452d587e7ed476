"""Sinkhorn attention beyond the invariants table: the sort by hand, hard permutations, padding, noise."""

import pytest
import torch

from refattn import attention, measure
from refattn.attention import sinkhorn
from refattn.attention.softmax import softmax_attention


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sort_of_the_plain_kind(R, iterations, is_causal=False):
    """Eq. (2) on e^R, entry by entry: the causal form sees w < u, and column sums end at row u."""
    n = len(R)
    S = R.exp().tril(-1) if is_causal else R.exp()
    for _ in range(iterations):
        S = S / S.sum(1, keepdim=True).clamp(min=1e-300)
        sums = torch.stack([S[: u + 1].sum(0) if is_causal else S.sum(0) for u in range(n)])
        S = S / sums.clamp(min=1e-300)
    return S


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_sort_by_logarithms_is_the_sort_by_division(is_causal):
    R = draw(1, 2, 6, 6)
    seen = torch.ones(6, 6, dtype=torch.bool).tril(-1) if is_causal else None
    for iterations in (1, 2, 8):
        found = sinkhorn.sinkhorn(R, iterations, seen=seen, is_causal=is_causal)
        wanted = torch.stack([sort_of_the_plain_kind(R[0, h], iterations, is_causal) for h in range(2)])
        torch.testing.assert_close(found[0], wanted)


def test_columns_sum_to_one_and_rows_ever_more_nearly():
    R = 3 * draw(1, 1, 6, 6)
    errors = []
    for iterations in (1, 5, 50):
        S = sinkhorn.sinkhorn(R, iterations)
        torch.testing.assert_close(S.sum(-2), torch.ones(1, 1, 6, dtype=torch.float64))
        errors.append((S.sum(-1) - 1).abs().max())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3


def test_a_low_temperature_makes_the_sort_a_permutation():
    W, k = torch.eye(4, dtype=torch.float64), torch.zeros(1, 1, 12, 4, dtype=torch.float64)
    order = [2, 0, 3, 1]
    for u, w in enumerate(order):
        k[0, 0, 3 * u, w] = 1.0
    S = sinkhorn.sort_matrix(k, W, torch.zeros(4).double(), block=3, temperature=0.02)
    assert S[0, 0].argmax(-1).tolist() == order
    torch.testing.assert_close(S, S.round())


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_sort_survives_logits_far_beyond_the_range_of_exp(is_causal):
    R = 1e4 * draw(1, 2, 6, 6).float()
    seen = torch.ones(6, 6, dtype=torch.bool).tril(-1) if is_causal else None
    S = sinkhorn.sinkhorn(R.requires_grad_(), 8, seen=seen, is_causal=is_causal)
    S.square().sum().backward()
    assert S.isfinite().all() and R.grad.isfinite().all()


def test_gradients_of_the_causal_sort_are_right():
    seen = torch.ones(5, 5, dtype=torch.bool).tril(-1)
    sort = lambda R: sinkhorn.sinkhorn(R, 3, seen=seen, is_causal=True)  # noqa: E731
    assert torch.autograd.gradcheck(sort, (draw(1, 2, 5, 5).requires_grad_(),))


def test_a_hard_permutation_is_attention_to_two_blocks():
    """concat: one softmax over both; sum_outputs: two attentions, added."""
    q, k, v = (draw(1, 1, 12, 4, seed=seed) for seed in range(3))
    order = torch.tensor([2, 0, 3, 1])
    S = torch.eye(4, dtype=torch.float64)[order][None, None]
    concat = sinkhorn.sinkhorn_attention(q, k, v, S, block=3)
    added = sinkhorn.sinkhorn_attention(q, k, v, S, block=3, combine="sum_outputs")
    for u, w in enumerate(order.tolist()):
        own, other = torch.arange(3 * u, 3 * u + 3), torch.arange(3 * w, 3 * w + 3)
        attend = lambda keys: softmax_attention(q[:, :, own], k[:, :, keys], v[:, :, keys])  # noqa: B023, E731
        torch.testing.assert_close(concat[:, :, own], attend(torch.cat([other, own])))
        torch.testing.assert_close(added[:, :, own], attend(other) + attend(own))


@pytest.mark.parametrize("masked", [False, True])
def test_an_incomplete_block_is_attended_to_as_far_as_it_goes(masked):
    """Under a hard permutation the query reads the real tokens of the brought block, and nothing in place of others."""
    tokens, mask = (12, torch.arange(12)[None] == 11) if masked else (11, None)
    q, k, v = (draw(1, 1, tokens, 4, seed=seed) for seed in range(3))
    S = torch.eye(4, dtype=torch.float64)[[3, 0, 1, 2]][None, None]
    y = sinkhorn.sinkhorn_attention(q, k, v, S, block=3, key_padding_mask=mask)
    keys = torch.tensor([0, 1, 2, 9, 10])
    wanted = softmax_attention(q[:, :, :3], k[:, :, keys], v[:, :, keys])
    torch.testing.assert_close(y[:, :, :3], wanted)


def test_causal_pooling_ends_with_the_first_token_of_its_block():
    k = draw(1, 2, 12, 4)
    pooled = sinkhorn.pool_blocks(k, 3, is_causal=True)
    for u in range(4):
        torch.testing.assert_close(pooled[:, :, u], k[:, :, : 3 * u + 1].sum(2))


def test_the_first_causal_block_has_only_itself():
    layer = attention.build("sinkhorn", 8, 2, block=4, is_causal=True).double()
    maps = layer.attention_maps(draw(2, 13, 8))
    assert not maps["S"][:, :, 0].any() and not maps["S"].triu().any()
    assert not maps["effective"][:, :, :4, 4:].any()


def test_maps_times_values_are_the_output():
    torch.manual_seed(0)
    for options in ({}, {"is_causal": True}, {"combine": "sum_outputs"}):
        layer = attention.build("sinkhorn", 8, 2, block=4, **options).double()
        x = draw(2, 13, 8)
        v = layer.projections(x)[2]
        y = layer.projections.merge(layer.attention_maps(x)["effective"] @ v)
        torch.testing.assert_close(y, layer(x)[0])


def test_more_blocks_than_the_sort_knows_are_refused():
    layer = attention.build("sinkhorn", 8, 2, block=4, max_len=10)
    layer(torch.zeros(1, 12, 8))  # three blocks, as many as ten tokens need
    with pytest.raises(ValueError, match="N=13 tokens, 4 blocks of 4: wanted at most max_len=10, max_blocks=3"):
        layer(torch.zeros(1, 13, 8))
    with pytest.raises(ValueError, match="max_blocks=3"):
        sinkhorn.sort_matrix(torch.zeros(1, 1, 13, 4), torch.zeros(3, 4), torch.zeros(3), block=4)


def test_noise_comes_from_its_seed_in_training_only_and_goes_on_after_loading():
    def build():
        torch.manual_seed(0)
        return attention.build("sinkhorn", 8, 2, block=4, gumbel_seed=5)

    layer, other, quiet = build(), build(), build().eval()
    x = draw(1, 16, 8).float()
    first, second = layer(x)[0], layer(x)[0]
    assert not torch.equal(first, second)
    torch.testing.assert_close(other(x)[0], first, rtol=0, atol=0)
    resumed = build()
    resumed.load_state_dict(other.state_dict())
    torch.testing.assert_close(resumed(x)[0], second, rtol=0, atol=0)
    torch.testing.assert_close(quiet(x)[0], quiet(x)[0], rtol=0, atol=0)
    torch.testing.assert_close(layer.eval()(x)[0], quiet(x)[0], rtol=0, atol=0)


def test_gumbel_noise_has_its_distribution():
    layer = attention.build("sinkhorn", 8, 2, block=1, gumbel_seed=0)
    noise = layer.gumbel(torch.zeros(1, 2, 300, 4))
    assert abs(noise.mean() - 0.5772) < 0.01 and abs(noise.var() - torch.pi**2 / 6) < 0.03


def test_scores_grow_linearly_with_the_length():
    layer = attention.build("sinkhorn", 32, 2, block=32, max_len=4096)
    kept = {n: measure.saved_bytes(lambda: layer(torch.randn(1, n, 32))[0]) for n in (1024, 2048)}  # noqa: B023
    assert kept[2048] < 2.4 * kept[1024]


MISTAKES = {
    "block=0": {"block": 0},
    "max_len=0": {"max_len": 0},
    "iterations=0": {"iterations": 0},
    "temperature=0": {"temperature": 0},
    "combine='sum'": {"combine": "sum"},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_option_is_named(words):
    with pytest.raises(ValueError, match=words):
        attention.build("sinkhorn", 8, 2, **MISTAKES[words])
