"""Lesson 04, predict: how far windows reach, and where a projection of length pays."""

from refattn.checks.decision import Decision
from refattn.checks.frame import Finding

window_depth = Decision(
    "sparse.window_depth",
    asks="""after how many layers the last of N = 16,384 tokens can depend on the first, with Longformer's window
    w = 512 and no global token; and a letter""",
    value=64,
    reason="b",
    wrong={
        32: Finding(
            "32 layers would be enough if the window reached 512 to the left.",
            """Reach is the window's, times the layers: that is right. But Longformer's w is the whole window, and half
            of it lies on the other side.
            Try: which keys does token 1,000 read, with w = 512?""",
        ),
        16: Finding(
            "16 would be right for 1,024 tokens to the left.",
            """Reach is the window's, times the layers: that is right. Half of a window of 512 lies to the left.
            Try: which keys does token 1,000 read, with w = 512?""",
        ),
        6: Finding(
            "6 layers are the logarithm of 16,384 / 256: reach that doubles in each layer.",
            """Dilated windows can do that, with a dilation that doubles. These windows are all alike: each layer adds
            256 tokens.
            Try: whom does the last token depend on after 1, 2, 3 layers?""",
        ),
        128: Finding(
            "128 would be right for 128 tokens to the left.",
            """Reach is the window's, times the layers: that is right. w = 512 is halved once, not twice.
            Try: which keys does token 1,000 read, with w = 512?""",
        ),
        2: Finding(
            "2 layers are enough with a global token, and there is none.",
            """Read, then be read: that is what a global token is for.
            Try: whom does the last token depend on after 1, 2, 3 layers of windows alone?""",
        ),
    },
    reasons={
        "a": Finding(
            "64 is right. A window twice as wide halves it to 32, at twice the price.",
            """Windows reach as far as layers times width, whatever the width is.
            Try: what reads all tokens, and is read by all?""",
        ),
        "c": Finding(
            "64 is right. But twice as many heads with one window have one reach.",
            """Heads read side by side; only layers follow one another. (Heads with different dilations do add reach.)
            Try: what reads all tokens, and is read by all?""",
        ),
        "d": Finding(
            "64 is right. But r random blocks for each block connect all only in about log n layers.",
            """Each layer multiplies the number of blocks that are heard by a constant; with 256 blocks of 64 that is
            fast, and still more than two.
            Try: what reads all tokens, and is read by all?""",
        ),
    },
    workings="""256 tokens to the left a layer, 16,383 in all: ⌈16,383 / 256⌉ = 64 layers. A global token g is read by
    all and reads all, so any j → g → i is two layers, at the price of one more row and column of scores.""",
    hints=(
        "Half of Longformer's window lies to the left. A layer moves information that far, once.",
        "⌈(N − 1) / (w / 2)⌉.",
    ),
    passed="""64 = ⌈16,383 / 256⌉ layers, and two with a single global token.
    Next: 24 layers of that window hear 6,144 tokens back. Does a model with such a reach use it?""",
)

equal_work = Decision(
    "sparse.equal_work",
    asks="""the N at which a layer of Linformer, k = 256, and one of softmax attention take equally many multiply-adds,
    for D = 384, self-attention; and a letter""",
    value=384,
    reason="a",
    wrong={
        512: Finding(
            "512 = 2k is where mixing, scores and means alone are equal: 4 N k D against 2 N² D.",
            """That much is right. But keys and values are mixed *before* they are projected, so fewer rows are
            projected.
            Try: how many rows do W_K and W_V see in Linformer?""",
        ),
        256: Finding(
            "256 = k is where the map has as many entries, and where work would be equal if mixing were free.",
            """Scores and means are right, N k D each against N² D. E X and F X are products too, k × N times N × D.
            Try: list all products of both layers with their three sizes.""",
        ),
        313.5: Finding(
            "313 would be right for one mixture: with E = F, keys and values share it.",
            """Scores, means and projections are right. Linformer as the package builds it has an E and an F.
            Try: list all products of both layers with their three sizes.""",
        ),
    },
    reasons={
        "b": Finding(
            "384 is right. But a softmax costs no multiply-adds that are counted here.",
            """Only matrix products are. And N k exponentials against N² would be equal at N = k.
            Try: what does W_K act on?""",
        ),
        "c": Finding(
            "384 is right. But E X and F X make Linformer dearer, by 2 N k D, and the crossing later.",
            """They are in the 2k already: without them, scores and means alone would be equal at N = k.
            Try: what makes it cheaper than 2k says?""",
        ),
    },
    workings="""Linformer: 2 N D² for W_Q and W_O, 2 N k D to mix, 2 k D² for W_K and W_V, 2 N k D for scores and means.
    Softmax: 4 N D² + 2 N² D. Equal where N² + (D − 2k) N = k D, that is N² − 128 N = 98,304: N = 64 + 320 = 384.""",
    hints=(
        "Linformer mixes tokens, E X, before W_K acts on what is left. Write every product with its three sizes.",
        "2 N D² + 4 N k D + 2 k D² against 4 N D² + 2 N² D. Divide by 2 D and solve for N.",
    ),
    passed="""384: before 2k = 512, because k rows are projected to keys and values where N were.
    Next: below that N, Linformer is the dearer one, and E and F are learned besides. What else does a short sequence
    lose by being mixed down to k = 256?""",
)
