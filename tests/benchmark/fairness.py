"""``python -m tests.benchmark.fairness``: the delay of other mail behind one bad next hop.

A running MTA accepts ``--messages`` for a domain whose next hop hangs, is down, or is slow. Then
single messages are sent to another domain and to a local mailbox. Times are from before the
connection to the MTA until the message is at its next hop, or in its Maildir, in milliseconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from ..functional.hop import Hop, flood
from ..functional.machine import LOOPBACK, eventually, folder, free_port
from ..functional.mail import message, submit
from ..functional.mta import MTA


def measure(kind: str, messages: int, samples: int, workers: int) -> tuple[float, list[float]]:
    """Return messages accepted per second (0 for the baseline), and the times of other mail."""
    good, bad = Hop(), Hop()
    bad.greeting = None if kind == "hangs" else bad.greeting
    bad.delay = 1.0 if kind == "is slow" else 0.0
    with folder("fairness") as home, good:
        if kind == "is down":
            bad.port = free_port()
        else:
            bad.start()
        routes = (
            *("--route", f"bad.example=smtp://{LOOPBACK}:{bad.port}"),
            *("--route", f"good.example=smtp://{LOOPBACK}:{good.port}"),
            *("--workers", str(workers)),
        )
        with MTA(home, *routes) as mta:
            rate, began = 0.0, time.perf_counter()
            if kind != "is not there":
                flood(mta.smtp, [f"u{number}@bad.example" for number in range(messages)])
                rate = messages / (time.perf_counter() - began)
            times = [
                _timed(
                    lambda number=number: submit(  # type: ignore[misc]
                        mta.smtp, message(), f"u{number}@good.example", starttls=False
                    ),
                    lambda number=number: len(good.transactions) > number,  # type: ignore[misc]
                )
                for number in range(samples)
            ]
            times += [
                _timed(
                    lambda number=number: submit(  # type: ignore[misc]
                        mta.smtp, message(), f"u{number}@localhost", starttls=False
                    ),
                    lambda number=number: bool(  # type: ignore[misc]
                        mta.mail("localhost", f"u{number}")
                    ),
                )
                for number in range(samples)
            ]
            assert mta.terminate() == 0
        bad.stop()
    return rate, times


def _timed(send: Callable[[], None], there: Callable[[], bool]) -> float:
    began = time.perf_counter()
    send()
    eventually(there, "the message")
    return (time.perf_counter() - began) * 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.fairness", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument(
        "--samples", type=int, default=20, help="messages to the other domain and to the mailbox"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--kinds", nargs="*", default=["is not there", "hangs", "is down", "is slow"]
    )
    options = parser.parse_args(arguments)
    columns = ("accepted/s", "other p50", "max", "local p50", "max")
    print("the other next hop", *(name.rjust(11) for name in columns))
    for kind in options.kinds:
        rate, times = measure(kind, options.messages, options.samples, options.workers)
        other, local = times[: options.samples], times[options.samples :]
        figures = (rate, median(other), max(other), median(local), max(local))
        print(kind.ljust(18), *(f"{figure:11.1f}" for figure in figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
