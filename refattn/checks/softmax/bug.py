"""Lesson 01, find the bug: a padding mask that hides the wrong axis, and leaves 0/0 behind."""

import torch
from torch.nn import functional as F

from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.softmax import answers


def padded_last(value=90):
    """Three indifferent tokens with values 2, 4 and `value`; the last is padding."""
    zeros = torch.zeros(1, 1, 3, 2)
    return zeros, zeros, rows([2], [4], [value])[None, None], torch.tensor([[False, False, True]])


def padded_batch(queries=4):
    """Sequences of 4 and of 2 real tokens."""
    mask = torch.tensor([[False] * 4, [False, False, True, True]])
    return seeded(2, 2, queries, 3), seeded(2, 2, 4, 3, seed=1), seeded(2, 2, 4, 5, seed=2), mask


def all_padded():
    """A sequence of length 0 beside one of length 2."""
    q, k, v = (seeded(2, 1, 2, 3, seed=i) for i in range(3))
    return q, k, v, torch.tensor([[True, True], [False, False]])


def three(run, value=90):
    return show(run(*padded_last(value))[0, 0, :, 0])


def fact_padding_heard(run):
    if not equal([run(*padded_last(90))[:, :, :2]], [run(*padded_last(9))[:, :, :2]]):
        return (
            f"Values 2, 4 and a padded 90: your outputs are {three(run)}. With a padded 9 they are {three(run, 9)}: "
            "padding is heard."
        )


def fact_empty(run):
    return f"A sequence of padding only must return [0, 0, 0]; you return {show(run(*all_padded())[0, 0, 0])}"


def fact_cut(run):
    q, k, v, mask = all_padded()
    if not run(q, k, v.requires_grad_(), mask).requires_grad:
        return "Every output is right, but none remembers the values it was made of: nothing could be trained."


def fact_gradient(run):
    q, k, v, mask = all_padded()
    leaves = [t.requires_grad_() for t in (q, k, v)]
    run(*leaves, mask).sum().backward()
    bad = {
        name: int(leaf.grad.isnan().sum()) for name, leaf in zip("qkv", leaves, strict=True) if leaf.grad is not None
    }
    if any(bad.values()):
        found = ", ".join(f"{count} in {name}" for name, count in bad.items() if count)
        return f"Every output is right, but one empty sequence puts NaN into the gradient: {found}."


def fact_torch(run):
    q, k, v, mask = padded_batch()
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=~mask[:, None, None, :])
    error = (run(q, k, v, mask) - wanted).abs().max().item()
    if not error < 1e-4:
        return f"You differ from torch's scaled_dot_product_attention by {error:.2g}."


padded_attention = Exercise(
    "softmax.padded_attention",
    answers.padded_attention,
    returns="attended values [B, H, N, d_v]",
    probes=(
        Probe("Zero queries, values 2, 4 and a padded 90: the mean of what is real is 3 for each token.", padded_last),
        Probe("Two sequences, of 4 and of 2 real tokens.", padded_batch),
        Probe("A sequence of padding only: nothing to see, so zero.", all_padded),
    ),
    variants=(
        Variant(
            "queries masked",
            answers.padded_attention_queries,
            lambda run: f"Values 2, 4 and a padded 90: your outputs are {three(run)}; the first two should be 3.",
            """A sequence without padding is right. With it, the real tokens still hear the 90, and the padded one has
            nothing left to share out, 0/0. The mask hides who asks; it should hide who answers.
            Try: the logits are [B, H, N, M]. Along which axis lie the keys, and where is the mask put now?""",
        ),
        Variant(
            "mask inverted",
            answers.padded_attention_inverted,
            lambda run: f"Values 2, 4 and a padded 90: your outputs are {three(run)}: only padding is heard.",
            """The mask acts on the right axis, and rows sum to one. True means *ignore* here; in torch's own
            scaled_dot_product_attention it means *take part*.
            Try: read the two conventions aloud, and put one ~ in its place.""",
        ),
        Variant(
            "no number for an empty sequence",
            answers.padded_attention_blind,
            lambda run: f"{fact_empty(run)}.",
            """Wherever a real key exists you are right: keys are masked, not queries. A row of -inf has no largest
            entry, and e^(-inf)/0 is not a number. It would spread to every weight at the first backward step.
            Try: use a finite floor for the logits. What does that row return then, and what should it?""",
        ),
        Variant(
            "padding for an empty sequence",
            answers.padded_attention_floor,
            lambda run: f"{fact_empty(run)}, which is the mean of its padding.",
            """Wherever a real key exists you are right, and no NaN appears. But equal logits, however low, share out
            the 1 among padded keys: softmax sees only differences.
            Try: after the softmax, what is the weight of a padded key when a real one exists, and when none does?""",
        ),
        Variant(
            "logits zeroed",
            answers.padded_attention_zeroed_logits,
            fact_padding_heard,
            """Right axis, rows sum to one. But a logit of 0 is an average key, of weight e⁰ = 1 before it is shared.
            Try: which logit has exponential zero, or as good as?""",
        ),
        Variant(
            "values zeroed",
            answers.padded_attention_zeroed_values,
            lambda run: f"Values 2, 4 and a padded 90: your outputs are {three(run)}, and 3 is the mean of 2 and 4.",
            """The 90 is gone, so nothing leaks. But its key still takes its share of the 1, and everything shrinks
            with the amount of padding.
            Try: print a row of weights. Which of them should be 0, and what should the rest sum to?""",
        ),
        Variant(
            "no mask",
            answers.padded_attention_unmasked,
            fact_padding_heard,
            """A sequence without padding is right. The mask is not used.
            Try: what is the smallest change that makes a padded key's weight zero?""",
        ),
    ),
    properties=(
        Property(
            "padding is not heard",
            fact_padding_heard,
            """A padded key has weight 0.
            Try: change the padded value.""",
        ),
        Property(
            "outputs can be differentiated",
            fact_cut,
            """Autograd follows tensors, as long as nothing takes them out of its sight.
            Try: look for .detach(), .data, .item(), .numpy() or no_grad.""",
            ALMOST,
        ),
        Property(
            "gradients are numbers",
            fact_gradient,
            """Forward, NaN was replaced. Backward, the chain rule still walks through the 0/0, and 0 · NaN is NaN.
            Try: keep the 0/0 from arising: give the row a finite floor, and zero its weights behind the softmax.""",
            ALMOST,
        ),
    ),
    numbers=(
        Property(
            "it equals torch's kernel",
            fact_torch,
            """Eq. 2 over real keys.
            Try: compare the second sequence.""",
        ),
    ),
    hints=(
        "Two faults, one behind the other. Print the weights of the 2, 4, 90 example, then those of padding alone.",
        "key_padding_mask[:, None, None, :] lies along the keys. torch.finfo(dtype).min instead of -inf, and after the "
        "softmax .masked_fill(hidden, 0.0).",
    ),
    passed="""Padding has weight 0, an empty sequence returns zeros, and its gradient holds no NaN.
    Next: padded queries still get an output here. Who must not read it?""",
)
