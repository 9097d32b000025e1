"""``python -m tests.benchmark.idle``: the memory of an idle connection."""

from __future__ import annotations

import argparse
import contextlib
import resource
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..faults.memory import resident
from ..functional.machine import folder
from ..functional.mta import MTA
from .client import Client, client_tls

CROWDED = "[mta]\nmax_connections = 20000\nmax_connections_per_peer = 20000\n"
_BEFORE = 50  # uncounted connections, for which one-time allocations are made


def connect(port: int, context: ssl.SSLContext | None) -> Client:
    """Return a connection after EHLO, with STARTTLS if there is a ``context``."""
    client = Client(port)
    client.greet(context)
    return client


@contextlib.contextmanager
def crowd(port: int, count: int, context: ssl.SSLContext | None = None) -> Iterator[None]:
    """Hold ``count`` idle connections."""
    held: list[Client] = []
    try:
        held.extend(connect(port, context) for _ in range(count))
        yield
    finally:
        for client in held:
            client.socket.close()


def octets_each(mta: MTA, count: int, context: ssl.SSLContext | None) -> float:
    """Return the growth of the MTA for each of ``count`` idle connections, in octets."""
    with crowd(mta.smtp, _BEFORE, context):
        before = resident(mta.pid, "VmRSS")
        with crowd(mta.smtp, count, context):
            return (resident(mta.pid, "VmRSS") - before) / count


def allow_files() -> int:
    """Raise the limit of open files of this process and its children; return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def idle(home: Path, count: int, context: ssl.SSLContext | None) -> float:
    """Start an MTA; return the octets of an idle connection."""
    with MTA(home, toml=CROWDED) as mta:
        return octets_each(mta, count, context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure connections in clear and under TLS, each with a new MTA."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000, help="how many (1000)")
    count = parser.parse_args(arguments).connections
    allow_files()
    for name, context in (("plain", None), ("TLS", client_tls())):
        with folder("idle") as home:
            each = idle(home, count, context)
        print(f"{count} idle connections, {name}: {each / 1024:.1f} KiB each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
