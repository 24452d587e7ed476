"""Performer beyond the invariants table: how Ω is drawn, what features estimate, and what the stabiliser may not do."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from refattn import attention, measure
from refattn.attention import performer
from refattn.models import Classifier

GOLDEN = Path(__file__).parent / "golden"


def heads(*, tokens=9, d=4, size=1.0, dtype=torch.float64, seed=0):
    """q, k, v [2, 2, N, d]; entries of q and k have the standard deviation `size`."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 2, 2, tokens, d, generator=generator, dtype=torch.float64).to(dtype)
    return size * q, size * k, v


def rows(num_features, d, *, seed=0, dtype=torch.float64, **options):
    return performer.random_rows(num_features, d, generator=torch.Generator().manual_seed(seed), **options).to(dtype)


# ---- Ω --------------------------------------------------------------------------------------------------------------


def test_rows_are_orthogonal_within_blocks_and_as_long_as_gaussian_vectors():
    Omega = rows(10, 4)
    products = Omega @ Omega.T
    same_block = torch.arange(10)[:, None] // 4 == torch.arange(10) // 4
    off_diagonal = ~torch.eye(10, dtype=torch.bool)
    assert products[same_block & off_diagonal].abs().max() < 1e-5
    assert products[~same_block].abs().min() > 1e-3, "blocks are independent"
    assert products.diagonal().std() > 0.5
    assert torch.allclose(rows(10, 4, row_norms="sqrt_d").norm(dim=1), torch.tensor(2.0, dtype=torch.float64))
    assert not torch.allclose(rows(4, 4, orthogonal=False) @ rows(4, 4, orthogonal=False).T, products[:4, :4])


@pytest.mark.parametrize("orthogonal", [True, False])
def test_every_row_is_a_standard_gaussian_vector(orthogonal):
    """Rows of a QR decomposition as it comes are not: LAPACK's signs put each on one side of a plane."""
    draws = torch.stack([rows(3, 3, seed=seed, orthogonal=orthogonal) for seed in range(4000)])  # [4000, 3, 3]
    assert draws.mean(0).abs().max() < 4 / math.sqrt(4000)
    for row in range(3):
        assert (draws[:, row].T.cov() - torch.eye(3)).abs().max() < 0.1
    unsigned = torch.linalg.qr(torch.randn(4000, 3, 3, generator=torch.Generator().manual_seed(0)))[0].mT
    assert unsigned.mean(0).diagonal().abs().min() > 0.3


@pytest.mark.parametrize("case", ["softmax", "softmax_causal", "relu"])
def test_rows_are_the_authors_rows_up_to_signs(case):
    with np.load(GOLDEN / f"performer--{case}.npz") as arrays:
        blocks, norms, wanted = (
            torch.from_numpy(arrays[name]).double() for name in ("in.gauss_blocks", "in.gauss_norms", "w.Omega")
        )
        scaled = '"ortho_scaling": 1' in str(arrays["meta"])
    lengths = math.sqrt(wanted.shape[1]) if scaled else norms.norm(dim=1, keepdim=True)
    found = lengths * performer.orthogonal_rows(blocks)[: len(wanted)]
    signs = (found * wanted).sum(1, keepdim=True).sign()
    torch.testing.assert_close(signs * found, wanted, rtol=0, atol=1e-6)


def test_a_seed_alone_decides_omega_and_redraw_takes_another():
    torch.manual_seed(1)
    layer = attention.build("performer", 8, 2, seed=3)
    state = torch.get_rng_state()
    other = attention.build("performer", 8, 2, seed=3, projections=layer.projections)
    assert torch.equal(torch.get_rng_state(), state), "a seeded layer takes nothing from torch's generator"
    assert torch.equal(layer.Omega, other.Omega) and "Omega" in layer.state_dict()
    other.redraw(4)
    assert torch.equal(torch.get_rng_state(), state) and not torch.equal(layer.Omega, other.Omega)
    other.redraw(3)
    assert torch.equal(layer.Omega, other.Omega)


def test_the_layers_of_a_model_have_features_of_their_own_and_the_weights_of_other_mechanisms():
    sizes = {"embed_dim": 8, "num_heads": 2, "num_layers": 2}
    model, plain = (Classifier(5, 3, attention=name, **sizes) for name in ("performer", "softmax"))
    first, second = (block.self_attention.Omega for block in model.encoder.blocks)
    assert not torch.equal(first, second)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(p, parameters[name]) for name, p in plain.named_parameters())
    assert set(parameters) == dict(plain.named_parameters()).keys()


# ---- What features estimate -----------------------------------------------------------------------------------------

PAIRS = {
    "near": ([1.0, 0.3, -0.2, 0.5], [0.8, -0.4, 0.1, 0.6]),
    "apart": ([0.9, 0.1, -0.3, 0.4], [-0.7, 0.2, 0.2, -0.5]),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("feature_map", [performer.positive_features, performer.trigonometric_features])
def test_products_of_features_are_right_on_average(feature_map, orthogonal, pair):
    q, k = torch.tensor(PAIRS[pair], dtype=torch.float64)
    estimates = []
    for seed in range(3000):
        Omega = rows(4, 4, seed=seed, orthogonal=orthogonal)
        estimates.append(feature_map(q[None], Omega)[0] @ feature_map(k[None], Omega)[0])
    estimates = torch.stack(estimates)
    error = estimates.mean() - (q @ k / 2).exp()
    assert error.abs() < 3.5 * estimates.std() / math.sqrt(3000)


def test_the_variance_of_independent_rows_is_as_computed():
    """Relative to the square of the weight: (exp |q̃ + k̃|² − 1) / m for one pair, so it explodes with the norms."""
    q, k = torch.tensor(PAIRS["apart"], dtype=torch.float64)
    Omega = rows(200_000, 4, orthogonal=False)
    products = len(Omega) * (performer.positive_features(q[None], Omega) * performer.positive_features(k[None], Omega))
    found = products.var() / (q @ k / 2).exp() ** 2
    assert found == pytest.approx(((q + k).square().sum() / 2).exp().item() - 1, rel=0.05)


def estimator(q, k, v, Omega, is_causal):
    """Eqs. (2) and (3) with logarithms of all N M m products: no stabiliser, no floor."""
    q, k = (x / x.shape[-1] ** 0.25 for x in (q, k))
    a, b = (x @ Omega.T - x.square().sum(-1, keepdim=True) / 2 for x in (q, k))
    logits = (a[..., :, None, :] + b[..., None, :, :]).logsumexp(-1)  # [B, H, N, M]
    if is_causal:
        logits = logits.masked_fill(~torch.ones_like(logits, dtype=torch.bool).tril(), -torch.inf)
    return logits.softmax(-1) @ v


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_the_stabiliser_changes_nothing(size, is_causal):
    q, k, v = (t.requires_grad_() for t in heads(tokens=150, d=16, size=size))
    Omega = rows(20, 16)
    found = performer.performer_attention(q, k, v, Omega, is_causal=is_causal)
    wanted = estimator(q, k, v, Omega, is_causal)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    gradients = (torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (found, wanted))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-9)


def test_more_features_come_nearer_to_softmax():
    q, k, v = heads(tokens=50, d=8, size=0.7)
    exact = attention.softmax.softmax_attention(q, k, v)
    found = {m: [performer.performer_attention(q, k, v, rows(m, 8, seed=s)) for s in range(4)] for m in (8, 128, 2048)}
    error = {m: sum((y - exact).norm() for y in ys) for m, ys in found.items()}
    assert error[8] > 1.4 * error[128] > 2 * error[2048]


# ---- What a stabiliser may not do -----------------------------------------------------------------------------------


def reaction(size, **options):
    """How much the outputs move when one key does, at entries of this size."""
    q, k, v = heads(tokens=12, d=16, size=size)
    changed = k.clone()
    changed[:, :, 5] = -k[:, :, 5]
    Omega = rows(44, 16)
    before, after = (performer.performer_attention(q, keys, v, Omega, **options) for keys in (k, changed))
    return (after - before).abs().max()


def test_large_norms_leave_the_authors_stabiliser_with_equal_weights_and_not_ours():
    assert reaction(4.0, stabiliser="maximum") < 1e-3 and reaction(4.0) > 0.1
    q, k, _ = heads(tokens=12, d=16, size=4.0)
    equal = torch.full((2, 2, 12, 12), 1 / 12, dtype=torch.float64)
    weights = performer.performer_weights(q, k, rows(44, 16), stabiliser="maximum")
    torch.testing.assert_close(weights, equal, rtol=0, atol=1e-3)


def test_the_authors_stabiliser_lets_the_past_see_the_future_and_ours_does_not():
    q, k, v = heads(size=2.0)
    longer = k.clone()
    longer[:, :, -1] *= 3
    change = {}
    for stabiliser in ("constant", "maximum"):
        options = {"is_causal": True, "stabiliser": stabiliser}
        before, after = (performer.performer_attention(q, keys, v, rows(6, 4), **options) for keys in (k, longer))
        change[stabiliser] = (after - before)[:, :, :-1].abs().max()
    assert change["constant"] == 0 and change["maximum"] > 1e-5


@pytest.mark.parametrize("size", [10.0, 100.0, 1e4])
@pytest.mark.parametrize("is_causal", [False, True])
def test_weights_stay_averages_and_gradients_numbers_at_any_norm(size, is_causal):
    q, k, v = (t.requires_grad_() for t in heads(tokens=140, d=16, size=size, dtype=torch.float32))
    y = performer.performer_attention(q, k, v, rows(44, 16, dtype=torch.float32), is_causal=is_causal)
    y.sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))
    assert (y <= v.amax(2, keepdim=True) + 1e-4).all() and (y >= v.amin(2, keepdim=True) - 1e-4).all()
    if is_causal:
        torch.testing.assert_close(y[:, :, 0], v[:, :, 0])


def test_steps_equal_the_causal_form_for_huge_keys_too():
    layer = attention.build("performer", 8, 2, is_causal=True, seed=0).double()
    x = 100 * torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state, steps = layer.init_state(1), []
    for t in range(40):
        y_t, state = layer.step(x[:, t], state)
        steps.append(y_t)
    torch.testing.assert_close(torch.stack(steps, 1), layer(x)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{"stabiliser": "maximum"}, {"kernel": "relu"}], ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_the_other_features_ignore_padding_too(options, is_causal):
    q, k, v = heads()
    Omega = rows(6, 4)
    mask = torch.arange(9) >= torch.tensor([6, 0])[:, None]
    masked = k.masked_fill(mask[:, None, :, None], 1e3)
    q.requires_grad_()
    y = performer.performer_attention(q, masked, v, Omega, is_causal=is_causal, key_padding_mask=mask, **options)
    wanted = performer.performer_attention(*(t[:1, :, :6] for t in (q, k, v)), Omega, is_causal=is_causal, **options)
    torch.testing.assert_close(y[:1, :, :6], wanted)
    assert (y[1] == 0).all()
    y.sum().backward()
    assert q.grad.isfinite().all()


# ---- Options and costs ----------------------------------------------------------------------------------------------


def test_relu_features_without_projection_are_the_entries():
    q, k, v = heads()
    found = performer.performer_attention(q, k, v, None, kernel="relu", scale=1.0)
    phi_q, phi_k = (x.clamp(min=0) + 1e-3 for x in (q, k))
    weights = phi_q @ phi_k.mT
    torch.testing.assert_close(found, weights @ v / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"stabiliser": "maximum"}, {"kernel": "relu"}], ids=str)
def test_memory_is_linear_in_the_length(options):
    layer = attention.build("performer", 32, 2, num_features=24, **options)
    for needed in (measure.saved_bytes, lambda *args: measure.peak_bytes(*args).live):
        used = {n: needed(layer, torch.randn(1, n, 32, requires_grad=True)) for n in (1024, 2048)}
        assert used[2048] < 2.2 * used[1024]


MISTAKES = {
    "kernel='elu'": {"kernel": "elu"},
    "stabiliser='none'": {"stabiliser": "none"},
    "row_norms='one'": {"row_norms": "one"},
    "num_features=0: wanted": {"num_features": 0},
    "num_features=-1": {"num_features": -1, "kernel": "relu"},
    "eps=0.1": {"eps": 0.1},
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_option_is_named(words):
    with pytest.raises(ValueError, match=words):
        attention.build("performer", 8, 2, **MISTAKES[words])


def test_what_a_layer_cannot_do_is_said():
    with pytest.raises(ValueError, match="stabiliser='maximum'.*no steps"):
        attention.build("performer", 8, 2, is_causal=True, stabiliser="maximum").init_state(1)
    with pytest.raises(ValueError, match="num_features=0"):
        attention.build("performer", 8, 2, kernel="relu", num_features=0).redraw(1)


def test_the_default_number_of_features_is_d_ln_d_and_at_least_d():
    made = {d: attention.build("performer", d, 1).num_features for d in (1, 2, 16, 64)}
    assert made == {1: 1, 2: 2, 16: 44, 64: 266}
