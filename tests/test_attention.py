"""What single mechanisms promise beyond the invariants table: known layers, known numbers, options."""

import math

import pytest
import torch
from torch import nn

from refattn import attention, measure
from refattn.attention import base, linear, luna, softmax


@pytest.mark.parametrize("bias", [True, False])
def test_softmax_from_torch_equals_nn_multihead_attention(bias):
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    layer = softmax.from_torch(mha)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    mask = torch.arange(7)[None] >= torch.tensor([7, 4])[:, None]
    wanted, weights = mha(x, x, x, key_padding_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(layer(x, key_padding_mask=mask)[0], wanted)
    torch.testing.assert_close(layer.attention_maps(x, key_padding_mask=mask)["effective"], weights)


def test_softmax_from_torch_refuses_what_it_cannot_copy():
    with pytest.raises(ValueError, match="kdim=4"):
        softmax.from_torch(nn.MultiheadAttention(12, 3, kdim=4, vdim=4))
    with pytest.raises(ValueError, match="add_bias_kv"):
        softmax.from_torch(nn.MultiheadAttention(12, 3, add_bias_kv=True))


def test_causal_product_is_exact_at_every_chunk_border():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 23, d, dtype=torch.float64) for d in (3, 3, 4))
    wanted = (q @ k.transpose(-1, -2)).tril() @ v
    for chunk in range(1, 25):
        torch.testing.assert_close(linear.causal_product(q, k, v, chunk=chunk), wanted)


def test_causal_product_keeps_early_sums_beside_a_huge_chunk():
    q, k, v = (torch.rand(1, 1, 8, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    k[:, :, 4:] *= 1e9  # a state found as (all so far) − (this chunk) would lose the first four keys
    wanted = (q.double() @ k.double().transpose(-1, -2)).tril() @ v.double()
    torch.testing.assert_close(linear.causal_product(q, k, v, chunk=2).double(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("is_causal", [False, True])
def test_linear_attention_saves_memory_linear_in_the_length(is_causal):
    """Doubling N doubles what is kept for backward; a hidden N × N map would quadruple it."""
    kept = {}
    for tokens in (1024, 2048):
        q, k, v = (torch.randn(1, 2, tokens, 16, requires_grad=True) for _ in range(3))
        kept[tokens] = measure.saved_bytes(lambda: linear.linear_attention(q, k, v, is_causal=is_causal))  # noqa: B023
    assert kept[2048] < 2.2 * kept[1024]


@pytest.mark.parametrize("is_causal", [False, True])
def test_luna_saves_memory_linear_in_the_length(is_causal):
    layer = attention.build("luna", 32, 2, num_slots=8, is_causal=is_causal)
    kept = {n: measure.saved_bytes(lambda: layer(torch.randn(1, n, 32))[0]) for n in (1024, 2048)}  # noqa: B023
    assert kept[2048] < 2.2 * kept[1024]


def test_base2_softplus_is_one_at_zero_and_exact_far_out():
    u = torch.tensor([-80.0, -3.0, 0.0, 3.0, 80.0, 1e6], dtype=torch.float64)
    wanted = torch.logaddexp2(u, torch.zeros_like(u))
    torch.testing.assert_close(luna.base2_softplus(u), wanted, rtol=1e-14, atol=0)


def test_luna_maps_have_at_most_the_rank_of_the_slots():
    layer = attention.build("luna", 16, 1, num_slots=3, pack_heads=1).double()
    effective = layer.attention_maps(torch.randn(1, 20, 16, dtype=torch.float64))["effective"]
    assert torch.linalg.matrix_rank(effective[0, 0]) <= 3


def test_causal_luna_s_output_is_its_effective_map_times_values():
    layer = attention.build("luna", 16, 2, num_slots=3, is_causal=True).double()
    x = torch.randn(2, 20, 16, dtype=torch.float64)
    values = layer.projections.keys_values(x)[1]
    y = layer.projections.merge(layer.attention_maps(x)["effective"] @ values)
    torch.testing.assert_close(y, layer(x)[0])


def test_dynamic_slots_equal_a_shorter_packed_sequence():
    """A padded sequence in a batch uses min(l, length) slots: what it would use alone."""
    layer = attention.build("luna", 16, 2, num_slots=6, dynamic_slots=True).double()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    mask = torch.arange(9)[None] >= torch.tensor([9, 4])[:, None]
    together, carry = layer(x, key_padding_mask=mask)
    alone, own = layer(x[1:, :4])
    torch.testing.assert_close(together[1:, :4], alone)
    torch.testing.assert_close(carry.slots[1:, :4], own.slots[:, :4])
    assert carry.mask[1].tolist() == [False] * 4 + [True] * 2


def test_luna_s_state_does_not_grow_and_softmax_s_does():
    def numbers_after(name, tokens):
        layer = attention.build(name, 16, 2, is_causal=True)
        state = layer.init_state(1)
        for _ in range(tokens):
            _, state = layer.step(torch.randn(1, 16), state)
        return sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))

    assert numbers_after("luna", 3) == numbers_after("luna", 30)
    assert numbers_after("linear", 3) == numbers_after("linear", 30)
    assert numbers_after("softmax", 30) == 10 * numbers_after("softmax", 3)


LUNA_MISTAKES = {
    "num_slots=0": {"num_slots": 0},
    "pack_activation='relu'": {"pack_activation": "relu"},
    "slot_norm='both'": {"slot_norm": "both"},
    "dynamic_slots=True": {"dynamic_slots": True, "is_causal": True},
}


@pytest.mark.parametrize("words", LUNA_MISTAKES)
def test_luna_names_a_wrong_option(words):
    with pytest.raises(ValueError, match=words):
        attention.build("luna", 16, 2, **LUNA_MISTAKES[words])


def test_luna_misses_its_carry_by_name():
    layer = attention.build("luna", 16, 2, first_in_chain=False)
    with pytest.raises(ValueError, match="carry is missing"):
        layer(torch.zeros(1, 3, 16))


def test_shared_projections_are_one_set_of_parameters():
    shared = base.Projections(16, 2)
    layers = [attention.build(name, 16, 2, projections=shared) for name in ("softmax", "linear")]
    assert {id(p) for p in layers[0].parameters()} == {id(p) for p in layers[1].parameters()}


def test_projections_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="4 heads"):
        attention.build("linear", 16, 2, projections=base.Projections(16, 4))


def test_luna_parameter_counts_are_those_of_the_paper():
    """Tied 5 (D² + D), untied 7 (D² + D), causal 5 or 6, besides P0 and its norm."""
    D, per_map = 16, 16 * 16 + 16
    for is_causal, tied, maps in ((False, True, 5), (False, False, 7), (True, True, 5), (True, False, 6)):
        layer = attention.build("luna", D, 2, tied=tied, is_causal=is_causal, num_slots=4)
        own = sum(p.numel() for n, p in layer.named_parameters() if not n.startswith(("slots", "norm")))
        assert own == maps * per_map


def test_default_scale_is_one_over_root_d():
    assert base.default_scale(16) == 1 / math.sqrt(16)
