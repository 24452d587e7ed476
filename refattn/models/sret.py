"""SReT: a block is applied several times in a row, on slices that are cut anew each time; and its network for images.

Paper: Shen et al., "Sliced Recursive Transformer", ECCV 2022 (arXiv 2111.05297). Card: sret. K blocks own weights and
are applied T times each, L = K T applications; c and e are learned scalars (`refattn/layers/coefficients.py`):

    u = c₁ x + c₂ GA_G^π(LN x),     F(x; G, π) = c₃ u + c₄ FF(LN u)              one application of a block        (1)
    x ← P_j(F_⌊j/T⌋(x; G_j, π_j)),  j = 0 … L − 1                               P_j is never shared (NLL)          (2)
    image → stem + position map → stage → grouped convolution → stage → … → mean → LN → linear                    (3)

    M = N (4 C² + 2 N C / G + 2 h C + 2 h' C)          multiply-adds of one application with its P_j                (4)

A shared block's gradient is the sum over its passes. Sharing saves weights and optimiser state; it saves neither time
nor activations. The authors' stochastic depth belongs to their recipe of 300 epochs, and is not here.
"""

import torch
from torch import nn
from torch.nn import functional as F

from refattn import attention as mechanisms
from refattn.layers.coefficients import CoefficientResidual, NonLinearProjection
from refattn.layers.embedding import Embedding
from refattn.layers.pooling import masked_mean
from refattn.layers.residual import Residual
from refattn.layers.sliced import Sliced, check_permutation
from refattn.models.stack import seeded

EPS = 1e-6


def count_multiply_adds(tokens, width, *, groups=1, ffn_hidden=0, nll_hidden=0):
    """Eq. (4) by parts: linear (projections and feed-forward nets), attention, and their total."""
    parts = {
        "linear": tokens * (4 * width**2 + 2 * (ffn_hidden + nll_hidden) * width),
        "attention": 2 * tokens**2 * width // groups,
    }
    return parts | {"total": sum(parts.values())}


class RecursiveBlock(nn.Module):
    """Eq. (1): a block whose slices every call chooses.

    Args:
        width, num_heads: C and H.  ffn_hidden: h.
        attention, attention_options: a mechanism by its catalogue name, and its options.
        coefficients: c₁ … c₄ are learned; else plain residuals.

    Raises: ValueError for a mechanism that owns its residual.
    """

    def __init__(
        self, width, num_heads, ffn_hidden, *, attention="softmax", attention_options=None, coefficients=True, eps=EPS
    ):
        super().__init__()
        kind = mechanisms.mechanism(attention)
        if kind.owns_residual:
            raise ValueError(f"attention={attention!r} owns its residual: wanted one that leaves it to the block")
        alone = {"first_in_chain": True, "last_in_chain": True} if kind.chain_name() else {}
        layer = mechanisms.build(attention, width, num_heads, **alone, **(attention_options or {}))
        for linear in (m for m in (layer.projections or nn.Identity()).modules() if isinstance(m, nn.Linear)):
            linear.reset_parameters()  # the authors keep PyTorch's own initial weights
        residual = CoefficientResidual if coefficients else Residual
        self.attention, self.residual = Sliced(layer), residual(width, norm="pre", eps=eps)
        self.feed = NonLinearProjection(width, ffn_hidden, residual=residual, eps=eps)

    def forward(self, x, *, maps=None, **slicing):
        """[B, N, C] to [B, N, C]; slicing: arguments of `Sliced`;  maps: a list that receives the attention maps."""
        read = self.residual.before(x)
        if maps is not None:
            maps.append(self.attention.attention_maps(read, **slicing))
        return self.feed(self.residual.after(x, self.attention(read, **slicing))[0])


class RecursiveStage(nn.Module):
    """Eq. (2): K blocks, each applied T times in a row.

    From a block's second pass on tokens are shuffled before they are cut, if there is more than one slice: while
    training by a fresh permutation a call, one for the whole batch. *The authors* do so while testing, too, and their
    logits change from call to call. Here a test has permutations of its own, the same in every call; torch.compile
    makes them constants of its graph, so with fullgraph=True it needs dynamic=False: a graph for each N.

    Args:
        width, num_heads, blocks, loops: C, H, K, T.
        groups: G of a block's first pass, second pass, …; the last number holds for all further ones.
        ffn_hidden, nll_hidden: h and h'; None: no P.  shared_nll: one P a block, not one an application.
        official_marker: odd applications have groups[1] and are shuffled, whatever T is. So the authors' code tells
            passes apart; with T = 2 it is the same.
        random_evaluation: fresh permutations in evaluation, too, as in the authors' code.
        attention, attention_options, coefficients, eps, seed: see `RecursiveBlock` and `seeded`.

    Raises: ValueError for numbers below 1 (also h and h'), or an `official_marker` without two groups.
    """

    def __init__(
        self,
        width,
        num_heads,
        *,
        blocks=1,
        loops=2,
        groups=(1, 1),
        ffn_hidden,
        nll_hidden=None,
        shared_nll=False,
        official_marker=False,
        random_evaluation=False,
        attention="softmax",
        attention_options=None,
        coefficients=True,
        eps=EPS,
        seed=0,
    ):
        super().__init__()
        if blocks < 1 or loops < 1 or not groups or min(groups) < 1:
            raise ValueError(f"blocks={blocks}, loops={loops}, groups={groups}: wanted positive numbers")
        if ffn_hidden < 1 or (nll_hidden is not None and nll_hidden < 1):
            came = f"ffn_hidden={ffn_hidden}, nll_hidden={nll_hidden}"
            raise ValueError(f"{came}: wanted positive numbers, or nll_hidden=None")
        if official_marker and len(groups) != 2:
            raise ValueError(f"groups={groups}: wanted two with official_marker=True")
        self.loops, self.groups, self.official_marker = loops, tuple(groups), official_marker
        self.random_evaluation, self.shared_nll = random_evaluation, shared_nll
        self.blocks, self.projections = nn.ModuleList(), nn.ModuleList()
        made = {"attention": attention, "attention_options": attention_options}
        for b in range(blocks):
            with seeded(seed, f"block{b}"):
                self.blocks.append(
                    RecursiveBlock(width, num_heads, ffn_hidden, coefficients=coefficients, eps=eps, **made)
                )
        residual = CoefficientResidual if coefficients else Residual
        for j in range(0 if nll_hidden is None else blocks if shared_nll else blocks * loops):
            with seeded(seed, f"projection{j}"):
                self.projections.append(NonLinearProjection(width, nll_hidden, residual=residual, eps=eps))

    @property
    def applications(self):
        """[(block, groups, shuffled)] of j = 0 … L − 1."""
        found = []
        for j in range(len(self.blocks) * self.loops):
            again = j % 2 if self.official_marker else j % self.loops  # which pass of the block
            count = self.groups[min(again, len(self.groups) - 1)]
            found.append((j // self.loops, count, again > 0 and count > 1))
        return found

    def permutation(self, tokens, place, generator=None):
        """π of the application at `place`: int64 [N], on the CPU."""
        if generator is None and not (self.training or self.random_evaluation):
            return order_of_a_test(tokens, place)
        return torch.randperm(tokens, generator=generator, device="cpu")

    def forward(self, x, *, permutations=None, generator=None, key_padding_mask=None, maps=None, states=None):
        """[B, N, C] to [B, N, C].

        Args:
            permutations: iterator of int64 [N], one taken for each shuffled application, instead of drawn ones.
                Raises: ValueError if it ends too soon, or for what is no permutation.
            generator: of the permutations, on the CPU. The default is told above.
            key_padding_mask: [B, N], True = padding.
            maps, states: lists that receive each application's attention maps, and x after it.
        """
        for j, (b, groups, shuffled) in enumerate(self.applications):
            slicing = {"groups": groups, "key_padding_mask": key_padding_mask}
            if shuffled:
                if permutations is None:
                    order = self.permutation(x.shape[1], j, generator)
                else:
                    order = check_permutation(next(permutations, None), x.shape[1])
                slicing["permutation"] = order.to(x.device)
            x = self.blocks[b](x, maps=maps, **slicing)
            if len(self.projections):
                x = self.projections[b if self.shared_nll else j](x)
            if states is not None:
                states.append(x)
        return x


@torch.compiler.assume_constant_result
def order_of_a_test(tokens, place):
    """π of the application at `place` in evaluation: int64 [N]."""
    return torch.randperm(tokens, generator=torch.Generator().manual_seed(place), device="cpu")


class RecursiveClassifier(nn.Module):
    """One stage for sequences: tokens to classes of the whole sequence, or of every token.

    Args:
        vocab_size, num_classes: of inputs and head.  pool: "mean" over real tokens, or "none": logits for every token.
        embed_dim, num_heads, max_len: C, H, longest sequence (positions are learned).
        ffn_hidden, seed and stage: those of `RecursiveStage`.

    Raises: ValueError for another pool.
    """

    def __init__(
        self, vocab_size, num_classes, *, embed_dim=32, num_heads=2, max_len=1024, pool="mean", seed=0, **stage
    ):
        super().__init__()
        if pool not in ("mean", "none"):
            raise ValueError(f"pool={pool!r}: wanted 'mean' or 'none'")
        self.pool = pool
        with seeded(seed, "embedding"):
            self.embedding = Embedding(vocab_size, embed_dim, positions="learned", max_len=max_len)
        stage = {"ffn_hidden": 2 * embed_dim} | stage
        self.stage = RecursiveStage(embed_dim, num_heads, seed=seed, **stage)
        self.norm = nn.LayerNorm(embed_dim, eps=EPS)
        with seeded(seed, "head"):
            self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, inputs, *, key_padding_mask=None, permutations=None, generator=None, maps=None, states=None):
        """Logits [B, classes], or [B, N, classes] with pool="none"; the rest: see `RecursiveStage`.

        permutations: one for each shuffled application. Raises: ValueError for another number.
        """
        kept = {"maps": maps, "states": states, "generator": generator}
        given = check_count(permutations, [self.stage])
        x = self.norm(self.stage(self.embedding(inputs), key_padding_mask=key_padding_mask, permutations=given, **kept))
        return self.head(masked_mean(x, key_padding_mask) if self.pool == "mean" else x)

    @torch.no_grad()
    def attention_maps(self, inputs, **options):
        """One dict per application: {"effective" [B, H, N, N], "allow" [N, N]}."""
        maps = []
        self(inputs, maps=maps, **options)
        return maps


def check_count(permutations, stages):
    """An iterator over permutations, or None. Raises: ValueError unless there is one for each shuffled application."""
    if permutations is None:
        return None
    permutations = list(permutations)
    wanted = sum(shuffled for stage in stages for _, _, shuffled in stage.applications)
    if len(permutations) != wanted:
        raise ValueError(f"permutations has {len(permutations)} entries: wanted one a shuffled application, {wanted}")
    return iter(permutations)


def soft_label_loss(student, teacher, temperature=1.0):
    """−mean over the batch of Σ_k softmax(t / τ)_k log softmax(s / τ)_k, without a factor τ²: logits [B, classes].

    The teacher gets no gradient. Raises: ValueError for logits of other shapes.
    """
    if student.dim() != 2 or student.shape != teacher.shape:
        came = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        raise ValueError(f"{came}: wanted logits [B, classes] of both")
    return F.cross_entropy(student / temperature, (teacher.detach() / temperature).softmax(-1))
