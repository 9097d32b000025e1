"""Watches for mail that has been here for long, so that its senders hear of it once.

An attempt that comes late tells of the delay itself (`settlement`). Here is what is not attempted
meanwhile: its next attempt lies ahead, its next hop is left alone, or it has no turn. Messages are
looked at in the order of their age, each once: ids are ordered so, and the store remembers who was
told. After a restart it begins again with the oldest.
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
from .ids import first_id
from .notices import NOTHING, Notices
from .store.contract import Leased, Overdue, Settle

_START = QueueId(0)

Record = Callable[[Settle, Sequence[Action]], None]
"""Records what was found, and begins with the delivery of its notices."""


class DelayWatch:
    """Looks for delayed mail from time to time.

    Args:
        commit: the store.
        notices: says whom to tell after how long, and writes it.
        clock: for pauses.
        wall_time: for the age of messages.
        events: says how each recipient of a message stands, in the order of the envelope.
        record: see there.
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
        self._through = _START  # all up to it was looked at
        self._running = False
        self._looking = False
        self._alarm: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look, also anew when the settings have changed."""
        self._running = True
        self._through = _START
        if not self._looking:
            self._wait(0)

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        self._cancel()

    def arrived(self, message: Message) -> None:
        """A message is in the queue: one that took long to arrive is older than its neighbours."""
        if message.id <= self._through:
            self._through = QueueId(message.id - 1)

    @property
    def _pause(self) -> float:
        """Seconds between two looks: a warning comes late by no more than that."""
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
            self._wait(self._pause)
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
        try:
            for message in leased.messages:
                self._tell(message, now)
        finally:
            self._wait(self._pause if leased.through is None else 0)

    def _not_looked(self, failure: Failure) -> None:
        self._looking = False
        self._wait(self._pause)

    def _tell(self, message: Message, now: float) -> None:
        written = NOTHING
        try:
            delayed = [
                event
                for event in self._events(message)
                if self._notices.is_delay_due(message, event.recipient, now)
            ]
            written = self._notices.write(message, now, delayed=delayed)
        except Exception:
            self._log.failure("whether {id} is delayed cannot be said", id=message.id)
        numbers = tuple(each.number for each in message.envelope.recipients)
        settle = Settle(
            message,
            notices=written.messages,
            warned=written.warned,
            untried=numbers,
            at=now,
        )
        self._record(settle, written.actions)
