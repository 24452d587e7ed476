"""Linformer beyond the invariants table: mixing before projecting, sharing, rank, and the longest sequence."""

import pytest
import torch

from refattn import attention, measure
from refattn.attention import linformer
from refattn.attention.linformer import LengthProjection

SHARING = {"none": 2, "per_head": 4, "key_value": 1}  # → matrices of k × max_len, for two heads


def layer_and_x(tokens=9, **options):
    torch.manual_seed(0)
    layer = attention.build("linformer", 8, 2, **({"projected_len": 3, "max_len": 12} | options)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer, torch.randn(2, tokens, 8, dtype=torch.float64)


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("padded", [0, 4, 9])
def test_mixing_before_projecting_changes_nothing(sharing, padded):
    """E (X W + b) = (E X) W + (E 1) b, where only real tokens are summed; the bias is the part one forgets."""
    layer, x = layer_and_x(sharing=sharing)
    mask = torch.arange(9)[None] >= torch.tensor([[9], [9 - padded]])
    heads = linformer.linformer_attention(
        *layer.projections(x), *layer.length_projection.matrices(), key_padding_mask=mask
    )
    torch.testing.assert_close(layer(x, key_padding_mask=mask)[0], layer.projections.merge(heads))


@pytest.mark.parametrize("sharing", SHARING)
def test_sharing_decides_the_parameters(sharing):
    layer, _ = layer_and_x(sharing=sharing)
    assert measure.count_parameters(layer.length_projection) == SHARING[sharing] * 3 * 12


def test_layers_given_one_length_projection_share_it():
    shared = LengthProjection(12, 3, tied=True)
    layers = torch.nn.ModuleList(attention.build("linformer", 8, 2, length_projection=shared) for _ in range(3))
    alone = measure.count_parameters(layers[0])
    assert measure.count_parameters(layers) == 3 * alone - 2 * 3 * 12
    sum(layer(torch.randn(1, 5, 8))[0].sum() for layer in layers).backward()
    assert shared.E.grad[:, :5].abs().min() > 0 and shared.E.grad[:, 5:].abs().max() == 0  # N columns are used


def test_the_map_has_at_most_rank_k_and_gives_the_output():
    layer, x = layer_and_x()
    maps = layer.attention_maps(x)
    assert torch.linalg.matrix_rank(maps["effective"]).max() == 3
    torch.testing.assert_close(maps["A"].sum(-1), torch.ones_like(maps["A"][..., 0]))
    y = layer.projections.merge(maps["effective"] @ layer.projections.keys_values(x)[1])
    torch.testing.assert_close(y, layer(x)[0])


def test_identity_matrices_make_it_softmax_attention():
    """k = M and E = F = 1: nothing is mixed."""
    whole = attention.build("softmax", 8, 2).double()
    layer, x = layer_and_x(projections=whole.projections, projected_len=9, max_len=9, sharing="key_value")
    with torch.no_grad():
        layer.length_projection.E.copy_(torch.eye(9))
    torch.testing.assert_close(layer(x)[0], whole(x)[0])


def test_keys_and_values_of_one_projection_are_served():
    projections = attention.Projections(8, 2, tied=True).double()
    layer, x = layer_and_x(projections=projections, sharing="key_value")
    keys, values = layer.keys_values(x)
    assert torch.equal(keys, values)


@pytest.mark.parametrize("sharing", SHARING)
def test_memory_grows_with_n_not_with_its_square(sharing):
    layer = attention.build("linformer", 16, 2, projected_len=16, max_len=2048, sharing=sharing)
    run = lambda n: layer(torch.randn(2, n, 16))[0]  # noqa: E731
    peaks = {n: measure.peak_bytes(lambda: run(n).sum().backward()) for n in (1024, 2048)}  # noqa: B023
    assert peaks[2048].live <= 2.1 * peaks[1024].live and peaks[2048].entries < 2048 * 2048 / 4
    assert measure.saved_bytes(run, 2048) <= 2.1 * measure.saved_bytes(run, 1024)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"is_causal": True}, "is_causal=True"),
        ({"sharing": "layerwise"}, "sharing='layerwise'.*length_projection"),
        ({"projected_len": 0}, "projected_len=0"),
        ({"max_len": 0}, "max_len=0"),
    ],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        attention.build("linformer", 8, 2, **options)


def test_more_keys_than_max_len_are_refused_everywhere_and_more_queries_are_not():
    layer, x = layer_and_x(13)
    for call in (layer, layer.attention_maps):
        with pytest.raises(ValueError, match="13 keys.*max_len=12"):
            call(x)
    cross, _ = layer_and_x(cross=True)
    assert cross(torch.cat([x, x], 1), x[:, :12])[0].shape == (2, 26, 8)
