"""EdgeFormer: sharing, layer adaptation, counts, the network, and writing with and without a cache."""

import copy
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from refattn import measure
from refattn.layers.adaptation import KINDS, adapt_feed_forward, adapt_projections, ranks
from refattn.layers.tied_embedding import TiedEmbedding, half_and_half
from refattn.models import decoding, sharing
from refattn.models.edgeformer import EdgeFormer
from refattn.models.shared_encoder import SharedClassifier

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
    assert ranks(6, 4) == [4] * 6
    assert ranks(6, 4, "falling") == [8, 6, 4, 2, 2, 2] and ranks(6, 4, "rising") == [2, 4, 6, 8, 8, 8]


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
    x, mask = torch.randn(1, 4, 16, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool)
    layer = model.encoder.blocks[0].self_attention
    weights = layer.attention_maps(x, key_padding_mask=mask)["effective"]
    assert weights.shape == (1, 2, 4, 6) and not weights[..., 2:].any()
    assert_close(weights[..., :2].sum(-1), torch.ones(1, 2, 4, dtype=torch.float64))


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


@pytest.mark.parametrize("mechanism", ["linear", "cosformer", "momentum", "eit"])
def test_the_encoder_takes_other_mechanisms(mechanism):
    model = network(attention=mechanism)
    model(padded(), target=ids(3, 5, seed=1)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_padding_of_the_source_changes_nothing_and_the_target_is_causal():
    model, source, target = network(adaptation="adapter", rank=2), padded(), ids(3, 5, seed=1)
    logits = model(source, target=target)
    assert_close(logits[2:], model(source[2:, :2], target=target[2:]))
    changed = target.clone()
    changed[:, 3:] = 1
    assert_close(model(source, target=changed)[:, :3], logits[:, :3])


def test_maps_cover_every_attention_of_both_sides():
    maps = network().attention_maps(padded(), target=ids(3, 5, seed=1))
    assert len(maps["encoder"]) == 4 and [sorted(layer) for layer in maps["decoder"]] == [["cross", "self"]] * 2
    cross = maps["decoder"][0]["cross"]["effective"]
    assert cross.shape == (3, 2, 5, 6) and not cross[2, ..., 2:].any()


def test_positions_count_real_tokens_only():
    embedding = TiedEmbedding(9, 8, pad=1, max_len=5)
    assert embedding.places(torch.tensor([[1, 3, 4, 1, 5]])).tolist() == [[1, 2, 3, 1, 4]]
    assert not embedding.positions[:2].any() and embedding.positions[2].any()
    waves = half_and_half(3, 8)
    assert_close(waves[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert_close(
        waves[2, [0, 4]],
        torch.tensor([2.0]).sin().expand(2) * torch.tensor([1.0, 0.0])
        + torch.tensor([0.0, 1.0]) * torch.tensor([2.0]).cos(),
    )


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


def chain(vocab, seed):
    """A step whose logits depend on the last token and the place: a state that must be chosen anew with its beam."""
    table = 2 * torch.randn(5, vocab, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def step(token, state):
        seen = state["sum"] + token
        return table[seen % 5, token], {"sum": seen}

    return step


def best_by_exhaustion(step, length, vocab, end, penalty):
    """The best sequence of at most `length` tokens after token 0, and its score, for a batch of one."""
    best = (-torch.inf, None)
    for tokens in product(range(vocab), repeat=length):
        stop = tokens.index(end) + 1 if end in tokens else length
        state, token, total = {"sum": torch.zeros(1, dtype=torch.int64)}, 0, 0.0
        for following in tokens[:stop]:
            logits, state = step(torch.tensor([token]), state)
            total, token = total + logits.log_softmax(-1)[0, following].item(), following
        best = max(best, (total / stop**penalty, tokens[:stop]))
    return best


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_sequence_of_all(seed, end, penalty):
    step, start = chain(4, seed), torch.zeros(1, 1, dtype=torch.int64)
    state = {"sum": torch.zeros(1, dtype=torch.int64)}
    tokens, score = decoding.beam_search(step, state, start, 4, beams=4**4, end=end, length_penalty=penalty)
    wanted, best = best_by_exhaustion(step, 4, 4, end, penalty)
    found = tokens[0, 1:].tolist()
    assert tuple(found[: len(best)]) == best and set(found[len(best) :]) <= {end}
    assert score.item() == pytest.approx(wanted)


def test_a_beam_finds_what_greedy_misses_and_never_scores_lower():
    better = 0
    for seed in range(20):
        step, start = chain(4, seed), torch.zeros(1, 1, dtype=torch.int64)
        state = {"sum": torch.zeros(1, dtype=torch.int64)}
        scores = [decoding.beam_search(step, state, start, 5, beams=beams)[1].item() for beams in (1, 4**5)]
        assert scores[1] >= scores[0] - 1e-12
        better += scores[1] > scores[0] + 1e-9
    assert better > 0


def test_writing_ends_when_all_have_ended_and_rows_are_independent():
    step = chain(4, 1)
    start, state = torch.tensor([[0], [1], [3]]), {"sum": torch.tensor([0, 2, 1])}
    together, _ = decoding.beam_search(step, state, start, 6, beams=3, end=2)
    for row in range(3):
        alone, _ = decoding.beam_search(step, decoding.select(state, [row]), start[[row]], 6, beams=3, end=2)
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()
        assert set(together[row, alone.shape[1] :].tolist()) <= {2}


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
    "beams=0": lambda: decoding.beam_search(chain(3, 0), {"sum": ids(1)}, ids(1, 1), 3, beams=0),
    "at least one token": lambda: decoding.generate(chain(3, 0), {"sum": ids(1)}, ids(1, 0), 3),
    "N up to 4": lambda: SharedClassifier(5, 5, max_len=4)(ids(1, 6, vocab=5)),
    "'none', 'bias'|adaptation='all'": lambda: adapt_feed_forward(None, "all"),
    "adaptation='every'": lambda: adapt_projections(None, "every"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_named(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words]()
