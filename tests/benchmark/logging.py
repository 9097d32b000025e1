"""``python -m tests.benchmark.logging``: the cost of a log event, by our observer and Twisted's."""

from __future__ import annotations

import argparse
import os
import sys
import timeit
from collections.abc import Sequence

from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, textFileLogObserver
from zope.interface import implementer

from twisted_mta.mail.queue_id import QueueId
from twisted_mta.telemetry.log import Log

from ..functional.machine import folder

# The event of a delivery.
_FORMAT = (
    "{id} {status}: from=<{sender}> to=<{recipient}>{_original} relay={relay}{_tls}"
    ' delay={delay:.2f} delays={delays} attempt={attempts} reply="{_quoted}"{_again}'
)
_FIELDS = {
    "id": QueueId(1234567890123456789),
    "status": "delivered",
    "sender": "ann@example.org",
    "recipient": "bob@example.net",
    "_original": "",
    "orig_to": None,
    "next_hop": "smtp:example.net",
    "remote": "relay.example.net[192.0.2.1]:25",
    "relay": "relay.example.net[192.0.2.1]:25",
    "delay": 0.234,
    "delays": "0.01/0.00/0.12/0.10",
    "stages": (0.01, 0.0, 0.124, 0.1),
    "attempts": 1,
    "reply": "250 2.0.0 Ok: queued as 12345ABCDEF",
    "_quoted": "250 2.0.0 Ok: queued as 12345ABCDEF",
    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384, 256 bits",
    "_tls": " tls=TLSv1.3",
    "next_attempt": None,
    "_again": "",
}


def microseconds(observer: ILogObserver, times: int) -> float:
    """Return the time of an event, from the call of the logger until the line is written."""

    class Source:
        log = Logger(observer=LogPublisher(observer))

    source = Source()

    def one() -> None:
        source.log.info(_FORMAT, **_FIELDS)

    return min(timeit.repeat(one, number=times, repeat=5)) / times * 1e6


@implementer(ILogObserver)
class Nothing:
    """An observer that does nothing: it shows the cost of the logger alone."""

    def __call__(self, event: LogEvent) -> None:
        """Do nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each observer with its own file."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.logging", description=__doc__)
    parser.add_argument("--events", type=int, default=20000, help="in each of 5 rounds (20000)")
    times = parser.parse_args(arguments).events
    with folder("logging") as home, open(home / "twisted", "w", encoding="utf-8") as theirs:
        text = Log("text", path=os.fspath(home / "text"))
        json = Log("json", path=os.fspath(home / "json"))
        text.open()
        json.open()
        observers: Sequence[tuple[str, ILogObserver]] = (
            ("the logger alone", Nothing()),
            ("Twisted's text", textFileLogObserver(theirs)),
            ("our text", text),
            ("our JSON", json),
        )
        for name, observer in observers:
            print(f"{name:18}{microseconds(observer, times):8.2f} µs an event")
        text.close()
        json.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
