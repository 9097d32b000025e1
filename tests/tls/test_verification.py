"""C5, C6: certificates of next hops are verified (RFC 3207 §4.1), with real TLS in memory."""

import re

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import FIRST, PARTING, SECOND, TAKEN
from tests.server.authority import Authority, Issued, costly_key, self_signed, subordinates
from tests.tls.test_client import SECURED, TLS_OPENING
from twisted_mta.config import Config, Destination
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.system.real_world import wall_time
from twisted_mta.system.work import finished
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS
from twisted_mta.tls.certificates import CertificateError
from twisted_mta.tls.client import ClientContexts, ClientTLS, server_name

TOO_WEAK: list[ScriptStep] = [
    *TLS_OPENING,
    ("send", b"220 Go\r\n"),
    ("starttls",),
    ("expect", b"QUIT\r\n"),
    ("send", b"221 Bye\r\n"),
]
"""A server that receives QUIT right after the handshake, and nothing else."""


def shown(issued: Issued) -> PeerTLS:
    return PeerTLS(shown=(issued.certificate, issued.key))


class VerificationTests(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.authorities = self.file("ca.pem", self.authority.issued.pem)
        self.use(tls="verify", authorities=self.authorities)

    def issued(self, *names: str, **kinds: object) -> Issued:
        kinds.setdefault("for_clients", False)
        return self.authority.issue("mx1.example", names=names, **kinds)  # type: ignore[arg-type]

    def deferred(self, issued: Issued) -> Outcome:
        """Deliver to a server that is not verified; return the outcome."""
        peer = self.server_with(shown(issued), *TOO_WEAK)
        outcome = self.send_one()
        self.assertTrue(peer.finished, peer.problems)  # C6: QUIT right after the negotiation
        self.assertEqual(outcome.reply.enhanced, "4.7.5")  # C6: deferred, not bounced
        self.assertTrue(outcome.unreachable)
        assert outcome.tls is not None
        self.assertFalse(outcome.tls.peer_verified)
        return outcome

    def assert_verified(self, issued: Issued, target: Target = FIRST) -> None:
        self.targets = [target]
        peer = self.server_with(shown(issued), *TLS_OPENING, *SECURED, *TAKEN, target=target)
        outcome = self.send_one()
        self.assertTrue(outcome.delivered, outcome)
        self.assertTrue(peer.finished, peer.problems)
        assert outcome.tls is not None
        self.assertTrue(outcome.tls.peer_verified)
        self.use(tls="verify", authorities=self.authorities)  # closes that connection

    def test_c5_a_certificate_with_the_right_name_and_authority_verifies(self) -> None:
        self.assert_verified(self.issued("other.example", "MX1.example"))

    def test_c5_a_wildcard_matches_one_label(self) -> None:
        """RFC 9525 §6.3."""
        issued = self.issued("*.net.example")
        self.assert_verified(issued, Target("mx.net.example", "192.0.2.1", 25))
        self.targets = [target] = [Target("a.mx.net.example", "192.0.2.7", 25)]
        peer = self.server_with(shown(issued), *TOO_WEAK, target=target)
        self.assertEqual(self.send_one().reply.enhanced, "4.7.5")
        self.assertTrue(peer.finished, peer.problems)

    def test_c5_an_internationalized_name_verifies(self) -> None:
        """The certificate has A-labels, whatever the form in the route (RFC 9525 §4)."""
        domain = Mailbox.parse("a@mx.bücher.example").domain
        for name in (domain, "mx.bücher.example"):
            target = Target(name, "192.0.2.1", 25)
            self.assert_verified(self.issued("mx.xn--bcher-kva.example"), target)
            self.assertEqual(server_name(target), "mx.xn--bcher-kva.example")

    def test_c5_an_address_literal_needs_an_ip_id(self) -> None:
        """An IP-ID counts, a DNS-ID with the address does not; there is no SNI (C10)."""
        for address in ("192.0.2.1", "2001:db8::2"):
            target = Target(address, address, 25)
            self.assert_verified(self.issued(address), target)
            self.assertIsNone(server_name(target))
        self.targets = [Target("192.0.2.1", "192.0.2.1", 25)]
        outcome = self.deferred(self.issued("192.0.2.2"))
        self.assertIn("not for 192.0.2.1, but for 192.0.2.2", outcome.reply.text)

    def test_c5_another_name_does_not_verify(self) -> None:
        outcome = self.deferred(self.issued("mx2.example", "a.example", "b.example", "c.example"))
        self.assertIn(
            "its certificate is not for mx1.example, but for mx2.example, a.example, b.example and"
            " 1 more",
            outcome.reply.text,
        )

    def test_c5_a_common_name_never_counts(self) -> None:
        """The subject has mx1.example, and no subjectAltName has it."""
        outcome = self.deferred(self.issued())
        self.assertIn("cannot be compared with mx1.example", outcome.reply.text)
        self.assertIn("subjectAltName", outcome.reply.text)

    def test_c5_an_expired_certificate_does_not_verify(self) -> None:
        outcome = self.deferred(self.issued("mx1.example", days=(-30, -1)))
        self.assertIn("has expired", outcome.reply.text)
        self.assertNotIn("not for", outcome.reply.text)

    def test_c5_a_certificate_that_is_not_valid_yet_does_not_verify(self) -> None:
        outcome = self.deferred(self.issued("mx1.example", days=(1, 30)))
        self.assertIn("not valid yet", outcome.reply.text)

    def test_c5_a_self_signed_certificate_does_not_verify(self) -> None:
        outcome = self.deferred(self_signed("mx1.example", names=["mx1.example"]))
        self.assertIn("its certificate is self-signed", outcome.reply.text)

    def test_c5_a_certificate_of_another_authority_does_not_verify(self) -> None:
        """By an unknown authority, or by one that only has the name of a trusted one."""
        for name, text in (
            ("Other CA", "no trusted authority"),
            ("Example CA", "not signed by the authority that it names"),
        ):
            other = Authority(name)
            issued = other.issue("mx1.example", names=["mx1.example"], for_clients=False)
            self.assertIn(text, self.deferred(issued).reply.text)

    def test_c5_a_certificate_for_clients_only_does_not_verify(self) -> None:
        outcome = self.deferred(self.issued("mx1.example", for_clients=True))
        self.assertIn("not for servers", outcome.reply.text)

    def test_c5_the_default_authorities_are_those_of_the_system(self) -> None:
        """Our test authority is not one of them."""
        self.use(tls="verify")
        outcome = self.deferred(self.issued("mx1.example"))
        self.assertIn("no trusted authority", outcome.reply.text)

    def test_c5_a_certificate_may_be_its_own_authority(self) -> None:
        """It is trusted without the authority above it, and its name must still be right."""
        pinned = self_signed("mx1.example", names=["mx1.example"])
        self.authorities = self.file("pinned.pem", pinned.pem)
        self.use(tls="verify", authorities=self.authorities)
        self.assert_verified(pinned)
        self.targets = [Target("mx2.example", FIRST.address, 25)]
        self.assertIn("not for mx2.example", self.deferred(pinned).reply.text)

    def test_c5_any_exception_means_not_verified(self) -> None:
        class Broken(ClientContexts):
            def _problems(self, connection: object, target: object) -> list[str]:
                raise ZeroDivisionError("division by zero")

        self.relay.connections.contexts = Broken()
        tls = ClientTLS(verify=True, authorities=self.authorities)
        self.relay.connections.contexts.use(finished(self.relay.connections.contexts.load([tls])))
        outcome = self.deferred(self.issued("mx1.example"))
        self.assertIn("cannot be verified: division by zero", outcome.reply.text)

    def test_names_of_a_huge_certificate_are_not_read(self) -> None:
        names = ["mx1.example", *(f"{number}.mail.example" for number in range(1000))]
        outcome = self.deferred(self.issued(*names))
        self.assertRegex(outcome.reply.text, r"its certificate has \d{5} octets, and no more than")
        assert outcome.tls is not None
        self.assertRegex(outcome.tls.peer_subject or "", r"^unreadable: it has \d{5} octets")

    def test_a_key_that_takes_too_long_ends_the_handshake(self) -> None:
        """A chain of such keys would hold the reactor for a second."""
        issued = self.issued("mx1.example", key=costly_key())
        peer = self.server_with(shown(issued), *TOO_WEAK[:-2])
        outcome = self.send_one()
        self.assertEqual(outcome.reply.enhanced, "4.7.5")
        self.assertIn("its chain has a key with an exponent of 20", outcome.reply.text)
        self.assertTrue(peer.finished, peer.problems)

    def test_a_chain_is_verified_up_to_ten_certificates(self) -> None:
        for count, problem in ((9, ""), (11, "cert chain too long")):
            chain = subordinates(self.authority, count)
            issued = chain[-1][0].issue("x", names=["mx1.example"], for_clients=False)
            tls = shown(issued)
            for _, certificate in reversed(chain):
                tls._context.add_extra_chain_cert(certificate)
            if problem:
                peer = self.server_with(tls, *TOO_WEAK)
                self.assertIn(problem, self.send_one().reply.text)
                self.assertTrue(peer.finished, peer.problems)
            else:
                self.server_with(tls, *TLS_OPENING, *SECURED, *TAKEN)
                self.assertTrue(self.send_one().delivered)
                self.use(tls="verify", authorities=self.authorities)

    def test_c5_a_callback_that_was_not_called_means_not_verified(self) -> None:
        """Without a call of OpenSSL's callback nothing is verified."""

        class Blind(ClientContexts):
            def _remember(self, *arguments: object) -> bool:
                return True

        self.relay.connections.contexts = Blind()
        tls = ClientTLS(verify=True, authorities=self.authorities)
        self.relay.connections.contexts.use(finished(self.relay.connections.contexts.load([tls])))
        self.deferred(self.issued("mx1.example"))

    def test_c6_the_next_target_is_tried_after_a_failed_verification(self) -> None:
        self.targets = [FIRST, SECOND]
        self.server_with(shown(self_signed("mx1.example", names=["mx1.example"])), *TOO_WEAK)
        good = self.issued("mx2.example")
        self.server_with(shown(good), *TLS_OPENING, *SECURED, *TAKEN, target=SECOND)
        self.assertEqual(self.send_one().remote, "mx2.example[2001:db8::2]:25")

    def test_c6_verify_never_falls_back_to_clear(self) -> None:
        """Neither without an offer of STARTTLS, nor after a failed handshake (C8)."""
        for behind in (
            [("send", b"250 mx.example\r\n"), *PARTING],
            [
                ("send", b"250-mx.example\r\n250 STARTTLS\r\n"),
                ("expect", b"STARTTLS\r\n"),
                ("send", b"220 Go\r\n"),
                ("close",),
            ],
        ):
            peer = self.server(*TLS_OPENING[:2], *behind)  # type: ignore[misc]
            self.assertEqual(self.send_one().reply.code // 100, 4)
            self.assertNotIn(b"MAIL", peer.received)
        self.assertEqual(len(self.network.connections), 2)

    def test_the_name_to_verify_is_that_of_the_route(self) -> None:
        """Neither the recipient's domain nor a name in a reply counts."""
        hop = NextHop("smtp", hosts=(Host("relay.example", 25),))
        self.targets = [Target("relay.example", "192.0.2.1", 25)]
        self.server_with(shown(self.issued("relay.example")), *TLS_OPENING, *SECURED, *TAKEN)
        self.assertTrue(self.send_one(hop).delivered)


class FileTests(HopTestCase):
    def test_our_client_certificate_is_sent_on_request(self) -> None:
        ours = Authority().issue("us.example")
        self.use(Destination(domain="*", client_certificate=self.file("us.pem", ours.pem)))
        for ask in (True, False):
            tls = PeerTLS(ask=ask)
            peer = self.server_with(tls, *TLS_OPENING, *SECURED, *TAKEN, *PARTING)
            self.assertTrue(self.send_one().delivered)
            self.assertEqual(tls.client_subjects, ["CN=us.example"] if ask else [])
            self.network.advance(5)
            self.assertTrue(peer.finished, peer.problems)

    def test_the_dates_of_our_certificate_are_checked(self) -> None:
        ours = Authority().issue("us.example", days=(-9, 3))
        self.use(Destination(domain="*", client_certificate=self.file("us.pem", ours.pem)))
        config = Config(
            destinations=[  # type: ignore[arg-type]
                Destination(domain="*", client_certificate=self.file("us.pem", ours.pem))
            ]
        )
        loaded = finished(self.relay.load_terms(config.all_destinations))
        [warning] = loaded.date_warnings(wall_time())
        self.assertIn("us.pem: the certificate expires on", warning)

    def test_an_unusable_file_changes_nothing(self) -> None:
        """An unusable file is refused by name before anything changes."""
        ours, other = (Authority().issue("us.example") for _ in range(2))
        good = self.file("us.pem", ours.pem)
        self.use(Destination(domain="*", client_certificate=good))
        for destination, text in (
            (
                Destination(
                    domain="*",
                    client_certificate=good,
                    client_key=self.file("other.pem", other.key_pem),
                ),
                r"other\.pem: the key does not match",
            ),
            (Destination(domain="*", client_certificate="/nowhere"), "/nowhere: cannot be read"),
            (
                Destination(domain="*", tls="verify", authorities=self.file("ca.pem", b"?")),
                r"ca\.pem: holds no certificate",
            ),
        ):
            error = self.assertRaises(CertificateError, self.reconfigure, destination)
            self.assertTrue(re.search(text, str(error)), str(error))
        tls = PeerTLS(ask=True)
        self.server_with(tls, *TLS_OPENING, *SECURED, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(tls.client_subjects, ["CN=us.example"])

    def test_a_reload_reads_the_files_again(self) -> None:
        """Idle connections are closed, and the next one uses the new content of the files."""
        old, new = (Authority() for _ in range(2))
        issued = new.issue("mx1.example", names=["mx1.example"], for_clients=False)
        destination = Destination(
            domain="*", tls="verify", authorities=self.file("ca.pem", old.issued.pem)
        )
        self.use(destination)
        self.server_with(shown(issued), *TOO_WEAK)
        self.assertFalse(self.send_one().delivered)
        self.file("ca.pem", new.issued.pem)
        [line] = self.reconfigure(destination)
        self.assertIn("ca.pem: authorities for next hops: 1 (CN=Example CA); before: 1 (CN=", line)
        peer = self.server_with(shown(issued), *TLS_OPENING, *SECURED, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.reconfigure(destination), [])
        self.network.settle()
        self.assertTrue(peer.finished, peer.problems)

    def test_a_connection_under_way_is_closed_after_its_transaction(self) -> None:
        self.use(Destination(domain="*"))
        peer: ScriptedPeer = self.server(
            *TLS_OPENING[:2], ("send", b"250-mx.example\r\n250 PIPELINING\r\n"), *TAKEN[:-1]
        )
        delivering = self.deliver()
        self.reconfigure(Destination(domain="*", connections=1))
        peer.script = [*PARTING]
        peer.transport.write(b"250 2.0.0 Queued\r\n")
        self.network.settle()
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertTrue(peer.finished, peer.problems)
