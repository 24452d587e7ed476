"""Lesson 22, decide: an equal budget, and what a cache holds."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

equal_width = Decision(
    "edgeformer.equal_width",
    asks="the width f of the nets of a Universal Transformer (one encoder layer, one standard decoder layer, both nets "
    "of width f) that has as many matrix parameters as EdgeFormer: D = 512, f_e = 2,048, f_d = 128; and a letter",
    value=2688,
    tolerance=0.001,
    reason="b",
    wrong={
        2176: Finding(
            "2,176 = f_e + f_d is right for the nets alone.",
            """Four attentions against three: EdgeFormer has 4 D² more of those, and that must go somewhere.
            Try: 12 D² + 4 D f = 16 D² + …""",
        ),
        2560: Finding(
            "2,560 = D + f_e leaves the decoder's nets out.",
            """Attentions and encoder nets are balanced. EdgeFormer has two narrow decoder nets besides.
            Try: add 4 D f_d on its side.""",
        ),
        2048: Finding(
            "2,048 makes the encoder's net as wide as EdgeFormer's.",
            """Equal widths are not equal budgets: this one has 7.3 M, EdgeFormer 8.7 M.
            Try: write both counts, then solve for f.""",
        ),
        3072: Finding(
            "3,072 is the width beside EdgeFormer with adapters of rank 32.",
            """The adapters' matrices make up the difference of 384. Asked is EdgeFormer without them.
            Try: 16 D² + 4 D f_e + 4 D f_d, nothing else.""",
        ),
        4864: Finding(
            "4,864 = D + 2 f_e + 2 f_d has two nets on one side only.",
            """The Universal Transformer has two nets as well: one in its encoder layer, one in its decoder layer.
            Try: 2 · 2 D f on its side.""",
        ),
    },
    reasons={
        "a": Finding(
            "2,688 is right. But both have 12 encoder layers, and each runs its net once a token.",
            """The same number of uses, of wider nets: more multiply-adds, not fewer.
            Try: 12 S · 2 D f for f = 2,048 and f = 2,688.""",
        ),
        "c": Finding(
            "2,688 is right. But multiply-adds count uses, and both widths and uses differ here.",
            """Equal storage says nothing about time.
            Try: 12 S · 2 D f for f = 2,048 and f = 2,688.""",
        ),
    },
    workings="""Universal: 3 attentions and 2 nets, 12 D² + 4 D f. EdgeFormer: 4 attentions, 2 + 2 nets, 16 D² + 4 D f_e
    + 4 D f_d. So f = D + f_e + f_d = 2,688.""",
    hints=(
        "Count attentions and nets on both sides. Which terms are left?",
        "12 D² + 4 D f = 16 D² + 4 D f_e + 4 D f_d.",
    ),
    passed="""f = D + f_e + f_d: what EdgeFormer spends on a fourth attention and thin nets, the other spends on width.
    Next: with adapters of rank 32 the equal width is 3,072. Which published baseline is that?""",
)

cache_numbers = Decision(
    "edgeformer.cache_numbers",
    asks="how many numbers EdgeFormer's decoder keeps for one sentence of 30 source tokens once 20 are written: keys "
    "and values of self-attention and cross attention, D = 512, 2 decoder layers; and a letter",
    value=102400,
    tolerance=0.001,
    reason="c",
    wrong={
        51200: Finding(
            "51,200 is one half: keys without values, or one layer of two.",
            """Source and target are both in it. An attention needs keys for its weights and values for its output.
            Try: 2 · 2 · 512 for one token.""",
        ),
        40960: Finding(
            "40,960 = 2 · 2 · 20 · 512 is self-attention alone.",
            """Cross attention's keys and values are kept as well: computed once, read at every step.
            Try: S instead of T.""",
        ),
        61440: Finding(
            "61,440 = 2 · 2 · 30 · 512 is cross attention alone.",
            """Self-attention has keys and values of all 20 written tokens besides.
            Try: T instead of S, once more.""",
        ),
        819200: Finding(
            "819,200 has eight heads of width 512.",
            """All heads together are 512 wide: 8 · 64.
            Try: without the heads.""",
        ),
    },
    reasons={
        "a": Finding(
            "102,400 is right. But equal weights with other inputs give other keys.",
            """Layer 2 reads what layer 1 wrote; its keys are its own, whoever owns the matrices.
            Try: the exercise before.""",
        ),
        "b": Finding(
            "102,400 is right. But the encoder's keys are of its layers' inputs, cross attention's of its last output.",
            """Same matrices, other vectors.
            Try: which x does W_k read in each?""",
        ),
    },
    workings="""2 layers · (keys and values: 2) · (30 + 20) tokens · 512 = 102,400.""",
    hints=("For one layer: keys and values of whom?", "L_d · 2 (S + T) D."),
    passed="""L_d · 2 (S + T) D. Sharing saves weights; it saves no cache.
    Next: after how many written tokens is the cache as large as one shared attention, 4 D² numbers?""",
)
