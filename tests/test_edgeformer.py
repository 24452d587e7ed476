"""EdgeFormer: sharing, layer adaptation, counts, the network, and writing with and without a cache."""

import copy

import pytest
import torch
from torch.testing import assert_close

from refattn import measure
from refattn.attention.base import Projections
from refattn.attention.softmax import SoftmaxAttention
from refattn.layers.adaptation import (
    KINDS,
    PrefixAttention,
    Prefixed,
    adapt_feed_forward,
    adapt_projections,
    ranks,
)
from refattn.layers.feed_forward import FeedForward
from refattn.layers.tied_embedding import TiedEmbedding, half_and_half
from refattn.models import decoding, sharing
from refattn.models.edgeformer import EdgeFormer
from refattn.models.shared_encoder import SharedClassifier
from refattn.models.sharing import Pattern

SMALL = {"embed_dim": 16, "num_heads": 2, "encoder_layers": 4, "decoder_layers": 2, "encoder_ffn": 24, "decoder_ffn": 4}
SETTINGS = {
    "full": {"pattern": "full"},
    "universal": {"pattern": "universal"},
    "balanced": {},
    "balanced, pre-LN": {"norm": "pre"},
    "unbalanced": {"pattern": "unbalanced", "attentions": 3},
    "bias": {"adaptation": "bias"},
    "adapter": {"adaptation": "adapter", "rank": 3},
    "rising adapters": {"adaptation": "adapter", "rank": 4, "schedule": "rising"},
    "prefix": {"adaptation": "prefix", "prefix": 2},
    "one of each": {"adaptation": ["none", "bias", "adapter", "prefix"], "rank": 2, "prefix": 3, "attentions": 1},
}


def network(vocab=11, **options):
    return EdgeFormer(vocab, **SMALL | options).double().eval()


def ids(*shape, vocab=11, seed=0):
    return torch.randint(1, vocab, shape, generator=torch.Generator().manual_seed(seed))


def padded():
    source = ids(3, 6)
    source[1, 4:] = source[2, 2:] = 0
    return source


# ---- Sharing and counts ----------------------------------------------------------------------------------------------


def test_the_paper_s_pattern_loads_every_group_evenly():
    pattern = sharing.balanced(12, 2)
    assert pattern.encoder_attention == (0, 1, 2, 3) * 3 and pattern.encoder_ffn == (0, 1) * 6
    assert (pattern.decoder_self, pattern.decoder_cross) == ((0, 2), (1, 3))
    assert pattern.loads() == {
        "attention": dict.fromkeys(range(4), 4),
        "encoder net": {0: 6, 1: 6},
        "decoder net": {0: 2, 1: 2},
    }
    uneven = sharing.unbalanced(6, attentions=2, ffns=2).loads()["attention"]
    assert uneven == {0: 1, 1: 5}


@pytest.mark.parametrize("name", SETTINGS)
def test_counts_are_those_of_the_modules(name):
    model = network(**SETTINGS[name])
    options = {
        key: SETTINGS[name][key] for key in ("adaptation", "rank", "schedule", "prefix") if key in SETTINGS[name]
    }
    widths = {"embed_dim": 16, "encoder_ffn": 24, "decoder_ffn": 4, "vocab_size": 11}
    counted = sharing.count_weights(model.pattern, final_norms=SETTINGS[name].get("norm") == "pre", **widths, **options)
    assert counted["total"] == measure.count_parameters(model)
    source, target = ids(1, 7), ids(1, 5)
    adds = sharing.count_multiply_adds(model.pattern, source=7, target=5, **widths, **options)
    assert 2 * adds["total"] == measure.flops(model, source, target=target)


def test_numbers_of_the_card():
    widths = {"embed_dim": 512, "encoder_ffn": 2048, "decoder_ffn": 128}
    pattern = sharing.balanced(12, 2)
    assert sharing.count_weights(pattern, **widths)["matrices"] == 8_650_752
    extra = {
        kind: sum(sharing.count_adaptation(pattern, kind, embed_dim=512, encoder_ffn=2048, rank=32, prefix=8))
        for kind in KINDS
    }
    assert extra == {"none": 0, "bias": 41_984, "adapter": 799_488, "prefix": 98_304}
    universal = sharing.count_weights(sharing.universal(12, 2), embed_dim=512, encoder_ffn=2688, decoder_ffn=2688)
    assert universal["matrices"] == 8_650_752, "f_u = d + f_e + f_d gives both as many"


def test_weights_are_shared_by_reference_and_norms_are_not():
    model = network(encoder_layers=8)
    maps = [block.self_attention.projections for block in model.encoder.blocks]
    assert maps[0] is maps[4] is model.decoder[0].self_attention.projections
    assert maps[1] is maps[5] is model.decoder[0].cross_attention.projections
    assert model.encoder.blocks[0].feed_forward is model.encoder.blocks[2].feed_forward
    assert len({id(block.self_residual.norm) for block in model.encoder.blocks}) == 8
    copied = copy.deepcopy(model)
    assert copied.decoder[1].self_attention.projections is copied.encoder.blocks[2].self_attention.projections


def test_ranks_follow_their_schedule():
    assert ranks(6, 4) == [4] * 6 and ranks(4, 3, "rising") == [1, 3, 4, 6]
    assert ranks(6, 4, "falling") == [8, 6, 4, 2, 2, 2] and ranks(6, 4, "rising") == [2, 4, 6, 8, 8, 8]


def test_groups_and_layers_that_nobody_asks_for():
    assert sharing.make_pattern("balanced", 12, 2) == EdgeFormer(9).pattern == sharing.balanced(12, 2)
    assert sharing.make_pattern("balanced", 1, 2) == sharing.balanced(1, 2, attentions=1, ffns=1)
    given = sharing.balanced(3, 1, attentions=2)
    assert EdgeFormer(9, pattern=given, encoder_layers=3, attentions=2).pattern is given
    assert SharedClassifier(9, 2, pattern=sharing.balanced(3)).pattern == sharing.make_pattern("balanced", 3)


def test_first_weights_are_the_authors():
    model = network(adaptation=["adapter", "prefix"] * 2, rank=2, prefix=40, embed_dim=64, attentions=2)
    bound = (6 / (64 + 64)) ** 0.5
    for maps in model.attentions:
        for linear, gain in ((maps.query, 0.5), (maps.key, 0.5), (maps.value, 0.5), (maps.output, 1.0)):
            assert 0.95 < linear.weight.abs().max() / (gain**0.5 * bound) <= 1.0 and not linear.bias.any()
    own = [block.self_attention.projections for block in model.encoder.blocks]
    assert own[0].query.up.weight.any(), "adapters act from the first step"
    for normal in (model.embedding.weight[1:], own[1].prefix_keys, own[1].prefix_values):
        assert normal.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert not model.embedding.weight[0].any()
    both = network(pattern="universal", encoder_ffn=24, decoder_ffn=24)
    assert not torch.equal(both.encoder_nets[0].up.weight, both.decoder_nets[0].up.weight)


# ---- Adaptation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bias", "adapter", "prefix"])
def test_an_adaptation_without_effect_is_the_tied_layer(kind):
    tied = network(pattern="universal")
    model = network(pattern="universal", adaptation=kind, rank=2, prefix=0)  # own biases begin as copies
    for name, parameter in model.named_parameters():
        if ".up." in name and "projections" in name:
            torch.nn.init.zeros_(parameter)
    source, target = padded(), ids(3, 5, seed=1)
    assert_close(model(source, target=target), tied(source, target=target), rtol=0, atol=0)


def test_prefixes_are_seen_where_all_else_is_padding():
    model = network(adaptation="prefix", prefix=2)
    x, mask = model.embedding(ids(1, 4)), torch.ones(1, 4, dtype=torch.bool)
    layer = model.encoder.blocks[0].self_attention
    weights = layer.attention_maps(x, key_padding_mask=mask)["effective"]
    assert weights.shape == (1, 2, 4, 6) and not weights[..., 2:].any()
    assert_close(weights[..., :2].sum(-1), torch.ones(1, 2, 4, dtype=torch.float64))


def test_biases_of_ones_own_are_copies_and_the_first_layer_has_the_group_s():
    model = EdgeFormer(9, adaptation="bias", attentions=1, ffns=1, **SMALL)  # as made: .double() would copy anything
    first, second = (block.self_attention.projections.query for block in model.encoder.blocks[:2])
    assert first is model.decoder[0].self_attention.projections.query and second.weight is first.weight
    with torch.no_grad():
        first.bias += 1.0
    assert not second.bias.any()


@pytest.mark.parametrize("name", ["bias", "one of each"])
def test_weights_stay_shared_when_they_are_loaded_in_place_of_the_old(name):
    model, other = network(**SETTINGS[name]), network(seed=1, **SETTINGS[name])
    count, source, target = measure.count_parameters(model), padded(), ids(3, 5, seed=1)
    model.load_state_dict({key: value.clone() for key, value in other.state_dict().items()}, assign=True)
    assert measure.count_parameters(model) == count
    assert torch.equal(model(source, target=target), other(source, target=target))


def test_dropout_reaches_every_place():
    model = network(**SETTINGS["one of each"], ffns=1, dropout=0.25)
    assert {m.dropout for m in model.modules() if isinstance(m, SoftmaxAttention)} == {0.25}
    assert {m.dropout.p for m in model.modules() if isinstance(m, FeedForward)} == {0.25}
    layer = PrefixAttention(8, 2, projections=Prefixed(Projections(8, 2), 3), dropout=0.5)
    x = torch.linspace(-2, 2, 48).reshape(1, 6, 8)
    assert not torch.equal(layer(x)[0], layer(x)[0]) and torch.equal(layer.eval()(x)[0], layer(x)[0])


def test_a_cosine_of_layers_gradients_can_be_taken_of_a_shared_matrix():
    """The gradient of a shared matrix is the sum of what its uses ask for."""
    model, source, target = network(pattern="universal"), ids(2, 6), ids(2, 5, seed=1)
    apart = network(pattern="universal")
    for block in apart.encoder.blocks:  # untied: the same numbers in tensors of their own
        block.feed_forward = copy.deepcopy(block.feed_forward)
    for made in (model, apart):
        made(source, target=target).square().sum().backward()
    wanted = sum(block.feed_forward.up.weight.grad for block in apart.encoder.blocks)
    assert_close(model.encoder_nets[0].up.weight.grad, wanted)


# ---- The network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_every_parameter_has_a_gradient(name):
    model = network(**SETTINGS[name])
    logits = model(padded(), target=ids(3, 5, seed=1))
    assert logits.shape == (3, 5, 11)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("mechanism", ["linear", "cosformer", "momentum", "eit", "vicinity"])
def test_the_encoder_takes_other_mechanisms(mechanism):
    model = network(attention=mechanism)
    model(padded(), target=ids(3, 5, seed=1)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_padding_changes_nothing_and_the_target_is_causal():
    model, source, target = network(adaptation="adapter", rank=2), padded(), ids(3, 5, seed=1)
    logits = model(source, target=target)
    assert_close(logits[2:], model(source[2:, :2], target=target[2:]))
    in_front = torch.cat([torch.zeros(3, 2, dtype=torch.int64), target], 1)
    assert_close(model(source, target=in_front)[:, 2:], logits)
    changed = target.clone()
    changed[:, 3:] = 1
    assert_close(model(source, target=changed)[:, :3], logits[:, :3])


def test_maps_cover_every_attention_of_both_sides():
    maps = network().attention_maps(padded(), target=ids(3, 5, seed=1))
    assert len(maps["encoder"]) == 4 and [sorted(layer) for layer in maps["decoder"]] == [["cross", "self"]] * 2
    cross = maps["decoder"][0]["cross"]["effective"]
    assert cross.shape == (3, 2, 5, 6) and not cross[2, ..., 2:].any()


def test_what_the_table_has_for_padding_never_enters_the_encoder():
    model = network()
    before = model.encode(padded())[0]
    with torch.no_grad():
        model.embedding.weight[0] = 3.0
    assert torch.equal(model.encode(padded())[0], before)


def test_an_embedded_token_is_the_equation_and_positions_count_real_tokens_only():
    made, tokens = TiedEmbedding(9, 8, pad=1, max_len=5).double(), torch.tensor([[1, 3, 4, 1, 5]])
    rates = 10000.0 ** (-torch.arange(4, dtype=torch.float64) / 3)
    wanted = 8**0.5 * made.weight[tokens[0]]
    for place, position in ((1, 2), (2, 3), (4, 4)):  # pad + how many real tokens so far
        wave = torch.cat([(position * rates).sin(), (position * rates).cos()])
        wanted = wanted + torch.eye(5, dtype=torch.float64)[:, [place]] * wave
    assert_close(made(tokens)[0], wanted, rtol=1e-6, atol=1e-6)  # the table is float32, as accelerators want it
    assert_close(made(tokens[:, 4:], start=2), made(tokens)[:, 4:])
    assert made(tokens[:, [1, 2, 4, 4, 4]]).shape == (1, 5, 8), "max_len tokens fit"
    made(tokens).sum().backward()
    assert not made.weight.grad[1].any() and made.weight.grad[3].any()


@pytest.mark.parametrize("name", ["balanced", "one of each"])
def test_a_compiled_network_has_no_graph_break(name):
    model, target = network(**SETTINGS[name]), ids(3, 5, seed=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for source in (padded(), ids(3, 6)):
        assert_close(compiled(source, target=target), model(source, target=target))


def test_a_classifier_has_a_class_for_every_token():
    model = SharedClassifier(7, 5, num_layers=6, attentions=2, max_len=9)
    assert model(ids(2, 8, vocab=7)).shape == (2, 8, 5)
    assert model.pattern.encoder_attention == (0, 1) * 3


# ---- Writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_cached_and_uncached_logits_and_outputs_are_equal(name):
    model, source = network(**SETTINGS[name]), padded()
    encoded, mask = model.encode(source)
    target, state = ids(3, 7, seed=1), model.init_state(encoded, mask)
    whole = model.decode(target, encoded, mask)
    for t in range(7):
        logits, state = model.step(target[:, t], state)
        assert_close(logits, whole[:, t])
    for options in ({}, {"beams": 3}, {"beams": 2, "end": 4, "length_penalty": 0.6}, {"end": 4}):
        written = [model.generate(source, target[:, :2], 6, cached=cached, **options) for cached in (True, False)]
        assert torch.equal(*written)


def test_a_beam_of_one_is_greedy():
    model, source, start = network(), padded(), torch.ones(3, 1, dtype=torch.int64)
    for end in (None, 5):
        encoded = model.encode(source)
        greedy = decoding.generate(model.step, model.init_state(*encoded), start, 6, end=end)
        beam, _ = decoding.beam_search(model.step, model.init_state(*encoded), start, 6, beams=1, end=end)
        assert torch.equal(greedy, beam)


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"beams": 20, "end": 4}, {"temperature": 2.0}], ids=str)
def test_padding_is_never_written(options):
    model, start = network(), torch.ones(6, 1, dtype=torch.int64)
    with torch.no_grad():  # as training moves it, but further
        model.embedding.weight[0] = 3 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    logits = model(ids(6, 5), target=start)
    assert (logits.argmax(-1) == 0).any(), "it would be"
    drawn = {"generator": torch.Generator().manual_seed(0)} if "temperature" in options else {}
    written = [model.generate(ids(6, 5), start, 8, cached=cached, **options, **drawn) for cached in (True, False)]
    assert not any((tokens == 0).any() for tokens in written)
    assert "temperature" in options or torch.equal(*written)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("beams", [1, 2])
def test_writing_goes_as_far_as_the_table_of_positions(cached, beams):
    model, options = network(max_len=4), {"cached": cached, "beams": beams}
    far = network(max_len=9).generate(ids(1, 3), ids(1, 2), 3, **options)
    assert torch.equal(model.generate(ids(1, 3), ids(1, 2), 3, **options), far), "the last token is not read"
    with pytest.raises(ValueError, match="5 tokens.*max_len=4"):
        model.generate(ids(1, 3), ids(1, 2), 4, **options)


def test_draws_depend_on_the_generator_alone():
    model, source, start = network(), padded(), torch.ones(3, 1, dtype=torch.int64)
    one, two = (
        model.generate(source, start, 5, temperature=1.0, generator=torch.Generator().manual_seed(s)) for s in (3, 3)
    )
    assert torch.equal(one, two)


WRONG = {
    "pattern='even'": lambda: network(pattern="even"),
    "attentions=9": lambda: network(attentions=9),
    "attentions: the pattern 'full'": lambda: network(pattern="full", attentions=2),
    "decoder_layers=0": lambda: network(decoder_layers=0),
    "encoder_layers=4: the pattern has 2": lambda: network(pattern=sharing.balanced(2, 2)),
    "attentions=9: the pattern has 4": lambda: network(pattern=sharing.balanced(4, 2), attentions=9),
    "attention groups are .0, 5.": lambda: network(pattern=Pattern((0, 5, 0, 5), (0,) * 4, (0, 0), (5, 5), (0, 1))),
    "decoder net groups are .1.": lambda: network(pattern=Pattern((0,) * 4, (0,) * 4, (0, 0), (0, 0), (1, 1))),
    "encoder_ffn have lengths .2, 1.": lambda: Pattern((0, 1), (0,)),
    "decoder_ffn have lengths .2, 1, 2.": lambda: Pattern((0,), (0,), (0, 0), (0,), (0, 0)),
    "adaptation='lora'": lambda: network(adaptation="lora"),
    "adaptation has 2 entries": lambda: network(adaptation=["none", "bias"]),
    "schedule='wavy'": lambda: network(adaptation="adapter", rank=2, schedule="wavy"),
    "prefix.*attention='linear'": lambda: network(adaptation="prefix", prefix=2, attention="linear"),
    "attention='mega'": lambda: network(attention="mega"),
    "attention='luna'": lambda: network(attention="luna"),
    "pad=11": lambda: network(pad=11),
    "width=2": lambda: half_and_half(3, 2),
    "max_len=4": lambda: network(max_len=4)(ids(1, 6), target=ids(1, 2)),
    "start holds": lambda: network().generate(ids(1, 4), torch.zeros(1, 1, dtype=torch.int64), 3),
    "with beams=2": lambda: network().generate(ids(1, 4), ids(1, 1), 3, beams=2, temperature=1.0),
    "end=0, never=0": lambda: network().generate(ids(1, 4), ids(1, 1), 3, end=0),
    "N up to 4": lambda: SharedClassifier(5, 5, max_len=4)(ids(1, 6, vocab=5)),
    "'none', 'bias'|adaptation='all'": lambda: adapt_feed_forward(None, "all"),
    "adaptation='every'": lambda: adapt_projections(None, "every"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_named(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words]()
