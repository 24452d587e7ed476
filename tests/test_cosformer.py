"""cosFormer beyond the invariants table: the cosine, its length, rows without support."""

import math

import pytest
import torch

from refattn import attention, measure
from refattn.attention import cosformer


def heads(tokens=9, keys=None, d=4, dtype=torch.float64, seed=0):
    """q [2, 2, N, d] and k, v [2, 2, M, d]."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randn(2, 2, n, d, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    return draw(tokens), draw(keys or tokens), draw(keys or tokens)


@pytest.mark.parametrize("is_causal", [False, True])
def test_weights_are_the_authors_two_sums_by_hand(is_causal):
    """Loops over pairs with sines and cosines of positions that begin at one, as the authors' code has them."""
    q, k, v = heads()
    found = cosformer.cosformer_weights(q, k, is_causal=is_causal, max_len=None)
    row = torch.zeros(9, dtype=torch.float64)
    for j in range(6 if is_causal else 9):
        a, b = (math.pi / 2 * (position + 1) / 9 for position in (5, j))
        product = (q[1, 0, 5].clamp(min=0) * k[1, 0, j].clamp(min=0)).sum()
        row[j] = product * (math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b))
    torch.testing.assert_close(found[1, 0, 5], row / row.sum())


def test_equal_tokens_are_weighted_by_their_distance_alone():
    ones = torch.ones(1, 1, 8, 3, dtype=torch.float64)
    weights = cosformer.cosformer_weights(ones, ones, max_len=8)[0, 0, 0]
    wanted = (math.pi / 2 * torch.arange(8, dtype=torch.float64) / 8).cos()
    torch.testing.assert_close(weights / weights[0], wanted)
    flat = cosformer.cosformer_weights(ones, ones, max_len=1024)[0, 0, 0]
    assert flat.min() > 0.9999 * flat.max(), "a max_len far beyond the sequence makes the cosine flat"


def test_the_authors_length_changes_the_past_and_a_constant_one_does_not():
    q, k, v = heads(12)
    for max_len, same in ((64, True), (None, False)):
        options = {"is_causal": True, "max_len": max_len}
        whole = cosformer.cosformer_attention(q, k, v, **options)
        prefix = cosformer.cosformer_attention(*(t[:, :, :8] for t in (q, k, v)), **options)
        assert torch.allclose(whole[:, :, :8], prefix, rtol=1e-9) == same


def test_padding_behind_the_context_changes_nothing():
    """In cross attention; on the left it would move the context's positions."""
    q, k, v = heads(5, 140)
    alone = cosformer.cosformer_attention(q, k, v)
    longer = [torch.cat([t, 1e3 * torch.ones_like(t[:, :, :6])], 2) for t in (k, v)]
    mask = (torch.arange(146) >= 140).expand(2, -1)
    torch.testing.assert_close(cosformer.cosformer_attention(q, *longer, key_padding_mask=mask), alone)


def test_a_query_without_a_positive_entry_gets_zero_and_the_others_an_average():
    q, k, v = heads(50)
    q[:, :, 7] = -q[:, :, 7].abs()
    y = cosformer.cosformer_attention(q, k, v)
    assert (y[:, :, 7] == 0).all()
    total = cosformer.cosformer_weights(q, k).sum(-1)
    active = (q > 0).any(-1)
    torch.testing.assert_close(total, active.double())


def test_the_lengths_of_queries_and_keys_do_not_matter():
    q, k, v = heads(20)
    torch.testing.assert_close(
        cosformer.cosformer_attention(30 * q, 7 * k, v), cosformer.cosformer_attention(q, k, v), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("is_causal", [False, True])
def test_memory_is_linear_in_the_length(is_causal):
    layer = attention.build("cosformer", 32, 2, is_causal=is_causal, max_len=4096)
    for needed in (measure.saved_bytes, lambda *args: measure.peak_bytes(*args).live):
        used = {n: needed(layer, torch.randn(1, n, 32, requires_grad=True)) for n in (1024, 2048)}
        assert used[2048] < 2.2 * used[1024]


def test_more_tokens_than_max_len_are_refused_in_every_form():
    x = torch.zeros(1, 6, 8)
    for options, args in (({}, (x,)), ({"is_causal": True}, (x,)), ({"cross": True}, (x[:, :2], x))):
        with pytest.raises(ValueError, match="6 tokens with max_len=5"):
            attention.build("cosformer", 8, 2, max_len=5, **options)(*args)
    layer = attention.build("cosformer", 8, 2, max_len=5, is_causal=True)
    state = layer.init_state(1)
    for t in range(5):
        _, state = layer.step(x[:, t], state)
    with pytest.raises(ValueError, match="6 tokens with max_len=5"):
        layer.step(x[:, 5], state)


def test_wrong_options_are_named():
    for words, options in (("max_len=0", {"max_len": 0}), ("eps=0", {"eps": 0})):
        with pytest.raises(ValueError, match=words):
            attention.build("cosformer", 8, 2, **options)
    with pytest.raises(ValueError, match="max_len=None"):
        attention.build("cosformer", 8, 2, max_len=None, is_causal=True).init_state(1)


def test_the_state_holds_twice_that_of_linear_attention_and_does_not_grow():
    def numbers_after(name, tokens):
        layer = attention.build(name, 16, 2, is_causal=True)
        state = layer.init_state(1)
        for _ in range(tokens):
            _, state = layer.step(torch.randn(1, 16), state)
        return sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))

    assert numbers_after("cosformer", 3) == numbers_after("cosformer", 30) == 2 * numbers_after("linear", 3)
