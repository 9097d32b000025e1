"""Live traces: the lines of JSON that a client gets, and how many clients there may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.admin.http import Request, Response, Stream
from twisted_mta.admin.questions import Deliver
from twisted_mta.admin.traces import Traces
from twisted_mta.telemetry.tracing import MOST_TRACES, Filter


class Client:
    """The connection of a client: what it has read.

    Attributes:
        resumed: called when it reads again.
        ready: whether it reads.
    """

    def __init__(self) -> None:
        self.resumed: Callable[[], object] = lambda: None
        self.ready = True
        self._octets = b""

    def write(self, octets: bytes) -> None:
        self._octets += octets

    def read(self) -> list[Any]:
        """Return the lines since the last call."""
        lines, self._octets = self._octets.splitlines(), b""
        return [json.loads(line) for line in lines]


class Tracing(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.open: dict[Filter, Deliver] = {}
        self.traces = Traces(self.open_trace, clock=self.clock)

    def open_trace(self, wanted: Filter, deliver: Deliver) -> Callable[[], object]:
        self.open[wanted] = deliver
        return lambda: self.open.pop(wanted)

    def ask(self, query: str) -> Response | Stream:
        return self.traces.answer(Request(method="GET", path="/v1/trace", query=query))

    def begin(self, query: str = "") -> tuple[Client, Callable[[], object]]:
        stream = self.ask(query)
        assert isinstance(stream, Stream), stream
        client = Client()
        return client, stream.begin(client)  # type: ignore[arg-type]

    def test_the_first_line_has_the_version_and_the_filter_in_force(self) -> None:
        client, end = self.begin("client=192.0.2.1")
        [first] = client.read()
        self.assertEqual(first["version"], 1)
        self.assertEqual(Filter(client="192.0.2.1/32").to_json().items() - first.items(), set())
        end()

    def test_each_event_is_a_line_and_lost_ones_are_counted(self) -> None:
        client, end = self.begin()
        client.read()
        [deliver] = self.open.values()
        deliver([{"text": "EHLO a"}, {"text": "MAIL"}], 0)
        deliver([], 3)
        self.clock.advance(0.1)
        self.assertEqual(client.read(), [{"text": "EHLO a"}, {"text": "MAIL"}, {"lost": 3}])
        deliver([{"text": "RCPT"}], 0)
        self.clock.advance(0.1)
        self.assertEqual(client.read(), [{"text": "RCPT"}])
        end()

    def test_a_client_that_did_not_read_gets_lines_when_it_reads_again(self) -> None:
        client, end = self.begin()
        client.read()
        client.ready = False
        [deliver] = self.open.values()
        deliver([{"text": "EHLO a"}], 0)
        self.clock.advance(1)
        self.assertEqual(client.read(), [])
        client.ready = True
        client.resumed()
        self.assertEqual(client.read(), [{"text": "EHLO a"}])
        end()

    def test_a_trace_ends_with_its_client_and_leaves_no_timer(self) -> None:
        _, end = self.begin()
        [deliver] = self.open.values()
        deliver([{"text": "EHLO a"}], 0)
        end()
        self.assertEqual(self.open, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_number_of_traces_is_bounded(self) -> None:
        ends = [self.begin(f"client=192.0.2.{number}")[1] for number in range(MOST_TRACES)]
        refused = self.ask("")
        assert isinstance(refused, Response)
        self.assertEqual(refused.code, 409)
        self.assertIn(f"{MOST_TRACES} traces are open".encode(), refused.body)
        ends.pop()()
        ends.append(self.begin()[1])
        for end in ends:
            end()

    def test_an_invalid_filter_is_refused_and_says_why(self) -> None:
        refused = self.ask("direction=up")
        assert isinstance(refused, Response)
        self.assertEqual(refused.code, 400)
        self.assertIn(b"direction: found up, expected in or out", refused.body)
