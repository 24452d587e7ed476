"""Lesson 22, build: the interleaved decoder layer, pre-LN, around attentions that it is handed."""

import torch
from torch.nn import functional as F

from refattn.attention.base import Projections
from refattn.checks.compare import equal, rows, seeded, show
from refattn.checks.edgeformer import answers
from refattn.checks.frame import ALMOST, Exercise, Probe, Property, Variant
from refattn.layers.feed_forward import FeedForward
from refattn.models.edgeformer import DecoderLayer


def shift(by):
    return lambda u, *_: u + by


def by_hand():
    """Norms 2u, −2u and u/2; attentions and a net that add constants."""
    norms = {"self": lambda u: 2 * u, "net": lambda u: -2 * u, "cross": lambda u: u / 2}
    return rows([1, 0]), rows([4, 4]), shift(1), lambda u, e: e.mean(0, keepdim=True) + u, shift(3), norms


def parts(T=4, S=3, D=6, seed=0):
    """Tensors of a layer with gained norms: (x, encoded, weights of both attentions, W_1, W_2, gains)."""
    W = [0.5 * seeded(D, D, seed=seed + i) for i in range(6)]
    net = 0.5 * seeded(4, D, seed=seed + 7), 0.5 * seeded(D, 4, seed=seed + 8)
    gains = {name: 1 + 0.3 * seeded(D, seed=seed + 9 + i) for i, name in enumerate(("self", "net", "cross"))}
    return seeded(T, D, seed=seed + 20), seeded(S, D, seed=seed + 21), W, net, gains


def layer_of(x, encoded, W, net, gains):
    """The arguments of the exercise, around these tensors."""

    def own(u):
        seen = torch.ones(len(u), len(u), dtype=torch.bool).tril()
        return answers.attend(*(u @ w.T.to(u.dtype) for w in W[:3]), seen)

    def cross(u, e):
        return answers.attend(u @ W[3].T.to(u.dtype), *(e @ w.T.to(u.dtype) for w in W[4:]))

    def feed(u):
        return torch.relu(u @ net[0].T.to(u.dtype)) @ net[1].T.to(u.dtype)

    def normed(gain):
        return lambda u: F.layer_norm(u, u.shape[-1:]) * gain.to(u.dtype)

    return x, encoded, own, cross, feed, {name: normed(gain) for name, gain in gains.items()}


def simple(run):
    found = show(run(*by_hand()))
    return f"Norms 2u, -2u and u/2, own(u) = u + 1, net(u) = u + 3: wanted [[0.5, -4]]; you return {found}"


def fact_gradient(run):
    def gradient(function):
        x, encoded, W, net, gains = parts()
        net[0].requires_grad_(), gains["net"].requires_grad_()
        y = function(*layer_of(x, encoded, W, net, gains))
        return torch.autograd.grad((y * y.detach().cos()).sum(), (net[0], gains["net"]), allow_unused=True)

    found, wanted = gradient(run), gradient(answers.interleaved_layer)
    if any(g is None for g in found) or not equal(list(found), list(wanted)):
        return "Every number is right. But the gradients of the net and of its norm are not sums over both uses."


def plain(module):
    """The module for tensors of any precision."""
    return lambda *tensors: module(*(t.float() for t in tensors)).to(tensors[0].dtype)


def fact_package(run):
    D, heads = 8, 1
    maps = [Projections(D, heads), Projections(D, heads)]
    layer = DecoderLayer(D, heads, *maps, FeedForward(D, 4, activation="relu"), norm="pre")
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(0.4 * seeded(*parameter.shape, seed=i) + (parameter.dim() == 1) * 0.5)
    x, encoded = seeded(1, 5, D, seed=40), seeded(1, 4, D, seed=41)
    norms = {"self": layer.self_residual.norm, "net": layer.net_residual.norm, "cross": layer.cross_residual.norm}
    norms = {name: plain(norm) for name, norm in norms.items()}
    attentions = plain(lambda u: layer.self_attention(u)[0]), plain(lambda *both: layer.cross_attention(*both)[0])
    with torch.no_grad():
        error = (run(x, encoded, *attentions, plain(layer.net), norms) - layer(x, encoded)).abs().max().item()
    if not error < 1e-4:
        return f"Five tokens, D = 8: you differ from refattn by {error:.2g}."


interleaved_layer = Exercise(
    "edgeformer.interleaved_layer",
    answers.interleaved_layer,
    returns="the layer's output [T, D]",
    probes=(
        Probe("Norms 2u, -2u and u/2 (self, net, cross), attentions and a net that add constants.", by_hand),
        Probe("Four tokens, D = 6, three source tokens, LayerNorms with gains.", lambda: layer_of(*parts())),
    ),
    variants=(
        Variant(
            "standard order",
            answers.interleaved_layer_standard,
            lambda run: f"{simple(run)}.",
            """A standard decoder layer: attention, attention, net. Interleaved, a net follows each attention.
            Try: does every attention of yours stand before a net, as in the encoder?""",
        ),
        Variant(
            "another norm for the second use",
            answers.interleaved_layer_third_norm,
            lambda run: f"{simple(run)}.",
            """All four sub-layers, in order. The second use of the net begins with a norm of its own, without gains.
            Try: how many norms were you handed?""",
        ),
        Variant(
            "residuals missing",
            answers.interleaved_layer_no_residual,
            lambda run: f"{simple(run)}.",
            """The order is right. Each sub-layer replaces the stream instead of adding to it.
            Try: u + ..., outside the norm.""",
        ),
        Variant(
            "cross attention replaces",
            answers.interleaved_layer_cross_replaces,
            lambda run: f"{simple(run)}.",
            """Three of four sub-layers add to the stream. Cross attention replaces it: what the target said is lost.
            Try: u + ..., in every line.""",
        ),
        Variant(
            "norms after",
            answers.interleaved_layer_post,
            lambda run: f"{simple(run)}.",
            """The order is right, and this is the lesson's layer: post-LN, a norm around each sum. Asked is pre-LN.
            Try: eq. 2, from the inside. What do own, net and cross read, and what is added to what?""",
        ),
        Variant(
            "the stream is normalised",
            answers.interleaved_layer_normed_stream,
            lambda run: f"{simple(run)}.",
            """Every sub-layer reads what a norm made, as it should. But its output is added to the normalised stream;
            pre-LN adds to the stream as it was.
            Try: which u stands before the plus sign?""",
        ),
        Variant(
            "a norm at the end",
            answers.interleaved_layer_last_norm,
            lambda run: f"{simple(run)}.",
            """All four lines are right, and one is too many: with pre-LN the last norm is the stack's, not the layer's.
            Try: count the norms in eq. 2.""",
        ),
        Variant(
            "one net",
            answers.interleaved_layer_one_net,
            lambda run: f"{simple(run)}.",
            """Three lines of four are right. After cross attention the net comes again.
            Try: does every attention of yours stand before a net, as in the encoder?""",
        ),
        Variant(
            "cross attention asks too early",
            answers.interleaved_layer_stale,
            lambda run: f"{simple(run)}.",
            """Sums and norms are right. But queries come from before the first net, which only adds beside them.
            Try: print what cross is called with.""",
        ),
    ),
    properties=(
        Property(
            "gradients are sums over both uses",
            fact_gradient,
            "Numbers of a copy are the same, its gradient is not. Try: call what you were handed, twice.",
            ALMOST,
        ),
    ),
    numbers=(Property("it equals refattn", fact_package, "Eq. 2, line by line. Try: one line at a time."),),
    hints=(
        "Four lines, each u + sub-layer(norm(u)). Two of them are the same line.",
        'u = x + own(norms["self"](x)); then net, then cross(…, encoded), then net again.',
    ),
    passed="""Attention and net, twice, with one net and one norm for both.
    Next: an encoder layer lends this layer its attention. Whose LayerNorm must match whose, and why does none?""",
)
