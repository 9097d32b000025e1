"""Relaying: which clients may send mail to any domain, not to ours alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config import RelayCertificate
from ..smtp.extension.views import SessionView
from .networks import Network, Networks

_LOOPBACK = ("127.0.0.1", "::1")


class Relaying:
    """Decides whether the client of a session may relay.

    Args:
        networks: whose clients may relay.
        certificates: client certificates whose owners may relay (RFC 3207 §4).
        local_only: whether no client may relay, authenticated or not.
        everyone: whether every client may.
    """

    def __init__(
        self,
        networks: Iterable[Network],
        certificates: Sequence[RelayCertificate] = (),
        *,
        local_only: bool = False,
        everyone: bool = False,
    ) -> None:
        self._networks = Networks(networks)
        self._certificates = certificates
        self._local_only = local_only
        self._everyone = everyone

    def allows(self, session: SessionView) -> bool:
        """Whether the client of ``session`` may relay."""
        if self._local_only:
            return False
        if self._everyone or session.identity is not None:
            return True
        address, tls = session.peer.address, session.tls
        if address is None:
            # A UNIX socket is as near as loopback; but a client that its proxy does not know has
            # no address either.
            return session.proxy is None and any(map(self._networks.cover, _LOOPBACK))
        if self._networks.cover(address):
            return True
        return tls is not None and any(each.covers(tls) for each in self._certificates)
