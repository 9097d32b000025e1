"""``python -m tests.benchmark.filtering``: what a filter (``[[milter]]``) costs a message.

MTAs without a filter, and with one of each kind below, get the same message of 4 KiB, one MTA after
the other in each round, and discard it. The filter is a process of its own, which decides at once.
The cost is the difference in CPU time to the MTA without a filter, of the whole process of the MTA
alone; the figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from attrs import frozen

from ..functional.machine import LOOPBACK, folder, free_port, listens
from ..functional.mail import message
from ..functional.mta import MTA
from ..functional.program import Module
from ..policy.milter.scripted import ALL, UNANSWERED, ScriptedFilter, change
from .checking import cost


@frozen
class _Kind:
    """A filter.

    Attributes:
        steps: what it leaves out (SMFIP_*).
        changes: what it answers at the end of a message, before it accepts.
    """

    steps: int = 0
    changes: tuple[bytes, ...] = ()


_FIELD = change(b"h", b"X-Filtered", b"yes")
_KINDS = {
    "it answers each step": _Kind(),
    "it answers at the end alone": _Kind(UNANSWERED),
    "it adds a field": _Kind(0, (_FIELD,)),
    "it adds a field and replaces the body": _Kind(0, (_FIELD, b"b" + b"Nothing.\r\n" * 400)),
}


class _Filter(Module):
    """A filter of one kind as a process."""

    def __init__(self, home: Path, name: str) -> None:
        self.port = free_port()
        words = ("--serve", name, "--port", str(self.port))
        super().__init__(home, "filter.log", "tests.benchmark.filtering", *words)

    def start(self) -> None:
        super().start()
        self.wait_for(lambda: listens(self.port), "the filter listens")


class _Forgetful(list[tuple[bytes, bytes]]):
    """What a filter was told, which it does not keep."""

    def append(self, told: tuple[bytes, bytes], /) -> None:
        """Forget it."""


def serve(kind: _Kind, port: int) -> None:
    """Be a filter."""
    from twisted.internet import reactor

    made = ScriptedFilter({b"E": [*kind.changes, b"c"]}, actions=ALL, steps=kind.steps)
    made.told = _Forgetful()
    reactor.listenTCP(port, made, interface=LOOPBACK)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


@contextlib.contextmanager
def running(home: Path, name: str | None) -> Iterator[MTA]:
    """Run an MTA with a filter of a kind; None: without one."""
    home.mkdir()
    toml = (
        '[mta]\nlocal_domains = ["here.example"]\nroutes = { "here.example" = "discard:" }\n'
        '[policy]\nspf = "off"\ndkim = "off"\ndmarc = "off"\narc = "off"\n'
    )
    with contextlib.ExitStack() as stack:
        if name is not None:
            filter = stack.enter_context(_Filter(home, name))
            toml += f'[[milter]]\nendpoint = "tcp:{LOOPBACK}:{filter.port}"\n'
        yield stack.enter_context(MTA(home, toml=toml))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.filtering", description=__doc__
    )
    parser.add_argument("--messages", type=int, default=1000, help="in each round (1000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=tuple(_KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(_KINDS[options.serve], options.port)
        return 0
    content = message("Hello", "This is a line of a message, of about the usual length.\r\n" * 64)
    names = (None, *_KINDS)
    with folder("filtering") as place, contextlib.ExitStack() as stack:
        mtas = [
            stack.enter_context(running(place / f"mta-{number}", name))
            for number, name in enumerate(names)
        ]
        found: list[list[float]] = [[] for _ in mtas]
        for number in range(options.rounds + 1):
            for mta, figures in zip(mtas, found, strict=True):
                each = cost(mta, content, options.messages)
                if number:  # the first round warms them up
                    figures.append(each)
    print("filter".ljust(38), "CPU µs/message", "  of it")
    for name, figures in zip(names, found, strict=True):
        more = median(each - none for each, none in zip(figures, found[0], strict=True))
        print((name or "none").ljust(38), f"{median(figures):14.0f} {more:7.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
