"""Momentum beyond the invariants table: weights, forms and cost; the adaptive β; connections; the network."""

import pytest
import test_invariants as invariants
import torch

from refattn import attention, measure
from refattn.attention import adaptive_momentum, heavy_ball, momentum
from refattn.attention.linear import causal_product, linear_attention
from refattn.layers.momentum import AdaptiveMomentumResidual, MomentumResidual
from refattn.layers.residual import Residual
from refattn.models import CausalLM
from refattn.models.momentum import MomentumLM

ADAPTIVE = {"beta": "adaptive", "gamma": 0.9}


def heads(tokens=9, d=4, seed=0, dtype=torch.float64):
    """q, k and v, each [2, 2, N, d]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 2, tokens, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def ids(tokens=12, batch=2):
    return torch.randint(11, (batch, tokens), generator=torch.Generator().manual_seed(0))


# ---- Weights, forms, cost --------------------------------------------------------------------------------------------


def test_the_weights_of_the_card_by_hand():
    wanted = [[1, 0, 0, 0], [3 / 2, 1, 0, 0], [7 / 4, 3 / 2, 1, 0], [15 / 8, 7 / 4, 3 / 2, 1]]
    found = heavy_ball.distance_factors(4, beta=0.5, gamma=1.0)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=0)


def test_beta_one_is_the_limit_of_beta_below_one():
    q, k, v = heads(200)
    exact = momentum.momentum_attention(q, k, v, beta=1.0, gamma=0.01, is_causal=True)
    near = momentum.momentum_attention(q, k, v, beta=1.0 - 1e-9, gamma=0.01, is_causal=True)
    torch.testing.assert_close(near, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("form", momentum.FORMS)
def test_without_momentum_it_is_linear_attention_times_the_step(is_causal, form):
    q, k, v = heads(70)
    found = momentum.momentum_attention(q, k, v, beta=0.0, gamma=0.7, is_causal=is_causal, form=form)
    torch.testing.assert_close(found, 0.7 * linear_attention(q, k, v, is_causal=is_causal))


def test_it_is_one_plain_sum_less_a_decayed_one():
    """γ / (1 − β) (Σ_{j≤i} (q_i·k_j) v_j − β Σ_{j≤i} β^{i−j} (q_i·k_j) v_j): the paper's way to linear time."""
    q, k, v = heads(50)
    place = torch.arange(50, dtype=torch.float64)
    decayed = ((q @ k.transpose(-1, -2)) * 0.6 ** (place[:, None] - place)).tril() @ v
    wanted = 0.9 / 0.4 * (causal_product(q, k, v) - 0.6 * decayed)
    torch.testing.assert_close(heavy_ball.momentum_sums(q, k, v, beta=0.6, gamma=0.9)[0], wanted)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.99, 1.0])
def test_sums_are_exact_at_every_chunk_border(beta):
    q, k, v = heads(23, d=3)
    whole = heavy_ball.momentum_sums(q, k, v, beta=beta, gamma=0.5, chunk=23)
    for chunk in range(1, 23):
        found = heavy_ball.momentum_sums(q, k, v, beta=beta, gamma=0.5, chunk=chunk)
        torch.testing.assert_close(found, whole)


def test_the_authors_training_form_agrees_with_the_paper_in_the_last_row_only():
    q, k, v = heads(20)
    paper, theirs = (
        momentum.momentum_attention(q, k, v, beta=0.6, gamma=0.9, is_causal=True, form=form) for form in momentum.FORMS
    )
    torch.testing.assert_close(theirs[:, :, -1], paper[:, :, -1])
    assert ((theirs - paper).norm(dim=-1) / paper.norm(dim=-1))[:, :, 0].min() > 1.0, "the first row more than doubles"


def test_in_the_authors_training_form_the_total_length_leaks_into_the_past():
    layer = attention.build("momentum", 8, 2, beta=0.6, form="parallel_total_length", is_causal=True).double()
    x = torch.randn(1, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(layer(x[:, :6])[0], layer(x)[0][:, :6], rtol=1e-3)
    state = layer.init_state(1)
    for x_t in x.unbind(1):
        y_t, state = layer.step(x_t, state)
    torch.testing.assert_close(y_t, layer(x)[0][:, -1])  # steps are the paper's: the last row agrees


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_authors_form_counts_padding_and_ours_does_not(is_causal):
    q, k, v = heads(20)
    mask = (torch.arange(20) >= 15).expand(2, -1)
    short = [t[:, :, :15] for t in (q, k, v)]
    for form, same in zip(momentum.FORMS, (True, False), strict=True):
        options = {"beta": 0.6, "gamma": 0.9, "is_causal": is_causal, "form": form}
        padded = momentum.momentum_attention(q, k, v, key_padding_mask=mask, **options)[:, :, :15]
        assert torch.allclose(padded, momentum.momentum_attention(*short, **options), rtol=1e-9) == same


@pytest.mark.parametrize("is_causal", [False, True])
def test_memory_is_linear_in_the_length_and_no_tensor_holds_a_state_a_token(is_causal):
    kept, peaks = {}, {}
    for tokens in (1024, 2048):
        qkv = [t.requires_grad_() for t in heads(tokens, d=16, dtype=torch.float32)]
        options = {"beta": 0.9, "gamma": 0.1, "is_causal": is_causal}
        kept[tokens] = measure.saved_bytes(momentum.momentum_attention, *qkv, **options)
        peaks[tokens] = measure.peak_bytes(momentum.momentum_attention, *qkv, **options)
        assert peaks[tokens].entries <= 4 * tokens * 16 * 2, peaks[tokens].shape
    assert kept[2048] < 2.1 * kept[1024] and peaks[2048].live < 2.1 * peaks[1024].live


def test_the_state_is_linear_attention_s_and_a_velocity():
    def numbers_after(name, tokens):
        layer = attention.build(name, 16, 2, is_causal=True)
        state = layer.init_state(1)
        for _ in range(tokens):
            _, state = layer.step(torch.randn(1, 16), state)
        return sum(value.numel() for value in state.values())

    assert numbers_after("momentum", 3) == numbers_after("momentum", 30) == numbers_after("linear", 3) + 2 * 8 * 8


# ---- Adaptive β ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", invariants.FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_adaptive_loop_equals_its_map(form, masked):
    invariants.test_fast_form_equals_its_explicit_twin("momentum", ADAPTIVE, form, 33, masked)


SELF, CAUSAL = {"form": "self"}, {"form": "causal"}
ALSO_KEPT = (
    (invariants.test_causal_output_has_no_gradient_to_the_future, {}),
    (invariants.test_steps_equal_the_causal_form, {}),
    (invariants.test_padding_changes_nothing_at_real_positions, CAUSAL | {"side": "left"}),
    (invariants.test_padding_changes_nothing_at_real_positions, CAUSAL | {"side": "right"}),
    (invariants.test_padding_changes_nothing_at_real_positions, SELF | {"side": "left"}),
    (invariants.test_padding_changes_nothing_at_real_positions, SELF | {"side": "right"}),
    (invariants.test_a_batch_is_its_sequences_one_by_one, CAUSAL),
    (invariants.test_a_query_without_any_visible_key_gets_zero_and_finite_gradients, CAUSAL),
    (invariants.test_a_query_without_any_visible_key_gets_zero_and_finite_gradients, SELF),
    (invariants.test_extreme_inputs_stay_finite, CAUSAL),
    (invariants.test_lower_precision_agrees_with_float64, CAUSAL | {"dtype": "float32"}),
    (invariants.test_lower_precision_agrees_with_float64, CAUSAL | {"dtype": "bfloat16"}),
    (invariants.test_every_parameter_has_a_gradient_through_two_layers, CAUSAL),
)


@pytest.mark.parametrize(("kept", "more"), ALSO_KEPT)
def test_an_adaptive_beta_keeps_the_other_promises(kept, more):
    kept("momentum", ADAPTIVE, **more)


def test_an_adaptive_layer_compiles_to_one_graph():
    layer = invariants.make("momentum", ADAPTIVE, "causal")
    (x,) = invariants.inputs("causal", tokens=5)
    mask = invariants.mask_of([5, 3], 5)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, key_padding_mask=mask)[0], layer(x, key_padding_mask=mask)[0])


def test_equal_tokens_have_critical_damping_of_a_flat_direction():
    """No change between tokens: the estimated curvature is zero, β is clipped at 1 − δ and the state gathers speed."""
    q, k, v = (torch.ones(1, 1, 6, 3, dtype=torch.float64) for _ in range(3))
    _, beta = adaptive_momentum.adaptive_momentum(q, k, v, gamma=0.5, delta=0.1, is_causal=True)
    torch.testing.assert_close(beta[0, 0], torch.tensor([0.0] + [0.9] * 5, dtype=torch.float64), rtol=1e-5, atol=0)


def test_gradients_of_the_adaptive_loop_are_right_and_finite_where_nothing_moves():
    qkv = [t[:1, :1].requires_grad_() for t in heads(5, d=3)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: adaptive_momentum.adaptive_momentum(q, k, v, gamma=0.9, is_causal=True)[0], qkv
    )
    q, k, v = qkv[0], qkv[1], torch.zeros_like(qkv[2]).requires_grad_()
    y, _ = adaptive_momentum.adaptive_momentum(q, k, v, gamma=0.9, is_causal=True)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), (q, k, v)))


# ---- Connections -----------------------------------------------------------------------------------------------------


def branches(layers=4, seed=0):
    return torch.randn(layers, 2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_without_momentum_the_connection_is_plain():
    plain, ours = Residual(8), MomentumResidual(8, beta=0.0, gamma=1.0)
    x, carry = torch.zeros(2, 5, 8, dtype=torch.float64), None
    for a in branches():
        wanted, _ = plain.add(x, a, None)
        x, carry = ours.add(x, a, carry)
        torch.testing.assert_close(x, wanted)


def test_the_connection_adds_a_decayed_sum_of_all_branches():
    connection, a = MomentumResidual(8, beta=0.7, gamma=0.9), branches()
    x, carry = torch.zeros(2, 5, 8, dtype=torch.float64), None
    for layer in range(4):
        u, carry = connection.add(x, a[layer], carry)
        wanted = x + 0.9 * sum(0.7 ** (layer - s) * a[s] for s in range(layer + 1))
        torch.testing.assert_close(u, wanted)
        x = u


def test_adaptive_beta_is_one_a_token_by_hand_and_tokens_do_not_mix():
    connection, a = AdaptiveMomentumResidual(8, gamma=0.9, delta=1e-4), branches(3)
    x, carry = torch.zeros(2, 5, 8, dtype=torch.float64), None
    for layer in range(2):
        x, carry = connection.add(x, a[layer], carry)
    ratio = (a[1][1, 3] - a[0][1, 3]).norm() / a[0][1, 3].norm()  # v_1 = −a_1
    torch.testing.assert_close(carry.beta[1, 3, 0], (1 - ratio.sqrt()).square().clamp(0, 1 - 1e-4))
    assert carry.beta.shape == (2, 5, 1)


def test_gradients_flow_through_beta_and_are_finite_for_an_empty_branch():
    a = branches(3)
    a[:, 1] = 0.0
    a.requires_grad_()
    connection = AdaptiveMomentumResidual(8, delta=0.1)
    u = stream(connection, a)
    (gradient,) = torch.autograd.grad(u.square().sum(), a)
    assert u.isfinite().all() and gradient.isfinite().all()
    assert torch.autograd.gradcheck(lambda t: stream(connection, t), branches(3)[:, :1].clone().requires_grad_())


def stream(connection, a):
    x, carry = torch.zeros_like(a[0]), None
    for branch in a:
        x, carry = connection.add(x, branch, carry)
    return x


# ---- The network -----------------------------------------------------------------------------------------------------

NETWORKS = {
    "plain": {},
    "momentum": {"connection": "momentum", "connection_options": {"beta": 0.5, "gamma": 0.9}},
    "adaptive": {"connection": "adaptive", "attention_options": ADAPTIVE},
    "softmax": {"attention": "softmax", "connection": "adaptive"},
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_trains_every_parameter_and_generates_as_it_reads(network):
    model = MomentumLM(11, embed_dim=16, num_heads=2, num_layers=3, **NETWORKS[network]).double()
    logits = model(ids())
    logits.square().sum().backward()
    assert logits.shape == (2, 12, 11) and all(p.grad is not None for p in model.parameters())
    tokens = model.generate(ids(4), 6)
    for t in range(4, 10):
        assert torch.equal(model(tokens[:, :t])[:, -1].argmax(-1), tokens[:, t])


def test_the_same_seed_gives_the_same_weights_whatever_the_connection():
    plain, moving = (MomentumLM(11, connection=c, seed=3).state_dict() for c in ("plain", "adaptive"))
    assert plain.keys() == moving.keys() and all(torch.equal(plain[name], moving[name]) for name in plain)


def test_a_language_model_takes_a_connection():
    model = CausalLM(11, attention="linear", num_layers=2, residual=MomentumResidual)
    assert isinstance(model.decoder.blocks[1].self_residual, MomentumResidual)


def test_betas_are_shown_for_an_adaptive_network_only():
    betas = MomentumLM(11, connection="adaptive", num_layers=3).betas(ids())
    assert betas.shape == (3, 2, 12) and (betas >= 0).all() and (betas < 1).all()
    with pytest.raises(ValueError, match="connection"):
        MomentumLM(11, connection="momentum").betas(ids())


WRONG = {
    "beta=1.5": lambda: attention.build("momentum", 8, 2, beta=1.5),
    "gamma=0": lambda: attention.build("momentum", 8, 2, gamma=0),
    "delta=2": lambda: attention.build("momentum", 8, 2, beta="adaptive", delta=2),
    "form='both'": lambda: attention.build("momentum", 8, 2, form="both"),
    "normaliser='none'": lambda: attention.build("momentum", 8, 2, normaliser="none"),
    "root_length.*is_causal": lambda: attention.build("momentum", 8, 2, normaliser="root_length", is_causal=True),
    "adaptive.*only": lambda: attention.build("momentum", 8, 2, beta="adaptive", form="parallel_total_length"),
    "beta=-0.1": lambda: MomentumResidual(8, beta=-0.1),
    "delta=0": lambda: AdaptiveMomentumResidual(8, delta=0),
    "connection='none'": lambda: MomentumLM(11, connection="none"),
    "embed_dim=15": lambda: MomentumLM(11, embed_dim=15, num_heads=3),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_named(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words]()
