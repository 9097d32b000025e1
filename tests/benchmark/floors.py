"""Limits of the machine, measured in the same run."""

from __future__ import annotations

import os
import sqlite3
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from ..functional.machine import run
from ..functional.sinks import SMTPSink
from .client import client_tls
from .load import Work, send

CONTESTANT = "the machine"
"""The name of the machine among the contestants."""

_BODY = b"x" * 4096


def floors(home: Path, certificate: Path, seconds: float) -> dict[str, float]:
    """Measure all limits, each for about ``seconds``."""
    home.mkdir()
    home.chmod(0o755)
    figures = {}
    with SMTPSink(home) as sink:
        for name, kept in (("many", True), ("one", False)):
            count = int(4000 * seconds)
            sent = send(sink.port, Work(count, kept=kept))
            figures[f"smtp-source into smtp-sink, {name} a connection, messages/s"] = (
                count / sent.seconds
            )
    figures["4 KiB and fsync, one after the other, /s"] = syncs(home / "file", seconds)
    for batch in (32, 64):
        figures[f"SQLite, 4 KiB rows, {batch} a commit (WAL, FULL), rows/s"] = rows(
            home / f"rows{batch}.sqlite", batch, seconds
        )
    figures["TLS handshakes in memory, ECDSA P-256, both ends on one core, /s"] = handshakes(
        certificate, seconds
    )
    figures["Python, additions in a loop, millions/s"] = additions(seconds)
    return figures


def _rate(what: Callable[[], object], seconds: float) -> float:
    start = now = time.perf_counter()
    times = 0
    while now - start < seconds:
        what()
        times += 1
        now = time.perf_counter()
    return times / (now - start)


def syncs(path: Path, seconds: float) -> float:
    """Return the rate per second of appending 4 KiB to a file with fsync."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def once() -> None:
        os.write(file, _BODY)
        os.fsync(file)

    try:
        return _rate(once, seconds)
    finally:
        os.close(file)


def rows(path: Path, batch: int, seconds: float) -> float:
    """Return the rows of 4 KiB per second that SQLite commits in batches, durably."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB)")
    bodies = [(_BODY,)] * batch

    def once() -> None:
        database.execute("BEGIN")
        database.executemany("INSERT INTO message (body) VALUES (?)", bodies)
        database.execute("COMMIT")

    try:
        return batch * _rate(once, seconds)
    finally:
        database.close()


def additions(seconds: float) -> float:
    """Return the millions of additions per second of the interpreter."""

    def once() -> None:
        total = 0
        for number in range(100_000):
            total += number

    return _rate(once, seconds) / 10


def handshakes(certificate: Path, seconds: float) -> float:
    """Return the full TLS handshakes per second in memory, with both client and server."""
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(certificate)
    context = client_tls()

    def once() -> None:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            context.wrap_bio(to_client, to_server, server_hostname="mx.example"),
            shown.wrap_bio(to_server, to_client, server_side=True),
        ]
        while ends:
            for end in tuple(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                ends.remove(end)

    return _rate(once, seconds)


def versions() -> dict[str, object]:
    """Return the versions of the software."""
    return {
        "sqlite": sqlite3.sqlite_version,
        "openssl of the generator": ssl.OPENSSL_VERSION,
        "postfix": run("postconf", "-d", "-h", "mail_version").stdout.strip(),
    }
