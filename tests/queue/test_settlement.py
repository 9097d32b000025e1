"""The log line of a delivery, its notices, and recipients that were tried together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent

from tests.logs import logged_events
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_facts import TLSFacts

from .mail import DEFERRED, DELIVERED, FAILED, message
from .running import RunnerTestCase


class LogLine(RunnerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.events = logged_events(self, lambda event: "delays" in event)

    def lines(self) -> list[str]:
        return [formatEvent(each) for each in self.events]

    def event(self) -> LogEvent:
        (event,) = self.events
        return event

    def test_the_line_of_a_delivery_has_all_its_fields(self) -> None:
        self.accept(message(1))
        self.answer(DELIVERED)
        self.assertEqual(
            self.lines(),
            [
                "0000000000001 delivered: from=<ann@sender.example> to=<bob@next.example>"
                " relay=mx.example[192.0.2.1]:25 delay=0.00 delays=0.00/0.00/0.00/0.00 attempt=1"
                ' reply="250 2.0.0 OK"'
            ],
        )

    def test_without_a_reply_the_line_names_the_next_hop_as_relay(self) -> None:
        self.accept(message(1))
        self.unreachable()
        (line,) = self.lines()
        self.assertIn(" deferred: ", line)
        self.assertIn(" relay=smtp:next.example ", line)
        self.assertRegex(line, r" next_attempt_in=(2[789]\d|3[012]\d)$")

    def test_the_line_divides_the_delay_into_stages(self) -> None:
        first = Deferred[Any]()
        self.deliver = lambda next_hop, message: first
        self.per_hop = 1
        self.begin(start=False)
        self.runner.accept(message(1))
        self.runner.accept(message(2))
        self.settle(7)  # in the store
        self.runner.start()
        self.settle()
        self.settle(2)  # in memory, behind the other
        self.deliver = self.wait_for_answer
        first.callback([Outcome(message(1).envelope.recipients[0].number, DELIVERED, "mx")])
        self.settle()
        self.clock.advance(1.5)
        self.events.clear()
        (attempt,) = self.attempts
        number = attempt.message.envelope.recipients[0].number
        attempt.done.callback([Outcome(number, DELIVERED, "mx", setup=0.5)])
        event = self.event()
        self.assertEqual(event["delays"], "7.00/2.00/0.50/1.00")
        self.assertEqual(event["stages"], (7.0, 2.0, 0.5, 1.0))
        self.assertEqual(event["delay"], 10.5)

    def test_a_wall_clock_set_back_makes_no_negative_stages(self) -> None:
        self.accept(message(1))
        self.step -= 1000
        self.answer(DELIVERED)
        self.assertEqual(self.event()["stages"], (0.0, 0.0, 0.0, 0.0))

    def test_each_value_is_a_field_of_the_event(self) -> None:
        self.accept(message(1, sender=None))
        (attempt,) = self.attempts
        tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
        number = attempt.message.envelope.recipients[0].number
        attempt.done.callback([Outcome(number, DEFERRED, "mx.example[192.0.2.1]:25", tls)])
        event = self.event()
        self.assertEqual(
            {key: event[key] for key in ("status", "sender", "recipient", "next_hop", "remote")},
            {
                "status": "deferred",
                "sender": "",
                "recipient": "bob@next.example",
                "next_hop": "smtp:next.example",
                "remote": "mx.example[192.0.2.1]:25",
            },
        )
        self.assertEqual((event["attempts"], event["orig_to"]), (1, None))
        self.assertEqual(event["reply"], "451 4.4.1 Come back later")
        self.assertEqual(event["tls"], "TLSv1.3 TLS_AES_256_GCM_SHA384, 256 bits")
        self.assertTrue(270 <= event["next_attempt"] - self.wall_time() <= 330)

    def test_the_line_of_an_aliased_recipient_names_the_original(self) -> None:
        sent = message(1)
        forwarded = evolve(
            sent.envelope.recipients[0],
            original=Mailbox("list", "mta.example"),
            reverse_path=Mailbox("SRS0=x", "mta.example"),
        )
        self.accept(sent.for_recipients((forwarded,)))
        self.answer(DELIVERED)
        (line,) = self.lines()
        self.assertIn(
            " from=<SRS0=x@mta.example> to=<bob@next.example> orig_to=<list@mta.example> ", line
        )

    def test_the_line_names_the_tls_version(self) -> None:
        self.accept(message(1))
        (attempt,) = self.attempts
        number = attempt.message.envelope.recipients[0].number
        tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
        attempt.done.callback([Outcome(number, DELIVERED, "mx.example[192.0.2.1]:25", tls)])
        self.assertIn(" relay=mx.example[192.0.2.1]:25 tls=TLSv1.3 delay=", self.lines()[0])

    def test_the_tls_of_a_delivery_speaks_of_the_certificate_of_the_server(self) -> None:
        self.accept(message(1))
        (attempt,) = self.attempts
        number = attempt.message.envelope.recipients[0].number
        tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, peer_fingerprint="ab")
        attempt.done.callback([Outcome(number, DELIVERED, "mx.example[192.0.2.1]:25", tls)])
        self.assertIn("bits, server certificate not verified", self.event()["tls"])

    def test_the_json_of_the_event_has_each_value_once(self) -> None:
        """Fields that only the line needs have names that JSON leaves out (`logs`)."""
        self.accept(message(1))
        self.answer(DEFERRED)
        for name in ("original", "quoted", "again"):
            self.assertNotIn(name, self.event())

    def test_text_of_a_peer_makes_no_other_line_or_field(self) -> None:
        self.accept(message(1, "łódź@next.example"))
        (attempt,) = self.attempts
        number = attempt.message.envelope.recipients[0].number
        said = Reply.of(550, None, 'no" status=delivered\r\n0000000000001 delivered: \x1b[31m')
        attempt.done.callback([Outcome(number, said, "mx\n[x]:25")])
        line = self.lines()[0]
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isascii() and line.isprintable())
        self.assertIn(r'reply="550 no\" status=delivered\r\n', line)

    def test_each_recipient_has_a_line_even_if_it_is_discarded(self) -> None:
        self.accept(message(1, "a@next.example", "b@next.example", "c@discarded.example"))
        self.answer(DELIVERED, FAILED)
        self.assertEqual(
            [line.split()[1] for line in self.lines()], ["discarded:", "delivered:", "failed:"]
        )


class Notices(RunnerTestCase):
    def expand(self, mailbox: Mailbox) -> Sequence[Recipient]:
        if mailbox.local_part == "broken":
            raise OSError("no such file")
        return [
            Recipient(RecipientNumber(number), Mailbox(name, "next.example"), original=mailbox)
            for number, name in enumerate(("carol", "dave"))
        ]

    def begin(self, start: bool = True) -> None:
        self.noticed: list[str] = []
        self.recipients_of = self.expand
        self.notice_made = self.noticed.append
        super().begin(start)

    def notified(self, message: Message) -> list[str]:
        """Let a message fail; return the recipients of its notice."""
        self.accept(message)
        self.answer(FAILED)
        return [
            str(recipient.mailbox)
            for notice in self.notices()
            for recipient in notice.envelope.recipients
        ]

    def test_a_notice_goes_where_the_aliases_of_the_sender_lead(self) -> None:
        self.assertEqual(self.notified(message(1)), ["carol@next.example", "dave@next.example"])
        (notice,) = self.notices()
        assert isinstance(notice.body, MemoryBody)
        self.assertIn(b"\r\nTo: <ann@sender.example>\r\n", notice.body.content)
        self.assertEqual(self.under_way(), [("next.example", [0, 1])])
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_notice_goes_to_the_sender_itself_where_its_aliases_are_unknown(self) -> None:
        self.assertEqual(
            self.notified(message(1, sender="broken@here.example")), ["broken@here.example"]
        )
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_each_notice_is_counted_when_it_is_in_the_queue(self) -> None:
        self.notified(message(1, "a@next.example", "b@next.example"))
        self.assertEqual(self.noticed, ["failed"])
        self.answer(FAILED)  # the notice itself: nobody is told
        self.assertEqual(self.noticed, ["failed"])
        self.assertDone()


class Together(RunnerTestCase):
    def test_recipients_deferred_together_are_tried_again_together(self) -> None:
        self.accept(message(1, *(f"u{number}@next.example" for number in range(20))))
        self.answer(DEFERRED)
        times = self.store.next_attempts(message(1).id).values()
        self.assertEqual((len(times), len(frozenset(times))), (20, 1))
        self.settle(340)
        self.assertEqual([len(numbers) for _, numbers in self.under_way()], [20])

    def test_a_deferred_recipient_delays_no_other(self) -> None:
        self.accept(message(1, "a@next.example", "b@next.example"), message(2, "c@next.example"))
        self.attempts[0].answer(DEFERRED, DELIVERED)
        self.attempts[1].answer(DELIVERED)
        self.settle()
        self.assertEqual(self.store.census().recipients, 1)

    def test_the_reply_for_a_failed_route_is_our_own(self) -> None:
        self.route = lambda mailbox: (
            NextHop("smtp", domain=mailbox.domain)
            if mailbox.domain == "sender.example"
            else NextHop("error", reply=FAILED)
        )
        self.accept(message(1))
        self.assertEqual(self.under_way(), [("sender.example", [0])])
