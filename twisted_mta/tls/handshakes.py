"""What came of the last handshake with each host, for people who ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, TypeAlias

from attrs import asdict, frozen

from ..interfaces import WallTime
from ..mail.next_hop import Target
from ..mail.tls_facts import TLSFacts

HandshakeEntry: TypeAlias = Mapping[str, Any]
"""A `LastHandshake` in JSON."""


@frozen(kw_only=True)
class LastHandshake:
    """The last session that was tried with a host.

    Attributes:
        host: its name, or its address where it has none.
        port: of the server there.
        address: that was connected to.
        at: when, in seconds since the epoch.
        level: the TLS that it had to have.
        source: where that level came from.
        tls: what the handshake achieved; None: the session was in clear, or the handshake failed.
        problem: why the session was of no use; None: it was good enough.
    """

    host: str
    port: int
    address: str
    at: float
    level: str
    source: str
    tls: TLSFacts | None = None
    problem: str | None = None


class Handshakes:
    """The last handshakes of one process, since its start.

    Args:
        wall_time: seconds since the epoch.
        most: hosts at the most; beyond, the one that was met longest ago is forgotten.
    """

    def __init__(self, wall_time: WallTime, *, most: int = 5000) -> None:
        self._wall_time = wall_time
        self._most = most
        self._last: dict[tuple[str, int], LastHandshake] = {}

    def note(
        self,
        target: Target,
        *,
        level: str,
        source: str,
        tls: TLSFacts | None,
        problem: str | None = None,
    ) -> None:
        """Take note of a session; for the arguments see `LastHandshake`."""
        key = target.name, target.port
        self._last.pop(key, None)
        self._last[key] = LastHandshake(
            host=target.name,
            port=target.port,
            address=target.address,
            at=self._wall_time(),
            level=level,
            source=source,
            tls=tls,
            problem=problem,
        )
        if len(self._last) > self._most:
            del self._last[next(iter(self._last))]

    def entries(self) -> list[HandshakeEntry]:
        """Return all hosts in JSON, by host and port."""
        return [asdict(self._last[key]) for key in sorted(self._last)]


def merged_handshakes(by_process: Iterable[Iterable[HandshakeEntry]]) -> list[HandshakeEntry]:
    """Return the latest entry of each host, by host and port."""
    latest: dict[tuple[str, int], HandshakeEntry] = {}
    for entry in chain.from_iterable(by_process):
        key = entry["host"], entry["port"]
        if key not in latest or latest[key]["at"] < entry["at"]:
            latest[key] = entry
    return [latest[key] for key in sorted(latest)]
