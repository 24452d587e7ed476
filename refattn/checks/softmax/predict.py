"""Lesson 01, predict: the size of the maps, and what the scale is for."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

map_size = Decision(
    "softmax.map_size",
    asks="MiB of all attention maps of one layer: D = 512, H = 8, N = 4096, one sequence, float32; and a letter",
    value=512,
    reason="c",
    wrong={
        64: Finding(
            "64 MiB is the map of one head.",
            """N² entries of 4 bytes are right. But every head has its own opinion of who talks to whom.
            Try: how many maps does attention_maps(x)['effective'] hold?""",
        ),
        128: Finding(
            "128 is the number of entries, in units of 2²⁰.",
            """H N² is right: 8 × 4096 × 4096. Memory is counted in bytes.
            Try: how many bytes has a float32?""",
        ),
        8: Finding(
            "8 MiB is what q takes, or k, or v: N × D numbers of 4 bytes.",
            """The projections grow with N. The map compares all with all.
            Try: which two axes does q @ k.transpose(-1, -2) have, for one head?""",
        ),
        32768: Finding(
            "32,768 MiB would be a map for each feature: N² D numbers.",
            """Bytes and N² are right. The features are summed away in the dot product; only heads stay apart.
            Try: write the shape of the logits with all four axes.""",
        ),
    },
    reasons={
        "a": Finding(
            "512 MiB is right. But narrower heads do not have narrower maps.",
            """d is the axis that the dot product sums over; it has left before the map exists.
            Try: print the map's shape for 8 heads of 64 and for 16 of 32.""",
        ),
        "b": Finding(
            "512 MiB is right. But it is H N², and D stands nowhere in it.",
            """q, k and v keep their size when H doubles, since H·d = D. The maps are made from them, not cut from
            them.
            Try: print the map's shape for 8 heads of 64 and for 16 of 32.""",
        ),
        "d": Finding(
            "512 MiB is right. But only N is squared.",
            """H maps of N² entries: in H the count is linear.
            Try: double H in your formula, then double N.""",
        ),
    },
    workings="H N² entries of 4 bytes: 8 · 4096² · 4 / 2²⁰ = 512 MiB. Sixteen heads make it 1024: d is summed away.",
    hints=("Write the shape of the logits, all four axes.", "B · H · N · N entries, 4 bytes each; 1 MiB is 2²⁰ bytes."),
    passed="""512 MiB: H N² numbers of 4 bytes, one map a head, whatever d is.
    Next: the layer's multiply-adds do not change with H at all. Why do the maps?""",
)

logit_spread = Decision(
    "softmax.logit_spread",
    asks="the standard deviation of q·k, not scaled, for d = 64 independent entries from N(0, 1) in each; and a letter",
    value=8,
    reason="b",
    wrong={
        64: Finding(
            "64 is the variance.",
            """Each of the 64 products has variance 1, and independent variances add up: that much is right.
            Try: take the square root; then draw 10,000 pairs and measure.""",
        ),
        1: Finding(
            "1 is the spread after dividing by √d.",
            """That is what eq. 1 arranges. The question is what there is to arrange.
            Try: draw 10,000 pairs and measure the spread of q·k itself.""",
        ),
        0.125: Finding(
            "1/8 is the scale, 1/√64.",
            """A scale that brings the spread to 1 is one over it.
            Try: which number times 1/8 is 1?""",
        ),
    },
    reasons={
        "a": Finding(
            "8 is right. Equal logits would give equal weights; these are far apart.",
            """Two logits that differ by 8 have weights that differ by e⁸ ≈ 2981.
            Try: softmax of 16 draws from N(0, 8²): how large is the largest?""",
        ),
        "c": Finding(
            "8 is right. What softmax does not see is a constant added to all logits, not a factor.",
            """e^(x + c) / Σ e^(x + c) loses c; e^(c x) does not.
            Try: softmax of [0, 1] and of [0, 8].""",
        ),
    },
    workings="Products of independent N(0, 1) have variance 1; 64 of them sum to variance 64, standard deviation 8.",
    hints=("Variances of independent terms add up.", "The variance of q·k is d. And the standard deviation?"),
    passed="""8 = √64. Unscaled, rows are nearly one-hot, and softmax's gradient, w (1 − w) on the diagonal, is nearly
    zero.
    Next: trained q and k are not independent. What may their dot products be, at worst, before scaling?""",
)
