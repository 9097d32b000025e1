"""STARTTLS that is announced and of no use: the mail goes once more in clear, if TLS is optional.

RFC 3207 §4, §6; RFC 7435 §4.
"""

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import HOP, OPENING, PARTING, TAKEN, message
from tests.tls.test_client import HELLO, SECURED
from tests.tls.test_client import TLS_OPENING as SMALL_OPENING
from twisted_mta.mail.outcome import Outcome
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS
from twisted_mta.tls.small_hello import POSSIBLE

TLS_OPENING: list[ScriptStep] = [
    *SMALL_OPENING[:2],
    ("send", b"250-mx.example\r\n250 STARTTLS\r\n"),
    SMALL_OPENING[3],
]
GO: ScriptStep = ("send", b"220 Go\r\n")
UNDER_TLS: list[ScriptStep] = [GO, ("starttls",), ("expect", b"EHLO client.example\r\n")]
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake failure
CLOSING = b"\x15\x03\x03\x00\x02\x01\x00"  # close_notify
MAIL: ScriptStep = ("expect", b"MAIL FROM:<a@client.example>\r\n")

WAYS: dict[str, list[ScriptStep]] = {
    "octets in the segment of the 220": [("send", b"220 Go\r\n250 mx.example\r\n")],
    "an alert in the segment of the 220": [("send", b"220 Go\r\n" + ALERT)],
    "half a line in the segment of the 220": [("send", b"220 Go\r\n2")],
    "octets after the 220": [GO, HELLO, ("send", b"250 mx.example\r\n")],
    "an alert": [GO, HELLO, ("send", ALERT)],
    "an alert and the end": [GO, HELLO, ("send", ALERT), ("close",)],
    "the end of TLS in the handshake": [GO, HELLO, ("send", CLOSING)],
    "the end after the 220": [GO, ("close",)],
    "a reset after the 220": [GO, ("abort",)],
    "the end in the handshake": [GO, HELLO, ("close",)],
    "the end at STARTTLS": [("close",)],
    "a reset at STARTTLS": [("abort",)],
    "421 at STARTTLS": [("send", b"421 4.3.2 Busy\r\n"), ("close",)],
    "454 and the end": [("send", b"454 4.7.0 No\r\n"), ("close",)],
    "502 and the end at MAIL": [("send", b"502 No\r\n"), MAIL, ("close",)],
    "454 and 421 at MAIL": [("send", b"454 No\r\n"), MAIL, ("send", b"421 Bye\r\n"), ("close",)],
    "221 and the end": [("send", b"221 Bye\r\n"), ("close",)],
    "no reply at STARTTLS": [],
    "no octet of a handshake": [GO],
    "half a handshake": [GO, HELLO, ("send", b"\x16\x03\x03\x00\x7a\x02")],
    "250 and a wait for a handshake": [("send", b"250 Go\r\n")],
    "octets that are no reply": [("send", b"\x16\x03\x01\r\n")],
    "a reply without an end": [("send", b"220-Go\r\n" * 100)],
    "a reply that contradicts itself": [("send", b"454-No\r\n220 Go\r\n")],
    "a reply with LF alone": [("send", b"220 Go\n")],
    "the end under TLS": [*UNDER_TLS, ("close",)],
    "a reset under TLS": [*UNDER_TLS, ("abort",)],
    "no reply under TLS": UNDER_TLS,
    "421 to EHLO under TLS": [*UNDER_TLS, ("send", b"421 4.3.2 Busy\r\n"), ("close",)],
    "450 to EHLO under TLS": [*UNDER_TLS, ("send", b"450 4.3.2 Busy\r\n"), *PARTING],
    "550 to EHLO and HELO under TLS": [
        *UNDER_TLS,
        ("send", b"550 No\r\n"),
        ("expect", b"HELO client.example\r\n"),
        ("send", b"550 No\r\n"),
        *PARTING,
    ],
    "garbage under TLS": [*UNDER_TLS, ("send", b"hello\r\n")],
}
"""What the server does at STARTTLS."""

UNANSWERED = [
    WAYS[way]
    for way in (
        "the end after the 220",
        "the end in the handshake",
        "no octet of a handshake",
        "half a handshake",
    )
    if POSSIBLE
]
"""After these, a small ClientHello is tried first."""


class UnusableStartTLSTests(HopTestCase):
    def attempt(self, *script: ScriptStep) -> tuple[Outcome, ScriptedPeer]:
        """Deliver a message to a server with this script, then in clear to one without TLS.

        The first one does the same again at a small ClientHello.

        Returns:
            The outcome, and the second server.
        """
        self.network._listening.clear()
        self.relay.connections.unreachable.clear()
        self.relay.connections.small_hellos.clear()
        for _ in range(1 + (list(script) in UNANSWERED)):
            self.server(*TLS_OPENING, *script)
        second = self.server(*OPENING, *TAKEN, *PARTING)
        delivering = self.relay.deliver(self.hop, message())
        self.network.settle()
        for _ in range(80):  # 400 s
            if not delivering.called:
                self.network.advance(5)
        [outcome] = self.successResultOf(delivering)
        self.relay.abort()
        self.network.settle()
        return outcome, second

    def setUp(self) -> None:
        super().setUp()
        self.hop = HOP
        self.use()

    def test_every_way_of_failing_sends_the_mail_once_more_in_clear(self) -> None:
        for way, script in WAYS.items():
            outcome, second = self.attempt(*script)
            self.assertTrue(outcome.delivered, (way, outcome))
            self.assertIsNone(outcome.tls, way)
            self.assertEqual(len(second.contents), 1, way)
            self.assertNotIn(b"STARTTLS", second.received, way)
        self.assertEqual(self.relay.connections.traffic.clear_retries, len(WAYS))
        self.assertEqual(self.alarms(), [])

    def test_it_takes_30_s_without_a_handshake_each_time_and_60_s_without_a_reply(self) -> None:
        handshakes = 2 if POSSIBLE else 1
        for way, seconds in (
            ("no octet of a handshake", 30 * handshakes),
            ("no reply at STARTTLS", 60),
        ):
            started = self.network.seconds()
            self.attempt(*WAYS[way])
            self.assertLess(self.network.seconds() - started, seconds + 6)

    def test_each_of_them_raises_an_alarm_where_the_host_did_tls_before(self) -> None:
        self.memory.remember("mx1.example", 25)
        for number, (way, script) in enumerate(WAYS.items(), 1):
            outcome, _ = self.attempt(*script)
            self.assertTrue(outcome.delivered, way)
            self.assertGreaterEqual(self.memory.alarms, number, way)

    def test_where_tls_is_mandatory_none_of_them_sends_anything_in_clear(self) -> None:
        self.memory.remember("mx1.example", 25)
        for level in ("encrypt", "verify"):
            self.use(tls=level)
            for way, script in WAYS.items():
                outcome, second = self.attempt(*script)
                under_tls = "under TLS" in way
                self.assertTrue(outcome.deferred or under_tls, (way, outcome))
                self.assertFalse(outcome.delivered, way)
                self.assertEqual(second.received, b"", (level, way))
                self.assertNotIn("tls_memory", str(outcome.reply))
        self.assertEqual(self.relay.connections.traffic.clear_retries, 0)
        self.assertEqual(self.alarms(), [])

    def test_where_the_memory_requires_tls_none_of_them_sends_anything_in_clear(self) -> None:
        self.use(tls_memory="require")
        self.memory.remember("mx1.example", 25)
        for way, script in WAYS.items():
            outcome, second = self.attempt(*script)
            self.assertFalse(outcome.delivered, way)
            self.assertEqual(second.received, b"", way)
            if "under TLS" not in way:
                self.assertIn("deferred", self.alarms()[-1])

    def test_a_version_without_a_match_is_one_of_them(self) -> None:
        self.server_with(PeerTLS(maximum=0x0302), *TLS_OPENING, *SECURED)
        second = self.server(*OPENING, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(len(second.contents), 1)

    def test_the_second_connection_is_the_last(self) -> None:
        """Its failure is the outcome, and the reason for it stays in the transcript."""
        self.server(*TLS_OPENING, GO, HELLO, ("send", ALERT), ("close",))
        self.server(("send", b"450 4.3.2 Busy\r\n"), *PARTING)
        outcome = self.send_one()
        self.assertEqual(str(outcome.reply), "450 4.3.2 Busy")
        self.assertIn("STARTTLS", outcome.transcript)
        self.assertEqual(len(self.network.connections), 2)

    def test_a_second_connection_that_is_refused_leaves_the_reason_of_the_first(self) -> None:
        self.server(*TLS_OPENING, ("send", b"421 4.3.2 Busy\r\n"), ("close",))
        outcome = self.send_one()
        self.assertEqual(str(outcome.reply), "421 4.3.2 Busy")

    def test_a_server_that_requires_tls_and_cannot_do_it_defers(self) -> None:
        """RFC 3207 §4: 530 in clear is no reason to return the mail while STARTTLS fails."""
        clear: list[ScriptStep] = [
            *OPENING[:2],
            ("send", b"250-mx.example\r\n250 STARTTLS\r\n"),
            MAIL,
            ("send", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        ]
        self.server(*TLS_OPENING, GO, HELLO, ("send", ALERT), ("close",))
        self.server(*clear)
        outcome = self.send_one()
        self.assertEqual(str(outcome.reply), "530 5.7.0 Must issue a STARTTLS command first")
        self.assertTrue(outcome.deferred)
        self.relay.abort()
        self.server(*TLS_OPENING, ("send", b"454 4.7.0 Not now\r\n"), *clear[-2:])
        self.assertTrue(self.send_one().deferred)
