"""Momentum attention: linear attention whose state has a velocity, so that the past weighs more than the newest key.

Paper: Nguyen et al., "Momentum Transformer: Closing the Performance Gap Between Self-attention and Its Linearization",
MSML 2022 (arXiv 2208.00579). Adding φ(k_i)ᵀ v_i to linear attention's state is a step of gradient descent; heavy ball:

    p_i = β p_{i-1} − γ φ(k_i)ᵀ v_i      S_i = S_{i-1} − p_i      z_i = z_{i-1} + φ(k_i)                     (1)
    y_i = φ(q_i) S_i / (φ(q_i) z_iᵀ + ε)                          the normaliser has no momentum             (2)

Unrolled, key j reaches query i with a weight that grows with their distance t = i − j, from γ towards γ / (1 − β):

    y_i = Σ_{j ≤ i} w_{i−j} φ(q_i)·φ(k_j) v_j / (Σ_{j ≤ i} φ(q_i)·φ(k_j) + ε)     w_t = γ (1 + β + … + β^t)   (3)

Without a causal order every query reads the last state, and key j weighs w_{M−j}, M the number of real keys. The
authors' causal training code weighs keys so too, M being the length of the padded sequence:

    w_{N−j} for every query i                    form="parallel_total_length"; it equals (3) in the last row only   (4)

β may also follow the state (`refattn/attention/adaptive_momentum.py`). β = 0 with γ = 1 is linear attention.
Cost for N tokens of width d: O(N d²) time; a state of 2 d d_v + d numbers a head, linear attention's has d d_v + d.
"""

from torch.nn import functional as F

from refattn.attention.adaptive_momentum import adaptive_advance, adaptive_momentum, adaptive_weights, empty_adaptive
from refattn.attention.base import Attention, check_heads, check_mask, working_dtype
from refattn.attention.heavy_ball import (
    advance,
    distance_factors,
    empty_momentum,
    last_state_factors,
    momentum_sums,
    read,
)
from refattn.attention.linear import EPS, elu_feature_map, kernel_similarity, kernel_sums
from refattn.layers.momentum import check_momentum

FORMS = ("recurrent", "parallel_total_length")
NORMALISERS = ("sum", "root_length")


def momentum_weights(
    q,
    k,
    *,
    beta,
    gamma,
    is_causal=False,
    form="recurrent",
    normaliser="sum",
    key_padding_mask=None,
    feature_map=elu_feature_map,
    eps=EPS,
):
    """The map that eq. (3) applies, [B, H, N, M]; rows sum to between γ and γ / (1 − β). Args: `momentum_attention`."""
    check_options(form, normaliser, is_causal)
    masks = {"is_causal": is_causal, "key_padding_mask": key_padding_mask}
    similarity = kernel_similarity(feature_map(q), feature_map(k), **masks)
    if is_causal and form == "recurrent":
        factors = distance_factors(q.shape[2], beta, gamma, q.device)
    else:
        padding = {"key_padding_mask": key_padding_mask, "device": k.device}
        factors = last_state_factors(k.shape[2], beta, gamma, form=form, **padding).transpose(-1, -2)
    divisor = k.shape[2] ** 0.5 if normaliser == "root_length" else similarity.sum(-1, keepdim=True) + eps
    return factors.to(similarity.dtype) * similarity / divisor


def momentum_attention_explicit(q, k, v, **options):
    """Eq. (3) through the full N × M map: the quadratic twin of `momentum_attention`."""
    return momentum_weights(q, k, **options) @ v


def momentum_attention(
    q,
    k,
    v,
    *,
    beta,
    gamma,
    is_causal=False,
    form="recurrent",
    normaliser="sum",
    key_padding_mask=None,
    feature_map=elu_feature_map,
    eps=EPS,
):
    """Eqs. (1) and (2) for all tokens at once, linear in their number.

    Args:
        q: queries [B, H, N, d];  k: keys [B, H, M, d];  v: values [B, H, M, d_v].
        beta: β in [0, 1], how much of the velocity stays.  gamma: γ > 0, the step size.
        is_causal: query i sees keys j ≤ i only (needs N == M).
        form: "recurrent", eq. (3), or "parallel_total_length", eq. (4), as the authors train.
        normaliser: "sum", eq. (2), or "root_length": 1/√M in its place, as the authors' Long Range Arena code has it.
        key_padding_mask: [B, M] bool, True where the key is padding. It adds nothing, but between real tokens of a
            causal sequence it takes its time: distances are those of positions.
        feature_map, eps: φ, and ε of eq. (2).

    Returns: [B, H, N, d_v].
    Raises: ValueError if the shapes or options do not fit.
    """
    check_options(form, normaliser, is_causal)
    check_momentum(beta, gamma)
    check_heads(q, k, v, is_causal)
    check_mask(key_padding_mask, k.shape[0], k.shape[2])
    phi_q, phi_k = feature_map(q), feature_map(k)
    if is_causal and form == "recurrent":
        if key_padding_mask is not None:
            phi_k = phi_k.masked_fill(key_padding_mask[:, None, :, None], 0.0)  # after φ, since φ(0) = 1
        numerator, denominator = momentum_sums(phi_q, phi_k, v, beta=beta, gamma=gamma)
    else:
        padding = {"key_padding_mask": key_padding_mask}
        factors = last_state_factors(k.shape[2], beta, gamma, form=form, device=k.device, **padding)
        values = factors.to(working_dtype(v)) * v
        numerator, denominator = kernel_sums(phi_q, phi_k, values, is_causal=is_causal, **padding)
    if normaliser == "root_length":
        return (numerator / k.shape[2] ** 0.5).to(v.dtype)
    return (numerator / (denominator + eps)).to(v.dtype)


class MomentumAttention(Attention):
    """Multi-head momentum attention: linear attention's layer around eq. (3).

    Args: those of `Attention`, and
        beta: β in [0, 1], or "adaptive": it follows the state, which must then be stepped through token by token.
        gamma: γ > 0. With γ = 1 − β, as it comes, the far past weighs as much as in linear attention.
        form: "recurrent" (the paper's) or "parallel_total_length" (the authors' causal training, which their inference
            does not repeat: here, too, the step form is the paper's).
        normaliser: "sum" or "root_length", see `momentum_attention`.
        delta: how far an adaptive β stays below 1.  feature_map, eps: φ, and ε of eq. (2).
    """

    forms = frozenset({"causal", "cross", "mask", "step"})

    def __init__(
        self,
        embed_dim,
        num_heads,
        *,
        beta=0.9,
        gamma=0.1,
        form="recurrent",
        normaliser="sum",
        delta=1e-4,
        feature_map=elu_feature_map,
        eps=EPS,
        **common,
    ):
        super().__init__(embed_dim, num_heads, **common)
        self.is_adaptive = beta == "adaptive"
        check_momentum(0.0 if self.is_adaptive else beta, gamma, delta)
        check_options(form, normaliser, self.is_causal)
        if self.is_adaptive and (form, normaliser) != ("recurrent", "sum"):
            raise ValueError(
                f"form={form!r}, normaliser={normaliser!r}: beta='adaptive' has only 'recurrent' and 'sum'"
            )
        self.beta, self.gamma, self.delta = beta, gamma, delta
        self.form, self.normaliser, self.feature_map, self.eps = form, normaliser, feature_map, eps

    def options(self):
        """What the functions of this method need to know of the layer."""
        shared = {"gamma": self.gamma, "is_causal": self.is_causal, "feature_map": self.feature_map, "eps": self.eps}
        if self.is_adaptive:
            return shared | {"delta": self.delta}
        return shared | {"beta": self.beta, "form": self.form, "normaliser": self.normaliser}

    def forward(self, x, context=None, *, key_padding_mask=None, carry=None):
        """Eq. (3) for every head; dropout acts on the attended values, since there are no weights to drop."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        options = {"key_padding_mask": key_padding_mask, **self.options()}
        y = adaptive_momentum(q, k, v, **options)[0] if self.is_adaptive else momentum_attention(q, k, v, **options)
        return self.projections.merge(F.dropout(y, self.drop)), carry

    def attention_maps(self, x, context=None, *, key_padding_mask=None, carry=None):
        """`"effective"`: the implicit map, [B, H, N, M]; with an adaptive β also `"beta"` [B, H, M], one a key."""
        context = self.check_input(x, context, key_padding_mask)
        q, k, v = self.projections(x, context)
        options = {"key_padding_mask": key_padding_mask, **self.options()}
        if not self.is_adaptive:
            return {"effective": momentum_weights(q, k, **options)}
        effective, betas = adaptive_weights(q, k, v, **options)
        return {"effective": effective, "beta": betas}

    def init_state(self, batch_size, carry=None):
        """Eq. (1) before the first token: `S`, `p` [B, H, d, d] and `z` [B, H, d]; adaptive also the last `U`."""
        sizes = (batch_size, self.num_heads, self.head_dim, self.head_dim)
        empty = empty_adaptive if self.is_adaptive else empty_momentum
        return empty(*sizes, like=self.projections.query.weight)

    def step(self, x_t, state):
        """Eqs. (1) and (2) for one token."""
        q, k, v = self.projections(x_t[:, None])  # each [B, H, 1, d]
        phi_k, v_t = self.feature_map(k)[:, :, 0], v[:, :, 0]
        if self.is_adaptive:
            state, _ = adaptive_advance(phi_k, v_t, state, gamma=self.gamma, delta=self.delta)
        else:
            state = advance(phi_k, v_t, state, beta=self.beta, gamma=self.gamma)
        numerator, denominator = read(self.feature_map(q), state)
        return self.projections.merge((numerator / (denominator + self.eps)).to(v.dtype))[:, 0], state


def check_options(form, normaliser, is_causal):
    """Raise a ValueError for a form or normaliser that is none, or does not fit."""
    if form not in FORMS:
        raise ValueError(f"form={form!r}: wanted one of {', '.join(FORMS)}")
    if normaliser not in NORMALISERS:
        raise ValueError(f"normaliser={normaliser!r}: wanted one of {', '.join(NORMALISERS)}")
    if is_causal and normaliser == "root_length":
        raise ValueError("normaliser='root_length' with is_causal=True: the length is not known while tokens come")
