"""How each slug's golden arrays map to our functions and modules: renaming and reshaping only, no mathematics.

One file a slug. Its `adapt(case)` takes a `Case` and returns the outputs by the names they have in the file (without
`out.`). Options and shapes come from the case's `config`, so that cases nobody has seen yet run through the same lines.
Gradients of the loss (Σ out · r over every r in the file, or the output "loss" if the adapter returns one) are the
harness's affair; other gradients an adapter returns itself, as "grad.NAME". A file may also say

    TOLERANCE = (relative, absolute)     where the card gives another than the harness's default; with the reason
    INFORMATION = ("name", …)            outputs that a file of numbers holds for information only
"""

from importlib import import_module
from pkgutil import iter_modules

FILES = {m.name: import_module(f"golden_adapters.{m.name}") for m in iter_modules(__path__) if m.name != "shared"}
ADAPTERS = {slug: file.adapt for slug, file in FILES.items()}
TOLERANCES = {slug: file.TOLERANCE for slug, file in FILES.items() if hasattr(file, "TOLERANCE")}
INFORMATION = {slug: file.INFORMATION for slug, file in FILES.items() if hasattr(file, "INFORMATION")}
