"""Submission: own addresses, and fields added to a message."""

from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.auth.account_addresses import AccountAddresses
from twisted_mta.auth.accounts import Account, Accounts
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.policy.missing_fields import missing_fields
from twisted_mta.policy.submission import (
    HEADER_SENDER_NOT_ALLOWED,
    SENDER_NOT_ALLOWED,
    Submission,
    SubmissionPolicy,
)
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings


class SubmissionTestCase(TidyTestCase):
    def setUp(self) -> None:
        ann = Account("ann", addresses=("sales@example.com",))
        senders = AccountAddresses(Accounts({"ann": ann}), ("example.net",))
        self.submission = Submission(may_send_as=senders.may_send_as, address_of=senders.address_of)
        self.session = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        self.session.identity = "ann"

    def added(self, header: str, **policy: Any) -> Any:
        octets = header.replace("\n", "\r\n").encode()
        added = self.submission.header(SubmissionPolicy(**policy), "ann", octets)
        return added.decode().replace("\r\n", "\n") if isinstance(added, bytes) else added


class Envelopes(SubmissionTestCase):
    def decide(self, address: str | None, **policy: Any) -> Any:
        mailbox = None if address is None else Mailbox.parse(address)
        return self.submission.mail(SubmissionPolicy(**policy), self.session, mailbox)

    def test_an_account_may_send_as_its_own_addresses_alone(self) -> None:
        self.assertIsNone(self.decide("ann@example.net"))
        self.assertIsNone(self.decide("sales@example.com"))
        self.assertEqual(self.decide("bob@example.net"), SENDER_NOT_ALLOWED)
        self.assertIsNone(self.decide("bob@example.net", own_addresses="off"))
        self.assertEqual(self.decide("bob@example.net", own_addresses="header"), SENDER_NOT_ALLOWED)

    def test_every_account_may_use_the_null_reverse_path(self) -> None:
        self.assertIsNone(self.decide(None))

    def test_clients_without_authentication_are_not_restricted(self) -> None:
        self.session.identity = None
        self.assertIsNone(self.decide("bob@example.net"))


class Authors(SubmissionTestCase):
    def test_an_account_is_the_author_where_every_address_in_from_is_its_own(self) -> None:
        for header in (
            "From: ann@example.net\r\n",
            "from: Sales <SALES@example.com>, ann+x@example.net\r\nSender: bob@example.net\r\n",
        ):
            self.assertTrue(self.submission.is_author("ann", header.encode()), header)
        for header in (
            "",
            "Sender: ann@example.net\r\n",
            "From: bob@example.net\r\n",
            "From: ann@example.org\r\n",
            "From: ann@example.net, bob@example.net\r\n",
            "From: ann@example.net\r\nFrom: bob@example.net\r\n",
            "From: bob@example.net <ann@example.net>\r\n",
            "From: ann@example.net\rFrom: bob@example.net\r\n",
            "From: ann@example.net (unclosed\r\n",
            "From: \r\n",
        ):
            self.assertFalse(self.submission.is_author("ann", header.encode()), header)
        self.assertFalse(self.submission.is_author("bob", b"From: ann@example.net\r\n"))


class Headers(SubmissionTestCase):
    def test_missing_date_and_message_id_are_added(self) -> None:
        date = "Date: Thu, 01 Jan 1970 00:00:00 +0000\n".replace(" 01 ", " 1 ")
        identifier = f"Message-ID: <{QueueId(32)}@mx.example>\n"
        for header, added in (
            ("Subject: x\n", date + identifier),
            ("message-id : <x@y>\n", date),
            ("DATE: today\n", identifier),
            ("X-Date: today\nX: y\n Message-ID: <x@y>\n", date + identifier),
            ("Subject: x\nDate: today\nMessage-ID: <x@y>\n", ""),
            ("", date + identifier),
        ):
            self.assertEqual(self.completed(header), added, header)

    def test_a_field_that_a_dkim_signature_covers_is_not_added(self) -> None:
        date = "Date: Thu, 1 Jan 1970 00:00:00 +0000\n"
        identifier = f"Message-ID: <{QueueId(32)}@mx.example>\n"
        signature = "DKIM-Signature: v=1; d=a.example; bh=date; h={}; b=x\n"
        for names, added in (
            ("From:Date:Message-ID", ""),
            ("From : date :\n Subject", identifier),
            ("from:message-id", date),
            ("from:subject", date + identifier),
        ):
            self.assertEqual(self.completed(signature.format(names)), added, names)
        two = signature.format("from:date") + signature.format("from:message-id")
        self.assertEqual(self.completed(two), "")
        self.assertEqual(self.completed("DKIM-Signature: h\n"), date + identifier)

    def completed(self, header: str) -> str:
        octets = header.replace("\n", "\r\n").encode()
        added = missing_fields(octets, id=QueueId(32), hostname="mx.example", time=0.0)
        return added.decode().replace("\r\n", "\n")

    def test_with_own_addresses_header_from_and_sender_have_to_be_the_accounts_own(self) -> None:
        for header, refused in (
            ("From: ann@example.net\n", False),
            ("From: Ann <ANN+x@example.net>, Sales <sales@example.com>\n", False),
            ("From: bob@example.net\n", True),
            ("From: ann@example.net, bob@example.net\n", True),
            ("From: ann@example.net\nFrom: bob@example.net\n", True),
            ("From: ann@example.net\nSender: bob@example.net\n", True),
            ("From: Ann <ann@example.net> <bob@example.net>\n", True),
            ('From: "ann@example.net" <bob@example.net>\n', True),
            ("From: ann\n", True),
            ("From:\n", True),
            # What a mail client could read in another way is unreadable.
            ("From: ann@example.net (, bob@example.net\n", True),
            ("From: ann@example.net (\\), bob@example.net\n", True),
            ("From: ann@example.net), bob@example.net\n", True),
            ('From: "ann@example.net, bob@example.net\n', True),
            ('From: ann@example.net "\n', True),
            ("From: <ann@example.net, bob\n", True),
            ("From: ann@example.net>\n", True),
            ("From: ann@example.net; bob@example.net\n", True),
            ("From: ann@example.net bob@example.net\n", True),
            ("From: bob@example.net <ann@example.net>\n", True),
            ("From: Bob@Home <ann@example.net>\n", True),
            ("From: bob@example.net\\, ann@example.net\n", True),
            ("From: ann@example.net\\\n", True),
            ("From: @example.org:ann@example.net\n", True),
            ("From: Bob: bob@example.net;, ann@example.net\n", True),
            ("From: ann@example.net\nFrom :bob@example.net\n", True),
            ("From: ann@example.net\nSubject: x\rFrom: bob@example.net\n", True),
            ("From: ann@example.net (Ann (at \\) home))\n", False),
            ('From: "Bob \\" (" <ann@example.net>\n', False),
            ('From: "bob@example.net" <ann@example.net>\n', False),
            ("From: Ann (bob@example.net) <ann@example.net>\n", False),
            ("From: =?utf-8?q?Ann?= <ann@example.net>\n", False),
            ("From: Us: ann@example.net, sales@example.com;\n", False),
            ("Subject: x\n", True),
        ):
            expected = HEADER_SENDER_NOT_ALLOWED if refused else ""
            self.assertEqual(self.added(header, own_addresses="header"), expected, header)
            self.assertEqual(self.added(header), "", header)

    def test_unreadable_or_excessive_addresses_are_not_the_accounts_own(self) -> None:
        own = "ann@example.net, "
        for value in (
            "(" * 3000,
            ":" * 3000,
            "g:" * 2000,
            own + "(" * 3000,
            ", ".join(f"ann+{number}@example.net" for number in range(101)),
            "\n ".join([own * 60] * 5) + "ann@example.net",
            "\n".join(["ann@example.net"] + ["From: ann@example.net"] * 10),
        ):
            header = f"From: {value}\n"
            self.assertEqual(
                self.added(header, own_addresses="header"), HEADER_SENDER_NOT_ALLOWED, value[:50]
            )
            added = "Sender: <ann@example.net>\n"
            self.assertEqual(self.added(header, adds_sender=True), added, value[:50])
        header = f"From: {own * 200}ann@example.net\n" + "X: y\n" * 10_000
        self.assertEqual(self.added(header, own_addresses="header"), "")

    def test_a_sender_field_with_the_accounts_address_is_added(self) -> None:
        sender = "Sender: <ann@example.net>\n"
        for header, added in (
            ("From: bob@example.net\n", sender),
            ("From: ann@example.net, bob@example.net\n", sender),
            ("From: sales@example.com\n", ""),
            ("From: bob@example.net\nSender: eve@example.net\n", ""),
        ):
            self.assertEqual(self.added(header, adds_sender=True), added, header)
