"""Live traces over HTTP: a line of JSON for each line of a session, until the reader hangs up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ..interfaces import Clock
from ..telemetry.tracing import MOST_TRACES, Buffer, Event, Filter
from .http import Outlet, Request, Response, Stream, error_response
from .questions import Deliver
from .status import VERSION


class Traces:
    """Opens traces for clients.

    Args:
        open_trace: see `questions.Agents.trace`.
        clock: for buffers.
    """

    def __init__(
        self, open_trace: Callable[[Filter, Deliver], Callable[[], object]], *, clock: Clock
    ) -> None:
        self._open_trace = open_trace
        self._clock = clock
        self._open = 0

    def answer(self, request: Request) -> Response | Stream:
        """Answer a request whose query is a `Filter`."""
        try:
            wanted = Filter.parse(request.parameters)
        except ValueError as error:
            return error_response(str(error), 400)
        if self._open >= MOST_TRACES:
            return error_response(f"{self._open} traces are open; end one of them", 409)
        return Stream(lambda outlet: self._begin(wanted, outlet))

    def _begin(self, wanted: Filter, outlet: Outlet) -> Callable[[], object]:
        """Open a trace for a client; return a function that ends it."""

        def write(events: Sequence[Event], lost: int) -> None:
            lines = [json.dumps(event) for event in events]
            if lost:
                lines.append(json.dumps({"lost": lost}))
            outlet.write("".join(f"{line}\n" for line in lines).encode("ascii"))

        def take(events: Sequence[Event], lost: int) -> None:
            for event in events:
                buffer.put(event)
            if lost:
                buffer.lose(lost)

        def end() -> None:
            self._open -= 1
            buffer.close()
            close()

        buffer = Buffer(clock=self._clock, deliver=write, ready=lambda: outlet.ready)
        outlet.resumed = buffer.flush
        outlet.write(json.dumps({"version": VERSION, **wanted.to_json()}).encode() + b"\n")
        self._open += 1
        close = self._open_trace(wanted, take)
        return end
