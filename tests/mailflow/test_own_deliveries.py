"""An application's own deliveries are next hops like others: routes, outcomes, retries, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock

from tests.policy.dkim.key_files import write_key
from tests.tidy import TidyTestCase
from twisted_mta import (
    ApplicationDelivery,
    Config,
    MailTransferAgent,
    Quarantine,
    QueuedMessage,
    Reply,
)
from twisted_mta.admin.explanation_text import lines
from twisted_mta.config import Destination, DKIMKey, QueueSettings
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.events import Bounced, Expired
from twisted_mta.mail.events import Deferred as DeferredEvent
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.service import CannotReload
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.memory_mta import MemoryMTA

MESSAGE = b"From: ann@sender.example\r\nSubject: Hi\r\n\r\nHello.\r\n"
FULL = Reply(452, "4.2.2", "Mailbox full")
GONE = Reply(550, "5.1.1", "No such customer")


class Recorded:
    """A delivery that records what it gets, and answers as it is told."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)  # the last stays
        self.messages: list[QueuedMessage] = []
        self.contents: list[bytes] = []

    def deliver(self, message: QueuedMessage) -> Any:
        self.messages.append(message)
        self.contents.append(message.content.read())
        if not self.answers:
            return None
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(message) if callable(answer) else answer


class WithDelivery(TidyTestCase):
    def mta(self, delivery: ApplicationDelivery, **settings: Any) -> MemoryMTA:
        settings.setdefault("routes", {"shop.example": "deliver:db"})
        mta = MemoryMTA(self.mktemp(), deliveries={"db": delivery}, **settings)
        self.addCleanup(mta.stop)
        self.events = mta.events
        mta.start()
        return mta

    def kinds(self) -> list[tuple[str, tuple[str, ...]]]:
        steps = [each for each in self.events if each.next_hop == "deliver:db"]
        return [(type(each).__name__, each.recipients) for each in steps]


class Messages(WithDelivery):
    def test_a_message_comes_with_its_envelope_and_trace_fields(self) -> None:
        delivery = Recorded()
        mta = self.mta(delivery, local_domains=("shop.example",))
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example> BODY=8BITMIME RET=HDRS ENVID=42")
        client.say("RCPT TO:<Bob+tag@shop.example> NOTIFY=FAILURE,DELAY")
        client.say("RCPT TO:<eve@shop.example>")
        self.assertEqual(client.say("DATA")[-1][:3], "354")
        eight_bit = MESSAGE + "Grüße\r\n".encode()
        accepted = client.say(eight_bit.decode() + ".")[-1]
        (message,) = delivery.messages
        self.assertIn(message.id, accepted)
        self.assertEqual(message.sender, "ann@sender.example")
        self.assertEqual(message.recipients, ("Bob+tag@shop.example", "eve@shop.example"))
        self.assertEqual(message.envelope.parameters["BODY"], "8BITMIME")
        self.assertEqual(message.envelope.parameters["ENVID"], "42")
        self.assertEqual(message.envelope.recipients[0].parameters["NOTIFY"], "FAILURE,DELAY")
        (content,) = delivery.contents
        self.assertTrue(content.startswith(b"Received: from "))
        self.assertTrue(content.endswith(eight_bit))
        self.assertEqual((message.size, message.quarantine), (len(content), ""))
        self.assertEqual(message.received_at, mta.wall_time())

    def test_a_large_content_is_read_in_pieces_and_can_be_sought(self) -> None:
        line = b"0123456789" * 7 + b"\r\n"
        body = b"Subject: large\r\n\r\n" + line * 20_000
        seen: list[object] = []

        def read(message: QueuedMessage) -> None:
            content = message.content
            content.seek(-len(line), 2)
            seen.append(content.read())
            content.seek(message.size - len(body))
            seen.append(content.read(14))
            seen.append(sum(len(piece) for piece in iter(lambda: content.read(5000), b"")) + 14)

        class Reading:
            def deliver(self, message: QueuedMessage) -> None:
                self.message = message
                read(message)

        delivery = Reading()
        mta = self.mta(delivery)
        mta.submit_by_smtp(body, "bob@shop.example")
        self.assertEqual(seen, [line, b"Subject: large", len(body)])
        with self.assertRaisesRegex(ValueError, "closed file"):
            delivery.message.content.read()

    def test_mail_of_users_is_handed_over_once_for_all_recipients_of_the_route(self) -> None:
        delivery = Recorded()
        mta = self.mta(delivery, routes={"shop.example": "deliver:db", ".example": "deliver:db"})
        mta.submit_by_smtp(MESSAGE, "bob@shop.example", "eve@other.example", "joe@localhost")
        (message,) = delivery.messages
        self.assertEqual(message.recipients, ("bob@shop.example", "eve@other.example"))
        self.assertEqual(len(mta.mail("joe")), 1)

    def test_mail_of_ours_is_signed(self) -> None:
        delivery = Recorded()
        key = DKIMKey(domain="sender.example", selector="s", key=write_key(self.mktemp()))
        self.mta(delivery, dkim_keys=[key]).submit_by_smtp(MESSAGE, "bob@shop.example")
        self.assertTrue(delivery.contents[0].startswith(b"DKIM-Signature: "))

    def test_mail_in_quarantine_says_so(self) -> None:
        class Suspicious:
            def message(self, *about: object) -> Quarantine:
                return Quarantine("it smells")

        delivery = Recorded()
        mta = self.mta(delivery, application_policy=Suspicious())
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        self.assertEqual(delivery.messages[0].quarantine, "it smells")
        self.assertTrue(delivery.contents[0].startswith(b"X-Spam-Flag: YES\r\n"))

    def test_a_route_grants_no_relaying(self) -> None:
        mta = self.mta(Recorded())
        stranger = mta.connect(source="192.0.2.7")
        stranger.say("MAIL FROM:<ann@sender.example>")
        self.assertEqual(stranger.say("RCPT TO:<bob@shop.example>")[-1][:9], "550 5.7.1")


class Answers(WithDelivery):
    def test_none_from_a_method_a_deferred_or_a_coroutine_is_delivered(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def later(message: QueuedMessage) -> None:
            await waiting

        class Later:
            def __await__(self) -> Any:
                return waiting.__await__()

        mta = self.mta(Recorded(None, lambda message: waiting, later, lambda message: Later()))
        for _ in range(4):
            mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        self.assertEqual(self.kinds(), [("Delivered", ("bob@shop.example",))])
        waiting.callback(None)
        mta.advance(0)
        self.assertEqual(self.kinds(), [("Delivered", ("bob@shop.example",))] * 4)
        self.assertTrue(mta.mta.agent.shards[0].runner.is_idle)

    def test_each_recipient_has_an_outcome_of_its_own(self) -> None:
        answer = {"bob@shop.example": None, "eve@shop.example": GONE, "joe@shop.example": FULL}
        delivery = Recorded(answer, None)
        mta = self.mta(delivery)
        mta.submit_by_smtp(MESSAGE, *answer, sender="ann@localhost")
        self.assertEqual(
            self.kinds(),
            [
                ("Delivered", ("bob@shop.example",)),
                ("Bounced", ("eve@shop.example",)),
                ("Deferred", ("joe@shop.example",)),
            ],
        )
        (bounce,) = mta.mail("ann")
        self.assertIn(b"550 5.1.1 No such customer", bounce)
        mta.advance(600)
        self.assertEqual(delivery.messages[1].recipients, ("joe@shop.example",))
        self.assertEqual(delivery.messages[1].envelope.recipients[0].attempts, 1)
        self.assertEqual(self.kinds()[-1], ("Delivered", ("joe@shop.example",)))

    def test_a_reply_is_that_of_all_recipients(self) -> None:
        mta = self.mta(Recorded(GONE))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example", "eve@shop.example", sender="ann@localhost")
        self.assertEqual(self.kinds(), [("Bounced", ("bob@shop.example", "eve@shop.example"))])
        (event,) = (each for each in self.events if isinstance(each, Bounced))
        self.assertEqual(event.reply, GONE)

    def test_a_recipient_without_an_answer_is_deferred_and_logged(self) -> None:
        mta = self.mta(Recorded({"bob@shop.example": None, "Eve@shop.example": None}))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example", "eve@shop.example")
        self.assertEqual(
            self.kinds(),
            [("Delivered", ("bob@shop.example",)), ("Deferred", ("eve@shop.example",))],
        )

    def test_an_exception_is_logged_with_its_traceback_and_defers_with_451(self) -> None:
        async def failing(message: QueuedMessage) -> None:
            raise LookupError("no such table")

        mta = self.mta(Recorded(ValueError("a"), lambda message: fail(OSError("b")), failing))
        for error in (ValueError, OSError, LookupError):
            mta.submit_by_smtp(MESSAGE, "bob@shop.example")
            (logged,) = self.flushLoggedErrors(error)
            self.assertTrue(logged.getTraceback())
            event = self.events[-1]
            self.assertIsInstance(event, DeferredEvent)
            self.assertEqual(str(event.reply)[:9], "451 4.3.0")

    def test_another_answer_is_a_type_error(self) -> None:
        mta = self.mta(Recorded(True))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        (logged,) = self.flushLoggedErrors(TypeError)
        self.assertIn("found True, expected None, a Reply", str(logged.value))
        self.assertEqual(self.kinds(), [("Deferred", ("bob@shop.example",))])

    def test_mail_that_is_deferred_for_too_long_is_returned(self) -> None:
        mta = self.mta(Recorded(FULL), queue=QueueSettings(lifetime=3600))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example", sender="ann@localhost")
        mta.advance(3 * 3600)
        self.assertIsInstance(
            next(each for each in reversed(self.events) if each.next_hop == "deliver:db"), Expired
        )


class Deadlines(WithDelivery):
    def test_a_delivery_without_an_answer_is_canceled_and_tried_again(self) -> None:
        canceled: list[object] = []
        stuck: Deferred[None] = Deferred(canceled.append)
        delivery = Recorded(stuck, None)
        mta = self.mta(delivery)
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        mta.advance(299)
        self.assertEqual((self.kinds(), canceled), ([], []))
        mta.advance(2)
        self.assertEqual(self.kinds(), [("Deferred", ("bob@shop.example",))])
        self.assertEqual(canceled, [stuck])
        mta.advance(600)
        self.assertEqual(self.kinds()[-1], ("Delivered", ("bob@shop.example",)))

    def test_a_coroutine_that_ignores_its_cancellation_holds_nothing(self) -> None:
        other: Deferred[None] = Deferred()

        async def stubborn(message: QueuedMessage) -> None:
            try:
                await Deferred[None]()
            except CancelledError:
                await other

        mta = self.mta(Recorded(stubborn, None))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        mta.advance(301)
        self.assertEqual(self.kinds(), [("Deferred", ("bob@shop.example",))])
        other.callback(None)
        mta.advance(600)
        self.assertEqual([kind for kind, _ in self.kinds()], ["Deferred", "Delivered"])

    def test_a_stop_waits_for_the_drain_timeout_and_then_cancels(self) -> None:
        canceled: list[object] = []
        answered: Deferred[None] = Deferred()
        delivery = Recorded(answered, Deferred(canceled.append))
        directory = self.mktemp()
        settings: dict[str, Any] = {"routes": {"shop.example": "deliver:db"}, "drain_timeout": 10}
        mta = MemoryMTA(directory, deliveries={"db": delivery}, **settings)
        mta.start()
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        mta.submit_by_smtp(MESSAGE, "eve@shop.example")
        stopped = mta.mta.stopService()
        mta.advance(9)
        answered.callback(None)
        self.assertEqual(canceled, [])
        self.assertNoResult(stopped)
        mta.advance(2)
        self.assertEqual(len(canceled), 1)
        self.successResultOf(stopped)
        again = Recorded()
        after = MemoryMTA(
            directory, deliveries={"db": again}, files=mta.files, reactor=mta.reactor, **settings
        )
        self.addCleanup(after.stop)
        after.start()
        after.advance(600)
        (message,) = again.messages
        self.assertEqual(message.recipients, ("eve@shop.example",))
        # It may have been delivered, so it counts as an attempt.
        self.assertEqual(message.envelope.recipients[0].attempts, 1)

    def test_a_delivery_that_a_stop_waits_for_may_submit_mail(self) -> None:
        begun: Deferred[None] = Deferred()
        agents: list[MailTransferAgent] = []

        async def posted(message: QueuedMessage) -> None:
            await begun
            await agents[0].submit(MESSAGE, sender="", recipients=["ann@localhost"])

        mta = self.mta(Recorded(posted))
        agents.append(mta.mta)
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        stopped = mta.mta.stopService()
        begun.callback(None)
        mta.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.kinds(), [("Delivered", ("bob@shop.example",))])
        self.failureResultOf(
            mta.mta.submit(MESSAGE, sender="", recipients=["ann@localhost"]), RuntimeError
        )

    def test_an_answer_during_a_stop_counts(self) -> None:
        answered: Deferred[Reply] = Deferred()
        mta = self.mta(Recorded(answered))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        mta.mta.stopService()
        mta.advance(1)
        answered.callback(FULL)
        mta.advance(1)
        self.assertEqual(self.kinds(), [("Deferred", ("bob@shop.example",))])


class Limits(WithDelivery):
    def test_no_more_messages_at_a_time_than_its_destination_says(self) -> None:
        waiting: list[Deferred[None]] = []

        def wait(message: QueuedMessage) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        two = Destination(domain="deliver:db", connections=2, recipients_per_message=1)
        mta = self.mta(Recorded(wait), destinations=(two,))
        mta.submit_by_smtp(MESSAGE, *(f"{name}@shop.example" for name in ("a", "b", "c", "d")))
        self.assertEqual(len(waiting), 2)
        waiting[0].callback(None)
        mta.advance(0)
        self.assertEqual(len(waiting), 3)

    def test_it_has_the_retry_times_of_its_destination(self) -> None:
        often = Destination(domain="deliver:db", retry_minimum=10, retry_maximum=20)
        delivery = Recorded(FULL, None)
        mta = self.mta(delivery, destinations=(often,))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        mta.advance(20)
        self.assertEqual([kind for kind, _ in self.kinds()], ["Deferred", "Delivered"])

    def test_three_messages_that_fail_in_a_row_suspend_it_and_a_probe_ends_that(self) -> None:
        delivery = Recorded(OSError("no database"))
        mta = self.mta(delivery)
        for number in range(5):
            mta.submit_by_smtp(MESSAGE, f"{number}@shop.example")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 3)
        (suspended,) = mta.mta.agent.suspended()
        self.assertEqual(suspended.next_hop, "deliver:db")
        delivery.answers = [None]
        mta.advance(900)
        self.assertEqual(mta.mta.agent.suspended(), [])
        self.assertTrue(mta.mta.agent.shards[0].runner.is_idle)

    def test_an_answer_ends_a_row_of_failures(self) -> None:
        broken = OSError("no database")
        mta = self.mta(Recorded(broken, broken, FULL, broken, broken, None))
        for number in range(5):
            mta.submit_by_smtp(MESSAGE, f"{number}@shop.example")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 4)
        self.assertEqual(mta.mta.agent.suspended(), [])

    def test_any_answer_to_a_probe_ends_a_suspension(self) -> None:
        delivery = Recorded(OSError("no database"))
        mta = self.mta(delivery)
        for number in range(4):
            mta.submit_by_smtp(MESSAGE, f"{number}@shop.example")
        self.flushLoggedErrors(OSError)
        delivery.answers = [GONE, FULL]
        mta.advance(900)
        self.assertEqual(mta.mta.agent.suspended(), [])

    def test_one_message_at_which_it_fails_again_and_again_stops_no_other(self) -> None:
        def poisoned(message: QueuedMessage) -> None:
            if message.sender == "bad@sender.example":
                raise ValueError("cannot be parsed")

        mta = self.mta(Recorded(poisoned))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example", sender="bad@sender.example")
        for _ in range(24):
            mta.advance(3600)
        self.assertGreater(len(self.flushLoggedErrors(ValueError)), 10)
        self.assertEqual(mta.mta.agent.suspended(), [])
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        self.assertEqual(self.kinds()[-1][0], "Delivered")

    def test_a_421_lets_it_have_fewer_at_a_time(self) -> None:
        mta = self.mta(Recorded(Reply(421, "4.3.2", "Too busy")))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        runner = mta.mta.agent.shards[0].runner
        next_hop = mta.mta.routes.route(Mailbox.parse("bob@shop.example"))
        self.assertEqual(runner.next_hop_status(next_hop).allowed, 2)


class Operation(WithDelivery):
    def test_it_is_explained_shown_and_counted(self) -> None:
        mta = self.mta(Recorded(FULL))
        mta.submit_by_smtp(MESSAGE, "bob@shop.example")
        id = self.events[0].id
        listing = mta.mta.queue.list(domain="shop.example")
        mta.advance(1)
        (listed,) = self.successResultOf(listing)
        self.assertEqual(listed["id"], id)
        explaining = mta.mta.agent.explainer.message(QueueId.parse(id))
        mta.advance(1)
        facts = self.successResultOf(explaining)
        text = "\n".join(lines(facts))
        self.assertIn("Route: deliver:db (route shop.example=deliver:db)", text)
        self.assertIn("Now: open, 0 of", text)
        self.assertIn("Last attempt: 452 4.2.2 Mailbox full", text)
        self.assertEqual(mta.mta.metrics.snapshot().total(table.OUTCOMES, transport="deliver"), 1)


class Routes(TidyTestCase):
    def test_a_name_without_a_delivery_is_an_error_at_the_start(self) -> None:
        for deliveries, expected in (
            ({}, "found deliver:db, expected a URL of another kind"),
            ({"log": Recorded(), "web": Recorded()}, "expected deliver:log or deliver:web"),
        ):
            with self.assertRaisesRegex(ValueError, expected):
                MailTransferAgent(
                    Config(routes={"shop.example": "deliver:db"}),
                    reactor=Clock(),
                    deliveries=deliveries,
                )

    def test_it_is_an_error_at_a_reload_which_changes_nothing(self) -> None:
        mta = self.enterContext(
            MemoryMTA(deliveries={"db": Recorded()}, routes={"shop.example": "deliver:db"})
        )
        other = evolve(mta.mta.config, routes={"shop.example": "deliver:web"})
        failed = self.failureResultOf(mta.mta.reload(other), CannotReload)
        self.assertIn("found deliver:web, expected deliver:db", str(failed.value))
        other = evolve(mta.mta.config, routes={"shop.example": "deliver:db", "*": "deliver:db"})
        self.successResultOf(mta.mta.reload(other))

    def test_what_is_no_delivery_is_refused(self) -> None:
        wrong: Mapping[str, Any]
        for wrong, error, expected in (
            ({"d b": Recorded()}, ValueError, "found the name 'd b', expected letters"),
            ({"db": print}, TypeError, "expected an object with the method deliver"),
        ):
            with self.assertRaisesRegex(error, expected):
                MailTransferAgent(Config(), reactor=Clock(), deliveries=wrong)
