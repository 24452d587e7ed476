"""EdgeFormer's claims in miniature: even use of weights, adaptation, and a light decoder that borrows attention.

Paper: Ge et al., "EdgeFormer: A Parameter-Efficient Transformer for On-Device Seq2seq Generation", EMNLP 2022 (arXiv
2202.07959).

Rules and seeds were fixed before the recorded runs. Models of a claim have equally many parameters (within 2 %), data,
steps and optimiser. Steps on dates were set by the Universal Transformer's accuracy, so that it is neither lost nor
perfect; one seed of two other arms had been seen by then, at other steps. Pointer chasing gives every arm six layers;
widths of nets make up for what sharing saves.
"""

from functools import partial

import torch

from refattn import data, measure
from refattn.models.edgeformer import EdgeFormer
from refattn.models.shared_encoder import SharedClassifier
from refattn.models.sharing import balanced, count_multiply_adds, count_weights, full, universal
from refattn.reproduce.claims import better
from refattn.reproduce.frame import Comparison, Experiment, Measurement, PaperNumber, Plan
from refattn.reproduce.verdict import Claim
from refattn.reproduce.written_dates import write_dates

# ---- Models: functions (task, seed), or a partial of one, found by name so that other processes can make them --------


def chaser(task, seed, **sharing):
    """An encoder of six layers, width 32, 4 heads, with a class for every token."""
    return SharedClassifier(task.vocab_size, task.num_classes, max_len=task.max_len, seed=seed, **sharing)


EVEN = {"attentions": 2, "ffns": 2, "ffn_dim": 80}
CHASERS = {
    "overused": partial(chaser, pattern="universal", ffn_dim=224),
    "balanced": partial(chaser, pattern="balanced", **EVEN),
    "unbalanced": partial(chaser, pattern="unbalanced", **EVEN),
    "overused + adapters": partial(chaser, pattern="universal", ffn_dim=224, adaptation="adapter", rank=4),
    "overused, wider": partial(chaser, pattern="universal", ffn_dim=278),
}

TINY = {"embed_dim": 32, "num_heads": 4, "encoder_layers": 4, "decoder_layers": 2, "norm": "pre", "max_len": 64}
LARGE = {"embed_dim": 128, "num_heads": 4, "encoder_layers": 12, "decoder_layers": 2, "norm": "pre", "max_len": 64}


def writer(task, seed, *, shape=TINY, **sharing):
    """An encoder-decoder for characters."""
    return EdgeFormer(task.vocab_size, seed=seed, **shape | sharing)


WRITERS = {
    "universal": partial(writer, pattern="universal", encoder_ffn=104),
    "EdgeFormer": partial(writer, encoder_ffn=64, decoder_ffn=8),
    "plain, half as deep": partial(writer, pattern="full", encoder_layers=2, decoder_layers=1, encoder_ffn=49),
    "decoder-favoured": partial(writer, encoder_ffn=8, decoder_ffn=64),
    "EdgeFormer + adapters": partial(writer, encoder_ffn=64, decoder_ffn=8, adaptation="adapter", rank=4),
    "EdgeFormer, wider": partial(writer, encoder_ffn=82, decoder_ffn=8),
}
WIDER = {"encoder_ffn": 512, "decoder_ffn": 32, "shape": LARGE}
LARGE_WRITERS = {
    "universal": partial(writer, pattern="universal", encoder_ffn=672, shape=LARGE),
    "EdgeFormer": partial(writer, **WIDER),
    "decoder-favoured": partial(writer, **WIDER | {"encoder_ffn": 32, "decoder_ffn": 512}),
    "unbalanced": partial(writer, pattern="unbalanced", **WIDER),
}

# ---- Comparisons -----------------------------------------------------------------------------------------------------

CHASING = {"lr": 4e-3, "weight_decay": 0.01, "schedule": "cosine", "clip": 1.0}
WRITING = {"lr": 4e-3, "weight_decay": 0.01, "clip": 1.0}
DATES = {"kind": "dates", "batch_size": 32, "test_size": 256}

chased = Comparison(
    "pointer chasing",
    "five hops along a random map of ten places, from every place: look-ups that depend on each other",
    task=data.pointers,
    variants=CHASERS,
    baseline="overused",
    metric="accuracy",
    training=CHASING,
    plans={"quick": Plan(8, 400, {"symbols": 10, "hops": 5, "batch_size": 48, "test_size": 400})},
)

dates = Comparison(
    "dates, English to German",
    "Mar 5, 1974 → 05.03.1974, character by character, from the Unicode Consortium's data; accuracy of the next "
    "character, the right ones before it given; one date in ten is for testing only",
    task=data.cldr,
    variants=WRITERS,
    baseline="universal",
    metric="accuracy",
    training=WRITING,
    plans={
        "demo": Plan(3, 80, DATES, variants=("universal", "EdgeFormer")),
        "quick": Plan(8, 200, DATES),
    },
    neutral=True,
)

long_dates = Comparison(
    "full dates, English to Finnish",
    "Tuesday, March 5, 1974 → tiistai 5. maaliskuuta 1974, with the paper's 12 and 2 layers",
    task=data.cldr,
    variants=LARGE_WRITERS,
    baseline="universal",
    metric="accuracy",
    training={"lr": 1e-3, "weight_decay": 0.01, "clip": 1.0},
    plans={
        "colab": Plan(
            3, 2000, DATES | {"target": "fi", "style": "full", "batch_size": 64}, dry={"batch_size": 2, "test_size": 4}
        )
    },
    neutral=True,
)

# ---- Measurements ----------------------------------------------------------------------------------------------------


def write_some(**sizes):
    """Dates written by two networks of `dates`, trained as there."""
    models = {name: WRITERS[name] for name in ("universal", "EdgeFormer")}
    return write_dates(models, WRITING, **sizes)


written = Measurement(
    "dates written out",
    "the same networks, trained the same way, write the test dates themselves: greedily, and with 4 beams",
    write_some,
    plans={
        "quick": Plan(
            sizes={"seeds": 8, "steps": 200, "beams": 4} | DATES, dry={"seeds": 2, "steps": 1, "test_size": 4}
        )
    },
)

PUBLISHED = {  # name: (pattern, f_e, f_d, options, parameters in 0.1 M, multiply-adds in 0.1 G) at width 512
    "Transformer-base, 32 k pieces": (full(6, 6), 2048, 2048, {"vocab_size": 32000}, 440, 18),
    "universal": (universal(12, 2), 2048, 2048, {"vocab_size": 2000}, 74, 14),
    "universal, wide": (universal(12, 2), 3072, 3072, {"vocab_size": 2000}, 94, 19),
    "EdgeFormer": (balanced(12, 2), 2048, 128, {"vocab_size": 2000, "adaptation": "adapter", "rank": 32}, 94, 13),
}


def count_published(width, heads, tokens):
    """Parameters and multiply-adds of the published configurations: by formula, by the modules, and as published."""
    formula = {"parameters": [], "multiply_adds": [], "rounded": [], "within 0.1 M": []}
    modules, published = {"parameters": [], "multiply_adds": []}, {"rounded": [], "within 0.1 M": []}
    for pattern, f_e, f_d, options, millions, billions in PUBLISHED.values():
        widths = {"embed_dim": width, "encoder_ffn": f_e, "decoder_ffn": f_d} | options
        weights = count_weights(pattern, **widths)
        adds = count_multiply_adds(pattern, source=tokens, target=tokens, **widths)["total"]
        formula["parameters"].append(weights["total"])
        formula["multiply_adds"].append(adds)
        formula["rounded"].append(round(adds / 1e8))
        published["rounded"].append(billions)
        formula["within 0.1 M"].append(int(abs(weights["matrices with adapters"] / 1e5 - millions) <= 1))
        published["within 0.1 M"].append(1)
        model = EdgeFormer(pattern=pattern, num_heads=heads, **widths).eval()
        ids = torch.ones(1, tokens, dtype=torch.int64)
        modules["parameters"].append(measure.count_parameters(model))
        modules["multiply_adds"].append(measure.flops(model, ids, target=ids) // 2)
    return {
        "configurations": list(PUBLISHED),
        "variants": {"modules": modules, "formula": formula, "README": published},
    }


count = Plan(sizes={"width": 512, "heads": 8, "tokens": 30})
counts = Measurement(
    "counts",
    "the four configurations of the authors' README at full size, 30 tokens in and out",
    count_published,
    plans={"demo": count, "quick": count, "colab": count},
)

# ---- Claims ----------------------------------------------------------------------------------------------------------

EVENLY = "load-balanced parameterisation: neither once nor everywhere (introduction)"
ADAPTS = "layer adaptation helps at negligible cost (introduction)"
ENCODES = "encoder-favoured parameterisation: a lightweight interleaved decoder suffices (introduction)"
BEATS = "better than a Universal Transformer of equal or larger budget (tables of the authors' README)"


def counted(name, statement, metric, method, baseline):
    about = {"task": counts.name, "metric": metric, "method": method, "baseline": baseline}
    return Claim(name, statement, "tables of the authors' README", rule="counted", **about)


claims = (
    better(
        "two pairs in turn beat one pair six times",
        "Two attentions and two nets, each used three times, chase pointers better than one wider pair used six times",
        EVENLY,
        chased,
        "balanced",
        "overused",
    ),
    better(
        "even use beats uneven use",
        "Two pairs used three times each chase pointers better than the same two used once and five times",
        EVENLY,
        chased,
        "balanced",
        "unbalanced",
    ),
    better(
        "adapters beat width",
        "On one pair used six times, adapters chase pointers better than as many parameters in a wider net",
        ADAPTS,
        chased,
        "overused + adapters",
        "overused, wider",
    ),
    better(
        "EdgeFormer beats a Universal Transformer",
        "EdgeFormer predicts a date's next character better than a Universal Transformer of as many parameters",
        BEATS,
        dates,
        "EdgeFormer",
        "universal",
    ),
    better(
        "so it does when it writes",
        "EdgeFormer writes more test dates without an error, greedily",
        BEATS,
        written,
        "EdgeFormer",
        "universal",
        metric="exact match",
    ),
    better(
        "sharing beats plain layers",
        "EdgeFormer is better on dates than half as many layers without sharing, at as many parameters",
        "our question: what does depth by sharing buy?",
        dates,
        "EdgeFormer",
        "plain, half as deep",
    ),
    better(
        "the encoder deserves the width",
        "A wide net in the encoder is better on dates than the same net in the decoder",
        ENCODES,
        dates,
        "EdgeFormer",
        "decoder-favoured",
    ),
    better(
        "adapters beat width, on dates",
        "On EdgeFormer, adapters are better on dates than as many parameters in wider nets",
        ADAPTS,
        dates,
        "EdgeFormer + adapters",
        "EdgeFormer, wider",
    ),
    better(
        "a beam writes better",
        "EdgeFormer writes more test dates without an error with 4 beams than greedily",
        "our question; the authors decode with 5 beams",
        written,
        "EdgeFormer, 4 beams",
        "EdgeFormer",
        metric="exact match",
    ),
    better(
        "EdgeFormer beats a Universal Transformer, large",
        "With 12 and 2 layers of width 128 EdgeFormer predicts full dates better than a Universal Transformer",
        BEATS,
        long_dates,
        "EdgeFormer",
        "universal",
    ),
    better(
        "even use beats uneven use, large",
        "With 12 layers, four attentions in turn are better on full dates than three used once and one nine times",
        EVENLY,
        long_dates,
        "EdgeFormer",
        "unbalanced",
    ),
    better(
        "the encoder deserves the width, large",
        "With 12 and 2 layers a wide net in the encoder is better on full dates than the same net in the decoder",
        ENCODES,
        long_dates,
        "EdgeFormer",
        "decoder-favoured",
    ),
    counted(
        "parameters are those of the formula",
        "Modules have as many as the formula counts",
        "parameters",
        "modules",
        "formula",
    ),
    counted("so are multiply-adds", "Modules do as many as the formulas count", "multiply_adds", "modules", "formula"),
    counted(
        "multiply-adds are the published ones",
        "Rounded to 0.1 G, they are the README's four figures (called FLOPS there)",
        "rounded",
        "formula",
        "README",
    ),
    counted(
        "parameters are the published ones",
        "Matrices have within 0.1 M of the README's four figures: 44, 7.4, 9.4 and 9.4 M",
        "within 0.1 M",
        "formula",
        "README",
    ),
)

README = "README of the authors' repository"
TASKS = {"task": "CoNLL-14 F0.5; XSUM ROUGE-L; SQuAD-NQG BLEU-4", "source": README}
paper = (
    PaperNumber("Transformer-base, not pre-trained", "50.1; 24.9; 2.6", size="44 M, 1.8 G", **TASKS),
    PaperNumber("universal 12+2", "51.3; 27.9; 18.3", size="7.4 M, 1.4 G", **TASKS),
    PaperNumber("universal 12+2, wide", "51.7; 28.6; 18.7", size="9.4 M, 1.9 G", **TASKS),
    PaperNumber("EdgeFormer, adapters r = 32", "52.7; 29.5; 19.0", size="9.4 M, 1.3 G", **TASKS),
    PaperNumber("seconds a sentence, int8", "about 0.1", "20 to 30 tokens", "two processor cores", "introduction"),
)

EXPERIMENT = Experiment(
    "edgeformer",
    "EdgeFormer: A Parameter-Efficient Transformer for On-Device Seq2seq Generation",
    parts=(chased, dates, long_dates, written, counts),
    claims=claims,
    paper=paper,
    limits=(
        "Twelve layers share four attentions in the paper; here it is four layers on dates, where each of the four "
        "is used once in the encoder and once in the decoder: hardly shared at all.",
        "The paper's models are pre-trained on text; ours see 6,400 dates.",
        "BLEU, ROUGE, F0.5 and seconds on a phone cannot be had at this size.",
        "Eight seeds of one task decide about that task: a date is written by copying digits and looking up months.",
    ),
)
