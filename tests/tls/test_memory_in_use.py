"""C7: a host that did TLS before and has none now (RFC 3207 §6); C8: credentials."""

import re
from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred, fail

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import OPENING, PARTING, TAKEN, message
from tests.tls.test_client import SECURED, TLS_OPENING
from twisted_mta.config import Destination
from twisted_mta.mail.failed_step import failed_step
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.smtp.sasl.client import Credentials
from twisted_mta.testing.peer import ScriptStep

REFUSED: list[ScriptStep] = [
    *TLS_OPENING[:2],
    ("send", b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
    ("expect", b"STARTTLS\r\n"),
    ("send", b"454 4.7.0 Not now\r\n"),
]
BROKEN: list[ScriptStep] = [*TLS_OPENING, ("send", b"220 Go\r\n"), ("close",)]
NO_EHLO: list[ScriptStep] = [
    *TLS_OPENING[:2],
    ("send", b"502 What?\r\n"),
    ("expect", b"HELO client.example\r\n"),
    ("send", b"250 mx.example\r\n"),
]


class MemoryTests(HopTestCase):
    def remembered(self) -> None:
        """Deliver to the host under TLS once, and close."""
        self.server(*TLS_OPENING, *SECURED, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.network.advance(5)

    def test_a_host_is_remembered_after_its_first_tls(self) -> None:
        self.use()
        self.server(*OPENING, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.assertIsNone(self.memory.known("mx1.example", 25))
        self.network.advance(5)
        self.remembered()
        self.assertIsNotNone(self.memory.known("mx1.example", 25))
        self.assertEqual((self.memory.alarms, self.alarms()), (0, []))

    def test_missing_tls_raises_an_alarm_and_the_mail_goes_in_clear(self) -> None:
        """The default: the alarm is logged and counted, and the entry shows it."""
        self.use()
        self.remembered()
        self.server(*OPENING, *TAKEN, *PARTING)
        outcome = self.send_one()
        self.assertTrue(outcome.delivered)
        self.assertIsNone(outcome.tls)
        [alarm] = self.alarms()
        self.assertIn("mx1.example[192.0.2.1]:25 has no TLS now, and had before", alarm)
        self.assertIn("delivered in clear", alarm)
        self.assertEqual(self.memory.alarms, 1)
        [entry] = self.memory.entries()
        self.assertEqual((entry["host"], entry["missing"]), ("mx1.example", self.now))
        self.network.advance(5)
        self.now += 60
        self.remembered()
        [entry] = self.memory.entries()
        self.assertIsNone(entry["missing"])

    def test_every_way_of_losing_tls_raises_an_alarm(self) -> None:
        self.use()
        self.remembered()
        slow: list[ScriptStep] = [
            ("expect", b"MAIL FROM:<a@client.example>\r\n"),
            ("send", b"250 Ok\r\n"),
            ("expect", b"RCPT TO:<b@example.net>\r\n"),
            ("send", b"250 Ok\r\n"),
            ("expect", b"DATA\r\n"),
            ("send", b"354 Go on\r\n"),
            *TAKEN[-2:],
        ]
        for number, (scripts, content) in enumerate(
            (([REFUSED], TAKEN), ([NO_EHLO], slow), ([BROKEN, OPENING], TAKEN)), 1
        ):
            *first, last = scripts
            for script in first:
                self.server(*script)
            self.server(*last, *content, *PARTING)
            self.assertTrue(self.send_one().delivered)
            self.assertEqual(len(self.alarms()), number)
            self.assertEqual(self.memory.alarms, number)
            self.network.advance(5)

    def test_there_is_no_alarm_where_tls_is_off(self) -> None:
        self.use()
        self.remembered()
        self.use(tls="none")
        self.server(*OPENING, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.alarms(), [])

    def test_tls_memory_require_defers(self) -> None:
        """Until the lifetime is over; nothing of the message is sent in clear."""
        self.use(tls_memory="require")
        self.remembered()
        hidden: list[ScriptStep] = [*OPENING, *PARTING]
        for number, script in enumerate((hidden, [*REFUSED, *PARTING], BROKEN), 1):
            peer = self.server(*script)
            outcome = self.send_one()
            self.assertEqual(outcome.reply.code, 454)
            self.assertTrue(outcome.unreachable)
            if outcome.remote is None:
                self.assertIn("TLS was used with it before", outcome.reply.text)
            else:
                self.assertEqual(str(outcome.reply), "454 4.7.0 Not now")
            self.assertTrue(peer.finished, peer.problems)
            self.assertEqual(len(self.alarms()), number)
            self.assertIn("deferred", self.alarms()[-1])
            self.network.advance(5)
        self.remembered()

    def test_tls_memory_require_does_not_apply_to_unknown_hosts(self) -> None:
        self.use(tls_memory="require")
        self.server(*OPENING, *TAKEN)
        self.assertTrue(self.send_one().delivered)

    def test_tls_memory_is_set_by_destination(self) -> None:
        self.use(Destination(domain="example.net", tls_memory="require"))
        self.remembered()
        self.server(*OPENING, *PARTING)
        self.assertEqual(self.send_one().reply.enhanced, "4.7.4")

    def test_a_host_is_forgotten_after_90_days(self) -> None:
        self.use(tls_memory="require")
        self.remembered()
        self.now += 91 * 86400
        self.server(*OPENING, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.alarms(), [])


class CredentialTests(HopTestCase):
    """C8: credentials are never sent in clear, whatever a server offers or refuses."""

    def setUp(self) -> None:
        super().setUp()
        self.destination = Destination(
            domain="mx1.example",
            username="us",
            password_file=self.file("password", b"secret\n"),
            tls="may",
        )
        self.use(self.destination)
        self.hop = NextHop("smtp", hosts=(Host("mx1.example"),))

    def test_c8_credentials_are_sent_under_tls(self) -> None:
        peer = self.server(
            *TLS_OPENING,
            ("send", b"220 Go\r\n"),
            ("starttls",),
            ("expect", b"EHLO client.example\r\n"),
            ("send", b"250-mx.example\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"),
            ("expect", b"AUTH PLAIN AHVzAHNlY3JldA==\r\n"),
            ("send", b"235 2.7.0 Welcome\r\n"),
            *TAKEN,
        )
        self.assertTrue(self.send_one(self.hop).delivered)
        self.assertTrue(peer.finished, peer.problems)

    def test_c8_credentials_are_never_sent_in_clear(self) -> None:
        offered: ScriptStep = ("send", b"250-mx.example\r\n250 AUTH PLAIN LOGIN\r\n")
        both: ScriptStep = ("send", b"250-mx.example\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")
        scripts: tuple[list[ScriptStep], ...] = (
            [*TLS_OPENING[:2], offered, *PARTING],
            [
                *TLS_OPENING[:2],
                both,
                ("expect", b"STARTTLS\r\n"),
                ("send", b"502 No\r\n"),
                *PARTING,
            ],
            [*TLS_OPENING[:2], both, ("expect", b"STARTTLS\r\n"), *BROKEN[-2:]],
        )
        for script in scripts:
            peer = self.server(*script)
            outcome = self.send_one(self.hop)
            self.assertTrue(outcome.deferred)
            self.assertTrue(peer.finished, peer.problems)
            for word in (b"AUTH", b"MAIL", b"secret"):
                self.assertNotIn(word, peer.received)
        self.assertEqual(len(self.network.connections), len(scripts))

    def test_a_refused_password_is_reported_as_the_server_said_it_and_defers(self) -> None:
        self.server(
            *TLS_OPENING,
            ("send", b"220 Go\r\n"),
            ("starttls",),
            ("expect", b"EHLO client.example\r\n"),
            ("send", b"250-mx.example\r\n250 AUTH PLAIN\r\n"),
            ("expect", b"AUTH PLAIN AHVzAHNlY3JldA==\r\n"),
            ("send", b"535 5.7.8 Wrong\r\n"),
            *PARTING,
        )
        outcome = self.send_one(self.hop)
        self.assertEqual(str(outcome.reply), "535 5.7.8 Wrong")
        self.assertEqual(outcome.remote, "mx1.example[192.0.2.1]:25")
        self.assertTrue(outcome.deferred and outcome.unreachable)
        self.assertEqual(failed_step(outcome), "it refused our account and password")
        self.assertEqual(self.relay.connections.traffic.credentials_refused, 1)
        self.assertEqual(len(self.alarms()), 1)

    def test_scram_keys_are_derived_on_the_executor(self) -> None:
        nonce = "rOprNGfwEbeRWgbNEkqO"
        calls: list[tuple[Any, Deferred[Any]]] = []

        def executor(function: Any, /, *arguments: Any) -> Deferred[Any]:
            calls.append((function, Deferred()))
            return calls[-1][1]

        self.use(self.destination, nonce=lambda: nonce, executor=executor)
        challenge = f"r={nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=600000".encode()
        for lost in (False, True):
            calls.clear()
            peer = self.server(
                *TLS_OPENING,
                ("send", b"220 Go\r\n"),
                ("starttls",),
                ("expect", b"EHLO client.example\r\n"),
                ("send", b"250-mx.example\r\n250 AUTH SCRAM-SHA-256\r\n"),
                ("expect", re.compile(rb"AUTH SCRAM-SHA-256 [A-Za-z0-9+/=]+\r\n")),
                ("send", b"334 " + b64encode(challenge) + b"\r\n"),
                ("expect", re.compile(rb"Yz1iaXdz[A-Za-z0-9+/=]+\r\n")),
                ("send", b"535 5.7.8 No\r\n"),
                *PARTING,
            )
            delivering = self.relay.deliver(self.hop, message())
            self.network.settle()
            self.network.advance(60)
            [(function, derived)] = calls
            self.assertEqual(peer.received.count(b"AUTH"), 1)
            if lost:
                self.network.connections[-1][1].abortConnection()
                self.network.settle()
            derived.callback(function())
            self.network.settle()
            [outcome] = self.successResultOf(delivering)
            self.assertTrue(outcome.deferred)
            self.assertEqual(peer.finished, not lost, peer.problems)

    def test_keys_that_cannot_be_derived_defer(self) -> None:
        """No thread, no memory: the connection ends, and no octet of the exchange is sent."""
        nonce = "rOprNGfwEbeRWgbNEkqO"
        self.use(
            self.destination,
            nonce=lambda: nonce,
            executor=lambda *arguments: fail(RuntimeError("can't start new thread")),
        )
        challenge = f"r={nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=600000".encode()
        peer = self.server(
            *TLS_OPENING,
            ("send", b"220 Go\r\n"),
            ("starttls",),
            ("expect", b"EHLO client.example\r\n"),
            ("send", b"250-mx.example\r\n250 AUTH SCRAM-SHA-256\r\n"),
            ("expect", re.compile(rb"AUTH SCRAM-SHA-256 [A-Za-z0-9+/=]+\r\n")),
            ("send", b"334 " + b64encode(challenge) + b"\r\n"),
        )
        outcome = self.send_one(self.hop)
        self.assertTrue(outcome.deferred)
        self.assertIn("internal error", outcome.reply.text)
        self.assertTrue(peer.finished and peer.lost, peer.problems)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_password_is_not_shown_anywhere(self) -> None:
        """Neither the terms, nor the lines of a reload, nor the log show it."""
        terms = self.relay.terms.host_terms(self.hop, "example.net")
        self.assertEqual(terms[0].credentials, Credentials("us", "secret"))
        self.assertNotIn("secret", repr(terms))
        self.assertNotIn("secret", "".join(self.log))
