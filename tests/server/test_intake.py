"""The intake: relaying, local recipients, and mail that is known to fail."""

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply

from .intake import FRIEND, OWN, STRANGER, IntakeTestCase, Queue


class NoRelaying(IntakeTestCase):
    """A stranger can send to local mailboxes alone, however an address is written."""

    def test_no_spelling_of_a_foreign_address_is_accepted(self) -> None:
        session = self.begin(STRANGER)
        for spelling in (
            "<victim@ext.example>",
            "<victim@EXT.example.>",
            '<"victim"@ext.example>',
            "<@mx.example:victim@ext.example>",
            "<@mx.example,@other.example:victim@ext.example>",
            "<@[203.0.113.1]:victim@ext.example>",
            "<victim@[198.51.100.77]>",
            "<victim@[IPv6:2001:db8::1]>",
            "<victim@[IPv6:::1]>",
            "<victim@[127.0.0.1]>",
            "<victim@[IPv6:::ffff:203.0.113.1]>",
            "<victim@203.0.113.1>",
            "<victim@sub.mx.example>",
            "<victim@xmx.example>",
            "<victim@mx.example.ext.example>",
            "<postmaster@ext.example>",
            '<"victim@mx.example"@ext.example>',
            "<victim%mx.example@ext.example>",
            "<mx.example!victim@ext.example>",
            "<victim@localhost>",
        ):
            self.assertEqual(self.send(session, f"RCPT TO:{spelling}"), "550 5.7.1", spelling)
        assert session.transaction is not None
        self.assertEqual(session.transaction.recipients, [])

    def test_malformed_addresses_are_refused(self) -> None:
        session = self.begin(STRANGER)
        for spelling in (
            "<victim@ext.example@mx.example>",
            "<@mx.example:victim@ext.example@mx.example>",
            "<victim@>",
            "<victim>",
            "<@ext.example>",
            "<victim@ext.example,@mx.example>",
            "<victim@mx.example ext.example>",
            "<victim@ext.example\\@mx.example>",
            "<victim@mx.example>@ext.example",
            "<victim@[203.0.113.1].ext.example>",
            "victim@ext.example",
            '"victim"@ext.example',
            "<>",
        ):
            self.assertEqual(self.send(session, f"RCPT TO:{spelling}")[:3], "501", spelling)

    def test_a_local_part_that_looks_like_an_address_is_opaque(self) -> None:
        for existing, expected in ((None, "250 2.1.5"), ([], "550 5.1.1")):
            self.queue.existing = existing
            session = self.begin(STRANGER)
            for spelling, local_part in (
                ('"victim@ext.example"@mx.example', "victim@ext.example"),
                ("victim%ext.example@mx.example", "victim%ext.example"),
                ("ext.example!victim@mx.example", "ext.example!victim"),
                ('"<victim@ext.example>"@mx.example', "<victim@ext.example>"),
                ("@a.example,@b.example:victim%ext.example@mx.example", "victim%ext.example"),
            ):
                self.assertEqual(self.send(session, f"RCPT TO:<{spelling}>"), expected, spelling)
                assert session.transaction is not None
                if existing is None:
                    taken = session.transaction.recipients[-1].mailbox
                    self.assertEqual(taken, Mailbox(local_part, "mx.example"))
                else:
                    self.assertEqual(session.transaction.recipients, [])

    def test_clients_outside_the_relay_networks_may_not_relay(self) -> None:
        for peer in ("192.0.3.7", "::ffff:192.0.3.7", "2001:db8::1", "::2", "fe80::1%eth0"):
            self.assertEqual(
                self.send(self.begin(peer), "RCPT TO:<v@ext.example>"), "550 5.7.1", peer
            )

    def test_clients_in_the_relay_networks_may_relay(self) -> None:
        for peer in (FRIEND, "::ffff:192.0.2.7", "::1", None):
            session = self.begin(peer)
            self.assertEqual(self.send(session, "RCPT TO:<v@ext.example>"), "250 2.1.5", peer)
            self.assertEqual(self.send(session, "RCPT TO:<v@[198.51.100.77]>"), "250 2.1.5", peer)

    def test_a_relaying_client_may_not_send_to_a_missing_local_mailbox(self) -> None:
        self.queue.existing = []
        self.assertEqual(self.send(self.begin(FRIEND), "RCPT TO:<v@mx.example>"), "550 5.1.1")


class LocalRecipients(IntakeTestCase):
    def recipients(
        self, *spellings: str, peer: str = STRANGER, local_address: str = OWN
    ) -> list[str]:
        session = self.begin(peer, hostname=local_address)
        for spelling in spellings:
            self.assertEqual(self.send(session, f"RCPT TO:{spelling}"), "250 2.1.5", spelling)
        self.assertEqual(self.content(session, b"x").code, 250)
        return [str(each.mailbox) for each in self.queue.messages[-1].envelope.recipients]

    def test_every_spelling_of_a_local_address_is_one_mailbox(self) -> None:
        spellings = (
            "<u@mx.example>",
            "<u@MX.EXAMPLE.>",
            '<"u"@mx.example>',
            '<"\\u"@mx.example>',
            "<@anywhere.example:u@mx.example>",
            "<u@[203.0.113.1]>",
        )
        for spelling in spellings:
            self.assertEqual(self.recipients(spelling), ["u@mx.example"], spelling)
        # Named several times, it has one copy.
        self.assertEqual(self.recipients(*spellings, "<U@mx.example>"), ["u@mx.example"])

    def test_a_domain_may_be_written_with_u_labels(self) -> None:
        self.assertEqual(self.recipients("<u@XN--BCHER-KVA.example>"), ["u@xn--bcher-kva.example"])

    def test_our_own_ipv6_literal_is_a_local_domain(self) -> None:
        came = self.recipients("<u@[IPv6:2001:DB8:0::5]>", local_address="2001:db8::5")
        self.assertEqual(came, ["u@mx.example"])

    def test_postmaster_exists_and_without_a_domain_is_that_of_the_first_domain(self) -> None:
        # RFC 5321 §4.1.1.3, §4.5.1
        self.queue.existing = []
        came = self.recipients(
            "<postmaster>",
            "<POSTMASTER>",
            "<Postmaster@xn--bcher-kva.example>",
            "<postmaster@[203.0.113.1]>",
        )
        self.assertEqual(
            came,
            ["postmaster@mx.example", "Postmaster@xn--bcher-kva.example"],
        )


class KnownFailures(IntakeTestCase):
    """Mail that is known to fail is refused at once, since a bounce may go to a forged sender."""

    def test_a_recipient_whose_route_is_an_error_is_refused_with_its_reply(self) -> None:
        gone = Reply.of(550, "1.6", "Moved away")
        self.intake = self.queue.intake()
        self.intake._refusal = lambda mailbox: gone if mailbox.local_part == "old" else None
        session = self.begin(FRIEND)
        self.assertEqual(self.send(session, "RCPT TO:<old@mx.example>"), "550 5.1.6")
        self.assertEqual(self.send(session, "RCPT TO:<old@ext.example>"), "550 5.1.6")
        self.assertEqual(self.send(session, "RCPT TO:<new@mx.example>"), "250 2.1.5")

    def test_a_unix_socket_may_relay_where_loopback_may(self) -> None:
        session = self.begin(None)
        self.assertEqual(self.send(session, "RCPT TO:<x@ext.example>"), "250 2.1.5")
        self.intake = Queue().intake_for("192.0.2.0/24")
        session = self.begin(None)
        self.assertEqual(self.send(session, "RCPT TO:<x@ext.example>"), "550 5.7.1")
