"""The keys of requests that hand over mail, so that a repeated one is not sent twice.

A key is stored after the commit of its message, and before the answer. Only where the process dies
between the two may a repeated request make a second message: mail is never lost by a key.
"""

from __future__ import annotations

from hashlib import sha256
from typing import IO

from attrs import frozen

from ..interfaces import WallTime
from ..system.shared_database import SharedDatabase

LIFETIME = 86_400.0
"""Seconds for which a key is kept."""

_MOST = 100_000  # keys; the oldest give way
_PIECE = 262_144  # octets that are read at once
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS keys ("
    " key BLOB PRIMARY KEY, digest BLOB NOT NULL, id TEXT NOT NULL, at REAL NOT NULL"
    ") WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_time ON keys (at)",
)


@frozen
class KnownRequest:
    """A request whose message is in the queue, or was.

    Attributes:
        digest: of its content (`digest_of`).
        id: of the message.
    """

    digest: bytes
    id: str


class IdempotencyKeys:
    """The keys of the last day, in a file below the state directory. All methods block.

    Args:
        path: of the file.
        wall_time: keys outlive the process.
    """

    def __init__(self, path: str, wall_time: WallTime) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=5.0)
        self._wall_time = wall_time

    def find(self, owner: str, key: str) -> KnownRequest | None:
        """Return the request that had a key; None if there was none in the last day.

        Raises:
            OSError, sqlite3.Error: the disk refuses.
        """
        self._database.make()
        with self._database.opened() as database:
            row = database.execute(
                "SELECT digest, id FROM keys WHERE key = ? AND at > ?",
                (_stored(owner, key), self._wall_time() - LIFETIME),
            ).fetchone()
        return None if row is None else KnownRequest(bytes(row[0]), row[1])

    def keep(self, owner: str, key: str, request: KnownRequest) -> None:
        """Store a key.

        Args:
            owner: of the key: its token or account; the keys of others are others.
            key: as the client wrote it.
            request: that had it.

        Raises:
            OSError, sqlite3.Error: the disk refuses.
        """
        now = self._wall_time()
        self._database.make()
        with self._database.transaction() as database:
            database.execute("DELETE FROM keys WHERE at <= ?", (now - LIFETIME,))
            (number,) = database.execute("SELECT count(*) FROM keys").fetchone()
            database.execute(
                "DELETE FROM keys WHERE key IN (SELECT key FROM keys ORDER BY at LIMIT ?)",
                (max(0, number + 1 - _MOST),),
            )
            database.execute(
                "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)",
                (_stored(owner, key), request.digest, request.id, now),
            )


def digest_of(head: str, content: IO[bytes]) -> bytes:
    """Return the digest of a request; the content is read, and stands at its beginning again."""
    digest = sha256(f"{len(head)} {head}".encode())
    while piece := content.read(_PIECE):
        digest.update(piece)
    content.seek(0)
    return digest.digest()


def _stored(owner: str, key: str) -> bytes:
    return sha256(f"{len(owner)} {owner} {key}".encode()).digest()
