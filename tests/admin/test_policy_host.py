"""Our own MTA-STS policy is served, by HTTPS and in clear (RFC 8461 §3.3)."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet.protocol import ClientFactory, Protocol

from tests.server.authority import Authority
from tests.tidy import TidyTestCase
from twisted_mta.config import ConfigError, Listener, MTASTSSettings, SNICertificate
from twisted_mta.service import CannotReload
from twisted_mta.system.work import finished
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.tls.client import ClientContexts, ClientTLS
from twisted_mta.tls.https import HTTPSClient
from twisted_mta.tls.mta_sts.fetcher import Fetcher
from twisted_mta.tls.mta_sts.policy import LARGEST, Policy

NAMES = ("mta-sts.a.example", "mta-sts.b.example")


class PolicyHostTests(TidyTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.authority = Authority()
        self.mta = self.start(mode="enforce", max_age="2 days")

    def start(self, **settings: Any) -> MemoryMTA:
        certificates = [
            self.authority.issue(name, names=[name], for_clients=False).save(self.directory, name)
            for name in NAMES
        ]
        mta = MemoryMTA(
            os.path.join(self.directory, "state"),
            local_domains=("a.example", "b.example", "localhost"),
            listeners=(
                Listener(
                    endpoint="tcp:25:interface=127.0.0.1",
                    sni=[
                        SNICertificate(names=[name], certificate=file)
                        for name, file in zip(NAMES, certificates, strict=True)
                    ],
                ),
            ),
            mta_sts=MTASTSSettings(publish="tcp:443:interface=127.0.0.1", **settings),
        )
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def fetch(self, domain: str) -> Policy:
        tls = ClientTLS(
            verify=True, authorities=self.authority.issued.save(self.directory, "authorities.pem")
        )
        contexts = ClientContexts()
        contexts.use(finished(contexts.load([tls])))
        client = HTTPSClient(
            reactor=self.mta.reactor,
            resolver=FakeResolver(addresses={f"mta-sts.{domain}": ["127.0.0.1"]}),
            contexts=contexts,
            tls=lambda: tls,
            largest=LARGEST,
        )
        fetching = Fetcher(client).fetch(domain)
        self.mta.reactor.settle()
        return self.successResultOf(fetching)

    def test_each_domain_by_its_certificate(self) -> None:
        expected = Policy("enforce", 172_800, ("mta.example",))
        self.assertEqual(self.fetch("a.example"), expected)
        self.assertEqual(self.fetch("b.example"), expected)

    def test_a_proxy_gets_it_in_clear(self) -> None:
        answer = self.ask("GET /.well-known/mta-sts.txt", "MTA-STS.b.example.:443")
        head, _, body = answer.partition("\r\n\r\n")
        self.assertTrue(head.startswith("HTTP/1.1 200 OK"))
        self.assertIn("Content-Type: text/plain", head)
        self.assertEqual(
            body, "version: STSv1\r\nmode: enforce\r\nmx: mta.example\r\nmax_age: 172800\r\n"
        )

    def ask(self, request: str, host: str) -> str:
        """Send a request in clear; return the answer."""
        client = _Client(f"{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        self.mta.reactor.connectTCP("127.0.0.1", 443, _One(client))
        self.mta.reactor.settle()
        self.assertTrue(client.over)
        return client.answer.decode()

    def test_other_hosts_paths_and_methods(self) -> None:
        path = "/.well-known/mta-sts.txt"
        for request, host, code in (
            (f"GET {path}", "a.example", "404"),
            (f"GET {path}", "mta-sts.c.example", "404"),
            (f"GET {path}", "mta-sts.localhost", "404"),
            (f"GET {path}", "mta-sts.a.example/", "404"),
            ("GET /", "mta-sts.a.example", "404"),
            (f"GET {path}/", "mta-sts.a.example", "404"),
            (f"POST {path}", "mta-sts.a.example", "405"),
            (f"HEAD {path}", "mta-sts.a.example", "200"),
        ):
            with self.subTest(request=request, host=host):
                self.assertTrue(self.ask(request, host).startswith(f"HTTP/1.1 {code} "))

    def test_a_reload_puts_another_policy_and_certificate_in_force(self) -> None:
        config = self.mta.mta.config
        settings = evolve(config.mta_sts, mode="testing", mx=("mx.a.example",))
        self.authority = Authority("Another CA")
        for name in NAMES:
            self.authority.issue(name, names=[name], for_clients=False).save(self.directory, name)
        reloading = self.mta.mta.reload(evolve(config, mta_sts=settings))
        self.mta.reactor.settle()
        lines = self.successResultOf(reloading)
        self.assertIn('[mta_sts] mode = "testing"; before: "enforce"', lines)
        self.assertEqual(self.fetch("a.example"), Policy("testing", 172_800, ("mx.a.example",)))

    def test_the_endpoint_needs_a_start(self) -> None:
        config = self.mta.mta.config
        other = evolve(config, mta_sts=evolve(config.mta_sts, publish=None))
        reloading = self.mta.mta.reload(other)
        self.mta.reactor.settle()
        self.failureResultOf(reloading, CannotReload)

    def test_it_is_one_of_the_ports(self) -> None:
        self.assertEqual(self.mta.mta.ports["mta-sts"], 443)

    def test_a_silent_client_is_dropped(self) -> None:
        for beginning in ("", "G", "\x16\x03\x01"):
            client = _Client(beginning)
            self.mta.reactor.connectTCP("127.0.0.1", 443, _One(client))
            self.mta.reactor.pump([30.0] * 10)
            self.assertTrue(client.over, beginning)


class SettingsTests(TidyTestCase):
    def test_values_that_are_refused(self) -> None:
        for settings, expected in (
            ({"max_age": "60 weeks"}, "expected 31557600 s, a year, at most"),
            ({"mode": "report"}, 'expected "enforce", "testing" or "none"'),
            ({"mx": ["*"]}, "expected a host name such as mx.example.net"),
            ({"mx": ["a.*.b"]}, "expected a host name such as mx.example.net"),
            ({"mx": "mx.example"}, "expected a list of host names"),
            ({"publish": "port 443"}, "is not a kind of endpoint"),
        ):
            with self.subTest(settings=settings):
                with self.assertRaises(ConfigError) as caught:
                    MTASTSSettings(**settings)  # type: ignore[arg-type]
                self.assertIn(expected, str(caught.exception))


class _Client(Protocol):
    def __init__(self, request: str) -> None:
        self.answer = b""
        self.over = False
        self._request = request.encode("latin-1")

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.answer += data

    def connectionLost(self, reason: object = None) -> None:
        self.over = True


class _One(ClientFactory):
    noisy = False

    def __init__(self, client: Protocol) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> Protocol:
        return self._client
