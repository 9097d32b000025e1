"""The log of a test."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase


def logged_events(
    test: SynchronousTestCase, wanted: Callable[[LogEvent], object] = lambda event: True
) -> list[LogEvent]:
    """Return a list that gets each wanted event logged from now to the end of ``test``."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if wanted(event):
            events.append(event)

    _observe(test, observe)
    return events


def logged_lines(test: SynchronousTestCase, containing: str = "") -> list[str]:
    """Return a list that gets each line logged from now to the end of ``test``, with that text."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        line = formatEvent(event)
        if containing in line:
            lines.append(line)

    _observe(test, observe)
    return lines


def _observe(test: SynchronousTestCase, observe: Callable[[LogEvent], None]) -> None:
    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
