"""The policy host of our domains, ``https://mta-sts.DOMAIN/`` (RFC 8461 §3.3).

A client that begins with a TLS handshake gets TLS, with the certificate for its server name; one
that does not, as a proxy that has TLS itself, gets the same answer in clear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ...config import Config
from ...interfaces import Clock, WallTime
from ...system.outbox import start_tls
from ...system.work import Work
from ...tls.mta_sts.own import own_domains, own_policy
from ...tls.server import ServerContext
from ..http import READING, Request, ResponderSite, Response, only, short
from .certificates import SiteCertificates

_PATH = "/.well-known/mta-sts.txt"
_HANDSHAKE = 0x16  # RFC 8446 §5.1: the type of the first record of a client
_HOST = re.compile(r"(?P<name>[0-9A-Za-z._-]+)(?::[0-9]{0,5})?", re.ASCII)


class PolicyHost(Factory):
    """The factory of connections to the policy host.

    Args:
        config: the domains, the policy, the certificates.
        reactor: times connections out.
        wall_time: for the dates of certificates.
    """

    noisy = False

    def __init__(self, config: Config, *, reactor: Clock, wall_time: WallTime) -> None:
        self._config = config
        self._certificates = SiteCertificates(config, wall_time=wall_time)
        self._site: Any = ResponderSite(self.answer, reactor=reactor)

    def buildProtocol(self, addr: Any) -> Protocol:
        """Return the protocol of a connection (called by Twisted)."""
        return _WithTLS(self._site.buildProtocol(addr), self._certificates.context)

    def startFactory(self) -> None:
        """Begin (called by Twisted)."""
        self._site.doStart()

    def stopFactory(self) -> None:
        """End (called by Twisted)."""
        self._site.doStop()

    def load_issued(self) -> Work[Callable[[], Sequence[str]]]:
        """Read the certificate that an authority has issued, and no other file (`load`)."""
        return self._certificates.load_issued()

    def load(self, config: Config) -> Work[Callable[[], Sequence[str]]]:
        """Read the certificates of a configuration (`SiteCertificates.load`).

        The function that is returned puts its settings in force too.
        """
        use_certificates = yield from self._certificates.load(config)

        def use() -> Sequence[str]:
            self._config = config
            return use_certificates()

        return use

    def answer(self, request: Request) -> Response:
        """Answer a request (`admin.http.Responder`)."""
        if request.method not in READING:
            return only(READING)
        host = _HOST.fullmatch(request.hosts[0]) if len(request.hosts) == 1 else None
        name = "" if host is None else host["name"].lower().removesuffix(".")
        domain = name.removeprefix("mta-sts.")
        if domain == name or domain not in own_domains(self._config):
            return short("expected mta-sts. and one of our domains as the host", 404)
        if request.path != _PATH:
            return short(f"expected {_PATH}", 404)
        return Response(body=own_policy(self._config).body)


class _WithTLS(Protocol):
    """A connection that begins with TLS if its client does."""

    transport: Any

    def __init__(self, http: Any, context: ServerContext) -> None:
        self._http = http
        self._context = context
        self._begun = False

    def connectionMade(self) -> None:
        """Begin, with the time limits of HTTP (called by Twisted)."""
        self._http.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Take octets: of HTTP, but for the first of a TLS handshake (called by Twisted)."""
        begun, self._begun = self._begun, True
        if begun or data[0] != _HANDSHAKE:
            self._http.dataReceived(data)
        elif self._context.ready:
            start_tls(self.transport, self._context.creator)
            self.transport.protocol.dataReceived(data)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End (called by Twisted)."""
        self._http.connectionLost(reason)
