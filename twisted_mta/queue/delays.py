"""Delays: find mail that has waited for long without an attempt, and report it to its sender once.

A late attempt reports the delay itself (`settlement`). Mail is found here that is not tried
meanwhile: its next attempt lies ahead, its next hop is suspended, or its turn has not come.
Messages are looked at once, in the order of their age, which is that of their ids; the store
remembers which delays were reported. After a restart this begins again with the oldest message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, WallTime
from ..mail.message import Message
from ..mail.queue_id import QueueId
from ..message.dsn.delivery_status import Action, ReportedRecipient
from .commit import GroupCommit
from .ids import first_id, time_of
from .notices import NOTHING, Notices
from .store.contract import Leased, Overdue, Settle

_START = QueueId(0)
_LONGEST_REST = 3_600.0  # seconds between two looks, with or without mail that could be delayed

Record = Callable[[Settle, Sequence[Action]], None]
"""Commits a settle, and takes in its notices, which have these actions."""


class DelayWatch:
    """Looks for delayed mail from time to time.

    Args:
        commit: the store.
        notices: decides which delays are due for a report, and writes it.
        clock: for pauses.
        wall_time: for the age of messages.
        events: returns why each recipient of a message was not delivered yet, in the order of the
            envelope.
        record: commits the reports.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        commit: GroupCommit,
        notices: Notices,
        clock: Clock,
        wall_time: WallTime,
        events: Callable[[Message], Sequence[ReportedRecipient]],
        record: Record,
    ) -> None:
        self._commit = commit
        self._notices = notices
        self._clock = clock
        self._wall_time = wall_time
        self._events = events
        self._record = record
        self._through = _START  # messages up to this id were looked at
        self._next = _START  # the first message that was not, or one before it
        self._newest = _START  # no message is newer, as far as this process knows
        self._running = False
        self._looking = False
        self._alarm: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look, or begin again with the oldest message: the settings have changed."""
        self._running = True
        self._through = self._next = _START
        self._newest = max(self._newest, first_id(self._wall_time()))
        if not self._looking:
            self._wait(0)

    def stop(self) -> None:
        """Stop looking."""
        self._running = False
        self._cancel()

    def arrived(self, message: Message) -> None:
        """Note that a message is in the queue; one that took long to arrive has a low id."""
        if message.id <= self._through:
            self._through = QueueId(message.id - 1)
        if self._newest <= self._through or message.id < self._next:
            self._next = message.id
            self._newest = max(self._newest, message.id)
            if self._alarm is not None:
                rest = self._rest
                if rest < self._alarm.getTime() - self._clock.seconds():
                    self._wait(rest)
        self._newest = max(self._newest, message.id)

    @property
    def _rest(self) -> float:
        """Seconds until the next look: to when the next message has waited for long."""
        if self._newest <= self._through:
            return _LONGEST_REST
        after = self._notices.settings.delay_warning or 0.0
        # Ids are looked at that are older by a whole millisecond.
        oldest = time_of(max(self._next, self._through)) + 0.001
        seconds = oldest + after - self._wall_time()
        return min(max(seconds, self._pause), _LONGEST_REST)

    @property
    def _pause(self) -> float:
        """Seconds between two looks: a report comes late by no more than that."""
        return min(300.0, max(1.0, (self._notices.settings.delay_warning or 0.0) / 32))

    def _cancel(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None and alarm.active():
            alarm.cancel()

    def _wait(self, seconds: float) -> None:
        self._cancel()
        if self._running and self._notices.settings.delay_warning is not None:
            self._alarm = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._alarm = None
        after = self._notices.settings.delay_warning
        if after is None:
            return
        before = first_id(self._wall_time() - after)
        if before <= self._through:
            self._wait(self._rest)
            return
        self._looking = True
        self._commit.perform(Overdue(self._through, before)).addCallbacks(
            self._looked, self._not_looked, callbackArgs=(before,)
        )

    def _looked(self, leased: Leased | None, before: QueueId) -> None:
        assert leased is not None
        self._looking = False
        if not self._running:
            return  # the leases end with the process
        self._through = QueueId(before - 1) if leased.through is None else leased.through
        now = self._wall_time()
        for message in leased.messages:
            try:
                self._report(message, now)
            except Exception:
                self._log.failure("the delay of {id} could not be reported", id=message.id)
        self._wait(self._rest if leased.through is None else 0)

    def _not_looked(self, failure: Failure) -> None:
        self._looking = False
        self._wait(self._pause)

    def _report(self, message: Message, now: float) -> None:
        written = NOTHING
        try:
            delayed = [
                event
                for event in self._events(message)
                if self._notices.is_delay_due(message, event.recipient, now)
            ]
            written = self._notices.write(message, now, delayed=delayed)
        except Exception:
            self._log.failure("the delay of {id} could not be reported", id=message.id)
        numbers = tuple(each.number for each in message.envelope.recipients)
        settle = Settle(
            message,
            notices=written.messages,
            warned=written.warned,
            untried=numbers,
            at=now,
        )
        try:
            self._record(settle, written.actions)
        except Exception:  # it is leased, and must not stay so
            self._log.failure("the delay of {id} could not be reported", id=message.id)
            self._record(Settle(message, untried=numbers), ())
