"""RPE by FFT beyond the invariants table: products, special cases, rounding, cost; grids, networks and bad input."""

import pytest
import test_invariants as invariants
import torch

from refattn import attention, measure
from refattn.attention import rpe_fft
from refattn.attention.linear import kernel_similarity
from refattn.attention.performer import performer_attention, random_rows
from refattn.attention.softmax import softmax_attention
from refattn.layers import toeplitz
from refattn.models import CausalLM, Classifier, ViT


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def heads(tokens=9, d=4, m=5, dtype=torch.float64):
    """q, k, v [2, 2, N, d], Ω [m, d] and biases [2, 2N − 1]."""
    qkv = [draw(2, 2, tokens, d, seed=seed, dtype=dtype) for seed in range(3)]
    return *qkv, draw(m, d, seed=3, dtype=dtype), draw(2, 2 * tokens - 1, seed=4, dtype=dtype)


# ---- Toeplitz products -----------------------------------------------------------------------------------------------


def is_smooth(n):
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def test_lengths_of_transforms_are_even_smooth_and_the_least_that_are():
    even_and_smooth = [n for n in range(2, 2100, 2) if is_smooth(n)]
    for least in range(1, 2000):
        assert toeplitz.fft_length(least) == next(n for n in even_and_smooth if n >= least)


@pytest.mark.parametrize("sizes", [(1,), (2,), (7,), (101,), (1, 1), (1, 5), (5, 1), (3, 4), (7, 5)])
def test_product_by_transform_is_the_matrix(sizes):
    axes = len(sizes)
    c, x = draw(3, *(2 * n - 1 for n in sizes)), draw(2, 3, *sizes, seed=1)
    found = toeplitz.toeplitz_product(c, x, axes)
    torch.testing.assert_close(found, toeplitz.toeplitz_product_explicit(c, x, axes), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sizes", [(5,), (3, 4)])
def test_entries_of_the_matrix_and_its_rows_are_found_by_offset(sizes):
    axes, c = len(sizes), draw(2, *(2 * n - 1 for n in sizes))
    places = torch.cartesian_prod(*(torch.arange(n) for n in sizes)).view(-1, axes)
    matrix = toeplitz.toeplitz_matrix(c, axes)
    for i, here in enumerate(places):
        for j, there in enumerate(places):
            place = [int(t) for t in there - here + torch.tensor(sizes) - 1]
            assert matrix[1, i, j] == c[1][tuple(place)]
        assert torch.equal(toeplitz.toeplitz_row(c, i, axes), matrix[:, i])
    past = toeplitz.toeplitz_matrix(toeplitz.past_only(c, axes), axes)
    assert torch.equal(past, matrix.tril())


@pytest.mark.parametrize("sizes", [(7,), (3, 4)])
@pytest.mark.parametrize("block", [1, 50, 10**9])
def test_sums_block_by_block_and_their_gradients_are_those_of_the_matrix(sizes, block, monkeypatch):
    monkeypatch.setattr(toeplitz, "BLOCK", block)
    tensors = [draw(3, 2, width, *sizes, seed=width).requires_grad_() for width in (5, 5, 4)]
    tensors[1] = draw(3, 2, 5, *sizes, seed=9).requires_grad_()
    c = draw(2, *(2 * n - 1 for n in sizes)).requires_grad_()
    found, wanted = (f(*tensors, c, len(sizes)) for f in (toeplitz.outer_sums, toeplitz.outer_sums_explicit))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    weight = draw(*found.shape, seed=11)
    pairs = zip(*(torch.autograd.grad((y * weight).sum(), [*tensors, c]) for y in (found, wanted)), strict=True)
    for gradient, expected in pairs:
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-10)


# ---- Special cases, norms, rounding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_causal", [False, True])
def test_without_norms_and_positions_it_is_performer_and_exactly_it_is_softmax(is_causal):
    q, k, v, Omega, _ = heads(20)
    plain = rpe_fft.nprf_attention(q, k, v, Omega, None, normalise=False, is_causal=is_causal)
    torch.testing.assert_close(plain, performer_attention(q, k, v, Omega, is_causal=is_causal))
    exact = rpe_fft.nprf_attention(q, k, v, None, None, normalise=False, kernel="exact", is_causal=is_causal)
    torch.testing.assert_close(exact, softmax_attention(q, k, v, is_causal=is_causal))


@pytest.mark.parametrize("is_causal", [False, True])
def test_equal_biases_change_nothing(is_causal):
    q, k, v, Omega, b = heads(20)
    found = rpe_fft.nprf_attention(q, k, v, Omega, torch.full_like(b, 3.0), is_causal=is_causal)
    torch.testing.assert_close(found, rpe_fft.nprf_attention(q, k, v, Omega, None, is_causal=is_causal))


def test_biases_of_a_relative_softmax_are_added_to_its_logits():
    q, k, v, _, b = heads(6)
    logits = q @ k.transpose(-1, -2) / 2 + toeplitz.toeplitz_matrix(b)
    found = rpe_fft.nprf_weights(q, k, None, b, kernel="exact", normalise=False)
    torch.testing.assert_close(found, logits.softmax(-1))


def test_length_of_a_token_does_not_matter_and_a_zero_token_is_no_nan():
    q, k, v, Omega, b = heads()
    lengths = torch.arange(1.0, 10.0, dtype=torch.float64)[:, None]
    wanted = rpe_fft.nprf_attention(q, k, v, Omega, b)
    torch.testing.assert_close(rpe_fft.nprf_attention(q * lengths, k / lengths, v, Omega, b), wanted)
    k = torch.cat([torch.zeros_like(k[:, :, :1]), k[:, :, 1:]], 2).requires_grad_()
    (gradient,) = torch.autograd.grad(rpe_fft.nprf_attention(q, k, v, Omega, b).sum(), k)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("R", [0.5, 1.0])
def test_relative_variance_of_the_features_is_the_law(R):
    q = k = torch.tensor([[[[R, 0.0, 0.0]]]], dtype=torch.float64)
    m, draws = 4, 40_000
    Omega = random_rows(m * draws, 3, orthogonal=False, generator=torch.Generator().manual_seed(0)).double()
    scale = {"normalise": False, "stabilised": False}
    phi_q, phi_k = rpe_fft.features(q * 3**0.25, k * 3**0.25, Omega, **scale)  # its own scale taken back
    estimates = (phi_q * phi_k)[0, 0, 0].view(draws, m).sum(1) * draws
    relative = estimates / torch.tensor(R**2, dtype=torch.float64).exp()
    assert relative.mean().item() == pytest.approx(1, abs=0.05)
    assert relative.var().item() == pytest.approx(
        (torch.tensor(4 * R**2).exp().item() - 1) / m, rel=0.4 if R == 1 else 0.1
    )


def test_largest_of_a_causal_bias_is_one_that_counts():
    b = torch.tensor([[0.0, 1.0, 2.0, 90.0, 100.0]], dtype=torch.float64)  # offsets 1 and 2 count for nobody
    torch.testing.assert_close(rpe_fft.bounded(b, is_causal=True)[0, :3], torch.tensor([-2.0, -1.0, 0.0]).double())
    c = rpe_fft.offset_weights(rpe_fft.bounded(b, is_causal=True), is_causal=True)
    assert c[0, 3:].tolist() == [0.0, 0.0]


def test_gradient_of_a_causal_bias_is_exactly_zero_for_later_keys():
    q, k, v, Omega, b = heads()
    b.requires_grad_()
    (gradient,) = torch.autograd.grad(rpe_fft.nprf_attention(q, k, v, Omega, b, is_causal=True).square().sum(), b)
    assert (gradient[:, 9:] == 0).all() and (gradient[:, :9] != 0).all()


@pytest.mark.parametrize("is_causal", [False, True])
def test_biases_that_spread_far_keep_a_float32_layer_near_its_twin(is_causal):
    """Bounded to e^−16 of the largest, and divided by no less than rounding; unbounded, signs would be lost."""
    layer = attention.build("rpe_fft", 8, 2, num_features=6, max_len=256, is_causal=is_causal)
    with torch.no_grad():
        layer.bias.b.copy_(torch.linspace(25.0, -26.0, 511).expand(2, -1))
    x = draw(2, 256, 8, dtype=torch.float32)
    found, exact = layer(x)[0], layer.double()(x.double())[0]
    assert found.isfinite().all() and found.abs().max() < 2 * exact.abs().max() + 1


# ---- Cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_causal", [False, True])
def test_memory_is_linear_and_no_tensor_holds_a_product_a_token(is_causal):
    kept, peaks = {}, {}
    for tokens in (2048, 4096):
        q, k, v, Omega, b = heads(tokens, d=16, m=16, dtype=torch.float32)
        inputs = [t.requires_grad_() for t in (q, k, v)]
        kept[tokens] = measure.saved_bytes(rpe_fft.nprf_attention, *inputs, Omega, b, is_causal=is_causal)
        peaks[tokens] = measure.peak_bytes(rpe_fft.nprf_attention, *inputs, Omega, b, is_causal=is_causal)
        assert peaks[tokens].entries < 4 * tokens * 16 * 16 / 2, peaks[tokens].shape  # 4 heads of N × m × d_v
    assert kept[4096] < 2.1 * kept[2048] and peaks[4096].live < 2.2 * peaks[2048].live


def test_work_grows_as_n_log_n_and_the_matrix_overtakes_it():
    ns, counts = (256, 512, 1024, 2048), {}
    for product in rpe_fft.PRODUCTS:
        layer = attention.build("rpe_fft", 32, 2, num_features=16, max_len=2048, product=product)
        counts[product] = [measure.flops(layer, torch.zeros(1, n, 32)) for n in ns]
    assert measure.scaling_exponent(ns, counts["fft"]).high < 1.25
    assert 256 < measure.crossover(ns, counts["dense"], counts["fft"]) < 512


# ---- Grids, kernels and steps ----------------------------------------------------------------------------------------

GRID = {"grid": (40, 9), "num_features": 5}
ALSO_KEPT = (
    (invariants.test_causal_output_has_no_gradient_to_the_future, GRID, {}),
    (invariants.test_causal_prefix_is_the_same_within_a_longer_sequence, {"grid": (34, 9)}, {}),
    (invariants.test_steps_equal_the_causal_form, GRID, {}),
    (invariants.test_padding_changes_nothing_at_real_positions, GRID, {"form": "self", "side": "right"}),
    (invariants.test_padding_changes_nothing_at_real_positions, GRID, {"form": "causal", "side": "right"}),
    (invariants.test_steps_equal_the_causal_form, {"relative": False}, {}),
    (invariants.test_steps_equal_the_causal_form, {"kernel": "exact", "relative": False, "normalise": False}, {}),
)


@pytest.mark.parametrize(("kept", "options", "more"), ALSO_KEPT)
def test_other_variants_keep_the_promises(kept, options, more):
    kept("rpe_fft", options, **more)


@pytest.mark.parametrize("options", [{"kernel": "trigonometric"}, {"product": "dense"}, GRID | {"product": "dense"}])
@pytest.mark.parametrize("form", ["self", "causal"])
def test_other_products_and_kernels_equal_their_twin(options, form):
    invariants.test_fast_form_equals_its_explicit_twin("rpe_fft", options, form, 33, True)


def test_the_map_is_the_product_of_its_two_factors():
    layer = attention.build("rpe_fft", 8, 2, num_features=5).double()
    maps = layer.attention_maps(draw(2, 7, 8))
    product = maps["content"] * maps["toeplitz"]
    torch.testing.assert_close(maps["effective"], product / product.sum(-1, keepdim=True))
    assert "toeplitz" not in attention.build("rpe_fft", 8, 2, relative=False).attention_maps(draw(2, 7, 8).float())


def test_trigonometric_features_may_be_negative_and_estimate_the_same():
    q, k = draw(1, 1, 3, 4), draw(1, 1, 3, 4, seed=1)
    Omega = random_rows(40_000, 4, generator=torch.Generator().manual_seed(0)).double()
    for kernel in ("positive", "trigonometric"):
        found = kernel_similarity(*rpe_fft.features(q, k, Omega, kernel=kernel, stabilised=False))
        wanted = (rpe_fft.unit_rows(q) @ rpe_fft.unit_rows(k).transpose(-1, -2)).exp()
        torch.testing.assert_close(found, wanted, rtol=0.1, atol=0)


# ---- Networks --------------------------------------------------------------------------------------------------------


def test_networks_train_every_parameter_and_a_language_model_generates_as_it_reads():
    tokens = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(0))
    shape = {"embed_dim": 16, "num_heads": 2, "attention": "rpe_fft", "positions": "none"}
    model = CausalLM(11, attention_options={"max_len": 20}, **shape)
    images = ViT(8, 3, patch_size=2, attention_options={"grid": (4, 4)}, **shape)
    reader = Classifier(11, 3, **shape)
    for network, inputs in ((model, tokens), (reader, tokens), (images, draw(2, 1, 8, 8).float())):
        network(inputs).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    written = model.double().generate(tokens[:, :4], 8)
    for t in range(4, 12):
        assert torch.equal(model(written[:, :t])[:, -1].argmax(-1), written[:, t])


def test_one_mechanism_a_layer():
    model = CausalLM(11, attention=["rpe_fft", "linear", "performer"], num_layers=3)
    logits = model(torch.zeros(2, 9, dtype=torch.long))
    assert logits.shape == (2, 9, 11) and logits.isfinite().all()


def build(**options):
    return attention.build("rpe_fft", 8, 2, **options)


WRONG = {
    "kernel='relu'": lambda: build(kernel="relu"),
    "product='sparse'": lambda: build(product="sparse"),
    "num_features=0": lambda: build(num_features=0),
    "max_len=0": lambda: build(max_len=0),
    r"grid=\(2, 3, 4\)": lambda: build(grid=(2, 3, 4)),
    "bias_range=0": lambda: build(bias_range=0),
    "cross=True": lambda: build(cross=True),
    "max_len=4": lambda: build(max_len=4)(torch.zeros(1, 5, 8)),
    r"grid=\(2, 3\)": lambda: build(grid=(2, 3))(torch.zeros(1, 7, 8)),
    "is_causal=True": lambda: build().init_state(1),
    "b has shape": lambda: rpe_fft.nprf_attention(*heads(9)[:4], heads(8)[4]),
    "b has shape.*wanted": lambda: rpe_fft.nprf_attention(*heads(9)[:4], torch.zeros(17)),
    "c has shape": lambda: toeplitz.toeplitz_product(torch.zeros(8), torch.zeros(4)),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_named(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words]()
