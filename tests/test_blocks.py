"""Blocks: cutting, windows, tables; attention inside blocks; and what all mechanisms built on them promise alike."""

import pytest
import torch

from refattn import attention, measure
from refattn.attention import blocks, softmax

NAMES = {  # mechanisms of this kind → options with which N = 1024 has many blocks
    "local": {"window": 32},
    "longformer": {"window": 64, "dilation": (1, 2)},
    "bigbird": {"block": 16, "max_len": 4096},
}


def heads(tokens, *, count=3, d=4, seed=0, **more):
    """`count` tensors [2, 2, N, d]."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(2, 2, tokens, d, generator=generator, dtype=torch.float64, **more)  # noqa: E731
    return [draw() for _ in range(count)]


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 12, 13])
def test_join_undoes_split_at_any_length(tokens):
    (x,) = heads(tokens, count=1)
    cut = blocks.split(x, 4)
    assert cut.shape == (2, 2, -(-tokens // 4), 4, 4)
    assert torch.equal(blocks.join(cut, tokens), x)


@pytest.mark.parametrize(("size", "before", "after"), [(4, 0, 0), (4, 4, 4), (3, 2, 0), (3, 0, 7), (2, 5, 1)])
@pytest.mark.parametrize("tokens", [1, 6, 7])
def test_a_window_holds_the_tokens_around_its_block_and_zeros_beyond_the_ends(size, before, after, tokens):
    x = torch.arange(1.0, tokens + 1)[None, None, :, None]
    found = blocks.windows(x, size, before, after)
    for u, window in enumerate(found[0, 0, :, :, 0].tolist()):
        places = range(u * size - before, (u + 1) * size + after)
        assert window == [j + 1 if 0 <= j < tokens else 0 for j in places]
    real = blocks.windows(blocks.real_tokens(tokens), size, before, after)
    assert torch.equal(real, found != 0)


def test_windows_share_one_copy_of_the_tokens():
    (x,) = heads(64, count=1)
    found = blocks.windows(x, 4, 8, 8)  # every token stands in five windows
    assert found.untyped_storage().nbytes() == x.nbytes * (64 + 16) / 64 < found.nbytes / 3


@pytest.mark.parametrize(("size", "before", "after"), [(3, 1, 1), (3, 5, 0), (2, 4, 3), (5, 0, 0)])
@pytest.mark.parametrize("tokens", [1, 7])
def test_the_gradient_of_windows_adds_up_overlaps(size, before, after, tokens):
    x = torch.randn(2, tokens, 3, dtype=torch.float64, requires_grad=True)
    windows = lambda x: blocks.windows(x, size, before, after)  # noqa: E731
    assert torch.autograd.gradcheck(windows, x)
    assert torch.autograd.gradgradcheck(lambda x: windows(x).sin(), x)
    by_rows = torch.func.jacrev(windows)(x.detach())
    torch.testing.assert_close(by_rows, torch.autograd.functional.jacobian(windows, x))


def test_window_distance_is_that_of_positions():
    position = blocks.windows(torch.arange(12.0)[:, None], 3, 4, 2)[2, :, 0]  # of the keys of block 2
    distance = torch.arange(6.0, 9.0)[:, None] - position
    assert torch.equal(blocks.window_distance(3, 4, 2), distance.long())


def test_gather_reads_the_blocks_of_a_table_for_all_heads_or_for_each():
    x = torch.arange(20.0).reshape(1, 2, 10, 1)  # head 0 holds 0 … 9, head 1 10 … 19
    cut = blocks.split(x, 4)
    shared = blocks.gather(cut, torch.tensor([[2, 0]]))[0, :, 0, :, 0].tolist()
    assert shared == [[8, 9, 0, 0, 0, 1, 2, 3], [18, 19, 0, 0, 10, 11, 12, 13]]
    each = blocks.gather(cut, torch.tensor([[[1], [0]], [[0], [2]]]))[0, ..., 0].tolist()
    assert each == [[[4, 5, 6, 7], [0, 1, 2, 3]], [[10, 11, 12, 13], [18, 19, 0, 0]]]
    real = blocks.gather(blocks.split(blocks.real_tokens(10), 4), torch.tensor([[[2]], [[0]]]))
    assert real[0, ..., 0].tolist() == [[[True, True, False, False]], [[True] * 4]]


@pytest.mark.parametrize("per_head", [False, True])
def test_block_attention_is_dense_attention_with_a_block_diagonal_mask(per_head):
    q, k, v = heads(12)
    seen = torch.rand(2 if per_head else 1, 2 if per_head else 1, 3, 4, 4) < 0.6
    y = blocks.join(blocks.block_attention(*(blocks.split(t, 4) for t in (q, k, v)), seen), 12)
    allow = torch.zeros(*seen.shape[:2], 12, 12, dtype=torch.bool)
    for u in range(3):
        allow[..., 4 * u : 4 * u + 4, 4 * u : 4 * u + 4] = seen[:, :, u]
    torch.testing.assert_close(y, softmax.softmax_attention_explicit(q, k, v, allow=allow))


def test_a_query_whose_block_shows_nothing_gets_zero_and_finite_gradients():
    q, k, v = heads(8, requires_grad=True)
    seen = torch.ones(1, 1, 2, 4, 4, dtype=torch.bool)
    seen[..., 1, 2, :] = False
    y = blocks.block_attention(*(blocks.split(t, 4) for t in (q, k, v)), seen)
    assert (y[:, :, 1, 2] == 0).all() and (y[:, :, 0] != 0).all()
    y.sum().backward()
    assert (q.grad[:, :, 6] == 0).all() and all(t.grad.isfinite().all() for t in (q, k, v))


def test_two_sequences_are_refused():
    q, (k,) = heads(5)[0], heads(6, count=1)
    with pytest.raises(ValueError, match="N=5.*M=6"):
        blocks.check_self_attention(q, k, k)


# ---- What every mechanism of this kind promises ----------------------------------------------------------------------

every_name = pytest.mark.parametrize("name", NAMES)


@every_name
@pytest.mark.parametrize("masked", [False, True])
def test_the_largest_tensor_and_what_is_kept_grow_with_n_not_with_its_square(name, masked):
    """Twice the tokens, twice the memory, backward included; a hidden N × N map or mask would take four times."""
    layer = attention.build(name, 16, 2, **NAMES[name])

    def run(tokens):
        mask = torch.arange(tokens)[None] >= torch.tensor([[tokens], [tokens // 2]]) if masked else None
        return layer(torch.randn(2, tokens, 16), key_padding_mask=mask)[0]

    peaks = {n: measure.peak_bytes(lambda: run(n).sum().backward()) for n in (1024, 2048)}  # noqa: B023
    assert peaks[2048].largest <= 2.1 * peaks[1024].largest and peaks[2048].live <= 2.1 * peaks[1024].live
    assert peaks[2048].entries < 2048 * 2048 / 4
    kept = {n: measure.saved_bytes(run, n) for n in (1024, 2048)}
    assert kept[2048] <= 2.1 * kept[1024]


@every_name
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_map_is_positive_where_allowed_and_zero_elsewhere(name, is_causal, masked):
    if is_causal and "causal" not in attention.mechanism(name).forms:
        pytest.skip(f"{name} has no causal form")
    layer = attention.build(name, 16, 2, **NAMES[name], is_causal=is_causal)
    mask = torch.arange(150)[None] >= torch.tensor([[150], [90]]) if masked else None
    maps = layer.attention_maps(torch.randn(2, 150, 16), key_padding_mask=mask)
    assert maps["allow"].dtype == torch.bool
    assert torch.equal(maps["effective"] > 0, maps["allow"].expand_as(maps["effective"]))
    assert not maps["allow"].all(), "150 tokens are more than one window: a pattern that hides nothing tests nothing"


@every_name
def test_only_allowed_keys_have_a_gradient(name):
    """Blocks hold consecutive tokens: of the reading [block, n] of a sequence, which strides, this is the witness."""
    layer = attention.build(name, 8, 2, **NAMES[name]).double()
    x = torch.randn(1, 200, 8, dtype=torch.float64)
    allow = layer.attention_maps(x)["allow"].any(1)[0]  # by any head
    x.requires_grad_()
    for i in (0, 70, 100, 199):
        (gradient,) = torch.autograd.grad(layer(x)[0][0, i].sum(), x)
        reads = gradient[0].abs().sum(-1) > 0
        reads[i] = allow[i, i]  # the query itself is read in any case
        assert torch.equal(reads, allow[i])


@every_name
def test_dropout_acts_in_training_alone(name):
    layer = attention.build(name, 16, 2, dropout=0.5, **NAMES[name])
    x = torch.randn(1, 100, 16)
    torch.manual_seed(0)
    first, second = layer(x)[0], layer(x)[0]
    assert not torch.equal(first, second) and first.isfinite().all()
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
