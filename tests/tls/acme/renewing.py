"""A renewer on a clock, and an authority that it reaches without TLS: a year takes a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, fail, succeed

from tests.server.authority import self_signed
from tests.tidy import TidyTestCase
from tests.tls.acme_server import DAY, ACMEServer
from twisted_mta.admin.web.challenge_host import challenge_host
from twisted_mta.config import ACMESettings
from twisted_mta.interfaces import Files
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles
from twisted_mta.system.real_world import system_random
from twisted_mta.testing.memory_mta import EPOCH
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.tls.acme.messages import ACMEError, Answer, Request
from twisted_mta.tls.acme.renewer import Renewer
from twisted_mta.tls.acme.store import Store

MX = "mx.example.test"
HERE = "198.51.100.1"


def key_of(certificate: x509.Certificate) -> bytes:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form)


class RenewerTestCase(TidyTestCase):
    """A renewer with an authority.

    Attributes:
        offset: seconds by which our clock is ahead of that of the authority.
        down: why the authority cannot be reached; empty: it can.
        installed: the certificates that were put in force.
        cannot_install: why a certificate cannot be put in force; empty: it can.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)
        self.offset = 0.0
        self.down = ""
        self.cannot_install = ""
        self.installed: list[x509.Certificate] = []
        self.names = [MX]
        self.addresses = {MX: HERE}
        self.ca = ACMEServer(
            self.reactor,
            wall_time=self.true_time,
            shown=self_signed("ca.example"),
            addresses=self.addresses,
        )
        self.files: Files = DiskFiles()
        self.renewer: Renewer | None = None
        self.addCleanup(self.ca.stopFactory)

    def true_time(self) -> float:
        return EPOCH + self.reactor.seconds()

    def wall_time(self) -> float:
        return self.true_time() + self.offset

    def settings(self, **more: Any) -> ACMESettings:
        return ACMESettings(**{"directory": self.ca.directory, **more})

    def start(self, settings: ACMESettings | None = None, *, seed: int = 1) -> Renewer:
        random = system_random()
        random.seed(seed)
        self.store = Store(self.directory, self.files)
        self.renewer = renewer = Renewer(
            settings or self.settings(),
            self.names,
            store=self.store,
            send=self.send,
            install=self.install,
            clock=self.reactor,
            wall_time=self.wall_time,
            random=random,
            executor=inline_executor,
        )
        host = challenge_host(renewer.answers, reactor=self.reactor)
        self.port = self.reactor.listenTCP(80, host, interface=HERE)
        self.addCleanup(self.stop)
        renewer.start()
        self.reactor.settle()
        return renewer

    def stop(self) -> None:
        renewer, self.renewer = self.renewer, None
        if renewer is not None:
            self.successResultOf(renewer.stop())
            self.port.stopListening()
            self.reactor.settle()

    def send(self, request: Request) -> Deferred[Answer]:
        """Hand a request to the authority; return its answer (`tls.acme.renewer.Send`)."""
        if self.down:
            return fail(ACMEError(self.down))
        path = urlsplit(request.url).path
        headers = {"user-agent": "test", "content-type": "application/jose+json"}
        octets = self.ca.respond(request.method, path, headers, request.content or b"")
        head, _, body = octets.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        pairs = [each.partition(": ") for each in fields]
        found = {name.lower(): value for name, _, value in pairs}
        return succeed(Answer(int(line.split(" ")[1]), found, body, self.wall_time()))

    def install(self) -> Deferred[None]:
        if self.cannot_install:
            return fail(ValueError(self.cannot_install))
        current = self.store.certificate()
        assert current is not None
        self.installed.append(current.certificate)
        return succeed(None)

    def advance(self, *, days: float = 0.0, hours: float = 0.0, seconds: float = 0.0) -> None:
        self.reactor.advance(days * DAY + hours * 3600.0 + seconds)

    def until(self, condition: Callable[[], object], days: float = 30.0) -> None:
        end = self.reactor.seconds() + days * DAY
        while not condition():
            if not self.reactor.advance_to_next(end):
                raise AssertionError("still false")

    def days_between(self, certificates: Sequence[x509.Certificate]) -> list[float]:
        starts = [each.not_valid_before_utc.timestamp() for each in certificates]
        return [(b - a) / DAY for a, b in pairwise(starts)]
