"""Lesson 04, build: who has heard whom after some layers."""

import torch

from refattn.checks.compare import equal
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.sparse import answers
from refattn.checks.sparse.patterns import as_numbers, keys


def chain():
    """Four tokens, each of which reads the one before it, and not itself."""
    return torch.ones(4, 4, dtype=torch.bool).tril(-1).triu(-1)


def star():
    """Five tokens: everybody reads token 1, and token 1 reads token 3 only."""
    allow = torch.zeros(5, 5, dtype=torch.bool)
    allow[:, 1] = True
    allow[1] = torch.arange(5) == 3
    return allow


def chain_row(run):
    return (
        "Each of four tokens reads the one before it. After 2 layers token 3 depends on [1, 2, 3]; yours on "
        f"{keys(run(chain(), 2), 3)}."
    )


def fact_two_layers(run):
    near, far = answers.strided_patterns(25, 5)
    own, summary = answers.fixed_patterns(25, 5, 1)
    for name, allow in (("strided", near | far), ("fixed", own | summary)):
        if not equal([run(allow, 2)], [torch.ones(25, 25).tril()]):
            return f"The {name} pattern, 25 tokens, l = 5: after 2 layers every query must depend on every earlier key."


def fact_more_layers(run):
    two, three = (run(chain(), layers) for layers in (2, 3))
    if not (three >= two).all():
        return (
            f"Four tokens in a chain: token 3 depends on {keys(two, 3)} after two layers and on {keys(three, 3)} after "
            "three."
        )


heard = Exercise(
    "sparse.heard",
    answers.heard,
    returns="a mask [N, N]: i depends on j",
    adapt=as_numbers,
    probes=(
        Probe("Four tokens, each reading the one before it; 2 layers.", lambda: (chain(), 2)),
        Probe("Five tokens: all read token 1, which reads token 3; 1 layer.", lambda: (star(), 1)),
        Probe("Five tokens: all read token 1, which reads token 3; 2 layers.", lambda: (star(), 2)),
        Probe("Four tokens, no layer.", lambda: (chain(), 0)),
    ),
    variants=(
        Variant(
            "no residual",
            answers.heard_without_residual,
            chain_row,
            """The products are right. But a block computes x + attention(x): what a token holds, it keeps, and it goes
            on in the next layer. With the attention alone it could only hear keys at exactly L hops.
            Try: after each product, or (|) what was heard before.""",
        ),
        Variant(
            "backwards",
            answers.heard_backwards,
            chain_row,
            """Hops are counted rightly, in the other direction: you say whom a token *reaches*. Rows are queries, so
            row i of A says whom i reads.
            Try: in A @ R, which index is summed over, the keys that i reads or the queries that read j?""",
        ),
        Variant(
            "paths counted",
            answers.heard_paths,
            lambda run: (
                "All of five tokens read token 1, which reads token 3. After 2 layers, your entry for token 0 and key "
                f"1 is {run(star(), 2)[0, 1].item()}; wanted 1."
            ),
            """Whatever is not 0 is in the right place. You count by how many paths i depends on j; asked is whether
            there is one.
            Try: > 0.""",
        ),
        Variant(
            "one layer too many",
            answers.heard_one_more,
            chain_row,
            """The recursion is right and runs once more than there are layers. Before the first layer, a token holds
            itself.
            Try: 0 layers must give the identity.""",
        ),
        Variant(
            "one layer always",
            answers.heard_once,
            chain_row,
            """One layer is right: A or I. The second layer reads what the first one has written.
            Try: who is heard by those whom i reads?""",
        ),
    ),
    properties=(
        Property("more layers hear no less", fact_more_layers, "Residuals keep what was heard. Try: 2 and 3 layers."),
    ),
    numbers=(
        Property(
            "both patterns of Sparse Transformer close in two layers",
            fact_two_layers,
            "Near, then far; or own block, then summary. Try: print the row of the last query.",
        ),
    ),
    hints=(
        "Start from the identity. A layer adds, for every i, whatever is held by anyone whom i reads.",
        "R = torch.eye(N, dtype=torch.bool); then, L times: R = R | (allow.float() @ R.float() > 0).",
    ),
    passed="""Residuals kept, directions right; and the strided and the fixed pattern connect every query with every
    earlier key in two layers, at l = √N.
    Next: A sliding window of w keys to each side needs N/w layers. How many does it need with one token that reads all
    and is read by all?""",
)
