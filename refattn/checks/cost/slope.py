"""Lesson 02, build: the exponent of a cost."""

from refattn.checks.compare import show
from refattn.checks.cost import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant
from refattn.measure import scaling_exponent

SQUARE = (1, 2, 4, 8), (3.0, 12.0, 48.0, 192.0)  # 3 N²
LINE = (64, 256, 1024), (320.0, 1280.0, 5120.0)  # 5 N
SCATTERED = (256, 512, 1024, 2048, 4096), (1.4, 2.6, 6.1, 11.0, 23.5)
COLD = (256, 512, 1024, 2048), (4.0, 2.0, 4.0, 8.0)  # linear, but for a slow first measurement
UNEVEN = (300, 500, 900, 1100, 4000, 7000), (2.2, 6.5, 17.0, 31.0, 390.0, 1150.0)


def lists(points):
    """The same as new lists, into which an attempt may write."""
    ns, values = points
    return list(ns), list(values)


def slope(run, points):
    return show(run(*lists(points)))


def fact_square(run):
    return f"N = 1, 2, 4, 8 cost 3, 12, 48, 192, which is 3 N²: exponent 2; you return {slope(run, SQUARE)}"


def fact_unit(run):
    ns, values = SQUARE
    one, thousand = slope(run, SQUARE), slope(run, (ns, [1000 * value for value in values]))
    if one != thousand:
        return f"One and the same cost, 3 N²: your exponent is {one} in seconds and {thousand} in milliseconds."


def fact_measure(run):
    wanted = scaling_exponent(*UNEVEN).slope
    found = float(run(*lists(UNEVEN)))
    if not abs(found - wanted) < 1e-3:
        ns, values = (", ".join(map(str, numbers)) for numbers in UNEVEN)
        return f"N = {ns} take {values} ms: refattn.measure.scaling_exponent finds {wanted:.3f}, you {found:.3f}."


fit_exponent = Exercise(
    "cost.fit_exponent",
    answers.fit_exponent,
    returns="the exponent p of values ≈ c · N^p, a number",
    probes=(
        Probe("N = 1, 2, 4, 8 cost 3, 12, 48, 192, which is 3 N².", lambda: lists(SQUARE)),
        Probe("N = 64, 256, 1024 cost 5 N.", lambda: lists(LINE)),
        Probe("N = 256 … 4096 take 1.4, 2.6, 6.1, 11.0, 23.5 ms.", lambda: lists(SCATTERED)),
        Probe("N = 256, 512, 1024, 2048 take 4, 2, 4, 8 ms.", lambda: lists(COLD)),
    ),
    variants=(
        Variant(
            "no logarithm",
            answers.fit_exponent_raw,
            lambda run: f"{fact_square(run)}.",
            """A straight line through the costs themselves: its slope is so many seconds a token, and changes with the
            unit. A power law is straight only where both axes are logarithmic: log(c N^p) = log c + p log N.
            Try: multiply all costs by 1000. Should an exponent notice?""",
        ),
        Variant(
            "one logarithm",
            answers.fit_exponent_half_log,
            lambda run: f"{fact_square(run)}.",
            """With a logarithm on the costs only, what becomes straight is an exponential, c · eᵃᴺ, and units of cost
            no longer matter: half of the way.
            Try: plot log cost against N, then against log N, for these four points.""",
        ),
        Variant(
            "axes swapped",
            answers.fit_exponent_swapped,
            lambda run: f"{fact_square(run)}.",
            """Both logarithms are there, and the fit has an intercept. But it says how N grows with the cost: on exact
            data, one over the exponent.
            Try: which of the two did you choose, and which did you measure? The measured one is what a fit
            predicts.""",
        ),
        Variant(
            "no intercept",
            answers.fit_exponent_no_intercept,
            fact_unit,
            """Both axes are logarithmic. But the line was forced through the origin, as if one token had to cost
            exactly 1: without the intercept log c, the unit leaks into the slope.
            Try: subtract both means before you divide. Which term of the line have you taken away?""",
        ),
        Variant(
            "ends only",
            answers.fit_exponent_ends,
            lambda run: (
                f"Times 4, 2, 4, 8 ms at N = 256 … 2048: three of the four lie on a line of exponent 1, you "
                f"return {slope(run, COLD)}, and two points would say as much."
            ),
            """On an exact power law you are right, in any unit. But from the two ends alone, one cold start decides,
            and the points between have no voice; nor is there anything to take an interval from.
            Try: least squares over all points. Then leave out the first: which changes more?""",
        ),
    ),
    properties=(
        Property(
            "the unit does not matter",
            fact_unit,
            "Seconds or bytes, the exponent is a pure number. Try: costs times 1000.",
        ),
    ),
    numbers=(
        Property(
            "it equals refattn.measure",
            fact_measure,
            """Where N grows by one factor each time you are right. Least squares takes each log N as it comes.
            Try: np.polyfit(np.log(ns), np.log(values), 1) on these six. Which of your sums is another?""",
        ),
    ),
    hints=(
        "On which kind of paper is c · N^p a straight line? Its slope is what you want.",
        """x = log N and y = log cost, each less its mean; then Σ x y / Σ x². np.polyfit(x, y, 1)[0] says the same.""",
    ),
    passed="""3 N² has exponent 2 in any unit, and scattered times agree with refattn.measure.
    Next: with the cold first point, 4, 2, 4, 8 ms, least squares says 0.4 for a linear method. What would have
    warned you: more digits, or an interval?""",
)
