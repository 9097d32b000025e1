"""What policy services are told of a session."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.policy.delegation.request import Subject, attributes, request
from twisted_mta.policy.examination import PolicySession
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings


def told(tls: TLSFacts | None = None, peer: Peer | None = None) -> dict[str, str]:
    view = Session(
        SessionSettings(hostname="mx.example"),
        peer=peer or Peer("2001:db8::1%eth0", 4321),
        local_address="2001:db8::25",
        local_port=25,
    )
    view.tls, view.identity = tls, "ann"
    subject = Subject(state="RCPT", sender=Mailbox("ann", "a.example"))
    return dict(attributes(PolicySession(view), subject))


def facts(subject: str, *, verified: bool = True) -> TLSFacts:
    return TLSFacts(
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        bits=256,
        peer_subject=subject,
        peer_issuer="CN=An Authority,O=Example",
        peer_fingerprint="ab12" * 16,
        peer_verified=verified,
    )


class Attributes(SynchronousTestCase):
    def test_addresses_are_plain_and_ports_are_numbers(self) -> None:
        found = told()
        self.assertEqual((found["client_address"], found["client_port"]), ("2001:db8::1", "4321"))
        self.assertEqual((found["server_address"], found["server_port"]), ("2001:db8::25", "25"))
        self.assertEqual(found["client_name"], "unknown")
        self.assertEqual(told(peer=Peer(user=1000))["client_address"], "unknown")
        self.assertEqual(found["sasl_username"], "ann")

    def test_tls_is_told(self) -> None:
        found = told(facts("CN=x"))
        self.assertEqual(found["encryption_protocol"], "TLSv1.3")
        self.assertEqual(found["encryption_cipher"], "TLS_AES_256_GCM_SHA384")
        self.assertEqual(found["encryption_keysize"], "256")

    def test_names_of_a_certificate_are_common_names_in_xtext(self) -> None:
        for subject, expected in (
            ("CN=client.example,O=Example", "client.example"),
            ("O=Example,CN=A B+OU=c", "A+20B"),
            (r"O=x\,CN=forged,CN=true", "true"),
            (r"O=x\\,CN=true", "true"),
            (r"CN=a\,b\+c", "a,b+2Bc"),
            ("O=Example", ""),
            ("", ""),
        ):
            found = told(facts(subject))
            self.assertEqual(found["ccert_subject"], expected, subject)
            self.assertEqual(found["ccert_issuer"], "An+20Authority")
            self.assertEqual(found["ccert_fingerprint"], ":".join(["AB", "12"] * 16))

    def test_names_of_a_certificate_that_is_not_verified_are_not_told(self) -> None:
        found = told(facts("CN=admin", verified=False))
        self.assertEqual((found["ccert_subject"], found["ccert_issuer"]), ("", ""))
        self.assertNotEqual(found["ccert_fingerprint"], "")

    def test_no_value_ends_its_line(self) -> None:
        octets = request([("helo_name", "a\nsender=\r\0\x7fx"), ("sender", "\u00fc\udc80")])
        self.assertEqual(octets, b"helo_name=a?sender=???x\nsender=\xc3\xbc?\n\n")
