"""Longformer beyond the invariants table: windows, dilation, and global tokens with their own projections."""

import pytest
import torch

from refattn import attention, measure
from refattn.attention import base, longformer


def layer_and_x(tokens=20, batch=2, **options):
    torch.manual_seed(0)
    layer = attention.build("longformer", 8, 2, **options).double()
    with torch.no_grad():  # global projections begin as copies of the local ones, where a mix-up would hide
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer, torch.randn(batch, tokens, 8, dtype=torch.float64)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_mask_is_the_definition_pair_by_pair(is_causal):
    index = None if is_causal else torch.tensor([[0, 13], [4, 7]])  # 13: beyond the end, none
    options = {"one_sided": 2, "dilation": (1, 3), "is_causal": is_causal, "global_index": index}
    allow = longformer.longformer_mask(13, heads=2, **options)
    for batch, globals_ in enumerate([set()] if is_causal else [{0}, {4, 7}]):
        for h, step in enumerate((1, 3)):
            for i in range(13):
                window = {i + t * step for t in range(-2, 1 if is_causal else 3)}
                wanted = [j in window or j in globals_ or i in globals_ for j in range(13)]
                assert allow[batch, h, i].tolist() == wanted


@pytest.mark.parametrize("global_tokens", [(), (0,), (3, 0, 25), (50,)])
@pytest.mark.parametrize("masked", [False, True])
def test_any_global_tokens_equal_the_dense_twin(global_tokens, masked):
    layer, x = layer_and_x(150, window=4, dilation=(2, 1), global_tokens=global_tokens)
    mask = torch.arange(150)[None] >= torch.tensor([[150], [20]]) if masked else None
    index = layer.global_index(x, mask)
    qkv, global_qkv = layer.inputs(x, index)
    options = {"global_index": index, "key_padding_mask": mask, **layer.options()}
    heads = longformer.longformer_attention_explicit(*qkv, global_qkv, **options)
    torch.testing.assert_close(
        layer(x, key_padding_mask=mask)[0], layer.projections.merge(heads), rtol=1e-9, atol=1e-10
    )


def test_sequences_with_global_tokens_of_their_own_are_as_if_alone():
    layer, x = layer_and_x(batch=3)
    is_global = torch.zeros(3, 20, dtype=torch.bool)
    is_global[0, [0, 5, 19]] = is_global[1, 7] = True  # three, one, none
    index = longformer.global_positions(is_global)
    assert index.tolist() == [[0, 5, 19], [7, 20, 20], [20, 20, 20]]
    together = layer.attend(x, index)
    for i, own in enumerate(([0, 5, 19], [7])):
        torch.testing.assert_close(layer.attend(x[i : i + 1], torch.tensor([own]))[0], together[i])
    torch.testing.assert_close(layer.attend(x[2:], None)[0], together[2])
    assert longformer.global_positions(is_global[2:]).shape == (1, 0)
    torch.testing.assert_close(layer.attend(x[2:], longformer.global_positions(is_global[2:]))[0], together[2])


def test_padding_is_never_global():
    padded = torch.tensor([[True, False, False], [False, False, True]])
    assert longformer.global_positions(torch.ones(2, 3, dtype=torch.bool), padded).tolist() == [[1, 2], [0, 1]]


def test_global_tokens_are_counted_among_the_real_ones():
    """With three tokens of padding on the left the class token stands fourth, and is still the global one."""
    layer, x = layer_and_x(global_tokens=(0, 2))
    mask = torch.arange(20)[None] < torch.tensor([[3], [0]])
    assert layer.global_index(x, mask).tolist() == [[3, 5], [0, 2]]
    assert layer.global_index(x[:, :4], mask[:, :4]).tolist() == [[3, 4], [0, 2]]  # 4: no third real token, none
    y, _ = layer(x, key_padding_mask=mask)
    torch.testing.assert_close(y[:1, 3:], layer(x[:1, 3:])[0])


def test_padded_queries_give_zero():
    layer, x = layer_and_x()
    heads = layer.attend(x, torch.tensor([[0]]), key_padding_mask=torch.arange(20)[None] >= torch.tensor([[20], [9]]))
    assert (heads[1, :, 9:] == 0).all() and (heads[1, :, :9] != 0).all()


def test_the_output_is_the_map_times_values_global_values_in_global_rows():
    layer, x = layer_and_x(window=4, global_tokens=(0, 7))
    effective = layer.attention_maps(x)["effective"]
    heads = effective @ layer.projections.keys_values(x)[1]
    of_globals = effective @ layer.global_projections.keys_values(x)[1]
    heads[:, :, [0, 7]] = of_globals[:, :, [0, 7]]
    torch.testing.assert_close(layer.projections.merge(heads), layer(x)[0])


def test_a_dilated_head_reads_strands_with_a_plain_window():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 23, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    dilated = longformer.longformer_attention(q, k, v, one_sided=2, dilation=3)
    for phase in range(3):
        strand = longformer.longformer_attention(*(t[:, :, phase::3] for t in (q, k, v)), one_sided=2)
        torch.testing.assert_close(dilated[:, :, phase::3], strand)


def test_global_projections_begin_as_copies_and_cost_what_the_card_says():
    D = 8
    plain, layer = (attention.build("longformer", D, 2, global_tokens=g) for g in ((), (0,)))
    for name in ("query", "key", "value"):
        local, own = (getattr(p, name) for p in (layer.projections, layer.global_projections))
        assert torch.equal(local.weight, own.weight) and local.weight is not own.weight
    assert measure.count_parameters(layer) - measure.count_parameters(plain) == 3 * D * D + 3 * D
    assert attention.build("longformer", D, 2, is_causal=True).global_projections is None


def test_one_global_token_joins_any_two_in_two_layers_and_a_window_does_not():
    joined = {}
    for name, index in (("window", None), ("global", torch.tensor([[0]]))):
        allow = longformer.longformer_mask(64, one_sided=2, global_index=index)[0, 0].double()
        joined[name] = bool((allow @ allow > 0).all())
    assert joined == {"window": False, "global": True}


def test_global_tokens_compile_to_one_graph():
    layer, x = layer_and_x(140, window=4, global_tokens=(0, 3))
    mask = torch.arange(140)[None] >= torch.tensor([[140], [2]])
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, key_padding_mask=mask)[0], layer(x, key_padding_mask=mask)[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 5}, "window=5"),
        ({"window": 0}, "window=0"),
        ({"dilation": (1, 2, 3)}, r"dilation=\(1, 2, 3\).*2 heads"),
        ({"dilation": 0}, "dilation=0"),
        ({"global_tokens": (-1,)}, "global_tokens"),
        ({"global_tokens": (1, 1)}, "global_tokens"),
        ({"global_tokens": (0,), "is_causal": True}, "is_causal=True"),
    ],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        attention.build("longformer", 8, 2, **options)


def test_a_layer_without_global_projections_refuses_global_tokens():
    layer, x = layer_and_x(global_tokens=())
    with pytest.raises(ValueError, match=r"global_tokens=\(\)"):
        layer.attend(x, torch.tensor([[0]]))


def test_the_causal_function_refuses_global_tokens():
    q = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match="global_index"):
        longformer.longformer_attention(q, q, q, one_sided=1, is_causal=True, global_index=torch.tensor([[0]]))


def test_shared_projections_keep_their_own_global_ones():
    shared = base.Projections(8, 2, bias=False)
    layers = [attention.build("longformer", 8, 2, projections=shared) for _ in range(2)]
    assert layers[0].projections is layers[1].projections
    assert layers[0].global_projections is not layers[1].global_projections
    assert layers[0].global_projections.query.bias is None
