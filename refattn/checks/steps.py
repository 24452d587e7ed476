"""Step functions, one token and a state at a time, checked as functions of whole sequences."""

import torch
from torch.utils._pytree import tree_leaves

from refattn.checks.compare import equal, show

OUTPUTS, STATE, TWICE = "outputs", "state after the last token", "last token but one, twice from one state"


def through(step, *, sequences=None, call=lambda step, token, fixed, state: step(*token, *fixed, state)):
    """A step as a function `run(*inputs, which=OUTPUTS)` of whole sequences, for `Exercise(adapt=…)`.

    sequences: how many of the inputs are read token by token; the others go to every step (default: all are read).
    call: in which order `step` takes its arguments.  Its `which` is one of the three things above.
    """

    def run(*inputs):
        *inputs, which = inputs if isinstance(inputs[-1], str) else (*inputs, OUTPUTS)
        read, fixed = (inputs, ()) if sequences is None else (inputs[:sequences], inputs[sequences:])

        def one(token, state):
            return call(step, token, fixed, state)

        if which != TWICE:
            return walk(one, read)[which == STATE]
        _, state = walk(one, (t[:-2] for t in read))
        *_, last_but_one, last = zip(*read, strict=True)
        first = torch.as_tensor(one(last_but_one, state)[0]).clone()
        one(last, state)  # another continuation of the same beginning
        return first, one(last_but_one, state)[0]

    return run


def walk(one, read):
    """Outputs of a step token by token, and the state after them."""
    outputs, state = [], None
    for token in zip(*read, strict=True):
        try:
            pair = one(token, state)
            if pair is None or any(part is ... for part in tree_leaves(pair)):
                return pair, None  # not written yet, as the check will say
            if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
                raise TypeError(f"wanted a pair, output and new state; what came back is a {type(pair).__name__}")
        except Exception as error:
            error.called_with = (*token, state)  # for the message: a token, not the whole sequence
            raise
        y, state = pair
        outputs.append(torch.as_tensor(y).squeeze())
    return torch.stack(outputs).reshape(len(outputs), -1), state


def differs_from_itself(tokens):
    """Fact for a `Property`: going on twice from one state gives two outputs. tokens: (N) → the step's inputs."""

    def fact(run):
        first, again = run(*tokens(7), TWICE)
        if not equal([first], [again]):
            return (
                f"Every output in a row is right. But going on from one state with the same token, twice, gives "
                f"{show(first)}, then {show(again)}."
            )

    return fact


def grows(tokens, needs="", lengths=(8, 64)):
    """Fact for a `Property`: the state holds more numbers after more tokens. needs: what it should hold, in words."""

    def fact(run):
        few, many = (sum(map(size, tree_leaves(run(*tokens(n), STATE)))) for n in lengths)
        if many > few:
            held = f"your state holds {few} numbers after {lengths[0]} tokens and {many} after {lengths[1]}"
            return f"Every number is right. But {held}{needs and '; '}{needs}."

    return fact


def size(leaf):
    return leaf.numel() if torch.is_tensor(leaf) else 1
