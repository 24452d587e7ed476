"""Who meets whom in Reformer: hashing, sorting, chunks. Integers only; nothing in this file has a gradient.

Eq. (1) and c of eq. (3) of `reformer.py`. A round's list holds the tokens sorted by (bucket, position), cut into C
chunks of m; the lists of all R rounds stand one behind the other, R·C chunks in a ring. A query meets the keys of its
own chunk and of the chunk before.

    hash_buckets        eq. (1)
    sort_tokens         every round's list
    with_chunk_before   anything in the list's order, with the chunk that each chunk looks back at
    hidden_pairs        pairs inside these two chunks that must not talk
    times_met           c of eq. (3); `meetings` for all pairs, `meetings_in_chunks` for those in the chunks
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from refattn.attention.base import working_dtype

BEYOND = 2**31 - 1  # the bucket of what must stand at the end of the list: padding


def random_rotations(head_dim, num_hashes, num_buckets, generator=None):
    """Ω of eq. (1), [d, R, n/2]: n/2 random directions a round; their opposites are the other half."""
    draw = torch.randn(head_dim, num_hashes, num_buckets // 2, generator=generator, dtype=torch.float64)
    return draw.to(torch.get_default_dtype())


@torch.no_grad()
def hash_buckets(qk, rotations):
    """Eq. (1): buckets 0 … n − 1 of qk [B, H, N, d] by Ω [d, R, n/2], as [B, H, R, N]. It has no gradient."""
    dtype = working_dtype(qk)
    projected = torch.einsum("bhnd,drk->bhrnk", qk.to(dtype), rotations.to(dtype))
    return torch.cat([projected, -projected], -1).argmax(-1)


class Rounds(NamedTuple):
    """All rounds' sorted lists, filled up to N' tokens, a multiple of m.

    order: which token stands at a place of the list;  place: where a token stands;  buckets: of tokens, in no order but
    their own; all [B, H, R, N'].  padded: [B or 1, 1, N'], tokens nobody may read, or None.
    last: the chunk of a round that the next round looks back at, [B or 1, 1, 1].
    """

    order: torch.Tensor
    place: torch.Tensor
    buckets: torch.Tensor
    padded: torch.Tensor | None
    last: torch.Tensor

    def place_in_all(self):
        """Where a token stands in the lists of all rounds, one behind the other, [B, H, R, N']."""
        hashes, tokens = self.place.shape[2:]
        return self.place + torch.arange(0, hashes * tokens, tokens, device=self.place.device)[:, None]


@torch.no_grad()
def sort_tokens(buckets, chunk, key_padding_mask=None, *, hash_padding=False):
    """Sort the tokens of every round by (bucket, position), padding last. buckets: [B, H, R, N]. Returns: `Rounds`."""
    tokens = buckets.shape[-1]
    short = -tokens % chunk
    padded, real = key_padding_mask, None
    if padded is not None and not hash_padding:
        buckets = buckets.masked_fill(padded[:, None, None], BEYOND)
        real = (~padded).sum(1)[:, None, None]
    if padded is None and short:
        padded = torch.zeros(1, tokens, dtype=torch.bool, device=buckets.device)
    if padded is not None:
        padded = F.pad(padded, (0, short), value=True)[:, None]
    buckets = F.pad(buckets, (0, short), value=BEYOND)
    order = buckets.argsort(dim=-1, stable=True)
    place = torch.empty_like(order).scatter_(
        -1, order, torch.arange(tokens + short, device=order.device).expand_as(order)
    )
    if real is None:
        real = torch.full((1, 1, 1), tokens, device=order.device)
    return Rounds(order, place, buckets, padded, (real.clamp(min=1) - 1) // chunk)


def times_met(query, key, last, attend_across_buckets):
    """c of eq. (3) for pairs of tokens, as small integers.

    Args:
        query, key: (chunks, buckets) of either side by round, first axis R, the others broadcastable to each other.
        last: as in `Rounds`, broadcastable too.
    """
    (query_chunks, query_buckets), (key_chunks, key_buckets) = query, key
    rounds, count = len(query_chunks), 0
    for r in range(rounds):
        own = query_chunks[r] == key_chunks[r]
        before = query_chunks[r] - 1 == key_chunks[r]
        if attend_across_buckets or rounds == 1:  # else the round before has no bucket in common with this one
            before = before | ((query_chunks[r] == 0) & (key_chunks[r - 1] == last))
        if not attend_across_buckets:
            same = query_buckets[r] == key_buckets[r]
            own, before = own & same, before & same
        count = count + own.to(torch.int8) + before.to(torch.int8)
    return count


def meetings(buckets, chunk, key_padding_mask=None, attend_across_buckets=False, hash_padding=False):
    """c of eq. (3) for all pairs, [B, H, N, N]: a token's place is the number of tokens before it, counted, not sorted.

    Args: as `sort_tokens` and `times_met`.
    """
    tokens = buckets.shape[-1]
    real = torch.tensor(tokens).expand(1, 1, 1, 1)
    if key_padding_mask is not None and not hash_padding:
        buckets = buckets.masked_fill(key_padding_mask[:, None, None], BEYOND)
        real = (~key_padding_mask).sum(1)[:, None, None, None]
    keys = buckets * tokens + torch.arange(tokens, device=buckets.device)
    chunks = (keys[..., None, :] < keys[..., :, None]).sum(-1) // chunk  # [B, H, R, N]
    chunks, buckets = chunks.movedim(2, 0), buckets.movedim(2, 0)
    query, key = (chunks[..., None], buckets[..., None]), (chunks[..., None, :], buckets[..., None, :])
    return times_met(query, key, (real.to(chunks.device).clamp(min=1) - 1) // chunk, attend_across_buckets)


def with_chunk_before(chunks, rounds):
    """Each chunk followed by the one it looks back at: [B, H, R·C, m, ...] to [B, H, R·C, 2m, ...]."""
    before = chunks.roll(1, 2)
    if rounds.padded is not None:  # a round may end before its list does
        count, number = chunks.shape[2] // rounds.order.shape[2], torch.arange(chunks.shape[2], device=chunks.device)
        ends = (number - count) % chunks.shape[2] + rounds.last[..., 0]
        index = torch.where(number % count == 0, ends, number - 1)  # [B or 1, R·C]
        index = index.reshape(len(index), 1, -1, *[1] * (chunks.dim() - 3)).expand_as(chunks)
        before = chunks.gather(2, index)
    return torch.cat([chunks, before], 3)


@torch.no_grad()
def hidden_pairs(rounds, chunk, is_causal, attend_across_buckets):
    """Pairs inside the chunks that must not talk, [B, H, R·C, m, 2m]; a token and itself among them."""
    position = rounds.order.flatten(2).unflatten(2, (-1, chunk))  # [B, H, R·C, m]
    before = with_chunk_before(position, rounds)
    query, key = position[..., None], before[..., None, :]
    hidden = key >= query if is_causal else key == query
    if not attend_across_buckets:
        number = torch.arange(rounds.order.shape[2], device=position.device)[:, None]
        buckets = rounds.buckets.gather(-1, rounds.order) * len(number) + number  # none in common between two rounds
        buckets = buckets.flatten(2).unflatten(2, (-1, chunk))
        hidden |= buckets[..., None] != with_chunk_before(buckets, rounds)[..., None, :]
    if rounds.padded is not None:
        padded = rounds.padded.expand(*before.shape[:2], -1).gather(2, before.flatten(2)).view_as(before)
        hidden |= padded[..., None, :]
    return hidden


@torch.no_grad()
def meetings_in_chunks(rounds, chunk, attend_across_buckets):
    """c of eq. (3) for the pairs inside the chunks, [B, H, R·C, m, 2m]."""
    flat = rounds.order.flatten(2)[:, :, None].expand(-1, -1, rounds.order.shape[2], -1)  # [B, H, R, R·N']
    sides = []
    for table in (rounds.place // chunk, rounds.buckets):
        entries = table.gather(3, flat).unflatten(3, (-1, chunk)).movedim(2, 0)  # [R, B, H, R·C, m]
        keys = torch.stack([with_chunk_before(by_round, rounds) for by_round in entries])
        sides.append((entries[..., None], keys[..., None, :]))
    query, key = zip(*sides, strict=True)
    return times_met(query, key, rounds.last[..., None, None], attend_across_buckets)
