"""What every mechanism promises: mechanisms × properties. The rows, and all exceptions, are in invariants_table.py."""

import copy
import inspect

import pytest
import torch
from invariants_table import TABLE

from refattn import attention, catalog
from refattn.attention import base

VARIANTS = [(name, options) for name, row in TABLE.items() for options in row.options]
IDS = [f"{name}-{'-'.join(map(str, options.values())) or 'plain'}" for name, options in VARIANTS]
FORMS, SIDES = ("self", "causal", "cross"), ("right", "left")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WIDTH, HEADS = 8, 2


def test_every_mechanism_and_only_those_are_in_the_table():
    assert set(TABLE) == set(attention.names())


def test_everything_unpromised_names_a_property_of_this_file_and_gives_a_reason():
    for row in TABLE.values():
        for (prop, form), reason in row.unpromised.items():
            assert f"test_{prop}" in globals() and form in (None, *FORMS, *SIDES, *DTYPES) and len(reason) > 20


@pytest.fixture(autouse=True)
def promised(request):
    """Skip what the table says is not promised, with its reason."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if given.get("name") in TABLE:
        prop = request.node.originalname.removeprefix("test_")
        unpromised = TABLE[given["name"]].unpromised
        keys = [(prop, given[place]) for place in ("form", "side", "dtype") if place in given] + [(prop, None)]
        reason = next((unpromised[key] for key in keys if key in unpromised), None)
        if reason is not None:
            pytest.skip(f"not promised: {reason}")


def make(name, options, form="self", dtype=torch.float64, **more):
    if form not in ("self", *attention.mechanism(name).forms):
        pytest.skip(f"{name} has no {form} form, and the catalogue says so")
    forms = {"is_causal": form == "causal", "cross": form == "cross"}
    torch.manual_seed(0)
    layer = attention.build(name, WIDTH, HEADS, **{**options, **forms, **more}).to(dtype).eval()
    with torch.no_grad():  # biases begin at zero, where a mistake with them would hide
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=dtype)
    return layer


def inputs(form, batch=2, tokens=9, keys=7, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    x = draw(batch, tokens, WIDTH)
    return (x, draw(batch, keys, WIDTH)) if form == "cross" else (x,)


def mask_of(lengths, size):
    return torch.arange(size)[None] >= torch.tensor(lengths)[:, None]


def finish(name, layer, args, mask, heads):
    """y [B, N, D] of heads [B, H, N, d]; heads None: as if no key were visible."""
    if TABLE[name].finish is not None:
        return TABLE[name].finish(layer, args, mask, heads)
    nothing = torch.zeros(1, HEADS, 1, layer.head_dim, dtype=torch.float64)
    return layer.projections.merge(nothing if heads is None else heads)


every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
every_form = pytest.mark.parametrize("form", FORMS)


@every_variant
def test_forms_are_those_of_the_catalogue(name, options):
    assert attention.mechanism(name).forms == set(catalog.get(name).forms)


@every_variant
@every_form
@pytest.mark.parametrize("tokens", [1, 2, 33, 333])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_form_equals_its_explicit_twin(name, options, form, tokens, masked):
    """At odd lengths, alone and with masks."""
    if masked and "mask" not in attention.mechanism(name).forms:
        pytest.skip(f"{name} has no masked form, and the catalogue says so")
    layer = make(name, options, form)
    args = inputs(form, tokens=tokens, keys=tokens + 2)
    keys = args[-1].shape[1]
    mask = mask_of([keys, max(1, keys // 3)], keys) if masked else None
    y, _ = layer(*args, key_padding_mask=mask)
    wanted = finish(name, layer, args, mask, TABLE[name].explicit(layer, args, mask))
    torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-10)


@every_variant
@every_form
def test_rows_sum_to_one(name, options, form):
    layer = make(name, options, form)
    effective = layer.attention_maps(*inputs(form))["effective"]
    torch.testing.assert_close(effective.sum(-1), torch.ones_like(effective[..., 0]), rtol=0, atol=1e-5)
    assert (effective >= 0).all()


@every_variant
def test_causal_output_has_no_gradient_to_the_future(name, options):
    layer = make(name, options, "causal")
    (x,) = inputs("causal", tokens=150)
    x.requires_grad_()
    y, _ = layer(x)
    for t in (0, 5, 31, 32, 127, 128, 148):
        (gradient,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        # not exactly zero: a transform over all positions (FFT) leaves rounding where nothing should be
        assert gradient[:, t + 1 :].abs().max() <= 1e-14 * gradient[:, : t + 1].abs().max()


@every_variant
def test_causal_prefix_is_the_same_within_a_longer_sequence(name, options):
    layer = make(name, options, "causal")
    (x,) = inputs("causal", tokens=300)
    whole, _ = layer(x)
    for length in (1, 7, 128, 129, 299):
        torch.testing.assert_close(layer(x[:, :length])[0], whole[:, :length], rtol=1e-9, atol=1e-10)


@every_variant
@every_form
@pytest.mark.parametrize("side", SIDES)
def test_padding_changes_nothing_at_real_positions(name, options, form, side):
    """Keys that are padding may hold anything: the result is that of the shorter sequence."""
    if "mask" not in attention.mechanism(name).forms:
        pytest.skip(f"{name} has no masked form, and the catalogue says so")
    layer = make(name, options, form)
    args = inputs(form, tokens=140, keys=140)
    junk = 1e3 * torch.randn(2, 6, WIDTH, dtype=torch.float64)
    glue = (lambda t: torch.cat([t, junk], 1)) if side == "right" else (lambda t: torch.cat([junk, t], 1))
    mask = glue(torch.zeros(2, 140, 1, dtype=torch.float64).expand(2, 140, WIDTH))[..., 0] != 0
    alone, _ = layer(*args)
    if form == "cross":
        padded, _ = layer(args[0], glue(args[1]), key_padding_mask=mask)
    else:
        padded, _ = layer(glue(args[0]), key_padding_mask=mask)
        padded = padded[:, :140] if side == "right" else padded[:, 6:]
    torch.testing.assert_close(padded, alone, rtol=1e-9, atol=1e-9)


@every_variant
@every_form
def test_a_batch_is_its_sequences_one_by_one(name, options, form):
    layer = make(name, options, form)
    args = inputs(form, batch=3)
    together, _ = layer(*args)
    alone = torch.cat([layer(*(t[i : i + 1] for t in args))[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-10)


@every_variant
def test_permuting_tokens_permutes_outputs(name, options):
    layer = make(name, options)
    (x,) = inputs("self", tokens=20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(layer(x[:, order])[0], layer(x)[0][:, order], rtol=1e-9, atol=1e-10)


@every_variant
def test_steps_equal_the_causal_form(name, options):
    if "step" not in attention.mechanism(name).forms:
        assert not hasattr(attention.mechanism(name), "step")
        pytest.skip(f"{name} has no step form, and the catalogue says so")
    layer = make(name, options, "causal")
    (x,) = inputs("causal", tokens=140)
    state, steps = layer.init_state(2), []
    for t in range(x.shape[1]):
        y_t, state = layer.step(x[:, t], state)
        steps.append(y_t)
    torch.testing.assert_close(torch.stack(steps, 1), layer(x)[0], rtol=1e-9, atol=1e-10)


@every_variant
@every_form
def test_a_query_without_any_visible_key_gets_zero_and_finite_gradients(name, options, form):
    if "mask" not in attention.mechanism(name).forms:
        pytest.skip(f"{name} has no masked form, and the catalogue says so")
    layer = make(name, options, form)
    args = [t.requires_grad_() for t in inputs(form)]
    keys = args[-1].shape[1]
    mask = mask_of([keys, 0], keys)
    y, _ = layer(*args, key_padding_mask=mask)
    nothing = finish(name, layer, args, mask, None)
    torch.testing.assert_close(y[1], nothing[-1].expand_as(y[1]))
    y.sum().backward()
    assert y.isfinite().all() and all(t.grad.isfinite().all() for t in args)


@every_variant
@every_form
def test_extreme_inputs_stay_finite(name, options, form):
    layer = make(name, options, form, dtype=torch.float32)
    args = [100 * t for t in inputs(form, dtype=torch.float32)]
    y, _ = layer(*args)
    assert y.isfinite().all()


@every_variant
@every_form
@pytest.mark.parametrize("dtype", DTYPES)
def test_lower_precision_agrees_with_float64(name, options, form, dtype):
    dtype = DTYPES[dtype]
    exact, rounded = make(name, options, form), make(name, options, form)
    rounded = rounded.to(dtype)
    args = inputs(form, tokens=200, keys=200)
    y, _ = rounded(*(t.to(dtype) for t in args))
    wanted, _ = exact(*args)
    assert y.dtype == dtype
    error = (y.double() - wanted).norm() / wanted.norm()
    assert error < (1e-5 if dtype == torch.float32 else 0.05)


@every_variant
@every_form
def test_compiles_to_one_graph_with_the_same_result(name, options, form):
    layer = make(name, options, form)
    args = inputs(form, tokens=140)
    masked = "mask" in attention.mechanism(name).forms
    mask = mask_of([args[-1].shape[1], 5], args[-1].shape[1]) if masked else None
    torch.compiler.reset()  # or the many small cases reach the limit on recompilations
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args, key_padding_mask=mask)[0], layer(*args, key_padding_mask=mask)[0])


@every_variant
@every_form
def test_state_dict_round_trip_and_determinism(name, options, form):
    layer, other = make(name, options, form), make(name, options, form)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    args = inputs(form)
    torch.testing.assert_close(other(*args)[0], layer(*args)[0], rtol=0, atol=0)


def make_two(name, options, form):
    """Two layers in a row, the first and the last of their chain if the mechanism has one."""
    chained = attention.mechanism(name).chain_name(cross=form == "cross", is_causal=form == "causal") is not None
    places = [{"first_in_chain": True}, {"first_in_chain": False, "last_in_chain": True}] if chained else [{}, {}]
    return [make(name, options, form, **place) for place in places]


def run_two(layers, x, *context, **mask):
    """Both layers with a plain residual, the carry handed on."""
    carry = None
    for layer in layers:
        y, carry = layer(x, *context, carry=carry, **mask)
        x = x + y
    return x


@every_variant
@every_form
def test_every_parameter_has_a_gradient_through_two_layers(name, options, form):
    """The first and the last of a chain own only what somebody uses."""
    layers = make_two(name, options, form)
    run_two(layers, *inputs(form)).square().sum().backward()
    idle = [f"layer {i}: {n}" for i, layer in enumerate(layers) for n, p in layer.named_parameters() if p.grad is None]
    assert not idle, idle


@every_variant
@pytest.mark.parametrize("form", ["self", "causal"])
def test_padding_changes_nothing_through_two_layers(name, options, form):
    if "mask" not in attention.mechanism(name).forms:
        pytest.skip(f"{name} has no masked form, and the catalogue says so")
    layers = make_two(name, options, form)
    (x,) = inputs(form, tokens=20)
    padded = torch.cat([x, 1e3 * torch.ones(2, 6, WIDTH, dtype=torch.float64)], 1)
    masked = run_two(layers, padded, key_padding_mask=mask_of([20, 20], 26))
    torch.testing.assert_close(masked[:, :20], run_two(layers, x), rtol=1e-9, atol=1e-9)


@every_variant
def test_causal_prefix_is_the_same_through_two_layers(name, options):
    layers = make_two(name, options, "causal")
    (x,) = inputs("causal", tokens=150)
    torch.testing.assert_close(run_two(layers, x)[:, :70], run_two(layers, x[:, :70]), rtol=1e-9, atol=1e-10)


@every_variant
def test_a_subclass_keeps_forward_s_signature(name, options):
    wanted = list(inspect.signature(base.Attention.forward).parameters)
    cls = attention.mechanism(name)
    assert list(inspect.signature(cls.forward).parameters) == wanted
    assert list(inspect.signature(cls.attention_maps).parameters) == wanted


BAD_CALLS = {
    "wrong width": (lambda layer: layer(torch.zeros(1, 3, WIDTH + 1)), "x has shape"),
    "no batch": (lambda layer: layer(torch.zeros(3, WIDTH)), "x has shape"),
    "context unasked": (lambda layer: layer(torch.zeros(1, 3, WIDTH), torch.zeros(1, 3, WIDTH)), "context"),
    "mask of another length": (
        lambda layer: layer(torch.zeros(1, 3, WIDTH), key_padding_mask=torch.zeros(1, 4, dtype=torch.bool)),
        "key_padding_mask",
    ),
    "mask of numbers": (lambda layer: layer(torch.zeros(1, 3, WIDTH), key_padding_mask=torch.zeros(1, 3)), "bool"),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("bad", BAD_CALLS)
def test_wrong_input_is_named(name, bad):
    call, words = BAD_CALLS[bad]
    with pytest.raises(ValueError, match=words):
        call(make(name, {}, dtype=torch.float32))


@pytest.mark.parametrize("name", TABLE)
def test_wrong_construction_is_named(name):
    with pytest.raises(ValueError, match="num_heads=3"):
        attention.build(name, WIDTH, 3)
    with pytest.raises(ValueError, match="no option depth"):
        attention.build(name, WIDTH, HEADS, depth=2)
    with pytest.raises(ValueError, match="dropout=1.5"):
        attention.build(name, WIDTH, HEADS, dropout=1.5)


def test_an_unknown_mechanism_is_named_and_the_known_are_listed():
    with pytest.raises(ValueError, match="'lunar'.*softmax, linear"):
        attention.build("lunar", WIDTH, HEADS)
