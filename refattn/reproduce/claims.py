"""The two claims that nearly every experiment makes, and what any claim about a part says: see `verdict.Claim`."""

from refattn.reproduce.verdict import Claim


def about(part, metric, method, baseline=None):
    """Which numbers a claim is about: `metric` of `method` (and of `baseline`) in a comparison or measurement."""
    return {"task": part.name, "metric": metric, "method": method, "baseline": baseline}


def better(name, statement, source, part, method, baseline, *, metric=None, **more):
    """Superiority of a method over a baseline, in the comparison's own metric unless another is named."""
    compared = about(part, metric or part.metric, method, baseline)
    return Claim(name, statement, source, rule="superiority", **compared, **more)


def not_worse(name, statement, source, part, method, baseline, *, margin, **more):
    """Non-inferiority of a method to a baseline by a margin, in the comparison's own metric."""
    compared = about(part, part.metric, method, baseline)
    return Claim(name, statement, source, rule="non-inferiority", margin=margin, **compared, **more)
