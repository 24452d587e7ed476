"""The generated blocks of README.md: what stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`."""

import re

from refattn.authoring.heads import colab_badge

BLOCK = re.compile(r"<!-- generated: (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end: (?P<end>[\w-]+) -->", re.DOTALL)
MARKER = re.compile(r"<!-- (generated|end): [\w-]+ -->")


def fill(text, blocks):
    """The text with each marked block's body replaced. blocks: {name: function that returns Markdown}.

    Raises: ValueError for an unknown name, or markers that do not come in pairs.
    """

    def body(found):
        name = found["name"]
        if found["end"] != name or MARKER.search(found["body"]):
            raise ValueError(f"README.md: the block {name!r} has no end marker of its own")
        if name not in blocks:
            raise ValueError(f"README.md: unknown block {name!r}: wanted one of {', '.join(blocks)}")
        return f"<!-- generated: {name} -->\n\n{blocks[name]().strip()}\n\n<!-- end: {name} -->"

    filled, count = BLOCK.subn(body, text)
    if len(MARKER.findall(text)) != 2 * count:
        raise ValueError("README.md: a marker `<!-- generated: … -->` or `<!-- end: … -->` stands alone")
    return filled


def readme_blocks(project):
    """{name: function that makes the block}."""
    return {"badges": lambda: badges(project), "papers": papers, "bench": costs}


def badges(project):
    """The row of badges at the top."""
    python = project.python.removeprefix(">=")
    images = [
        colab_badge(project, "notebooks/colab/00_start_here.ipynb"),
        f"![Python {python} or newer](https://img.shields.io/badge/python-{python}%2B-blue)",
        f"[![Licence: {project.licence}](https://img.shields.io/badge/licence-{project.licence}-blue)](LICENSE)",
    ]
    return "\n".join(images)


def papers():
    """The table of papers with state and verdicts."""
    from refattn import catalog, reproduce

    found = {record.slug: reproduce.summary(record.slug) for record in catalog.RECORDS}
    return catalog.readme_table({slug: words for slug, words in found.items() if words})


def costs():
    """What the recorded bench says: every mechanism at its longest N, and against the packages people use."""
    from refattn import bench

    if not bench.RECORDED.exists():
        return "*No bench is recorded yet: `python -m refattn bench --record` makes one.*"
    found = bench.load()
    place = found["environment"]
    threads = "one thread" if place["threads"] == 1 else f"{place['threads']} threads"
    where = f"*{place['processor']}, {threads}, torch {place['torch']}; width 64, 4 heads, batch 1.*"
    parts = ["Forward pass of one layer:", bench.summary_table(found["rows"]), where]
    if found["peers"]:
        parts += ["Ours in times of theirs (below 1 is faster, or smaller), median (least–most) of rounds in turn:"]
        parts += [bench.peer_table(found["peers"])]
    return "\n\n".join(parts)
