"""Couplformer beyond the invariants table: grids, padding by rows and columns, traces, cost, and both networks."""

import pytest
import torch

from refattn import attention, measure
from refattn.attention import couplformer
from refattn.attention.grid import grid_of
from refattn.attention.softmax import softmax_attention
from refattn.data.ghosts import ghosts
from refattn.models.couplformer import KCT, VIC, PatchMerging
from refattn.reproduce import kept_maps

GRIDS = [(3, 5), (5, 3), (1, 7), (7, 1), (4, 4)]


def heads(grid, d=4, seed=0, dtype=torch.float64):
    """q, k and v, each [2, 3, N, d]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, grid[0] * grid[1], d)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


# ---- The mechanism ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("merge", couplformer.MERGES)
def test_the_fast_form_is_its_twin_and_the_map_it_stands_for_on_any_grid(grid, merge):
    q, k, v = heads(grid)
    fast = couplformer.coupled_attention(q, k, v, grid, merge=merge)
    torch.testing.assert_close(fast, couplformer.coupled_attention_explicit(q, k, v, grid, merge=merge))
    M = couplformer.kronecker(*couplformer.coupled_weights(q, k, grid, merge=merge))
    torch.testing.assert_close(fast, M @ v)


@pytest.mark.parametrize("grid", GRIDS)
def test_logits_are_the_partial_traces_of_all_pairs(grid):
    q, k, _ = heads(grid)
    S = (q @ k.transpose(-1, -2)).unflatten(3, grid).unflatten(2, grid)
    R, C = couplformer.coupled_logits(q, k, grid)
    torch.testing.assert_close(R, 4**-0.25 * torch.einsum("bhijyj->bhiy", S))
    torch.testing.assert_close(C, 4**-0.25 * torch.einsum("bhijix->bhjx", S))


@pytest.mark.parametrize("grid", [(1, 9), (9, 1)])
def test_on_a_single_line_it_is_softmax_attention(grid):
    q, k, v = heads(grid)
    found = couplformer.coupled_attention(q, k, v, grid, scale_exponent=-0.5)
    torch.testing.assert_close(found, softmax_attention(q, k, v))


def test_scaled_by_the_contraction_logits_have_variance_one_on_any_grid():
    for grid in ((4, 4), (20, 5), (32, 32)):
        q, k, _ = heads(grid, d=8)
        for logits in couplformer.coupled_logits(q, k, grid, scale_over="contraction", scale_exponent=-0.5):
            assert 0.7 < logits.std() < 1.4


def test_permuting_whole_rows_permutes_outputs():
    q, k, v = heads((4, 5))
    order = torch.arange(20).unflatten(0, (4, 5))[[2, 0, 3, 1]].flatten()
    found = couplformer.coupled_attention(*(x[:, :, order] for x in (q, k, v)), (4, 5))
    torch.testing.assert_close(found, couplformer.coupled_attention(q, k, v, (4, 5))[:, :, order])


@pytest.mark.parametrize("scale_over", couplformer.SCALES)
@pytest.mark.parametrize("merge", couplformer.MERGES)
def test_padded_rows_and_columns_change_nothing(merge, scale_over):
    options = {"merge": merge, "scale_over": scale_over, "scale_exponent": -0.5}
    large, small = (attention.build("couplformer", 8, 2, grid=grid, **options).double() for grid in ((5, 6), (3, 4)))
    small.load_state_dict(large.state_dict())
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for rows, columns in ((slice(0, 3), slice(0, 4)), (slice(2, 5), slice(1, 5))):
        padded, mask = 1e3 * torch.ones(2, 5, 6, 8, dtype=torch.float64), torch.ones(2, 5, 6, dtype=torch.bool)
        padded[:, rows, columns], mask[:, rows, columns] = x, False
        y, _ = large(padded.flatten(1, 2), key_padding_mask=mask.flatten(1))
        wanted, _ = small(x.flatten(1, 2))
        torch.testing.assert_close(y.unflatten(1, (5, 6))[:, rows, columns].flatten(1, 2), wanted)


def test_memory_is_linear_in_the_pixels_and_maps_are_as_counted():
    kept, peaks = {}, {}
    for side in (32, 64):
        qkv = [x.requires_grad_() for x in heads((side, side), dtype=torch.float32)]
        kept[side] = measure.saved_bytes(couplformer.coupled_attention, *qkv, (side, side))
        peaks[side] = measure.peak_bytes(couplformer.coupled_attention, *qkv, (side, side))
        assert peaks[side].entries <= 2 * 3 * side**2 * 4
    assert kept[64] == 4 * kept[32] and peaks[64].live <= 4.1 * peaks[32].live
    assert kept_maps.coupled_numbers((7, 9), 3, 4) == 3 * (7**2 + 9**2)


# ---- Grids -----------------------------------------------------------------------------------------------------------


def test_without_a_grid_the_most_nearly_square_one_is_taken():
    assert [grid_of(n) for n in (1, 7, 24, 64, 333)] == [(1, 1), (1, 7), (4, 6), (8, 8), (9, 37)]


def layer_on(grid):
    return attention.build("couplformer", 8, 2, grid=grid)


crooked = torch.zeros(1, 12, dtype=torch.bool)
crooked[0, 11] = True  # one pixel of the last row
WRONG = {
    "grid=.3, 4. holds 12 tokens, and N=10": lambda: layer_on((3, 4))(torch.zeros(1, 10, 8)),
    "grid=.3,.: wanted": lambda: layer_on((3,)),
    "grid=.0, 4.: wanted": lambda: layer_on((0, 4)),
    "grid=4: wanted": lambda: layer_on(4),
    "whole rows and whole columns": lambda: layer_on((3, 4))(torch.zeros(1, 12, 8), key_padding_mask=crooked),
    "merge='max'": lambda: attention.build("couplformer", 8, 2, merge="max"),
    "scale_over='rows'": lambda: attention.build("couplformer", 8, 2, scale_over="rows"),
    "is_causal=True": lambda: attention.build("couplformer", 8, 2, is_causal=True),
    "cross=True": lambda: attention.build("couplformer", 8, 2, cross=True),
    "pool='max'": lambda: KCT(8, 3, num_heads=4, embed_dim=8, pool="max"),
    "patch_size=3": lambda: KCT(8, 3, patch_size=3),
    "images have shape": lambda: KCT(8, 3, num_heads=4, embed_dim=8)(torch.zeros(1, 1, 8, 8)),
    "cannot be halved": lambda: VIC(12, 3, patch_size=4, embed_dim=8, num_heads=4, depths=(1, 1)),
    "even sides": lambda: PatchMerging(4)(torch.zeros(1, 15, 4), (3, 5)),
    "at least 3 rows": lambda: ghosts(1, (2, 6), torch.Generator()),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_named(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words]()


# ---- Networks and task -----------------------------------------------------------------------------------------------

HYBRID = ["couplformer", "softmax", "linear"]
NETWORKS = {
    "flat": lambda: KCT((8, 12), 5, patch_size=2, embed_dim=8, num_heads=8, num_layers=2),
    "flat, hybrid, learned": lambda: KCT(
        8, 5, patch_size=2, embed_dim=8, num_heads=2, num_layers=3, attention=HYBRID, positions="learned", pool="mean"
    ),
    "hierarchical": lambda: VIC((8, 16), 5, patch_size=2, embed_dim=8, num_heads=(2, 4), depths=(1, 2)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_trains_every_parameter_and_shows_a_map_a_layer(network):
    model = NETWORKS[network]()
    images = torch.randn(2, *model.patches.image_shape, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    logits.square().sum().backward()
    assert logits.shape == (2, 5) and all(p.grad is not None for p in model.parameters())
    maps = model.attention_maps(images)
    assert len(maps) == len(model.all_blocks()) and all("effective" in layer["self"] for layer in maps)


def test_the_flat_classifier_has_the_authors_number_of_parameters():
    model = KCT(32, 100, num_layers=6, num_heads=64, embed_dim=128, ffn_dim=384, attention_options={"qkv_bias": False})
    assert measure.count_parameters(model) == 1_009_509


def test_the_second_norm_stands_in_the_stream():
    block = KCT(8, 3, patch_size=2, embed_dim=8, num_heads=4, num_layers=1).all_blocks()[0]
    with torch.no_grad():
        block.feed_forward.down.weight.zero_()
    out, _ = block(5 * torch.randn(2, 16, 8) + 3, {})
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 16), rtol=0, atol=1e-5)


def test_marks_share_no_row_or_column_and_targets_are_their_mean():
    images, targets, marked = ghosts(500, (4, 6), torch.Generator().manual_seed(0))
    rows, columns = marked // 6, marked % 6
    assert (rows[:, 0] != rows[:, 1]).all() and (columns[:, 0] != columns[:, 1]).all()
    assert rows.min() == columns.min() == 1 and rows.max() == 3 and columns.max() == 5
    torch.testing.assert_close(targets, (images[..., 0] * images[..., 1]).sum(1) / 2)
