"""Lesson 20, build: heads of any width, and what each of them tells the CLS token."""

import torch

from refattn import attention as mechanisms
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.checks.wide_attention import answers
from refattn.models.wide_attention import WideEncoder


def three_places(padded=True):
    """Tokens 0 and 1, then a padded 5. Of two heads of width 4 the first reads what a token is, the second nothing."""
    first = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])[:, None]
    z, padding = rows([0], [1], [5])[None], torch.tensor([[False, False, True]])
    seen = slice(None) if padded else slice(2)
    return z[:, seen], padding[:, seen], first, first, first, rows([1, 0, 0, 0, 0, 0, 0, 0]), 2


def layer(lengths=(5, 3), D=8, H=6, d_h=4):
    """Texts of these lengths, padded to the longest."""
    n = max(lengths)
    padding = torch.arange(n) >= torch.tensor(lengths)[:, None]
    z, W_o = seeded(len(lengths), n, D), seeded(D, H * d_h, seed=4)
    return z, padding, *(seeded(H * d_h, D, seed=seed) / 2 for seed in (1, 2, 3)), W_o, H


def by_hand(run):
    """Logits of token 1: 0 and 4/√4 = 2."""
    y = show(run(*three_places()).flatten())
    return f"Tokens 0, 1 and a padded 5, head 1 copies them: wanted [0.5, 0.881, 1]; you return {y}"


def unpadded(run):
    y = show(run(*three_places(padded=False)).flatten())
    return f"Tokens 0 and 1, no padding, head 1 copies them: wanted [0.5, 0.881]; you return {y}"


def seen(run):
    wanted, y = answers.attention(*layer()), run(*layer())
    return f"Texts of five and three tokens, six heads of 4, D = 8: wanted {show(wanted)}; you return {show(y)}"


@torch.no_grad()
def fact_package(run):
    own = mechanisms.build("softmax", 8, 6, head_dim=4, bias=False)
    W = [getattr(own.projections, name).weight for name in ("query", "key", "value", "output")]
    z, padding, *_ = layer()
    if not equal([run(z, padding, *W, 6)], [own(z, key_padding_mask=padding)[0]]):
        return "Six heads of width 4 on a stream of width 8: your numbers are not refattn's."


attention = Exercise(
    "wide_attention.attention",
    answers.attention,
    returns="outputs [B, n, D]",
    probes=(
        Probe("Tokens 0, 1 and a padded 5, D = 1, two heads of width 4, of which the first copies.", three_places),
        Probe("Texts of five and three tokens, D = 8, six heads of width 4: H d_h = 24.", layer),
        Probe("One text of three tokens, D = 4, one head of width 2.", lambda: layer((3,), 4, 1, 2)),
    ),
    variants=(
        Variant(
            "H and d_h swapped",
            answers.attention_swapped,
            lambda run: f"{seen(run)}.",
            """Every shape fits. But head h owns rows h d_h … (h+1) d_h − 1 of each matrix: stretches, and you take
            every H-th row.
            Try: torch.arange(24).reshape(6, 4) beside reshape(4, 6).""",
        ),
        Variant(
            "cut as it lies",
            answers.attention_cut_as_it_lies,
            lambda run: f"{seen(run)}.",
            """Every shape fits. But [n, H d_h] was read as [H, n, d_h] as it lies in memory: your head has features of
            a few tokens, and each token's are scattered over heads.
            Try: reshape to [n, H, d_h], which keeps a token together, and only then transpose.""",
        ),
        Variant(
            "cut and merged as it lies",
            answers.attention_all_as_it_lies,
            lambda run: f"{seen(run)}.",
            """Every shape fits, and the merge undoes the cut. But both read [n, H d_h] as [H, n, d_h] as it lies in
            memory: your head has features of a few tokens only.
            Try: torch.arange(12).reshape(2, 3, 2) beside reshape(3, 2, 2).transpose(0, 1).""",
        ),
        Variant(
            "not put side by side",
            answers.attention_unmerged,
            lambda run: f"{seen(run)}.",
            """Each head is right. But [H, n, d_h] was read as [n, H d_h] as it lies in memory: tokens and heads are
            mixed.
            Try: transpose to [n, H, d_h] first.""",
        ),
        Variant(
            "√D",
            answers.attention_stream_scale,
            lambda run: f"{by_hand(run)}.",
            """Heads are cut and merged as they should be. But a logit is a sum over the d_h features of a head,
            whatever D is.
            Try: with d_h = 4 divide by 2.""",
        ),
        Variant(
            "√(D / H)",
            answers.attention_narrow_scale,
            lambda run: f"{by_hand(run)}.",
            """Heads are cut and merged as they should be. But D / H is the width of a head only where H d_h = D; here
            heads keep their width, however many there are.
            Try: read d_h off q's shape.""",
        ),
        Variant(
            "√(H d_h)",
            answers.attention_inner_scale,
            lambda run: f"{by_hand(run)}.",
            """Heads are cut and merged as they should be. But the scale has the width of one head; with that of
            all heads a wide layer would be flatter than a deep one.
            Try: with d_h = 4 divide by 2.""",
        ),
        Variant(
            "no scale",
            answers.attention_unscaled,
            lambda run: f"{by_hand(run)}.",
            """Heads are cut and merged as they should be. Logits are still to be divided.
            Try: by the root of d_h.""",
        ),
        Variant(
            "softmax over queries",
            answers.attention_over_queries,
            lambda run: f"{unpadded(run)}.",
            """Heads and scale are right. But a query shares one whole out among keys; here each key is shared out among
            queries (and a padded one among none).
            Try: sum A over its last axis.""",
        ),
        Variant(
            "padding is heard",
            answers.attention_all_keys,
            lambda run: f"{by_hand(run)}.",
            """Heads and scale are right. But what stands in a padded place is heard like any token.
            Try: which logit makes a weight of 0?""",
        ),
        Variant(
            "only padding is heard",
            answers.attention_padding_only,
            lambda run: f"{by_hand(run)}.",
            """Heads and scale are right, and something is hidden: the tokens. padding is True where there is none.
            Try: whose logits are to be −∞?""",
        ),
        Variant(
            "padding does not ask",
            answers.attention_hidden_queries,
            lambda run: f"{by_hand(run)}.",
            """Heads and scale are right. But you hid padded places as queries, rows of the map; tokens still hear them
            as keys, its columns.
            Try: padding[:, None, None, :] is [B, 1, 1, n].""",
        ),
        Variant(
            "hidden after softmax",
            answers.attention_hidden_late,
            lambda run: f"{by_hand(run)}.",
            """Heads and scale are right, and padding has weight 0. But it had its share before: rows sum to less
            than 1.
            Try: hide before softmax, so that it shares out one whole among tokens.""",
        ),
    ),
    numbers=(Property("it equals refattn", fact_package, "Six heads of width 4. Try: one head."),),
    hints=(
        "z W_qᵀ is [B, n, H d_h]. Which axes does it have to become, in which order? And which logits must be hidden?",
        "unflatten(-1, (heads, -1)).transpose(1, 2); q kᵀ / √d_h, −∞ at padding[:, None, None]; softmax, times v; "
        "transpose back, flatten(2), times W_oᵀ.",
    ),
    passed="""Heads keep their width whatever D is, the scale is one head's, and padding is nobody's key.
    Next: nn.MultiheadAttention takes d_h = D / H. Why can it not build this layer?""",
)


def alone():
    """One head of width 1, two tokens, D = 1, an MLP that doubles."""
    return rows(1)[0:1].flatten(), rows([0.25, 0.75]), rows([4], [8])[None], rows([0.5]), lambda t: 2 * t


def many(H=3, n=4, d_h=2, D=5):
    A = seeded(H, n, seed=1).softmax(-1)
    return seeded(D), A, seeded(H, n, d_h, seed=2), seeded(D, H * d_h, seed=3), lambda t: t.tanh() * 2 + 1


def pieces(run):
    start, heads, mlp = run(*alone())
    parts = f"start {show(start)}, heads {show(torch.as_tensor(heads).flatten())}, MLP {show(mlp)}"
    return f"x = 1, A = 0.25, 0.75, v = 4, 8, W_o = 0.5, MLP doubles: wanted 1; 0.5, 3; 9. You return {parts}"


def cut(run):
    heads, wanted = run(*many())[1], answers.decompose(*many())[1]
    return f"Three heads of width 2: contributions begin {show(wanted)}; yours {show(heads)}"


@torch.no_grad()
def fact_sum(run):
    """The encoder's own CLS token, before its last norm, in float64."""
    model = WideEncoder(7, embed_dim=8, num_heads=3, head_dim=4, ffn_dim=16, max_len=8).double()
    ids = torch.tensor([[1, 2, 3, 4]])
    block, x = model.stack.blocks[0], model.embed(ids)[0]
    own, z = block.self_attention, block.self_residual.before(x)
    whole = block.feed(x + own(z)[0])[0, 0]
    A = own.attention_maps(z)["effective"][0, :, 0]
    V, W_o = own.projections.keys_values(z)[1][0], own.projections.output.weight
    start, heads, mlp = run(x[0, 0], A, V, W_o, lambda after: block.feed(after[None, None])[0, 0] - after)
    error = (start + heads.sum((0, 1)) + mlp - whole).abs().max().item()
    if not error < 1e-10:
        return f"A whole layer of refattn: your pieces miss the CLS token by {error:.2g}."


decompose = Exercise(
    "wide_attention.decompose",
    answers.decompose,
    returns="three tensors: the start [D], contributions of heads and tokens [H, n, D], the MLP's [D]",
    probes=(
        Probe("One head of width 1, two tokens, D = 1: 1; 0.5 and 3; 9.", alone),
        Probe("Three heads of width 2, four tokens, D = 5.", many),
    ),
    variants=(
        Variant(
            "no start",
            answers.decompose_no_start,
            lambda run: f"{pieces(run)}.",
            """Heads and MLP are right. The residual carries the CLS token's own embedding past both.
            Try: the first piece is x.""",
        ),
        Variant(
            "no MLP",
            answers.decompose_no_mlp,
            lambda run: f"{pieces(run)}.",
            """Start and heads are right. The MLP adds to the CLS token, too; without it the pieces do not sum up.
            Try: the third piece is what mlp returns.""",
        ),
        Variant(
            "MLP before attention",
            answers.decompose_early,
            lambda run: f"{pieces(run)}.",
            """Start and heads are right. But the MLP reads the stream after attention was added.
            Try: mlp(x + all contributions).""",
        ),
        Variant(
            "MLP of the heads alone",
            answers.decompose_heads_only,
            lambda run: f"{pieces(run)}.",
            """Start and heads are right. But the MLP reads the stream, and the start is in it, too.
            Try: mlp(x + all contributions).""",
        ),
        Variant(
            "the residual twice",
            answers.decompose_whole,
            lambda run: f"{pieces(run)}.",
            """Start and heads are right. Your third piece is the whole token: with it start and heads count twice.
            Try: only what mlp returns; the sum of all pieces is then the token.""",
        ),
        Variant(
            "W_o cut the other way",
            answers.decompose_swapped,
            lambda run: f"{cut(run)}.",
            """Every shape fits. But head h owns columns h d_h … (h+1) d_h − 1 of W_o.
            Try: W_o.unflatten(1, (H, d_h)).""",
        ),
        Variant(
            "not weighted",
            answers.decompose_unweighted,
            lambda run: f"{pieces(run)}.",
            """W_o v is what a token would say. It is heard with weight A.
            Try: A[h, j] times W_o,h V[h, j].""",
        ),
    ),
    numbers=(Property("pieces sum to the CLS token", fact_sum, "To rounding. Try: start + heads.sum((0, 1)) + mlp."),),
    hints=(
        "W_o [head 1; head 2; …] is a sum over heads, and each head is a sum over tokens. Which columns are head h's?",
        "W_o.unflatten(1, (H, -1)) is [D, H, d_h]; einsum('hj,hjd,ehd->hje', A, V, W); mlp of x plus their sum.",
    ),
    passed="""Start, contributions and MLP are the whole token; nothing is left over.
    Next: a last LayerNorm follows, and divides by a length that depends on all pieces. Are logits still a sum?""",
)
