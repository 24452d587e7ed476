"""Key-value recall: read some pairs, then answer for one key after another. The smallest task that needs a memory.

key 3 → b,  key 1 → a,  key 0 → c   |   1?  3?  3?  0?        targets: a b b c at the questions
"""

import torch

from refattn.data.task import IGNORED, generated


def recall(*, num_keys=8, num_values=4, num_queries=None, batch_size=64, test_size=512, seed=0):
    """Every key once, in random order, with a random value; then questions about random keys.

    Inputs are two ids a token, `[B, N, 2]`: the key, and its value or (at questions) the blank, which is the last value
    id. Models add one embedding for each; no positions are needed. Targets `[B, N]` are values, at questions only.

    Args: num_keys, num_values: of them;  num_queries: questions, as many as keys unless given.
    Returns: `Task` with vocab_size (num_keys, num_values + 1); chance is 1 / num_values.
    """
    num_queries = num_keys if num_queries is None else num_queries
    blank = num_values

    def draw(size, generator):
        keys = torch.rand(size, num_keys, generator=generator).argsort(1)  # [B, K]: each row a permutation
        values = torch.randint(num_values, (size, num_keys), generator=generator)
        asked = torch.randint(num_keys, (size, num_queries), generator=generator)  # places of the pairs
        told = torch.stack([keys, values], -1)  # [B, K, 2]
        questions = torch.stack([keys.gather(1, asked), torch.full((size, num_queries), blank)], -1)
        unscored = torch.full((size, num_keys), IGNORED)
        targets = torch.cat([unscored, values.gather(1, asked)], 1)
        return {"inputs": torch.cat([told, questions], 1), "targets": targets}

    facts = {"vocab_size": (num_keys, num_values + 1), "num_classes": num_values, "max_len": num_keys + num_queries}
    about = f"recall the value (of {num_values}) told with each of {num_keys} keys"
    return generated("recall", draw, batch_size=batch_size, test_size=test_size, seed=seed, description=about, **facts)
