"""``python -m tests.benchmark.idle``: what a connection that does nothing holds in memory."""

from __future__ import annotations

import argparse
import resource
import socket
import ssl
import sys
from collections.abc import Sequence

from ..faults.memory import resident
from ..functional.programs import LOOPBACK, MTA, folder

_LIMITS = "[mta]\nmax_connections = 20000\nmax_connections_per_peer = 20000\n"
_BEFORE = 50  # connections that are not counted: what is made once is made for them


def connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Return a connection that has said EHLO, after STARTTLS if there is a ``context``."""
    connection = socket.create_connection((LOOPBACK, port))
    connection.recv(512)
    _say(connection, b"EHLO client.example\r\n")
    if context is not None:
        _say(connection, b"STARTTLS\r\n")
        connection = context.wrap_socket(connection)
        _say(connection, b"EHLO client.example\r\n")
    return connection


def _say(connection: socket.socket, line: bytes) -> None:
    connection.sendall(line)
    connection.recv(4096)


def octets_each(mta: MTA, count: int, context: ssl.SSLContext | None) -> float:
    """Return by how much the MTA grows with each of ``count`` idle connections."""
    assert mta.pid is not None
    held = [connect(mta.smtp, context) for _ in range(_BEFORE)]
    before = resident(mta.pid, "VmRSS")
    held += [connect(mta.smtp, context) for _ in range(count)]
    after = resident(mta.pid, "VmRSS")
    for connection in held:
        connection.close()
    return (after - before) / count


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both kinds, each with an MTA of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000, help="how many (1000)")
    count = parser.parse_args(arguments).connections
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the MTA inherits it
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    for name, context in (("plain", None), ("TLS", anything)):
        with folder("idle") as home:
            mta = MTA(home, toml=_LIMITS)
            mta.start()
            try:
                each = octets_each(mta, count, context)
            finally:
                mta.kill()
        print(f"{count} idle connections, {name}: {each / 1024:.1f} KiB each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
