"""The contract of a store on events for webhooks, as tests that every store has to pass."""

from __future__ import annotations

from twisted_mta.queue.store.contract import Accept, Settle
from twisted_mta.queue.store.webhook_events import (
    ChangeEvents,
    CountEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    PostponedEvent,
    RecordEvents,
    TakeEvents,
    TakenEvents,
)

from ..mail import NOW, message, numbers
from .harness import StoreHarness


def event(name: str, *, webhook: str = "w", at: float = NOW) -> NewEvent:
    return NewEvent(webhook, name, name.encode() * 10, at)


class WebhookConformance(StoreHarness):
    def take(self, *, webhook: str = "w", now: float = NOW, limit: int = 10) -> TakenEvents:
        [taken] = self.store.apply([TakeEvents(webhook, now, limit)])
        assert isinstance(taken, TakenEvents)
        return taken

    def names(self, **which: object) -> list[str]:
        return [each.name for each in self.take(**which).events]  # type: ignore[arg-type]

    def ids(self) -> dict[str, int]:
        return {each.name: each.id for each in self.take().events}

    def test_events_come_back_in_their_order_and_after_a_restart(self) -> None:
        mail = message(7)
        self.store.apply([Accept(mail, events=(event("a"), event("other", webhook="v")))])
        self.store.apply([Settle(mail, done=numbers(mail), events=(event("b"), event("c")))])
        self.store.apply([RecordEvents((event("d"),))])
        self.restart()
        self.assertEqual(self.names(), ["a", "b", "c", "d"])
        first = self.take().events[0]
        self.assertEqual((first.body, first.at, first.attempts), (b"a" * 10, NOW, 0))
        self.assertEqual(self.names(limit=2), ["a", "b"])
        self.assertEqual(self.names(webhook="v"), ["other"])

    def test_postponed_events_wait_and_ended_ones_are_gone(self) -> None:
        self.store.apply([RecordEvents((event("a"), event("b"), event("c")))])
        ids = self.ids()
        change = ChangeEvents((ids["a"],), (PostponedEvent(ids["b"], 3, NOW + 60),))
        for _ in range(2):
            self.store.apply([change])
        taken = self.take()
        self.assertEqual(([each.name for each in taken.events], taken.next), (["c"], NOW + 60))
        later = self.take(now=NOW + 60)
        self.assertEqual(
            [(each.name, each.attempts) for each in later.events], [("c", 0), ("b", 3)]
        )
        self.assertIsNone(later.next)

    def test_the_oldest_events_are_dropped_and_counted(self) -> None:
        events = (event("a", at=NOW - 9), event("b", at=NOW - 8), event("c"))
        self.store.apply([RecordEvents((*events, event("other", webhook="v", at=NOW - 9)))])
        self.assertEqual(
            self.store.apply([CountEvents()]),
            [EventCounts({"w": EventCount(3, 30), "v": EventCount(1, 50)})],
        )
        self.assertEqual(self.store.apply([DropEvents("w", 1)]), [EventCount(1, 10)])
        self.assertEqual(
            self.store.apply([DropEvents("w", 10, before=NOW - 1)]), [EventCount(1, 10)]
        )
        self.assertEqual((self.names(), self.names(webhook="v")), (["c"], ["other"]))

    def test_a_thousand_events_are_written_and_removed(self) -> None:
        self.store.apply([RecordEvents(tuple(event(f"e{n}") for n in range(1200)))])
        taken = self.take(limit=2000).events
        self.assertEqual(len(taken), 1200)
        self.store.apply([ChangeEvents(tuple(each.id for each in taken))])
        self.assertEqual(self.store.apply([CountEvents()]), [EventCounts({})])
