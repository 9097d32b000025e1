"""A certificate that renews itself, in a whole agent in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from tests.logs import logged_lines
from tests.server.authority import Authority
from tests.tidy import TidyTestCase
from tests.tls.acme_server import DAY, ACMEServer
from twisted_mta import Config, MailTransferAgent
from twisted_mta.config import ACMESettings, Listener
from twisted_mta.queue.ids import QueueIds
from twisted_mta.service import CannotReload, Environment
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.real_world import system_random
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.memory_mta import EPOCH
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.testing.resolver import FakeResolver

MX = "mx.example.test"
HERE = "198.51.100.1"
CA = "203.0.113.7"


class ACMETestCase(TidyTestCase):
    """An agent in memory, and an authority."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory, 0o700)
        self.more: dict[str, Any] = {}  # settings besides [acme]
        authority = Authority()
        self.authorities = authority.issued.save(os.path.dirname(self.directory), "authorities.pem")
        self.addresses = {MX: HERE}
        self.ca = ACMEServer(
            self.reactor,
            wall_time=self.true_time,
            shown=authority.issue("ca.example", names=["ca.example"], for_clients=False),
            addresses=self.addresses,
        )
        self.port = self.reactor.listenTCP(443, self.ca, interface=CA)
        self.addCleanup(self.reactor.settle)
        self.addCleanup(lambda: self.port.stopListening())
        self.mta: MailTransferAgent | None = None

    def true_time(self) -> float:
        return EPOCH + self.reactor.seconds()

    def wall_time(self) -> float:
        return self.true_time()

    def settings(self, **more: Any) -> ACMESettings:
        return ACMESettings(
            **{
                "directory": self.ca.directory,
                "contact": "mailto:postmaster@example.test",
                "endpoint": f"tcp:80:interface={HERE}",
                "authorities": self.authorities,
                **more,
            }
        )

    def config(self, **more: Any) -> Config:
        return Config(
            hostname=MX,
            state_dir=self.directory,
            listeners=(Listener(endpoint=f"tcp:25:interface={HERE}"),),
            acme=self.settings(**more),
            **self.more,
        )

    def start(self, seed: int = 1, **more: Any) -> MailTransferAgent:
        random = system_random()
        random.seed(seed)
        self.mta = mta = MailTransferAgent(
            self.config(**more),
            reactor=self.reactor,
            environment=Environment(
                wall_time=self.wall_time,
                random=random,
                ids=QueueIds(wall_time=self.wall_time, random=random, worker=0),
                commit_executor=inline_executor,
                file_executor=inline_executor,
                password_executor=inline_executor,
                resolver=FakeResolver(addresses={"ca.example": [CA]}),
                source_of=None,
                give_way=lambda: None,
                patience=0.0,
            ),
        )
        self.addCleanup(self.stop)
        mta.privilegedStartService()
        mta.startService()
        self.reactor.settle()
        return mta

    def stop(self) -> None:
        mta, self.mta = self.mta, None
        if mta is not None:
            stopped = mta.stopService()
            for _ in range(100):
                if stopped.called:
                    break
                self.reactor.advance(1.0)
            self.successResultOf(stopped)

    def connect(self) -> MemoryClient:
        client = MemoryClient(self.reactor)
        self.reactor.connectTCP(HERE, 25, _Clients(client))
        self.reactor.settle()
        client.say("EHLO client.example")
        return client

    def shown(self) -> x509.Certificate:
        """Return the certificate that a client sees now."""
        client = self.connect()
        client.start_tls()
        connection: SSL.Connection = client.transport.getHandle()
        found = connection.get_peer_certificate(as_cryptography=True)
        assert found is not None
        client.say("QUIT")
        return found

    def until(self, condition: Callable[[], object], days: float = 1.0) -> None:
        end = self.reactor.seconds() + days * DAY
        while not condition():
            if not self.reactor.advance_to_next(end):
                raise AssertionError(f"still false: {condition}")

    def trouble(self) -> str:
        assert self.mta is not None
        status = self.mta.status()
        self.reactor.settle()
        return " ".join(each.text for each in self.successResultOf(status).troubles)


class _Silent(Factory):
    noisy = False

    def buildProtocol(self, addr: object) -> Protocol:
        return Protocol()


class _Clients(ClientFactory):
    noisy = False

    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> MemoryClient:
        return self._client


def key_of(certificate: x509.Certificate) -> bytes:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form)


class InAnAgent(ACMETestCase):
    def test_the_self_signed_certificate_serves_until_the_first_one_has_come(self) -> None:
        lines = logged_lines(self, "proves nothing")
        self.start()
        own = self.shown()
        self.assertEqual(own.issuer, own.subject)
        self.assertIn("it serves until the authority of [acme] has issued one", lines[0])
        self.until(lambda: self.ca.issued)
        self.reactor.advance(30.0)
        self.assertEqual(self.shown(), self.ca.issued[0])
        # The key is the same, so that a TLSA record 3 1 1 of before goes on to fit.
        self.assertEqual(key_of(own), key_of(self.ca.issued[0]))
        self.assertEqual(self.ca.refusals, [])
        self.assertEqual(self.trouble(), "")

    def test_a_renewal_ends_no_connection(self) -> None:
        self.ca.life = 3600.0
        self.start()
        self.until(lambda: self.ca.issued)
        self.reactor.advance(30.0)
        client = self.connect()
        client.start_tls()
        before = self.shown()
        while len(self.ca.issued) < 2:
            self.reactor.advance(120.0)
            client.say("NOOP")
        self.reactor.advance(30.0)
        self.assertEqual(before, self.ca.issued[0])
        self.assertEqual(self.shown(), self.ca.issued[1])
        self.assertTrue(client.say("NOOP")[-1].startswith("250 "))

    def test_after_a_restart_the_certificate_serves_and_no_other_is_asked_for(self) -> None:
        self.start()
        self.until(lambda: self.ca.issued)
        self.reactor.advance(30.0)
        self.stop()
        self.start(seed=2)
        self.assertEqual(self.shown(), self.ca.issued[0])
        self.reactor.advance(3600.0)
        self.assertEqual(len(self.ca.issued), 1)

    def test_a_certificate_that_cannot_be_read_is_set_aside(self) -> None:
        self.start()
        self.until(lambda: self.ca.issued)
        self.reactor.advance(30.0)
        self.stop()
        path = os.path.join(self.directory, "acme", "certificate.pem")
        with open(path, "wb") as spoilt:
            spoilt.write(b"spoilt")
        lines = logged_lines(self, "set aside")
        self.start(seed=2)
        self.assertIn("holds no certificate", lines[0])
        self.assertEqual(self.shown().issuer, self.shown().subject)
        self.until(lambda: len(self.ca.issued) == 2)
        self.reactor.advance(30.0)
        self.assertEqual(self.shown(), self.ca.issued[1])

    def test_the_reason_of_a_failure_is_a_trouble_and_a_reload_tries_at_once(self) -> None:
        self.addresses[MX] = "198.51.100.200"  # where nothing listens
        mta = self.start()
        self.reactor.advance(60.0)
        self.assertIn(f"{MX}: the authority cannot validate it: connection:", self.trouble())
        self.assertIn("until then the self-signed one serves", self.trouble())
        self.addresses[MX] = HERE
        self.successResultOf(mta.reload())
        self.reactor.advance(60.0)
        self.assertEqual(self.shown(), self.ca.issued[0])
        self.assertEqual(self.trouble(), "")

    def test_other_settings_come_by_a_reload(self) -> None:
        mta = self.start()
        self.until(lambda: self.ca.issued)
        self.reactor.advance(30.0)
        self.addresses["mail.example.test"] = HERE
        changed = self.config(names=[MX, "mail.example.test"])
        self.successResultOf(mta.reload(changed))
        self.reactor.advance(60.0)
        names = self.shown().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), [MX, "mail.example.test"])

    def test_each_setting_comes_by_a_reload_or_says_that_only_a_start_can_change_it(self) -> None:
        mta = self.start()
        for name, value in (
            ("directory", "https://other.example/directory"),
            ("contact", "mailto:bob@example.test"),
            ("names", [MX, "mail.example.test"]),
            ("new_key", True),
            ("key_type", "rsa"),
            ("profile", "shortlived"),
            ("authorities", self.authorities + ".other"),
        ):
            config = self.config(**{name: value})
            lines = self.successResultOf(mta.reload(config))
            self.assertIn(f"[acme] {name} = ", " ".join(lines))
            assert mta._renewal is not None
            self.assertEqual(mta._renewal._renewer._settings, config.acme)
        refused = mta.reload(self.config(endpoint="tcp:8080"))
        error = self.failureResultOf(refused, CannotReload).value
        self.assertIn("[acme] endpoint = ", str(error))
        refused = mta.reload(evolve(self.config(), acme=None))
        error = self.failureResultOf(refused, CannotReload).value
        self.assertIn("[acme] off; before: on", str(error))

    def test_a_host_of_another_authority_gets_no_request(self) -> None:
        other = Authority("Another CA").issued.save(self.directory, "others.pem")
        self.start(authorities=other)
        self.reactor.advance(60.0)
        self.assertEqual(self.ca.requests, [])
        self.assertIn("leads to no trusted authority", self.trouble())

    def test_a_file_of_the_operator_that_is_being_changed_does_not_matter(self) -> None:
        aliases = os.path.join(self.directory, "aliases")
        with open(aliases, "w", encoding="ascii") as file:
            file.write("root: ann\n")
        self.more = {"aliases": aliases}
        self.start()
        with open(aliases, "w", encoding="ascii") as file:
            file.write("root ann, half of a line")
        self.until(lambda: self.ca.issued)
        self.reactor.advance(30.0)
        self.assertEqual(self.shown(), self.ca.issued[0])

    def test_an_answer_without_an_end(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        self.ca.plan["directory"] += [head + b" " * 1_000_000]
        self.start()
        self.reactor.advance(60.0)
        self.assertIn("more than 131072 octets", self.trouble())

    def test_an_answer_that_never_comes(self) -> None:
        self.port.stopListening()
        self.port = self.reactor.listenTCP(443, _Silent(), interface=CA)
        self.start()
        self.reactor.advance(120.0)
        self.assertIn("no answer within 60 s", self.trouble())

    def test_the_answers_to_challenges_are_all_that_is_there(self) -> None:
        self.start()
        for path in ("/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x"):
            self.assertIn(b" 404 ", self.asked(path))

    def asked(self, path: str) -> bytes:
        client = MemoryClient(self.reactor)
        self.reactor.connectTCP(HERE, 80, _Clients(client))
        self.reactor.settle()
        client.send(f"GET {path} HTTP/1.1\r\nHost: {MX}\r\nConnection: close\r\n\r\n".encode())
        return client.received.partition(b"\r\n")[0]
