"""Who is told what of the outcomes of an attempt (RFC 3461 §5.2)."""

from __future__ import annotations

import email
from collections.abc import Iterator, Sequence
from email.message import Message as ParsedMessage

from attrs import evolve

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.queue.runner import RunnerSettings
from twisted_mta.queue.store.contract import StoreError

from .mail import DEFERRED, DELIVERED, FAILED, message
from .running import RunnerTestCase, route

POSTMASTER = Mailbox("postmaster", "mta.example")


def asking(sent: Message, *notify: str, **parameters: str) -> Message:
    """Return a message whose recipients ask for that, one each."""
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

    def told(self) -> list[list[tuple[str, str]]]:
        """Return (final recipient, action) of all notices in the queue."""
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

    def to_whom(self) -> list[str]:
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

    def test_a_next_hop_without_dsn_is_told_of_as_relayed(self) -> None:
        """RFC 3461 §5.2.2."""
        self.deliver_one(asking(message(1), "SUCCESS,FAILURE"))
        self.assertEqual(self.told(), [[("bob@next.example", "relayed")]])
        self.assertEqual(self.noticed, ["relayed"])

    def test_a_next_hop_with_dsn_tells_itself(self) -> None:
        """RFC 3461 §5.2.1."""
        self.deliver_one(asking(message(1), "SUCCESS,FAILURE"), notifies=True)
        self.assertDone()

    def test_what_is_in_a_mailbox_is_delivered(self) -> None:
        """RFC 3461 §5.2.3."""
        self.deliver_one(asking(message(1, "bob@here.example"), "SUCCESS"))
        self.assertEqual(self.told(), [[("bob@here.example", "delivered")]])

    def test_so_is_what_an_lmtp_server_took(self) -> None:
        self.route = lambda mailbox: (
            NextHop("lmtp", domain="here") if mailbox.domain == "next.example" else route(mailbox)
        )
        self.deliver_one(asking(message(1), "SUCCESS"))
        self.assertEqual(self.told(), [[("bob@next.example", "delivered")]])

    def test_only_those_are_named_who_asked(self) -> None:
        sent = message(1, "a@next.example", "b@next.example", "c@next.example")
        self.deliver_one(asking(sent, "SUCCESS", "FAILURE", "NEVER"))
        self.assertEqual(self.told(), [[("a@next.example", "relayed")]])

    def test_nobody_asked(self) -> None:
        self.deliver_one(message(1))
        self.assertDone()

    def test_what_is_discarded_is_told_of_to_nobody(self) -> None:
        self.deliver_one(asking(message(1, "bob@discarded.example"), "SUCCESS"))
        self.assertDone()

    def test_the_null_reverse_path_hears_nothing(self) -> None:
        self.deliver_one(asking(message(1, sender=None), "SUCCESS"))
        self.assertDone()

    def test_only_the_header_comes_back_whatever_was_asked(self) -> None:
        """RFC 3461 §4.3: RET is about failures."""
        self.deliver_one(asking(message(1), "SUCCESS", RET="FULL"))
        (notice,) = self.notices()
        assert isinstance(notice.body, MemoryBody)
        self.assertIn(b"text/rfc822-headers", notice.body.content)
        self.assertNotIn(b"Hello.\r\n", notice.body.content)

    def test_it_names_what_the_sender_named(self) -> None:
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

    def test_a_lost_answer_of_the_store_makes_no_second_notice(self) -> None:
        self.accept(asking(message(1), "SUCCESS"))
        self.store.fail_next(StoreError("the answer was lost"), durable=True)
        self.answer(DELIVERED)
        self.settle(120)
        self.flushLoggedErrors(StoreError)
        self.assertEqual(self.told(), [[("bob@next.example", "relayed")]])
        self.assertEqual(self.noticed, ["relayed"])


class Failure(NoticeTestCase):
    def test_who_does_not_want_to_hear_of_it_does_not_and_a_record_is_kept(self) -> None:
        """RFC 3461 §5.2.6."""
        sent = message(1, "a@next.example", "b@next.example", "c@next.example")
        self.accept(asking(sent, "FAILURE", "NEVER", "SUCCESS,DELAY"))
        self.answer(FAILED)
        self.assertEqual(self.told(), [[("a@next.example", "failed")]])
        self.assertEqual(list(self.store.failures), [(1, 1), (1, 2)])

    def test_ret_says_how_much_comes_back(self) -> None:
        for id, ret, expected in ((1, "FULL", b"message/rfc822"), (2, "HDRS", b"text/rfc822-hea")):
            sent = message(id)
            self.accept(evolve(sent, envelope=evolve(sent.envelope, parameters={"RET": ret})))
            self.answer(FAILED)
            notice = self.notices()[-1]
            assert isinstance(notice.body, MemoryBody)
            self.assertIn(expected, notice.body.content)
            self.answer(DELIVERED)

    def test_failures_and_successes_of_one_attempt_are_told_apart(self) -> None:
        sent = message(1, "a@next.example", "b@next.example")
        self.accept(asking(sent, "SUCCESS", "FAILURE"))
        self.answer(DELIVERED, FAILED)
        self.assertEqual(
            self.told(), [[("b@next.example", "failed")], [("a@next.example", "relayed")]]
        )
        self.assertEqual(self.noticed, ["failed", "relayed"])
        self.answer(DELIVERED)
        self.assertDone()

    def test_of_a_notice_nobody_is_told_anything(self) -> None:
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


class BouncesOfBounces(NoticeTestCase):
    postmaster = POSTMASTER

    def expand(self, mailbox: Mailbox) -> Sequence[Recipient]:
        return [Recipient(RecipientNumber(0), Mailbox("op", "next.example"), original=mailbox)]

    def test_postmaster_gets_what_has_no_sender(self) -> None:
        self.accept(message(1, sender=None))
        self.answer(FAILED)
        self.assertEqual(self.to_whom(), ["postmaster@mta.example"])
        self.assertEqual(self.store.failures, {})
        (notice,) = self.notices()
        assert isinstance(notice.body, MemoryBody)
        self.assertIn(b"\r\nSubject: Notice that could not be delivered\r\n", notice.body.content)
        self.assertIn(b"bounce_postmaster", notice.body.content)

    def test_what_postmaster_cannot_get_ends_there(self) -> None:
        self.accept(message(1, sender=None))
        self.answer(FAILED)
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.assertEqual(len(self.store.failures), 1)

    def test_also_where_an_alias_leads_on(self) -> None:
        self.recipients_of = self.expand
        self.accept(message(1, sender=None))
        self.answer(FAILED)
        self.assertEqual(self.to_whom(), ["op@next.example"])
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.assertEqual(len(self.store.failures), 1)

    def test_what_it_is_about_is_read_once_however_many_fail(self) -> None:
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

    def test_delays_and_successes_are_not_for_postmaster(self) -> None:
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

    def test_it_is_told_with_the_commit_that_takes_the_message(self) -> None:
        self.accept(self.sent())
        self.assertEqual(self.told(), [[("list@mta.example", "expanded")]])
        self.assertEqual(self.noticed, ["expanded"])
        self.answer(DELIVERED)
        self.answer(DELIVERED)
        self.assertDone()

    def test_what_is_not_taken_is_not_told_of(self) -> None:
        for durable in (False, True):
            self.store.fail_next(StoreError("the disk is broken"), durable=durable)
            self.failureResultOf(self.accepting(self.sent()))
            self.settle(10)
            self.flushLoggedErrors(StoreError)
            self.assertEqual(self.noticed, [])
            self.assertDone()
