"""Reach: boolean powers agree with walks, with what gradients say of real models, and with the patterns' own claims."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refattn import attention
from refattn.models.stack import Stack
from refattn.reachability import density, hops, pattern, reach


def windows(tokens, width):
    i = torch.arange(tokens)
    return (i[:, None] - i).abs() <= width


def test_a_window_walks_and_a_global_token_closes_the_graph():
    allow = windows(40, 3)
    assert torch.equal(reach(allow, 4), windows(40, 12))
    assert hops(allow).max() == 13
    allow[17], allow[:, 17] = True, True
    assert hops(allow).max() == 2


def test_separate_blocks_never_meet():
    found = hops(torch.arange(12)[:, None] // 4 == torch.arange(12) // 4)
    assert (found[:4, 4:] == -1).all() and found[0, 3] == 1 and (found.diagonal() == 0).all()


def test_layers_may_differ_and_their_order_matters():
    left = torch.zeros(3, 3, dtype=torch.bool)
    left[1, 0] = True  # token 1 reads token 0
    right = torch.zeros(3, 3, dtype=torch.bool)
    right[2, 1] = True  # token 2 reads token 1
    assert reach([left, right], 2)[2, 0] and not reach([right, left], 2)[2, 0]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 8), st.floats(0.05, 0.5), st.integers(0, 10**6))
def test_hops_are_the_first_layer_in_which_reach_is_true(tokens, share, seed):
    allow = torch.rand(tokens, tokens, generator=torch.Generator().manual_seed(seed)) < share
    found = hops(allow)
    for layers in range(tokens + 1):
        assert torch.equal(reach(allow, layers), (found >= 0) & (found <= layers))
    assert ((found == -1) == ~reach(allow, tokens)).all()


MODELS = {
    "local": {"window": 3},
    "longformer": {"window": 4},
    "bigbird": {"block": 2, "random_blocks": 1, "seed": 0},
    "sparse_transformer": {"pattern": "fixed", "stride": 4, "num_summary": 1},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_of_a_model_are_zero_exactly_where_reach_is_false(name, layers):
    torch.manual_seed(0)
    tokens, stack = 16, Stack([name] * layers, 8, 2, ffn_dim=8, options=MODELS[name]).double()
    x = torch.randn(1, tokens, 8, dtype=torch.float64, requires_grad=True)
    y = stack(x)[0]
    rows = [torch.autograd.grad(y[0, i].square().sum(), x, retain_graph=True)[0][0].norm(dim=-1) for i in range(tokens)]
    allow = pattern(stack.blocks[0].self_attention, tokens)
    assert torch.equal(torch.stack(rows) > 0, reach(allow, layers))


@pytest.mark.parametrize("kind", ["strided", "fixed"])
def test_both_patterns_of_sparse_transformer_close_in_two_layers(kind):
    layer = attention.build("sparse_transformer", 8, 1, pattern=kind, stride=6, num_summary=1, is_causal=True)
    assert torch.equal(reach(pattern(layer, 36), 2), torch.ones(36, 36).tril().bool())


def test_a_pattern_without_a_mask_is_read_off_the_map():
    assert density(pattern(attention.build("softmax", 8, 2), 5)) == 1.0
    assert density(pattern(attention.build("softmax", 8, 2, is_causal=True), 5)) == 0.6


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: reach(torch.ones(3, 3), 2), r"torch.float32 \(3, 3\): wanted bool"),
        (lambda: hops(torch.ones(3, 2, dtype=torch.bool)), r"\(3, 2\): wanted bool"),
        (lambda: reach([windows(4, 1)], 2), "1 patterns: wanted one, or one for each of layers=2"),
        (lambda: reach(windows(4, 1), -1), "layers=-1"),
    ],
)
def test_wrong_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
