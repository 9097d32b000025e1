"""Signing in transactions with next hops: when it is done, and what it may see."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, execute, fail, succeed

from tests.delivery.test_relay import FIRST, GROUP, HOP, OPENING, RelayTestCase, message
from twisted_mta.delivery.relay import Relay
from twisted_mta.interfaces import Sign
from twisted_mta.mail.assessment import Assessment
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.testing.peer import ScriptStep
from twisted_mta.tls.client import ClientContexts

TAKEN: list[ScriptStep] = [
    *GROUP,
    ("send", b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
    ("content",),
    ("send", b"250 2.0.0 Queued\r\n"),
    ("expect", b"QUIT\r\n"),
    ("send", b"221 Bye\r\n"),
    ("close",),
]


class SigningTestCase(RelayTestCase):
    """A relay whose signer records what it is given."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Message] = []
        self.sign_by(self.signature)

    def signature(self, mail: Message) -> Message:
        self.asked.append(mail)
        return evolve(mail, trace=b"DKIM-Signature: x\r\n" + mail.trace)

    def sign_by(self, sign: Sign) -> None:
        self.relay = Relay(
            reactor=self.network,
            locate=self.locate,
            helo="client.example",
            contexts=ClientContexts(),
            executor=execute,
            sign=sign,
        )
        self.relays.append(self.relay)

    def replies(self, delivering: Deferred[Sequence[Outcome]]) -> list[str]:
        return [str(outcome.reply) for outcome in self.successResultOf(delivering)]


class Relaying(SigningTestCase):
    def test_the_signature_is_in_front_and_counts_for_the_size(self) -> None:
        size = len(b"DKIM-Signature: x\r\nReceived: x\r\nSubject: x\r\n\r\nHello\r\n")
        peer = self.server(
            *OPENING[:2],
            ("send", b"250-mx.example\r\n250-SIZE\r\n250 PIPELINING\r\n"),
            (
                "expect",
                b"MAIL FROM:<a@client.example> SIZE=%d\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
                % size,
            ),
            *TAKEN[1:],
        )
        self.assertEqual(self.replies(self.deliver()), ["250 2.0.0 Queued"])
        (content,) = peer.contents
        self.assertTrue(content.startswith(b"DKIM-Signature: x\r\nReceived: x\r\nSubject: x\r\n"))

    def test_the_signer_sees_the_message_as_it_goes_out(self) -> None:
        self.server(*OPENING, *TAKEN)
        mail = evolve(message(), assessment=Assessment(quarantine="spoofed"))
        self.replies(self.deliver(mail))
        (seen,) = self.asked
        self.assertEqual(seen.envelope, mail.envelope)
        self.assertEqual(
            seen.trace, b"X-Spam-Flag: YES\r\nX-Spam-Reason: spoofed\r\nReceived: x\r\n"
        )

    def test_converted_content_is_signed_after_its_conversion(self) -> None:
        peer = self.server(*OPENING, *TAKEN)
        mail = message(MemoryBody("Subject: x\r\n\r\n\u00fc\r\n".encode()))
        mail = evolve(mail, envelope=evolve(mail.envelope, parameters={"BODY": "8BITMIME"}))
        self.assertEqual(self.replies(self.deliver(mail)), ["250 2.0.0 Queued"])
        (seen,) = self.asked
        self.assertIn(b"\r\n\r\nw7wNCg==\r\n", b"".join(seen.body.chunks()))
        self.assertEqual(peer.contents[0].count(b"DKIM-Signature"), 1)

    def test_nothing_is_sent_while_the_signature_is_being_made(self) -> None:
        waiting: Deferred[Message] = Deferred()
        self.sign_by(lambda mail: waiting)
        peer = self.server(*OPENING, *TAKEN)
        delivering = self.deliver()
        self.network.settle()
        self.assertEqual(peer.contents, [])
        waiting.callback(self.signature(message()))
        self.network.settle()
        self.assertEqual(self.replies(delivering), ["250 2.0.0 Queued"])

    def test_a_signature_that_is_there_at_once_may_come_by_a_deferred(self) -> None:
        self.sign_by(lambda mail: succeed(self.signature(mail)))
        peer = self.server(*OPENING, *TAKEN)
        self.assertEqual(self.replies(self.deliver()), ["250 2.0.0 Queued"])
        self.assertIn(b"DKIM-Signature", peer.contents[0])

    def test_a_server_that_leaves_meanwhile_ends_the_attempt(self) -> None:
        waiting: Deferred[Message] = Deferred()
        self.sign_by(lambda mail: waiting)
        self.server(*OPENING, ("close",))
        delivering = self.deliver()
        (reply,) = self.replies(delivering)
        self.assertEqual(reply[:3], "451")
        waiting.callback(self.signature(message()))
        self.network.settle()

    def test_a_message_that_cannot_be_signed_is_deferred_and_the_connection_serves_others(
        self,
    ) -> None:
        answers = [
            lambda mail: fail(ZeroDivisionError()),
            lambda mail: fail(OSError("Input/output error")),
            self.signature,
        ]
        self.sign_by(lambda mail: answers.pop(0)(mail))
        self.server(*OPENING, *TAKEN)
        self.assertEqual(self.replies(self.deliver()), ["451 4.3.0 internal error, see the log"])
        self.assertEqual(
            self.replies(self.deliver()),
            ["451 4.3.0 the message cannot be read: Input/output error"],
        )
        self.assertEqual(self.replies(self.deliver()), ["250 2.0.0 Queued"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_each_transaction_is_signed(self) -> None:
        """The envelope may be part of what is signed."""
        self.targets = [FIRST]
        self.server(*OPENING, *TAKEN[:4], *TAKEN)
        for _ in range(2):
            delivering = self.relay.deliver(HOP, message())
            self.network.settle()
            self.replies(delivering)
        self.assertEqual(len(self.asked), 2)
