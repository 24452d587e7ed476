"""Reformer in miniature: how much of true attention do a few rounds of hashing meet, and does a model mind?

Paper: Kitaev et al., "Reformer: The Efficient Transformer", ICLR 2020 (arXiv 2001.04451).

Rules, margins and seeds were fixed before the recorded runs; settings are not searched.
"""

from functools import partial

from refattn import data
from refattn.reproduce.approximations import mass_met
from refattn.reproduce.bigbird import STEADY, scanner
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

neutral = Comparison(
    "digits, pixel by pixel",
    "handwritten digits as sequences of 64 grey levels; 8 buckets, chunks of 8, 4 rounds; without W_K, so with a wider "
    "feed-forward net",
    task=partial(data.digits, as_sequence=True),
    variants={
        "softmax": partial(scanner, attention="softmax"),
        "reformer R=4": partial(
            scanner, attention="reformer", options={"chunk": 8, "num_buckets": 8, "num_hashes": 4}, ffn_dim=112
        ),
    },
    baseline="softmax",
    metric="accuracy",
    training=STEADY,
    plans={"quick": Plan(8, 200, {"batch_size": 64}), "colab": Plan(8, 1000, {"batch_size": 64})},
    neutral=True,
)


def mass_by_rounds(seeds, rounds, **shape):
    return mass_met(range(seeds), rounds, **shape)


SHAPE = {"tokens": 256, "width": 32, "clusters": 16, "spread": 0.5, "buckets": 16}
met = Measurement(
    "mass met",
    "share of attention on pairs of the same bucket, 256 vectors about 16 centres, 16 buckets; queries are keys, "
    "nobody attends to itself, logits q·k̂",
    mass_by_rounds,
    plans={
        "demo": Plan(sizes={"seeds": 8, "rounds": (1, 4, 8)} | SHAPE),
        "quick": Plan(sizes={"seeds": 32, "rounds": (1, 2, 4, 8, 16)} | SHAPE, dry={"seeds": 3, "tokens": 64}),
    },
)

claims = (
    Claim(
        "hashing finds heavy pairs",
        "Pairs that meet in 4 rounds hold more attention than as many random pairs, by more than 20 points",
        "similar vectors fall into one bucket with high probability (section 2)",
        rule="superiority",
        task=met.name,
        metric="recall",
        method="reformer R=4",
        baseline="random pairs R=4",
        margin=0.2,
    ),
    Claim(
        "eight rounds are nearly all",
        "Pairs that meet in 8 rounds hold all but a tenth of attention",
        "8 rounds nearly match full attention (recalled, unverified)",
        rule="non-inferiority",
        task=met.name,
        metric="recall",
        method="reformer R=8",
        baseline="all pairs",
        margin=0.1,
    ),
    Claim(
        "no loss on a neutral task",
        "With 4 rounds Reformer reads digits no worse than softmax attention, by a margin of 2 points",
        "Reformer performs on par with Transformers (abstract)",
        rule="non-inferiority",
        task=neutral.name,
        metric="accuracy",
        method="reformer R=4",
        baseline="softmax",
        margin=0.02,
    ),
)

LRA = {"task": "LRA, ListOps and Text", "size": "as LRA sets it", "source": "README of the LRA repository"}
paper = (
    PaperNumber("accuracy, Reformer", "37.27 %, 56.10 %", **LRA),
    PaperNumber("accuracy, softmax", "36.37 %, 64.27 %", **LRA),
)

EXPERIMENT = Experiment(
    "reformer",
    "Reformer: The Efficient Transformer",
    parts=(met, neutral),
    claims=claims,
    paper=paper,
    limits=(
        "Vectors drawn about centres are easier to hash than those of a trained model, which may be less even.",
        "At 64 tokens a few chunks see most of each other; what a hash misses at 64,000 this cannot show.",
        "Time is not compared: sorting pays for lengths far beyond these.",
        "LRA's Reformer multiplies by √d, does not normalise keys, and masks neither itself nor padding.",
    ),
)
