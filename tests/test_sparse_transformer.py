"""Sparse Transformer beyond the invariants table: patterns by their words, two hops, empty rows, cost."""

import itertools

import pytest
import torch

from refattn import attention, measure
from refattn.attention import sparse_transformer as sparse
from refattn.attention.softmax import softmax_attention_explicit

CASES = list(itertools.product(sparse.PATTERNS, sparse.MODES, [False, True]))


def heads(tokens, batch=2, count=3, d=4):
    """q, k, v [B, H, N, d], which collect gradients."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, count, tokens, d)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


def may_read(i, j, head, pattern, mode, is_causal, stride=4, num_summary=2):
    """Eqs. (1) and (2) for one pair, in words."""
    if is_causal and j > i:
        return False
    if pattern == "strided":
        parts = abs(i - j) <= stride, abs(i - j) % stride == 0
    else:
        parts = i // stride == j // stride, j % stride in (stride - 2, stride - 1)[-num_summary:]
    return {"merged": any(parts), "first": parts[0], "second": parts[1], "per_head": parts[head % 2]}[mode]


@pytest.mark.parametrize(("pattern", "mode", "is_causal"), CASES)
def test_masks_are_the_patterns_pair_by_pair(pattern, mode, is_causal):
    options = {"pattern": pattern, "mode": mode, "is_causal": is_causal, "stride": 4, "num_summary": 2}
    allow = sparse.sparse_mask(14, heads=3, **options).expand(1, 3, -1, -1)[0]
    for h, i, j in itertools.product(range(3), range(14), range(14)):
        assert allow[h, i, j] == may_read(i, j, h, pattern, mode, is_causal), (h, i, j)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("pattern", "mode", "is_causal"), CASES)
def test_rows_and_columns_are_the_masked_definition_with_its_gradients(pattern, mode, is_causal, masked):
    """At lengths inside, at and beyond the border of a block, with padding in the middle."""
    for tokens in (1, 4, 5, 23):
        options = {"pattern": pattern, "mode": mode, "is_causal": is_causal, "stride": 4, "num_summary": 2}
        if masked:
            options["key_padding_mask"] = torch.arange(tokens).expand(2, -1) % torch.tensor([[3], [5]]) == 1
        found = []
        for function in (sparse.sparse_attention, sparse.sparse_attention_explicit):
            q, k, v = heads(tokens)
            y = function(q, k, v, **options)
            found.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), (q, k, v))))
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("pattern", sparse.PATTERNS)
def test_two_steps_connect_any_two_tokens_and_one_does_not(pattern):
    """The paper's reason for two patterns; causal, for every earlier token, where l = √N."""
    allow = sparse.sparse_mask(64, pattern=pattern, stride=8, is_causal=True)[0, 0]
    hops = allow.double() @ allow.double() > 0
    assert torch.equal(hops, torch.ones(64, 64, dtype=torch.bool).tril())
    assert allow.sum() < 0.6 * hops.sum()


def test_a_head_before_the_first_summary_reads_nothing_and_gives_zero():
    q, k, v = heads(12, count=2)
    y = sparse.sparse_attention(q, k, v, pattern="fixed", stride=4, num_summary=1, mode="per_head", is_causal=True)
    assert not y[:, 1, :3].any() and y[:, 0].all() and y[:, 1, 3:].all()
    torch.autograd.backward(y.sum())
    assert all(t.grad.isfinite().all() for t in (q, k, v))


def test_a_pair_in_both_patterns_is_counted_once():
    """j = i and j = i ± l stand in the window and in the column: equal tokens must give a plain mean."""
    v = torch.eye(20, dtype=torch.float64)[None, None]
    q = torch.zeros(1, 1, 20, 4, dtype=torch.float64)
    for pattern, is_causal in itertools.product(sparse.PATTERNS, [False, True]):
        weights = sparse.sparse_attention(q, q, v, pattern=pattern, stride=4, is_causal=is_causal)[0, 0]
        allow = sparse.sparse_mask(20, pattern=pattern, stride=4, is_causal=is_causal)[0, 0].double()
        torch.testing.assert_close(weights, allow / allow.sum(-1, keepdim=True))


def test_strided_attention_does_not_notice_padding_on_the_left():
    """Its pattern knows distances alone; fixed blocks are counted from the first token."""
    q, k, v = heads(23)
    alone = sparse.sparse_attention(q, k, v, stride=4, is_causal=True)
    longer = [torch.cat([1e3 * torch.ones(2, 3, 6, 4, dtype=torch.float64), t], 2) for t in (q, k, v)]
    mask = (torch.arange(29) < 6).expand(2, -1)
    y = sparse.sparse_attention(*longer, stride=4, is_causal=True, key_padding_mask=mask)
    torch.testing.assert_close(y[:, :, 6:], alone)


@pytest.mark.parametrize("pattern", sparse.PATTERNS)
@pytest.mark.parametrize("mode", ["merged", "per_head"])
def test_no_tensor_of_a_run_has_n_squared_entries(pattern, mode):
    """At l = √N: four times the tokens, eight times the scores; a hidden N × N mask would make it sixteen."""
    largest = {}
    for tokens, stride in ((256, 16), (1024, 32)):
        q, k, v = (torch.randn(1, 2, tokens, 8, requires_grad=True) for _ in range(3))
        run = lambda: sparse.sparse_attention(q, k, v, pattern=pattern, mode=mode, stride=stride).sum().backward()  # noqa: B023, E731
        largest[tokens] = measure.peak_bytes(run).entries
    assert largest[1024] <= 8.5 * largest[256] and largest[1024] < 1024**2 / 2


@pytest.mark.parametrize("pattern", sparse.PATTERNS)
def test_maps_times_values_are_the_output(pattern):
    torch.manual_seed(0)
    layer = attention.build("sparse_transformer", 8, 2, pattern=pattern, stride=5, mode="per_head").double()
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    maps = layer.attention_maps(x)
    q, k, v = layer.projections(x)
    torch.testing.assert_close(layer.projections.merge(maps["effective"] @ v), layer(x)[0])
    torch.testing.assert_close(maps["effective"] @ v, softmax_attention_explicit(q, k, v, allow=maps["allow"]))


MISTAKES = {
    "pattern='random'": {"pattern": "random"},
    "mode='both'": {"mode": "both"},
    "stride=0": {"stride": 0},
    "num_summary=0": {"pattern": "fixed", "num_summary": 0},
    "num_summary=9": {"pattern": "fixed", "stride": 8, "num_summary": 9},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_option_is_named(words):
    with pytest.raises(ValueError, match=words):
        attention.build("sparse_transformer", 8, 2, **MISTAKES[words])
