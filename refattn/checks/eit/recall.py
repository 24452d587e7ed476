"""Lesson 14, stretch: weights by hand, so that one layer finds the token after the match."""

from functools import partial

import torch
from torch.nn import functional as F

from refattn.checks.compare import show
from refattn.checks.eit import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.data import associative_recall

NUM_KEYS, NUM_VALUES = 6, 5


def layer(ids, W_q, W_k, W_v, kernel, tap=None):
    """The value that a layer of one head with these weights answers, [B]; `tap`: the only weight of the kernel kept."""
    x = F.one_hot(ids, W_q.shape[1]).float()  # [B, N, D]
    W_q, W_k, W_v, kernel = (torch.as_tensor(t, dtype=torch.float32) for t in (W_q, W_k, W_v, kernel))
    if tap is not None:
        kernel = kernel * F.one_hot(torch.tensor(tap), 3)
    logits = (x[:, -1:] @ W_q.T) @ (x @ W_k.T).transpose(1, 2)  # [B, 1, N], the last token's row
    logits = F.conv1d(logits, kernel.reshape(1, 1, 3), padding=1).relu()
    return (logits.softmax(-1) @ (x @ W_v.T))[:, 0].argmax(-1)


def given(ids, layer):
    """What an attempt is called with: sequences [B, N], numbers of keys and values, and the layer."""
    return ids, NUM_KEYS, NUM_VALUES, layer


def by_hand():
    """Keys 2, 0, 4 with values 3, 1, 0, and the question 0: value 1."""
    return given(torch.tensor([[2, 6 + 3, 0, 6 + 1, 4, 6 + 0, 0]]), layer)


def outvoted():
    """The same question where three other keys were told value 3."""
    return given(torch.tensor([[2, 6 + 3, 4, 6 + 3, 0, 6 + 1, 5, 6 + 3, 0]]), layer)


def sequences(size, seed, which="inputs"):
    task = associative_recall(num_keys=NUM_KEYS, num_values=NUM_VALUES, num_pairs=4, test_size=size, seed=seed)
    return task.test[which] if which == "inputs" else task.test[which][:, -1]


def accuracy(run, **options):
    found = run(*given(sequences(500, 3), partial(layer, **options)))
    return (found == sequences(500, 3, "targets")).double().mean().item()


def answer_to(run):
    return f"Sequence k2 v3 k0 v1 k4 v0 k0: wanted value 1; your layer says {show(run(*by_hand())[0])}"


def fact_accuracy(run):
    if not accuracy(run) >= 0.99:
        return f"500 new sequences: {accuracy(run):.1%} are right; 99 % are wanted."


def fact_kernel_does_it(run):
    if not accuracy(run, tap=1) < 0.6:
        return f"With the kernel's middle weight alone {accuracy(run, tap=1):.1%} are right; less than 60 % are wanted."


recall_by_hand = Exercise(
    "eit.recall_by_hand",
    answers.recall_by_hand,
    returns="the layer's answers [B], numbers of values",
    probes=(
        Probe("Sequence k2 v3 k0 v1 k4 v0 k0: the answer is value 1.", by_hand),
        Probe("Sequence k2 v3 k4 v3 k0 v1 k5 v3 k0: the answer is value 1.", outvoted),
        Probe("Forty sequences of four pairs.", lambda: given(sequences(40, 1), layer)),
    ),
    variants=(
        Variant(
            "the token before",
            answers.recall_by_hand_backwards,
            lambda run: f"{answer_to(run)}, which stands before the match.",
            """The match is found. But the peak has moved to the left: W[t] meets key l + t - 1, so the first weight
            reads what stands before, and puts it here.
            Try: convolve [0, 0, 1, 0, 0] with [1, 0, 0] and with [0, 0, 1].""",
        ),
        Variant(
            "not moved",
            answers.recall_by_hand_in_place,
            lambda run: f"{answer_to(run)}.",
            """The match is found, and there the peak stays: on a key, whose value part is empty. That is all that one
            layer of softmax attention can do.
            Try: one weight of the kernel, not the middle one.""",
        ),
        Variant(
            "too soft",
            answers.recall_by_hand_soft,
            lambda run: (
                f"Sequence k2 v3 k4 v3 k0 v1 k5 v3 k0: wanted value 1; your layer says {show(run(*outvoted())[0])}."
            ),
            """The peak is where it should be. At height 1 it is e against 1 of each other token, and a value that was
            told three times outvotes it.
            Try: a larger weight.""",
        ),
        Variant(
            "keys read from the value part",
            answers.recall_by_hand_values_as_keys,
            lambda run: f"{answer_to(run)}.",
            """The kernel is right. But W_k reads the part of a token that says which *value* it is, and the question is
            a key.
            Try: which columns of W_k are not zero?""",
        ),
    ),
    properties=(
        Property("new sequences are answered", fact_accuracy, "A sharp peak, one key on. Try: a larger weight."),
        Property("it is the kernel that does it", fact_kernel_does_it, "Outer weights move it. Try: print them."),
    ),
    hints=(
        """A token is one-hot: columns 0 … K - 1 say which key, the others which value. Which of them should a query and
        a key read, and which a value? Then: where is the peak, and where must it be?""",
        """Rows of the identity: the first K for W_q and W_k, the rest for W_v; kernel [30, 0, 0].""",
    ),
    passed="""One layer, no training, and without the kernel's outer weights it fails.
    Next: softmax attention does this in two layers. What would the first of them have to do?""",
)
