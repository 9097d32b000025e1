"""A next hop that follows a script, and large receivers as an agent sees them."""

from __future__ import annotations

import base64
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.tidy import TidyTestCase
from twisted_mta.config import DeliverySettings, DKIMKey
from twisted_mta.mail.events import Bounced, Deferred, Delivered
from twisted_mta.testing import FakeHop, MemoryMTA
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.testing.tls import authority_file

CONTENT = b"From: <ann@example.test>\r\nSubject: Hi\r\n\r\nHello\r\n..\r\n"


class Case(TidyTestCase):
    def setUp(self) -> None:
        self.mta = self.agent()
        self.hop = self.mta.hop()

    def agent(self, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(domain="example.test", **settings)
        mta.__enter__()
        self.addCleanup(mta.__exit__, None, None, None)
        return mta

    def submit(self, recipient: str = "bob@there.example", mta: MemoryMTA | None = None) -> None:
        (mta or self.mta).submit(CONTENT, sender="ann@example.test", recipients=[recipient])

    def replies(self, mta: MemoryMTA | None = None) -> list[str]:
        """Return the code and status of each attempt so far."""
        events = [
            each
            for each in (mta or self.mta).events
            if isinstance(each, Deferred | Bounced | Delivered) and each.reply is not None
        ]
        return [" ".join(str(each.reply).split()[:2]) for each in events]


class Scripts(Case):
    def test_a_hop_accepts_everything(self) -> None:
        self.submit()
        [mail] = self.hop.received
        self.assertEqual((mail.to, mail.sender), (("bob@there.example",), "ann@example.test"))
        self.assertTrue(mail.raw.endswith(CONTENT), mail.raw)
        self.assertIn("STARTTLS", self.hop.commands)

    def test_a_script_goes_from_step_to_step(self) -> None:
        self.hop.defer(2).refuse(1, "552 5.3.4 Too large", at="dot").then_accept()
        self.submit()
        self.mta.advance(hours=1)
        self.submit("eve@there.example")
        self.mta.advance(minutes=1)
        self.assertEqual(self.replies()[:3], ["451 4.3.0", "451 4.3.0", "552 5.3.4"])
        self.assertEqual([mail.to for mail in self.hop.received], [("eve@there.example",)])
        self.assertEqual(self.hop.transactions, 4)

    def test_a_step_for_some_recipients_leaves_the_others_alone(self) -> None:
        self.hop.refuse(1, to="b*@there.example").defer(1, to="eve@*").then_accept()
        recipients = [f"{name}@there.example" for name in ("bob", "eve", "zoe")]
        for _ in range(2):
            self.mta.submit(CONTENT, sender="ann@example.test", recipients=recipients)
        self.assertEqual(
            [mail.to for mail in self.hop.received],
            [tuple(recipients[1:]), (recipients[0], recipients[2])],
        )
        self.assertEqual(sorted(set(self.replies())), ["250 2.0.0", "451 4.3.0", "550 5.1.1"])
        self.assertRaises(ValueError, self.hop.refuse, 1, at="dot", to="bob@*")

    def test_a_step_for_all_is_replaced_by_the_next_one(self) -> None:
        self.hop.refuse()
        self.submit()
        self.hop.accept()
        self.submit()
        self.assertEqual((self.replies()[0], len(self.hop.received)), ("550 5.1.1", 1))

    def test_a_reply_may_come_at_each_stage(self) -> None:
        for stage in ("connect", "ehlo", "mail", "rcpt", "data", "dot"):
            mta = self.agent()
            hop = mta.hop().defer(1, "421 4.3.2 Closing", at=stage).then_accept()  # type: ignore[arg-type]
            self.submit(mta=mta)
            self.assertEqual(hop.received, [], stage)
            mta.advance(hours=2)
            self.assertEqual(len(hop.received), 1, stage)
            self.assertEqual(self.replies(mta)[0], "421 4.3.2", stage)

    def test_a_hop_that_hangs_is_left_after_the_timeout_of_rfc_5321(self) -> None:
        self.hop.hang(1).then_accept()
        self.submit()
        self.mta.advance(minutes=9)
        self.assertEqual(self.replies(), [])
        self.mta.advance(minutes=2)  # RFC 5321 §4.5.3.2.6: ten minutes
        self.assertEqual(len(self.replies()), 1)
        self.mta.advance(hours=1)
        self.assertEqual(len(self.hop.received), 1)

    def test_a_connection_that_drops_behind_the_dot_is_tried_again(self) -> None:
        self.hop.drop(1).then_accept()
        self.submit()
        self.mta.advance(hours=1)
        self.assertEqual(len(self.hop.received), 2)

    def test_a_connection_that_drops_at_once_is_tried_again(self) -> None:
        self.hop.drop(1, at="connect").then_accept()
        self.submit()
        self.mta.advance(hours=1)
        self.assertEqual((len(self.hop.received), self.hop.transactions), (1, 1))

    def test_a_slow_hop_takes_its_time_for_each_reply(self) -> None:
        self.hop.slow(20)
        self.submit()
        self.mta.advance(60)
        self.assertEqual(self.hop.received, [])
        self.mta.advance(200)
        self.assertEqual(len(self.hop.received), 1)

    def test_a_script_that_says_nothing_sensible_is_a_value_error(self) -> None:
        hop: Any = self.hop
        for call, found in (
            (lambda: hop.defer(0), "found 0"),
            (lambda: hop.defer(1, "550 no"), "found reply '550 no'"),
            (lambda: hop.refuse(1, "451 later"), "expected 5yz"),
            (lambda: hop.hang(at="quit"), "found 'quit'"),
            (lambda: hop.bad_tls("green"), "found 'green'"),
        ):
            self.assertIn(found, str(self.assertRaises(ValueError, call)))

    def test_a_hop_serves_any_network(self) -> None:
        network = MemoryReactor()
        hop = FakeHop(network)
        network.join(client := MemoryClient(network), hop.buildProtocol(None), "192.0.2.1", 25)
        network.settle()
        self.assertEqual(client.heard(), ["220 mx.example ESMTP"])
        for said, reply in (
            ("RCPT TO:<a@x.example>", "503 5.5.1 MAIL comes first"),
            ("DATA", "503 5.5.1 RCPT comes first"),
            ("MAIL FROM", "503 5.5.1 MAIL comes once, as MAIL FROM:<path>"),
            ("TURN", "500 5.5.1 No such command"),
            ("NOOP", "250 2.0.0 Done"),
            ("HELO x", "250 mx.example"),
        ):
            self.assertEqual(client.say(said), [reply])
        pipelined = b"MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nDATA\r\n.\r\nRSET\r\nQUIT\r\n"
        self.assertEqual(
            [line[:3] for line in client.send(pipelined)],
            ["250", "250", "354", "250", "250", "221"],
        )
        self.assertTrue(client.lost)
        self.assertEqual(hop.received[0].raw, b"")


class TLS(Case):
    def verifying(self) -> MemoryMTA:
        authorities = authority_file(self.mktemp())
        return self.agent(delivery=DeliverySettings(tls="verify", authorities=authorities))

    def test_a_good_certificate_verifies(self) -> None:
        mta = self.verifying()
        hop = mta.hop()
        self.submit(mta=mta)
        self.assertEqual(len(hop.received), 1)
        self.assertEqual(hop.tls.server_names, ["there.example"])

    def test_bad_tls_does_not_verify_and_its_reason_is_told(self) -> None:
        for why, told in (
            ("untrusted", "self-signed"),
            ("expired", "expired"),
            ("wrong name", "another.example"),
            ("broken", "TLS"),
        ):
            mta = self.verifying()
            hop = mta.hop().bad_tls(why)  # type: ignore[arg-type]
            self.submit(mta=mta)
            [deferred] = [each for each in mta.events if isinstance(each, Deferred)]
            self.assertIn(told, str(deferred.reply), why)
            self.assertEqual(hop.received, [], why)
            hop.good_tls()
            mta.advance(hours=3)
            self.assertEqual(len(hop.received), 1, why)

    def test_without_starttls_nothing_is_sent_where_it_must_verify(self) -> None:
        mta = self.verifying()
        hop = mta.hop().no_tls()
        self.submit(mta=mta)
        self.assertEqual((hop.transactions, hop.connections), (0, 1))


class LargeReceivers(Case):
    def test_a_rate_limit_replies_421_until_its_time_is_over(self) -> None:
        self.hop.rate_limit(3, seconds=600)
        for _ in range(5):
            self.submit()
        self.mta.advance(1)
        self.assertEqual(len(self.hop.received), 3)
        self.assertIn("421 4.7.28", self.replies())
        self.mta.advance(hours=3)
        self.assertEqual(len(self.hop.received), 5)

    def test_greylisting_defers_each_new_client_sender_and_recipient(self) -> None:
        self.hop.greylist(240)
        self.submit()
        self.submit("eve@there.example")
        self.assertEqual(self.replies(), ["451 4.7.1", "451 4.7.1"])
        self.mta.advance(minutes=30)
        self.assertEqual(len(self.hop.received), 2)
        self.submit()
        self.assertEqual(len(self.hop.received), 3)

    def test_mail_without_a_valid_signature_of_its_from_domain_is_refused(self) -> None:
        self.hop.require_dkim()
        self.submit()
        self.assertEqual(self.replies()[0], "550 5.7.26")
        self.assertEqual(self.hop.received, [])

    def test_signed_mail_is_taken(self) -> None:
        key = generate_private_key(65_537, 2048)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        os.chmod(path, 0o600)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        text = base64.b64encode(public).decode()
        zone = f'k._domainkey.example.test. TXT "v=DKIM1; p={text[:200]}" "{text[200:]}"'
        mta = self.agent(
            zone=zone, dkim_keys=(DKIMKey(domain="example.test", selector="k", key=path),)
        )
        hop = mta.hop().require_dkim()
        self.submit(mta=mta)
        self.assertEqual(len(hop.received), 1)
        mta.zone('k._domainkey.example.test. TXT "v=DKIM1; p="')
        self.submit(mta=mta)
        self.assertEqual(self.replies(mta)[:2], ["250 2.0.0", "550 5.7.26"])
