"""Evolving Attention's claims in miniature: which part of it helps where, what its kernels may see, what it costs.

Paper: Wang et al., "Convolution-enhanced Evolving Attention Networks", TPAMI 2023 (arXiv 2212.08330).

Rules, margins and seeds were fixed before the recorded runs. Training settings are one per task, the same for all
variants, and not searched; a convolution adds 148 parameters to 18,956. Models of series have as many parameters as
EA-DC by wider position-wise nets. The n-gram task suits a convolution over maps by construction (section "why" of the
lesson); text does not, and the series are the paper's own kind of task.
"""

from functools import partial

import torch

from refattn import data
from refattn.attention.evolving_attention import EvolvingAttention
from refattn.models import CausalLM
from refattn.models.evolving_attention import EADCTransformer
from refattn.reproduce.claims import about, better, not_worse
from refattn.reproduce.evolving_maps import SHARED, count_costs, likeness
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------

SMALL = {"embed_dim": 32, "num_heads": 4, "ffn_dim": 64, "num_layers": 2, "positions": "learned"}
LARGE = {"embed_dim": 128, "num_heads": 8, "ffn_dim": 512, "num_layers": 4, "positions": "learned"}


class LooksAhead(EvolvingAttention):
    """The classic mistake: a centred kernel, and a causal mask in the softmax alone."""

    def options(self, x, context, key_padding_mask=None):
        """As in `EvolvingAttention`, with the kernel of self-attention."""
        past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return super().options(x, context, key_padding_mask) | {"kind": "self", "allow": past}


def writer(task, seed, *, attention="evolving_attention", shape=SMALL, **options):
    """A causal language model."""
    sizes = shape | {"max_len": task.max_len, "seed": seed}
    return CausalLM(task.vocab_size, **sizes, attention=attention, attention_options=options)


def cheat(task, seed):
    """A causal language model whose kernels are centred, with the same weights."""
    model = writer(task, seed)
    for block in model.decoder.blocks:
        old = block.self_attention
        place = {"first_in_chain": old.first_in_chain, "last_in_chain": old.last_in_chain}
        new = LooksAhead(old.embed_dim, old.num_heads, is_causal=True, **place)
        new.load_state_dict(old.state_dict())
        block.self_attention = new
    return model


def series(task, seed, *, ffn_dim, embed_dim=32, num_blocks=3, **options):
    """A classifier of series."""
    sizes = {"max_len": task.max_len, "embed_dim": embed_dim, "num_blocks": num_blocks, "ffn_dim": ffn_dim}
    return EADCTransformer(task.test["inputs"].shape[-1], task.num_classes, **sizes, **options, seed=seed)


PLAIN, DILATED = {"alpha": 0.0, "beta": 0.0}, {"key_ratio": 0.0, "value_ratio": 0.0}


def networks(ea, a, dc, **shape):
    """EA-DC, A-DC (maps that do not evolve) and DC (no attention) with their hidden widths."""
    return {
        "EA-DC": partial(series, ffn_dim=ea, **shape),
        "A-DC": partial(series, ffn_dim=a, **PLAIN, **shape),
        "DC": partial(series, ffn_dim=dc, **DILATED, **shape),
    }


# ---- Comparisons -----------------------------------------------------------------------------------------------------

CONSTANT = {"lr": 3e-3, "weight_decay": 0.01, "schedule": "constant", "warmup": 0, "clip": 1.0}
STEADY = {"lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}
THEIRS = {"lr": 1e-3, "weight_decay": 0.0, "schedule": "constant", "warmup": 0, "clip": 4.0}

matched = Comparison(
    "n-grams",
    "a random segment of 6 to 14 symbols, again and again: say the next symbol once it repeats; two layers of width 32",
    task=data.ngrams,
    variants={
        "softmax": partial(writer, attention="softmax"),
        "softmax, 3 layers": partial(writer, attention="softmax", shape=SMALL | {"num_layers": 3}),
        "residual only": partial(writer, beta=0.0),
        "1 × 1": partial(writer, kernel_size=1),
        "convolution only": partial(writer, alpha=0.0),
        "evolving": writer,
        "5 × 5": partial(writer, kernel_size=5),
    },
    baseline="softmax",
    metric="accuracy",
    training=CONSTANT,
    plans={
        "demo": Plan(3, 80, variants=("softmax", "evolving")),
        "quick": Plan(8, 240),
        "colab": Plan(8, 1000),
    },
)

prefix = Comparison(
    "n-grams, first round",
    "trained on all positions, tested on the first round of the segment, which nobody can know: chance is 1 / 12",
    task=partial(data.ngrams, asked="all", tested="first"),
    variants={"evolving": writer, "centred": cheat},
    baseline="evolving",
    metric="accuracy",
    training=CONSTANT,
    plans={"quick": Plan(8, 120)},
)

neutral = Comparison(
    "text, causal",
    "next character of Python's own help pages",
    task=data.text,
    variants={"softmax": partial(writer, attention="softmax"), "evolving": writer},
    baseline="softmax",
    metric="loss",
    training=STEADY,
    plans={"quick": Plan(8, 200, {"length": 40})},
    neutral=True,
)

longer_text = Comparison(
    "text, 256 characters",
    "the same in four layers of width 128",
    task=data.text,
    variants={
        "softmax": partial(writer, attention="softmax", shape=LARGE),
        "evolving": partial(writer, shape=LARGE),
    },
    baseline="softmax",
    metric="loss",
    training=STEADY | {"lr": 1e-3},
    plans={"colab": Plan(3, 1500, {"length": 256}, dry={"length": 16, "batch_size": 4})},
    neutral=True,
)

speakers = Comparison(
    "JapaneseVowels",
    "which of nine speakers says two vowels: 270 series to learn from, 370 to be tested on; three blocks of width 32",
    task=data.uea,
    variants=networks(64, 70, 71),
    baseline="A-DC",
    metric="accuracy",
    training=THEIRS,
    plans={"quick": Plan(8, 60)},
)

few_series = Comparison(
    "JapaneseVowels, 5 series a speaker",
    "the same with 45 series to learn from, drawn anew for each seed",
    task=partial(data.uea, per_class=5),
    variants={name: networks(64, 70, 71)[name] for name in ("EA-DC", "A-DC")},
    baseline="A-DC",
    metric="accuracy",
    training=THEIRS,
    plans={"quick": Plan(8, 30)},
)

motions = Comparison(
    "BasicMotions",
    "four activities from a smart watch, 100 steps: 40 series to learn from, 40 to be tested on",
    task=partial(data.uea, dataset="BasicMotions", batch_size=20),
    variants={name: networks(64, 70, 73)[name] for name in ("EA-DC", "DC")},
    baseline="DC",
    metric="accuracy",
    training=THEIRS,
    plans={"quick": Plan(8, 20)},
)

speakers_larger = Comparison(
    "JapaneseVowels, the authors' size",
    "four blocks of width 64, 60 epochs",
    task=data.uea,
    variants=networks(256, 259, 260, embed_dim=64, num_blocks=4),
    baseline="A-DC",
    metric="accuracy",
    training=THEIRS,
    plans={"colab": Plan(5, 510, dry={"batch_size": 4})},
)

motions_larger = Comparison(
    "BasicMotions, the authors' size",
    "four blocks of width 64, 60 epochs",
    task=partial(data.uea, dataset="BasicMotions", batch_size=20),
    variants=networks(256, 259, 263, embed_dim=64, num_blocks=4),
    baseline="A-DC",
    metric="accuracy",
    training=THEIRS,
    plans={"colab": Plan(5, 120, dry={"batch_size": 4})},
)

# ---- Measurements ----------------------------------------------------------------------------------------------------

counted = Plan(sizes={"ns": (64, 128, 256, 512), "dim": 64, "heads": 4, "kernel_size": 3}, dry={"ns": (8, 16)})
counts = Measurement(
    "counts",
    "what a 3 × 3 convolution over maps adds to a layer of width 64 with 4 heads",
    count_costs,
    plans={"demo": counted, "quick": counted, "colab": counted},
)

compared = {"seeds": 8, "steps": 120, "layers": 4, "length": 32, "batch_size": 16}
alike = Measurement(
    "maps of neighbouring layers",
    "percent of a map that the layer before has as well, head by most alike head, in trained four-layer text models",
    likeness,
    plans={"quick": Plan(sizes=compared, dry={"seeds": 2, "steps": 1, "length": 8})},
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

BOTH = "the paper's ablation: residual link and convolution both matter (recalled, unverified)"
NEARLY_FREE = "residual and convolution between maps improve a Transformer at almost no parameter cost (abstract)"
SERIES = "EA-DC-Transformer improves on the best previous model of time series by 17 % on average (abstract)"
EQUATIONS = "the equations: H² k² weights and H biases, at work in every cell of the map"


def counted_claim(name, statement, metric):
    compared = about(counts, metric, "convolution", "formula")
    return Claim(name, statement, EQUATIONS, rule="counted", **compared)


claims = (
    better(
        "evolving maps match n-grams",
        "With α = β = 0.5 and 3 × 3 kernels two layers match n-grams better than with plain softmax attention",
        NEARLY_FREE,
        matched,
        "evolving",
        "softmax",
    ),
    better("the residual link alone helps", "β = 0 already beats softmax", BOTH, matched, "residual only", "softmax"),
    better("the neighbourhood matters", "3 × 3 kernels beat 1 × 1 kernels", BOTH, matched, "evolving", "1 × 1"),
    better(
        "the residual link adds to the convolution",
        "α = 0.5 beats α = 0, a convolution over the current map alone",
        BOTH,
        matched,
        "evolving",
        "convolution only",
    ),
    not_worse(
        "5 × 5 is as good as 3 × 3",
        "A 5 × 5 kernel is no worse than a 3 × 3 kernel, by a margin of 2 points",
        BOTH,
        matched,
        "5 × 5",
        "evolving",
        margin=0.02,
        control="softmax",
    ),
    not_worse(
        "nine taps replace a layer",
        "Two evolving layers are no worse than three softmax layers, by a margin of 2 points",
        "our question, after the abstract's parameter cost",
        matched,
        "evolving",
        "softmax, 3 layers",
        margin=0.02,
    ),
    Claim(
        "causal kernels keep the future out",
        "What nobody can know is guessed at the rate of chance, 1 / 12, within 2 points",
        "causal versions of the convolution make it usable in decoders (recalled, unverified)",
        rule="equivalence",
        bound=0.0833,
        margin=0.02,
        **about(prefix, "accuracy", "evolving"),
    ),
    better(
        "a centred kernel looks ahead",
        "With a centred kernel what nobody can know is guessed at least 10 points better",
        "the method: a centred kernel reads the next query's row",
        prefix,
        "centred",
        "evolving",
        margin=0.1,
    ),
    not_worse(
        "no loss on a neutral task",
        "Evolving attention's loss on text is at most 2 % above softmax attention's",
        NEARLY_FREE,
        neutral,
        "evolving",
        "softmax",
        margin=0.02,
        relative=True,
    ),
    not_worse(
        "no loss on longer text",
        "At 256 characters evolving attention's loss is at most 2 % above softmax attention's",
        NEARLY_FREE,
        longer_text,
        "evolving",
        "softmax",
        margin=0.02,
        relative=True,
    ),
    Claim(
        "the level on real series",
        "EA-DC reaches the 0.99 of published transformers on JapaneseVowels, within 2 points",
        "TST paper: 0.994 supervised, 0.997 pretrained (recalled, unverified)",
        rule="equivalence",
        bound=0.99,
        margin=0.02,
        **about(speakers, "accuracy", "EA-DC"),
    ),
    better("evolution helps on series", "EA-DC beats A-DC on JapaneseVowels", SERIES, speakers, "EA-DC", "A-DC"),
    better(
        "evolution helps with few series",
        "With five series a speaker EA-DC beats A-DC",
        SERIES,
        few_series,
        "EA-DC",
        "A-DC",
    ),
    not_worse(
        "attention costs nothing on BasicMotions",
        "EA-DC is no worse than dilated convolutions alone, by a margin of 5 points",
        SERIES,
        motions,
        "EA-DC",
        "DC",
        margin=0.05,
    ),
    better(
        "evolution helps at the authors' size",
        "EA-DC beats A-DC on JapaneseVowels in four blocks of width 64",
        SERIES,
        speakers_larger,
        "EA-DC",
        "A-DC",
    ),
    better(
        "evolution helps on motions",
        "EA-DC beats A-DC on BasicMotions in four blocks of width 64",
        SERIES,
        motions_larger,
        "EA-DC",
        "A-DC",
    ),
    better(
        "maps of neighbours are alike",
        "Evolving layers share more of their maps with the layer before than softmax layers do",
        "the method: a map goes on from the one before (by construction; the question is whether training keeps it)",
        alike,
        "evolving",
        "softmax",
        metric=SHARED,
    ),
    counted_claim("cheap in parameters", "A convolution adds H² k² + H parameters", "parameters"),
    counted_claim("not in multiply-adds", "It adds H² k² multiply-adds in each of N² cells", "multiply_adds"),
    counted_claim("a map is kept", "Between layers H N² logits stay alive", "carry_numbers"),
)

RECALLED = "recalled, unverified"
IMAGENET = {"task": "ImageNet, top-1", "size": "attention-augmented ResNet-34, 100 epochs", "source": RECALLED}
VOWELS = {"task": "JapaneseVowels", "size": "TST protocol", "source": f"TST paper, {RECALLED}"}
paper = (
    PaperNumber("improvement of EA-DC on the best before", "17 %", "UEA and TSER, average", "not given", "abstract"),
    PaperNumber("accuracy, TST supervised", "0.994", **VOWELS),
    PaperNumber("accuracy, TST pretrained", "0.997", **VOWELS),
    PaperNumber("accuracy, Rocket", "0.962", **VOWELS),
    PaperNumber("accuracy, evolving", "75.2 %", **IMAGENET),
    PaperNumber("accuracy, not evolving", "74.3 %", **IMAGENET),
)

EXPERIMENT = Experiment(
    "evolving_attention",
    "Convolution-enhanced Evolving Attention Networks",
    parts=(
        matched,
        prefix,
        neutral,
        longer_text,
        speakers,
        few_series,
        motions,
        speakers_larger,
        motions_larger,
        counts,
        alike,
    ),
    claims=claims,
    paper=paper,
    limits=(
        "ImageNet, GLUE, translation and the 17 % average need models and data far beyond this size.",
        "The abstract does not say what the 17 % are a share of; a relative error is our guess, accuracy cannot be.",
        "N-grams suit a convolution over maps by construction: a win says what it can do, not how often that helps.",
        "At 370 test series one series is 0.27 points and the binomial error 0.8: a saturated table ranks nobody.",
        "JapaneseVowels and BasicMotions are two of the archive's thirty sets, and easy ones.",
    ),
)
