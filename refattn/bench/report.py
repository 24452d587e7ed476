"""What a bench says: exponents, crossings with softmax, tables in Markdown, a figure, and what was recorded."""

import json
from pathlib import Path

import numpy as np

from refattn import measure, plot
from refattn.json_files import write_json

RECORDED = Path(__file__).with_name("recorded.json")
TREND = 4096  # exponents are fitted from here on, where lengths allow: below, fixed costs bend the line


def summarise(rows):
    """Exponent and crossing of each mechanism, form and direction that was timed.

    Returns: a list of dicts with "mechanism", "causal", "direction", "exponent" (slope, low, high) of seconds for
        N ≥ `TREND` (of all lengths if fewer than two are that long; None with one length), "crossover" (N from which it
        takes less time than softmax, or None), and of the longest N: "n", "milliseconds", "times_floor",
        "times_softmax", "saved_bytes".
    """
    found = []
    series = {}
    for row in (row for row in rows if "skipped" not in row):
        series.setdefault((row["mechanism"], row["causal"], row["direction"]), []).append(row)
    for (name, causal, direction), cells in series.items():
        long = [c for c in cells if c["n"] >= TREND]
        fitted = long if len(long) > 1 else cells
        ns, seconds = [c["n"] for c in fitted], [c["seconds"][0] for c in fitted]
        exponent = list(measure.scaling_exponent(ns, seconds)) if len(ns) > 1 else None
        rival = {c["n"]: c["seconds"][0] for c in series.get(("softmax", causal, direction), [])}
        shared = [c for c in cells if c["n"] in rival]
        crossing = None
        if name != "softmax" and shared:
            both = [rival[c["n"]] for c in shared], [c["seconds"][0] for c in shared]
            crossing = measure.crossover([c["n"] for c in shared], *both)
        last = cells[-1]
        ratios = {key: last[key] and last[key][0] for key in ("times_floor", "times_softmax")}
        found.append(
            {"mechanism": name, "causal": causal, "direction": direction, "exponent": exponent, "crossover": crossing}
            | {"n": last["n"], "milliseconds": 1000 * last["seconds"][0], "saved_bytes": last["saved_bytes"]}
            | ratios
        )
    return found


def summary_table(rows, direction="forward"):
    """`summarise` as a table in Markdown."""
    lines = [
        "| mechanism | form | ms at the longest N | × softmax | × floor | KiB kept | exponent | beats softmax from |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in (entry for entry in summarise(rows) if entry["direction"] == direction):
        form = "causal" if entry["causal"] else "full"
        slope = "–" if entry["exponent"] is None else exponent_text(entry["exponent"])
        never = "–" if entry["mechanism"] == "softmax" else "not up to here"
        from_n = never if entry["crossover"] is None else f"N = {entry['crossover']:,.0f}"
        to_softmax = "–" if entry["times_softmax"] is None else f"{entry['times_softmax']:.2f}"
        cells = [entry["mechanism"], form, f"{entry['milliseconds']:.3g} (N = {entry['n']:,})", to_softmax]
        cells += [f"{entry['times_floor']:.2f}", f"{entry['saved_bytes'] / 1024:,.0f}", slope, from_n]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def exponent_text(exponent):
    """Slope and, where it is finite, its interval."""
    slope, low, high = exponent
    return f"{slope:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{slope:.2f}"


PEER_HEADER = (
    f"{'N':>6}  {'form':<7} {'direction':<17} {'mechanism':<18} {'ms: median (min–max)':>25}  {'peer':<28}"
    f" {'ms: median (min–max)':>25}  × peer (min–max)    × kept  × peak"
)


def peer_line(row):
    """One row of `against_peers` as text."""
    form = "causal" if row["causal"] else "full"
    times = [
        "{:.4g} ({:.4g}–{:.4g})".format(*(1000 * seconds for seconds in row[key]))
        for key in ("seconds", "peer_seconds")
    ]
    ratio = "{:.2f} ({:.2f}–{:.2f})".format(*row["times_peer"])
    start = f"{row['n']:>6}  {form:<7} {row['direction']:<17} {row['mechanism']:<18} {times[0]:>25}  "
    return f"{start}{row['peer']:<28} {times[1]:>25}  {ratio:<18} {memory(row, 'saved'):>6}  {memory(row, 'peak'):>6}"


def memory(row, kind):
    """Ours in times of theirs: bytes kept for backward ("saved"), or most alive at once ("peak")."""
    return f"{row[f'{kind}_bytes'] / row[f'peer_{kind}_bytes']:.2f}"


def peer_table(rows):
    """`against_peers` in Markdown, both directions beside each other."""
    lines = [
        "| mechanism | peer | form | N | forward, × peer | forward + backward, × peer | kept, × peer | peak, × peer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    pairs = {}
    for row in rows:
        pairs.setdefault((row["mechanism"], row["peer"], row["causal"], row["n"]), {})[row["direction"]] = row
    for (name, peer, causal, n), both in pairs.items():
        ratios = ["{:.2f} ({:.2f}–{:.2f})".format(*both[d]["times_peer"]) for d in ("forward", "forward+backward")]
        trained = both["forward+backward"]
        cells = [name, peer, "causal" if causal else "full", f"{n:,}", *ratios]
        lines.append(f"| {' | '.join([*cells, memory(trained, 'saved'), memory(trained, 'peak')])} |")
    return "\n".join(lines)


def figure(result, *, direction="forward", causal=False, names=None):
    """Milliseconds against N on logarithmic axes, with fitted exponents.

    Args: result: as `load` returns it.  names: mechanisms, all unless given.
    """
    rows = [r for r in result["rows"] if r["direction"] == direction and r["causal"] == causal and "skipped" not in r]
    rows = [row for row in rows if names is None or row["mechanism"] in names]
    ns = sorted({row["n"] for row in rows})
    milliseconds = {(row["mechanism"], row["n"]): 1000 * row["seconds"][0] for row in rows}
    drawn = list(dict.fromkeys(row["mechanism"] for row in rows))
    series = {name: [milliseconds.get((name, n)) for n in ns] for name in drawn}
    fits = {entry["mechanism"]: entry["exponent"] for entry in summarise(rows) if entry["exponent"] is not None}
    return plot.scaling(ns, series, ylabel=f"ms, {direction}{', causal' if causal else ''}", fits=fits)


def record(path, rows, peers=(), *, device="cpu"):
    """Write rows, rows against peers, and the environment they were measured in, as `load` reads them."""
    write_json(path, {"environment": measure.environment(device), "rows": rows, "peers": list(peers)})


def load():
    """The recorded bench: dict with "environment", "rows", "peers". Raises: ValueError if there is none."""
    if not RECORDED.exists():
        raise ValueError("no bench is recorded: python -m refattn bench --record makes one")
    return json.loads(RECORDED.read_text(encoding="utf-8"))
