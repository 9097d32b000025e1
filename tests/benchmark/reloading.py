"""``python -m tests.benchmark.reloading``: the delay of mail while large files are read again.

A running MTA has files of aliases, of ``relay_recipients`` and of ``deny``. Mail arrives at a
steady rate, first alone, then while one of the files changes in a tenth of its entries and is
reloaded, again and again. Times are in milliseconds, from the due time of a message to its ``250``:
the whole delay of its sender.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from click.testing import CliRunner

from twisted_mta.cli.command import main as tool

from ..functional.machine import folder
from ..functional.mta import MTA
from .latency import started

_SETTINGS = """
[mta]
local_domains = ["localhost"]
relay_domains = ["relay.example"]
aliases = "{home}/aliases"
relay_recipients = "{home}/relay_recipients"

[policy]
deny = "{home}/deny"
"""
_SHOWN = ("p50", "p99", "max")


def _lines(file: str, entries: int, version: int) -> Iterator[str]:
    for number in range(entries):
        name = f"user{number}.{version if number % 10 == 0 else 0}"
        if file == "aliases":
            yield f"{name}: {name}@elsewhere.example\n"
        elif file == "relay_recipients":
            yield f"{name}@relay.example\n"
        elif number % 2:
            yield f"{name}@denied.example\n"
        else:
            yield f"10.{version}.{number >> 8 & 255}.{number & 255}\n"


def _exchange(home: Path, file: str, times: int) -> None:
    """Put the first or the second version of a file in place."""
    shutil.copyfile(home / f"{file}.{times % 2}", home / file)


def _line(name: str, load: subprocess.Popen[str]) -> str:
    figures = json.loads(load.communicate()[0])
    times = (f"{which} {figures[f'{which} ms from when due']:7.2f}" for which in _SHOWN)
    return f"{name:32} {'  '.join(times)}"


def measure(entries: int, rate: float, seconds: float, say: Callable[[str], None]) -> None:
    """Measure, and pass each line to ``say`` when it is known."""
    files = ("aliases", "relay_recipients", "deny")
    with folder("reloading") as home:
        for file in files:
            for version in range(2):
                text = "".join(_lines(file, entries, version))
                (home / f"{file}.{version}").write_text(text, encoding="ascii")
            _exchange(home, file, 0)
        with MTA(home, toml=_SETTINGS.format(home=home)) as mta:
            words = ["reload", "--state-dir", str(mta.state)]
            say(_line("mail alone", started(mta.smtp, rate, seconds)))
            for file in files:
                load = started(mta.smtp, rate, seconds)
                times: list[float] = []
                while load.poll() is None:
                    _exchange(home, file, len(times) + 1)
                    began = time.monotonic()
                    ran = CliRunner().invoke(tool, words)
                    assert ran.exit_code == 0, ran.output
                    times.append(time.monotonic() - began)
                if len(times) > 1:
                    times.pop()  # the mail has ended meanwhile
                say(_line(f"{file}, {len(times)} reloads of {min(times):.1f} s", load))
            say(_line("mail alone", started(mta.smtp, rate, seconds)))
            assert mta.terminate() == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.reloading", description=__doc__
    )
    parser.add_argument("--entries", type=int, default=200_000, help="of each file (200,000)")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second (100)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (15)")
    options = parser.parse_args(arguments)
    measure(options.entries, options.rate, options.seconds, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
