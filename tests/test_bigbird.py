"""BigBird beyond the invariants table: the random blocks, and what they and the global ones connect."""

import pytest
import torch

from refattn import attention
from refattn.attention import bigbird


def draws(heads, blocks, choices, seed=0):
    return torch.randint(2**31, (heads, blocks, choices), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inner", [0, 1, 2, 3, 4, 5, 6, 7, 9, 30])
@pytest.mark.parametrize("choices", [0, 1, 2, 3])
def test_random_blocks_differ_and_none_is_read_anyway(inner, choices):
    """Blocks 0 and n − 1 are global, u and its neighbours in the window; where too few are left, 0 fills the row."""
    table = bigbird.choose_blocks(draws(4, 40, choices), inner)
    assert table.shape == (4, inner, choices)
    for rows in table.tolist():
        for u, row in enumerate(rows, start=1):
            left = [w for w in range(1, inner + 1) if abs(w - u) > 1]
            chosen = [w for w in row if w != 0]
            assert set(chosen) <= set(left) and len(chosen) == len(set(chosen)) == min(choices, len(left))


def test_every_block_that_may_be_chosen_is_chosen_equally_often():
    table = bigbird.choose_blocks(draws(1, 6000, 2), 6000)  # rows are independent draws; look at where they fall
    far = (table[0].double() / 6000).flatten()
    assert abs(far.mean() - 0.5) < 0.02
    of_five = [bigbird.choose_blocks(draws(1, 9, 2, seed), 9)[0, 4] for seed in range(600)]  # u = 5 among 1 to 9
    share = torch.bincount(torch.cat(of_five), minlength=11) / 600
    assert (share[[1, 2, 3, 7, 8, 9]] - 2 / 6).abs().max() < 0.08 and share[[0, 4, 5, 6, 10]].sum() == 0


def test_the_seed_decides_the_blocks_whatever_the_type_and_the_batch():
    first, again, other = (attention.build("bigbird", 8, 2, block=4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.rand_blocks(100), again.rand_blocks(100))
    assert not torch.equal(first.rand_blocks(100), other.rand_blocks(100))
    assert torch.equal(first.to(torch.bfloat16).rand_blocks(100), again.rand_blocks(100))
    assert not torch.equal(first.rand_blocks(100)[0], first.rand_blocks(100)[1]), "heads differ"


def test_without_a_seed_layers_differ_and_torch_s_generator_decides():
    def tables():
        torch.manual_seed(0)
        return [attention.build("bigbird", 8, 2, block=4).rand_blocks(100) for _ in range(2)]

    first, second = tables()
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(tables()), torch.stack([first, second]))


def test_the_blocks_travel_with_the_weights():
    one, other = (attention.build("bigbird", 8, 2, block=4, seed=seed) for seed in (0, 1))
    other.load_state_dict(one.state_dict())
    x = torch.randn(1, 60, 8)
    torch.testing.assert_close(other(x)[0], one(x)[0], rtol=0, atol=0)


def test_the_mask_is_the_definition_block_by_block():
    table = torch.tensor([[[3], [4], [1], [2]]])  # u = 1 … 4 of six blocks
    allow = bigbird.bigbird_mask(11, table, block=2)[0, 0]  # the last block has one token
    for i in range(11):
        u = i // 2
        reads = range(6) if u in (0, 5) else {0, 5, u - 1, u, u + 1, *table[0, u - 1].tolist()}
        assert allow[i].tolist() == [j // 2 in reads for j in range(11)]


def test_a_block_listed_twice_counts_once():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 12, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    once, twice = torch.tensor([[[4], [4], [1], [1]]]), torch.tensor([[[4, 4], [4, 2], [1, 1], [1, 0]]])
    y = bigbird.bigbird_attention(q, k, v, once, block=2)
    torch.testing.assert_close(bigbird.bigbird_attention(q, k, v, twice, block=2), y)


@pytest.mark.parametrize("tokens", [1, 4, 5, 8, 9, 12])
def test_short_sequences_of_at_most_three_blocks_are_read_in_full(tokens):
    torch.manual_seed(0)
    whole = attention.build("softmax", 8, 2).double()
    layer = attention.build("bigbird", 8, 2, block=4, projections=whole.projections)
    x = torch.randn(2, tokens, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], whole(x)[0])


def test_padded_keys_change_nothing_and_padded_queries_give_zero():
    """Padding changes which blocks there are, so compare at equal length: what padded tokens hold must not matter."""
    layer = attention.build("bigbird", 8, 2, block=4, bias=False).double()
    x = torch.randn(2, 41, 8, dtype=torch.float64)
    mask = torch.arange(41)[None] >= torch.tensor([[41], [18]])
    y, _ = layer(x, key_padding_mask=mask)
    junk, _ = layer(x.masked_fill(mask[..., None], 1e3), key_padding_mask=mask)
    torch.testing.assert_close(junk, y)
    assert (y[1, 18:] == 0).all()


def test_the_output_is_the_map_times_values():
    layer = attention.build("bigbird", 8, 2, block=4).double()
    x = torch.randn(2, 41, 8, dtype=torch.float64)
    y = layer.projections.merge(layer.attention_maps(x)["effective"] @ layer.projections.keys_values(x)[1])
    torch.testing.assert_close(y, layer(x)[0])


def test_global_blocks_join_any_two_tokens_in_two_layers():
    layer = attention.build("bigbird", 8, 1, block=4, random_blocks=0)
    allow = layer.attention_maps(torch.randn(1, 120, 8))["allow"][0, 0].double()
    assert (allow @ allow > 0).all() and allow.mean() < 0.3
    window_alone = allow.clone()
    window_alone[:4], window_alone[-4:], window_alone[:, :4], window_alone[:, -4:] = 0, 0, 0, 0
    assert not (window_alone @ window_alone > 0)[4:-4, 4:-4].all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"block": 0}, "block=0"), ({"random_blocks": -1}, "random_blocks=-1"), ({"max_len": 0}, "max_len=0")],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        attention.build("bigbird", 8, 2, **options)


def test_more_tokens_than_max_len_and_a_table_of_another_shape_are_named():
    with pytest.raises(ValueError, match="41 tokens.*max_len=40"):
        attention.build("bigbird", 8, 2, block=4, max_len=40)(torch.zeros(1, 41, 8))
    q = torch.zeros(1, 2, 12, 4)
    with pytest.raises(ValueError, match="rand_blocks has shape.*n − 2=4"):
        bigbird.bigbird_attention(q, q, q, torch.zeros(2, 3, 1, dtype=torch.long), block=2)
