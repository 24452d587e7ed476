"""Figures can be told apart, name their axes and stay small; widgets work live and leave a picture for the rest."""

import base64
import io

import ipywidgets
import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")

from matplotlib import pyplot as plt  # noqa: E402

from refattn import catalog, plot, widgets  # noqa: E402

LENGTHS = [256, 512, 1024]
NOISE = np.random.default_rng(0)
FIGURES = {
    "heatmap": lambda: plot.heatmap(
        {"one": np.eye(16), "two": NOISE.random((16, 16))}, tokens=list("abcdefghijklmnop")
    ),
    "heatmap of many": lambda: plot.heatmap({f"head {i}": NOISE.dirichlet([0.1] * 16, 16) for i in range(6)}),
    "scaling": lambda: plot.scaling(
        LENGTHS,
        {"softmax": [1, 4, None], "luna l = 4": [1, 2, 4], "luna l = 16": [2, 4, 8]},
        ylabel="time (s)",
        fits={"softmax": 2.0, "luna l = 4": (1.0, 0.9, 1.1)},
        crossover={"luna wins from": 300.0, "never": None},
    ),
    "lines": lambda: plot.lines({"a": ([1, 2], [3, 4])}, xlabel="x", ylabel="y", bands={"a": ([2, 3], [4, 5])}),
    "panels": lambda: plot.panels(
        {"text": {"a": ([1, 2], [3, 4]), "mean": ([1, 2], [2, 3])}, "lists": {"a": ([1, 2], [5, 6])}},
        xlabel="layers",
        ylabel="accuracy",
        ticks=(1, 2),
        broad=("mean",),
    ),
    "curves": lambda: plot.curves(range(200), {name: NOISE.normal(size=200).cumsum() for name in ("softmax", "luna")}),
    "spectrum": lambda: plot.spectrum({"softmax": [3, 2, 1], "luna": [3, 1, 0]}, marks={"l = 2": 2}),
    "bars": lambda: plot.bars({"softmax": 4_194_304, "linear": 0}, xlabel="entries"),
    "log bars": lambda: plot.bars({"softmax": 4_194_304, "linear": 16_384}, xlabel="entries", log=True),
    "seeds": lambda: plot.seeds({"softmax": [1, 1, 1], "luna": [0.5, 0.6, 0.9]}, chance=0.25, ceiling=1.0),
    "joined seeds": lambda: plot.seeds({"carried": [0.9, 0.8], "reset": [0.5, 0.6]}, connect=True),
    "paired": lambda: plot.paired(
        {"helps": [0.1, 0.2, 0.1], "matches": [0.0, 0.01, -0.01]},
        margins={"matches": -0.02},
        verdicts={"helps": "holds"},
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_names_its_axes_and_is_small(name):
    figure = FIGURES[name]()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert 2_000 < len(file.getvalue()) < 60_000
    assert figure.dpi == 100 and max(figure.get_size_inches()) < 10
    named = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    if "seeds" not in name:  # their x axis names variants
        assert named[-1].get_xlabel()
    if "bars" not in name and name != "paired":
        assert named[0].get_ylabel()
    assert not plt.get_fignums()  # nothing is left open, so nothing is shown twice


def test_every_mechanism_of_the_catalogue_has_a_style_of_its_own():
    wanted = {record.slug for record in catalog.RECORDS if record.kind in ("attention", "baseline")}
    assert set(plot.STYLE) == wanted
    assert len(set(plot.STYLE.values())) == len(plot.STYLE)
    assert plot.STYLE["softmax"][0] == "black"


def test_a_style_depends_on_the_mechanism_and_not_on_its_company():
    alone, crowd = plot.styles(["luna"]), plot.styles(["softmax", "cosformer", "luna", "Linear", "linformer"])
    assert alone["luna"] == crowd["luna"]
    assert crowd["Linear"]["color"] != crowd["linformer"]["color"]  # not taken for a variant of "linear"
    variants = plot.styles(["Luna l = 4", "luna-16", "luna (causal)"]).values()
    assert {style["color"] for style in variants} == {alone["luna"]["color"]}
    assert len({(style["marker"], style["linestyle"]) for style in variants}) == 3
    assert len({style["color"] for style in plot.styles(["one", "two", "three"]).values()}) == 3


def test_maps_share_a_scale_only_if_asked_and_signed_maps_have_zero_in_the_middle():
    maps = {"weak": np.full((4, 4), 0.1), "strong": np.eye(4)}
    limits = [image.get_clim() for ax in plot.heatmap(maps).axes for image in ax.images]
    assert limits == [(0, 1), (0, 1)]
    limits = [image.get_clim() for ax in plot.heatmap(maps, shared_scale=False).axes for image in ax.images]
    assert limits == [(0, 0.1), (0, 1)]
    assert plot.heatmap({"signed": np.diag([-1.0, 3.0])}).axes[0].images[0].get_clim() == (-3, 3)


@pytest.mark.parametrize("maps", [{}, {"row": np.ones(4)}])
def test_a_map_that_is_no_matrix_is_refused(maps):
    with pytest.raises(ValueError, match="wanted 2-D arrays"):
        plot.heatmap(maps)


def test_panels_share_one_legend_and_a_name_looks_the_same_in_each():
    series = {"softmax": ([1, 2], [1, 2]), "mean": ([1, 2], [2, 2])}
    figure = plot.panels({"a": series, "b": series}, xlabel="x", ylabel="y", broad=("mean",), sharey=True)
    left, right = figure.axes
    assert [text.get_text() for text in figure.legends[0].texts] == ["softmax", "mean"]
    assert [line.get_color() for line in left.lines] == [line.get_color() for line in right.lines]
    assert left.lines[1].get_linewidth() > left.lines[0].get_linewidth() and left.get_ylim() == right.get_ylim()


def test_the_legend_tells_slopes_intervals_and_crossings():
    (legend,) = FIGURES["scaling"]().legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "softmax: slope 2.00",
        "luna l = 4: slope 1.00 [0.90, 1.10]",
        "luna l = 16",
        "luna wins from N = 300",
    ]


def test_the_interval_is_students():
    assert plot.interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    assert plot.interval([1.0, 1.0]) == (1.0, 1.0) == plot.interval([1.0])


def line_up_to(t, kind="softmax"):
    return plot.lines({kind: (range(t + 1), range(t + 1))}, xlabel="x", ylabel="y")


def test_a_slider_redraws_in_place_and_shows_errors():
    box = widgets.controls(line_up_to, t=(1, 8, 4), kind=["softmax", "luna"])
    number, menu, picture, complaint = box.children
    seen = [picture.value]
    number.value = 8
    menu.value = "luna"
    seen += [picture.value]
    assert seen[0] != seen[1] and all(bytes(value).startswith(b"\x89PNG") for value in seen)
    assert seen[1] == widgets.png(line_up_to(8, "luna"))
    failing = widgets.controls(lambda t: line_up_to(t) if t else t, t=(0, 3, 2))
    failing.children[0].value = 0
    assert "wanted a matplotlib figure" in failing.children[-1].value
    failing.children[0].value = 1
    assert complaint.value == failing.children[-1].value == "" and not plt.get_fignums()


def test_the_stored_output_of_a_slider_is_its_first_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda bundle, raw: shown.append(bundle))
    assert widgets.slider(line_up_to, t=(1, 8, 4)) is None
    (bundle,) = shown
    assert base64.b64decode(bundle["image/png"]) == widgets.png(line_up_to(4))
    assert bundle["text/plain"] == "a picture with sliders, here at t 4"
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize("given", [(1, 2), (5, 1, 3), (1, 4, 9), [], "abc", ("a", "b", "c")])
def test_a_range_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="t=.*wanted"):
        widgets.controls(line_up_to, t=given)


def test_whole_numbers_give_whole_steps_and_others_do_not():
    assert isinstance(widgets.control("t", (1, 8, 4)), ipywidgets.IntSlider)
    assert widgets.control("t", (0.0, 1.0, 0.5, 0.25)).step == 0.25


@pytest.mark.parametrize(
    "guess, result, expected",
    [
        (None, 4, "result: 4 slots   (no guess yet"),
        (8, 4, "your guess: 8 slots\nresult:     4 slots   your guess is 2 times too high"),
        (4, 4, "exactly"),
        (3.9, 4, "less than 10 % too low"),
        (-1, 4, "5 too low"),
        (262144, 2048.5, "262,144 slots\nresult:     2048 slots   your guess is 128 times too high"),
        ("many", 4, "your guess: many slots\nresult:     4 slots\n"),
        ([1], float("nan"), "nan"),
        (0, True, "True"),
    ],
)
def test_reveal_compares_and_never_blocks(guess, result, expected, capsys):
    widgets.reveal(guess, result, "slots")
    assert expected in capsys.readouterr().out


def test_a_folded_answer_is_html_that_shows_signs_as_they_are():
    shown = widgets.fold("Is N < M?", "If $l < N$ & so on.").data
    assert shown.startswith("<details><summary>Is N &lt; M?</summary>") and "$l &lt; N$ &amp; so on." in shown
