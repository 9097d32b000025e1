"""Events over HTTP: what is sent, what is kept for a client that comes back, and how much."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.admin.events_api import EventsAPI
from twisted_mta.admin.http import Request, Response, Stream
from twisted_mta.mail.events import Accepted, Bounced, Delivered, MailEvent
from twisted_mta.mail.reply import Reply


class Reader:
    """A client, as an outlet: it takes octets while it is ready."""

    def __init__(self) -> None:
        self.octets = b""
        self.ready = True
        self.resumed: Callable[[], object] = lambda: None

    def write(self, octets: bytes) -> None:
        self.octets += octets

    @property
    def events(self) -> list[tuple[str, str, Any]]:
        """The (id, type, data) of each event."""
        found = []
        for block in self.octets.decode("ascii").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "event" in fields:
                found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
        return found


def event(
    kind: type[MailEvent] = Accepted, id: str = "A", recipients: tuple[str, ...] = ("b@x",)
) -> MailEvent:
    return kind(id, "a@x", recipients, None, None, 1.0)


class Events(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.subscribers: list[Callable[[MailEvent], object]] = []
        self.names = iter(("first", "second"))
        self.api = EventsAPI(self.subscribe, name=lambda: next(self.names), clock=self.clock)
        self.addCleanup(self.api.stop)

    def subscribe(self, subscriber: Callable[[MailEvent], object]) -> Callable[[], None]:
        self.subscribers.append(subscriber)
        return lambda: self.subscribers.remove(subscriber)

    def tell(self, *events: MailEvent) -> None:
        for each in events:
            for subscriber in self.subscribers:
                subscriber(each)
        self.clock.advance(0.1)

    def read(self, query: str = "", last: str = "") -> tuple[Reader, Callable[[], object]]:
        fields = {"last-event-id": (last,)} if last else {}
        stream = self.api.answer(
            Request(method="GET", path="/v1/events", query=query, fields=fields)
        )
        assert isinstance(stream, Stream)
        self.assertEqual(stream.content_type, "text/event-stream")
        reader: Any = Reader()
        return reader, stream.begin(reader)

    def test_each_event_has_an_id_a_type_and_its_facts(self) -> None:
        reader, _ = self.read()
        reply = Reply.of(550, "1.1", "No such\u2028mailbox")
        self.tell(Bounced("A", "", ("b@x",), "smtp:x", reply, 1.5))
        ((id, kind, data),) = reader.events
        self.assertEqual((id, kind), ("first-1", "bounced"))
        self.assertEqual(
            data,
            {
                "event": "bounced",
                "id": "A",
                "at": 1.5,
                "sender": "",
                "recipients": ["b@x"],
                "more": 0,
                "next_hop": "smtp:x",
                "reply": str(reply),
                "class": "unknown-user",
            },
        )

    def test_a_client_may_select_types(self) -> None:
        reader, _ = self.read("types=delivered,bounced")
        self.tell(event(), event(Delivered), event(Bounced))
        self.assertEqual([kind for _, kind, _ in reader.events], ["delivered", "bounced"])
        refused = self.api.answer(Request(method="GET", path="/v1/events", query="types=a%0Ab"))
        assert isinstance(refused, Response)
        self.assertEqual(refused.code, 400)

    def test_a_client_that_comes_back_misses_nothing(self) -> None:
        _, end = self.read()
        self.tell(event(id="A"), event(id="B"))
        end()
        self.clock.advance(59)
        self.tell(event(id="C"))
        reader, _ = self.read(last="first-1")
        self.assertEqual([data["id"] for _, _, data in reader.events], ["B", "C"])

    def test_one_that_was_away_for_too_long_is_told(self) -> None:
        _, end = self.read()
        self.tell(event())
        end()
        self.clock.advance(60)
        self.assertEqual(self.subscribers, [])
        reader, _ = self.read(last="first-1")
        self.tell(event(id="C"))
        self.assertEqual(
            [(id, kind) for id, kind, _ in reader.events], [("", "lost"), ("second-1", "accepted")]
        )

    def test_ids_that_were_never_given_are_lost_events(self) -> None:
        self.read()
        self.tell(event())
        for last in ("first-2", "first-" + "9" * 5000, "other-1", "-", "first-\u00b9", "x\0"):
            reader, _ = self.read(last=last)
            self.assertEqual([kind for _, kind, _ in reader.events], ["lost"], last)

    def test_a_client_that_does_not_read_costs_no_memory_and_hears_what_it_lost(self) -> None:
        reader, _ = self.read()
        reader.ready = False
        before = len(reader.octets)
        for _ in range(2_500):
            self.tell(event())
        self.assertEqual(len(reader.octets), before)
        reader.ready = True
        reader.resumed()
        self.assertEqual(reader.events[0][1:], ("lost", {"lost": 500}))
        self.assertEqual(len(reader.events), 2_001)

    def test_events_with_many_recipients_are_kept_within_four_mebibytes(self) -> None:
        reader, _ = self.read()
        reader.ready = False
        recipients = tuple(f"{'x' * 60}{number}@{'y' * 200}" for number in range(1_000))
        for _ in range(1_000):
            self.tell(event(recipients=recipients))
        reader.ready = True
        reader.resumed()
        self.assertLess(len(reader.octets), 5 << 20)
        data = reader.events[-1][2]
        self.assertEqual((len(data["recipients"]), data["more"]), (100, 900))

    def test_a_comment_says_now_and_then_that_it_goes_on(self) -> None:
        reader, _ = self.read()
        before = reader.octets
        self.clock.advance(15)
        self.assertEqual(reader.octets, before + b":\n\n")

    def test_the_seventeenth_client_is_refused(self) -> None:
        for _ in range(16):
            self.read()
        refused = self.api.answer(Request(method="GET", path="/v1/events"))
        assert isinstance(refused, Response)
        self.assertEqual((refused.code, refused.headers["Retry-After"]), (503, "10"))
