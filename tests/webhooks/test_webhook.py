"""A webhook and a store that takes its time."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.config import WebhookSettings
from twisted_mta.queue.store.webhook_events import EventCount, WaitingEvent
from twisted_mta.webhooks.outbox import Changes, Outbox, Taken
from twisted_mta.webhooks.webhook import Webhook


class SlowOutbox(Outbox):
    """An outbox whose reads end when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.there: list[int] = []
        self.reads: list[Deferred[Taken]] = []

    async def take(self, webhook: str, now: float, limit: int) -> Taken:
        found = [((0, id), WaitingEvent(id, str(id), b"{}", now, 0)) for id in self.there]
        read: Deferred[Taken] = Deferred()
        self.reads.append(read)
        await read
        return Taken(found, None, False)

    async def change(self, changes: Changes) -> None:
        for _, id in changes.ended:
            self.there.remove(id)


class SlowStores(TidyTestCase):
    def test_events_that_are_written_during_a_read_are_posted_right_after(self) -> None:
        clock, outbox = Clock(), SlowOutbox()
        posted: list[str] = []

        async def post(
            settings: WebhookSettings, secrets: Sequence[bytes], name: str, body: bytes
        ) -> None:
            posted.append(name)

        webhook = Webhook(
            WebhookSettings(url="http://127.0.0.1/", secret_file="secret"),
            (),
            outbox=outbox,
            post=post,
            clock=clock,
            wall_time=clock.seconds,
            random=random.Random(1),
            most=EventCount(10, 1000),
        )
        webhook.start(EventCount())
        clock.advance(0)
        # The read is under way, and has looked already.
        outbox.there.append(1)
        webhook.written(1, 2)
        clock.advance(1)
        outbox.reads.pop().callback(Taken([], None, False))
        clock.advance(1)
        self.assertEqual(len(outbox.reads), 1)
        outbox.reads.pop().callback(Taken([], None, False))
        self.assertEqual(posted, ["1"])
        clock.advance(1)
        # Nothing is left, and nothing is read.
        self.assertEqual((outbox.there, outbox.reads), ([], []))
        webhook.stop()
