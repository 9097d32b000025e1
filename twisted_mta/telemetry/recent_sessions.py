"""Recent sessions: with whom, what was refused, and how it ended.

A process remembers its last sessions that have ended, those with clients and those with servers
apart, and besides the last ones with a refusal: those stay in sight where many others follow them.
All that a peer sent is of bounded length, and is made printable when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Any, Literal

from attrs import frozen

from ..interfaces import WallTime
from ..mail.next_hop import Target
from ..mail.printable import printable
from ..mail.reply import Reply

MOST_SESSIONS = 200
"""Sessions that a process remembers of each direction, and as many with a refusal; some 500 octets
each."""

Direction = Literal["in", "out"]
"""Of clients with us, or of us with servers."""

_LONGEST_TEXT = 255  # characters of a name, or of a reply


@frozen(kw_only=True)
class EndedSession:
    """A session that has ended.

    Attributes:
        direction: ``in``: of a client with us; ``out``: of us with a server.
        began: wall time; of a connection to a server, when it was opened.
        seconds: that it lasted.
        kind: of the listener; of a server, ``smtp`` or ``lmtp``.
        address: of the other end; None: a client at a UNIX socket; a server's may be its path.
        port: of the other end.
        host: the name of a server; empty: it is a client.
        user: the user id at the other end of a UNIX socket; None: not known.
        helo: a client's name in EHLO, HELO or LHLO, as it came; empty: there was none.
        tls: the version of TLS; empty: none.
        verdict: what was found of a server's certificate; empty without TLS, and for a client.
        account: of a client that has authenticated; None: none.
        accepted: messages that were taken.
        refused: replies of 4yz and 5yz.
        replies: the last ones of these.
        end: how it ended, for people.
    """

    direction: Direction = "in"
    began: float
    seconds: float
    kind: str
    address: str | None
    port: int
    host: str = ""
    user: int | None = None
    helo: str = ""
    tls: str
    verdict: str = ""
    account: str | None = None
    accepted: int
    refused: int
    replies: tuple[Reply, ...]
    end: str

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types, printable."""
        peer = self._peer
        return {
            "direction": self.direction,
            "began": self.began,
            "seconds": round(self.seconds, 3),
            "kind": self.kind,
            "peer": printable(peer),
            "address": None if self.address is None else printable(self.address),
            "host": printable(self.host[:_LONGEST_TEXT]),
            "helo": printable(self.helo[:_LONGEST_TEXT]),
            "tls": self.tls,
            "verdict": printable(self.verdict[:_LONGEST_TEXT]),
            "account": None if self.account is None else printable(self.account[:_LONGEST_TEXT]),
            "accepted": self.accepted,
            "refused": self.refused,
            "replies": [printable(str(each))[:_LONGEST_TEXT] for each in self.replies],
            "end": printable(self.end.removeprefix(f"{peer}: ")[:_LONGEST_TEXT]),
        }

    @property
    def _peer(self) -> str:
        if self.address is None:
            return "a UNIX socket" if self.user is None else f"uid {self.user}"
        if self.direction == "out":
            return str(Target(self.host, self.address, self.port))
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


class RecentSessions:
    """The last sessions of one process.

    Args:
        wall_time: for the begin of those with clients.
    """

    def __init__(self, wall_time: WallTime) -> None:
        self.wall_time = wall_time
        self._all = _by_direction()
        self._refused = _by_direction()

    def ended(self, session: EndedSession) -> None:
        """Remember a session."""
        self._all[session.direction].append(session)
        if session.refused:
            self._refused[session.direction].append(session)

    def listed(
        self, peer: str | None, refused: bool, limit: int, direction: Direction | None = None
    ) -> list[dict[str, Any]]:
        """Return sessions in plain types, those first that have ended last.

        Args:
            peer: a network; or a part of the name of a server, of the name that a client gave, or
                of its account. None: all.
            refused: whether only those with a refusal.
            limit: sessions at most.
            direction: None: both.
        """
        sessions = self._refused if refused else self._all
        chosen: Iterator[EndedSession]
        if direction is None:
            chosen = merge(*map(reversed, sessions.values()), key=_ended, reverse=True)
        else:
            chosen = reversed(sessions[direction])
        return [each.to_json() for each in islice(self._matching(chosen, peer), limit)]

    @staticmethod
    def _matching(sessions: Iterator[EndedSession], peer: str | None) -> Iterator[EndedSession]:
        if not peer:
            yield from sessions
            return
        network, text = _network(peer), peer.lower()
        for each in sessions:
            if network is not None:
                if each.address is not None and _is_in(each.address, network):
                    yield each
            elif any(text in name.lower() for name in (each.host, each.helo, each.account or "")):
                yield each


def _by_direction() -> dict[Direction, deque[EndedSession]]:
    return {"in": deque(maxlen=MOST_SESSIONS), "out": deque(maxlen=MOST_SESSIONS)}


def _ended(session: EndedSession) -> float:
    return session.began + session.seconds


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def _is_in(address: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(address.partition("%")[0]) in network
    except ValueError:
        return False


def merged_sessions(
    answers: Sequence[tuple[int, Sequence[Mapping[str, Any]]]],
) -> list[Mapping[str, Any]]:
    """Return the sessions of several processes, each with its ``worker``, the last first."""
    merged = [{**each, "worker": worker} for worker, found in answers for each in found]
    return sorted(merged, key=lambda each: -(each["began"] + each["seconds"]))
