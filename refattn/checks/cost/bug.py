"""Lesson 02, find the bug: a stopwatch that times more than the function. Tried on a simulated device, so exactly."""

from refattn.checks.compare import show
from refattn.checks.cost import answers
from refattn.checks.frame import Exercise, Probe, Property, Variant

COMPILE, ALLOCATE, TOUCH, WORK = 200.0, 5.0, 20.0, 1.0  # ms: first call; making an input; its first use; every call


class Device:
    """A simulated accelerator: calls are ordered at no cost and done later, inputs get their memory when first used."""

    def __init__(self):
        self.now, self.busy_until, self.compiled, self.touched, self.made = 0.0, 0.0, False, set(), 0

    def clock(self):
        return self.now

    def make_input(self):
        self.now += ALLOCATE
        self.made += 1
        return self.made

    def function(self, x):
        if not self.compiled:
            self.now += COMPILE
        if x not in self.touched:
            self.now += TOUCH
        self.compiled = True
        self.touched.add(x)
        self.busy_until = max(self.busy_until, self.now) + WORK

    def synchronize(self):
        self.now = max(self.now, self.busy_until)

    def controls(self):
        return self.function, self.make_input, self.synchronize, self.clock


def measured(run, repeats=5):
    return f"A simulated function takes 1 ms a call: you measure {show(run(*Device().controls(), repeats))} ms"


def fact_repeats(run):
    few, many = (float(run(*Device().controls(), repeats)) for repeats in (1, 500))
    if not abs(few - many) < 1e-6:
        return f"The same function takes {few:.3g} ms with 1 repeat and {many:.3g} ms with 500."


seconds_per_call = Exercise(
    "cost.seconds_per_call",
    answers.seconds_per_call,
    returns="the time of one call, a number",
    probes=(
        Probe("A simulated function takes 1 ms a call; 5 repeats.", lambda: Device().controls()),
        Probe("A simulated function takes 1 ms a call; 50 repeats.", lambda: (*Device().controls(), 50)),
    ),
    variants=(
        Variant(
            "cold, and a new input each time",
            answers.seconds_per_call_cold_and_fresh,
            lambda run: f"{measured(run)}, and with 50 repeats {show(run(*Device().controls(), 50))} ms.",
            """It waits for the device before it stops, so all work is in. So is more: the first call compiles (200
            ms), making an input takes 5 ms, and a new input gets its memory only when it is first used (20 ms).
            Try: which of these three do repeats dilute, and which come back each time?""",
        ),
        Variant(
            "a new input each time",
            answers.seconds_per_call_fresh,
            lambda run: f"{measured(run)}, however many repeats.",
            """Compilation is out. But every call gets an input that nobody has used yet: 5 ms to make it, 20 ms for
            its first use. Averages do not help against what happens every time.
            Try: make one input, before the clock starts, and use it again and again.""",
        ),
        Variant(
            "no warm-up",
            answers.seconds_per_call_cold,
            lambda run: f"{measured(run)}, and with 50 repeats {show(run(*Device().controls(), 50))} ms.",
            """The input is made before the clock starts. But the first call compiles, 200 ms, and touches the input's
            memory, 20 ms; five repeats share that out among them.
            Try: which is the smallest number of calls that must not be timed?""",
        ),
        Variant(
            "warmed up on another input",
            answers.seconds_per_call_another,
            lambda run: f"{measured(run)}, and with 50 repeats {show(run(*Device().controls(), 50))} ms.",
            """Compilation is out. But the timed input has not been used before: its memory is handed out at first use,
            20 ms. torch.empty does the same, and zeros often do.
            Try: warm up with the very tensor that you time.""",
        ),
        Variant(
            "clock started on a busy device",
            answers.seconds_per_call_late_start,
            lambda run: f"{measured(run)}, five calls' time and a bit.",
            """Compilation and input are out, and it waits before it stops. The bit is the warm-up call: it was
            ordered, but not done, when the clock started.
            Try: what did you do before stopping the clock, and not before starting it?""",
        ),
        Variant(
            "does not wait",
            answers.seconds_per_call_no_wait,
            lambda run: f"{measured(run)}.",
            """Compilation and input are out. But the calls were only ordered: an accelerator works while Python goes
            on, and the clock was read before anything was done.
            Try: what must happen between the last call and reading the clock?""",
        ),
        Variant(
            "all calls together",
            answers.seconds_per_call_total,
            lambda run: f"{measured(run)} with 5 repeats, {show(run(*Device().controls(), 50))} ms with 50.",
            """Everything that is not the function is out. The result is for all calls.
            Try: divide.""",
        ),
    ),
    properties=(
        Property("repeats do not matter", fact_repeats, "What is timed once is diluted. Try: 1 and 500 repeats."),
    ),
    hints=(
        "List what happens between the two readings of the clock. Three things there are not the function.",
        """Before the clock starts: make one input, call the function on it once, synchronize. Then only calls, and
        synchronize again before it stops.""",
    ),
    passed="""1 ms, with 5 repeats or 50: only the function is between the two readings.
    Next: refattn.measure.latency times two functions alternately, not one after the other. Against what does that
    help?""",
)
