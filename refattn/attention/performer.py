"""Performer: random features whose products are, on average, the exponentials of softmax attention (FAVOR+).

Paper: Choromanski et al., "Rethinking Attention with Performers", ICLR 2021 (arXiv 2009.14794).

    exp(q·k/√d) = E_ω [ exp(ω·q̃ − |q̃|²/2) exp(ω·k̃ − |k̃|²/2) ]      x̃ = x / d^¼,  ω ~ N(0, I_d)            (1)
    φ(x) = exp(Ωx̃ − |x̃|²/2) / √m                  Ω: m draws of ω as rows, made once and kept, [m, d]       (2)
    y_i = φ(q_i) Σ_j φ(k_j)ᵀ v_j  /  φ(q_i) Σ_j φ(k_j)ᵀ              kernel attention, see `linear.py`       (3)

The features are positive, so no weight is negative and no denominator near zero; and rows of Ω are drawn orthogonal in
blocks of d, which lowers the variance and leaves every single row Gaussian.

Exponentials leave the range of numbers, so (2) needs a stabiliser. What belongs to one query cancels in (3); what
belongs to one key is a weight, and does not:

    φ_q(q) = softmax(Ωq̃)          φ_k(k) = exp(Ωk̃ − |k̃|²/2 − c),     c = 0 unless the key is huge            (4)

The authors subtract the largest (Ωk̃)_r of *all* keys, later ones included, and add ε = 10⁻⁴ to both features: the past
changes a little with the future, and where |k̃|²/2 > 9 nothing but ε is left, so all weights become equal. That is the
option `stabiliser="maximum"`. Another kernel than softmax's, without exponentials, is `kernel="relu"`:

    φ(x) = relu(Ωx̃) + 10⁻³                                                                                    (5)

Cost for N tokens: O(N m d) time and O(m d) state, with m features a head.
"""

import math

import torch
from torch.nn import functional as F

from refattn.attention.base import Attention, check_heads, check_mask, working_dtype
from refattn.attention.linear import add_token, empty_sums, kernel_similarity, kernel_sums

EPS = {"maximum": 1e-4, "relu": 1e-3}  # added to every feature by the authors' stabiliser, and in eq. (5)
RANGE = 40.0  # c of eq. (4) keeps a key's largest exponent between ± this
FLOOR = 1e-30  # added to φ(q)·φ(k), and far below e^−RANGE: a query whose products all vanish takes the mean


def random_rows(num_features, head_dim, *, orthogonal=True, row_norms="chi", generator=None):
    """Ω of eq. (2): m random rows of width d, [m, d].

    Args:
        orthogonal: rows of a block of d are orthogonal; blocks are independent. Otherwise all rows are.
        row_norms: "chi": those of Gaussian vectors, so every row is N(0, I); "sqrt_d": all √d (only if orthogonal).
        generator: where the random numbers come from (torch's own without one).
    """
    draw = {"generator": generator, "dtype": torch.float64}
    gaussians = torch.randn(num_features, head_dim, **draw)
    if not orthogonal:
        return gaussians.to(torch.get_default_dtype())
    blocks = torch.randn(math.ceil(num_features / head_dim), head_dim, head_dim, **draw)
    norms = gaussians.norm(dim=1, keepdim=True) if row_norms == "chi" else math.sqrt(head_dim)
    return (norms * orthogonal_rows(blocks)[:num_features]).to(torch.get_default_dtype())


def orthogonal_rows(blocks):
    """Gaussian blocks [n, d, d] to rows [n d, d] of norm one, orthogonal within a block, each uniform on the sphere."""
    Q, R = torch.linalg.qr(blocks)
    # QR's own signs are a convention of its library: left alone, each row fills half a sphere only, and (1) is biased
    Q = Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    return Q.transpose(-1, -2).flatten(0, 1)


def projected(x, Omega, scale=None):
    """Ωx̃ of eq. (1) [B, H, N, m], and the factor x̃ / x: 1/d^¼ unless given. Float32 for half-precision input."""
    scale = x.shape[-1] ** -0.25 if scale is None else scale
    dtype = working_dtype(x)
    return x.to(dtype) @ (Omega.to(dtype) * scale).transpose(-1, -2), scale  # scaling Ω is cheaper than scaling x


def half_square(x, scale):
    """|x̃|²/2 of eq. (1), [B, H, N, 1]."""
    return x.to(working_dtype(x)).square().sum(-1, keepdim=True) * (scale**2 / 2)


def positive_features(x, Omega, *, scale=None):
    """φ of eq. (2) as it stands, [B, H, N, m]: φ(q)·φ(k) estimates exp(q·k/√d) without bias. Not stabilised."""
    exponents, scale = projected(x, Omega, scale)
    return (exponents - half_square(x, scale)).exp() / math.sqrt(len(Omega))


def trigonometric_features(x, Omega, *, scale=None):
    """The features that the paper improves on, [B, H, N, 2m]: exp(|x̃|²/2) [cos Ωx̃, sin Ωx̃] / √m.

    Unbiased too, but a product may be negative, and small weights drown in noise.
    """
    angles, scale = projected(x, Omega, scale)
    return half_square(x, scale).exp() * torch.cat([angles.cos(), angles.sin()], -1) / math.sqrt(len(Omega))


def constant_features(q, k, Omega, *, scale=None):
    """φ_q and φ_k of eq. (4): eq. (2) up to a factor of each query; every key on its own, so nothing can leak.

    Returns: [B, H, N, m], rows that sum to one, and [B, H, M, m].
    """
    phi_q = projected(q, Omega, scale)[0].softmax(-1)
    exponents, scale = projected(k, Omega, scale)
    size = half_square(k, scale)  # [B, H, M, 1]
    with torch.no_grad():  # c counts as a constant
        largest = exponents.amax(-1, keepdim=True) - size
        c = largest - largest.clamp(-RANGE, RANGE)
    return phi_q, exponents.sub_(size + c).exp_()  # in place: new memory costs more than the arithmetic


def maximum_features(q, k, Omega, *, scale=None, eps=EPS["maximum"], key_padding_mask=None):
    """The authors' stabiliser: subtract the largest (Ωx̃)_r of a query, and of all real keys together; add ε.

    Returns: [B, H, N, m] and [B, H, M, m].
    """
    exponents, scale = projected(q, Omega, scale)
    phi_q = (exponents - half_square(q, scale) - exponents.amax(-1, keepdim=True).detach()).exp() + eps
    exponents, scale = projected(k, Omega, scale)
    if key_padding_mask is not None:
        lowest = torch.finfo(exponents.dtype).min  # a padded key is never the largest
        exponents = exponents.masked_fill(key_padding_mask[:, None, :, None], lowest)
    phi_k = (exponents - half_square(k, scale) - exponents.amax((-2, -1), keepdim=True).detach()).exp() + eps
    return phi_q / math.sqrt(len(Omega)), phi_k / math.sqrt(len(Omega))


def relu_features(x, Omega=None, *, scale=None, eps=EPS["relu"]):
    """φ of eq. (5), [B, H, N, m]; without Ω the entries of x̃ are the features, and m = d."""
    if Omega is None:
        return F.relu(x * (x.shape[-1] ** -0.25 if scale is None else scale)) + eps
    return F.relu(projected(x, Omega, scale)[0]) + eps


def features(q, k, Omega, *, kernel="softmax", stabiliser="constant", eps=None, scale=None, key_padding_mask=None):
    """φ_q(q) [B, H, N, m] and φ_k(k) [B, H, M, m] of the chosen kernel. Args: as `performer_attention`."""
    if kernel == "softmax" and stabiliser == "constant":
        return constant_features(q, k, Omega, scale=scale)
    options = {"scale": scale, "eps": EPS["relu" if kernel == "relu" else "maximum"] if eps is None else eps}
    if kernel == "relu":
        return relu_features(q, Omega, **options), relu_features(k, Omega, **options)
    return maximum_features(q, k, Omega, key_padding_mask=key_padding_mask, **options)


def divide(numerator, denominator, phi_q, denominator_eps=0.0):
    """The fraction of eq. (3); zero for a query that sees no key. denominator_eps: see `performer_attention`."""
    if denominator_eps:
        denominator = denominator + denominator_eps * phi_q.sum(-1, keepdim=True)
    return numerator / denominator.masked_fill(denominator == 0, 1.0)


def performer_weights(q, k, Omega, *, is_causal=False, key_padding_mask=None, denominator_eps=0.0, **chosen):
    """The map that `performer_attention` applies implicitly, [B, H, N, M]. Args: as there."""
    phi_q, phi_k = features(q, k, Omega, key_padding_mask=key_padding_mask, **chosen)
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    similarity = kernel_similarity(phi_q, phi_k, **masks, floor=FLOOR)
    return divide(similarity, similarity.sum(-1, keepdim=True), phi_q, denominator_eps)


def performer_attention_explicit(q, k, v, Omega, **options):
    """Eq. (3) through the full N × M map: the quadratic twin of `performer_attention`."""
    return performer_weights(q, k, Omega, **options) @ v


def performer_attention(q, k, v, Omega, *, is_causal=False, key_padding_mask=None, denominator_eps=0.0, **chosen):
    """Eq. (3): kernel attention with random features, linear in the number of tokens.

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d];  v: values [B, H, M, d_v].
        Omega: Ω [m, d], the same for all heads; None (relu only): no projection.
        is_causal: query i sees keys j ≤ i only (needs N == M).
        key_padding_mask: [B, M] bool, True where the key is padding.
        denominator_eps: added to each entry of Σ φ(k) (10⁻⁶ in the authors' causal form).
        chosen: kernel: "softmax", eqs. (2) and (4), or "relu", eq. (5);  stabiliser: "constant", eq. (4), or "maximum",
            the authors';  eps: of the authors' stabiliser and of eq. (5), see `EPS`;  scale: x̃ / x, 1/d^¼ unless given.

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes do not fit.
    """
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    phi_q, phi_k = features(q, k, Omega, key_padding_mask=key_padding_mask, **chosen)
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    numerator, denominator = kernel_sums(phi_q, phi_k, v, **masks, floor=FLOOR)
    return divide(numerator, denominator, phi_q, denominator_eps).to(v.dtype)


class Performer(Attention):
    """Multi-head FAVOR+ attention (Choromanski et al. 2021): softmax attention's layer around eq. (3).

    Args: those of `Attention`, and
        num_features: m (default d ln d, at least d; 0: no projection, for the relu kernel only).
        orthogonal, row_norms: how Ω is drawn, see `random_rows`.
        seed: of Ω; without one it is drawn like the layer's other weights, from torch's generator.
        kernel, stabiliser, eps, scale, denominator_eps: see `performer_attention`.
    Ω is a buffer: saved with the weights, not trained. `redraw` makes a new one.
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        num_features=None,
        orthogonal=True,
        row_norms="chi",
        seed=None,
        kernel="softmax",
        stabiliser="constant",
        eps=None,
        scale=None,
        denominator_eps=0.0,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        d = self.head_dim
        num_features = max(d, int(d * math.log(d))) if num_features is None else num_features
        for name, value, known in (
            ("kernel", kernel, ("softmax", "relu")),
            ("stabiliser", stabiliser, ("constant", "maximum")),
            ("row_norms", row_norms, ("chi", "sqrt_d")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r}: wanted one of {', '.join(known)}")
        if num_features < (0 if kernel == "relu" else 1):
            raise ValueError(f"num_features={num_features}: wanted at least one feature (0 with kernel='relu' only)")
        if eps is not None and (kernel, stabiliser) == ("softmax", "constant"):
            raise ValueError(f"eps={eps} with stabiliser='constant', which adds none: wanted None")
        self.drawing = {"orthogonal": orthogonal, "row_norms": row_norms}
        self.chosen = {"kernel": kernel, "stabiliser": stabiliser, "eps": eps, "scale": scale}
        self.denominator_eps, self.num_features = denominator_eps, num_features or d
        Omega = None
        if num_features:
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            Omega = random_rows(num_features, d, generator=generator, **self.drawing)
        self.register_buffer("Omega", Omega)

    @torch.no_grad()
    def redraw(self, seed):
        """A new Ω, drawn from `seed` alone: every few thousand training steps (the authors), never in evaluation.

        Raises: ValueError for a layer without Ω.
        """
        if self.Omega is None:
            raise ValueError("num_features=0: this layer has no random features to draw again")
        generator = torch.Generator().manual_seed(seed)
        self.Omega.copy_(random_rows(*self.Omega.shape, generator=generator, **self.drawing))

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (3) for every head; dropout acts on the attended values, since there are no weights to drop."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        y = performer_attention(q, k, v, self.Omega, key_padding_mask=key_padding_mask, **self.options())
        return self.projections.merge(F.dropout(y, self.drop)), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the implicit map, [B, H, N, M]."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, _ = self.projections(x, context)
        return {"effective": performer_weights(q, k, self.Omega, key_padding_mask=key_padding_mask, **self.options())}

    def options(self):
        """What every function of this file needs to know of the layer, besides Ω."""
        return self.chosen | {"is_causal": self.is_causal, "denominator_eps": self.denominator_eps}

    def init_state(self, batch_size, carry=None):
        """Before the first token: `S` [B, H, m, d_v] and `z` [B, H, m], zero."""
        if self.chosen["kernel"] == "softmax" and self.chosen["stabiliser"] == "maximum":
            raise ValueError("stabiliser='maximum' looks at all keys, so there are no steps: wanted 'constant'")
        weight = self.projections.query.weight
        return empty_sums(batch_size, self.num_heads, self.num_features, self.head_dim, like=weight)

    def step(self, x_t, state):
        """One token: O(m d_v) time whatever came before."""
        q, k, v = self.projections(x_t[:, None])  # each [B, H, 1, d]
        phi_q, phi_k = (phi[:, :, 0] for phi in features(q, k, self.Omega, **self.chosen))
        phi_k = phi_k + FLOOR  # one on every product, since φ_q sums to one
        numerator, denominator, state = add_token(phi_q, phi_k, v[:, :, 0], state)
        y = divide(numerator, denominator, phi_q, self.denominator_eps).to(v.dtype)
        return self.projections.merge(y[:, :, None])[:, 0], state
