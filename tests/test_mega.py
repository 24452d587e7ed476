"""Mega's own: three forms of one moving average, three attention functions, chunks and what crosses their borders."""

import math

import pytest
import torch

from refattn import attention, measure
from refattn.attention.mega import Mega, laplace, mega_weights, relu2
from refattn.layers.ema import (
    Coefficients,
    DampedEMA,
    coefficients,
    ema_chunked,
    ema_explicit,
    ema_fft,
    ema_kernel,
    ema_state,
)
from refattn.layers.norms import NORMS, make_norm
from refattn.layers.relative_bias import RotaryBias, SimpleBias, rotary_bias_explicit
from refattn.models import CausalLM, Classifier, EncoderDecoder
from refattn.models.mega import MegaClassifier

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def average(width=6, ema_dim=4, **options):
    torch.manual_seed(0)
    return DampedEMA(width, ema_dim, **options).double()


def layer(width=8, heads=2, **options):
    """Weights larger than at the start, where every score is nearly zero."""
    torch.manual_seed(0)
    made = attention.build("mega", width, heads, **{"ema_dim": 3} | options).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made


# ---- The moving average ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 100])
@pytest.mark.parametrize("both_ways", [False, True])
def test_loop_transform_and_chunks_are_one_average(tokens, both_ways):
    module, x = average(bidirectional=both_ways), draw(2, tokens, 6)
    coeffs = module.coefficients()
    wanted = ema_explicit(x, coeffs[0])[0]
    if both_ways:
        wanted = wanted + ema_explicit(x.flip(1), coeffs[1])[0].flip(1)
    torch.testing.assert_close(ema_fft(x, *module.kernels(tokens)), wanted, **EXACT)
    for chunk in (1, 4, 64):
        torch.testing.assert_close(ema_chunked(x, *coeffs, chunk=chunk), wanted, **EXACT)


def test_two_segments_with_a_state_between_them_are_one():
    x, (coeff,) = draw(2, 50, 6), average().coefficients()
    whole, last = ema_explicit(x, coeff)
    state = ema_state(x[:, :19], coeff)
    torch.testing.assert_close(ema_chunked(x[:, 19:], coeff, state=state, chunk=8), whole[:, 19:], **EXACT)
    torch.testing.assert_close(ema_state(x[:, 19:], coeff, state), last, **EXACT)


def test_undamped_with_one_dimension_it_is_the_exponential_average_everybody_knows():
    raw = torch.full((1, 1), math.log(0.3 / 0.7), dtype=torch.float64)  # α = 0.3
    one = torch.ones(1, 1, dtype=torch.float64)
    K = ema_kernel(coefficients(raw, 50.0 * one, one, one), 4)  # δ = 1
    torch.testing.assert_close(K, torch.tensor([[0.3, 0.21, 0.147, 0.1029]], dtype=torch.float64))


def test_alpha_gates_the_input_and_delta_only_the_forgetting():
    one = torch.ones(1, 1, dtype=torch.float64)
    K = ema_kernel(coefficients(0 * one, math.log(0.25 / 0.75) * one, one, one), 2)  # α = 1/2, δ = 1/4
    torch.testing.assert_close(K, torch.tensor([[0.5, 0.5 * (1 - 0.125)]], dtype=torch.float64))


def test_memory_is_short_at_the_start():
    """Half-lives of two to four steps: long memory is learned, not built in."""
    torch.manual_seed(0)
    half_lives = math.log(0.5) / DampedEMA(64, 16).coefficients()[0].log_decay
    assert 1.2 < half_lives.min() and half_lives.max() < 5.0 and 2.2 < half_lives.median() < 2.6


@pytest.mark.parametrize("form", ["chunks", "transform"])
def test_saturated_gates_stay_finite(form):
    module = DampedEMA(4, 2)
    with torch.no_grad():
        module.alpha_raw.fill_(200.0), module.delta_raw.fill_(200.0)  # φ = 0
    x = torch.ones(1, 200, 4, requires_grad=True)
    y = ema_chunked(x, *module.coefficients()) if form == "chunks" else ema_fft(x, *module.kernels(200))
    y.sum().backward()
    assert all(t.isfinite().all() for t in (y, x.grad, module.alpha_raw.grad, module.eta.grad))


def test_chunks_never_hold_the_kernel_s_dimensions_for_every_token():
    """A kernel of N taps passes through [D, h, N]; its largest tensor in chunks holds the tokens themselves."""
    N, D, h = 4096, 16, 8
    coeff, x = Coefficients(*(t.detach().float() for t in average(D, h).coefficients()[0])), torch.zeros(1, N, D)
    by_fft = measure.peak_bytes(lambda: ema_fft(x, ema_kernel(coeff, N)))
    by_chunks = measure.peak_bytes(lambda: ema_chunked(x, coeff))
    assert by_fft.entries == D * h * N and by_chunks.entries <= N * D + 64 * 64 * D
    assert by_chunks.live < by_fft.live / 3


def test_a_transform_as_long_as_the_sequence_would_wrap_around():
    """What the padding of the transform is for: the first output must not know the last input."""
    x, (K,) = draw(1, 16, 6), average().kernels(16)
    wrapped = torch.fft.irfft(torch.fft.rfft(x.transpose(1, 2)) * torch.fft.rfft(K), n=16).transpose(1, 2)
    assert (wrapped[:, 0] - ema_fft(x, K)[:, 0]).abs().max() > 0.01
    torch.testing.assert_close(ema_fft(x, K)[:, 0], x[:, 0] * K[:, 0], **EXACT)


def test_truncation_cuts_the_kernel_but_not_the_steps():
    module, x = average(truncation=5), draw(1, 12, 6)
    cut, state, steps = module(x), module.init_state(1), []
    for x_t in x.unbind(1):
        y_t, state = module.step(x_t, state)
        steps.append(y_t)
    steps = torch.stack(steps, 1)
    torch.testing.assert_close(cut[:, :5], steps[:, :5], **EXACT)
    assert (cut - steps)[:, 5:].abs().amax(-1).min() > 1e-6


# ---- Attention functions and biases ----------------------------------------------------------------------------------


def test_laplace_meets_relu2_at_the_root_of_a_half_in_height_and_slope():
    x = torch.tensor(math.sqrt(0.5), dtype=torch.float64, requires_grad=True)
    for f in (laplace, relu2):
        y = f(x)
        (slope,) = torch.autograd.grad(y, x)
        assert y.item() == pytest.approx(0.5, abs=1e-5) and slope.item() == pytest.approx(math.sqrt(2), abs=1e-5)
    assert 0.0 <= laplace(torch.tensor(-1e9)) and laplace(torch.tensor(1e9)) == 1.0


@pytest.mark.parametrize("function", ["softmax", "laplace", "relu2"])
def test_only_softmax_s_rows_sum_to_one(function):
    made, x = layer(function=function, chunk=4), draw(2, 10, 8)
    for key_padding_mask in (None, torch.arange(10)[None].expand(2, -1) >= 7):
        maps = made.attention_maps(x, key_padding_mask=key_padding_mask)
        sums = maps["effective"].sum(-1)[..., :7]
        assert torch.allclose(sums, torch.ones_like(sums)) == (function == "softmax")


def test_rotary_bias_by_lag_is_that_of_turned_vectors():
    torch.manual_seed(0)
    bias = RotaryBias(6).double()
    for rows, columns in ((9, 9), (4, 11), (11, 4), (1, 1)):
        wanted = rotary_bias_explicit(bias.rot_a, bias.rot_b, rows, columns)
        torch.testing.assert_close(bias(rows, columns), wanted, **EXACT)


def test_simple_bias_reads_its_table_by_distance():
    bias = SimpleBias(4)
    with torch.no_grad():
        bias.rel.copy_(torch.arange(-3.0, 4.0))
    assert bias(3, 2).tolist() == [[0, 1], [-1, 0], [-2, -1]]


def test_the_key_offset_matters_only_where_rows_are_not_normalised():
    for function, idle in (("softmax", True), ("laplace", False), ("relu2", False)):
        made = layer(function=function)
        made(draw(2, 9, 8))[0].square().sum().backward()
        assert (made.mu_k.grad.abs().max() < 1e-12) == idle


def test_laplace_and_relu2_divide_by_the_keys_that_a_query_sees():
    q = k = torch.ones(1, 1, 6, 4, dtype=torch.float64)
    bias = torch.zeros(6, 6, dtype=torch.float64)
    A = mega_weights(q, k, bias, function="relu2", is_causal=True)[0, 0]
    torch.testing.assert_close(A.diagonal(), (4.0 / torch.arange(1, 7, dtype=torch.float64)) ** 2)
    mask = torch.tensor([[[False, True, False, True, True, False]]])
    A = mega_weights(q, k, bias, function="relu2", key_padding_mask=mask)[0, 0]
    torch.testing.assert_close(A, (4.0 / 3.0) ** 2 * (~mask[0]).double().expand(6, 6))


def test_the_authors_masks_count_padding_and_read_chunks_that_hold_nothing_else():
    q = k = torch.ones(1, 2, 2, 4, dtype=torch.float64)
    bias, mask = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([[[False, False], [True, True]]])
    assert mega_weights(q, k, bias, key_padding_mask=mask)[0, 1].abs().max() == 0
    assert (mega_weights(q, k, bias, key_padding_mask=mask, authors_masks=True)[0, 1] == 0.5).all()
    late = {"function": "relu2", "is_causal": True, "key_padding_mask": torch.tensor([[[True, False]] * 2])}
    assert mega_weights(q, k, bias, **late)[0, 0].tolist() == [[0, 0], [0, 16]]
    assert mega_weights(q, k, bias, **late, authors_masks=True)[0, 0].tolist() == [[0, 0], [0, 4]]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("function", ["softmax", "laplace"])
def test_padding_on_the_left_changes_nothing_without_chunks(is_causal, function):
    made, x = layer(is_causal=is_causal, function=function), draw(2, 11, 8)
    junk = 1e3 * draw(2, 5, 8, seed=1)
    mask = torch.arange(16)[None].expand(2, -1) < 5
    padded, _ = made(torch.cat([junk, x], 1), key_padding_mask=mask)
    torch.testing.assert_close(padded[:, 5:], made(x)[0], **EXACT)


# ---- Chunks ----------------------------------------------------------------------------------------------------------


def reach(made, tokens, chunk):
    """Largest gradient of a token of the last chunk with respect to the first chunk."""
    x = draw(1, tokens, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(made(x)[0][:, -1].sum(), x)
    return gradient[:, :chunk].abs().max().item()


@pytest.mark.parametrize("is_causal", [False, True])
def test_only_the_average_crosses_the_border_of_a_chunk(is_causal):
    options = {"is_causal": is_causal, "norm": "none"}
    assert reach(layer(chunk=4, ema_dim=0, **options), 8, 4) == 0.0
    assert reach(layer(chunk=4, **options), 8, 4) > 1e-6
    assert reach(layer(ema_dim=0, **options), 8, 4) > 1e-6


def test_a_chunk_as_long_as_the_sequence_is_full_attention():
    full, x = layer(max_len=9), draw(2, 9, 8)
    chunked = layer(max_len=9, chunk=9)
    torch.testing.assert_close(chunked(x)[0], full(x)[0])


def test_bytes_grow_with_n_in_chunks_and_with_n_squared_without():
    """Counted, so exact: what twice as many tokens keep for the backward pass."""

    def growth(**options):
        made = attention.build("mega", 16, 2, ema_dim=4, max_len=4096, **options)
        short, long = (measure.saved_bytes(made, torch.zeros(1, n, 16, requires_grad=True)) for n in (2048, 4096))
        return long / short

    assert growth(chunk=64) < 2.0 and growth() > 3.5


def test_chunked_streaming_holds_at_most_a_chunk_and_an_average():
    made, state = layer(chunk=4, is_causal=True), None
    x = draw(2, 11, 8)
    state, held, ys = made.init_state(2), [], []
    for x_t in x.unbind(1):
        y_t, state = made.step(x_t, state)
        ys.append(y_t)
        held.append(state["keys"].shape[1])
    assert held == [1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3] and state["ema"].shape == (2, 8, 3)
    torch.testing.assert_close(torch.stack(ys, 1), made(x)[0], **EXACT)


# ---- The layer and its networks --------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_authors_layer():
    made = attention.build("mega", 128, 1, head_dim=64, value_dim=256, ema_dim=16)
    assert measure.count_parameters(made) == 159_295


def test_a_closed_update_gate_copies_the_input_and_not_its_norm():
    made, x = layer(norm="pre"), draw(2, 9, 8)
    with torch.no_grad():
        made.joint.bias[:8] = -1e4  # φ = 0
    torch.testing.assert_close(made(x)[0], x)


@pytest.mark.parametrize("kind", NORMS)
def test_norms_give_unit_size_to_a_token_or_a_feature(kind):
    x = 3 + 5 * draw(64, 4, 8)
    norm = make_norm(kind, 8).double()
    y, axes = norm(x), (0, 1) if kind == "batch" else (-1,)
    torch.testing.assert_close(y.square().mean(axes), torch.ones_like(y.square().mean(axes)), rtol=1e-4, atol=0)
    assert norm.eval()(x[:, 0]).shape == (64, 8)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", NORMS)
def test_the_authors_encoder_trains_every_parameter(norm, kind):
    model = MegaClassifier(11, 3, embed_dim=8, head_dim=4, norm=norm, norm_kind=kind, chunk=4, ema_dim=2)
    model(torch.randint(0, 11, (2, 9))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_authors_encoder_ignores_padding_and_reads_real_numbers():
    model = MegaClassifier(None, 3, input_dim=1, embed_dim=8, head_dim=4, ema_dim=2, chunk=4).double().eval()
    x, junk = draw(2, 9, 1), draw(2, 6, 1, seed=1)
    mask = torch.arange(15)[None].expand(2, -1) >= 9
    torch.testing.assert_close(model(torch.cat([x, junk], 1), key_padding_mask=mask), model(x))
    assert model.attention_maps(x)[1]["self"]["chunks"].shape == (2, 3, 4, 4)


def test_the_shared_stack_runs_mega_beside_other_layers_and_generates_with_it():
    ids = torch.randint(1, 11, (2, 9), generator=torch.Generator().manual_seed(0))
    sizes = {"embed_dim": 8, "num_heads": 2}
    options = {"ema_dim": 2, "chunk": 4}
    model = Classifier(11, 3, attention=["mega", "softmax"], attention_options=[options, {}], **sizes)
    model(ids).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.encoder.blocks[0].self_residual is None and model.encoder.blocks[1].self_residual is not None
    writer = CausalLM(11, attention="mega", attention_options=options, positions="none", **sizes).double().eval()
    tokens = writer.generate(ids[:, :3], 8)
    for t in range(3, 11):
        assert torch.equal(writer(tokens[:, :t])[:, -1].argmax(-1), tokens[:, t])
    both = EncoderDecoder(11, attention="mega", attention_options=options, **sizes)
    both(ids, target=ids[:, :5]).sum().backward()
    assert all(parameter.grad is not None for parameter in both.parameters())


BAD = {
    "function='tanh'": {"function": "tanh"},
    "activation='tanh'": {"activation": "tanh"},
    "position_bias='t5'": {"position_bias": "t5"},
    "norm='both'": {"norm": "both"},
    "norm_kind='group'": {"norm_kind": "group"},
    "chunk=0": {"chunk": 0},
    "ema_dim=-1": {"ema_dim": -1},
    "truncation=0": {"truncation": 0},
    "value_dim=9": {"value_dim": 9, "cross": True},
    "bidirectional=True": {"bidirectional": True, "is_causal": True},
    "head_dim=3": {"position_bias": "rotary", "head_dim": 3},
    "projections": {"projections": attention.Projections(8, 2)},
}


@pytest.mark.parametrize("says", BAD)
def test_wrong_options_are_named(says):
    with pytest.raises(ValueError, match=says):
        attention.build("mega", 8, 2, **BAD[says])


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="max_len=4"):
        Mega(8, 2, max_len=4)(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="is_causal=True"):
        Mega(8, 2).init_state(1)
    with pytest.raises(ValueError, match="bidirectional=False"):
        DampedEMA(8, bidirectional=True).init_state(1)
    with pytest.raises(ValueError, match="ema_dim=0"):
        DampedEMA(8, 0)
