"""``python -m tests.benchmark``: our MTA beside Postfix and others, on one machine in one run.

With ``--quick`` it takes a minute or two, and its figures mean nothing. Otherwise it takes ten
minutes or more, during which nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import asdict, evolve

from ..functional.machine import Unready, Unusable, folder, path_of
from .contestant import Field, others
from .floors import versions
from .idle import allow_files
from .page import RESULTS, measurements, write
from .results import MANY, OURS, THEIRS, Measurement, summaries
from .scenario import GROUPS, QUICK, Benchmark, Extent
from .table import amount, text
from .target import judged, targets


def machine() -> dict[str, object]:
    """Return facts about the machine and the software."""
    return {
        "processors": os.cpu_count(),
        "memory, GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        **versions(),
        **{name: version(name) for name in ("twisted", "pyopenssl", "cryptography")},
        "load before": round(os.getloadavg()[0], 2),
    }


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    full = Extent()
    made = argparse.ArgumentParser(
        prog="python -m tests.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="little of everything")
    made.add_argument("--rounds", type=int, help=f"of each scenario ({full.rounds})")
    made.add_argument(
        "--seconds", type=float, help=f"of work for each contestant in a round ({full.seconds})"
    )
    made.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=2,
        help="also measure ours with N workers; 0: do not (2)",
    )
    made.add_argument("--only", action="append", choices=GROUPS, help="a part; repeatable")
    made.add_argument(
        "--contestant", action="append", metavar="NAME", help="only these; repeatable"
    )
    made.add_argument(
        "--exim",
        type=Path,
        default=Path("/"),
        metavar="DIRECTORY",
        help="directory of unpacked packages of Exim (see tests.benchmark.exim)",
    )
    made.add_argument("--directory", help="directory of the queues, for another disk")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    made.add_argument(
        "--page", action="store_true", help="write figures, tables and plot into the documentation"
    )
    made.add_argument(
        "--option", action="append", default=[], metavar="OPTION", help="of twistd mta; repeatable"
    )
    return made


def extent(arguments: argparse.Namespace) -> Extent:
    """Return the extent of the run."""
    asked = QUICK if arguments.quick else Extent()
    given = {
        name: value
        for name in ("rounds", "seconds")
        if (value := getattr(arguments, name)) is not None
    }
    # The MTA and the client need about one file for each connection.
    given["crowd"] = min(asked.crowd, allow_files() - 1000)
    return evolve(asked, **given)


def command(arguments: argparse.Namespace) -> str:
    """Return the command line, without paths of this machine."""
    words = ["python", "-m", "tests.benchmark"]
    if arguments.quick:
        words.append("--quick")
    for name in ("rounds", "seconds", "only", "contestant", "option"):
        value = getattr(arguments, name)
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                words += [f"--{name}", str(each)]
    return shlex.join(words)


def report(content: Mapping[str, Any]) -> str:
    """Return the results of a run, for a terminal."""
    found = summaries(measurements(content))
    extent = content["extent"]
    reached = [judged(target, found) for target in targets(extent["queues"], extent["crowd"])]
    machine = "\n".join(f"{name}: {value}" for name, value in content["machine"].items())
    return f"{machine}\n\n{text(found, reached)}"


def _say(one: Measurement) -> None:
    said = ", ".join(f"{amount(value)} {name}" for name, value in one.figures.items())
    print(f"{one.scenario} {one.round} {one.contestant}: {said}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the JSON.

    Returns:
        The exit status: 0, or 1 if a contestant failed.
    """
    asked = parser()
    arguments = asked.parse_args(argv)
    many = [MANY.format(arguments.workers)] if arguments.workers else []
    names = arguments.contestant or [THEIRS, OURS, *many, *others(arguments.exim)]
    try:
        for program in ("smtp-source", "smtp-sink", *([THEIRS] if THEIRS in names else [])):
            path_of(program)
    except Unusable as unusable:
        asked.error(str(unusable))
    todo = extent(arguments)
    measured: list[Measurement] = []

    def record(one: Measurement) -> None:
        measured.append(one)
        _say(one)

    content: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(arguments),
        "machine": machine(),
        "extent": asdict(todo),
    }
    tempfile.tempdir = arguments.directory or None
    start = time.monotonic()
    failure = ""
    with folder("benchmark") as home:
        place = Field(home, arguments.option, arguments.exim)
        try:
            Benchmark(place, names, todo, record).run(arguments.only or GROUPS)
        except Unready as unready:
            failure = f"it ended early: {unready}"
    content["measurements"] = [asdict(one) for one in measured]
    print(report(content))
    print(f"\n{time.monotonic() - start:.0f} s in all")
    written = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if arguments.json:
        arguments.json.write_text(written, encoding="utf-8")
    if failure:
        print(failure, file=sys.stderr)
    elif arguments.page:
        RESULTS.write_text(written, encoding="utf-8")
        write()
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
