"""Lesson 10, stretch: sequences of different lengths in one batch, with as many slots as tokens."""

import torch

from refattn.attention.luna import pack, unpack
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.luna import answers


def at_real_positions(attempt):
    """An attempt with zeros where a query is padding: whatever it returns there, nobody reads."""

    def run(x, p, lengths):
        y = attempt(x, p, lengths)
        if not torch.is_tensor(y) or y.shape != x.shape:
            return y
        return y.masked_fill((torch.arange(x.shape[1]) >= lengths[:, None])[:, :, None], 0.0)

    return run


def one_sequence():
    """Tokens 2, 4 and a padded 90; three slots that ask nothing."""
    return rows([2], [4], [90])[None], rows([0], [0], [0]), torch.tensor([2])


def batch(*lengths, slots=4, width=3, longest=None):
    return seeded(len(lengths), longest or max(lengths), width), seeded(slots, width, seed=1), torch.tensor(lengths)


def three(run):
    y = show(run(*one_sequence())[0, :2, 0])
    return f"Tokens 2, 4 and a padded 90, slots that ask nothing: both real tokens become 3; you return {y}"


def fact_alone(run, lengths=(6, 2, 1)):
    """The first sequence that is another one alone, un-padded, with min(l, length) slots."""
    together = run(*batch(*lengths))
    for i, n in enumerate(lengths):
        x, p, _ = batch(*lengths)
        alone = run(x[i : i + 1, :n], p[: min(len(p), n)], torch.tensor([n]))[0]
        if not equal([together[i, :n]], [alone]):
            return (
                f"Lengths {', '.join(map(str, lengths))} and four slots: token 1 of the sequence of length {n} is "
                f"{show(together[i, 0])} in the batch, and {show(alone[0])} alone, without padding and with "
                f"{min(len(p), n)} of the slots."
            )


def fact_padding_heard(run):
    x, p, lengths = batch(5, 2)
    changed = x.clone()
    changed[1, 2:] += 10.0
    before, after = run(x, p, lengths)[1, 0], run(changed, p, lengths)[1, 0]
    if not equal([before], [after]):
        return f"Length 2 of 5: padding was changed by 10, and token 1 went from {show(before)} to {show(after)}."


def fact_package(run):
    x, p, lengths = batch(7, 3, 5, slots=4, width=8)
    padded, unused = torch.arange(7) >= lengths[:, None], torch.arange(4) >= lengths[:, None]
    tokens, slots = x[:, None], p.expand(3, 1, 4, 8)  # one head
    y_p = pack(slots, tokens, tokens, key_padding_mask=padded)
    y = unpack(tokens, y_p, y_p, slot_mask=unused)[:, 0].masked_fill(padded[:, :, None], 0.0)
    error = (run(x, p, lengths) - y).abs().max().item()
    if not error < 1e-4:
        return f"Lengths 7, 3, 5 and four slots: you differ from refattn.attention.luna by {error:.2g}."


padded_batch = Exercise(
    "luna.padded_batch",
    answers.padded_batch,
    returns="Y_X [B, N, D]",
    adapt=at_real_positions,
    probes=(
        Probe(
            "Tokens 2, 4 and a padded 90, slots that ask nothing: both real tokens become 3; what the padded one "
            "becomes is not looked at, and shown as 0.",
            one_sequence,
        ),
        Probe("Lengths 5 and 2, four slots, D = 3.", lambda: batch(5, 2)),
        Probe("Lengths 3 and 2, but four slots: nobody may use the last.", lambda: batch(3, 2)),
        Probe("Lengths 2 and 1 in a batch of 5 positions.", lambda: batch(2, 1, longest=5)),
    ),
    variants=(
        Variant(
            "no mask",
            answers.padded_batch_unmasked,
            lambda run: f"{three(run)}, and 32 is the mean of 2, 4 and 90.",
            """Without padding, and with at least as many tokens as slots, every number is right. The lengths are not
            used yet.
            Try: who reads tokens here, and who reads slots? Each of the two needs to be told whom to leave out.""",
        ),
        Variant(
            "pack masked only",
            answers.padded_batch_pack_only,
            fact_alone,
            """Padding is not packed, and a sequence with at least as many tokens as slots is right. A shorter one has
            slots that it should not have, and unpack still reads them: full of real tokens, but not there when it is
            alone.
            Try: print the weights that unpack gives the four slots, for a sequence of two tokens.""",
        ),
        Variant(
            "slots cut for the longest only",
            answers.padded_batch_longest,
            lambda run: fact_alone(run, (3, 2)),
            """Padding is not packed, and the longest sequence has as many slots as it has tokens. The shorter ones
            still read the longest one's slots: who shares their batch decides what they are.
            Try: each sequence has a number of slots of its own. Can a cut p[:n] say that? Can a mask [B, l]?""",
        ),
        Variant(
            "slots masked only",
            answers.padded_batch_slots_only,
            lambda run: f"{three(run)}.",
            """Every sequence reads min(l, length) slots, as it should. But pack read the padding: 32 is the mean of 2,
            4 and 90.
            Try: along which axis of the pack logits [B, l, N] lie the tokens?""",
        ),
        Variant(
            "logits set to zero",
            answers.padded_batch_zero_logits,
            fact_padding_heard,
            """Both masks are there, on the right axes. But a logit of 0 is not silence: e⁰ = 1, an average key.
            Try: which logit has exponential zero?""",
        ),
        Variant(
            "tokens set to zero",
            answers.padded_batch_zero_context,
            lambda run: f"{three(run)}, and 2 is the mean of 2, 4 and 0.",
            """The 90 is gone, and slots are masked. But a token of zeros is a token: its logit is 0, and it takes its
            share of the 1.
            Try: sum the pack weights of one slot over real tokens only.""",
        ),
        Variant(
            "slots set to zero",
            answers.padded_batch_zero_slots,
            fact_alone,
            """Padding is not packed. Unused slots hold zeros, but unpack still asks them: a key of zeros has logit 0,
            and takes its share of the 1.
            Try: sum the unpack weights of one token over the slots that its sequence may use.""",
        ),
        Variant(
            "one slot too many",
            answers.padded_batch_one_slot_more,
            fact_alone,
            """Both masks are there, with -inf, on the right axes. A sequence of n tokens may use slots 0 … n - 1; yours
            uses slot n too.
            Try: print your slot mask for length 2. How many False has it?""",
        ),
    ),
    properties=(
        Property("padding is not heard", fact_padding_heard, "A padded token has weight 0. Try: change one."),
        Property("a batch changes nothing", fact_alone, "Each sequence for itself. Try: a batch of one."),
    ),
    numbers=(Property("it equals refattn", fact_package, "Eqs. 1 and 2, masked. Try: compare Y_P first."),),
    hints=(
        "Two masks, one a softmax: which tokens may a slot of this sequence read, and which slots may its tokens read?",
        """padded = arange(N) >= lengths[:, None], [B, N], goes onto the pack logits [B, l, N] as padded[:, None, :];
        unused = arange(l) >= lengths[:, None], [B, l], onto the unpack logits [B, N, l] as unused[:, None, :]; both
        with masked_fill(…, -torch.inf), before the softmax.""",
    ),
    passed="""Padding is not heard, and every sequence gets in the batch what it gets alone, from as many slots as it
    has tokens, l at most.
    Next: a sequence of length 0 in the batch. Which of the two softmaxes has nothing left to share out?""",
)
