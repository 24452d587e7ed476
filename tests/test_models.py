"""Models: any mechanism per layer, carries by chain, seeded weights, generation, maps, and clear errors."""

from itertools import product

import pytest
import torch

from refattn import attention
from refattn.layers.residual import Residual
from refattn.models import CausalLM, Classifier, EncoderDecoder, ViT, decoding
from refattn.models.stack import Stack

SMALL = {"embed_dim": 16, "num_heads": 2}
HYBRIDS = ["softmax", "linear", "luna", ["luna", "softmax", "luna"], ["softmax", "luna", "linear"]]
every_stack = pytest.mark.parametrize("names", HYBRIDS, ids=lambda n: n if isinstance(n, str) else "+".join(n))


def ids(batch, tokens, vocab=11, seed=0):
    return torch.randint(1, vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def idle_parameters(model):
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


@every_stack
@pytest.mark.parametrize("pool", ["mean", "first", "none"])
def test_classifier_trains_every_parameter(names, pool):
    model = Classifier(11, 4, attention=names, num_layers=3, pool=pool, positions="learned", max_len=9, **SMALL)
    logits = model(ids(2, 9))
    assert logits.shape == ((2, 9, 4) if pool == "none" else (2, 4))
    logits.square().sum().backward()
    assert not idle_parameters(model)


@every_stack
def test_classifier_ignores_what_is_padding(names):
    model = Classifier(11, 4, attention=names, num_layers=3, **SMALL).double().eval()
    short, rest = ids(2, 9), ids(2, 5, seed=1)
    mask = torch.arange(14)[None].expand(2, 14) >= 9
    torch.testing.assert_close(model(torch.cat([short, rest], 1), key_padding_mask=mask), model(short))


@every_stack
def test_language_model_trains_every_parameter_and_sees_no_future(names):
    model = CausalLM(11, attention=names, num_layers=3, **SMALL)
    tokens = ids(2, 9)
    logits = model(tokens)
    logits.square().sum().backward()
    assert logits.shape == (2, 9, 11) and not idle_parameters(model)
    changed = tokens.clone()
    changed[:, 6:] = 1
    torch.testing.assert_close(model(changed)[:, :6], logits[:, :6])


@every_stack
def test_generation_by_steps_equals_reading_the_prefix_again(names):
    model = CausalLM(11, attention=names, num_layers=3, **SMALL).double().eval()
    tokens = model.generate(ids(2, 4), 8)
    for t in range(4, 12):
        assert torch.equal(model(tokens[:, :t])[:, -1].argmax(-1), tokens[:, t])


def test_sampling_depends_on_the_generator_alone():
    model = CausalLM(11, num_layers=1, **SMALL).eval()
    draw = lambda seed: model.generate(ids(2, 3), 20, temperature=1.0, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


@every_stack
@pytest.mark.parametrize("cross", [None, "softmax", "luna", "linear"])
def test_encoder_decoder_trains_every_parameter(names, cross):
    model = EncoderDecoder(11, target_vocab=7, attention=names, cross_attention=cross, num_layers=3, **SMALL)
    mask = torch.arange(8)[None] >= torch.tensor([8, 5])[:, None]
    logits = model(ids(2, 8), target=ids(2, 6, 7), key_padding_mask=mask)
    logits.square().sum().backward()
    assert logits.shape == (2, 6, 7) and not idle_parameters(model)


def test_a_luna_decoder_begins_with_the_encoder_s_packed_sequence():
    model = EncoderDecoder(11, attention="luna", num_layers=2, **SMALL)
    owners = [name for name, _ in model.named_parameters() if name.endswith("slots")]
    assert owners == ["encoder.blocks.0.self_attention.slots"]
    last = model.decoder.blocks[-1].cross_attention
    assert last.norm is None, "nobody reads the P that the last layer would hand on"
    assert model.encoder.blocks[-1].self_attention.norm is not None, "the decoder reads the encoder's last P"


@pytest.mark.parametrize("cross", ["softmax", "linear", "luna"])
@pytest.mark.parametrize("names", ["softmax", "linear", "luna", ["momentum", "luna"]], ids=str)
def test_encoder_decoder_generates_what_decoding_the_prefix_gives(names, cross):
    model = EncoderDecoder(11, attention=names, cross_attention=cross, num_layers=2, **SMALL).double().eval()
    assert model.decoder.can_step() == (cross != "luna"), "Luna's cross attention packs the context for each layer anew"
    source, mask = ids(2, 8), torch.arange(8)[None] >= torch.tensor([8, 5])[:, None]
    tokens = model.generate(source, ids(2, 1), 5, key_padding_mask=mask)
    for t in range(1, 6):
        logits = model(source, target=tokens[:, :t], key_padding_mask=mask)[:, -1]
        assert torch.equal(logits.argmax(-1), tokens[:, t])


@pytest.mark.parametrize("names", ["softmax", "linear", "luna"])
def test_beams_of_caches_write_what_beams_that_read_again_write(names, monkeypatch):
    language = CausalLM(11, attention=names, num_layers=2, **SMALL).double().eval()
    decoder = EncoderDecoder(11, attention=names, cross_attention="softmax", num_layers=2, **SMALL).double().eval()
    source, mask = ids(3, 8), torch.arange(8)[None] >= torch.tensor([8, 5, 2])[:, None]
    beams = {"beams": 3, "end": 4, "length_penalty": 0.6}

    def write():
        return language.generate(ids(3, 2), 6, **beams), decoder.generate(
            source, ids(3, 2), 6, key_padding_mask=mask, **beams
        )

    assert language.decoder.can_step() and decoder.decoder.can_step()
    cached = write()
    monkeypatch.setattr(Stack, "can_step", lambda self: False)
    assert all(torch.equal(a, b) for a, b in zip(cached, write(), strict=True))


def test_beams_that_read_again_keep_to_their_own_source():
    model = EncoderDecoder(11, attention="luna", num_layers=2, **SMALL).double().eval()
    source, start = ids(3, 8), ids(3, 1)
    together = model.generate(source, start, 5, beams=3)
    for row in range(3):
        assert torch.equal(model.generate(source[[row]], start[[row]], 5, beams=3), together[[row]])


@pytest.mark.parametrize("cross", ["softmax", "linear"])
def test_a_decoder_that_keeps_what_it_read_has_the_logits_of_one_that_reads_again(cross):
    model = EncoderDecoder(11, attention=["softmax", "luna"], cross_attention=cross, num_layers=2, **SMALL).double()
    source, target = ids(3, 8), ids(3, 6)
    mask = torch.arange(8)[None] >= torch.tensor([8, 5, 2])[:, None]
    encoded, carries = model.eval().encode(source, key_padding_mask=mask)
    wanted = model.decode(target, encoded, carries, key_padding_mask=mask)
    state, found = model.init_state(encoded, carries, key_padding_mask=mask), []
    for token in target.unbind(1):
        logits, state = model.step(token, state)
        found.append(logits)
    torch.testing.assert_close(torch.stack(found, 1), wanted, rtol=1e-9, atol=1e-10)


@every_stack
def test_vit_trains_every_parameter_and_tokens_are_patches(names):
    model = ViT((8, 12), 5, patch_size=4, channels=3, attention=names, num_layers=3, **SMALL)
    images = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    torch.testing.assert_close(model.patches(images)[0, 4].reshape(3, 4, 4), images[0, :, 4:8, 4:8])
    model(images / 600).square().sum().backward()
    assert not idle_parameters(model)


def test_maps_come_one_dict_a_layer():
    model = Classifier(11, 4, attention=["luna", "softmax"], **SMALL)
    maps = model.attention_maps(ids(2, 9))
    assert [sorted(layer["self"]) for layer in maps] == [["effective", "pack", "unpack"], ["effective"]]
    both = EncoderDecoder(11, attention="luna", num_layers=1, **SMALL).attention_maps(ids(2, 9), target=ids(2, 5))
    assert both["decoder"][0]["cross"]["effective"].shape == (2, 4, 5, 9)


@pytest.mark.parametrize("other", [n for n in attention.names() if n != "softmax"])
def test_one_mechanism_does_not_change_the_weights_beside_it(other):
    plain = Classifier(11, 4, attention=["softmax", "softmax"], **SMALL).state_dict()
    mixed = Classifier(11, 4, attention=[other, "softmax"], **SMALL).state_dict()
    same = [name for name in plain if "blocks.0.self_" not in name]  # its residual too: some mechanisms own it
    assert all(torch.equal(plain[name], mixed[name]) for name in same)


def test_a_model_leaves_the_caller_s_random_numbers_alone():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    Classifier(11, 4, **SMALL)
    assert torch.equal(torch.rand(4), wanted)


def test_several_ids_a_token_are_summed():
    model = Classifier((5, 3), 4, positions="none", pool="none", **SMALL)
    pair = torch.tensor([[[4, 2]]])
    tables = model.embedding.tables
    torch.testing.assert_close(model.embedding.embed(pair)[0, 0], 4 * (tables[0].weight[4] + tables[1].weight[2]))


WRONG = {
    "unknown mechanism": (lambda: Classifier(11, 4, attention="lunar"), "'lunar'"),
    "a list of another length": (lambda: Classifier(11, 4, attention=["softmax"], num_layers=2), "1 entries"),
    "options of another length": (lambda: Classifier(11, 4, attention_options=[{}], num_layers=2), "attention_options"),
    "an option the mechanism lacks": (lambda: Classifier(11, 4, attention_options={"num_slots": 3}), "num_slots"),
    "unknown positions": (lambda: Classifier(11, 4, positions="rotary"), "'rotary'"),
    "unknown pool": (lambda: Classifier(11, 4, pool="max"), "'max'"),
    "unknown norm": (lambda: Classifier(11, 4, norm="sandwich"), "'sandwich'"),
    "unknown activation": (lambda: Classifier(11, 4, activation="tanh"), "'tanh'"),
    "longer than the table": (lambda: Classifier(11, 4, positions="learned", max_len=3)(ids(1, 4)), "max_len=3"),
    "real vectors for ids": (lambda: Classifier(11, 4)(torch.zeros(1, 4)), "integer ids"),
    "ids for real vectors": (lambda: Classifier(None, 4, input_dim=3)(ids(1, 4)), "real vectors"),
    "neither ids nor vectors": (lambda: Classifier(None, 4), "exactly one"),
    "patches that do not tile": (lambda: ViT(9, 4), "patch_size=4"),
    "an image of another shape": (lambda: ViT(8, 4)(torch.zeros(1, 3, 8, 8)), "images"),
    "an empty prompt": (lambda: CausalLM(11).generate(torch.zeros(1, 0, dtype=torch.long), 3), "prompt"),
    "a negative temperature": (lambda: CausalLM(11).generate(ids(1, 2), 3, temperature=-1.0), "temperature"),
    "draws with beams": (lambda: CausalLM(11).generate(ids(1, 2), 3, temperature=1.0, beams=2), "with beams=2"),
    "no beam at all": (lambda: CausalLM(11).generate(ids(1, 2), 3, beams=0), "beams=0"),
    "an end that is no id": (lambda: CausalLM(11).generate(ids(1, 2), 3, end=11), "end=11"),
    "an end of beams that is no id": (lambda: CausalLM(11).generate(ids(1, 2), 3, end=11, beams=2), "end=11"),
    "an id to leave out that is none": (lambda: CausalLM(11).generate(ids(1, 2), 3, never=-1), "never=-1"),
    "an end never to be written": (lambda: CausalLM(11).generate(ids(1, 2), 3, end=4, never=4), "end=4, never=4"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_named(wrong):
    call, words = WRONG[wrong]
    with pytest.raises(ValueError, match=words):
        call()


def test_a_connection_drops_parts_of_its_branch_in_training():
    connection, x = Residual(8, dropout=0.5), torch.zeros(16, 8)
    assert connection.around(x, torch.ones_like).unique().tolist() == [0.0, 2.0]
    assert connection.eval().around(x, torch.ones_like).unique().tolist() == [1.0]


class LastBranch(Residual):
    """A connection that also adds the branch of the layer before: enough to see whether its carry finds its way."""

    def add(self, x, branch, carry):
        return x + branch + (0 if carry is None else carry), branch


def test_a_connection_s_carry_runs_through_the_depth_in_both_forms():
    stack = Stack(["linear"] * 3, 16, 2, is_causal=True, residual=LastBranch).double().eval()
    plain = Stack(["linear"] * 3, 16, 2, is_causal=True).double().eval()
    x = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, carries = stack(x)
    assert set(carries) == {"residual-self"} and not torch.allclose(y, plain(x)[0])
    states, steps = stack.init_state(2), []
    for t in range(5):
        y_t, states = stack.step(x[:, t], states)
        steps.append(y_t)
    torch.testing.assert_close(torch.stack(steps, 1), y)


def test_a_decoder_goes_on_with_the_joint_chains_only():
    model = EncoderDecoder(11, attention="luna", num_layers=1, **SMALL)
    model.encoder.blocks[0].self_residual.__class__ = LastBranch
    assert set(model.encode(ids(2, 8))[1]) == {"luna"}


# ---- Decoding: steps without a network -------------------------------------------------------------------------------


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


def plain_beams(step, state, start, length, beams, end, never, penalty):
    """Beam search with lists, one row, in its plainest form: (score, tokens written)."""
    beam = [((), 0.0, state, start, False)]
    for _ in range(length):
        grown = []
        for written, total, own, token, done in beam:
            if done:
                grown.append((written, total, own, token, True))
                continue
            logits, after = step(torch.tensor([token]), own)
            for t, log_p in enumerate(logits.log_softmax(-1)[0].tolist()):
                if t != never:
                    grown.append(((*written, t), total + log_p, after, t, t == end))
        beam = sorted(grown, key=lambda h: -h[1] / len(h[0]) ** penalty)[:beams]
        if all(h[4] for h in beam):
            break
    return max((h[1] / len(h[0]) ** penalty, h[0]) for h in beam)


@pytest.mark.parametrize("never", [None, 3])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("beams", [1, 2, 3])
def test_beams_are_those_of_plain_lists(beams, penalty, never):
    firsts, sums = torch.tensor([[0], [1], [3]]), torch.tensor([0, 2, 1])
    options = {"beams": beams, "end": 2, "never": never, "length_penalty": penalty}
    for seed in range(20):
        step, lengths = chain(5, seed), []
        tokens, scores = decoding.beam_search(step, {"sum": sums}, firsts, 7, **options)
        for row in range(3):
            first, state = firsts[row].item(), {"sum": sums[[row]]}
            score, best = plain_beams(step, state, first, 7, beams, 2, never, penalty)
            found = tokens[row, 1:].tolist()
            assert scores[row].item() == pytest.approx(score)
            assert tuple(found[: len(best)]) == best and set(found[len(best) :]) <= {2}
            lengths.append(len(best))
        assert tokens.shape[1] == 1 + max(lengths), "no column that holds nothing but ends"
        assert beams == 1 or torch.equal(decoding.generate(step, {"sum": sums}, firsts, 7, **options), tokens)


@pytest.mark.parametrize("never", [None, 3])
def test_greedy_writes_end_after_the_end_and_stops(never):
    stopped, firsts, sums = 0, torch.tensor([[0], [1], [3]]), torch.tensor([0, 2, 1])
    for seed in range(30):
        step, rows = chain(4, seed), []
        for row in range(3):
            written, token, state = [], firsts[row], {"sum": sums[[row]]}
            while len(written) < 12 and 2 not in written:
                logits, state = step(token, state)
                token = max((t for t in range(4) if t != never), key=logits[0].tolist().__getitem__)
                written.append(token)
                token = torch.tensor([token])
            rows.append(written)
        width = max(map(len, rows))
        stopped += width < 12
        tokens = decoding.generate(step, {"sum": sums}, firsts, 12, end=2, never=never)
        assert tokens[:, 1:].tolist() == [row + [2] * (width - len(row)) for row in rows]
    assert stopped


def test_temperature_is_a_divisor():
    logits = torch.tensor([[0.0, 1.0]]).expand(4000, 2)
    for temperature in (0.5, 2.0):
        drawn = decoding.choose(logits, temperature, torch.Generator().manual_seed(0)).float().mean().item()
        assert drawn == pytest.approx(torch.tensor(1 / temperature).sigmoid().item(), abs=0.03)


@pytest.mark.parametrize("beams", [1, 2])
def test_nothing_to_write_and_nobody_to_write_for(beams):
    start, options = ids(3, 2), {"beams": beams, "end": 2}
    assert torch.equal(decoding.generate(chain(11, 0), {"sum": ids(3, 1)[:, 0]}, start, 0, **options), start)
    nothing = decoding.beam_search(chain(11, 0), {"sum": ids(3, 1)[:, 0]}, start, 0, beams=beams, length_penalty=1.0)
    assert torch.equal(nothing[0], start) and nothing[1].tolist() == [0.0] * 3
    assert decoding.generate(chain(11, 0), {"sum": ids(0, 1)[:, 0]}, start[:0], 4, **options).shape[0] == 0


def test_scores_of_half_precision_are_summed_in_single():
    exact, start, state = chain(50, 0), torch.zeros(1, 1, dtype=torch.int64), {"sum": torch.zeros(1, dtype=torch.int64)}

    def half(token, state):
        logits, state = exact(token, state)
        return logits.bfloat16(), state

    tokens, score = decoding.beam_search(half, state, start, 60, beams=4)
    wanted = 0.0
    for token, following in zip(tokens[0, :-1], tokens[0, 1:], strict=True):
        logits, state = half(token[None], state)
        wanted += logits.double().log_softmax(-1)[0, following].item()
    assert score.dtype == torch.float32 and score.item() == pytest.approx(wanted, rel=1e-5)
