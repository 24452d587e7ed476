"""Writing a sequence token by token: the likeliest token, draws, or several hypotheses at once (beam search).

A model takes part by one function and one state, made from whatever it has read:

    step(token [B], state) → (logits [B, V], state)        logits for the token after this one

A state is made of tensors whose first axis is the batch (in dicts, lists and tuples, in any depth), so that rows can be
chosen anew: `select`. What else it holds is the same for all rows, such as the number of tokens so far, an int. A cache
of keys and values is such a state, a recurrence's sums are, and where a model has neither, the tokens so far:
`rereading`.
"""

import torch
from torch.utils._pytree import tree_map

from refattn.attention.base import working_dtype


def select(state, rows):
    """The state of these rows of the batch, [R] indices, in this order; a row may be taken more than once.

    Whatever is no tensor is left as it is.
    """
    return tree_map(lambda part: part[rows] if torch.is_tensor(part) else part, state)


def rereading(read, context, like):
    """(step, first state) for a model without a step form: the whole prefix is read again for every token.

    Args: read: (ids [B, t], context) → logits [B, t, V].  context: a state that stays (the encoded source, say).
        like: a tensor with B rows, on the device of the ids.
    """

    def step(token, state):
        tokens = torch.cat([state["tokens"], token[:, None]], 1)
        return read(tokens, state["context"])[:, -1], state | {"tokens": tokens}

    empty = torch.zeros(len(like), 0, dtype=torch.int64, device=like.device)
    return step, {"tokens": empty, "context": context}


def choose(logits, temperature, generator):
    """One token per row of logits [B, V], as [B, 1]: the likeliest at temperature 0, else a draw."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)


def without(scores, never):
    """Scores [..., V] with −∞ for the id `never`; None: as they are."""
    if never is None:
        return scores
    return scores.masked_fill(torch.arange(scores.shape[-1], device=scores.device) == never, -torch.inf)


def read_prompt(step, state, tokens, end=None, never=None):
    """Logits [B, V] after the last of tokens [B, N], in float32 at least, and the state.

    Raises: ValueError for an empty prompt, or unless `end` and `never` are two ids of the V (or None).
    """
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        raise ValueError(f"the prompt has shape {tuple(tokens.shape)}: wanted [B, N] with at least one token")
    for token in tokens.unbind(1):
        logits, state = step(token, state)
    for name, number in (("end", end), ("never", never)):
        if number is not None and not 0 <= number < logits.shape[-1]:
            raise ValueError(f"{name}={number}: wanted an id from 0 to {logits.shape[-1] - 1}")
    if end is not None and end == never:
        raise ValueError(f"end={end}, never={never}: wanted an end that may be written")
    return logits.to(working_dtype(logits)), state


@torch.no_grad()
def generate(
    step,
    state,
    tokens,
    length,
    *,
    beams=1,
    end=None,
    never=None,
    temperature=0.0,
    generator=None,
    length_penalty=0.0,
):
    """Continue tokens [B, N] by at most `length` tokens: greedily, by draws (temperature above 0), or by beam search.

    Args: end: id that ends a sequence; what follows it is `end` again, and nothing is written once all have ended.
        never: id that is not written, whatever its logit (padding, say).
        beams, length_penalty: see `beam_search`; one beam is greedy, or draws.
    Returns: ids [B, N + length], or fewer.
    Raises: ValueError for an empty prompt, a negative length or temperature, a temperature with beams, or an `end` or
        `never` that is no id.
    """
    if temperature < 0 or length < 0:
        raise ValueError(f"length={length}, temperature={temperature}: wanted 0 or more")
    if beams != 1:
        if temperature:
            raise ValueError(f"temperature={temperature} with beams={beams}: wanted one or the other")
        search = {"beams": beams, "end": end, "never": never, "length_penalty": length_penalty}
        return beam_search(step, state, tokens, length, **search)[0]
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    read = tokens
    for _ in range(length):
        logits, state = read_prompt(step, state, read, end, never)
        read = choose(without(logits, never), temperature, generator)  # [B, 1]
        if end is not None:
            read = torch.where(ended[:, None], end, read)
            ended = ended | (read[:, 0] == end)
        tokens = torch.cat([tokens, read], 1)
        if end is not None and bool(ended.all()):
            break
    return tokens


@torch.no_grad()
def beam_search(step, state, tokens, length, *, beams=5, end=None, never=None, length_penalty=0.0):
    """Continue tokens [B, N] by the best of the sequences that a beam of `beams` hypotheses finds.

    score = Σ log p(token)  /  (number of tokens written)^length_penalty        the token `end` among them

    A hypothesis that has ended stays in the beam with its score, and leaves it only for better ones. With one beam this
    is `generate`; with as many beams as there are sequences it finds the best of all. Hypotheses with the id `never`
    are dropped; p of the others stays the model's.

    Returns: ids [B, N + length] or fewer (after `end`: `end` again), and scores [B], float32 for half types.
    Raises: ValueError for an empty prompt, numbers that are too small, or an `end` or `never` that is no id.
    """
    if beams < 1 or length < 0 or length_penalty < 0:
        wanted = "1 or more, 0 or more, 0 or more"
        raise ValueError(f"beams={beams}, length={length}, length_penalty={length_penalty}: wanted {wanted}")
    batch, prompt = tokens.shape[0], tokens.shape[1]
    logits, state = read_prompt(step, state, tokens, end, never)
    first_row = torch.arange(batch, device=tokens.device)[:, None] * beams  # [B, 1]: where a sequence's beams begin
    rows = torch.arange(batch, device=tokens.device).repeat_interleave(beams)  # a beam each, all alike so far
    tokens, state, logits = tokens[rows], select(state, rows), logits[rows]
    total = logits.new_full((batch, beams), -torch.inf)  # Σ log p
    total[:, 0] = 0.0  # of equal beams one may grow, or all hypotheses would be the same
    ended = torch.zeros_like(total, dtype=torch.bool)
    written = torch.zeros_like(total)  # tokens after the prompt, the end included
    for place in range(length):
        steps = without(logits.log_softmax(-1), never).unflatten(0, (batch, beams))  # [B, K, V]
        parent, token, total, written, ended = grow(steps, total, written, ended, end, length_penalty)
        rows = (first_row + parent).flatten()
        tokens = torch.cat([tokens[rows], token.reshape(-1, 1)], 1)
        if end is not None and bool(ended.all()):
            break
        if place < length - 1:
            logits, state = read_prompt(step, select(state, rows), tokens[:, -1:])
    score = total / written.clamp(min=1.0) ** length_penalty
    winner = score.argmax(1)  # [B]
    tokens = tokens.unflatten(0, (batch, beams))[torch.arange(batch, device=tokens.device), winner]
    if end is not None:  # a batch goes on until all hypotheses have ended; the winners may have long before
        before_the_end = (tokens[:, prompt:] != end).any(0).sum().item()  # columns of which some row needs a token
        tokens = tokens[:, : prompt + before_the_end + 1]
    return tokens, score.amax(1)


def grow(steps, total, written, ended, end, length_penalty):
    """The K best of all continuations of K hypotheses by one token, with `beam_search`'s score.

    Args: steps: log p of every token [B, K, V].  total, written, ended: of each hypothesis [B, K] the sum of log p, the
        number of tokens, whether it has ended.  end: id of the end, or None.
    Returns: which hypothesis grew and by which token, and the new total, written and ended; all [B, K].
    """
    if end is not None:  # an ended hypothesis goes on as itself: by `end`, at no cost
        frozen = torch.full_like(steps[:1, :1], -torch.inf)
        frozen[..., end] = 0.0
        steps = torch.where(ended[..., None], frozen, steps)
    candidates, lengths = total[..., None] + steps, written + ~ended
    score = candidates / lengths[..., None] ** length_penalty
    best = score.flatten(1).topk(total.shape[1], dim=1).indices  # [B, K]
    parent, token = best // steps.shape[-1], best % steps.shape[-1]
    total, written, ended = candidates.flatten(1).gather(1, best), lengths.gather(1, parent), ended.gather(1, parent)
    return parent, token, total, written, ended if end is None else ended | (token == end)
