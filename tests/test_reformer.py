"""Reformer beyond the invariants table: its lists by hand, exact cases, buckets, rounding, memory."""

import itertools

import pytest
import torch

from refattn import attention, measure
from refattn.attention import hashing, reformer, softmax


def heads(tokens, *, batch=1, d=4, hashes=2, buckets=4, dtype=torch.float64, seed=0):
    """qk and v [B, 2, N, d], and buckets [B, 2, R, N]."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(batch, 2, tokens, d, generator=generator, dtype=torch.float64)  # noqa: E731
    qk, v = draw(), draw()
    rotations = hashing.random_rotations(d, hashes, buckets, generator)
    return qk.to(dtype), v.to(dtype), hashing.hash_buckets(qk, rotations)


def by_hand(qk, v, buckets, *, chunk, is_causal, attend_across_buckets, allow_duplicates):
    """One sequence and head, entry by entry, each round normalised by itself as in the paper: [N, d]."""
    tokens, hashes = len(qk), len(buckets)
    ring = []
    for r in range(hashes):
        order = sorted(range(tokens), key=lambda i: (buckets[r, i].item(), i))  # noqa: B023
        ring += [(r, order[start : start + chunk]) for start in range(0, tokens, chunk)]
    met = {}  # (round, i) → the entries (round, j) that it meets
    for c, (r, own) in enumerate(ring):
        for i in own:
            met[r, i] = [(number, j) for number, listed in (ring[c], ring[c - 1]) for j in listed]
            if not attend_across_buckets:
                same = lambda number, j: number == r and buckets[r, j] == buckets[r, i]  # noqa: B023, E731
                met[r, i] = [entry for entry in met[r, i] if same(*entry)]
    y = torch.zeros_like(v)
    for i in range(tokens):
        count = lambda j: sum(j == other for r in range(hashes) for _, other in met[r, i])  # noqa: B023, E731
        outputs, normalisers = [], []
        for r in range(hashes):
            js = [j for _, j in met[r, i] if not (is_causal and j > i)]
            dots = torch.stack([qk[i] @ qk[j] / qk[j].norm() / 2 if j != i else qk.new_tensor(-5e4) for j in js])
            if not allow_duplicates:
                dots = dots - torch.tensor([count(j) for j in js]).double().log()
            outputs.append(dots.softmax(0) @ v[js])
            normalisers.append(dots.logsumexp(0))
        y[i] = torch.stack(normalisers).softmax(0) @ torch.stack(outputs)
    return y


@pytest.mark.parametrize("tokens", [1, 3, 8, 11])
@pytest.mark.parametrize(("hashes", "count"), [(1, 4), (2, 4), (3, 4), (1, 1), (2, 1)])
def test_attention_is_the_paper_s_rounds_entry_by_entry(tokens, hashes, count):
    """Rounds that end in an incomplete chunk and first chunks that look back at it; also in one bucket."""
    qk, v, buckets = heads(tokens, hashes=hashes)
    buckets = buckets % count
    for choice in itertools.product([False, True], repeat=3):
        options = dict(zip(("is_causal", "attend_across_buckets", "allow_duplicates"), choice, strict=True), chunk=3)
        found = reformer.lsh_attention(qk, v, buckets, **options)
        wanted = torch.stack([by_hand(*(t[0, h] for t in (qk, v, buckets)), **options) for h in range(2)])
        torch.testing.assert_close(found[0], wanted, rtol=1e-9, atol=1e-10, msg=str(options))
        twin = reformer.lsh_attention_explicit(qk, v, buckets, **options)
        torch.testing.assert_close(twin[0], wanted, rtol=1e-9, atol=1e-10, msg=str(options))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("tokens", [7, 8])
def test_two_chunks_in_one_round_are_full_attention_without_self(is_causal, tokens):
    qk, v, buckets = heads(tokens, hashes=1)
    found = reformer.lsh_attention(qk, v, buckets, chunk=4, is_causal=is_causal, attend_across_buckets=True)
    allow = ~torch.eye(tokens, dtype=torch.bool)
    k = qk / qk.norm(dim=-1, keepdim=True)
    wanted = softmax.softmax_attention_explicit(qk, k, v, allow=allow, is_causal=is_causal)
    if is_causal:
        wanted[:, :, 0] = v[:, :, 0]  # the first token has only itself
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_token_that_meets_nobody_reads_itself_exactly_in_float32_too():
    qk, v, _ = heads(6, dtype=torch.float32)
    buckets = torch.arange(6).expand(1, 2, 2, 6)  # a bucket each
    y = reformer.lsh_attention(qk, v, buckets, chunk=2)
    torch.testing.assert_close(y, v, rtol=0, atol=0)


def test_opposite_vectors_are_in_opposite_buckets_and_length_does_not_matter():
    qk, _, buckets = heads(50, buckets=6)
    generator = torch.Generator().manual_seed(3)
    rotations = hashing.random_rotations(4, 2, 6, generator)
    buckets = hashing.hash_buckets(qk, rotations)
    assert buckets.min() == 0 and buckets.max() == 5
    assert torch.equal(hashing.hash_buckets(-qk, rotations), (buckets + 3) % 6)
    assert torch.equal(hashing.hash_buckets(100 * qk, rotations), buckets)


def test_more_rounds_find_more_of_the_true_weights():
    """The share of shared-QK softmax attention on pairs that meet in some round, against chance at equal density."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 16, generator=generator)
    qk = (3 * centres.repeat(32, 1) + 0.5 * torch.randn(256, 16, generator=generator))[None, None]
    weights = softmax.softmax_weights(qk, qk / qk.norm(dim=-1, keepdim=True), allow=~torch.eye(256, dtype=torch.bool))
    shares = []
    for hashes in (1, 4, 8):
        rotations = hashing.random_rotations(16, hashes, 16, torch.Generator().manual_seed(1))
        met = hashing.meetings(hashing.hash_buckets(qk, rotations), 64) > 0
        share, density = weights[met].sum() / 256, met.float().mean()
        assert share > 1.5 * density
        shares.append(share)
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("allow_duplicates", [False, True])
def test_bfloat16_agrees_where_buckets_do(allow_duplicates):
    qk, v, buckets = heads(200, batch=2, hashes=3)
    options = {"chunk": 16, "allow_duplicates": allow_duplicates, "is_causal": True}
    wanted = reformer.lsh_attention(qk, v, buckets, **options)
    found = reformer.lsh_attention(qk.bfloat16(), v.bfloat16(), buckets, **options)
    assert found.dtype == torch.bfloat16
    assert (found.double() - wanted).norm() / wanted.norm() < 0.01


@pytest.mark.parametrize("is_causal", [False, True])
def test_memory_is_linear_in_the_length(is_causal):
    layer = attention.build("reformer", 32, 2, num_hashes=2, is_causal=is_causal)
    kept = {n: measure.saved_bytes(lambda: layer(torch.randn(1, n, 32))[0]) for n in (1024, 2048)}  # noqa: B023
    assert kept[2048] < 2.1 * kept[1024]


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_the_twin_and_survive_compilation(masked):
    """Masks and maxima are written in place behind autograd's back: only legal while it loses nothing by it."""
    options = {"chunk": 4, "is_causal": True}
    if masked:
        options["key_padding_mask"] = torch.arange(21)[None] >= 17
    found = []
    compiled = torch.compile(reformer.lsh_attention, fullgraph=True, backend="aot_eager")
    for function in (reformer.lsh_attention_explicit, reformer.lsh_attention, compiled):
        qk, v, buckets = heads(21)
        y = function(qk.requires_grad_(), v.requires_grad_(), buckets, **options)
        found.append(torch.autograd.grad(y.square().sum(), (qk, v)))
    for gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0], rtol=1e-9, atol=1e-10)


def test_a_zero_vector_has_a_finite_gradient():
    qk, v, buckets = heads(8, dtype=torch.float32)
    qk[:, :, 3] = 0.0
    reformer.lsh_attention(qk.requires_grad_(), v, buckets, chunk=4, attend_across_buckets=True).sum().backward()
    assert qk.grad.abs().max() < 10


def test_hashed_padding_moves_the_borders_of_chunks_and_sorted_padding_does_not():
    qk, v, buckets = heads(24, seed=2)
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:, ::3] = True
    real = ~mask[0]
    options = {"chunk": 4, "attend_across_buckets": True}
    alone = reformer.lsh_attention(qk[:, :, real], v[:, :, real], buckets[..., real], **options)
    for hash_padding, same in ((False, True), (True, False)):
        options["hash_padding"] = hash_padding
        y = reformer.lsh_attention(qk, v, buckets, key_padding_mask=mask, **options)
        assert torch.allclose(y[:, :, real], alone, rtol=1e-9) == same
        assert not y[:, :, ~real].any()


def test_maps_show_what_is_read_and_in_which_order():
    torch.manual_seed(0)
    layer = attention.build("reformer", 8, 2, chunk=4, num_buckets=4, num_hashes=2).double()
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    maps = layer.attention_maps(x)
    torch.testing.assert_close(layer.projections.merge(maps["effective"] @ layer.parts(x)[1]), layer(x)[0])
    assert torch.equal(maps["order"].sort(-1).values, torch.arange(11).expand(2, 2, 2, 11))
    assert (maps["buckets"].gather(-1, maps["order"]).diff(dim=-1) >= 0).all()
    assert (maps["met"].sum(-1) <= 2 * 2 * 4).all(), "at most 2 m keys a round"


def test_rotations_are_kept_until_they_are_redrawn_from_a_seed():
    layer, other = (attention.build("reformer", 8, 2, seed=seed) for seed in (1, 2))
    assert "rotations" in layer.state_dict()
    before = layer.rotations.clone()
    other.redraw(1)
    torch.testing.assert_close(other.rotations, before, rtol=0, atol=0)
    layer.redraw(3)
    assert not torch.equal(layer.rotations, before)


def test_queries_and_keys_are_one_projection():
    layer = attention.build("reformer", 8, 2)
    assert measure.count_parameters(layer) == 3 * (8 * 8 + 8)


MISTAKES = {"chunk=0": {"chunk": 0}, "num_buckets=5": {"num_buckets": 5}, "num_hashes=0": {"num_hashes": 0}}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_option_is_named(words):
    with pytest.raises(ValueError, match=words):
        attention.build("reformer", 8, 2, **MISTAKES[words])
