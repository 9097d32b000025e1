"""An application hears what becomes of mail, and steers the queue (`MailTransferAgent`)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred as Pending
from twisted.python.failure import Failure

import twisted_mta
from tests.tidy import TidyTestCase
from twisted_mta import (
    Accepted,
    Bounced,
    Deferred,
    Delivered,
    Expired,
    Held,
    MailEvent,
    QueueUnavailable,
    Removed,
)
from twisted_mta.config import QueueSettings
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA
from twisted_mta.testing.peer import ScriptStep

from .next_hop import NEXT, QUIT, announcing, listen

PLAIN = b"From: app@localhost\r\nSubject: Hi\r\n\r\nHello.\r\n"
DAY = 86_400.0
NOBODY_THERE = (("far.example", "smtp://192.0.2.1"),)


class Listening(TidyTestCase):
    def mta(self, **settings: Any) -> MemoryMTA:
        self.events: list[MailEvent] = []
        mta = self.enterContext(MemoryMTA(**settings))
        self.stop_listening = mta.mta.subscribe(self.events.append)
        return mta

    def result(self, mta: MemoryMTA, pending: Pending[Any]) -> Any:
        results: list[Any] = []
        pending.addBoth(results.append)
        mta.reactor.settle()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def submit(self, mta: MemoryMTA, *recipients: str, **arguments: Any) -> str:
        """Submit a message; return its queue id."""
        arguments = {"sender": "app@localhost", "recipients": recipients, **arguments}
        id = self.result(mta, mta.mta.submit(PLAIN, **arguments)).id
        assert isinstance(id, str)
        return id

    def kinds(self, id: str) -> list[str]:
        return [type(each).__name__ for each in self.events if each.id == id]

    def last(self) -> MailEvent:
        return self.events[-1]


class Events(Listening):
    def test_a_delivery_is_accepted_and_delivered(self) -> None:
        mta = self.mta()
        id = self.submit(mta, "bob@localhost", "eve@localhost")
        accepted, delivered = self.events
        self.assertEqual(
            accepted,
            Accepted(
                id=id,
                sender="app@localhost",
                recipients=("bob@localhost", "eve@localhost"),
                next_hop=None,
                reply=None,
                at=EPOCH,
            ),
        )
        self.assertIsInstance(delivered, Delivered)
        self.assertEqual(
            (delivered.recipients, delivered.next_hop),
            (("bob@localhost", "eve@localhost"), "maildir"),
        )
        assert delivered.reply is not None
        self.assertEqual(delivered.reply.code, 250)

    def test_mail_of_clients_has_events_too(self) -> None:
        mta = self.mta()
        mta.submit_by_smtp(PLAIN, "bob@localhost", sender="ann@sender.example")
        mta.reactor.settle()
        self.assertEqual([type(each) for each in self.events], [Accepted, Delivered])
        self.assertEqual(self.last().sender, "ann@sender.example")

    def test_one_step_of_each_kind_for_recipients_that_end_differently(self) -> None:
        mta = self.mta(routes=(("*", f"smtp://{NEXT}"),))
        steps: list[ScriptStep] = []
        for line, reply in (
            ("MAIL FROM:<>", "250 ok"),
            ("RCPT TO:<x@a.example>", "550 5.1.1 No"),
            ("RCPT TO:<y@a.example>", "550 5.7.1 Not for you"),
            ("RCPT TO:<z@a.example>", "550 5.1.1 No"),
        ):
            steps += [("expect", f"{line}\r\n".encode()), ("send", f"{reply}\r\n".encode())]
        listen(mta.reactor, *announcing(), *steps, ("expect", b"RSET\r\n"), *QUIT)
        id = self.submit(
            mta, "x@a.example", "y@a.example", "z@a.example", "bob@localhost", sender=""
        )
        self.assertEqual(sorted(self.kinds(id)), ["Accepted", "Bounced", "Bounced", "Delivered"])
        bounced = {
            each.recipients: str(each.reply) for each in self.events if isinstance(each, Bounced)
        }
        self.assertEqual(
            bounced,
            {
                ("x@a.example", "z@a.example"): "550 5.1.1 No",
                ("y@a.example",): "550 5.7.1 Not for you",
            },
        )

    def test_deferrals_and_the_end_of_the_lifetime(self) -> None:
        mta = self.mta(routes=NOBODY_THERE, queue=QueueSettings(lifetime=600.0))
        id = self.submit(mta, "ann@far.example", sender="")
        self.assertEqual(self.kinds(id)[:2], ["Accepted", "Deferred"])
        for _ in range(100):
            mta.advance(60)
        self.assertEqual(set(self.kinds(id)[1:-1]), {"Deferred"})
        self.assertIsInstance(self.last(), Expired)
        self.assertEqual(self.last().next_hop, "smtp:192.0.2.1:25")

    def test_notices_of_the_queue_are_accepted_and_delivered(self) -> None:
        mta = self.mta(
            routes=NOBODY_THERE,  # and no.example is not in the DNS
            queue=QueueSettings(delay_warning=600.0),
        )
        id = self.submit(
            mta, "x@no.example", "ann@far.example", "bob@localhost", notify=["SUCCESS", "FAILURE"]
        )
        self.submit(mta, "ann@far.example")
        for _ in range(15):
            mta.advance(60)
        notices = [each for each in self.events if each.sender == ""]
        self.assertEqual(len(mta.mail("app")), 3)  # failed, delivered, delayed
        for each in dict.fromkeys(event.id for event in notices):
            self.assertNotEqual(each, id)
            self.assertEqual(self.kinds(each), ["Accepted", "Delivered"])
        self.assertEqual(len(notices), 6)
        self.assertEqual({each.recipients for each in notices}, {("app@localhost",)})

    def test_a_thousand_recipients_have_one_step_each(self) -> None:
        mta = self.mta(
            routes=NOBODY_THERE,  # and no.example is not in the DNS
            queue=QueueSettings(lifetime=600.0, retry_minimum=60.0),
        )
        fates = ("localhost", "no.example", "far.example")
        everyone = tuple(f"u{number}@{fates[number % 3]}" for number in range(999))
        id = self.submit(mta, *everyone)
        (accepted,) = (each for each in self.events if isinstance(each, Accepted) and each.id == id)
        self.assertEqual(accepted.recipients, everyone)
        self.result(mta, mta.mta.queue.hold(id))
        held = [name for each in self.events if isinstance(each, Held) for name in each.recipients]
        self.assertEqual(sorted(held), sorted(each for each in everyone if "far" in each))
        self.result(mta, mta.mta.queue.remove(to="u2@*"))
        self.result(mta, mta.mta.queue.release(id))
        for _ in range(15):
            mta.advance(60)
        ended: dict[str, list[str]] = {}
        for event in self.events:
            if event.id == id and isinstance(event, Delivered | Bounced | Expired | Removed):
                for name in event.recipients:
                    ended.setdefault(name, []).append(type(event).__name__)
        wanted = dict(zip(fates, ("Delivered", "Bounced", "Expired"), strict=True))
        self.assertEqual(
            ended,
            {each: [wanted[each.partition("@")[2]]] for each in everyone}
            | {"u2@far.example": ["Removed"]},
        )
        outcome = self.result(mta, mta.mta.outcome(id))
        self.assertEqual({each: [type(event).__name__] for each, event in outcome.items()}, ended)

    def test_holding_and_removing_are_events(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        id = self.submit(mta, "ann@far.example", "eve@far.example", sender="")
        self.result(mta, mta.mta.queue.hold(id))
        self.assertIsInstance(self.last(), Held)
        self.assertEqual(self.last().recipients, ("ann@far.example", "eve@far.example"))
        self.result(mta, mta.mta.queue.remove(to="eve@*"))
        self.assertIsInstance(self.last(), Removed)
        self.assertEqual((self.last().id, self.last().recipients), (id, ("eve@far.example",)))

    def test_many_recipients_that_are_held_at_once_are_all_named(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        many = tuple(f"user{number}@far.example" for number in range(60))
        id = self.submit(mta, *many, sender="")
        self.result(mta, mta.mta.queue.hold(all=True))
        held = [name for each in self.events if isinstance(each, Held) for name in each.recipients]
        self.assertEqual(sorted(held), sorted(many))
        self.assertEqual({each.id for each in self.events}, {id})

    def test_a_subscriber_that_raises_harms_nothing(self) -> None:
        mta = self.mta()

        def broken(event: MailEvent) -> None:
            raise KeyError("broken")

        mta.mta.subscribe(broken)
        later: list[MailEvent] = []
        mta.mta.subscribe(later.append)
        self.submit(mta, "bob@localhost")
        errors = self.flushLoggedErrors(KeyError)
        self.assertEqual(len(errors), 2)
        self.assertIn("in broken", errors[0].getTraceback())
        self.assertEqual(later, self.events)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_a_subscriber_may_be_a_coroutine_function(self) -> None:
        mta = self.mta()
        heard: list[MailEvent] = []

        async def hear(event: MailEvent) -> None:
            heard.append(event)
            if isinstance(event, Delivered):
                raise KeyError("broken")

        mta.mta.subscribe(hear)
        self.submit(mta, "bob@localhost")
        self.assertEqual(heard, self.events)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_subscription_can_end_during_an_event(self) -> None:
        mta = self.mta()
        heard: list[str] = []
        stops: list[Any] = []

        def first(event: MailEvent) -> None:
            heard.append("first")
            for stop in stops:
                stop()

        def second(event: MailEvent) -> None:
            heard.append("second")

        stops += [mta.mta.subscribe(first), mta.mta.subscribe(second)]
        self.submit(mta, "bob@localhost")
        self.assertEqual(heard, ["first"])
        self.assertEqual(len(self.events), 2)

    def test_what_cannot_be_called_does_not_subscribe(self) -> None:
        mta = self.mta()
        with self.assertRaisesRegex(TypeError, "found None, expected a function"):
            mta.mta.subscribe(None)  # type: ignore[arg-type]

    def test_a_subscription_ends(self) -> None:
        mta = self.mta()
        self.stop_listening()
        self.stop_listening()
        self.submit(mta, "bob@localhost")
        self.assertEqual(self.events, [])


class Outcomes(Listening):
    def outcome(self, mta: MemoryMTA, id: str) -> dict[str, str]:
        outcome = self.result(mta, mta.mta.outcome(id))
        return {each: type(event).__name__ for each, event in outcome.items()}

    def test_it_fires_when_the_last_recipient_has_its_own(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        self.stop_listening()
        id = self.submit(mta, "Bob@LOCALHOST", "ann@far.example", sender="")
        pending = mta.mta.outcome(id)
        self.assertNoResult(pending)
        self.result(mta, mta.mta.queue.remove(id))
        outcome = self.successResultOf(pending)
        self.assertEqual(
            {each: type(event) for each, event in outcome.items()},
            {"Bob@LOCALHOST": Delivered, "ann@far.example": Removed},
        )
        self.assertEqual(self.successResultOf(mta.mta.outcome(id)), outcome)

    def test_an_alias_has_one_outcome_and_a_failure_decides(self) -> None:
        aliases = self.mktemp()
        with open(aliases, "w") as file:
            file.write("team: bob, x@a.example, eve\ncrew: bob, eve\n")
        mta = self.mta(aliases=aliases, routes=(("a.example", "error:5.1.1 No"),))
        id = self.submit(mta, "team@localhost", "crew@localhost", sender="")
        self.assertEqual(
            self.outcome(mta, id), {"team@localhost": "Bounced", "crew@localhost": "Delivered"}
        )

    def test_expired_mail_has_its_outcome(self) -> None:
        mta = self.mta(routes=NOBODY_THERE, queue=QueueSettings(lifetime=600.0))
        id = self.submit(mta, "ann@far.example", sender="")
        for _ in range(100):
            mta.advance(60)
        self.assertEqual(self.outcome(mta, id), {"ann@far.example": "Expired"})

    def test_an_unknown_message_is_a_lookup_error(self) -> None:
        mta = self.mta()
        reply = mta.submit_by_smtp(PLAIN, "bob@localhost")
        for id in ("nonsense", reply.split()[-1]):
            self.failureResultOf(mta.mta.outcome(id), LookupError)

    def test_only_the_last_thousand_complete_ones_are_remembered(self) -> None:
        self.patch(twisted_mta.agent.audience, "MOST_ENDED", 2)
        mta = self.mta(routes=NOBODY_THERE)
        waiting = self.submit(mta, "ann@far.example", sender="")
        ids = [self.submit(mta, "bob@localhost") for _ in range(3)]
        self.failureResultOf(mta.mta.outcome(ids[0]), LookupError)
        for id in ids[1:]:
            self.successResultOf(mta.mta.outcome(id))
        pending = mta.mta.outcome(waiting)
        self.assertNoResult(pending)
        pending.cancel()
        self.failureResultOf(pending)

    def test_a_stop_ends_the_wait(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        pending = mta.mta.outcome(self.submit(mta, "ann@far.example", sender=""))
        mta.stop()
        self.failureResultOf(pending, RuntimeError)


class Idle(Listening):
    def test_it_fires_when_nothing_is_under_way_or_due(self) -> None:
        mta = self.mta()
        submitted = mta.mta.submit(PLAIN, sender="", recipients=["bob@localhost"])
        idle = submitted.addCallback(lambda _: mta.mta.when_idle())
        delivered = idle.addCallback(lambda _: len(mta.mail("bob")))
        mta.reactor.settle()
        self.assertEqual(self.successResultOf(delivered), 1)

    def test_a_transaction_under_way_is_waited_for(self) -> None:
        mta = self.mta(routes=(("*", f"smtp://{NEXT}"),))
        mta.hop(NEXT).hang(at="ehlo")
        id = self.submit(mta, "ann@far.example", sender="")
        idle = mta.mta.when_idle()
        mta.advance(1)
        self.assertNoResult(idle)
        mta.advance(400)  # more than a next hop has for an answer
        self.successResultOf(idle)
        self.assertEqual(self.kinds(id), ["Accepted", "Deferred"])

    def test_mail_that_waits_for_its_time_does_not_count(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        self.submit(mta, "bob@localhost", hold_until=EPOCH + 3600)
        self.submit(mta, "ann@far.example", sender="")
        self.result(mta, mta.mta.when_idle())
        self.assertEqual(mta.mail("bob"), [])

    def test_it_fires_at_a_stop_and_after_it(self) -> None:
        mta = self.mta()
        mta.stop()
        self.result(mta, mta.mta.when_idle())


class Queue(Listening):
    def test_it_lists_shows_and_steers_the_queue(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        first = self.submit(mta, "ann@far.example", sender="")
        second = self.submit(mta, "bob@localhost", hold_until=EPOCH + 3600)
        queue = mta.mta.queue
        self.assertEqual(
            [each["id"] for each in self.result(mta, queue.list())], sorted([first, second])
        )
        (shown,) = self.result(mta, queue.list(to="ann@*", limit=5))
        self.assertEqual(shown["id"], first)
        self.assertEqual(self.result(mta, queue.show(first))["id"], first)
        self.assertEqual(len(self.result(mta, queue.list(first, second, limit=1))), 1)
        counts = self.result(mta, queue.hold(first))
        self.assertEqual((counts["messages"], counts["recipients"]), (1, 1))
        self.assertEqual(len(self.result(mta, queue.list(state="held"))), 1)
        self.result(mta, queue.release(first))
        self.assertEqual(self.result(mta, queue.list(state="held")), [])
        self.result(mta, queue.remove(all=True))
        self.assertEqual(self.result(mta, queue.list()), [])
        self.assertIsNone(self.result(mta, queue.show(first)))

    def test_retry_begins_at_once(self) -> None:
        mta = self.mta(routes=NOBODY_THERE)
        id = self.submit(mta, "ann@far.example", sender="")
        before = len(self.events)
        self.result(mta, mta.mta.queue.retry(id))
        self.assertEqual(len(self.events), before + 1)
        self.assertIsInstance(self.last(), Deferred)

    def test_what_is_no_filter_is_a_value_error(self) -> None:
        mta = self.mta()
        queue = mta.mta.queue
        for wrong in (
            queue.list(colour="red"),
            queue.list(limit=0),
            queue.hold(),
            queue.hold("nonsense"),
            queue.remove(state="lost"),
        ):
            with self.assertRaises(ValueError):
                self.result(mta, wrong)

    def test_a_stopped_agent_has_no_queue(self) -> None:
        mta = self.mta()
        mta.stop()
        with self.assertRaises(QueueUnavailable):
            self.result(mta, mta.mta.queue.list())


class Ports(Listening):
    def test_the_first_port_of_each_kind_has_its_number(self) -> None:
        mta = self.mta()
        self.assertEqual(dict(mta.mta.ports), {"smtp": 25})
