"""The contract of a store (`queue.store.contract`), as tests that every store has to pass."""

from __future__ import annotations

from attrs import evolve

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import UNKNOWN, Assessment, Verdict
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message, RefusedRecipient
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.queue.operator.operations import (
    FIRST,
    By,
    FindKnown,
    Group,
    Inspect,
    Intervene,
    Restore,
    Summarize,
)
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store.contract import (
    FAILURE_LIFE,
    Accept,
    Census,
    Forget,
    Lease,
    Leased,
    Overdue,
    Settle,
    StoreError,
    Want,
)

from ..mail import DEFERRED, FAILED, LIFETIME, NOW, deferred, message, numbers, settled
from .operator_conformance import OperatorConformance
from .priority_conformance import PriorityConformance
from .suspended_conformance import SuspendedConformance
from .webhook_conformance import WebhookConformance


def leased_numbers(leased: Leased) -> tuple[RecipientNumber, ...]:
    """Return the numbers of the recipients of the first message."""
    return tuple(each.number for each in leased.messages[0].envelope.recipients)


class StoreConformance(
    OperatorConformance, PriorityConformance, SuspendedConformance, WebhookConformance
):
    """The whole contract. A test case for a store says how the store is made (`StoreHarness`)."""

    # Messages.

    def test_a_message_comes_back_as_it_was_accepted(self) -> None:
        accepted = Message(
            id=QueueId(7),
            envelope=Envelope(
                Mailbox("Ann O'Nym", "sender.example"),
                (
                    Recipient(
                        RecipientNumber(0), Mailbox("bob", "next.example"), {"NOTIFY": "NEVER"}
                    ),
                    Recipient(
                        RecipientNumber(1),
                        Mailbox('o"dd \\ one', "[IPv6:2001:db8::1]"),
                        original=Mailbox("postmaster", ""),
                        reverse_path=Mailbox("SRS0=x=y=sender.example=ann", "mta.example"),
                        aliases=(
                            Mailbox("list", "mta.example"),
                            Mailbox('o"dd \\ d\u00f6rte', "mta.example"),
                        ),
                    ),
                ),
                {"BODY": "8BITMIME", "SMTPUTF8": None, "X": 1},
            ),
            trace=b"Received: from client.example\r\n\tby mta.example\r\n",
            body=MemoryBody(b"\x00\xff\r\n.\r\n"),
            received_at=NOW + 0.25,
            expires_at=NOW + LIFETIME,
            assessment=Assessment(
                (
                    Verdict("spf", "fail", 'ann@sender.example "\u00fc"'),
                    Verdict("dkim", "none"),
                ),
                "dmarc=fail (sender.example)",
                signs=True,
            ),
        )
        self.accept(accepted)
        self.restart()
        self.assertEqual(self.lease(NOW + 1).messages, (accepted,))

    def test_each_part_of_an_assessment_is_kept_by_itself(self) -> None:
        assessments = (
            UNKNOWN,
            Assessment((Verdict("spf", "pass", "sender.example"),)),
            Assessment(quarantine="spoofed"),
            Assessment(signs=True),
        )
        self.accept(
            *(
                evolve(message(id), assessment=assessment)
                for id, assessment in enumerate(assessments, start=1)
            )
        )
        self.restart()
        self.assertEqual(tuple(each.assessment for each in self.lease().messages), assessments)

    def test_an_operator_sees_the_assessment_of_a_message(self) -> None:
        assessment = Assessment((Verdict("spf", "pass", "sender.example"),), "spoofed")
        self.accept(evolve(message(1), assessment=assessment))
        (inspected,) = self.do(Inspect(QueueId(1)))
        assert inspected is not None
        self.assertEqual(inspected.message.assessment, assessment)

    def test_the_null_reverse_path_stays_null(self) -> None:
        self.accept(message(1, sender=None))
        self.assertIsNone(self.lease().messages[0].envelope.reverse_path)

    def test_a_postmaster_address_needs_no_domain(self) -> None:
        postmaster = Recipient(RecipientNumber(0), Mailbox("postmaster", ""))
        envelope = Envelope(Mailbox("postmaster", ""), (postmaster,))
        self.accept(Message(QueueId(1), envelope, b"", MemoryBody(b""), NOW, NOW + 1))
        self.assertEqual(self.lease().messages[0].envelope, envelope)

    def test_addresses_beyond_ascii_come_back(self) -> None:
        sent = message(1, "użytkownik@next.example", sender="πάτερ@sender.example")
        self.accept(sent)
        self.assertEqual(self.lease().messages[0].envelope, sent.envelope)

    def test_an_empty_body_is_a_body(self) -> None:
        self.accept(message(1, body=MemoryBody(b"")))
        self.restart()
        self.assertEqual(b"".join(self.lease().messages[0].body.chunks()), b"")

    def test_ids_of_63_bits_are_kept(self) -> None:
        self.accept(message(2**63 - 1))
        self.assertEqual(self.due(), [(2**63 - 1, [0])])

    def test_a_thousand_recipients_and_more_are_kept_in_their_order(self) -> None:
        many = message(1, *(f"user{number}@next.example" for number in range(1203)))
        self.accept(many)
        (leased,) = self.lease().messages
        self.assertEqual(leased.envelope, many.envelope)
        self.do(settled(leased))
        self.assertEqual(self.store.census().recipients, 0)

    def test_a_thousand_messages_in_one_batch_are_kept(self) -> None:
        self.accept(*(message(number) for number in range(1, 1204)))
        self.assertEqual(len(self.lease(limit=2000).messages), 1203)

    # Leases.

    def test_an_accepted_message_is_due_at_once(self) -> None:
        self.accept(message(1))
        self.assertEqual(self.due(), [(1, [0])])

    def test_an_accepted_message_can_be_leased_at_once(self) -> None:
        self.accept(message(1), lease=True)
        self.assertEqual(self.due(), [])

    def test_a_leased_recipient_is_not_leased_again(self) -> None:
        self.accept(message(1), message(2))
        self.assertEqual(self.due(), [(1, [0]), (2, [0])])
        self.assertEqual(self.due(), [])

    def test_two_leases_of_one_batch_lease_different_messages(self) -> None:
        self.accept(message(1), message(2))
        first, second = self.do(
            Lease(NOW, (Want("next.example", 1),)), Lease(NOW, (Want("next.example", 9),))
        )
        assert first is not None and second is not None
        self.assertEqual([each.id for each in (*first.messages, *second.messages)], [1, 2])

    def test_a_message_that_is_accepted_with_a_lease_is_not_leased_again_in_its_batch(self) -> None:
        lease = Lease(NOW, (Want("next.example", 9),))
        _, leased = self.do(Accept(message(1), lease=True), lease)
        assert leased is not None
        self.assertEqual(leased.messages, ())

    def test_leases_end_with_the_process(self) -> None:
        self.accept(message(1), lease=True)
        self.accept(message(2))
        self.due()
        self.restart()
        self.assertEqual(self.due(), [(1, [0]), (2, [0])])

    def test_a_store_that_is_opened_again_keeps_its_leases(self) -> None:
        self.accept(message(1), lease=True)
        self.accept(message(2))
        self.store.close()
        self.store.open()
        self.assertEqual(self.due(), [(2, [0])])

    def test_the_longest_due_message_is_leased_first(self) -> None:
        for id, until in ((1, NOW + 30), (2, NOW + 10), (3, NOW + 20)):
            self.accept(message(id), lease=True)
            self.do(deferred(message(id), until))
        first = self.lease(NOW + 60, limit=2)
        self.assertEqual(sorted(each.id for each in first.messages), [2, 3])
        self.assertEqual(self.due(NOW + 60), [(1, [0])])

    def test_a_lease_beyond_its_limit_leaves_the_rest_due(self) -> None:
        self.accept(*(message(id, received_at=NOW - 10 + id) for id in range(1, 6)))
        seen = []
        for rest in (NOW - 7, NOW - 5, None):
            leased = self.lease(limit=2)
            self.assertEqual(leased.rest, {"next.example": rest})
            seen += [int(each.id) for each in leased.messages]
        self.assertEqual(seen, [1, 2, 3, 4, 5])

    def test_leased_messages_hide_no_others(self) -> None:
        self.accept(*(message(id, received_at=NOW - 1) for id in range(11, 31)), lease=True)
        self.accept(*(message(id) for id in range(1, 5)))
        self.accept(*(message(id, received_at=NOW + 9) for id in range(31, 41)), lease=True)
        leased = self.lease(limit=2)
        self.assertEqual([int(each.id) for each in leased.messages], [1, 2])
        self.assertEqual(leased.rest, {"next.example": NOW})

    def test_a_lease_returns_the_next_due_time(self) -> None:
        self.accept(message(1), message(2), message(3), lease=True)
        self.assertEqual(self.lease(NOW, 100, "next.example").rest, {"next.example": None})
        self.do(deferred(message(1), NOW + 90), deferred(message(2), NOW + 60))
        self.assertEqual(self.lease(NOW).rest, {"next.example": NOW + 60})
        self.assertEqual(self.lease(NOW + 60).rest, {"next.example": NOW + 90})
        self.assertEqual(self.lease(NOW + 90).rest, {"next.example": None})

    def test_only_the_wanted_domains_are_leased(self) -> None:
        sent = message(1, "a@one.example", "b@two.example", "c@one.example")
        self.accept(sent, message(2, "a@two.example"), message(3, "a@three.example"))
        leased = self.lease(NOW, 100, "one.example", "three.example", "nobody.example")
        self.assertEqual(
            [(int(each.id), numbers(each)) for each in leased.messages], [(1, [0, 2]), (3, [0])]
        )
        self.assertEqual(
            leased.rest, {"one.example": None, "three.example": None, "nobody.example": None}
        )
        self.assertEqual(self.due(), [(1, [1]), (2, [0])])

    def test_companion_domains_are_leased_only_along_with_a_wanted_one(self) -> None:
        sent = message(1, "a@one.example", "b@two.example", "c@three.example")
        self.accept(sent, message(2, "a@two.example"))
        (leased,) = self.do(Lease(NOW, (Want("one.example", 9),), ("two.example",)))
        assert leased is not None
        self.assertEqual([(int(each.id), numbers(each)) for each in leased.messages], [(1, [0, 1])])
        self.assertEqual(self.due(), [(1, [2]), (2, [0])])

    def test_each_domain_has_a_limit_of_its_own(self) -> None:
        self.accept(*(message(id, f"a@{'xy'[id % 2]}.example") for id in range(1, 21)))
        (leased,) = self.do(Lease(NOW, (Want("x.example", 2), Want("y.example", 3))))
        assert leased is not None
        self.assertEqual([int(each.id) for each in leased.messages], [1, 2, 3, 4, 5])

    def test_a_lease_may_want_more_domains_than_one_statement_takes(self) -> None:
        self.accept(*(message(id, f"a@{id}.example") for id in range(1, 1203)))
        self.assertEqual(len(self.lease(limit=1).messages), 1202)

    def test_a_lease_can_be_limited_to_lower_ids(self) -> None:
        self.accept(*(message(id) for id in range(1, 6)))
        lease = Lease(NOW, (Want("next.example", 2, before=QueueId(4)),))
        first, second = self.do(lease, lease)
        assert first is not None and second is not None
        self.assertEqual([int(each.id) for each in first.messages], [1, 2])
        self.assertEqual([int(each.id) for each in second.messages], [3])
        self.assertEqual(first.rest, {"next.example": NOW})
        self.assertEqual(second.rest, {"next.example": None})

    def overdue(self, after: int, before: int) -> Leased:
        (leased,) = self.do(Overdue(QueueId(after), QueueId(before)))
        assert leased is not None
        return leased

    def test_old_recipients_are_leased_due_or_not_unless_their_sender_was_warned(self) -> None:
        self.accept(*(message(id, "a@x.example", "b@y.example") for id in range(1, 6)))
        self.accept(message(6, sender=None))
        self.do(
            Settle(message(3), warned=(RecipientNumber(0),)),
            deferred(message(4, "a@x.example"), NOW + 1000, 0),
        )
        leased = self.overdue(1, 7)
        self.assertEqual(
            [(int(each.id), numbers(each)) for each in leased.messages],
            [(2, [0, 1]), (3, [1]), (4, [0, 1]), (5, [0, 1])],
        )
        self.assertEqual((leased.rest, leased.through), ({}, None))
        self.assertEqual(self.overdue(0, 2).messages[0].id, 1)
        self.assertEqual(self.due(), [(3, [0]), (6, [0])])  # the others are leased
        self.do(Settle(message(2, "a@x.example", "b@y.example"), untried=leased_numbers(leased)))
        self.assertEqual(self.due(), [(2, [0, 1])])

    def test_a_warned_recipient_stays_warned_after_a_restart(self) -> None:
        self.accept(message(1))
        self.do(Settle(message(1), warned=(RecipientNumber(0),)))
        self.restart()
        (leased,) = self.lease().messages
        self.assertTrue(leased.envelope.recipients[0].warned)
        self.assertEqual(self.overdue(0, 2).messages, ())

    def test_many_old_recipients_are_leased_piece_by_piece(self) -> None:
        self.accept(*(message(id) for id in range(1, 2206)))
        after, ids = 0, []
        while True:
            leased = self.overdue(after, 2205)
            ids += [int(each.id) for each in leased.messages]
            if leased.through is None:
                break
            self.assertGreater(leased.through, after)
            after = leased.through
        self.assertEqual(ids, list(range(1, 2205)))

    def test_notices_that_come_with_a_message_are_due(self) -> None:
        self.do(Accept(message(1), True, (message(2, sender=None),)))
        self.restart()
        self.assertEqual(self.due(), [(1, [0]), (2, [0])])
        self.do(Accept(message(3), True, (message(4, sender=None),)))
        self.assertEqual(self.due(), [(4, [0])])

    def test_a_survey_names_each_domain_with_its_earliest_time(self) -> None:
        self.accept(message(1, "a@one.example", "b@two.example"), message(2, "c@one.example"))
        self.assertEqual(self.survey(), {"one.example": NOW, "two.example": NOW})
        for each in self.lease().messages:
            self.do(deferred(each, NOW + 60 * int(each.id)))
        self.assertEqual(self.survey(), {"one.example": NOW + 60, "two.example": NOW + 60})
        for each in self.lease(NOW + 60).messages:
            self.do(settled(each))
        self.assertEqual(self.survey(), {"one.example": NOW + 120})
        self.restart()
        self.assertEqual(self.survey(), {"one.example": NOW + 120})

    def test_a_survey_makes_due_what_a_wrong_clock_put_off(self) -> None:
        self.accept(message(1), message(2), message(3, "a@other.example"), lease=True)
        self.do(deferred(message(1), NOW + 86400), deferred(message(2), NOW + 60))
        self.do(deferred(message(3, "a@other.example"), NOW + 60))
        self.assertEqual(
            self.survey(NOW, NOW + 3600), {"next.example": NOW, "other.example": NOW + 60}
        )
        self.assertEqual(self.due(), [(1, [0])])

    def test_mail_is_due_earlier_by_as_much_as_the_clock_was_set_back(self) -> None:
        other = message(3, "a@other.example")
        self.accept(message(1), message(2), other, lease=True)
        self.do(deferred(message(1), NOW + 3600 + 60), deferred(message(2), NOW + 1000))
        self.do(deferred(other, NOW - 5))
        before = self.survey(NOW, set_back=3600)
        self.assertEqual(before, {"next.example": NOW, "other.example": NOW - 5})
        self.assertEqual(self.due(), [(2, [0]), (3, [0])])
        self.assertEqual(self.due(NOW + 59), [])
        self.assertEqual(self.due(NOW + 60), [(1, [0])])

    def test_an_untried_recipient_is_due_as_before(self) -> None:
        sent = message(1, "a@one.example", "b@one.example")
        self.accept(sent, lease=True)
        before = self.store.census()
        self.do(Settle(sent, untried=(RecipientNumber(1),)))
        (leased,) = self.lease().messages
        self.assertEqual((numbers(leased), leased.envelope.recipients[0].attempts), ([1], 0))
        self.assertEqual(self.store.census(), before)

    def test_a_message_with_more_recipients_than_the_limit_is_leased_whole(self) -> None:
        self.accept(message(1, *(f"u{number}@next.example" for number in range(20))), message(2))
        leased = self.lease(limit=1)
        self.assertEqual([len(numbers(each)) for each in leased.messages], [20])
        self.assertEqual(leased.rest, {"next.example": NOW})
        self.assertEqual(self.due(), [(2, [0])])

    # Settling.

    def test_recipients_of_one_message_are_settled_independently(self) -> None:
        sent = message(1, "a@one.example", "b@two.example", "c@three.example")
        self.accept(sent, lease=True)
        self.do(settled(sent, 1), deferred(sent, NOW + 60, 2))
        self.assertEqual(self.due(NOW + 60), [(1, [2])])
        self.do(deferred(sent, NOW + 90, 0))
        self.assertEqual(self.due(NOW + 90), [(1, [0])])
        self.restart()
        self.assertEqual(self.due(NOW + 90), [(1, [0, 2])])

    def test_a_deferred_recipient_keeps_its_attempts_and_last_reply(self) -> None:
        self.accept(message(1), lease=True)
        self.do(deferred(message(1), NOW + 60))
        (leased,) = self.lease(NOW + 60).messages
        (recipient,) = leased.envelope.recipients
        self.assertEqual(recipient.attempts, 1)
        self.assertEqual(recipient.last_reply, DEFERRED)
        self.assertEqual(recipient.last_remote, "mx.example[192.0.2.1]:25")
        self.do(deferred(leased, NOW + 180))
        (recipient,) = self.lease(NOW + 180).messages[0].envelope.recipients
        self.assertEqual(recipient.attempts, 2)

    def test_the_last_reply_is_kept_as_the_server_said_it(self) -> None:
        """A reply that counts as temporary has its ``5yz``; codes stay where they stood."""
        for number, (code, *lines) in enumerate(
            ((552, "5.5.3 Too many"), (450, "5.2.1 later"), (451, "see below", "4.7.1 grey")), 1
        ):
            reply = Reply.received(code, tuple(lines))
            accepted = message(number)
            self.accept(accepted, lease=True)
            settle = deferred(accepted, NOW + 60)
            [deferral] = settle.deferred
            outcome = evolve(deferral.outcome, reply=reply, temporary=True)
            self.do(evolve(settle, deferred=(evolve(deferral, outcome=outcome),)))
            last = self.lease(NOW + 60).messages[0].envelope.recipients[0].last_reply
            assert last is not None
            self.assertEqual((str(last), last.detail), (str(reply), reply.detail))
            self.assertEqual(str(last), " ".join([str(code), *lines]))

    def test_a_message_leaves_with_its_last_recipient(self) -> None:
        sent = message(1, "a@one.example", "b@two.example")
        self.accept(sent, lease=True)
        self.do(settled(sent, 0))
        self.assertEqual(self.store.census().messages, 1)
        self.do(settled(sent, 1))
        self.assertEqual(self.store.census().messages, 0)
        self.restart()
        self.assertEqual(self.store.census().messages, 0)

    def test_two_recipients_of_a_message_are_settled_in_one_batch(self) -> None:
        sent = message(1, "a@one.example", "b@two.example")
        self.accept(sent, lease=True)
        self.do(settled(sent, 0), settled(sent, 1))
        self.assertEqual(self.store.census().messages, 0)

    def test_a_settle_applied_twice_counts_once(self) -> None:
        sent = message(1, "a@one.example", "b@two.example", "c@three.example")
        self.accept(sent, message(2), lease=True)
        self.do(deferred(message(2), NOW + 60))
        for _ in range(2):
            self.do(settled(sent, 0), deferred(sent, NOW + 60, 1))
        census = self.store.census()
        self.assertEqual(
            (census.messages, census.recipients, census.deferred, census.leased), (2, 3, 2, 1)
        )
        first, second = self.lease(NOW + 60).messages
        self.assertEqual([each.attempts for each in first.envelope.recipients], [1])
        for _ in range(2):
            self.do(settled(first), settled(sent, 2))
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.deferred), (1, 1, 1))
        self.do(settled(first), settled(second))
        self.assertEqual(self.store.census(), Census())

    def test_a_notice_is_inserted_in_the_batch_that_removes_its_cause(self) -> None:
        notice = message(9, "ann@sender.example", sender=None)
        self.accept(message(1), lease=True)
        self.do(settled(message(1), notices=[notice]))
        self.assertEqual(self.due(), [], "the notice is leased to the caller")
        self.accept(message(2), lease=True)
        later = message(8, "ann@sender.example", sender=None)
        self.do(evolve(settled(message(2), notices=[later]), lease=False))
        self.assertEqual(self.due(), [(8, [0])])
        self.restart()
        self.assertEqual(self.lease().messages, (later, notice))

    def test_a_settle_applied_twice_inserts_its_notice_once(self) -> None:
        settle = settled(message(1), notices=[message(9, sender=None)])
        self.accept(message(1), lease=True)
        self.do(settle)
        self.do(settle)
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.leased), (1, 1, 1))

    def test_a_failure_that_no_notice_reports_leaves_a_record(self) -> None:
        lost = message(1, sender=None)
        self.accept(lost, lease=True)
        settle = Settle(
            lost,
            done=(RecipientNumber(0),),
            unreported=(Outcome(RecipientNumber(0), FAILED, "mx.example"),),
            at=NOW,
        )
        self.do(settle)
        self.do(settle)
        self.restart()
        census = self.store.census()
        self.assertEqual((census.messages, census.failures), (0, 1))

    def fail_silently(self, id: int, at: float) -> None:
        lost = message(id, sender=None, received_at=at)
        outcome = Outcome(RecipientNumber(0), FAILED, "mx.example")
        self.accept(lost, lease=True)
        self.do(Settle(lost, done=(RecipientNumber(0),), unreported=(outcome,), at=at))

    def test_a_record_of_a_failure_is_kept_for_thirty_days(self) -> None:
        self.fail_silently(1, NOW)
        self.survey(NOW + FAILURE_LIFE - 1)
        self.assertEqual(self.store.census().failures, 1)
        self.survey(NOW + FAILURE_LIFE + 1)
        self.assertEqual(self.store.census().failures, 0)
        self.restart()
        self.assertEqual(self.store.census().failures, 0)

    def test_a_new_failure_removes_records_whose_life_has_ended(self) -> None:
        self.fail_silently(1, NOW)
        self.fail_silently(2, NOW + FAILURE_LIFE + 1)
        self.assertEqual(self.store.census().failures, 1)

    def summary(self, by: By, selection: Selection, reach: int) -> dict[str, Group]:
        groups: dict[str, Group] = {}
        after: int | None = FIRST
        while after is not None:
            (part,) = self.do(Summarize(by, selection, after, reach))
            for name, group in part.groups.items():
                groups[name] = groups[name] + group if name in groups else group
            after = part.next
        return groups

    def test_recipients_are_counted_by_domain_sender_and_reason(self) -> None:
        first = message(1, "a@x.example", "b@x.example", "c@y.example")
        self.accept(first, message(2, "d@x.example", sender=None), lease=True)
        self.do(deferred(first, NOW + 60, 0), settled(message(3)))
        self.do(Intervene("hold", Selection(domain="y.example"), NOW))
        for reach in (1, 2, 2000):
            self.assertEqual(
                self.summary("domain", Selection(), reach),
                {
                    "x.example": Group(3, 2, 1, 0, QueueId(1)),
                    "y.example": Group(1, 1, 0, 1, QueueId(1)),
                },
            )
            self.assertEqual(
                self.summary("sender", Selection(), reach),
                {
                    "ann@sender.example": Group(3, 1, 1, 1, QueueId(1)),
                    "<>": Group(1, 1, 0, 0, QueueId(2)),
                },
            )
            self.assertEqual(
                {
                    name: each.recipients
                    for name, each in self.summary("reason", Selection(), reach).items()
                },
                {"451 4.4.1 unreachable": 1, "not tried yet": 2, "held": 1},
            )
            self.assertEqual(
                list(self.summary("domain", Selection(state="held"), reach)), ["y.example"]
            )

    def test_a_restored_recipient_is_not_restored_again_when_it_has_left(self) -> None:
        sent = message(1, "a@next.example", "b@next.example")
        restore = Restore(sent, (NOW + 5, None), (None, NOW), NOW)
        self.do(restore)
        self.do(restore)
        self.restart()
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.held), (1, 2, 1))
        self.assertEqual(self.due(NOW + 4), [])
        ((id, numbers),) = self.due(NOW + 5)
        self.assertEqual((id, numbers), (1, [0]))
        self.do(settled(sent, 0))
        self.do(restore)
        self.assertEqual(self.store.census().recipients, 1)
        (known,) = self.do(FindKnown(QueueId(1)))
        self.assertEqual(known.numbers, {0, 1})

    def test_imports_of_long_ago_are_forgotten_by_a_restore_that_sweeps(self) -> None:
        restores = [Restore(message(id), (NOW,), (None,), NOW + id * 86_400) for id in (1, 2)]
        self.do(*restores)
        self.lease(NOW)
        self.do(settled(message(1), 0), settled(message(2), 0))
        later = Restore(message(3), (NOW,), (None,), NOW + 31.5 * 86_400, sweep=True)
        self.do(later)
        known = self.do(*(FindKnown(QueueId(id)) for id in (1, 2, 3)))
        self.assertEqual([each.numbers for each in known], [set(), {0}, {0}])

    def test_the_failure_of_a_refused_recipient_leaves_a_record(self) -> None:
        gone = Recipient(RecipientNumber(1), Mailbox("gone", "mta.example"))
        taken = evolve(message(1), refused=(RefusedRecipient(gone, FAILED),))
        accept = Accept(taken, False, (message(2),), (Outcome(gone.number, FAILED),))
        self.do(accept)
        self.restart()
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.failures), (2, 2, 1))
        self.do(Forget((taken.id, QueueId(2))))
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.failures), (0, 0, 0))

    def test_replies_of_any_text_are_kept(self) -> None:
        reply = Reply.of(451, None, "'; DROP TABLE message; --\x00\r\n ü")
        self.accept(message(1), lease=True)
        outcome = deferred(message(1), NOW).deferred[0]
        self.do(
            Settle(
                message(1),
                deferred=(type(outcome)(Outcome(RecipientNumber(0), reply), NOW + 60),),
                at=NOW,
            )
        )
        (recipient,) = self.lease(NOW + 60).messages[0].envelope.recipients
        self.assertEqual(recipient.last_reply, reply)

    # Forgetting.

    def test_forgetting_removes_messages_and_ignores_unknown_ids(self) -> None:
        self.accept(message(1, "a@one.example", "b@two.example"), message(2))
        self.do(Forget((QueueId(1), QueueId(3))))
        self.assertEqual(self.due(), [(2, [0])])
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients), (1, 1))

    def test_a_forgotten_message_is_not_leased_in_its_batch(self) -> None:
        self.accept(message(1))
        lease = Lease(NOW, (Want("next.example", 9),))
        leased, _ = self.do(lease, Forget((QueueId(1),)))
        assert leased is not None
        self.assertEqual(leased.messages, ())

    # Counting.

    def test_the_census_counts_messages_recipients_deferrals_and_leases(self) -> None:
        sent = message(1, "a@one.example", "b@two.example")
        self.accept(sent, lease=True)
        self.accept(message(2))
        self.do(deferred(sent, NOW + 60, 1))
        census = self.store.census()
        self.assertEqual(
            (census.messages, census.recipients, census.deferred, census.leased), (2, 3, 1, 1)
        )

    def test_the_census_is_the_same_after_a_restart_but_for_leases(self) -> None:
        sent = message(1, "a@one.example", "b@two.example", "c@three.example")
        self.accept(sent, message(2))
        self.do(deferred(sent, NOW + 60, 1), settled(sent, 2))
        self.do(Forget((QueueId(2),)))
        before = self.store.census()
        self.restart()
        self.assertEqual(self.store.census(), before)

    # Large bodies.

    def test_a_large_body_is_kept_until_its_last_recipient_leaves(self) -> None:
        body = self.large_body(1, b"large " * 50_000)
        sent = message(1, "a@one.example", "b@two.example", body=body)
        self.accept(sent)
        (leased,) = self.lease().messages
        self.assertEqual(leased.body.size, 300_000)
        self.assertEqual(b"".join(leased.body.chunks()), b"large " * 50_000)
        self.do(settled(leased, 0))
        self.assertEqual(self.stored_bodies(), [str(QueueId(1))])
        self.do(settled(leased, 1))
        self.assertEqual(self.stored_bodies(), [])

    def test_forgetting_removes_the_large_body_with_or_without_a_row(self) -> None:
        self.accept(message(1, body=self.large_body(1, b"x" * 200)))
        self.large_body(2, b"y" * 200)
        self.do(Forget((QueueId(1), QueueId(2))))
        self.assertEqual(self.stored_bodies(), [])

    def test_a_file_that_cannot_be_removed_is_no_error(self) -> None:
        self.accept(message(1, body=self.large_body(1, b"x" * 200)), lease=True)
        self.files.fail_next("unlink", OSError(5, "no"))
        self.do(settled(message(1)))
        self.assertEqual(self.store.census().messages, 0)

    # A closed store, and an empty batch.

    def test_a_closed_store_raises_store_error(self) -> None:
        self.store.close()
        with self.assertRaises(StoreError):
            self.do(Lease(NOW, ()))

    def test_closing_twice_is_no_error(self) -> None:
        self.store.close()
        self.store.close()

    def test_an_empty_batch_is_no_error(self) -> None:
        self.assertEqual(self.do(), [])
