"""A runner on a clock, whose attempts wait until the test answers them."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Limits, Route
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.queue.commit import GroupCommit
from twisted_mta.queue.notices import RecipientsOf, itself
from twisted_mta.queue.runner import Noticed, Runner, RunnerSettings
from twisted_mta.queue.schedule.backoff import Backoff
from twisted_mta.queue.schedule.next_hops import NextHopLimits
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.store import MemoryStore

from .mail import LIFETIME, NOW, numbers

GONE = Reply.of(550, "1.6", "Moved away")
CONNECTION_REFUSED = Reply.of(451, "4.1", "mx.example[192.0.2.1]:25: Connection refused")


class Attempt:
    """One transaction that the runner attempts."""

    def __init__(self, next_hop: NextHop, message: Message) -> None:
        self.next_hop = next_hop
        self.message = message
        self.done: Deferred[Sequence[Outcome]] = Deferred()

    def answer(self, reply: Reply, *others: Reply) -> None:
        """Give all recipients one reply, or one each."""
        recipients = self.message.envelope.recipients
        replies = [reply, *others] if others else [reply] * len(recipients)
        self.done.callback(
            [
                Outcome(recipient.number, each, "mx.example[192.0.2.1]:25")
                for recipient, each in zip(recipients, replies, strict=True)
            ]
        )

    def unreachable(self) -> None:
        """Answer that the next hop refused the connection."""
        self.done.callback(
            [
                Outcome(recipient.number, CONNECTION_REFUSED, unreachable=True)
                for recipient in self.message.envelope.recipients
            ]
        )


def route(mailbox: Mailbox) -> NextHop:
    if mailbox.domain == "discarded.example":
        return NextHop("discard")
    if mailbox.domain == "gone.example":
        return NextHop("error", reply=GONE)
    if mailbox.domain == "broken.example":
        raise ValueError("no such table")
    if mailbox.domain == "here.example":
        return NextHop("maildir")
    # All of these share one host.
    domain = "shared.example" if mailbox.domain.endswith(".shared.example") else mailbox.domain
    return NextHop("smtp", domain=domain, rule=mailbox.domain)


class RunnerTestCase(TidyTestCase):
    """A runner on a clock; deliveries wait in `attempts` until the test answers them."""

    concurrency = 50
    per_hop = 20
    backoff = Backoff(300.0, 3600.0)
    limits: Limits | None = None
    route: Route = staticmethod(route)
    recipients_of: RecipientsOf = staticmethod(itself)
    notice_made: Noticed = staticmethod(lambda action: None)

    def limits_of(self, next_hop: NextHop) -> NextHopLimits:
        """Return the limits of a next hop; for a test to replace."""
        return NextHopLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.step = 0.0  # seconds that the wall clock was set ahead
        self.attempts: list[Attempt] = []
        self.all_attempts: list[Attempt] = []
        self.observed: list[tuple[Message, list[Outcome], str]] = []
        self.deliver: Callable[[NextHop, Message], Any] = self.wait_for_answer
        self.store = MemoryStore()
        self.ids = iter(range(1_000_000, 2_000_000))
        self.begin()

    def begin(self, start: bool = True) -> None:
        """Begin with another runner on the same store, as a new process does."""
        self.attempts.clear()
        self.commit = GroupCommit(self.store, executor=inline_executor, clock=self.clock)
        self.commit.start()
        self.runner = Runner(
            self.settings(),
            commit=self.commit,
            route=lambda mailbox: self.route(mailbox),
            deliver=lambda next_hop, message: self.deliver(next_hop, message),
            clock=self.clock,
            wall_time=self.wall_time,
            random=random.Random(1),
            ids=lambda: QueueId(next(self.ids)),
            observe=lambda message, outcomes, hop: self.observed.append(
                (message, list(outcomes), hop)
            ),
            limits=self.limits,
            limits_of=lambda next_hop: self.limits_of(next_hop),
            recipients_of=lambda mailbox: self.recipients_of(mailbox),
            noticed=lambda action, notice: self.notice_made(action),
        )
        if start:
            self.runner.start()
            self.settle()

    def settings(self) -> RunnerSettings:
        """Return the settings of the runner."""
        return RunnerSettings(
            hostname="mta.example",
            backoff=self.backoff,
            lifetime=LIFETIME,
            concurrency=self.concurrency,
            per_hop=self.per_hop,
        )

    def wall_time(self) -> float:
        return NOW + self.clock.seconds() + self.step

    def wait_for_answer(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        attempt = Attempt(next_hop, message)
        self.attempts.append(attempt)
        self.all_attempts.append(attempt)
        return attempt.done

    def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, and all due calls happen."""
        self.clock.advance(seconds)
        for _ in range(6):
            self.clock.advance(0)

    def accept(self, *messages: Message) -> None:
        for each in messages:
            self.successResultOf(self.accepting(each))
        self.settle()

    def accepting(self, message: Message) -> Deferred[None]:
        done = self.runner.accept(message)
        self.settle()
        return done

    def answer(self, reply: Reply, *others: Reply) -> None:
        """Answer the attempts under way, in order."""
        attempts, self.attempts = self.attempts, []
        for attempt in attempts:
            attempt.answer(reply, *others)
        self.settle()

    def unreachable(self, *domains: str) -> None:
        """Refuse the connections of the attempts under way: to ``domains``, or all."""
        attempts, self.attempts = self.attempts, []
        for attempt in attempts:
            if domains and attempt.next_hop.domain not in domains:
                self.attempts.append(attempt)
            else:
                attempt.unreachable()
        self.settle()

    def under_way(self) -> list[tuple[str, list[int]]]:
        """Return the attempts under way: next hop and recipients of each."""
        return [(each.next_hop.domain, numbers(each.message)) for each in self.attempts]

    def notices(self) -> list[Message]:
        """Return the notices that are in the queue."""
        return [each for id, each in self.store.messages.items() if id >= 1_000_000]

    def assertIdle(self) -> None:
        """No mail is in memory, and every count is zero."""
        fair_share = self.runner._fair_share
        self.assertEqual(self.runner.active, 0)
        self.assertEqual((fair_share.places, fair_share.remote, fair_share._unproven), (0, 0, 0))
        self.assertEqual(fair_share._weight_of_kind, [0, 0, 0])
        self.assertEqual(fair_share._waiting, {})
        for queue in fair_share.queues.values():
            state = (
                queue.places,
                queue.claimed,
                queue.acquiring,
                queue.state.active,
                len(queue.waiting),
            )
            self.assertEqual(state, (0, 0, 0, 0, 0), str(queue.next_hop))
        self.assertEqual(list(self.runner._slots._waiting), [])
        self.assertEqual(self.store.census().leased, 0)

    def assertDone(self) -> None:
        """No mail is in the queue, nor in memory."""
        self.assertIdle()
        self.assertEqual(self.store.messages, {})
