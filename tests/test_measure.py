"""Counts agree with counting by hand; exponents and crossings are found where we put them."""

import json
import math
import platform

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from refattn import attention, bench, measure

B, H, N, M, d, D = 2, 3, 16, 20, 8, 24
F32 = 4  # bytes


def tensor(*shape, **options):
    return torch.ones(shape, **options)


def test_parameters_are_counted_once_and_frozen_ones_on_request():
    shared = nn.Linear(4, 4)  # 20
    model = nn.Sequential(shared, shared, nn.Linear(4, 2, bias=False))  # 8
    shared.bias.requires_grad_(False)
    assert measure.count_parameters(model) == 24
    assert measure.count_parameters(model, trainable=False) == 28


ATTENTION = 2 * 2 * B * H * N * M * d
CALLS = {
    "linear": (lambda: nn.Linear(D, 5)(tensor(B, N, D)), 2 * B * N * D * 5),
    "linear of one vector": (lambda: nn.Linear(D, 5)(tensor(D)), 2 * D * 5),
    "matrix times vector": (lambda: tensor(N, D) @ tensor(D), 2 * N * D),
    "dot product": (lambda: tensor(D) @ tensor(D), 2 * D),
    "addmv": (lambda: torch.addmv(tensor(N), tensor(N, D), tensor(D)), 2 * N * D),
    "einsum": (lambda: torch.einsum("bnd,bmd->bnm", tensor(B, N, D), tensor(B, M, D)), 2 * B * N * M * D),
    "attention": (lambda: F.scaled_dot_product_attention(tensor(B, H, N, d), *[tensor(B, H, M, d)] * 2), ATTENTION),
    "convolution": (lambda: nn.Conv2d(3, 5, 3, padding=1)(tensor(B, 3, 6, 7)), 2 * B * 6 * 7 * 5 * 3 * 9),
    "depthwise convolution": (lambda: nn.Conv1d(D, D, 3, groups=D)(tensor(B, D, N)), 2 * B * (N - 2) * D * 3),
    "transposed convolution": (lambda: nn.ConvTranspose1d(D, 5, 3)(tensor(B, D, N)), 2 * B * N * D * 5 * 3),
    "complex FFT": (lambda: torch.fft.fft2(tensor(B, N, 32)), 5 * B * N * 32 * math.log2(N * 32)),
    "real FFT and back": (lambda: torch.fft.irfft(torch.fft.rfft(tensor(B, 32))), 2 * B * 2.5 * 32 * 5),
    "sum": (lambda: tensor(N, D).sum(), 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_flops_are_those_of_the_hand_count(name):
    call, expected = CALLS[name]
    assert measure.flops(call) == expected


BACKWARD = {
    "linear": (nn.Linear(D, 5), (B, N, D), 3),
    "convolution": (nn.Conv2d(3, 5, 3), (B, 3, 6, 7), 3),
    "depthwise convolution": (nn.Conv1d(D, D, 3, groups=D), (B, D, N), 3),
    "transposed convolution": (nn.ConvTranspose1d(D, 5, 3, stride=2), (B, D, N), 3),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), (B, H, N, d), 3.5),  # the map is computed again
}


@pytest.mark.parametrize("name", BACKWARD)
def test_forward_and_backward_cost_three_forwards(name):
    function, shape, times = BACKWARD[name]
    x = tensor(*shape, requires_grad=True)
    forward = measure.flops(function, x)
    assert measure.flops(lambda: function(x).sum().backward()) == times * forward > 0


def test_torchs_fused_attention_layer_hides_no_flops():
    mha, x = nn.MultiheadAttention(D, 2, batch_first=True).eval(), tensor(B, N, D)  # an odd H is never fused
    with torch.no_grad():
        assert measure.flops(mha, x, x, x) == 2 * B * N * 4 * D * D + 2 * 2 * B * N * N * D


def test_flops_by_operator_add_up():
    layer, x = nn.Sequential(nn.Linear(D, D), nn.Conv1d(N, N, 1)), tensor(B, N, D)
    parts = measure.flops(layer, x, by_operator=True)
    assert len(parts) == 2 and sum(parts.values()) == measure.flops(layer, x)


def test_saved_bytes_are_exact():
    x = tensor(B, N, D, requires_grad=True)
    linear = nn.Linear(D, 5)
    assert measure.saved_bytes(linear, x) == B * N * D * F32  # its input; the weight is a parameter
    assert measure.saved_bytes(lambda: linear(x).softmax(-1)) == B * N * (D + 5) * F32  # and the softmax's output
    assert measure.saved_bytes(lambda: x * x.sin()) == 2 * B * N * D * F32  # x twice, but one storage
    assert measure.saved_bytes(lambda: x[:, :1].sin()) == B * N * D * F32  # a view keeps its whole storage


def test_nothing_is_saved_without_gradients_or_for_a_graph_that_is_gone():
    x = tensor(B, N, D, requires_grad=True)
    with torch.no_grad():
        assert measure.saved_bytes(lambda: x.sin()) == 0
    assert measure.saved_bytes(lambda: x.sin().sum().item()) == 0


def test_a_checkpointed_layer_saves_its_input_only():
    x = tensor(B, N, D, requires_grad=True)
    layer = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D), nn.Tanh())
    checkpointed = measure.saved_bytes(lambda: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False))
    assert checkpointed <= B * N * D * F32 < measure.saved_bytes(layer, x)


def test_explicit_attention_creates_the_map_and_the_fused_one_does_not():
    q, k = tensor(B, H, N, d), tensor(B, H, M, d)
    explicit = measure.peak_bytes(lambda: (q @ k.mT).softmax(-1) @ k)
    assert (explicit.shape, explicit.entries, explicit.largest) == ((B, H, N, M), B * H * N * M, B * H * N * M * F32)
    assert explicit.live == 2 * B * H * N * M * F32  # scores and weights together, when the output is not yet there
    fused = measure.peak_bytes(F.scaled_dot_product_attention, q, k, k)
    assert fused.entries == B * H * N * d


def test_freed_tensors_inputs_and_views_do_not_count():
    x = tensor(100)

    def function():
        y = x.view(10, 10).t()
        for _ in range(5):
            y = y + 1
        return y.expand(3, 10, 10)

    assert measure.peak_bytes(function).live == 2 * 100 * F32
    assert measure.peak_bytes(lambda: x.view(10, 10)) == measure.Peak()


def test_peak_covers_a_backward_pass_run_inside():
    x = tensor(100, requires_grad=True)
    assert measure.peak_bytes(lambda: x.expand(50, 100).exp().sum().backward()).largest == 5000 * F32


def test_latency_pairs_rounds_and_orders_fast_before_slow():
    small, large = tensor(4, 4), tensor(600, 600)
    found = measure.latency(
        {"small": lambda: small @ small, "large": lambda: large @ large}, rounds=3, min_seconds=1e-3
    )
    assert {name: len(values) for name, values in found.rounds.items()} == {"small": 3, "large": 3}
    middle, least, most = found.seconds["large"]
    assert 0 < least <= middle <= most
    assert found.ratio("large", "small")[1] > 1
    assert found.ratios("large", "large") == [1.0] * 3


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_an_exact_power_law_has_its_exponent_and_no_width(slope):
    found = measure.scaling_exponent([256, 512, 1024, 2048], [3 * n**slope for n in (256, 512, 1024, 2048)])
    assert found == pytest.approx((slope,) * 3, abs=1e-9)


def test_the_interval_covers_the_exponent_as_often_as_it_says():
    noise, ns = np.random.default_rng(0), np.array([128, 256, 512, 1024, 2048])
    intervals = [measure.scaling_exponent(ns, ns**1.5 * np.exp(0.1 * noise.normal(size=5))) for _ in range(400)]
    assert 0.92 < np.mean([found.low < 1.5 < found.high for found in intervals]) < 0.98


def test_two_points_say_nothing_about_the_scatter():
    assert measure.scaling_exponent([1, 2], [1, 4]) == pytest.approx((2, -math.inf, math.inf))


@pytest.mark.parametrize(
    "ns, values", [([1], [1]), ([2, 2], [1, 3]), ([1, 2], [0, 1]), ([1, 2], [1, math.nan]), ([1, 2], [1])]
)
def test_what_has_no_exponent_is_refused(ns, values):
    with pytest.raises(ValueError, match="values="):
        measure.scaling_exponent(ns, values)


def test_the_crossing_is_found_between_lengths():
    ns = [16, 64, 256, 1024]
    square, line = [n * n for n in ns], [100 * n for n in ns]
    assert measure.crossover(ns, square, line) == pytest.approx(100)
    assert measure.crossover(ns, line, [n / 2 for n in ns]) == 16  # cheaper from the start
    assert measure.crossover(ns, line, line) is None
    assert measure.crossover(ns, [n for n in ns], line) is None
    with pytest.raises(ValueError, match="increasing"):
        measure.crossover([2, 1], [1, 1], [1, 1])


def test_environment_names_versions_and_processor_but_no_machine():
    found = measure.environment()
    assert found["torch"] == torch.__version__ and found["processor"] and found["device"] == "cpu"
    assert platform.node() not in found.values()


def test_bench_has_a_row_for_every_cell_and_a_reason_for_every_hole(tmp_path):
    shape = {"dim": 8, "heads": 2, "rounds": 1, "min_seconds": 1e-4, "progress": None}
    rows = bench.run(["linear"], [8, 16], **shape)
    assert [(r["n"], r["causal"], r["direction"], r["mechanism"]) for r in rows] == [
        (n, causal, direction, name)
        for causal in (False, True)
        for n in (8, 16)
        for direction in ("forward", "forward+backward")
        for name in ("softmax", "linear")
    ]
    assert all(r["times_softmax"] == (1, 1, 1) for r in rows if r["mechanism"] == "softmax")
    bench.record(tmp_path / "rows.json", rows)
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["n"] == 8
    lines = []
    huge = bench.run(["linear"], [10**9], causal=(False,), backward=False, **shape | {"progress": lines.append})
    assert [("GiB" in r["skipped"]) for r in huge] == [True, True] and "skipped: needs about" in lines[-1]


def test_the_floor_of_softmax_attention_is_its_four_projections():
    layer = attention.build("softmax", D, H)
    assert measure.flops(bench.floor(layer, (B, N, D), "forward")) == 4 * 2 * B * N * D * D
