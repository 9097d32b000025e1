"""REQUIRETLS and TLS-Required (RFC 8689) through whole MTAs, under real TLS in memory."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256

from tests.server.authority import Authority, Issued, self_signed
from tests.tidy import TidyTestCase
from twisted_mta.config import DeliverySettings, Destination
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.testing.tls import PeerTLS

from .next_hop import QUIT, accepting, announcing, listen

PLAIN = b"Subject: x\r\n\r\nfine\r\n"


class ProtectedMail(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        """Return an MTA that cannot look up ``waiting.example`` now."""
        settings.setdefault("resolver", FakeResolver()).fail("waiting.example")
        return self.enterContext(MemoryMTA(**settings))

    def secured(self, mta: MemoryMTA) -> MemoryClient:
        client = mta.connect()
        client.start_tls()
        client.say("EHLO client.example")
        return client

    def send(
        self,
        client: MemoryClient,
        *words: str,
        content: bytes = PLAIN,
        to: str = "b@waiting.example",
    ) -> None:
        """Send a message; ``words`` follow the reverse-path."""
        sender, *parameters = words
        self.assertRegex(client.say(" ".join((f"MAIL FROM:<{sender}>", *parameters)))[0], "^250 ")
        self.assertRegex(client.say(f"RCPT TO:<{to}>")[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(content + b".\r\n")[0], "^250 ")

    def kept(self, mta: MemoryMTA) -> list[dict[str, Any]]:
        """Stop; return the stored parameters of each message in the queue, oldest first."""
        mta.stop()
        with sqlite3.connect(f"{mta.directory}/queue.sqlite") as database:
            rows = database.execute("SELECT parameters FROM message ORDER BY id").fetchall()
        database.close()
        return [json.loads(parameters) for (parameters,) in rows]


class Reception(ProtectedMail):
    def test_requiretls_is_offered_under_tls_alone(self) -> None:
        """RFC 8689 §2."""
        mta = self.started()
        client = mta.connect()
        self.assertNotIn(b"REQUIRETLS", client.received)
        self.assertRegex(client.say("MAIL FROM:<a@localhost> REQUIRETLS")[0], r"^530 5\.7\.10 ")
        client.start_tls()
        self.assertIn("250-REQUIRETLS", client.say("EHLO client.example"))
        self.assertRegex(client.say("MAIL FROM:<a@localhost> REQUIRETLS=1")[0], r"^501 5\.5\.4 ")
        self.assertRegex(client.say("MAIL FROM:<a@localhost> requiretls")[0], r"^250 ")

    def test_the_parameter_and_the_field_are_kept_with_the_message(self) -> None:
        """RFC 8689 §4.1: REQUIRETLS overrides the field."""
        mta = self.started()
        client = self.secured(mta)
        optional = b"TLS-Required: No\r\n" + PLAIN
        self.send(client, "ann@localhost", "REQUIRETLS")
        self.send(client, "ann@localhost", content=optional)
        self.send(client, "ann@localhost", "REQUIRETLS", content=optional)
        self.send(client, "ann@localhost")
        self.assertEqual(
            self.kept(mta), [{"REQUIRETLS": None}, {"TLS-REQUIRED": "NO"}, {"REQUIRETLS": None}, {}]
        )

    def test_the_application_may_set_the_field(self) -> None:
        mta = self.started()
        mta.submit(
            b"TLS-Required: No\r\n" + PLAIN, sender="a@localhost", recipients=["b@waiting.example"]
        )
        self.assertEqual(self.kept(mta), [{"TLS-REQUIRED": "NO"}])


class ToTheNextHop(ProtectedMail):
    """Mail to ``away.example``, whose exchangers are ``mx1`` and ``mx2``, in that order."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.resolver = FakeResolver(
            mail_exchangers={
                "away.example": [(1, "mx1.away.example"), (2, "mx2.away.example")],
                "sender.example": [(1, "mx3.away.example")],
            },
            addresses={f"mx{number}.away.example": [f"192.0.2.{number}"] for number in (1, 2, 3)},
            signed=("away.example", "sender.example"),
        )
        directory = self.mktemp()
        os.mkdir(directory)
        self.authorities = self.authority.issued.save(directory, "authorities.pem")
        self.mta = self.begun()

    def begun(self, **settings: Any) -> MemoryMTA:
        delivery = DeliverySettings(authorities=self.authorities)
        return self.started(**{"resolver": self.resolver, "delivery": delivery, **settings})

    def exchanger(
        self,
        *then: ScriptStep,
        number: int = 1,
        announces: str = "REQUIRETLS",
        name: str = "",
        issued: Issued | None = None,
    ) -> ScriptedPeer:
        """Return an exchanger; ``announces`` is what it adds to EHLO under TLS."""
        host = f"mx{number}.away.example"
        issued = issued or self.authority.issue("mx", names=[name or host], for_clients=False)
        peer = ScriptedPeer(
            [
                *announcing("STARTTLS"),
                ("expect", b"STARTTLS\r\n"),
                ("send", b"220 go\r\n"),
                ("starttls",),
                *announcing(*announces.split(","))[1:],
                *then,
            ],
            tls=PeerTLS(shown=(issued.certificate, issued.key)),
        )
        self.mta.reactor.listen(f"192.0.2.{number}", 25, peer)
        return peer

    def require(self, sender: str = "ann@sender.example", to: str = "b@away.example") -> None:
        """Send a message with REQUIRETLS, and let it be delivered."""
        self.send(self.secured(self.mta), sender, "RET=FULL", "REQUIRETLS", to=to)
        self.mta.advance(5)

    def assertPlayed(self, *peers: ScriptedPeer) -> None:
        for peer in peers:
            self.assertTrue(peer.finished, (peer.problems, peer.script, bytes(peer.received)))

    def taking(self, mail: str, recipient: str = "b@away.example") -> tuple[ScriptStep, ...]:
        return (*accepting(mail, recipient), *QUIT)

    def require_and_be_refused(self, status: str) -> None:
        """Check that the sender gets a notice under REQUIRETLS, with the header alone."""
        mail = "MAIL FROM:<> REQUIRETLS"
        notice = self.exchanger(*self.taking(mail, "ann@sender.example"), number=3)
        self.require()
        self.assertPlayed(notice)
        (content,) = notice.contents
        self.assertIn(f"\r\nStatus: {status}\r\n".encode(), content)
        self.assertIn(b"\r\nSubject: x\r\n", content)
        self.assertNotIn(b"fine", content)

    def test_it_goes_to_a_server_with_requiretls(self) -> None:
        peer = self.exchanger(*self.taking("MAIL FROM:<ann@sender.example> REQUIRETLS"))
        self.require()
        self.assertPlayed(peer)

    def test_it_stays_so_over_a_restart(self) -> None:
        self.require()
        self.assertEqual(self.kept(self.mta), [{"REQUIRETLS": None, "RET": "FULL"}])
        self.mta.start()
        peer = self.exchanger(*self.taking("MAIL FROM:<ann@sender.example> REQUIRETLS"))
        self.mta.advance(3600)
        self.mta.advance(10)
        self.assertPlayed(peer)

    def test_explain_names_the_message_as_the_source_of_the_level(self) -> None:
        for words, optional, level in (
            (("ann@sender.example", "REQUIRETLS"), b"", ("verify", "REQUIRETLS of the message")),
            (
                ("ann@sender.example",),
                b"TLS-Required: No\r\n",
                ("may", "TLS-Required: No of the message"),
            ),
            (("ann@sender.example",), b"", ("may", "default")),
        ):
            client = self.secured(self.mta)
            self.send(client, *words, content=optional + PLAIN, to="b@away.example")
            id = QueueId.parse(client.received.decode().split("Queued as ")[-1].split()[0])
            asked = self.mta.mta.agent.explainer.message(id)
            self.mta.advance(1)
            explained = self.successResultOf(asked)
            assert explained is not None
            tls = explained["recipients"][0]["way"]["targets"][0]["tls"]
            self.assertEqual((tls["level"], tls["from"]), level)

    def test_a_server_without_requiretls_is_passed_over(self) -> None:
        """RFC 8689 §4.2.1."""
        without = self.exchanger(*QUIT, announces="HELP")
        peer = self.exchanger(*self.taking("MAIL FROM:<ann@sender.example> REQUIRETLS"), number=2)
        self.require()
        self.assertPlayed(without, peer)

    def test_without_a_server_with_requiretls_it_is_returned(self) -> None:
        without = [self.exchanger(*QUIT, announces="HELP", number=number) for number in (1, 2)]
        self.require_and_be_refused("5.7.30")
        self.assertPlayed(*without)

    def test_a_server_that_is_down_defers_it(self) -> None:
        without = self.exchanger(*QUIT, announces="HELP")
        self.require()
        self.assertPlayed(without)
        peer = self.exchanger(*self.taking("MAIL FROM:<ann@sender.example> REQUIRETLS"), number=2)
        self.exchanger(*QUIT, announces="HELP")
        self.mta.advance(3600)
        self.mta.advance(10)
        self.assertPlayed(peer)

    def test_it_goes_to_no_server_whose_certificate_proves_nothing(self) -> None:
        for number in (1, 2):
            self.exchanger(number=number, name="other.example")
        self.require_and_be_refused("5.7.10")

    def test_it_never_goes_in_clear(self) -> None:
        for number in (1, 2):
            listen(self.mta.reactor, *announcing("REQUIRETLS"), *QUIT, address=f"192.0.2.{number}")
        self.require_and_be_refused("5.7.10")

    def test_it_goes_to_no_exchanger_that_nothing_proves(self) -> None:
        """RFC 8689 §2: DNSSEC or MTA-STS. No connection is made."""
        self.resolver.signed = ("sender.example", "mx3.away.example")
        self.require_and_be_refused("5.7.10")

    def test_the_hosts_of_a_route_and_the_domain_itself_need_no_proof(self) -> None:
        self.resolver.signed = ()
        self.mta.stop()
        routes = (("routed.example", "smtp://mx1.away.example"),)
        self.mta = self.begun(routes=routes)
        for domain in ("routed.example", "mx2.away.example"):
            number = 1 if domain == "routed.example" else 2
            mail = "MAIL FROM:<ann@sender.example> REQUIRETLS"
            peer = self.exchanger(*self.taking(mail, f"b@{domain}"), number=number)
            self.require(to=f"b@{domain}")
            self.assertPlayed(peer)

    def test_the_sender_goes_before_a_level_of_the_operator_that_is_lower(self) -> None:
        self.mta.stop()
        destination = Destination(domain="away.example", tls="none")
        self.mta = self.begun(destinations=(destination,))
        listen(self.mta.reactor, *announcing("STARTTLS"), *self.taking("MAIL FROM:<c@localhost>"))
        self.send(self.secured(self.mta), "c@localhost", to="b@away.example")
        self.mta.advance(10)
        for number in (1, 2):  # verified by the authorities of the system, which do not know ours
            self.exchanger(*QUIT[:1], number=number)
        self.require_and_be_refused("5.7.10")

    def test_a_connection_for_other_mail_is_not_used(self) -> None:
        plain = self.exchanger(
            *accepting("MAIL FROM:<c@localhost>", "b@away.example"), *QUIT, announces="HELP"
        )
        self.send(self.secured(self.mta), "c@localhost", to="b@away.example")
        self.mta.advance(1)
        peer = self.exchanger(*self.taking("MAIL FROM:<ann@sender.example> REQUIRETLS"))
        self.require()
        self.assertPlayed(plain, peer)

    def test_a_notice_goes_on_where_requiretls_is_not_offered(self) -> None:
        """RFC 8689 §5."""
        for number in (1, 2):
            self.exchanger(*QUIT, announces="HELP", number=number)
        mail = self.taking("MAIL FROM:<>", "ann@sender.example")
        notice = self.exchanger(*mail, announces="HELP", number=3)
        self.require()
        self.assertPlayed(notice)

    def test_a_notice_has_no_requiretls_for_a_server_that_proves_nothing(self) -> None:
        """RFC 8689 §2: the parameter is for verified servers alone."""
        for number in (1, 2):
            self.exchanger(*QUIT, announces="HELP", number=number)
        mail = self.taking("MAIL FROM:<>", "ann@sender.example")
        notice = self.exchanger(*mail, number=3, name="other.example")
        self.require()
        self.assertPlayed(notice)

    def test_a_notice_has_no_requiretls_for_an_exchanger_that_nothing_proves(self) -> None:
        """Its certificate is good, but its name comes from MX records without DNSSEC."""
        self.resolver.signed = ("away.example", "mx3.away.example")
        for number in (1, 2):
            self.exchanger(*QUIT, announces="HELP", number=number)
        notice = self.exchanger(*self.taking("MAIL FROM:<>", "ann@sender.example"), number=3)
        self.require()
        self.assertPlayed(notice)

    def test_members_of_an_alias_get_it_with_requiretls(self) -> None:
        self.mta.stop()
        file = os.path.join(os.path.dirname(self.authorities), "aliases")
        with open(file, "w", encoding="ascii") as opened:
            opened.write("team: b@away.example, bob@localhost\n")
        self.mta = self.begun(aliases=file)
        peer = self.exchanger(
            ("expect", re.compile(rb"MAIL FROM:<[^>]*> REQUIRETLS ?[^\r]*\r\n")),
            *self.taking("MAIL", "b@away.example")[1:],
        )
        self.require(to="team@localhost")
        self.assertPlayed(peer)
        self.assertEqual(len(self.mta.mail("bob")), 1)

    def test_dane_proves_a_server_that_no_authority_knows(self) -> None:
        fake = self_signed("mx")
        digest = fake.certificate.fingerprint(SHA256())
        self.resolver.tlsa_records["_25._tcp.mx1.away.example"] = [TLSA(3, 0, 1, digest)]
        peer = self.exchanger(
            *self.taking("MAIL FROM:<ann@sender.example> REQUIRETLS"), issued=fake
        )
        self.require()
        self.assertPlayed(peer)

    def test_tls_required_no_sets_aside_dane_that_is_at_fault(self) -> None:
        """RFC 8689 §3; other mail waits, and the next hop is suspended for it."""
        for number in (1, 2):
            name = f"_25._tcp.mx{number}.away.example"
            self.resolver.tlsa_records[name] = [TLSA(3, 1, 1, bytes(32))]
        refused = [self.exchanger(number=number) for number in (1, 2)]
        for peer in refused:
            del peer.script[6:]  # QUIT follows the handshake
            peer.script += QUIT
        client = self.secured(self.mta)
        self.send(client, "ann@sender.example", to="b@away.example")
        self.mta.advance(10)
        self.assertPlayed(*refused)
        mail = self.taking("MAIL FROM:<ann@sender.example>")
        peer = self.exchanger(*mail, announces="HELP")
        optional = b"TLS-Required: No\r\n" + PLAIN
        self.send(client, "ann@sender.example", content=optional, to="b@away.example")
        self.mta.advance(10)
        self.assertPlayed(peer)

    def test_lmtp_on_this_machine_gets_it_in_clear(self) -> None:
        """RFC 8689 §4.4: it is delivered, not relayed."""
        self.mta.stop()
        self.mta = self.begun(routes=(("stored.example", "lmtp://127.0.0.9:24"),))
        peer = listen(
            self.mta.reactor,
            *announcing("HELP", hello="LHLO"),
            *self.taking("MAIL FROM:<ann@sender.example>", "b@stored.example"),
            address="127.0.0.9",
            port=24,
        )
        self.require(to="b@stored.example")
        self.assertPlayed(peer)
