"""Command line of the authors' tool: see the package's docstring."""

import argparse
import sys
from pathlib import Path

import refattn.authoring
from refattn.authoring import metadata
from refattn.authoring.project import lowest, read_project
from refattn.authoring.run import run
from refattn.authoring.sync import sync


def main(arguments=None):
    """Run one command. Returns: the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m refattn.authoring",
        description=refattn.authoring.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path(), help="root of the repository (default: this folder)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sync_parser = commands.add_parser("sync", help="make everything generated")
    sync_parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if out of step")
    run_parser = commands.add_parser("run", help="execute notebooks in place")
    run_parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    commands.add_parser("pin", help="write constraints.txt")
    commands.add_parser("lower-bounds", help="print the lower bounds as constraints")
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except ValueError as error:
        print(f"refattn.authoring: {error}", file=sys.stderr)
        return 1


def sync_command(options):
    changed = sync(options.root, check=options.check)
    for path in changed:
        print(f"{'out of step' if options.check else 'written'}: {path}")
    if options.check and changed:
        print("run `make sync`", file=sys.stderr)
        return 1
    return 0


def run_command(options):
    for path in options.notebooks:
        print(f"{path}: {run(path):.1f} s", flush=True)
    return 0


def pin_command(options):
    text = metadata.pins(read_project(options.root))
    (options.root / "constraints.txt").write_text(text, encoding="utf-8", newline="\n")
    return 0


def lower_bounds_command(options):
    print(lowest(read_project(options.root)), end="")
    return 0


COMMANDS = {"sync": sync_command, "run": run_command, "pin": pin_command, "lower-bounds": lower_bounds_command}

if __name__ == "__main__":
    sys.exit(main())
