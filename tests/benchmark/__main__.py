"""``python -m tests.benchmark``: acceptance and end-to-end rate beside Postfix, in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict

from ..functional.programs import Missing, folder, found, run
from .contest import (
    MANY,
    OURS,
    SCENARIOS,
    THEIRS,
    Measurement,
    Summary,
    Work,
    alternate,
    contestants,
    summaries,
)


def table(results: Sequence[Summary]) -> str:
    """Return what people read."""
    names = list(results[0].medians)
    lines = [
        f"{'connections':12}{'median of rounds':18}"
        + "".join(f"{name:>13}" for name in names)
        + f"{'ratio':>8}  by round"
    ]
    for one in results:
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        lines.append(
            f"{one.scenario:12}{one.figure:18}"
            + "".join(f"{one.medians[name]:13.2f}" for name in names)
            + f"{ratio:>8}  "
            + " ".join(f"{value:.2f}" for value in one.ratios)
        )
    return "\n".join(lines)


def _say(one: Measurement) -> None:
    figures = ", ".join(f"{value:.2f} {name}" for name, value in one.figures.items())
    print(f"{one.scenario} {one.round} {one.contestant}: {figures}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print the table, write the JSON."""
    default = Work()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each scenario (5)")
    parser.add_argument("--messages", type=int, default=default.messages, help="in each round")
    parser.add_argument("--octets", type=int, default=default.octets, help="of each message")
    parser.add_argument("--sessions", type=int, default=default.sessions, help="in parallel")
    parser.add_argument(
        "--connections",
        choices=(*SCENARIOS, "both"),
        default="both",
        help="kept: many messages on each; single: one; both (the default)",
    )
    parser.add_argument("--only", choices=(OURS, THEIRS), help="measure one, without ratios")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="measure N workers too, beside one process"
    )
    parser.add_argument("--directory", help="where queues are kept, for another disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--option", action="append", default=[], metavar="OPTION", help="of twistd mta; repeatable"
    )
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else [THEIRS, OURS]
    if arguments.workers:
        names.append(MANY.format(arguments.workers))
    try:
        for program in ("smtp-source", "smtp-sink", *([THEIRS] if THEIRS in names else [])):
            found(program)
    except Missing as missing:
        parser.error(str(missing))
    scenarios = list(SCENARIOS) if arguments.connections == "both" else [arguments.connections]
    work = Work(arguments.messages, arguments.octets, arguments.sessions)
    tempfile.tempdir = arguments.directory or None
    with folder("benchmark") as home, contestants(home, names, arguments.option) as running:
        measurements = alternate(running, work, scenarios, arguments.rounds, _say)
    results = summaries(measurements)
    machine = {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "postfix": run("postconf", "-d", "-h", "mail_version").stdout.strip(),
    }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(table(results))
    if arguments.json:
        content = {
            "machine": machine,
            "work": asdict(work),
            "measurements": [{**asdict(one), **one.figures} for one in measurements],
            "summaries": [{**asdict(one), "ratio": one.ratio} for one in results],
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
