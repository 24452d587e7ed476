"""The packages people use today for the same work, called as their documentation says; `make peers` installs them.

Beside them, as peers that are always there, mechanisms in their own explicit form (`twins.py`).

Ours and theirs are timed in turn, in one process, at equal width, heads, features, window, rounds and slots. Where a
peer computes something slightly different, its entry says what.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn

from refattn import measure
from refattn.bench import report, twins
from refattn.bench.run import build, call, kept_bytes


@dataclass(frozen=True)
class Peer:
    """One rival. build: (dim, heads, N, causal) → a module on [B, N, dim]; options: N → those of our mechanism.

    package: the module to import, "torch" for torch's own.  causal: forms that it has.  difference: what is not alike.
    form: what it is called, of an explicit form.  longest: most tokens to try.  ours: builds our side, where a layer
    alone is not enough: (mechanism, dim, heads, N, causal, **options) → module.
    """

    mechanism: str
    package: str
    build: Callable
    options: Callable = lambda n: {}  # noqa: E731
    causal: tuple = (False, True)
    difference: str = ""
    form: str = ""
    longest: int | None = None
    ours: Callable | None = None

    @property
    def installed(self):
        return importlib.util.find_spec(self.package) is not None

    @property
    def label(self):
        """Name and version, such as "linformer 0.2.3", or which form."""
        return self.form or f"{self.package.replace('_', '-')} {version(self.package).split('+')[0]}"


class TorchMultihead(nn.MultiheadAttention):
    """torch's own layer on one input; its `need_weights=False` is the fast way its documentation names."""

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device) if self.is_causal else None
        return super().forward(x, x, x, need_weights=False, is_causal=self.is_causal, attn_mask=mask)[0]


def torch_multihead(dim, heads, n, causal):
    module = TorchMultihead(dim, heads, batch_first=True)
    module.is_causal = causal
    return module


def performer(dim, heads, n, causal):
    from performer_pytorch import SelfAttention

    shape = {"dim_head": dim // heads, "nb_features": FEATURES, "qkv_bias": True}
    return SelfAttention(dim, heads=heads, causal=causal, **shape)


def linformer(dim, heads, n, causal):
    from linformer import LinformerSelfAttention

    return LinformerSelfAttention(dim, n, k=PROJECTED, heads=heads)


def local(dim, heads, n, causal):
    from local_attention.transformer import LocalMHA

    shape = {"dim_head": dim // heads, "heads": heads, "window_size": WINDOW, "causal": causal}
    return LocalMHA(dim=dim, exact_windowsize=False, use_rotary_pos_emb=False, **shape)


def reformer(dim, heads, n, causal):
    from reformer_pytorch import LSHSelfAttention

    rounds = {"bucket_size": WINDOW, "n_hashes": ROUNDS, "attend_across_buckets": False}
    return LSHSelfAttention(dim, heads=heads, causal=causal, allow_duplicate_attention=False, **rounds)


def sinkhorn(dim, heads, n, causal):
    from sinkhorn_transformer.sinkhorn_transformer import SinkhornSelfAttention

    sorting = {"use_simple_sort_net": True, "non_permutative": False, "sinkhorn_iter": ITERATIONS}
    return SinkhornSelfAttention(dim, WINDOW, n, heads=heads, causal=causal, **({} if causal else sorting))


def mega(dim, heads, n, causal):
    from mega_pytorch.mega_pytorch import MegaLayer

    widths = {"attn_dim_qk": dim // heads, "attn_dim_value": 2 * dim, "ema_heads": AVERAGES}
    return MegaLayer(dim=dim, causal=causal, **widths)


FEATURES, AVERAGES, PROJECTED, WINDOW, ROUNDS, ITERATIONS = 64, 16, 64, 64, 4, 5

PEERS = (
    Peer("softmax", "torch", torch_multihead, difference="its causal form is handed a mask"),
    Peer("performer", "performer_pytorch", performer, lambda n: {"num_features": FEATURES}),
    Peer(
        "mega",
        "mega_pytorch",
        mega,
        lambda n: {"ema_dim": AVERAGES},
        difference="its biases are T5's buckets, ours the paper's table; neither in chunks",
    ),
    Peer(
        "linformer",
        "linformer",
        linformer,
        lambda n: {"projected_len": PROJECTED, "qkv_bias": False},
        causal=(False,),
    ),
    Peer("local", "local_attention", local, lambda n: {"window": WINDOW, "bias": False}),
    Peer(
        "reformer",
        "reformer_pytorch",
        reformer,
        lambda n: {"chunk": WINDOW, "num_buckets": n // WINDOW, "num_hashes": ROUNDS, "qkv_bias": False},
    ),
    Peer(
        "sinkhorn",
        "sinkhorn_transformer",
        sinkhorn,
        lambda n: {"block": WINDOW, "iterations": ITERATIONS, "qkv_bias": False},
        difference="takes sorted values from the keys; its causal form picks blocks without Sinkhorn iterations",
    ),
)
PEERS += tuple(
    Peer(mechanism, "refattn", twins.plainly(mechanism, twin), causal=causal, form=form, longest=longest)
    for mechanism, twin, causal, form, longest in (
        ("momentum", twins.plain_momentum, (False, True), "its N × N form", None),
        ("rpe_fft", twins.plain_rpe_fft, (False, True), "its N × N form", None),
        ("vicinity", twins.plain_vicinity, (False,), "its N × N form", None),
        ("couplformer", twins.plain_couplformer, (False,), "its equations, plainly", None),
        ("eit", twins.plain_eit, (False, True), "its equations, plainly", twins.LONGEST),
    )
)
PEERS += (
    Peer(
        "evolving_attention",
        "refattn",
        twins.plain_second,
        form="its equations, plainly",
        longest=twins.LONGEST,
        ours=twins.second,
    ),
)


def against_peers(
    mechanisms, lengths, *, dim=64, heads=4, batch=1, rounds=7, min_seconds=0.05, device="cpu", progress=print
):
    """Ours against each installed peer of these mechanisms, in turn, forward and forward with backward.

    Args: as `run`; mechanisms whose peer is not installed are left out.
    Returns: a list of dicts with "mechanism", "peer", "n", "causal", "direction", "seconds" and "peer_seconds" (median,
        min, max over rounds), "times_peer" (the same of ours/theirs, round by round), "saved_bytes" and
        "peer_saved_bytes" (kept for backward), "peak_bytes" and "peer_peak_bytes" (most alive at once), "difference".
    """
    say = progress or (lambda line: None)
    say(report.PEER_HEADER)
    rows = []
    for peer in (peer for peer in PEERS if peer.mechanism in mechanisms and peer.installed):
        for causal in peer.causal:
            for n in (n for n in lengths if n <= (peer.longest or n)):
                torch.manual_seed(0)
                if peer.ours is None:
                    ours = build(peer.mechanism, dim, heads, n, is_causal=causal, **peer.options(n))
                else:
                    ours = peer.ours(peer.mechanism, dim, heads, n, causal, **peer.options(n)).eval()
                layers = {"ours": ours.to(device), "theirs": peer.build(dim, heads, n, causal).to(device).eval()}
                for direction in ("forward", "forward+backward"):
                    row = {"mechanism": peer.mechanism, "peer": peer.label, "n": n, "causal": causal}
                    row |= {"direction": direction, "difference": peer.difference}
                    rows.append(row | pair(layers, (batch, n, dim), direction, rounds, min_seconds))
                    say(report.peer_line(rows[-1]))
    return rows


def pair(layers, shape, direction, rounds, min_seconds):
    """Both layers' numbers at one shape."""
    calls = {name: call(layer, shape, direction) for name, layer in layers.items()}
    found = measure.latency(calls, rounds=rounds, min_seconds=min_seconds)
    kept = {name: kept_bytes(layer, shape) for name, layer in layers.items()}
    peak = {name: measure.peak_bytes(function).live for name, function in calls.items()}
    return {
        "seconds": found.seconds["ours"],
        "peer_seconds": found.seconds["theirs"],
        "times_peer": found.ratio("ours", "theirs"),
        "saved_bytes": kept["ours"],
        "peer_saved_bytes": kept["theirs"],
        "peak_bytes": peak["ours"],
        "peer_peak_bytes": peak["theirs"],
    }
