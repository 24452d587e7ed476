"""Command line of refattn: what there is, experiments, timings, exercises.

    python -m refattn list                             papers, what stands, verdicts
    python -m refattn reproduce luna --budget quick    run an experiment (or demo, colab, study)
    python -m refattn bench                            time and memory of every mechanism against softmax attention
    python -m refattn check 10                         which exercises of lesson 10 pass (without a number: all)

Exit codes: 0 done, 1 an error or an exercise that does not pass, 2 a wrong command line, 130 stopped by Ctrl-C.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from refattn import catalog


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def make_parser():
    parser = Parser(prog="python -m refattn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="papers and baselines: forms, lesson, what stands, verdicts")

    reproduce = commands.add_parser("reproduce", help="run an experiment and judge its claims; goes on after a stop")
    reproduce.add_argument("slug", metavar="SLUG", help="of a paper, see `list`")
    reproduce.add_argument("--budget", default="demo", help="demo (30 s), quick (10 min), colab (GPU) or study (1 h)")
    reproduce.add_argument("--out", type=Path, default=Path("runs"), help="folder for cells, result and pictures")
    reproduce.add_argument("--workers", type=int, help="processes (0: train in this one; default: 2, on a GPU 0)")
    reproduce.add_argument("--dry", action="store_true", help="a few steps of everything; the numbers mean nothing")
    reproduce.add_argument("--record", action="store_true", help="keep the result as package data")

    bench = commands.add_parser("bench", help="time mechanisms against softmax attention")
    bench.add_argument("--names", nargs="+", metavar="NAME", help="mechanisms (default: all)")
    bench.add_argument("--lengths", nargs="+", type=int, default=[2**i for i in range(8, 15)], metavar="N")
    bench.add_argument("--dim", type=int, default=64)
    bench.add_argument("--heads", type=int, default=4)
    bench.add_argument("--forward", action="store_true", help="forward only")
    bench.add_argument("--rounds", type=int, default=7, help="times that each cell is measured (default: 7)")
    bench.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    bench.add_argument("--peers", action="store_true", help="also against the packages that `make peers` installs")
    bench.add_argument("--out", type=Path, metavar="JSON", help="write the numbers here, and a figure beside them")
    bench.add_argument("--record", action="store_true", help="keep the numbers as package data")

    check = commands.add_parser("check", help="run exercise notebooks and say which exercises pass")
    check.add_argument("which", nargs="*", metavar="NN|NAME", help="lessons (default: every notebook in the folder)")
    check.add_argument("--folder", type=Path, default=Path("exercises"), help="where the notebooks are")
    return parser


def main(arguments=None):
    """Run one command. Returns: the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        code = COMMANDS[options.command](options)
        sys.stdout.flush()  # here, where a closed pipe is no error
        return code
    except KeyboardInterrupt as stop:
        return complain(stop.args[0] if stop.args else "stopped", code=130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        return complain(error)


def complain(problem, code=1):
    """Print a problem as one line on stderr. Returns: the exit code."""
    first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    print(f"refattn: {first}", file=sys.stderr)
    return code


def list_command(options):
    from refattn import reproduce

    rows = [("slug", "name", "kind", "forms", "lesson", "what stands", "verdicts")]
    for record in catalog.RECORDS:
        lesson = f"{record.lesson:02d}"
        verdict = reproduce.summary(record.slug) or "–"
        rows.append(
            (record.slug, record.name, record.kind, ", ".join(record.forms) or "–", lesson, record.state, verdict)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def reproduce_command(options):
    from refattn import reproduce
    from refattn.reproduce.figure import figure

    run = {"out": options.out, "workers": options.workers, "dry": options.dry}
    if options.dry and options.record:
        raise ValueError("--record with --dry: the numbers of a dry run mean nothing and are not kept")
    result = reproduce.run(options.slug, options.budget, **run)
    for claim in result["claims"]:
        print(reproduce.line(claim))
    for name, task in result["tasks"].items():
        if "same_as_itself" in task:
            control = task["same_as_itself"]
            print(f"{control['verdict']:<29} control: {control['baseline']} against its own second run, {name}")
    path = reproduce.result_file(options.slug, options.budget, out=options.out, dry=options.dry)
    print(f"{result['seconds']['clock']:.0f} s; {path}")
    if options.dry:
        print("dry run: these numbers mean nothing")
    if any(claim["rule"] != "counted" for claim in result["claims"]):
        picture = path.with_name("claims.png")
        figure(result).savefig(picture, dpi=150)
        print(picture)
    if options.record:
        print(f"recorded: {reproduce.record(result)}")
    return 0


def bench_command(options):
    from refattn import attention, bench, processes

    if min(options.lengths) < 1 or options.rounds < 1:
        raise ValueError(f"--lengths {options.lengths} --rounds {options.rounds}: wanted 1 or more")
    device = processes.choose_device(options.device)
    written = [path for path in (options.out, bench.RECORDED if options.record else None) if path is not None]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)  # now, not after minutes of timing
    sizes = {"dim": options.dim, "heads": options.heads, "rounds": options.rounds, "device": device}
    names, lengths = options.names or attention.names(), sorted(set(options.lengths))
    rows = bench.run(names, lengths, backward=not options.forward, options=bench.CHUNKED, **sizes)
    print(f"\n{bench.summary_table(rows)}")
    peers = []
    if options.peers:
        missing = [peer.package for peer in bench.PEERS if peer.mechanism in names and not peer.installed]
        print(f"\nnot installed: {', '.join(missing)} (`make peers`)" if missing else "")
        peers = bench.against_peers(names, [n for n in lengths if n >= 1024] or lengths, **sizes)
        print(f"\n{bench.peer_table(peers)}")
    for path in written:
        bench.record(path, rows, peers, device=device)
        print(path)
    if options.out is not None:
        picture = options.out.with_suffix(".png")
        bench.figure({"rows": rows}).savefig(picture, dpi=150)
        print(picture)
    return 0


def check_command(options):
    paths = notebooks(options.folder, options.which)
    from refattn.checks.run import run_notebook

    passed = True
    for path in paths:
        print(path, flush=True)  # what follows takes a while
        rows = run_notebook(path)
        for row in rows:
            print(f"  {row['mark']} {row['exercise']:<24} {row['stage']}")
        if not rows:
            print("  nothing attempted yet")
        passed = passed and bool(rows) and all(row["passed"] for row in rows)
    return 0 if passed else 1


def notebooks(folder, which):
    """Paths NN_name.ipynb in a folder, all or those whose number or name is asked for. Raises: ValueError if none."""
    known = {}
    for path in sorted(folder.glob("*.ipynb")):
        if found := re.fullmatch(r"(\d\d)_(\w+)", path.stem):
            known[path] = {path.stem, found[1], str(int(found[1])), found[2]}
    if not known:
        raise ValueError(f"no NN_name.ipynb in {folder}: run this where the exercises are, or name their --folder")
    for name in which:
        if not any(name in names for names in known.values()):
            raise ValueError(f"no exercises {name!r}: wanted some of {', '.join(path.stem for path in known)}")
    return [path for path, names in known.items() if not which or names & set(which)]


COMMANDS = {"list": list_command, "reproduce": reproduce_command, "bench": bench_command, "check": check_command}

if __name__ == "__main__":
    sys.exit(main())
