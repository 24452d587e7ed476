"""Vicinity: what is its own. Re-weighting on any grid, special cases, clamp, reductions, the pyramid, region maps."""

import math

import pytest
import torch
from torch.testing import assert_close

from refattn import attention, data, measure
from refattn.attention import cosformer, linear, vicinity
from refattn.models import ViT
from refattn.models.vicinity import VVT, published
from refattn.reproduce.image_costs import multiply_adds

GRIDS = [(3, 5), (5, 3), (1, 7), (7, 1), (1, 1), (6, 6)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "×".join(map(str, grid)))
every_reweighting = pytest.mark.parametrize("reweighting", vicinity.REWEIGHTINGS)
EXACT = {"dtype": torch.float64}


def heads(grid, key_grid=None, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [math.prod(size) for size in (grid, key_grid or grid, key_grid or grid)]
    return [torch.randn(2, 2, n, d, generator=generator, **EXACT) for n in sizes]


def make(width=8, heads=2, **options):
    torch.manual_seed(0)
    return attention.build("vicinity", width, heads, **options).double().eval()


# ---- Re-weighting ---------------------------------------------------------------------------------------------------


@every_grid
@every_reweighting
def test_factors_give_the_matrix_of_distances_and_no_entry_is_zero(grid, reweighting):
    factors = vicinity.position_factors(grid, reweighting=reweighting, **EXACT)
    R = vicinity.reweighting_matrix(grid, reweighting=reweighting, **EXACT)
    assert_close(factors @ factors.T, R, rtol=0, atol=1e-15)
    assert R.min() > 0 and R.diagonal().allclose(R.max()), "every token is its own nearest"


def test_rows_are_divided_by_the_height_and_columns_by_the_width():
    a, b = vicinity.angles((2, 3), **EXACT)
    assert_close(a / (math.pi / 2), torch.tensor([0, 0, 0, 1 / 2, 1 / 2, 1 / 2], **EXACT))
    assert_close(b / (math.pi / 2), torch.tensor([0, 1 / 3, 2 / 3, 0, 1 / 3, 2 / 3], **EXACT))


@every_grid
@every_reweighting
def test_linear_and_quadratic_form_are_one(grid, reweighting):
    q, k, v = heads(grid)
    fast = vicinity.vicinity_attention(q, k, v, grid, reweighting=reweighting)
    assert_close(fast, vicinity.vicinity_attention_explicit(q, k, v, grid, reweighting=reweighting))


def test_without_re_weighting_it_is_linear_attention_with_relu_features():
    q, k, v = heads((3, 4))
    found = vicinity.vicinity_attention(q, k, v, (3, 4), reweighting="none")
    assert_close(found, linear.linear_attention(q, k, v, feature_map=torch.relu, eps=vicinity.EPS))
    layer, x = make(reweighting="none"), torch.randn(2, 12, 8, **EXACT)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert_close(layer(x[:, order])[0], layer(x)[0][:, order])


def test_the_product_on_a_single_row_is_cosformer():
    q, k, v = (t.abs() for t in heads((1, 9)))
    found = vicinity.vicinity_attention(q, k, v, (1, 9), reweighting="product", eps=1e-12)
    assert_close(found, cosformer.cosformer_attention(q, k, v, max_len=9))


def test_a_query_without_a_positive_entry_gets_zero():
    q, k, v = heads((2, 3))
    q[:, :, 1] = -1.0
    assert (vicinity.vicinity_attention(q, k, v, (2, 3))[:, :, 1] == 0).all()


# ---- Mask, clamp, reductions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clamp", [None, vicinity.OFFICIAL_CLAMP])
def test_ignored_tokens_of_the_grid_may_hold_anything(clamp):
    layer, mask = make(grid=(3, 4), clamp=clamp), torch.zeros(2, 12, dtype=torch.bool)
    mask[:, [2, 7, 11]] = True
    x = torch.randn(2, 12, 8, **EXACT)
    junk = x.masked_fill(mask[..., None], 1e3)
    y, wanted = (layer(tokens, key_padding_mask=mask)[0] for tokens in (junk, x))
    assert_close(y[~mask], wanted[~mask])
    assert (layer.attention_maps(x, key_padding_mask=mask)["effective"][:, :, :, [2, 7, 11]] == 0).all()
    assert not torch.allclose(layer(x)[0][~mask], wanted[~mask], atol=1e-3)


def test_the_clamp_keeps_zeros_and_signs_and_stops_small_gradients():
    x = torch.tensor([-1e-9, 0.0, 1e-5, 0.5, -2e4], **EXACT).requires_grad_()
    y = vicinity.clamp_magnitude(x, vicinity.OFFICIAL_CLAMP)
    assert_close(y, torch.tensor([-1e-4, 0.0, 1e-4, 0.5, -1e4], **EXACT))
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 1, 0]
    assert vicinity.clamp_magnitude(x, None) is x


def test_the_clamp_moves_small_outputs():
    layer, x = make(grid=(3, 4)), torch.randn(2, 12, 8, **EXACT)
    layer.projections.value.weight.data *= 1e-5  # true outputs far below the least magnitude
    wanted, _ = layer(x)
    layer.clamp = vicinity.OFFICIAL_CLAMP
    found, _ = layer(x)
    alive = wanted != 0  # a query without a positive entry stays zero
    assert wanted.abs().max() < 1e-4 <= found[alive].abs().min() and (found[~alive] == 0).all()


def test_reduced_keys_stand_on_a_coarser_grid():
    layer = make(grid=(4, 6), spatial_reduction=2)
    x = torch.randn(2, 24, 8, **EXACT)
    qkv, options = layer.heads(x, None)
    assert options["key_grid"] == (2, 3) and qkv[1].shape[2] == 6
    assert_close(layer(x)[0], layer.finish(x, vicinity.vicinity_attention_explicit(*qkv, **options)))
    R = layer.attention_maps(x)["R"]
    assert R.shape == (24, 6) and R[14, 4] == 2.0, "row 2, column 2 of the tokens is where key (1, 1) begins"


def test_feature_reduction_and_gate_cost_what_the_formula_says():
    D, H = 24, 3
    for rho, kappa in ((1, None), (2, 1), (4, 3)):
        layer = make(D, H, feature_reduction=rho, gate_reduction=kappa)
        gate = 0 if kappa is None else 2 * D * (D // kappa)
        assert layer.head_dim == D // (H * rho)
        assert measure.count_parameters(layer) == 4 * D * D // rho + 3 * D // rho + D + gate


def test_the_gate_lies_between_one_and_two_and_reads_the_full_width():
    layer, x = make(grid=(3, 4)), torch.randn(2, 12, 8, **EXACT)
    gated, _ = layer(x)
    gate, layer.gate = layer.gate, None
    assert_close(gated, layer(x)[0] * (1 + gate(x)))
    assert gate(x).shape == (2, 1, 8) and 0 < gate(x).min() and gate(x).max() < 1


def test_memory_grows_with_n_and_never_holds_a_map():
    layer = make(16, 2)
    peaks = [measure.peak_bytes(layer, torch.randn(1, n * n, 16, **EXACT)) for n in (16, 32)]
    assert 3.5 < peaks[1].live / peaks[0].live < 4.5
    assert peaks[1].entries <= 2 * 1024 * 4 * layer.head_dim < 1024**2


def test_half_precision_agrees_with_float64_on_the_same_rounded_inputs():
    """A query whose entries all lie beside zero may lose its sign to rounding: not the layer's arithmetic."""
    low = make(8, 2).to(torch.bfloat16)
    x = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    q, k, v = low.projections(x)
    wanted = vicinity.vicinity_attention(q.double(), k.double(), v.double(), (10, 20))
    found = vicinity.vicinity_attention(q, k, v, (10, 20))
    assert found.dtype == torch.bfloat16 and (found.double() - wanted).norm() < 0.01 * wanted.norm()


WRONG = {
    "a grid of other tokens": (lambda: make(grid=(3, 4))(torch.zeros(1, 10, 8, **EXACT)), r"grid=\(3, 4\).*N=10"),
    "a grid of one number": (lambda: make(grid=9), "grid=9"),
    "another reweighting": (lambda: make(reweighting="manhattan"), "'manhattan'.*sum, product"),
    "features that do not divide": (lambda: make(12, 4, feature_reduction=2), "feature_reduction=2.*3"),
    "a gate that does not divide": (lambda: make(gate_reduction=3), "gate_reduction=3.*8"),
    "an eps of nothing": (lambda: make(eps=0.0), "eps=0.0"),
    "a grid that is not reduced": (
        lambda: make(grid=(3, 4), spatial_reduction=2)(torch.zeros(1, 12, 8, **EXACT)),
        "multiples of spatial_reduction=2",
    ),
    "a mask of reduced keys": (
        lambda: make(spatial_reduction=2)(
            torch.zeros(1, 16, 8, **EXACT), key_padding_mask=torch.zeros(1, 16, dtype=torch.bool)
        ),
        "key_padding_mask with spatial_reduction",
    ),
    "causal": (lambda: make(is_causal=True), "is_causal=True.*no causal form"),
    "an unknown size": (lambda: published("huge"), "'huge'.*tiny, small"),
    "stages of different lengths": (lambda: VVT(8, 2, heads=(1,)), "heads has 1 entries"),
    "a mechanism with a carry": (lambda: VVT(8, 2, attention="luna"), "'luna' hands a carry on"),
    "an image of another size": (lambda: VVT(8, 2)(torch.zeros(1, 3, 9, 9)), "images"),
    "a negative noise": (lambda: data.regions(noise=-1.0), "noise=-1.0"),
    "no cells": (lambda: data.regions(size=0), "size=0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_named(case):
    call, says = WRONG[case]
    with pytest.raises(ValueError, match=says):
        call()


# ---- The pyramid ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["vicinity", "softmax", ["vicinity", "softmax"], ["linear", "vicinity"]], ids=str)
def test_a_pyramid_trains_every_parameter_on_an_image_of_any_shape(names):
    model = VVT((9, 14), 5, attention=names, depths=(2, 1))
    model(torch.randn(2, 3, 9, 14)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert [stage.grid for stage in model.stages] == [(5, 7), (3, 4)]


def test_weights_serve_every_image_size():
    model = VVT(8, 5, seed=3).double().eval()
    images = torch.randn(2, 3, 12, 20, **EXACT)
    other = VVT((12, 20), 5).double().eval()
    other.load_state_dict(model.state_dict())
    assert_close(model.set_image_size((12, 20))(images), other(images))
    maps = model.attention_maps(images)
    assert maps[0]["self"]["effective"].shape == (2, 1, 60, 60) and maps[1]["self"]["R"].shape == (15, 15)


def test_without_its_convolutions_a_stage_knows_places_by_the_re_weighting_alone():
    images = torch.randn(1, 3, 8, 8, **EXACT)
    for reweighting, same in (("none", True), ("sum", False)):
        options = {"attention_options": {"reweighting": reweighting}, "depthwise": False}
        model = VVT(8, 5, widths=(16,), heads=(1,), depths=(1,), mlp_ratios=(2,), strides=(2,), **options)
        block = model.double().eval().stages[0].blocks[0]
        tokens = model.stages[0].embed(images)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
        moved, still = block(tokens[:, order], {})[0], block(tokens, {})[0][:, order]
        assert torch.allclose(moved, still, atol=1e-10) == same


def test_vicinity_attends_in_a_plain_vision_transformer_too():
    model = ViT((8, 12), 5, patch_size=4, channels=3, attention=["vicinity", "softmax"], embed_dim=16, num_heads=2)
    assert model(torch.randn(2, 3, 8, 12)).shape == (2, 5)


def test_authors_initial_weights_and_the_published_counts():
    with torch.device("meta"):
        tiny = published("tiny")
    assert measure.count_parameters(tiny) == 12_882_440
    assert sum(multiply_adds(tiny).values()) > 2.98e9
    small = VVT(8, 5, authors_init=True)
    assert small.head.weight.std() < 0.03 < VVT(8, 5).head.weight.std() and (small.head.bias == 0).all()


# ---- Region maps ----------------------------------------------------------------------------------------------------


def test_region_maps_are_half_and_half_and_a_pure_function_of_step_and_seed():
    task = data.regions(size=6)
    batch = task.batch(3)
    assert batch["inputs"].shape == (32, 36, 1) and (batch["targets"].sum(1) == 18).all()
    assert torch.equal(task.batch(3)["inputs"], batch["inputs"])
    assert not torch.equal(task.batch(4)["inputs"], batch["inputs"])
    assert not torch.equal(data.regions(size=6, seed=1).batch(3)["inputs"], batch["inputs"])


def test_a_cell_alone_is_right_as_often_as_its_noise_allows_and_its_neighbours_know_more():
    task = data.regions(test_size=2000)
    cells, wanted = task.test["inputs"][..., 0], task.test["targets"] == 1
    alone = ((cells > 0) == wanted).double().mean()
    assert abs(alone - 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))) < 0.005
    image = cells.unflatten(1, (10, 10))[:, None]
    around = torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1).flatten(1)
    assert ((around > 0) == wanted).double().mean() > alone + 0.1
    assert (
        (data.regions(noise=0.0).test["inputs"][..., 0] > 0) == (data.regions(noise=0.0).test["targets"] == 1)
    ).all()
