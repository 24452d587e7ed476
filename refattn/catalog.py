"""The single list of what this collection covers: papers and baselines, lessons, and the glossary of symbols.

README, command line, lessons and tests read it; nothing else repeats it. `ready` says what stands today (a test
compares it with what is really there). Importing this file is cheap: it needs neither torch nor the other rooms.
"""

from dataclasses import dataclass

from refattn.glossary import GLOSSARY, symbol_box

__all__ = [
    "GLOSSARY",
    "LESSONS",
    "RECORDS",
    "Lesson",
    "Record",
    "get",
    "lesson",
    "readme_table",
    "routes",
    "symbol_box",
]

PARTS = ("code", "lesson", "exercises", "experiment")  # what a record can have; `ready` names those that stand
TAUGHT = PARTS[:-1]  # a baseline that others' experiments measure, without one of its own


@dataclass(frozen=True)
class Record:
    """One paper or baseline.

    kind: "attention", "architecture", "search", "pruning" (papers), or "baseline".
    forms: of an attention mechanism: those of causal, cross, mask, step that it has or will have.
    lesson: number of the lesson that teaches it.  code: the authors' repository, or "" where none is public.
    ready: which of `PARTS` stand.
    """

    slug: str
    name: str
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str
    kind: str
    lesson: int
    code: str = ""
    forms: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()

    @property
    def state(self):
        """ "complete", "planned", or the parts that stand."""
        if not self.ready:
            return "planned"
        return "complete" if set(self.ready) == set(PARTS) else ", ".join(self.ready)


@dataclass(frozen=True)
class Lesson:
    """One lesson: file notebooks/NN_name.ipynb. needs: numbers of lessons to have read; minutes: reading time."""

    number: int
    name: str
    title: str
    needs: tuple[int, ...] = ()
    minutes: int = 60
    ready: bool = False

    @property
    def file(self):
        """Name of the notebook, without its folder and ending."""
        return f"{self.number:02d}_{self.name}"


ALL_FORMS = ("causal", "cross", "mask", "step")

# fmt: off
RECORDS = (
    # attention: eight papers
    Record("luna", "Luna", "Luna: Linear Unified Nested Attention",
           "Ma, Kong, Wang, Zhou, May, Ma, Zettlemoyer", "NeurIPS", 2021, "2106.01540",
           "attention", 10, code="XuezheMax/fairseq-apollo", forms=ALL_FORMS, ready=PARTS),
    Record("mega", "Mega", "Mega: Moving Average Equipped Gated Attention",
           "Ma, Zhou, Kong, He, Gui, Neubig, May, Zettlemoyer", "ICLR", 2023, "2209.10655",
           "attention", 11, code="facebookresearch/mega", forms=ALL_FORMS, ready=PARTS),
    Record("couplformer", "Couplformer", "Couplformer: Rethinking Vision Transformer with Coupling Attention Map",
           "Lan, Wang, Wei", "WACV", 2023, "2112.05425", "attention", 12, code="wer010/Couplformer",
           forms=("mask",), ready=PARTS),
    Record("evolving_attention", "Evolving Attention", "Convolution-enhanced Evolving Attention Networks",
           "Wang, Yang, Li, Bai, Zhang, Li, Yu, Zhang, Huang, Tong", "TPAMI", 2023, "2212.08330",
           "attention", 13, code="pkuyym/EvolvingAttention", forms=("causal", "cross", "mask"),
           ready=PARTS),
    Record("eit", "EIT", "EIT: Enhanced Interactive Transformer",
           "Zheng, Li, Bao, Xiao, Zhu", "ACL", 2024, "2212.10197",
           "attention", 14, code="zhengkid/EIT-Enhanced-Interactive-Transformer", forms=ALL_FORMS, ready=PARTS),
    Record("rpe_fft", "RPE by FFT (NPRF)",
           "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding",
           "Luo, Li, Cai, He, Peng, Zheng, Ke, Wang, Liu", "NeurIPS", 2021, "2106.12566",
           "attention", 15, forms=("causal", "mask", "step"), ready=PARTS),
    Record("momentum", "Momentum Transformer",
           "Momentum Transformer: Closing the Performance Gap Between Self-attention and Its Linearization",
           "Nguyen, Baraniuk, Kirby, Osher, Wang", "MSML", 2022, "2208.00579",
           "attention", 16, code="minhtannguyen/momentum-transformer-code-submission",
           forms=ALL_FORMS, ready=PARTS),
    Record("vicinity", "Vicinity Vision Transformer", "Vicinity Vision Transformer",
           "Sun, Qin, Deng, Wang, Zhang, Zhang, Barnes, Birchfield, Kong, Zhong", "TPAMI", 2023, "2206.10552",
           "attention", 17, code="OpenNLPLab/Vicinity-Vision-Transformer", forms=("mask",), ready=PARTS),
    # architectures: three papers
    Record("wide_attention", "Wide Attention", "Wide Attention Is The Way Forward For Transformers?",
           "Brown, Zhao, Shumailov, Mullins", "NeurIPS workshop", 2022, "2210.00640", "architecture", 20,
           ready=PARTS),
    Record("sret", "SReT", "Sliced Recursive Transformer",
           "Shen, Liu, Xing", "ECCV", 2022, "2111.05297", "architecture", 21, code="szq0214/SReT", ready=PARTS),
    Record("edgeformer", "EdgeFormer", "EdgeFormer: A Parameter-Efficient Transformer for On-Device Seq2seq Generation",
           "Ge, Chen, Wei", "EMNLP", 2022, "2202.07959", "architecture", 22, code="microsoft/unilm", ready=PARTS),
    # search: six papers
    Record("hybrid_nas", "Hybrid attention search", "Neural Architecture Search on Efficient Transformers and Beyond",
           "Liu, Li, Lu, Qin, Sun, Xu, Zhong", "preprint", 2022, "2207.13955",
           "search", 31, code="OpenNLPLab/mixFormer"),
    Record("s3", "S3", "Searching the Search Space of Vision Transformer",
           "Chen, Wu, Ni, Peng, Liu, Fu, Chao, Ling", "NeurIPS", 2021, "2111.14725",
           "search", 32, code="microsoft/Cream"),
    Record("shiftaddnas", "ShiftAddNAS",
           "ShiftAddNAS: Hardware-Inspired Search for More Accurate and Efficient Neural Networks",
           "You, Li, Shi, Fu, Lin", "ICML", 2022, "2205.08119", "search", 33, code="RICE-EIC/ShiftAddNAS"),
    Record("uninet", "UniNet", "UniNet: Unified Architecture Search with Convolution, Transformer, and MLP",
           "Liu, Huang, Song, Li, Liu", "ECCV", 2022, "2207.05420", "search", 34, code="Sense-X/UniNet"),
    Record("trefe", "TREFE", "Searching a High-Performance Feature Extractor for Text Recognition Network",
           "Zhang, Yao, Kwok, Bai", "TPAMI", 2022, "2209.13139", "search", 35, code="AutoML-Research/TREFE"),
    Record("nar", "NAR",
           "Generalized Global Ranking-Aware Neural Architecture Ranker for Efficient Image Classifier Search",
           "Guo, Chen, He, Liu, Xu, Ye, Chen", "ACM Multimedia", 2022, "2201.12725",
           "search", 36, code="AlbertiPot/nar"),
    # pruning: three papers
    Record("vit_slim", "ViT-Slim",
           "Vision Transformer Slimming: Multi-Dimension Searching in Continuous Optimization Space",
           "Chavan, Shen, Liu, Liu, Cheng, Xing", "CVPR", 2022, "2201.00814",
           "pruning", 41, code="Arnav0400/ViT-Slim"),
    Record("spvit", "SPViT", "Pruning Self-attentions into Convolutional Layers in Single Path",
           "He, Cai, Liu, Pan, Zhang, Tao, Zhuang", "TPAMI", 2024, "2111.11802", "pruning", 42, code="ziplab/SPViT"),
    Record("swiftpruner", "SwiftPruner", "SwiftPruner: Reinforced Evolutionary Pruning for Efficient Ad Relevance",
           "Zhang, Homma, Wang, Wu, Yang, Zhang, Cao, Shen", "CIKM", 2022, "2209.00625", "pruning", 43),
    # baselines that the papers measure themselves against
    Record("softmax", "Softmax attention", "Attention Is All You Need",
           "Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin", "NeurIPS", 2017, "1706.03762",
           "baseline", 1, code="tensorflow/tensor2tensor", forms=ALL_FORMS, ready=TAUGHT),
    Record("linear", "Linear attention",
           "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
           "Katharopoulos, Vyas, Pappas, Fleuret", "ICML", 2020, "2006.16236",
           "baseline", 3, code="idiap/fast-transformers", forms=ALL_FORMS, ready=TAUGHT),
    Record("performer", "Performer (FAVOR+)", "Rethinking Attention with Performers",
           "Choromanski, Likhosherstov, Dohan, Song, Gane, Sarlos, Hawkins, Davis, Mohiuddin, Kaiser, "
           "Belanger, Colwell, Weller", "ICLR", 2021, "2009.14794",
           "baseline", 3, code="google-research/google-research", forms=ALL_FORMS, ready=PARTS),
    Record("cosformer", "cosFormer", "cosFormer: Rethinking Softmax in Attention",
           "Qin, Sun, Deng, Li, Wei, Lv, Yan, Kong, Zhong", "ICLR", 2022, "2202.08791",
           "baseline", 3, code="OpenNLPLab/cosFormer", forms=ALL_FORMS, ready=TAUGHT),
    Record("linformer", "Linformer", "Linformer: Self-Attention with Linear Complexity",
           "Wang, Li, Khabsa, Fang, Ma", "preprint", 2020, "2006.04768",
           "baseline", 4, code="facebookresearch/fairseq", forms=("cross", "mask"), ready=PARTS),
    Record("local", "Local attention", "Image Transformer",
           "Parmar, Vaswani, Uszkoreit, Kaiser, Shazeer, Ku, Tran", "ICML", 2018, "1802.05751",
           "baseline", 4, code="google-research/long-range-arena", forms=("causal", "mask"), ready=TAUGHT),
    Record("longformer", "Longformer", "Longformer: The Long-Document Transformer",
           "Beltagy, Peters, Cohan", "preprint", 2020, "2004.05150",
           "baseline", 4, code="allenai/longformer", forms=("causal", "mask"), ready=TAUGHT),
    Record("bigbird", "BigBird", "Big Bird: Transformers for Longer Sequences",
           "Zaheer, Guruganesh, Dubey, Ainslie, Alberti, Ontanon, Pham, Ravula, Wang, Yang, Ahmed",
           "NeurIPS", 2020, "2007.14062",
           "baseline", 4, code="google-research/bigbird", forms=("mask",), ready=PARTS),
    Record("sparse_transformer", "Sparse Transformer", "Generating Long Sequences with Sparse Transformers",
           "Child, Gray, Radford, Sutskever", "preprint", 2019, "1904.10509",
           "baseline", 4, code="openai/sparse_attention", forms=("causal", "mask"), ready=TAUGHT),
    Record("sinkhorn", "Sinkhorn attention", "Sparse Sinkhorn Attention",
           "Tay, Bahri, Yang, Metzler, Juan", "ICML", 2020, "2002.11296",
           "baseline", 4, code="google-research/long-range-arena", forms=("causal", "mask"), ready=TAUGHT),
    Record("synthesizer", "Synthesizer", "Synthesizer: Rethinking Self-Attention in Transformer Models",
           "Tay, Bahri, Metzler, Juan, Zhao, Zheng", "ICML", 2021, "2005.00743",
           "baseline", 4, code="google-research/long-range-arena", forms=("causal", "mask"), ready=PARTS),
    Record("reformer", "Reformer", "Reformer: The Efficient Transformer",
           "Kitaev, Kaiser, Levskaya", "ICLR", 2020, "2001.04451",
           "baseline", 4, code="google/trax", forms=("causal", "mask"), ready=PARTS),
)
# fmt: on

LESSONS = (
    Lesson(0, "start_here", "Start here: the map of the collection", (), 20, True),
    Lesson(1, "softmax_attention", "Softmax attention", (0,), 60, True),
    Lesson(2, "measuring_cost", "Measuring cost", (1,), 60, True),
    Lesson(3, "kernel_attention", "Kernel attention: linear, Performer, cosFormer", (2,), 60, True),
    Lesson(4, "sparse_and_low_rank_attention", "Sparse and low-rank attention", (2,), 60, True),
    Lesson(10, "luna", "Luna: pack, then unpack", (2,), 60, True),
    Lesson(11, "mega", "Mega: moving averages and a gate", (3, 4), 60, True),
    Lesson(12, "couplformer", "Couplformer: rows times columns", (4,), 60, True),
    Lesson(13, "evolving_attention", "Evolving Attention: maps that grow through layers", (1,), 60, True),
    Lesson(14, "eit", "EIT: heads that talk to each other", (1,), 60, True),
    Lesson(15, "rpe_fft", "Relative positions by FFT", (3,), 60, True),
    Lesson(16, "momentum", "Momentum Transformer: a state with velocity", (3,), 60, True),
    Lesson(17, "vicinity", "Vicinity: linear attention that knows its neighbours", (3,), 60, True),
    Lesson(20, "wide_attention", "Wide Attention: one layer, many heads", (3, 4), 60, True),
    Lesson(21, "sret", "SReT: the same block twice", (1,), 60, True),
    Lesson(22, "edgeformer", "EdgeFormer: where to spend parameters", (1,), 60, True),
    Lesson(30, "search_foundations", "Foundations of architecture search", (1,)),
    Lesson(31, "hybrid_nas", "Searching hybrid attention", (30, 3)),
    Lesson(32, "s3", "S3: searching the search space", (30,)),
    Lesson(33, "shiftaddnas", "ShiftAddNAS: multiply, shift or add", (30,)),
    Lesson(34, "uninet", "UniNet: convolution, attention and MLP in one space", (30,)),
    Lesson(35, "trefe", "TREFE: a feature extractor for text recognition", (30,)),
    Lesson(36, "nar", "NAR: ranking by quality tiers", (30,)),
    Lesson(40, "pruning_foundations", "Foundations of pruning", (1,)),
    Lesson(41, "vit_slim", "ViT-Slim: soft masks in every dimension", (40,)),
    Lesson(42, "spvit", "SPViT: attention pruned into convolution", (40,)),
    Lesson(43, "swiftpruner", "SwiftPruner: evolution with a memory", (40,)),
    Lesson(90, "scoreboard", "Scoreboard: every claim and its verdict", (10,)),
    Lesson(91, "choose_your_attention", "Choose your attention", (90,)),
)

GOALS = {  # route through the collection → lessons it wants to reach; what those need is added by `routes`
    "long text": (3, 4, 10, 11, 15, 16),
    "vision": (12, 17, 21, 32, 41),
    "search": (31, 32, 33, 34, 35, 36),
    "pruning": (41, 42, 43),
}


def get(slug):
    """The record of a slug. Raises: ValueError naming the known slugs."""
    for record in RECORDS:
        if record.slug == slug:
            return record
    raise ValueError(f"slug={slug!r}: wanted one of {', '.join(r.slug for r in RECORDS)}")


def lesson(number):
    """The lesson of a number. Raises: ValueError naming the known numbers."""
    for entry in LESSONS:
        if entry.number == number:
            return entry
    raise ValueError(f"lesson={number!r}: wanted one of {', '.join(str(e.number) for e in LESSONS)}")


def routes():
    """{goal: lessons in reading order}: what the goal names, and all that those lessons need."""
    return {goal: sorted(closure(numbers), key=lambda e: e.number) for goal, numbers in GOALS.items()}


def closure(numbers):
    """These lessons and, transitively, the lessons they need."""
    found = {}
    waiting = list(numbers)
    while waiting:
        entry = lesson(waiting.pop())
        if entry.number not in found:
            found[entry.number] = entry
            waiting.extend(entry.needs)
    return list(found.values())


def readme_table(verdicts=None):
    """The table of papers in the README, in Markdown. verdicts: {slug: text}; without one a dash stands there."""
    verdicts = {} if verdicts is None else verdicts
    lines = [
        "| Method | Paper | Kind | Forms | Lesson | State | Verdicts |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in RECORDS:
        entry = lesson(record.lesson)
        link = f"[{entry.number:02d}](notebooks/{entry.file}.ipynb)" if entry.ready else f"{entry.number:02d}"
        paper = f"[{record.title}](https://arxiv.org/abs/{record.arxiv}), {record.venue} {record.year}"
        forms = ", ".join(record.forms) or "–"
        verdict = verdicts.get(record.slug, "–")
        lines.append(f"| {record.name} | {paper} | {record.kind} | {forms} | {link} | {record.state} | {verdict} |")
    return "\n".join(lines)
