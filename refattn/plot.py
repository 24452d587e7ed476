"""Every figure of the lessons. Functions take arrays and numbers, never models, and return a matplotlib figure.

A mechanism has one colour, marker and line style in all lessons (`STYLE`): solid lines and filled markers for papers,
softmax and linear attention, dashed lines and open markers for the other baselines, so that they stay apart in grey.
"""

import re
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from scipy import stats

BLUE, SKY, GREEN, OLIVE = "#0072B2", "#56B4E9", "#009E73", "#999933"
RED, ORANGE, PINK, WINE, INDIGO, GREY = "#D55E00", "#E69F00", "#CC79A7", "#882255", "#332288", "#777777"

STYLE = {  # mechanism: (colour, marker, line)
    "softmax": ("black", "o", "-"),
    "linear": (BLUE, "s", "-"),
    "luna": (RED, "^", "-"),
    "mega": (GREEN, "D", "-"),
    "couplformer": (PINK, "v", "-"),
    "evolving_attention": (ORANGE, "P", "-"),
    "eit": (SKY, "X", "-"),
    "rpe_fft": (WINE, "<", "-"),
    "momentum": (OLIVE, ">", "-"),
    "vicinity": (INDIGO, "p", "-"),
    "performer": (BLUE, "o", "--"),
    "cosformer": (SKY, "s", "--"),
    "linformer": (RED, "D", "--"),
    "local": (GREEN, "^", "--"),
    "longformer": (OLIVE, "v", "--"),
    "bigbird": (ORANGE, "X", "--"),
    "sparse_transformer": (PINK, "P", "--"),
    "sinkhorn": (WINE, ">", "--"),
    "synthesizer": (INDIGO, "<", "--"),
    "reformer": (GREY, "p", "--"),
}
OTHERS = [BLUE, RED, GREEN, ORANGE, PINK, SKY, WINE, OLIVE, INDIGO, GREY]  # for names that are no mechanism
MARKERS, LINES = "os^Dv<>pPX", ["-", "--", ":", "-."]
LOOK = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
}


def styles(names):
    """Keyword arguments of `Axes.plot` for each name of a figure.

    "luna l = 4" and "Luna-16" are variants of luna: they keep its colour and differ in line and marker. Names that
    begin with no mechanism take the colours in order.
    """
    found, variants, others = {}, {}, 0
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "_", str(name).lower())
        matching = [key for key in STYLE if f"{plain}_".startswith(f"{key}_")]
        if matching:
            key = max(matching, key=len)
            colour, marker, line = STYLE[key]
            count = variants[key] = variants.get(key, -1) + 1
            if count:
                marker = MARKERS[(MARKERS.index(marker) + count) % len(MARKERS)]
                line = LINES[(LINES.index(line) + count) % len(LINES)]
        else:
            colour, marker, line = (cycle[others % len(cycle)] for cycle in (OTHERS, MARKERS, LINES))
            others += 1
        filled = colour if line == "-" else "white"
        found[name] = {"color": colour, "marker": marker, "linestyle": line, "markerfacecolor": filled}
    return found


def new_figure(width=6.2, height=3.5, rows=1, columns=1, layout="constrained"):
    """A figure and its axes (one, or a list), no longer known to pyplot: it is shown once, where a cell returns it."""
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), dpi=100, layout=layout, squeeze=False)
    plt.close(figure)
    axes = list(axes.flat)
    return figure, axes[0] if len(axes) == 1 else axes


def heatmap(
    maps,
    *,
    shared_scale=True,
    xlabel="key position",
    ylabel="query position",
    scale="attention weight",
    tokens=None,
    columns=4,
):
    """Matrices as pictures, with colour bars: rows are queries, columns are keys.

    Args:
        maps: {title: 2-D array}; NaN is drawn grey. Negative entries turn the scale into a diverging one around zero.
        shared_scale: one colour scale for all, so that they can be compared; else one each.
        xlabel, ylabel: of all maps, or a list with one per map.  scale: what the colours mean.
        tokens: labels of both axes, or a pair (of the x axis, of the y axis).  columns: maps side by side, at most.
    """
    maps = {title: np.asarray(values, dtype=float) for title, values in maps.items()}
    wanting = [title for title, values in maps.items() if values.ndim != 2]
    if wanting or not maps:
        raise ValueError(f"maps: wanted 2-D arrays by title, got another shape for {wanting or 'none at all'}")
    rows = -(-len(maps) // columns)
    columns = -(-len(maps) // rows)
    figure, axes = new_figure(0.9 + 2.2 * columns, 0.2 + 2.5 * rows, rows, columns, layout="compressed")
    axes = axes if isinstance(axes, list) else [axes]
    for spare in axes[len(maps) :]:
        spare.remove()
    signed = {title: np.nanmin(values) < 0 for title, values in maps.items()}
    most = {title: np.nanmax(np.abs(values)) for title, values in maps.items()}
    if shared_scale:
        signed, most = dict.fromkeys(maps, any(signed.values())), dict.fromkeys(maps, max(most.values()))
    x_tokens, y_tokens = tokens if isinstance(tokens, tuple) else (tokens, tokens)
    for i, (ax, (title, values)) in enumerate(zip(axes, maps.items(), strict=False)):
        colours = plt.get_cmap("PuOr" if signed[title] else "viridis").with_extremes(bad="lightgrey")
        ends = {"vmin": -most[title] if signed[title] else 0.0, "vmax": most[title]}
        slender = max(values.shape) > 3 * min(values.shape)
        image = ax.imshow(values, cmap=colours, aspect="auto" if slender else "equal", **ends)
        ax.set(title=title)
        if not isinstance(xlabel, str) or i + columns >= len(maps):  # one label serves the maps above and beside
            ax.set_xlabel(xlabel if isinstance(xlabel, str) else xlabel[i])
        if not isinstance(ylabel, str) or i % columns == 0:
            ax.set_ylabel(ylabel if isinstance(ylabel, str) else ylabel[i])
        ax.spines[:].set_visible(False)
        for axis, labels, size in ((ax.xaxis, x_tokens, values.shape[1]), (ax.yaxis, y_tokens, values.shape[0])):
            if labels is not None and len(labels) == size:
                axis.set_ticks(range(size), labels, fontsize=8, rotation=90 if axis is ax.xaxis else 0)
            else:
                axis.set_major_locator(MaxNLocator(5, integer=True))
        if not shared_scale:
            figure.colorbar(image, ax=ax, label=scale if i == len(maps) - 1 else None)
    if shared_scale:
        figure.colorbar(image, ax=axes[: len(maps)], label=scale)
    return figure


def lines(
    series, *, xlabel, ylabel, logx=False, logy=False, marks=None, bands=None, markers=True, outside=False, dots=()
):
    """Curves with their own x values.

    Args:
        series: {name: (x, y)}; None or NaN in y leaves a gap.  logx, logy: logarithmic axes.
        marks: {text: x}, vertical lines, named in the legend.  bands: {name: (lower y, upper y)}, shaded.
        markers: draw one at each point.  dots: names of series that are points and no curve.
        outside: put the legend beside the axes.
    """
    figure, ax = new_figure(width=8.2 if outside else 6.2)
    for name, style in styles(series).items():
        x, y = (np.asarray(values, dtype=float) for values in series[name])
        style = style if markers or name in dots else style | {"marker": ""}
        ax.plot(x, y, label=name, **style | ({"linestyle": "", "markersize": 3} if name in dots else {}))
        if bands and name in bands:
            ax.fill_between(x, *bands[name], color=style["color"], alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
    for i, (text, x) in enumerate((marks or {}).items()):
        ax.axvline(x, color=GREY, linewidth=1.2, linestyle=LINES[::-1][i % 3], label=text, zorder=0)
    ax.grid(color="#e5e5e5", linewidth=0.8)
    if outside:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, handlelength=2.8)
    elif len(series) > 1 or marks:
        ax.legend(loc="best", frameon=False, fontsize=9)
    return figure


def panels(pictures, *, xlabel, ylabel, ticks=None, broad=(), sharey=False):
    """Curves in panels side by side, with one legend for all.

    Args:
        pictures: {title: {name: (x, y)}}; a name looks the same in every panel.  ticks: where the x axes have theirs.
        broad: names drawn as wide grey lines behind the others, such as a mean.  sharey: one y range for all.
    """
    figure, axes = new_figure(2.0 + 3.4 * len(pictures), 3.5, 1, len(pictures))
    axes = axes if isinstance(axes, list) else [axes]
    names = list(dict.fromkeys(name for series in pictures.values() for name in series))
    looks = styles([name for name in names if name not in broad])
    looks |= {name: {"color": GREY, "linewidth": 5, "alpha": 0.5, "zorder": 0} for name in broad}
    handles = {}
    for ax, (title, series) in zip(axes, pictures.items(), strict=True):
        for name, (x, y) in series.items():
            (handles[name],) = ax.plot(x, y, **looks[name])
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel if ax is axes[0] else "")
        if ticks is not None:
            ax.set_xticks(ticks)
        ax.grid(color="#e5e5e5", linewidth=0.8)
    if sharey:
        lows, highs = zip(*(ax.get_ylim() for ax in axes), strict=True)
        for ax in axes:
            ax.set_ylim(min(lows), max(highs))
    order = [name for name in names if name in handles]
    figure.legend([handles[n] for n in order], order, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def curves(x, series, *, xlabel="step", ylabel="loss", **options):
    """Curves {name: y} over one x, such as losses over steps. Options: those of `lines`."""
    options = {"markers": len(x) <= 20} | options
    return lines({name: (x, y) for name, y in series.items()}, xlabel=xlabel, ylabel=ylabel, **options)


def scaling(ns, series, *, ylabel, xlabel="sequence length N", fits=None, crossover=None):
    """Cost against length on logarithmic axes, where a power of N is a straight line.

    Args:
        ns: lengths.  series: {name: cost at each}, None where not measured.  ylabel: what is counted, and its unit.
        fits: {name: slope, or (slope, low, high)}, written into the legend.
        crossover: N where two methods cost the same, or {text: N}; None is not drawn.
    """
    labels = {}
    for name in series:
        slope, *interval = np.atleast_1d((fits or {}).get(name, np.nan))
        between = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval and np.all(np.isfinite(interval)) else ""
        labels[name] = f"{name}: slope {slope:.2f}{between}" if np.isfinite(slope) else name
    crossings = crossover if isinstance(crossover, dict) else {"": crossover}
    marks = {f"{text} N = {n:,.0f}".strip(): n for text, n in crossings.items() if n is not None}
    named = {labels[name]: (ns, values) for name, values in series.items()}
    figure = lines(named, xlabel=xlabel, ylabel=ylabel, logx=True, logy=True, marks=marks, outside=True)
    ax = figure.axes[0]
    ax.set_xticks(ns, [f"{n:,}" for n in ns])
    ax.xaxis.set_minor_locator(NullLocator())
    return figure


def spectrum(spectra, *, marks=None, ylabel="singular value", least=1e-8):
    """Singular values in decreasing order, on a logarithmic axis that ends at `least` times the largest.

    Args: spectra: {name: singular values};  marks: {text: index}, such as {"l = 4": 4}.
    """
    top = max(np.max(values) for values in spectra.values())
    cut = {name: (np.arange(1, len(v) + 1), np.maximum(v, least * top)) for name, v in spectra.items()}
    options = {
        "xlabel": "index",
        "ylabel": f"{ylabel} (cut at {least * top:.0e})",
        "logy": True,
        "marks": marks,
        "outside": True,
    }
    figure = lines(cut, markers=max(len(v) for v in spectra.values()) <= 40, **options)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def bars(counts, *, xlabel, log=False):
    """Exact counts as horizontal bars with the number written out. counts: {name: integer}; log: logarithmic axis."""
    figure, ax = new_figure(height=0.9 + 0.36 * len(counts))
    colours = [style["color"] for style in styles(counts).values()]
    drawn = ax.barh([str(name) for name in counts], list(counts.values()), color=colours, height=0.65)
    ax.bar_label(drawn, [f"{count:,}" for count in counts.values()], padding=4, fontsize=9)
    ax.set(xlabel=xlabel, xscale="log" if log else "linear")
    if not log:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.set_xlim(1 if log else 0, max(counts.values()) ** 1.25 if log else max(counts.values()) * 1.25)
    ax.invert_yaxis()
    return figure


def seeds(results, *, ylabel="accuracy", chance=None, ceiling=None, connect=False):
    """Every seed as a dot, beside their mean with its 95 % t interval.

    Args:
        results: {variant: values, one per seed}.  chance, ceiling: levels to draw.
        connect: join values of the same seed, where seeds are paired.
    """
    figure, ax = new_figure(width=max(4.2, 1.4 + 0.95 * len(results)))
    if connect:
        ax.plot(range(len(results)), list(results.values()), color="#bbbbbb", linewidth=0.8, zorder=1)
    for i, (name, style) in enumerate(styles(results).items()):
        values = np.asarray(results[name], dtype=float)
        spread = np.zeros(len(values)) if connect else np.linspace(-0.12, 0.12, len(values))
        ax.plot(i + spread, values, **style | {"linestyle": "", "alpha": 0.8})
        low, high = interval(values)
        middle = values.mean()
        ax.errorbar(
            i + 0.28, middle, [[middle - low], [high - middle]], color="black", marker="_", markersize=12, capsize=3
        )
    for level, text in ((chance, "chance"), (ceiling, "ceiling")):
        if level is not None:
            ax.axhline(level, color=GREY, linewidth=1, linestyle=":", zorder=0)
            ax.annotate(
                text, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=GREY
            )
    ax.set(ylabel=ylabel, xlim=(-0.5, len(results) - 0.3))
    ax.set_xticks(range(len(results)), [fill(str(name), 12) for name in results])
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    return figure


def interval(values):
    """95 % t interval of a mean; without width for a single value or equal ones."""
    values = np.asarray(values, dtype=float)
    error = stats.sem(values) if len(values) > 1 else 0.0
    margin = stats.t.ppf(0.975, len(values) - 1) * error if error > 0 else 0.0
    return values.mean() - margin, values.mean() + margin


def paired(differences, *, intervals=None, margins=None, verdicts=None, xlabel="method − baseline, per seed"):
    """Paired differences, a row per claim: a dot per seed, the interval, and the margin that decides.

    Args:
        differences: {claim: difference of each seed}.  intervals: {claim: (low, high)}, else 95 % t intervals.
        margins: {claim: number}, fixed before the run, that the interval must clear; where there is none, it is 0.
        verdicts: {claim: text}, written beside the row.
    """
    figure, ax = new_figure(width=7.2, height=1.1 + 0.62 * len(differences))
    ax.axvline(0, color="black", linewidth=1, label="no difference")
    for i, (claim, values) in enumerate(differences.items()):
        low, high = (intervals or {}).get(claim) or interval(values)
        ax.plot(
            [low, high], [i + 0.2] * 2, color=BLUE, linewidth=5, alpha=0.45, solid_capstyle="butt", label="interval"
        )
        ax.plot(np.mean(values), i + 0.2, color=BLUE, marker="|", markersize=12, markeredgewidth=2, linestyle="")
        ax.plot(values, [i - 0.14] * len(values), "o", color="black", alpha=0.6, markersize=5, label="a seed")
        if margins and claim in margins:
            ax.plot([margins[claim]] * 2, [i - 0.4, i + 0.4], color=RED, linestyle="--", label="margin")
        if verdicts and claim in verdicts:
            ax.annotate(verdicts[claim], (1.02, i), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    ax.set_yticks(range(len(differences)), [str(claim) for claim in differences])
    ax.set(xlabel=xlabel, ylim=(len(differences) - 0.4, -0.6))
    ax.xaxis.set_major_locator(MaxNLocator(7))
    once = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(once.values(), once.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure
