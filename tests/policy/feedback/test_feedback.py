"""Ids of feedback, the fields that ask for it, and the reports on disk."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.policy.feedback.feedback_id import FeedbackIds, Reported
from twisted_mta.policy.feedback.fields import FeedbackTerms, feedback_fields
from twisted_mta.policy.feedback.file import KEPT, AccountReports, CountedReport, FeedbackFile

ID = QueueId(123_456_789)


class Ids(SynchronousTestCase):
    def setUp(self) -> None:
        self.ids = FeedbackIds(b"k" * 32)

    def test_an_id_tells_account_and_message_to_the_owner_of_the_key_alone(self) -> None:
        id = self.ids.make(ID, "newsletter")
        self.assertRegex(id, r"\A[A-Za-z0-9_-]{40,60}\Z")
        self.assertNotIn("newsletter", id)
        self.assertEqual(self.ids.read(id), Reported(ID, "newsletter"))
        self.assertIsNone(FeedbackIds(b"x" * 32).read(id))

    def test_a_long_account_is_cut_between_characters(self) -> None:
        told = self.ids.read(self.ids.make(ID, "\xe9" * 75 + "x"))
        self.assertEqual(told and told.account, "\xe9" * 50)

    def test_no_octet_of_an_id_can_be_changed(self) -> None:
        id = self.ids.make(ID, "ann")
        for place, letter in enumerate(id[:-1]):
            changed = id[:place] + ("B" if letter == "A" else "A") + id[place + 1 :]
            self.assertIsNone(self.ids.read(changed), place)

    @given(st.text(max_size=50) | st.text("aAzZ09_-=", max_size=50))
    def test_other_texts_are_no_ids(self, text: str) -> None:
        self.assertIsNone(self.ids.read(text))

    def test_a_text_that_is_too_long_is_none(self) -> None:
        self.assertIsNone(self.ids.read("A" * 1_000_000))


class Fields(SynchronousTestCase):
    def fields(self, header: str, address: str = "fbl@us.test", *domains: str) -> str:
        terms = FeedbackTerms(Mailbox.parse(address), frozenset(domains or ("us.test",)))
        octets = header.replace("\n", "\r\n").encode()
        return feedback_fields(octets, terms, lambda: "id").decode()

    def test_mail_of_the_domain_of_the_address_or_a_parent_of_it_asks(self) -> None:
        for address in ("fbl@us.test", "fbl@mail.us.test"):
            self.assertEqual(
                self.fields("From: ann@us.test\n", address),
                f"CFBL-Address: {address}; report=arf\r\nCFBL-Feedback-ID: id\r\n",
            )

    def test_no_other_mail_asks(self) -> None:
        for header, address, domain in (
            ("From: ann@mail.us.test\n", "fbl@us.test", "us.test"),
            ("From: ann@other.test\n", "fbl@us.test", "other.test"),
            ("From: ann@us.test\n", "fbl@us.test", "other.test"),
            ("From: ann@us.test\n", "fbl@notus.test", "us.test"),
            ("From: ann@us.test, bob@x.test\n", "fbl@us.test", "us.test"),
            ("Subject: x\n", "fbl@us.test", "us.test"),
        ):
            self.assertEqual(self.fields(header, address, domain), "", (header, address))

    def test_fields_of_users_are_left_alone(self) -> None:
        for name in ("CFBL-Address", "cfbl-feedback-id"):
            self.assertEqual(self.fields(f"From: ann@us.test\n{name}: x\n"), "")


class Files(TidyTestCase):
    def setUp(self) -> None:
        directory = os.path.abspath(self.mktemp())
        os.makedirs(directory)
        self.file = FeedbackFile(os.path.join(directory, "feedback", "file.sqlite"), most=5)

    def add(self, at: float, account: str = "ann", kind: str = "abuse", id: str = "") -> bool:
        report = CountedReport(at, account, str(ID), kind, "provider.test")
        return self.file.add(report, id or f"<{at}@x>")

    def test_reports_are_counted_by_account_once_each(self) -> None:
        self.assertTrue(self.add(1.0, id="<a@x>"))
        self.assertFalse(self.add(2.0, id="<a@x>"))
        self.assertTrue(self.add(3.0))
        self.assertTrue(self.add(4.0, "bob"))
        self.assertTrue(self.add(5.0, "bob", "not-spam"))
        expected = [AccountReports("ann", 2, 1.0, 3.0), AccountReports("bob", 1, 4.0, 4.0)]
        self.assertEqual(self.file.accounts(0.0, 10), expected)
        self.assertEqual([each.at for each in self.file.last("bob", 10)], [5.0, 4.0])
        self.assertEqual([each.at for each in self.file.last(None, 2)], [5.0, 4.0])

    def test_they_are_bounded_in_number_and_time(self) -> None:
        for at in range(20):
            self.add(float(at))
        self.assertEqual([each.at for each in self.file.last(None, 99)], [19, 18, 17, 16, 15])
        self.add(17.5 + KEPT)
        self.assertEqual([each.at for each in self.file.last(None, 99)], [17.5 + KEPT, 19, 18])
