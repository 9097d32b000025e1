"""Servers that fail at a large ClientHello, and get a small one.

With a post-quantum key share (X25519MLKEM768) a ClientHello has about 1500 octets, and comes in two
segments. Some servers and firewalls read it by one call, and end the connection or wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from OpenSSL._util import lib

_GROUPS = b"X25519:P-256:P-384"

POSSIBLE = SSL.OPENSSL_VERSION_NUMBER >= 0x30500000 and hasattr(lib, "SSL_set1_curves_list")
"""Whether OpenSSL has large hellos, and can make small ones."""


def make_small(connection: SSL.Connection) -> None:
    """Let a connection begin with a small ClientHello; before its handshake."""
    # pyOpenSSL sets one group, for a whole context.
    lib.SSL_set1_curves_list(connection._ssl, _GROUPS)


def is_unanswered(connection: SSL.Connection) -> bool:
    """Whether a client has begun a handshake, and no ServerHello has come."""
    random = connection.server_random()
    return random is not None and not any(random)


class SmallHellos:
    """What is known of small hellos to servers, for a while.

    Args:
        seconds: monotonic time.
        most: servers at the most; beyond, the one that was added first is forgotten.
        lifetime: seconds after which a server is tried with a large hello again.
    """

    def __init__(
        self, seconds: Callable[[], float], *, most: int = 1000, lifetime: float = 43_200.0
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._lifetime = lifetime
        self._known: dict[tuple[str, int], tuple[bool, float]] = {}

    def helps(self, host: str, port: int) -> bool | None:
        """Whether a server has failed at a large hello, and not at a small one.

        None: no small hello has been tried with it lately.
        """
        helped, until = self._known.get((host, port), (None, 0.0))
        if helped is not None and self._seconds() >= until:
            del self._known[host, port]
            return None
        return helped

    def note(self, host: str, port: int, *, helped: bool) -> None:
        """Take note of a handshake with a small hello, after one with a large hello had failed."""
        self._known.pop((host, port), None)
        self._known[host, port] = helped, self._seconds() + self._lifetime
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def clear(self) -> None:
        """Forget all servers."""
        self._known.clear()
