"""What a lesson lets its reader do: move a slider, compare a guess with the result, unfold an answer.

Everything also reads well where no kernel runs: on a web page a slider is the picture it started with.
"""

import html
import io
import numbers
import sys
from base64 import b64encode

import ipywidgets
from IPython.display import HTML, display


def slider(draw, **ranges):
    """Show `draw(...)`, a figure, under one control per argument; each change draws it anew.

        slider(lambda slots: plot.heatmap(maps[slots]), slots=(1, 16, 4))

    Args:
        draw: function of the arguments named in `ranges` that returns a matplotlib figure.
        ranges: (least, most, start) or (least, most, start, step), or a list of choices, the first shown first.

    The stored output of the cell holds the first figure as a plain picture; a front end without a kernel shows that.
    """
    box = controls(draw, **ranges)
    picture = box.children[-2]
    if "google.colab" in sys.modules:  # the widget alone: no plain picture beside it to be chosen instead
        display(box)
        return
    shown = ", ".join(f"{control.description} {control.value}" for control in box.children[:-2])
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    bundle = {"application/vnd.jupyter.widget-view+json": view, "image/png": b64encode(picture.value).decode()}
    display(bundle | {"text/plain": f"a picture with sliders, here at {shown}"}, raw=True)


def controls(draw, **ranges):
    """The widget that `slider` displays: its controls, the picture, and a line for an error, in a column."""
    parts = {name: control(name, given) for name, given in ranges.items()}
    picture, complaint = ipywidgets.Image(format="png"), ipywidgets.HTML()

    def values():
        return {name: part.value for name, part in parts.items()}

    def redraw(_):
        try:
            picture.value = png(draw(**values()))  # replaces the picture in one message: nothing flickers
            complaint.value = ""
        except Exception as error:  # a callback's error would vanish in a log
            complaint.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

    picture.value = png(draw(**values()))  # here an error is the cell's own
    for part in parts.values():
        part.observe(redraw, "value")
    return ipywidgets.VBox([*parts.values(), picture, complaint])


def control(name, given):
    """The slider or menu for one argument. Raises: ValueError for a range that is not one."""
    named = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    if isinstance(given, list) and given:
        return ipywidgets.Dropdown(options=given, value=given[0], **named)
    fits = isinstance(given, tuple) and len(given) in (3, 4) and all(isinstance(v, numbers.Real) for v in given)
    if not fits or not given[0] <= given[2] <= given[1]:
        raise ValueError(
            f"{name}={given!r}: wanted (least, most, start), (least, most, start, step) or a list of choices"
        )
    least, most, start, *step = given
    if all(isinstance(v, numbers.Integral) for v in given):
        kind, step = ipywidgets.IntSlider, step or [1]
    else:
        kind, step = ipywidgets.FloatSlider, step or [(most - least) / 50]
    return kind(value=start, min=least, max=most, step=step[0], continuous_update=False, **named)


def png(figure):
    """A figure as the bytes of a PNG file."""
    if not hasattr(figure, "savefig"):
        raise ValueError(f"draw returned {type(figure).__name__}: wanted a matplotlib figure")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    if "matplotlib.pyplot" in sys.modules:  # a figure made by pyplot is kept there until it is closed
        sys.modules["matplotlib.pyplot"].close(figure)
    return file.getvalue()


def reveal(guess, result, unit=""):
    """Print a guess beside the result. Never fails, whatever the guess is; None means that there is none."""
    found = f"{written(result)} {unit}".strip()
    if guess is None:
        print(f"result: {found}   (no guess yet: write one above and run both cells again, a wrong one teaches most)")
        return
    print(f"your guess: {f'{written(guess)} {unit}'.strip()}\nresult:     {found}{comparison(guess, result)}")


def comparison(guess, result):
    """How far a guess is from the result, in words, if both are numbers."""
    if not (is_number(guess) and is_number(result)):
        return ""
    if guess == result:
        return "   exactly"
    if guess > 0 and result > 0:
        factor = max(guess / result, result / guess)
        amount = "less than 10 %" if factor < 1.1 else f"{factor:.3g} times"
        return f"   your guess is {amount} too {'high' if guess > result else 'low'}"
    return f"   your guess is {abs(guess - result):.3g} too {'high' if guess > result else 'low'}"


def is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def written(value):
    """A number as a reader would write it; anything else as it is."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if is_number(value) else str(value)


def fold(question, answer):
    """A question with its answer folded away, as HTML: `fold("Which rank can it have?", "At most l.")`."""
    return HTML(f"<details><summary>{html.escape(question)}</summary>\n\n{html.escape(answer)}\n\n</details>")
