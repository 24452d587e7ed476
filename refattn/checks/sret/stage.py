"""Lesson 21, build: a stage of shared blocks."""

import torch
from torch import nn

from refattn.checks.compare import equal, rows, show
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.checks.sret import answers
from refattn.layers.sliced import cut, put_back
from refattn.models.sret import RecursiveStage


class Mean(nn.Module):
    """A block that adds w times the mean of a token's slice."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x, groups, permutation=None):
        means = cut(x, groups, permutation).mean(-2, keepdim=True).expand(-1, x.shape[0] // groups, -1)
        return x + self.w.to(x.dtype) * put_back(means, permutation)


class Line(nn.Module):
    """A projection: a x + 1."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return self.a.to(x.dtype) * x + 1


def by_two():
    """One block, two passes, two slices each: tokens 0, 1 | 2, 3, then 0, 2 | 1, 3."""
    orders = [torch.tensor([0, 2, 1, 3])]
    return rows([1], [2], [3], [6]), [Mean(1.0)], [Line(2.0), Line(0.5)], 2, (2, 2), orders


def larger(blocks=2, loops=3, groups=(3, 2), n=6):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 2, generator=generator)
    orders = [torch.randperm(n, generator=generator) for _ in range(blocks * (loops - 1))]
    lines = [Line(0.5 + 0.1 * j) for j in range(blocks * loops)]
    return x, [Mean(0.3 + b) for b in range(blocks)], lines, loops, groups, orders


def by_hand(run):
    return f"Tokens 1, 2, 3, 6: wanted [9.5, 12.5, 14.5, 19.5]; you return {show(run(*by_two()).flatten())}"


def fact_gradient(run):
    x, blocks, lines, *rest = larger()
    run(x, blocks, lines, *rest).square().sum().backward()
    found = [block.w.grad for block in blocks]
    if None in found:
        return "The outputs are right. But after backward() block 0 that was handed in has no gradient."
    other = larger()
    answers.stage(other[0], *other[1:]).square().sum().backward()
    wanted = [block.w.grad for block in other[1]]
    if not equal([torch.stack(found)], [torch.stack(wanted)]):
        return f"Gradients of both blocks must be {show(torch.stack(wanted))}; yours are {show(torch.stack(found))}."


def package():
    """Blocks of refattn as functions of [N, C], their projections, an input and a permutation a pass."""
    model = RecursiveStage(8, 2, blocks=2, loops=2, groups=(4, 2), ffn_hidden=16, nll_hidden=8)
    generator = torch.Generator().manual_seed(1)
    orders = [torch.randperm(12, generator=generator) for _ in range(2)]
    return model, torch.randn(12, 8, generator=generator), orders


def as_functions(model):
    def apply(block):
        return lambda x, groups, permutation=None: block(x[None].float(), groups=groups, permutation=permutation)[0]

    def project(projection):
        return lambda x: projection(x.float())

    return [apply(block) for block in model.blocks], [project(p) for p in model.projections]


def fact_package(run):
    model, x, orders = package()
    y = run(x, *as_functions(model), 2, (4, 2), list(orders))  # a reader may pop them
    error = (y - model(x[None], permutations=iter(orders))[0]).abs().max().item()
    if not error < 1e-4:
        return f"Two blocks of refattn, twice each, 12 tokens: you differ by {error:.2g}."


stage = Exercise(
    "sret.stage",
    answers.stage,
    returns="the tokens after all applications, [N, C]",
    probes=(
        Probe(
            "Tokens 1, 2 | 3, 6, then 1, 3 | 2, 6; the block adds its slice's mean, projections are 2 x + 1, ½ x + 1.",
            by_two,
        ),
        Probe("Two blocks, three passes each, groups 3 and 2, six tokens.", larger),
        Probe("Three blocks, two passes each, groups 2 and 3, six tokens.", lambda: larger(3, 2, (2, 3))),
    ),
    variants=(
        Variant(
            "projections only between",
            answers.stage_between,
            lambda run: f"{by_hand(run)}.",
            """Blocks and slices are right. But a projection follows every application, the last pass of a block too: it
            also stands between two different blocks.
            Try: there are L of them. How many have you used?""",
        ),
        Variant(
            "no projections",
            answers.stage_unprojected,
            lambda run: f"{by_hand(run)}.",
            """Blocks and slices are right. But nothing is projected: eq. 2 has P around each F.
            Try: x = projections[j](...), L times.""",
        ),
        Variant(
            "a projection for each block",
            answers.stage_shared_projection,
            lambda run: f"{by_hand(run)}.",
            """Blocks and slices are right. But both passes of a block went through one projection. Only blocks are
            shared: projections are what makes two passes differ.
            Try: there are L of them. How many have you used?""",
        ),
        Variant(
            "projected first",
            answers.stage_projected_before,
            lambda run: f"{by_hand(run)}.",
            """Each application has its own projection. But it comes before the block; in eq. 2 the block is inside.
            Try: one application on paper, x = 1, 2, 3, 6: means first, then 2 x + 1.""",
        ),
        Variant(
            "one permutation for all",
            answers.stage_one_order,
            lambda run: f"Two blocks, three passes: your first numbers are {show(run(*larger())[0])}.",
            """Right with one shuffled pass. With four, each takes the next permutation of the list; you have the first
            one four times. Slices that are cut the same way again bring no news.
            Try: how many of the list are left at the end?""",
        ),
        Variant(
            "blocks in turn",
            answers.stage_cycled,
            lambda run: f"Two blocks, three passes: your first numbers are {show(run(*larger())[0])}.",
            """Right with one block. With two, the order is 0, 0, 0, 1, 1, 1: a block is applied T times in a row. You
            have 0, 1, 0, 1, …
            Try: j // loops, not j % len(blocks).""",
        ),
        Variant(
            "odd applications are second passes",
            answers.stage_parity,
            lambda run: f"Two blocks, three passes: your first numbers are {show(run(*larger())[0])}.",
            """Right for two passes. With three, application 3 is a first pass, though 3 is odd: the authors' code has
            this, and all their models have T = 2.
            Try: which passes are j = 0 … 5 if each block has three?""",
        ),
        Variant(
            "first passes shuffled",
            answers.stage_early,
            lambda run: f"Two blocks, three passes: your first numbers are {show(run(*larger())[0])}.",
            """Blocks, projections and counts are right. But a first pass takes its slices in order, and takes no
            permutation from the list.
            Try: which of the six applications have one?""",
        ),
        Variant(
            "one count for all",
            answers.stage_one_count,
            lambda run: f"{by_hand(run)}.",
            """Every pass has groups[0] slices, in order. With slices that never change nobody hears another's.
            Try: groups[1], and a permutation, from a block's second pass on.""",
        ),
    ),
    properties=(
        Property(
            "a shared block gets the gradient of all its passes",
            fact_gradient,
            """A copy computes the same numbers, and is trained apart: L blocks' worth of weights, and nothing shared.
            Try: call blocks[...] itself. The module is the sharing.""",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals refattn", fact_package, "Two blocks, twice each. Try: one application."),),
    hints=(
        "Loop over the L projections. Which block is application j's, and is it this block's first pass?",
        "blocks[j // loops]; again = j % loops > 0; groups[again]; a permutation only if again and groups[again] > 1.",
    ),
    passed="""A projection after every application, slices as they should be, and gradients of all passes in one block.
    Next: parameters are shared. What is kept for the backward pass, once or T times?""",
)
