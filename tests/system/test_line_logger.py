"""The logger for lines of each message emits the events that Twisted's emits."""

from __future__ import annotations

from twisted.logger import LogEvent, Logger

from tests.logs import logged_events
from tests.tidy import TidyTestCase
from twisted_mta.system.line_logger import LineLogger

_NAMED = "test_line_logger.Source"


class Source:
    """An object that logs the same with both loggers."""

    ours = LineLogger()
    theirs = Logger()

    def log(self) -> None:
        self.ours.info("{id} is here", id=7)
        self.theirs.info("{id} is here", id=7)


class LineLoggerTests(TidyTestCase):
    def events(self) -> list[LogEvent]:
        events = logged_events(self, lambda event: event["log_namespace"].endswith(_NAMED))
        Source().log()
        return events

    def test_an_event_has_the_fields_of_twisteds_and_no_source(self) -> None:
        ours, theirs = self.events()
        for name in ("id", "log_format", "log_level", "log_namespace"):
            self.assertEqual(ours[name], theirs[name])
        self.assertEqual(list(ours), list(theirs))
        self.assertIsNone(ours["log_source"])
        self.assertIs(ours["log_logger"], Source.ours)
        self.assertLess(abs(ours["log_time"] - theirs["log_time"]), 60)

    def test_other_levels_are_logged_as_by_twisteds(self) -> None:
        events = logged_events(self, lambda event: event["log_namespace"].endswith(_NAMED))
        Source.ours.warn("{id} is late", id=7)
        self.assertEqual([each["log_level"].name for each in events], ["warn"])
