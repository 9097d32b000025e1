"""``python -m tests.benchmark.starting``: the time until the MTA is ready, and that of the tool.

Each line has medians, and the least in brackets, of the time and the processor time of a process:
from the start of ``twistd`` to its line ``ready``, with an empty state directory, and of commands
of the tool from start to end; no MTA runs that they could ask.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from ..functional.machine import LOOPBACK, folder

_COMMANDS = (
    ("--help",),
    ("status",),
    ("queue", "list"),
    ("explain", "ann@example.net"),
    ("users", "list", "--file", "users"),
    ("check", "--no-dns"),
)
_ANY_PORT = f"tcp:0:interface={LOOPBACK}"
_TOOL = "from twisted_mta.cli import main; main()"


def _spent() -> float:
    """Return the processor seconds of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def start(home: Path) -> tuple[float, float]:
    """Start an MTA; return the seconds until it was ready, and the processor seconds until then."""
    options = ("--state-dir", str(home / "state"), "--smtp", _ANY_PORT, "--web", _ANY_PORT)
    began = time.perf_counter()
    with subprocess.Popen(
        _twistd(*options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if "ready: " in line), None)
        assert ready is not None, "it did not start"
        took = time.perf_counter() - began
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.terminate()
        process.stdout.read()
    return took, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _twistd(*options: str) -> list[str]:
    run = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", run, "--nodaemon", "--pidfile=", "mta", *options]


def command(home: Path, words: Sequence[str]) -> tuple[float, float]:
    """Run a command of the tool; return its seconds, and its processor seconds."""
    (home / "users").touch(mode=0o600)
    began, before = time.perf_counter(), _spent()
    subprocess.run(
        [sys.executable, "-c", _TOOL, *words], cwd=home, capture_output=True, check=False
    )
    return time.perf_counter() - began, _spent() - before


def _line(name: str, runs: int, once: Callable[[Path], tuple[float, float]]) -> str:
    figures = []
    for _ in range(runs):
        with folder("starting") as home:
            figures.append(once(home))
    texts = (f"{median(each):7.3f} ({min(each):.3f})" for each in zip(*figures, strict=True))
    return f"{name:32} {'  '.join(texts)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.starting", description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    print(f"{'seconds':32} {'time':>15}  {'processor time':>15}")
    print(_line("start to ready", options.runs, start), flush=True)
    for words in _COMMANDS:
        print(_line(" ".join(words), options.runs, partial(command, words=words)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
