"""Recent sessions: who came, what they were told, and how it ended.

A process remembers its last sessions that have ended, and besides the last ones with a refusal:
those stay in sight where many others follow them. All that a peer sent is of bounded length, and is
made printable when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Any

from attrs import frozen

from ..interfaces import WallTime
from ..mail.printable import printable
from ..mail.reply import Reply

MOST_SESSIONS = 200
"""Sessions that a process remembers, and as many with a refusal; some 500 octets each."""

_LONGEST_TEXT = 255  # characters of a name, or of a reply


@frozen(kw_only=True)
class EndedSession:
    """A session of a client that has ended.

    Attributes:
        began: wall time.
        seconds: that it lasted.
        kind: of the listener.
        address: of the client; None at a UNIX socket.
        port: of the client.
        user: the user id at the other end of a UNIX socket; None: not known.
        helo: the name in EHLO, HELO or LHLO, as it came; empty: there was none.
        tls: the version of TLS; empty: none.
        account: that has authenticated; None: none.
        accepted: messages.
        refused: replies of 4yz and 5yz.
        replies: the last ones of these.
        end: how it ended, for people, printable.
    """

    began: float
    seconds: float
    kind: str
    address: str | None
    port: int
    user: int | None
    helo: str
    tls: str
    account: str | None
    accepted: int
    refused: int
    replies: tuple[Reply, ...]
    end: str

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types, printable."""
        peer = "a UNIX socket" if self.user is None else f"uid {self.user}"
        if self.address is not None:
            address = f"[{self.address}]" if ":" in self.address else self.address
            peer = f"{address}:{self.port}"
        return {
            "began": self.began,
            "seconds": round(self.seconds, 3),
            "kind": self.kind,
            "peer": printable(peer),
            "address": self.address,
            "helo": printable(self.helo[:_LONGEST_TEXT]),
            "tls": self.tls,
            "account": None if self.account is None else printable(self.account[:_LONGEST_TEXT]),
            "accepted": self.accepted,
            "refused": self.refused,
            "replies": [printable(str(each))[:_LONGEST_TEXT] for each in self.replies],
            "end": self.end[:_LONGEST_TEXT],
        }


class RecentSessions:
    """The last sessions of one process.

    Args:
        wall_time: for their begin.
    """

    def __init__(self, wall_time: WallTime) -> None:
        self.wall_time = wall_time
        self._all: deque[EndedSession] = deque(maxlen=MOST_SESSIONS)
        self._refused: deque[EndedSession] = deque(maxlen=MOST_SESSIONS)

    def ended(self, session: EndedSession) -> None:
        """Remember a session."""
        self._all.append(session)
        if session.refused:
            self._refused.append(session)

    def listed(self, peer: str | None, refused: bool, limit: int) -> list[dict[str, Any]]:
        """Return sessions in plain types, those first that have ended last.

        Args:
            peer: a network of clients; or a part of the name that they gave, or of their account.
                None: all.
            refused: whether only those with a refusal.
            limit: sessions at most.
        """
        found = self._matching(reversed(self._refused if refused else self._all), peer)
        return [each.to_json() for each in islice(found, limit)]

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
            elif text in each.helo.lower() or text in (each.account or "").lower():
                yield each


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
