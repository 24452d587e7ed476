"""Pictures of a result: every claim with its seeds, interval and threshold; a comparison's seeds; measured times.

figure(reproduce.load("luna"))
"""

from matplotlib.ticker import MaxNLocator

from refattn import plot
from refattn.measure import scaling_exponent
from refattn.reproduce.verdict import AGAIN


def figure(result, claims=None):
    """One strip a claim, each on its own scale: a dot per seed, the interval, and the line that it must clear.

    Args: claims: names of those to draw, all unless given. Counted claims have no interval and are left out.
    Raises: ValueError for a name that the result lacks, or if nothing is left to draw.
    """
    known = {claim["name"]: claim for claim in result["claims"] if claim["rule"] != "counted"}
    wanted = list(known) if claims is None else list(claims)
    if not wanted or set(wanted) - set(known):
        raise ValueError(f"claims={wanted}: wanted some of {', '.join(known) or 'a result that has claims'}")
    drawn, axes = plot.new_figure(7.2, 0.6 + 0.95 * len(wanted), rows=len(wanted))
    for ax, name in zip(axes if len(wanted) > 1 else [axes], wanted, strict=True):
        strip(ax, known[name])
    once = {}
    for ax in drawn.axes:
        handles, labels = ax.get_legend_handles_labels()
        once |= dict(zip(labels, handles, strict=True))
    drawn.legend(once.values(), once.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return drawn


def strip(ax, claim):
    """One claim on its axes."""
    if claim["rule"] == "scaling":
        factor, dots, middle = 1, [], claim["exponent"]
        threshold, about = claim["bound"], f"exponent of {claim['method']}, wanted below"
    else:
        percent = claim["relative"] or claim["metric"] == "accuracy"
        factor, dots, middle = 100 if percent else 1, claim["differences"], claim["mean"]
        threshold = claim["margin"] * (-1 if claim["rule"] == "non-inferiority" else 1)
        unit = f"% of {claim['metric']}" if claim["relative"] else "points" if percent else claim["metric"]
        about = f"{claim['method']} against {claim['baseline']}, {unit}"
        if claim["rule"] == "equivalence":
            about = f"measured against {claim['bound']:.3g}, {unit}"
        ax.axvline(0, color="black", linewidth=1, label="no difference")
    low, high = claim["interval"]
    if low is not None and high is not None:
        ends = [factor * low, factor * high]
        ax.plot(ends, [0.3, 0.3], color=plot.BLUE, linewidth=5, alpha=0.45, solid_capstyle="butt", label="interval")
    ax.plot(factor * middle, 0.3, color=plot.BLUE, marker="|", markersize=11, markeredgewidth=2, linestyle="")
    if dots:
        places = [factor * value for value in dots]
        ax.plot(places, [-0.3] * len(dots), "o", color="black", alpha=0.5, markersize=5, label="a seed or round")
    equal = claim["rule"] == "equivalence"
    for place in (-threshold, threshold) if equal else (threshold,):
        text = "must lie between" if equal else "must be cleared"
        ax.axvline(factor * place, color=plot.RED, linestyle="--", label=text)
    ax.set(ylim=(-0.8, 0.8), yticks=[])
    ax.set_title(f"{claim['name']}: {claim['verdict']}", loc="left", fontsize=9, fontweight="bold")
    ax.set_xlabel(about, loc="right", fontsize=8, labelpad=1)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(7))
    ax.tick_params(axis="x", labelsize=8)


def seeds(result, task):
    """Every seed of a comparison's variants (the baseline once). Raises: ValueError if it is no comparison."""
    compared = [name for name, record in result["tasks"].items() if "guessing" in record]
    if task not in compared:
        raise ValueError(f"task={task!r}: wanted one of {', '.join(compared)}")
    record = result["tasks"][task]
    metric = record["metric"]
    shown = {name: v[metric] for name, v in record["variants"].items() if not name.endswith(AGAIN)}
    accuracy = metric == "accuracy"
    return plot.seeds(
        shown,
        ylabel=f"{metric}, {task}",
        chance=record["guessing"]["accuracy"] if accuracy else None,
        ceiling=1.0 if accuracy and max(max(values) for values in shown.values()) > 0.98 else None,
    )


def times(result, task="times"):
    """Seconds against length, with each method's exponent. Raises: ValueError if the result has no times."""
    if task not in result["tasks"]:
        raise ValueError(f"task={task!r}: this result has {', '.join(result['tasks'])}")
    record = result["tasks"][task]
    series = {name: v["by_length"] for name, v in record["variants"].items()}
    fits = {name: scaling_exponent(record["ns"], values) for name, values in series.items()}
    return plot.scaling(record["ns"], series, ylabel="seconds, forward", fits=fits)
