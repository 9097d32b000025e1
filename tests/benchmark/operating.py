"""``python -m tests.benchmark.operating``: the delay of mail during actions on a long queue.

A running MTA has ``--messages`` deferred for 10,000 domains. Mail arrives at a steady rate and is
delivered to a next hop, first alone, then while the tool lists, holds, releases, retries and
removes the whole queue, each once. Times are in milliseconds, from the final dot to the ``250``;
in brackets from the due time of a message, which is the whole delay of its sender.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from click.testing import CliRunner

from twisted_mta.cli.command import main as tool

from ..functional.hop import Hop
from ..functional.machine import LOOPBACK, folder, free_port
from ..functional.mta import MTA
from .latency import started
from .queued import fill

_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("list", "--json"),
    ("hold", "--to", "user*"),
    ("release", "--to", "user*"),
    ("retry", "--to", "user*"),
    ("hold", "--domain", "7.example"),
    ("remove", "--to", "user*", "--yes"),
)


def _line(name: str, load: subprocess.Popen[str]) -> str:
    figures = json.loads(load.communicate()[0])
    times = " ".join(
        f"{which} {figures[f'{which} ms']:7.2f} ({figures[f'{which} ms from when due']:7.2f})"
        for which in ("p50", "p99")
    )
    return f"{name:24} {times}"


def measure(messages: int, rate: float, seconds: float, say: Callable[[str], None]) -> None:
    """Measure, and pass each line to ``say`` when it is known."""
    with folder("operating") as home, Hop() as hop:
        mta = MTA(
            home,
            *("--route", f"elsewhere.example=smtp://{LOOPBACK}:{hop.port}"),
            *("--route", f"*=smtp://{LOOPBACK}:{free_port()}"),
        )
        fill(home / "mta-state", messages)
        with mta:
            say(_line("mail alone", started(mta.smtp, rate, seconds)))
            for command in _COMMANDS:
                # About as long as the command takes, so that its effect is in all figures.
                load = started(mta.smtp, rate, seconds)
                time.sleep(1.0)
                took = -time.monotonic()
                words = ["queue", *command, "--state-dir", str(mta.state)]
                ran = CliRunner().invoke(tool, words)
                took += time.monotonic()
                done = ran.output if command[0] != "list" else f"{len(ran.output):,} octets"
                say(_line(f"{command[0]}, {took:.1f} s", load) + f"  {done.splitlines()[0]}")
            assert mta.terminate() == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.operating", description=__doc__
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    options = parser.parse_args(arguments)
    measure(options.messages, options.rate, options.seconds, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
