"""EIT beyond the invariants table: wiring, masks, the first convolution on the keys, cost, controls, the network."""

import pytest
import torch
from torch.nn import functional as F

from refattn import attention, data, measure
from refattn.attention import eit
from refattn.attention.map_mixing import KernelLogits, TalkingHeads
from refattn.attention.softmax import softmax_attention_explicit
from refattn.layers.map_convolution import convolve_maps
from refattn.models import Classifier
from refattn.models.eit import EITEncoderDecoder
from refattn.reproduce import heads as studies

POINTWISE = {"isi_kernel": 1, "csi_kernel": 1}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(*args, **options):
    torch.manual_seed(0)
    return attention.build("eit", *args, **options).double()


def qkv(heads=2, tokens=9, d=4):
    return [draw(2, heads, tokens, d, seed=seed) for seed in range(3)]


def fill(convolution, weight, bias=0.0):
    torch.nn.init.constant_(convolution.weight, weight)
    torch.nn.init.constant_(convolution.bias, bias)


# ---- Wiring ----------------------------------------------------------------------------------------------------------


def test_map_i_m_plus_j_is_query_head_i_with_key_head_j():
    q, k, _ = qkv(heads=3)
    S = eit.many_to_many(q, k)
    for i in range(3):
        for j in range(3):
            torch.testing.assert_close(S[:, 3 * i + j], q[:, i] @ k[:, j].transpose(-1, -2) / 2)


def test_one_head_with_open_relus_is_softmax_attention():
    """M = 1, ρ = c = 1, 1 × 1 kernels of weight 1: what the biases add to a row, the softmax cancels."""
    layer = make(4, 1, isi_ratio=1, csi_ratio=1, **POINTWISE)
    for convolution, bias in zip((*layer.isi, *layer.csi), (50.0, 0.0, 50.0, 0.0), strict=True):
        fill(convolution, 1.0, bias)
    x = draw(2, 7, 4)
    wanted = layer.projections.merge(softmax_attention_explicit(*layer.projections(x)))
    torch.testing.assert_close(layer(x)[0], wanted)


def test_inner_maps_know_their_own_query_head_only_and_cross_maps_all():
    q, k, _ = (t.requires_grad_() for t in qkv(heads=3))
    layer = make(12, 3)
    options = layer.options()
    inner, across = eit.eit_logits(q, k, options["isi"], options["csi"])
    for maps, wanted in ((inner, [0.0, 1.0, 0.0]), (across, [1.0, 1.0, 1.0])):
        (gradient,) = torch.autograd.grad(maps[:, 1].sum(), q, retain_graph=True)
        assert [float(g > 0) for g in gradient.abs().amax((0, 2, 3))] == wanted


def test_logits_keep_their_sign_between_and_after_the_interactions():
    maps = make(8, 2).attention_maps(draw(2, 20, 8))
    assert (maps["isi"] < 0).any() and (maps["csi"] < 0).any()
    assert (
        make(8, 2, variant="efficient").attention_maps(draw(2, 20, 8))["isi"] >= 0
    ).all()  # eq. (5) has its ReLU there


def test_a_shift_of_a_row_is_seen_by_the_relus():
    """So a row's maximum must not be subtracted before the convolutions."""
    layer = make(8, 2)
    convolutions = layer.options()
    hidden = [
        eit.convolve_keys(S, *convolutions["isi"][0], groups=2) for S in (draw(2, 4, 5, 5), draw(2, 4, 5, 5) - 3.0)
    ]
    maps = [eit.interact(h.relu(), convolutions["isi"], convolutions["csi"])[1].softmax(-1) for h in hidden]
    assert (maps[0] - maps[1]).abs().max() > 1e-3


@pytest.mark.parametrize("taps", [1, 3, 7])
@pytest.mark.parametrize("groups, channels", [(1, 2), (1, 9), (3, 6), (3, 3)])
def test_convolving_by_products_is_conv2d(taps, groups, channels):
    maps, bias = draw(2, 6, 4, 5), draw(channels, seed=2)
    kernel = draw(channels, 6 // groups, taps, seed=1)
    wanted = convolve_maps(maps, kernel[:, :, None], bias, groups=groups)
    torch.testing.assert_close(eit.convolve_keys(maps, kernel, bias, groups), wanted)


# ---- Masks -----------------------------------------------------------------------------------------------------------


def padded_difference(zeroing):
    layer = make(8, 2, zeroing=zeroing).eval()
    x = draw(2, 9, 8)
    longer = torch.cat([x, 7.0 * torch.ones(2, 4, 8, dtype=torch.float64)], 1)
    mask = (torch.arange(13) >= 9).expand(2, -1)
    return (layer(longer, key_padding_mask=mask)[0][:, :9] - layer(x)[0]).abs().max()


def test_only_zeroing_before_each_convolution_is_independent_of_padding():
    assert padded_difference("each") < 1e-12
    assert min(padded_difference("first"), padded_difference("never")) > 1e-4


def leak(zeroing):
    layer = make(8, 2, zeroing=zeroing, is_causal=True)
    x = draw(1, 9, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0][:, 4].sum(), x)
    return gradient[:, 5:].abs().max()


def test_without_zeroing_a_causal_layer_sees_ahead():
    assert leak("each") == 0.0 == leak("first")
    assert leak("never") > 1e-6


# ---- Cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant, maps", [("full", 2 * 4 * 4), ("efficient", 2 * 4)])
def test_no_tensor_is_larger_than_the_first_convolutions_maps_and_their_taps(variant, maps):
    layer, x = make(32, 4, variant=variant).float(), torch.randn(1, 128, 32)
    assert measure.peak_bytes(layer, x).entries <= maps * 128 * (128 + 6)


def test_less_is_kept_for_the_backward_pass_than_by_the_plain_equations():
    q, k, v = (t.requires_grad_() for t in qkv(heads=4, tokens=64))
    for variant in eit.VARIANTS:
        options = make(16, 4, variant=variant).options()
        fast, plain = (
            measure.saved_bytes(function, q, k, v, **options)
            for function in (eit.eit_attention, eit.eit_attention_explicit)
        )
        assert fast < plain, variant


def test_parameters_of_the_card():
    """D = 512, M = 8, kernels 7 and 3: 7296 + 904 + 1600 + 1544."""
    layer = attention.build("eit", 512, 8)
    counts = [sum(p.numel() for p in convolution.parameters()) for convolution in (*layer.isi, *layer.csi)]
    assert counts == [7296, 904, 1600, 1544]


# ---- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, says",
    [
        ({"variant": "small"}, "variant='small': wanted one of full, efficient"),
        ({"isi_kernel": 4}, "isi_kernel=4: wanted an odd width"),
        ({"csi_kernel": 0}, "csi_kernel=0: wanted an odd width"),
        ({"isi_ratio": 0}, "isi_ratio=0"),
        ({"channels": 4}, "channels=4: only variant='efficient'"),
        ({"variant": "efficient", "channels": 3}, "channels=3: wanted a multiple of num_heads=2"),
        ({"zeroing": "last"}, "zeroing='last': wanted one of each, first, never"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        attention.build("eit", 8, 2, **options)


# ---- Controls --------------------------------------------------------------------------------------------------------

MASK = torch.arange(7) >= torch.tensor([7, 4])[:, None]
FORMS = [{}, {"is_causal": True}, {"key_padding_mask": MASK}]


@pytest.mark.parametrize("control", [TalkingHeads, KernelLogits])
@pytest.mark.parametrize("form", FORMS, ids=["plain", "causal", "masked"])
def test_controls_begin_as_softmax_attention(control, form):
    layer = control(8, 2, is_causal=form.get("is_causal", False)).double()
    x = draw(2, 7, 8)
    wanted = layer.projections.merge(softmax_attention_explicit(*layer.projections(x), **form))
    torch.testing.assert_close(layer(x, key_padding_mask=form.get("key_padding_mask"))[0], wanted)


@pytest.mark.parametrize("control", [TalkingHeads, KernelLogits])
def test_controls_are_causal_blind_to_padding_and_trainable(control):
    layer = control(8, 2, is_causal=True).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * draw(*parameter.shape)
    x = draw(2, 9, 8)
    torch.testing.assert_close(layer(x)[0][:, :5], layer(x[:, :5])[0])
    free = control(8, 2, projections=layer.projections).double()
    free.load_state_dict(layer.state_dict())
    longer = torch.cat([x, 7.0 * torch.ones(2, 4, 8, dtype=torch.float64)], 1)
    masked = free(longer, key_padding_mask=(torch.arange(13) >= 9).expand(2, -1))[0]
    torch.testing.assert_close(masked[:, :9], free(x)[0])
    free(x)[0].square().sum().backward()
    assert all(p.grad is not None for p in free.parameters())


# ---- The task, heads, and the network --------------------------------------------------------------------------------


def test_associative_recall_asks_for_the_value_beside_the_key():
    task = data.associative_recall(num_keys=6, num_values=4, num_pairs=3, test_size=50)
    ids, targets = task.test["inputs"], task.test["targets"]
    assert ids.shape == (50, 7) and (targets[:, :-1] == data.IGNORED).all()
    keys, values = ids[:, 0:6:2], ids[:, 1:6:2] - 6
    assert all(len(set(row.tolist())) == 3 for row in keys) and values.min() >= 0
    place = (keys == ids[:, -1:]).int().argmax(1, keepdim=True)
    assert torch.equal(values.gather(1, place)[:, 0], targets[:, -1])
    with pytest.raises(ValueError, match="num_pairs=7"):
        data.associative_recall(num_keys=6, num_pairs=7)


def test_agreement_is_the_mean_cosine_of_rows():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    alike, apart = torch.stack([one, one])[None, :, None], torch.stack([one, other])[None, :, None]  # [1, 2, 1, 2]
    assert studies.agreement(alike) == pytest.approx(1.0) and studies.agreement(apart) == pytest.approx(0.0)
    assert studies.agreement(torch.cat([alike, apart])) == pytest.approx(0.5)


def test_a_head_is_taken_out_and_put_back():
    model = Classifier(9, 3, attention="eit", embed_dim=8, num_heads=2, num_layers=1, pool="none")
    layer, ids = model.encoder.blocks[0].self_attention, torch.arange(9)[None]
    before = layer.projections.output.weight.clone()
    with studies.without_head(layer, 1):
        assert (layer.projections.output.weight[:, 4:] == 0).all()
        without = model(ids)
    assert torch.equal(layer.projections.output.weight, before) and not torch.allclose(without, model(ids))


def test_the_network_has_eit_in_its_encoder_alone_and_learns():
    net = EITEncoderDecoder(11, embed_dim=8, num_heads=2, num_layers=2)
    kinds = [type(block.self_attention).__name__ for block in (*net.encoder.blocks, *net.decoder.blocks)]
    assert kinds == ["EIT", "EIT", "SoftmaxAttention", "SoftmaxAttention"]
    ids = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(7) >= torch.tensor([7, 4])[:, None]
    logits = net(ids, target=ids[:, :5], key_padding_mask=mask)
    assert logits.shape == (2, 5, 11)
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:6].flatten()).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.generate(ids, ids[:, :1], 3).shape == (2, 4)
    hybrid = EITEncoderDecoder(11, encoder_attention=["softmax", "eit"], embed_dim=8, num_heads=2)
    assert hybrid(ids, target=ids).shape == (2, 7, 11)
    with pytest.raises(ValueError, match="encoder_attention has 3 names"):
        EITEncoderDecoder(11, encoder_attention=["eit"] * 3, embed_dim=8, num_heads=2)
