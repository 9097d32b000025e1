"""The recipients of a message: aliases expanded at RCPT, missing members, loops and copies."""

from __future__ import annotations

import time

from tests.logs import logged_lines
from tests.processor_time import collect_nothing
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.final_recipient import FinalRecipient
from twisted_mta.mail.message import Message
from twisted_mta.mail.reply import Reply

from .intake import FRIEND, NO_SUCH, STRANGER, IntakeTestCase


class Aliases(IntakeTestCase):
    """An alias is expanded at RCPT; the stored recipient keeps the address as written."""

    def alias(self, mailbox: str, *targets: str, reverse_path: Mailbox | None = None) -> None:
        self.queue.aliases[mailbox] = [
            FinalRecipient(Mailbox.parse(each), reverse_path) for each in targets
        ]

    def miss(self, mailbox: str, target: str) -> None:
        found = self.queue.aliases[mailbox]
        assert isinstance(found, list)
        found.append(FinalRecipient(Mailbox.parse(target), refusal=NO_SUCH))

    def stored(self, *forward_paths: str, peer: str = STRANGER) -> Message:
        session = self.begin(peer)
        for each in forward_paths:
            self.assertEqual(self.send(session, f"RCPT TO:{each}"), "250 2.1.5", each)
        self.assertEqual(self.content(session, b"x").code, 250)
        return self.queue.messages[-1]

    def test_the_envelope_has_the_members_and_the_address_as_written(self) -> None:
        self.alias("all@mx.example", "a@mx.example", "b@ext.example")
        envelope = self.stored("<ALL@MX.example>".lower(), "<c@mx.example>").envelope
        found = [(each.number, str(each.mailbox), each.original) for each in envelope.recipients]
        written = Mailbox("all", "mx.example")
        self.assertEqual(
            found,
            [
                (0, "a@mx.example", written),
                (1, "b@ext.example", written),
                (2, "c@mx.example", None),
            ],
        )

    def test_the_original_address_keeps_its_spelling(self) -> None:
        self.alias("u@mx.example", "a@mx.example")
        (found,) = self.stored("<u@[203.0.113.1]>").envelope.recipients
        self.assertEqual(found.original, Mailbox("u", "[203.0.113.1]"))

    def test_a_forwarding_reverse_path_is_the_recipients_and_not_the_envelopes(self) -> None:
        ours = Mailbox("SRS0=x", "mx.example")
        self.alias("u@mx.example", "b@ext.example", reverse_path=ours)
        envelope = self.stored("<u@mx.example>").envelope
        self.assertEqual(envelope.reverse_path, Mailbox("a", "sender.example"))
        self.assertEqual([each.reverse_path for each in envelope.recipients], [ours])
        self.assertEqual(self.queue.expanded, [("u@mx.example", "a@sender.example")])

    def test_a_mailbox_that_is_reached_twice_gets_one_copy(self) -> None:
        self.alias("one@mx.example", "a@mx.example", "b@ext.example")
        self.alias("two@mx.example", "b@ext.example", "A@mx.example", "B@ext.example")
        paths = "<one@mx.example>", "<two@mx.example>", "<a@mx.example>"
        found = [str(each.mailbox) for each in self.stored(*paths).envelope.recipients]
        # Case is ignored in local mailboxes alone.
        self.assertEqual(found, ["a@mx.example", "b@ext.example", "B@ext.example"])

    def test_the_trace_field_names_the_address_as_written_and_no_member(self) -> None:
        # RFC 5321 §7.2
        self.alias("u@mx.example", "secret@ext.example")
        trace = self.stored("<u@mx.example>").trace
        self.assertIn(b"for <u@mx.example>;", trace)
        self.assertNotIn(b"secret", trace)
        self.alias("u@mx.example", "a@mx.example")
        self.assertNotIn(b"for <", self.stored("<u@mx.example>", "<a@mx.example>").trace)

    def test_the_refusal_of_an_expansion_is_the_reply(self) -> None:
        self.queue.aliases["u@mx.example"] = Reply.of(451, "3.5", "Loop")
        self.assertEqual(self.send(self.begin(FRIEND), "RCPT TO:<u@mx.example>"), "451 4.3.5")

    def test_missing_members_do_not_keep_the_mail_from_the_others(self) -> None:
        written = Mailbox("v", "mx.example")
        self.alias("v@mx.example", "a@mx.example", "b@ext.example")
        self.miss("v@mx.example", "gone@mx.example")
        message = self.stored("<v@mx.example>", "<c@mx.example>")
        self.assertEqual(
            [(each.number, str(each.mailbox)) for each in message.envelope.recipients],
            [(0, "a@mx.example"), (1, "b@ext.example"), (2, "c@mx.example")],
        )
        (refused,) = message.refused
        self.assertEqual(str(refused.reply), str(NO_SUCH))
        self.assertEqual((refused.recipient.number, refused.recipient.original), (3, written))
        self.assertEqual(str(refused.recipient.mailbox), "gone@mx.example")

    def test_refused_recipients_alone_are_logged(self) -> None:
        lines = logged_lines(self, "refused ")
        self.queue.existing = [Mailbox("u", "mx.example")]
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<u@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "550 5.1.1")
        (line,) = lines
        self.assertIn("refused v@mx.example from <a@sender.example>, client 198.51.100.9", line)

    def test_a_loop_is_detected_however_the_domain_of_the_alias_is_written(self) -> None:
        alias = Mailbox("u", "xn--bcher-kva.example")
        self.queue.aliases[str(alias)] = [
            FinalRecipient(Mailbox("a", "mx.example"), aliases=(alias,))
        ]
        for domain in ("xn--bcher-kva.example", "b\u00fccher.example", "XN--BCHER-KVA.Example."):
            session = self.begin(STRANGER)
            self.send(session, f"RCPT TO:<{alias}>")
            field = f"Delivered-To: <u@{domain}>\r\n\r\nx"
            self.assertEqual(self.content(session, field.encode()).enhanced, "5.4.6", domain)
            self.assertEqual(self.queue.discarded, 1)
            self.queue.discarded = 0

    def test_a_loop_through_the_longest_path_outside_ascii_is_detected(self) -> None:
        """RFC 5321 §4.5.3.1.3 gives a path 256 octets; longer text in a field is not read."""
        for length, code in ((254, 554), (255, 554), (256, 250)):  # a space is in front of it
            local_part = "\u00e9".ljust(length - 1 - len("@mx.example"), "x")
            alias = Mailbox(local_part, "mx.example")
            self.queue.aliases["u@mx.example"] = [
                FinalRecipient(Mailbox("a", "mx.example"), aliases=(alias,))
            ]
            session = self.begin(STRANGER)
            self.send(session, "RCPT TO:<u@mx.example>")
            field = f"Delivered-To: {alias}\r\n\r\nx"
            self.assertEqual(self.content(session, field.encode()).code, code, length)

    def test_hostile_delivered_to_fields_cost_little_time(self) -> None:
        self.alias("u@mx.example", "a@mx.example")
        for domain in ("\u00fc" * 30 + "{}." + "\u00f6" * 40 + ".example", "mx.example"):
            fields = "".join(
                f"Delivered-To: {number}@{domain.format(number)}\r\n" for number in range(2000)
            )
            session = self.begin(STRANGER)
            self.send(session, "RCPT TO:<u@mx.example>")
            collect_nothing(self)
            before = time.process_time()
            self.assertEqual(self.content(session, fields.encode() + b"\r\nx").code, 250)
            self.assertLess(time.process_time() - before, 0.05)

    def test_a_missing_member_of_several_aliases_is_refused_once(self) -> None:
        for name in ("v", "w"):
            self.alias(f"{name}@mx.example", "a@mx.example")
            self.miss(f"{name}@mx.example", "gone@mx.example")
        self.assertEqual(len(self.stored("<v@mx.example>", "<w@mx.example>").refused), 1)

    def test_with_missing_members_refuse_the_whole_list_is_refused(self) -> None:
        self.intake = self.queue.intake(missing_members="refuse")
        self.alias("v@mx.example", "a@mx.example")
        self.miss("v@mx.example", "gone@mx.example")
        self.alias("postmaster@mx.example", "a@mx.example")
        self.miss("postmaster@mx.example", "gone@mx.example")
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "550 5.1.1")
        (found,) = self.stored("<postmaster>").envelope.recipients
        self.assertEqual(str(found.mailbox), "postmaster@mx.example")

    def test_postmaster_is_accepted_even_if_its_alias_leads_nowhere(self) -> None:
        # RFC 5321 §4.5.1
        self.queue.existing = []
        self.queue.aliases["postmaster@mx.example"] = NO_SUCH
        self.queue.aliases["postmaster@xn--bcher-kva.example"] = Reply.of(451, "3.5", "Loop")
        for path in ("<postmaster>", "<postmaster@xn--bcher-kva.example>"):
            (found,) = self.stored(path).envelope.recipients
            self.assertEqual(str(found.mailbox), "postmaster@mx.example")

    def test_foreign_addresses_are_not_expanded(self) -> None:
        self.alias("u@ext.example", "a@mx.example")
        (found,) = self.stored("<u@ext.example>", peer=FRIEND).envelope.recipients
        self.assertEqual(str(found.mailbox), "u@ext.example")
        self.assertEqual(self.queue.expanded, [])

    def test_an_alias_does_not_allow_its_senders_to_relay_to_its_members(self) -> None:
        self.alias("u@mx.example", "b@ext.example")
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<u@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<b@ext.example>"), "550 5.7.1")

    def test_too_many_final_recipients_are_refused_with_452_4_5_3(self) -> None:
        # RFC 5321 §4.5.3.1.10: the client sends to the others again.
        for name in "uvw":
            targets = (f"{name}{number}@ext.example" for number in range(4_000))
            self.alias(f"{name}@mx.example", *targets)
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<u@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<w@mx.example>"), "452 4.5.3")
        self.assertEqual(self.content(session, b"x").code, 250)
        self.assertEqual(len(self.queue.messages[-1].envelope.recipients), 8_000)
        self.send(session, "MAIL FROM:<a@sender.example>")
        self.assertEqual(self.send(session, "RCPT TO:<w@mx.example>"), "250 2.1.5")

    def test_a_changed_alias_does_not_change_an_accepted_recipient(self) -> None:
        self.alias("u@mx.example", "old@mx.example")
        session = self.begin(STRANGER)
        self.send(session, "RCPT TO:<u@mx.example>")
        self.alias("u@mx.example", "new@mx.example")
        self.content(session, b"x")
        (found,) = self.queue.messages[-1].envelope.recipients
        self.assertEqual(str(found.mailbox), "old@mx.example")

    def test_a_changed_alias_holds_for_the_next_transaction(self) -> None:
        session = self.begin_session(STRANGER)
        for name, end in (("old", "RSET"), ("new", "DATA"), ("newest", "DATA")):
            self.alias("u@mx.example", f"{name}@mx.example")
            self.send(session, "MAIL FROM:<a@sender.example>")
            self.send(session, "RCPT TO:<u@mx.example>")
            if end == "RSET":
                self.send(session, end)
                continue
            self.content(session, b"x")
            (found,) = self.queue.messages[-1].envelope.recipients
            self.assertEqual(str(found.mailbox), f"{name}@mx.example")

    def test_expansions_are_kept_until_the_content_begins(self) -> None:
        session = self.begin(STRANGER)
        self.send(session, "RCPT TO:<u@mx.example>")
        transaction = session.transaction
        assert transaction is not None
        self.assertEqual(transaction.expansions.count, 1)
        self.intake.begin(session)
        self.assertEqual(transaction.expansions.count, 0)
