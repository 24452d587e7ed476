"""Lesson 15, decide: how many features an estimate needs, and how sharp unit vectors can be."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

features_needed = Decision(
    "rpe_fft.features_needed",
    asks="the smallest number of features m with which the estimate of exp(q·k) has a standard deviation of at most "
    "half its value, for every pair of unit vectors; and a letter",
    value=215,
    tolerance=0.005,
    reason="b",
    wrong={
        26: Finding(
            "26 is what orthogonal vectors need: (e² - 1) / 0.25.",
            """The variance law is right, and so is the square. But |q + k|² depends on the angle: 2 if they are
            orthogonal.
            Try: which pair of unit vectors has the longest sum?""",
        ),
        108: Finding(
            "108 = 53.6 / 0.5: a variance of one half.",
            """The worst pair is right. What is asked is a standard deviation of one half, a variance of a quarter.
            Try: 53.6 / m ≤ 0.5².""",
        ),
        219: Finding(
            "219 = e⁴ / 0.25 leaves the -1 out.",
            """Nearly: the variance is E[est²] less the square of the mean.
            Try: (e⁴ - 1) / m.""",
        ),
        54: Finding(
            "54 makes the variance 1: a standard deviation of the whole value.",
            """The worst pair is right: e⁴ - 1 = 53.6. Half the value is asked.
            Try: 53.6 / m ≤ 0.5².""",
        ),
    },
    reasons={
        "a": Finding(
            "215 is right. But the bound on the norm holds at any step of training.",
            """Nothing is learned slower. The networks of the lesson had norms of several hundred at the high rate.
            Try: what does the law say for norm 2?""",
        ),
        "c": Finding(
            "215 is right. But features of unit vectors are no more orthogonal than others.",
            """Ω may be orthogonal for both.
            Try: what in the law depends on q and k?""",
        ),
    },
    workings="""(e^{|q+k|²} - 1) / m is largest for q = k, where |q + k|² = 4: 53.6 / m ≤ 1/4 from m = 214.4 on.""",
    hints=("(e^{|q+k|²} - 1) / m. Which pair is worst?", "53.6 / m ≤ 1/4."),
    passed="""(e⁴ - 1) / 0.25 = 214.4. For vectors of norm 2 it would be (e¹⁶ - 1) / 0.25: 36 million.
    Next: the lesson's networks have 16 features. Which standard deviation is that, for q = k?""",
)

sharpest = Decision(
    "rpe_fft.sharpest",
    asks="the largest weight that one of 48 keys can have for one query, with unit vectors, exact exponentials and no "
    "biases; and a letter",
    value=0.1359,
    tolerance=0.01,
    reason="c",
    wrong={
        7.389: Finding(
            "7.39 = e² is how many times one weight exceeds another.",
            """That is the right ratio. A weight is a share of a row that sums to 1, and there are 47 other keys.
            Try: 7.39 / (7.39 + 47).""",
        ),
        0.0547: Finding(
            "0.0547 has e against 1: logits 1 and 0.",
            """The best key is right. The others can do worse than 0: they may point the other way.
            Try: the smallest q̂·k̂.""",
        ),
        1.0: Finding(
            "1 needs logits without bound.",
            """Softmax attention comes close to it: norms grow. Here q̂·k̂ lies between -1 and 1.
            Try: the largest and the smallest logit.""",
        ),
        0.1333: Finding(
            "0.133 counts 48 other keys.",
            """The ratio e² is right.
            Try: 47 others.""",
        ),
    },
    reasons={
        "a": Finding(
            "0.136 is right. But more features only estimate the same exponential better.",
            """With exact exponentials, which are asked here, the bound is the same.
            Try: the row `unit softmax` of the lesson's result.""",
        ),
        "b": Finding(
            "0.136 is right. But sinusoids are part of q and k before they are normalised.",
            """Whatever goes into a unit vector, q̂·k̂ stays between -1 and 1.
            Try: what in eq. 2 is not bounded?""",
        ),
    },
    workings="""Best: q̂·k̂ = 1 for one key and -1 for 47: e / (e + 47 / e) = e² / (e² + 47) = 0.136.""",
    hints=("One key with the largest logit, 47 with the smallest.", "e / (e + 47 / e)."),
    passed="""e² / (e² + 47) = 0.136, whatever is learned. A bias of 8 at one offset makes it 0.998.
    Next: what does that mean for a task where content, and not distance, says whom to read?""",
)
