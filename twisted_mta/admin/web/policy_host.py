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

from ...config import Config, SNICertificate
from ...config.change import WARNING
from ...interfaces import Clock, WallTime
from ...system.outbox import start_tls
from ...system.slices import Work
from ...tls.acme.store import certificate_file, certificate_files
from ...tls.certificates import CertificateFiles, CertifiedKey
from ...tls.mta_sts.own import own_domains, own_policy
from ...tls.self_signed import SELF_SIGNED
from ...tls.server import ServerContext, TLSSettings
from ..http import READING, Request, ResponderSite, Response, only, short

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
        self._wall_time = wall_time
        self._context = ServerContext(_tls_settings(config))
        self._site: Any = ResponderSite(self.answer, reactor=reactor)

    def buildProtocol(self, addr: Any) -> Protocol:
        """Return the protocol of a connection (called by Twisted)."""
        return _WithTLS(self._site.buildProtocol(addr), self._context)

    def startFactory(self) -> None:
        """Begin (called by Twisted)."""
        self._site.doStart()

    def stopFactory(self) -> None:
        """End (called by Twisted)."""
        self._site.doStop()

    def load_issued(self) -> Work[Callable[[], Sequence[str]]]:
        """Read the certificate that an authority has issued, and no other file (`load`)."""
        issued = certificate_file(self._config.state_dir)
        known = [key for key in self._context.keys if key.certificate_file != issued]
        return self.load(self._config, known)

    def load(
        self, config: Config, known: Sequence[CertifiedKey] = ()
    ) -> Work[Callable[[], Sequence[str]]]:
        """Read the certificates of a configuration; nothing is in force yet.

        Args:
            config: the settings.
            known: certificates that stay as they are, and are not read.

        Returns:
            A function that puts them and the settings in force, and returns printable lines about
            changed files, and warnings.

        Raises:
            CertificateError: a file cannot be used.
        """
        loaded = yield from self._context.load(_tls_settings(config), CertificateFiles(known))

        def use() -> Sequence[str]:
            self._config = config
            lines = self._context.use(loaded)
            warnings = self._context.warnings(self._wall_time())
            return [*lines, *(f"{WARNING}{each}" for each in warnings)]

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


def _tls_settings(config: Config) -> TLSSettings:
    """Return the certificates of all listeners by server name, and ours for other names."""
    certificate, key = certificate_files(config, SELF_SIGNED)
    by_name: dict[str, SNICertificate] = {}
    for listener in config.listeners:
        for each in listener.sni:
            by_name.update((name, each) for name in each.names if name not in by_name)
    return TLSSettings(
        certificate_file=certificate,
        key_file=key,
        sni=tuple(dict.fromkeys(by_name.values())),
    )
