"""ListOps: nested lists of digits and operators; the answer is one digit.

    [MAX 2 9 [MIN 4 7 ] 0 ]  →  9        [SM 8 [MED 3 9 5 ] 1 ]  →  (8 + 5 + 1) mod 10 = 4

Grammar and sampling of Long Range Arena (Tay et al. 2021, arXiv 2011.04006), after Nangia and Bowman 2018: a node below
the greatest depth is a digit with probability 3/4, else an operator with 2 … max_args arguments; MED is the median's
integer part, SM the sum modulo 10. As there, tokens are operators with their bracket, digits and the closing bracket.
"""

import random
from statistics import median

import torch

from refattn.data.task import from_arrays, generator, positive

OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(median(values)),
    "[SM": lambda values: sum(values) % 10,
}
TOKENS = ("<pad>", *OPERATORS, "]", *map(str, range(10)))  # id 0 is padding
IDS = {token: number for number, token in enumerate(TOKENS)}
DIGIT_PROBABILITY = 0.75


def listops(
    *,
    max_depth=3,
    max_args=4,
    min_len=4,
    max_len=32,
    num_train=5000,
    num_test=1000,
    batch_size=32,
    seed=0,
):
    """Expressions of min_len < length < max_len tokens, padded with id 0 to max_len − 1, and their values 0 … 9.

    Long Range Arena's own sizes: max_depth=10, max_args=10, min_len=500, max_len=2000, num_train=96000, num_test=2000.
    No expression occurs twice, so none of the test set is in the training set.

    Returns: `Task` with "key_padding_mask" in its batches.
    Raises: ValueError if so many different expressions of these lengths cannot be found.
    """
    positive(max_depth=max_depth, num_train=num_train, num_test=num_test)
    if max_args < 2 or max_len - min_len < 2:
        raise ValueError(
            f"max_args={max_args}, min_len={min_len}, max_len={max_len}: wanted 2 or more, and room between"
        )
    wanted = num_train + num_test
    numbers = random.Random(int(torch.randint(2**62, (1,), generator=generator(seed, "listops"))))
    found = {}
    for _ in range(100 * wanted + 10_000):
        tokens = []
        value = grow(tokens, max_depth, max_args, numbers, depth=1)
        if min_len < len(tokens) < max_len:
            found.setdefault(tuple(tokens), value)
            if len(found) == wanted:
                break
    else:
        raise ValueError(f"num_train + num_test = {wanted}: found only {len(found)} different expressions of this size")
    inputs = torch.zeros(wanted, max_len - 1, dtype=torch.long)
    for row, tokens in enumerate(found):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
    everything = {"inputs": inputs, "targets": torch.tensor(list(found.values())), "key_padding_mask": inputs == 0}
    train, test = (
        {key: t[rows] for key, t in everything.items()} for rows in (slice(num_train), slice(num_train, None))
    )
    facts = {"vocab_size": len(TOKENS), "num_classes": 10, "max_len": max_len - 1}
    about = f"value of a nested expression, depth ≤ {max_depth}, ≤ {max_args} arguments, < {max_len} tokens"
    return from_arrays("listops", train, test, batch_size=batch_size, seed=seed, description=about, **facts)


def grow(tokens, max_depth, max_args, numbers, depth):
    """Append the ids of one random node to `tokens` and return its value."""
    if depth >= max_depth or numbers.random() < DIGIT_PROBABILITY:
        digit = numbers.randrange(10)
        tokens.append(IDS[str(digit)])
        return digit
    operator = numbers.choice(list(OPERATORS))
    tokens.append(IDS[operator])
    count = numbers.randint(2, max_args)
    value = OPERATORS[operator]([grow(tokens, max_depth, max_args, numbers, depth + 1) for _ in range(count)])
    tokens.append(IDS["]"])
    return value


def to_text(ids):
    """Tokens of a sequence of ids as text, without padding."""
    return " ".join(TOKENS[i] for i in ids if i != 0)


def evaluate(text):
    """The value of an expression in text. Raises: ValueError for text that is no expression."""
    stack = [[]]
    for token in text.split():
        if token in OPERATORS:
            stack.append([OPERATORS[token]])
        elif token == "]" and len(stack) > 1 and len(stack[-1]) > 1:
            operator, *values = stack.pop()
            stack[-1].append(operator(values))
        elif token.isdigit() and len(token) == 1:
            stack[-1].append(int(token))
        else:
            raise ValueError(
                f"token {token!r} in {text!r}: wanted a digit, an operator, or ] that closes a filled list"
            )
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError(f"{text!r} is not one closed expression")
    return stack[0][0]
