"""Evolving Attention beyond the invariants table: chains, kernels and time, cost, operators, the network of series."""

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from refattn import attention, data, measure, train
from refattn.attention.evolving_attention import (
    current_map,
    evolve_map,
    evolving_attention,
    evolving_attention_explicit,
    mix_maps,
)
from refattn.attention.softmax import softmax_attention_explicit
from refattn.layers.augmented_convolution import AugmentedConv1d, AugmentedConv2d, relative_logits
from refattn.layers.map_convolution import convolve_maps, convolve_maps_explicit
from refattn.models import CausalLM, Classifier, EncoderDecoder
from refattn.models.evolving_attention import EADCTransformer
from refattn.models.stack import Stack
from refattn.reproduce.evolving_attention import cheat, writer
from refattn.reproduce.evolving_maps import shared_by_neighbours

LATER = {"first_in_chain": False}
SERIES = import_module("refattn.data.uea")  # `refattn.data.uea` as an attribute is the task


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(*args, **options):
    torch.manual_seed(0)
    return attention.build("evolving_attention", *args, **options).double().eval()


def parts(kernel=(3, 3), heads=2, tokens=7, d=4):
    q, k, v = (draw(2, heads, tokens, d, seed=seed) for seed in range(3))
    return q, k, v, draw(2, heads, tokens, tokens, seed=3), draw(heads, heads, *kernel, seed=4), draw(heads, seed=5)


# ---- The mixing rule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["self", "causal", "cross"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 5), (5, 3)])
def test_the_fast_form_equals_its_twin_with_a_past(kind, kernel):
    options = {"alpha": 0.3, "beta": 0.6, "kind": kind, "negative_slope": 0.01}
    both = (f(*parts(kernel), **options) for f in (evolving_attention, evolving_attention_explicit))
    for found, wanted in zip(*both, strict=True):
        torch.testing.assert_close(found, wanted)


def test_no_past_and_no_convolution_is_softmax_attention():
    q, k, v, A_prev, kernel, bias = parts()
    y, A = evolving_attention(q, k, v, A_prev, kernel, bias, alpha=0.0, beta=0.0)
    torch.testing.assert_close(y, softmax_attention_explicit(q, k, v))
    torch.testing.assert_close(A, current_map(q, k))


def test_alpha_one_hands_the_past_on():
    q, k, v, A_prev, *_ = parts()
    torch.testing.assert_close(evolving_attention(q, k, v, A_prev, alpha=1.0, beta=0.0)[1], A_prev)


@pytest.mark.parametrize("kind", ["causal", "cross"])
def test_moving_a_centred_result_is_a_causal_kernel_but_for_the_first_rows_and_columns(kind):
    *_, A_in, kernel, bias = parts()
    moved, causal = (evolve_map(A_in, kernel, bias, beta=1.0, kind=kind, shift=shift) for shift in (True, False))
    first = 1 if kind == "causal" else 0
    torch.testing.assert_close(moved[..., 1:, first:], causal[..., 1:, first:])
    assert (moved[..., 0, :] == 0).all() and (causal[..., 0, :] != 0).any()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("causal", [(False, False), (True, False), (False, True), (True, True)])
def test_a_convolution_over_maps_is_the_sum_of_its_taps(groups, causal):
    maps, kernel, bias = draw(2, 4, 6, 5), draw(6, 4 // groups, 3, 5, seed=1), draw(6, seed=2)
    options = {"groups": groups, "causal_rows": causal[0], "causal_columns": causal[1], "seen": maps[:, :1] > -0.5}
    found, wanted = (f(maps, kernel, bias, **options) for f in (convolve_maps, convolve_maps_explicit))
    torch.testing.assert_close(found, wanted)


# ---- Chains ----------------------------------------------------------------------------------------------------------


def test_a_layer_of_another_kind_between_two_evolving_layers_leaves_their_chain_whole():
    names = ["evolving_attention", "linear", "evolving_attention"]
    stack = Stack(names, 8, 2, options=[{}, {}, {"alpha": 1.0}]).double()
    maps = []
    _, carries = stack(draw(2, 6, 8), maps=maps)
    first, last = maps[0]["self"], maps[2]["self"]
    torch.testing.assert_close(last["mixed"], first["evolved"])  # α = 1: the past alone
    assert carries == {"evolving-self": None} and stack.blocks[0].self_attention.convolution is None


def test_encoder_decoder_and_cross_maps_are_three_chains():
    model = EncoderDecoder(11, attention="evolving_attention", embed_dim=8, num_heads=2, num_layers=2, ffn_dim=8)
    assert not model.joint
    model(torch.randint(11, (2, 5)), target=torch.randint(11, (2, 7))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    kinds = {layer.kind for layer in model.modules() if isinstance(layer, attention.mechanism("evolving_attention"))}
    assert kinds == {"self", "causal", "cross"}


def test_hybrid_encoder_decoder_runs_with_padding():
    names = ["softmax", "evolving_attention"]
    model = EncoderDecoder(11, attention=names, embed_dim=8, num_heads=2, num_layers=2).eval()
    source, target = torch.randint(11, (1, 5)), torch.randint(11, (1, 4))
    padded = torch.cat([source, torch.zeros(1, 3, dtype=torch.long)], 1)
    mask = torch.arange(8)[None] >= 5
    found = model(padded, target=target, key_padding_mask=mask)
    torch.testing.assert_close(found, model(source, target=target))


@pytest.mark.parametrize("changed", [2, 5])
def test_a_token_changes_nothing_before_it_in_three_layers(changed):
    model = CausalLM(9, attention="evolving_attention", embed_dim=8, num_heads=2, num_layers=3).double()
    ids = torch.randint(9, (1, 8), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, changed] = (other[0, changed] + 1) % 9
    before, after = model(ids), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert (before[:, changed:] != after[:, changed:]).any(-1).all()


def test_a_centred_kernel_looks_ahead():
    task = data.ngrams()
    ids = task.test["inputs"][:1].clone()
    honest, dishonest = writer(task, 0).double(), cheat(task, 0).double()
    before = [model(ids) for model in (honest, dishonest)]
    ids[0, -1] = (ids[0, -1] + 1) % 12
    moved = [(model(ids) - b)[:, :-1].abs().max() for model, b in zip((honest, dishonest), before, strict=True)]
    assert moved[0] == 0 and moved[1] > 1e-6


def test_a_padded_query_is_hidden_from_the_kernel():
    """A centred kernel reads the row below, which may be padding."""
    layer, x, A_prev = make(8, 2, **LATER), draw(1, 6, 8), draw(1, 2, 4, 4, seed=1)
    mask = torch.arange(6)[None] >= 4
    carry = torch.nn.functional.pad(A_prev, (0, 2, 0, 2))
    y, A = layer(x, key_padding_mask=mask, carry=carry)
    alone, A_alone = layer(x[:, :4], carry=A_prev)
    torch.testing.assert_close(y[:, :4], alone)
    torch.testing.assert_close(A[..., :4, :4], A_alone)
    assert (A[..., 4:, :] == 0).all() and (A[..., 4:] == 0).all()


def test_an_identity_start_hands_positive_logits_on():
    for form in ({}, {"is_causal": True}, {"cross": True}):
        layer = make(8, 2, start="identity", beta=1.0, alpha=1.0, **LATER, **form)
        inputs = (draw(1, 5, 8), draw(1, 5, 8, seed=1)) if "cross" in form else (draw(1, 5, 8),)
        carry = draw(1, 2, 5, 5, seed=2).tril()
        torch.testing.assert_close(layer(*inputs, carry=carry)[1], carry.relu())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: make(8, 2, alpha=1.5), "alpha=1.5"),
        (lambda: make(8, 2, beta=-0.1), "beta=-0.1"),
        (lambda: make(8, 2, kernel_size=2, **LATER), "kernel_size=2"),
        (lambda: make(8, 2, start="zero"), "start='zero'"),
        (lambda: make(8, 2, **LATER)(draw(1, 3, 8)), "carry is missing"),
        (lambda: make(8, 2)(draw(1, 3, 8), carry=draw(1, 2, 3, 3)), "first_in_chain=True"),
        (lambda: make(8, 2, **LATER)(draw(1, 3, 8), carry=draw(1, 4, 3, 3)), r"carry has shape \(1, 4, 3, 3\)"),
        (lambda: evolve_map(draw(1, 2, 3, 3), draw(2, 2, 3, 3), None, beta=1.0, kind="decoder"), "kind='decoder'"),
        (lambda: convolve_maps(draw(1, 2, 3, 3), draw(2, 3, 3, 3)), "kernel has shape"),
        (lambda: convolve_maps(draw(2, 3, 3), draw(2, 3, 3, 3)), "maps have shape"),
    ],
)
def test_what_does_not_fit_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ---- Cost ------------------------------------------------------------------------------------------------------------


def test_memory_is_quadratic_and_no_more():
    layer, ns = make(8, 2, **LATER), (64, 128, 256)
    kept = [measure.saved_bytes(layer, draw(1, n, 8), carry=draw(1, 2, n, n)) for n in ns]
    assert 1.8 < measure.scaling_exponent(ns, kept)[0] < 2.05


def test_the_fast_form_keeps_no_more_than_the_equations_written_plainly():
    arguments = parts(tokens=64)
    leaves = [t.requires_grad_() for t in arguments]
    fast, plain = (measure.saved_bytes(f, *leaves) for f in (evolving_attention, evolving_attention_explicit))
    assert fast < plain


# ---- Augmented convolutions ------------------------------------------------------------------------------------------


def test_relative_logits_read_the_row_of_their_lag():
    q, table = draw(2, 5, 3), draw(15, 3, seed=1)  # L = 8
    found = relative_logits(q, table)
    for p in range(5):
        for k in range(5):
            torch.testing.assert_close(found[:, p, k], q[:, p] @ table[k - p + 7])


def test_pixels_of_an_oblong_image_are_numbered_row_by_row():
    layer = AugmentedConv2d(3, 8, grid=(2, 3), num_heads=2, key_ratio=0.5, value_ratio=0.5).double()
    q = draw(1, 2, 6, 2)
    found = layer.relative(q, (2, 3))
    for n in range(6):
        for m in range(6):
            row, column = m // 3 - n // 3, m % 3 - n % 3
            torch.testing.assert_close(found[0, :, n, m], q[0, :, n] @ (layer.R_w[column + 2] + layer.R_h[row + 1]))


def test_the_convolution_over_time_is_causal_and_the_attention_beside_it_is_not():
    layer = AugmentedConv1d(4, 16, max_len=9, dilation=2, num_heads=2, key_ratio=0.5, value_ratio=0.5).double()
    x = draw(1, 4, 9)
    changed = x.clone()
    changed[..., 5] += 1.0
    moved = (layer(x)[0] != layer(changed)[0]).any(1)[0]
    assert moved.all()
    moved = (layer.convolve(x) != layer.convolve(changed)).any(1)[0]
    assert moved.nonzero().flatten().tolist() == [5, 7]


def test_the_authors_merge_is_the_proper_one_where_heads_are_one_wide():
    x, same = draw(2, 3, 6), {}
    for width in (1, 2):
        torch.manual_seed(0)
        layer = AugmentedConv1d(3, 16, max_len=6, num_heads=4, key_ratio=0.5, value_ratio=width / 4).double()
        proper = layer(x)[0]
        layer.merge = "authors"
        same[width] = torch.equal(proper, layer(x)[0])
    assert same == {1: True, 2: False}


def test_padding_takes_no_part_in_attention_unless_as_the_authors_have_it():
    torch.manual_seed(0)
    layer = AugmentedConv1d(3, 16, max_len=8, num_heads=2, key_ratio=0.5, value_ratio=0.5).double()
    x, A_prev = draw(1, 3, 8), draw(1, 2, 5, 5, seed=1)
    mask = torch.arange(8)[None] >= 5
    alone, _ = layer(x[..., :5], A_prev)
    carry = torch.nn.functional.pad(A_prev, (0, 3, 0, 3))
    torch.testing.assert_close(layer(x, carry, key_padding_mask=mask)[0][..., :5], alone)
    assert not torch.allclose(layer(x, carry)[0][..., :5], alone)


@pytest.mark.parametrize(("stride", "downsample", "tokens"), [(1, False, 30), (2, False, 9), (1, True, 9)])
def test_an_image_s_attention_may_work_on_fewer_pixels(stride, downsample, tokens):
    torch.manual_seed(0)
    options = {"num_heads": 2, "key_ratio": 0.5, "value_ratio": 0.5, "stride": stride, "downsample": downsample}
    layer = AugmentedConv2d(3, 8, grid=(6, 5), **options)
    y, A = layer(torch.randn(2, 3, 6, 5))
    assert y.shape == (2, 8, *layer.convolution(torch.zeros(1, 3, 6, 5)).shape[2:])
    assert A.shape == (2, 2, tokens, tokens)
    passed = layer(torch.randn(2, 3, 6, 5), torch.zeros(2, 2, 4, 4))[1]  # a map of another size is not gone on with
    assert passed.shape == A.shape


def test_wrong_channels_lengths_and_images_are_named():
    with pytest.raises(ValueError, match="key_ratio gives 4 channels of 16: wanted a multiple of 8"):
        AugmentedConv1d(3, 16, max_len=4)
    with pytest.raises(ValueError, match="max_len=4"):
        AugmentedConv1d(3, 32, max_len=4)(torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="grid=\\(3, 3\\)"):
        AugmentedConv2d(3, 64, grid=(3, 3))(torch.zeros(1, 3, 4, 3))


# ---- The network of series -------------------------------------------------------------------------------------------


def network(**options):
    shape = {"max_len": 9, "embed_dim": 32, "num_blocks": 3, "ffn_dim": 16}
    return EADCTransformer(4, 5, **shape | options)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.0, "beta": 0.0}, {"key_ratio": 0.0}, {"official": True}])
def test_every_parameter_of_the_network_has_a_gradient(options):
    model = network(**options)
    mask = torch.arange(9)[None] >= torch.tensor([[9], [6], [4]])
    model(torch.randn(3, 9, 4), key_padding_mask=mask).square().sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not idle, idle
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_padded_steps_of_a_series_may_hold_anything():
    model, x = network().eval(), torch.randn(2, 9, 4)
    mask = torch.arange(9)[None].expand(2, 9) >= 6
    junk = x.masked_fill(mask[..., None], 100.0)
    torch.testing.assert_close(model(junk, key_padding_mask=mask), model(x, key_padding_mask=mask))
    assert (junk == 100.0).any(), "the input is left as it was"


def test_evolution_adds_its_kernels_and_nothing_else():
    added = measure.count_parameters(network()) - measure.count_parameters(network(alpha=0.0, beta=0.0))
    assert added == 4 * (8 * 8 * 9 + 8)  # two convolutions in each block but the first


def test_a_table_of_noise_makes_evaluation_random():
    x = torch.randn(1, 9, 4)
    still, noisy = (network(random_table=noise).eval() for noise in (False, True))
    assert torch.equal(still(x), still(x)) and not torch.equal(noisy(x), noisy(x))
    assert len(still.attention_maps(x)) == 6


def test_a_series_of_another_length_is_named():
    with pytest.raises(ValueError, match=r"inputs have shape \(1, 8, 4\)"):
        network()(torch.zeros(1, 8, 4))


def test_the_encoder_classifies_and_shows_its_maps():
    model = Classifier(7, 3, attention="evolving_attention", embed_dim=8, num_heads=2, num_layers=3)
    maps = model.attention_maps(torch.randint(7, (2, 6)))
    assert {"effective", "current", "mixed", "evolved"} == set(maps[2]["self"])
    torch.testing.assert_close(maps[0]["self"]["evolved"], maps[0]["self"]["current"])
    mixed = mix_maps(maps[1]["self"]["current"], maps[0]["self"]["evolved"], 0.5)
    torch.testing.assert_close(maps[1]["self"]["mixed"], mixed)


# ---- Tasks and measurements ------------------------------------------------------------------------------------------


def test_a_map_shares_all_of_itself_and_nothing_of_what_is_disjoint():
    eye = torch.eye(6)[None, None]
    assert shared_by_neighbours([eye, eye]) == pytest.approx(100.0)
    assert shared_by_neighbours([eye, eye.roll(1, -1)]) == pytest.approx(0.0)
    both = torch.cat([eye.roll(1, -1), eye], 1)
    assert shared_by_neighbours([both, both.flip(1)]) == pytest.approx(100.0), "the most alike head counts"


def test_series_without_aeon_name_the_extra(monkeypatch):
    monkeypatch.setattr(SERIES, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package aeon: pip install --no-deps aeon .* refattn\[uea\]"):
        data.uea()


def test_a_line_of_the_archive_s_format_is_a_series_and_its_class(monkeypatch, tmp_path):
    folder = tmp_path / "datasets" / "data" / "JapaneseVowels"
    folder.mkdir(parents=True)
    head = "# a comment: not data\n@problemName Tiny\n@classLabel true 1 2\n@DATA\n"
    (folder / "JapaneseVowels_TRAIN.ts").write_text(head + "1,-2,3.5:4,5,6:2\n\n7:8:1\n", encoding="utf-8")
    monkeypatch.setattr(SERIES, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    series, labels = SERIES.read("JapaneseVowels", "TRAIN")
    assert [values.tolist() for values in series] == [[[1.0, 4.0], [-2.0, 5.0], [3.5, 6.0]], [[7.0, 8.0]]]
    assert labels == ["2", "1"]


def test_series_are_padded_standardised_and_counted(monkeypatch):
    short, long = torch.tensor([[1.0, 10.0], [3.0, 30.0]]), torch.tensor([[5.0, 50.0], [7.0, 70.0], [4.0, 40.0]])
    parts = {"TRAIN": ([short, long], ["b", "a"]), "TEST": ([short], ["a"])}
    monkeypatch.setattr(SERIES, "read", lambda dataset, part: parts[part])
    task = data.uea(batch_size=2)
    batch = task.batch(0)
    assert (task.max_len, task.num_classes, sorted(batch["targets"].tolist())) == (3, 2, [0, 1])
    steps = batch["inputs"][~batch["key_padding_mask"]]
    torch.testing.assert_close(steps.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(steps.std(0), torch.ones(2))
    assert task.test["key_padding_mask"].tolist() == [[False, False, True]] and task.test["targets"].tolist() == [0]
    with pytest.raises(ValueError, match="per_class=2: wanted 1 … 1"):
        data.uea(per_class=2)


@pytest.mark.skipif(find_spec("aeon") is None, reason="the optional package aeon is not installed")
@pytest.mark.parametrize(
    ("dataset", "sizes"), [("JapaneseVowels", (270, 370, 29, 12, 9)), ("BasicMotions", (40, 40, 100, 6, 4))]
)
def test_the_archive_s_own_files_are_read(dataset, sizes):
    training, tests, longest, features, classes = sizes
    task = data.uea(dataset=dataset, batch_size=40)
    assert task.test["inputs"].shape == (tests, longest, features) and task.num_classes == classes
    assert str(training) in task.description
    few = data.uea(dataset=dataset, per_class=3, batch_size=3 * classes)
    assert few.batch(0)["targets"].bincount().tolist() == [3] * classes
    history = train.fit(network_of(task), task, steps=2, device="cpu", progress=False)
    assert 0 <= history.accuracy <= 1


def network_of(task):
    shape = {"max_len": task.max_len, "embed_dim": 32, "num_blocks": 2, "ffn_dim": 16}
    return EADCTransformer(task.test["inputs"].shape[-1], task.num_classes, **shape)


def test_importing_the_package_imports_no_aeon():
    code = "import sys, refattn.data, refattn.reproduce; print('aeon' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
