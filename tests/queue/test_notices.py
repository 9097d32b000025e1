"""The notices that outcomes cause, and to whom they go (RFC 3461 §5.2)."""

from __future__ import annotations

import email
from collections.abc import Iterator, Sequence
from email.message import Message as ParsedMessage

from attrs import evolve

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment, Verdict
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Recipient, RecipientNumber
from twisted_mta.mail.message import Message, RefusedRecipient
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.queue.runner import RunnerSettings
from twisted_mta.queue.store.contract import StoreError

from .mail import DEFERRED, DELIVERED, FAILED, message
from .running import RunnerTestCase, route

POSTMASTER = Mailbox("postmaster", "mta.example")


def asking(sent: Message, *notify: str, **parameters: str) -> Message:
    """Return a message with a NOTIFY parameter for each recipient."""
    recipients = tuple(
        evolve(recipient, parameters={"NOTIFY": each})
        for recipient, each in zip(sent.envelope.recipients, notify, strict=True)
    )
    return evolve(
        sent, envelope=evolve(sent.envelope, recipients=recipients, parameters=parameters)
    )


class NoticeTestCase(RunnerTestCase):
    postmaster: Mailbox | None = None

    def begin(self, start: bool = True) -> None:
        self.noticed: list[str] = []
        self.notice_made = self.noticed.append
        super().begin(start)

    def settings(self) -> RunnerSettings:
        return evolve(super().settings(), postmaster=self.postmaster)

    def reported(self) -> list[list[tuple[str, str]]]:
        """Return the final recipient and action of each block of the notices in the queue."""
        return [
            [
                (block["Final-Recipient"].partition("; ")[2], block["Action"])
                for block in self.blocks(notice)[1:]
            ]
            for notice in self.notices()
        ]

    def blocks(self, notice: Message) -> Sequence[ParsedMessage]:
        assert isinstance(notice.body, MemoryBody)
        _, status, *_ = email.message_from_bytes(notice.body.content).get_payload()
        assert isinstance(status, ParsedMessage)
        blocks = status.get_payload()
        assert isinstance(blocks, list)
        return blocks  # type: ignore[return-value]

    def readers(self) -> list[str]:
        return [
            str(recipient.mailbox)
            for notice in self.notices()
            for recipient in notice.envelope.recipients
        ]


class Success(NoticeTestCase):
    def deliver_one(self, sent: Message, *, notifies: bool = False) -> None:
        self.accept(sent)
        attempts, self.attempts = self.attempts, []
        for attempt in attempts:
            attempt.done.callback(
                [
                    Outcome(
                        recipient.number, DELIVERED, "mx.example[192.0.2.1]:25", notifies=notifies
                    )
                    for recipient in attempt.message.envelope.recipients
                ]
            )
        self.settle()

    def test_a_success_at_a_next_hop_without_dsn_is_reported_as_relayed(self) -> None:
        """RFC 3461 §5.2.2."""
        self.deliver_one(asking(message(1), "SUCCESS,FAILURE"))
        self.assertEqual(self.reported(), [[("bob@next.example", "relayed")]])
        self.assertEqual(self.noticed, ["relayed"])

    def test_a_success_at_a_next_hop_with_dsn_is_not_reported(self) -> None:
        """RFC 3461 §5.2.1."""
        self.deliver_one(asking(message(1), "SUCCESS,FAILURE"), notifies=True)
        self.assertDone()

    def test_a_success_in_a_maildir_is_reported_as_delivered(self) -> None:
        """RFC 3461 §5.2.3."""
        self.deliver_one(asking(message(1, "bob@here.example"), "SUCCESS"))
        self.assertEqual(self.reported(), [[("bob@here.example", "delivered")]])

    def test_a_success_at_an_lmtp_server_is_reported_as_delivered(self) -> None:
        self.route = lambda mailbox: (
            NextHop("lmtp", domain="here") if mailbox.domain == "next.example" else route(mailbox)
        )
        self.deliver_one(asking(message(1), "SUCCESS"))
        self.assertEqual(self.reported(), [[("bob@next.example", "delivered")]])

    def test_a_success_notice_names_only_recipients_with_notify_success(self) -> None:
        sent = message(1, "a@next.example", "b@next.example", "c@next.example")
        self.deliver_one(asking(sent, "SUCCESS", "FAILURE", "NEVER"))
        self.assertEqual(self.reported(), [[("a@next.example", "relayed")]])

    def test_without_notify_success_no_success_is_reported(self) -> None:
        self.deliver_one(message(1))
        self.assertDone()

    def test_discarded_mail_is_not_reported(self) -> None:
        self.deliver_one(asking(message(1, "bob@discarded.example"), "SUCCESS"))
        self.assertDone()

    def test_successes_of_mail_without_a_sender_are_not_reported(self) -> None:
        self.deliver_one(asking(message(1, sender=None), "SUCCESS"))
        self.assertDone()

    def test_a_success_notice_returns_only_the_header(self) -> None:
        """RFC 3461 §4.3: RET is about failures."""
        self.deliver_one(asking(message(1), "SUCCESS", RET="FULL"))
        (notice,) = self.notices()
        assert isinstance(notice.body, MemoryBody)
        self.assertIn(b"text/rfc822-headers", notice.body.content)
        self.assertNotIn(b"Hello.\r\n", notice.body.content)

    def test_a_notice_names_the_original_recipient(self) -> None:
        """RFC 3461 §6.3."""
        sent = asking(message(1), "SUCCESS", ENVID="QQ+2B1")
        (bob,) = sent.envelope.recipients
        bob = evolve(bob, parameters={"NOTIFY": "SUCCESS", "ORCPT": "rfc822;Bob+2Bx@old.example"})
        self.deliver_one(sent.for_recipients((bob,)))
        (notice,) = self.notices()
        first, second = self.blocks(notice)
        self.assertEqual(first["Original-Envelope-Id"], "QQ+1")
        self.assertEqual(second["Original-Recipient"], "rfc822; Bob+x@old.example")
        self.assertEqual(second["Status"], "2.0.0")

    def test_a_settle_that_is_applied_twice_makes_one_notice(self) -> None:
        self.accept(asking(message(1), "SUCCESS"))
        self.store.fail_next(StoreError("the answer was lost"), durable=True)
        self.answer(DELIVERED)
        self.settle(120)
        self.flushLoggedErrors(StoreError)
        self.assertEqual(self.reported(), [[("bob@next.example", "relayed")]])
        self.assertEqual(self.noticed, ["relayed"])


class Failure(NoticeTestCase):
    def test_a_failure_that_notify_excludes_leaves_a_record(self) -> None:
        """RFC 3461 §5.2.6."""
        sent = message(1, "a@next.example", "b@next.example", "c@next.example")
        self.accept(asking(sent, "FAILURE", "NEVER", "SUCCESS,DELAY"))
        self.answer(FAILED)
        self.assertEqual(self.reported(), [[("a@next.example", "failed")]])
        self.assertEqual(list(self.store.failures), [(1, 1), (1, 2)])

    def test_ret_decides_how_much_of_the_message_a_failure_notice_returns(self) -> None:
        for id, ret, expected in ((1, "FULL", b"message/rfc822"), (2, "HDRS", b"text/rfc822-hea")):
            sent = message(id)
            self.accept(evolve(sent, envelope=evolve(sent.envelope, parameters={"RET": ret})))
            self.answer(FAILED)
            notice = self.notices()[-1]
            assert isinstance(notice.body, MemoryBody)
            self.assertIn(expected, notice.body.content)
            self.answer(DELIVERED)

    def test_failures_and_successes_of_one_attempt_have_notices_of_their_own(self) -> None:
        sent = message(1, "a@next.example", "b@next.example")
        self.accept(asking(sent, "SUCCESS", "FAILURE"))
        self.answer(DELIVERED, FAILED)
        self.assertEqual(
            self.reported(), [[("b@next.example", "failed")], [("a@next.example", "relayed")]]
        )
        self.assertEqual(self.noticed, ["failed", "relayed"])
        self.answer(DELIVERED)
        self.assertDone()

    def test_the_failure_of_a_notice_is_not_reported(self) -> None:
        """RFC 3461 §6.1."""
        self.accept(message(1))
        self.answer(FAILED)
        (notice,) = self.notices()
        self.assertEqual(
            [each.parameters for each in notice.envelope.recipients], [{"NOTIFY": "NEVER"}]
        )
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.assertEqual(list(self.store.failures), [(notice.id, 0)])


class DoubtfulSenders(NoticeTestCase):
    """Mail in quarantine: a notice could go to a person whose address was forged."""

    def found(self, result: str | None, quarantine: str = "spoofed") -> Message:
        verdicts = [Verdict("spf", "pass", "smtp.helo=client.example")]
        if result is not None:
            verdicts.append(Verdict("spf", result, "smtp.mailfrom=ann@sender.example"))
        return evolve(message(1), assessment=Assessment(tuple(verdicts), quarantine))

    def test_a_failure_leaves_a_record_and_no_notice(self) -> None:
        self.accept(self.found("fail"))
        self.answer(FAILED)
        self.assertEqual((self.notices(), list(self.store.failures)), ([], [(1, 0)]))

    def test_a_success_is_not_reported(self) -> None:
        self.accept(asking(self.found("none"), "SUCCESS"))
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_delay_is_not_reported(self) -> None:
        self.accept(self.found("softfail"))
        self.answer(DEFERRED)
        self.runner.update(evolve(self.settings(), delay_warning=60.0))
        self.settle(3600)
        self.answer(DEFERRED)
        self.assertEqual(self.notices(), [])

    def test_a_sender_that_spf_has_found_genuine_gets_its_notice(self) -> None:
        self.accept(self.found("pass"))
        self.answer(FAILED)
        self.assertEqual(self.readers(), ["ann@sender.example"])

    def test_a_user_gets_notices_about_mail_in_quarantine(self) -> None:
        self.accept(self.found(None))
        self.answer(FAILED)
        self.assertEqual(self.readers(), ["ann@sender.example"])

    def test_mail_that_is_not_in_quarantine_gets_notices_whatever_spf_says(self) -> None:
        self.accept(self.found("fail", ""))
        self.answer(FAILED)
        self.assertEqual(self.readers(), ["ann@sender.example"])


class BouncesOfBounces(NoticeTestCase):
    postmaster = POSTMASTER

    def expand(self, mailbox: Mailbox) -> Sequence[Recipient]:
        return [Recipient(RecipientNumber(0), Mailbox("op", "next.example"), original=mailbox)]

    def test_the_failure_of_mail_without_a_sender_is_reported_to_postmaster(self) -> None:
        self.accept(message(1, sender=None))
        self.answer(FAILED)
        self.assertEqual(self.readers(), ["postmaster@mta.example"])
        self.assertEqual(self.store.failures, {})
        (notice,) = self.notices()
        assert isinstance(notice.body, MemoryBody)
        self.assertIn(b"\r\nSubject: Notice that could not be delivered\r\n", notice.body.content)
        self.assertIn(b"bounce_postmaster", notice.body.content)

    def test_the_failure_of_mail_to_postmaster_is_not_reported(self) -> None:
        self.accept(message(1, sender=None))
        self.answer(FAILED)
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.assertEqual(len(self.store.failures), 1)

    def test_the_failure_of_mail_to_an_alias_of_postmaster_is_not_reported(self) -> None:
        self.recipients_of = self.expand
        self.accept(message(1, sender=None))
        self.answer(FAILED)
        self.assertEqual(self.readers(), ["op@next.example"])
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.assertEqual(len(self.store.failures), 1)

    def test_a_failed_message_is_read_once_for_all_its_recipients(self) -> None:
        read: list[bytes] = []

        class Watched(MemoryBody):
            def chunks(self) -> Iterator[bytes]:
                read.append(self.content)
                return super().chunks()

        addresses = [f"a{number}@next.example" for number in range(50)]
        body = Watched(b"To: postmaster@elsewhere.example\r\n\r\n")
        self.accept(evolve(message(1, *addresses, sender=None), body=body))
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.assertEqual(len(self.store.failures), 50)
        self.assertEqual(len(read), 1)

    def test_delays_and_successes_are_not_reported_to_postmaster(self) -> None:
        self.accept(asking(message(1, sender=None), "SUCCESS,FAILURE,DELAY"))
        self.answer(DEFERRED)
        self.settle(400)
        self.answer(DELIVERED)
        self.assertDone()


class Expanded(NoticeTestCase):
    """RFC 3461 §5.2.7.3."""

    def sent(self) -> Message:
        alias = Recipient(RecipientNumber(0), Mailbox("list", "mta.example"), {"NOTIFY": "SUCCESS"})
        return evolve(message(1, "a@next.example", "b@next.example"), expanded=(alias,))

    def test_an_expansion_is_reported_in_the_commit_of_the_message(self) -> None:
        self.accept(self.sent())
        self.assertEqual(self.reported(), [[("list@mta.example", "expanded")]])
        self.assertEqual(self.noticed, ["expanded"])
        self.answer(DELIVERED)
        self.answer(DELIVERED)
        self.assertDone()

    def test_an_expansion_of_a_refused_message_is_not_reported(self) -> None:
        for durable in (False, True):
            self.store.fail_next(StoreError("the disk is broken"), durable=durable)
            self.failureResultOf(self.accepting(self.sent()))
            self.settle(10)
            self.flushLoggedErrors(StoreError)
            self.assertEqual(self.noticed, [])
            self.assertDone()


class Unattempted(NoticeTestCase):
    """RFC 3464 §2.3.7: Last-Attempt-Date is of attempts to relay or deliver."""

    def test_a_notice_about_a_recipient_that_was_not_tried_has_no_date_of_an_attempt(self) -> None:
        gone = Recipient(RecipientNumber(1), Mailbox("gone", "mta.example"))
        of_list = Recipient(RecipientNumber(2), Mailbox("left", "mta.example"))
        owner = Mailbox("owner-list", "mta.example")
        refused = (
            RefusedRecipient(gone, FAILED),
            RefusedRecipient(of_list, FAILED, owner),
        )
        alias = Recipient(RecipientNumber(3), Mailbox("list", "mta.example"), {"NOTIFY": "SUCCESS"})
        self.accept(evolve(message(1), refused=refused, expanded=(alias,)))
        blocks = [block for notice in self.notices() for block in self.blocks(notice)[1:]]
        self.assertEqual(
            sorted((block["Action"], block["Last-Attempt-Date"]) for block in blocks),
            [("expanded", None), ("failed", None), ("failed", None)],
        )
        self.answer(FAILED)
        (block,) = [
            block
            for notice in self.notices()
            for block in self.blocks(notice)[1:]
            if block["Last-Attempt-Date"] is not None
        ]
        self.assertEqual(block["Action"], "failed")
