"""One webhook: its events are posted, several at a time, until it fails.

While it fails, one event at a time is posted, less and less often. An event that the receiver does
not take is tried again by itself, so that it does not keep the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import Enum
from hashlib import sha256
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import WebhookSettings
from ..config.webhook import webhook_name
from ..interfaces import Clock, Random, WallTime
from ..mail.counted import counted
from ..mail.printable import printable
from ..queue.store.webhook_events import EventCount, WaitingEvent
from ..tls.https import HTTPSError
from .outbox import Changes, Outbox, Place
from .sender import NotTaken
from .status import SURE, WebhookStatus

AT_ONCE = 8
"""Requests to one URL at a time."""

FIRST_DELAY, LONGEST_DELAY = 5.0, 600.0
"""Seconds between two attempts: after the first failure, and at most."""

_JITTER = 0.2  # of a delay, up or down
_GONE = 410  # RFC 9110 §15.5.11
_READ = 64  # events read in one go
_LOW = 16  # read events below which more are read
_GATHERED = 0.05  # seconds for which new events wait for others
_WRITTEN = 0.2  # seconds for which changes wait for others
_MOST_CHANGES = 100  # that wait
_PAUSE = 5.0  # seconds until the store is tried again
_TENDED = 60.0  # seconds between two looks at the age of events
_QUIET = 60.0  # seconds between two lines on events that were not taken
_TRIMMED = 500  # events dropped in one go
_SHOWN = 200  # characters of an error


class State(Enum):
    """The state of a webhook."""

    READY = "its events are posted"
    FAILING = "one event at a time is posted, after a pause"
    DISABLED = "nothing is posted until a reload: it has answered 410"
    STOPPED = "nothing is posted any more"


class Event(Enum):
    """An event in the life of a webhook."""

    TAKEN = "an event was taken"
    FAILED = "an event was not taken"
    GONE = "it has answered 410"
    RELOADED = "a reload"
    STOP = "stop"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.READY: {
        Event.FAILED: State.FAILING,
        Event.GONE: State.DISABLED,
        Event.STOP: State.STOPPED,
    },
    State.FAILING: {
        Event.TAKEN: State.READY,
        Event.GONE: State.DISABLED,
        Event.STOP: State.STOPPED,
    },
    State.DISABLED: {Event.RELOADED: State.READY, Event.STOP: State.STOPPED},
    State.STOPPED: {},
}
"""All transitions; an event without one changes nothing."""


Post = Callable[[WebhookSettings, Sequence[bytes], str, bytes], Coroutine[Deferred[Any], Any, None]]
"""Posts an event (`sender.Sender.post`)."""


def key_of(url: str) -> str:
    """Return the key of a webhook in the store: the same for the same URL."""
    return sha256(url.encode("ascii")).hexdigest()[:16]


class Webhook:
    """Posts the events of one webhook.

    Args:
        settings: of the webhook.
        secrets: that sign.
        outbox: where its events wait.
        post: posts one.
        clock: for delays.
        wall_time: of events.
        random: for jitter.
        most: events that may wait, and their octets; of more, the oldest are dropped.
        count: called with a result (`table.WEBHOOK_EVENTS`) and a number of events.

    Attributes:
        settings: in force.
        key: in the store.
    """

    _log = Logger()

    def __init__(
        self,
        settings: WebhookSettings,
        secrets: Sequence[bytes],
        *,
        outbox: Outbox,
        post: Post,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
        most: EventCount,
        count: Callable[[str, int], object] = lambda result, number: None,
    ) -> None:
        self.settings = settings
        self.key = key_of(settings.url)
        self._secrets = secrets
        self._outbox = outbox
        self._post = post
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._most = most
        self._count = count
        self._state = State.READY
        self._name = printable(webhook_name(settings.url))
        self._known_time = wall_time(), clock.seconds()
        # Its events.
        self._waiting = EventCount()
        self._queued: deque[tuple[Place, WaitingEvent]] = deque()  # read, and not begun
        self._under_way: dict[Place, Deferred[None]] = {}
        self._changes = Changes()
        self._being_written = Changes()
        self._more = False  # whether events may be due that were not read
        self._reading = False
        self._trimming = False
        # Its failures.
        self._failures = 0  # in a row
        self._probe_at = 0.0  # by the clock
        self._failing_since: float | None = None
        self._last_success: float | None = None
        self._error = ""
        self._dropped_at: float | None = None  # by the clock
        self._last_dropped: float | None = None
        self._quiet_until: float | None = None  # by the clock, with lines on failures
        self._untold = 0  # failures since the last line
        self._counts: dict[str, int] = {}
        # Its timers.
        self._alarm: IDelayedCall | None = None
        self._writing: IDelayedCall | None = None
        self._tending: IDelayedCall | None = None
        self._ended: list[Deferred[None]] = []

    def _enter(self, event: Event) -> None:
        """Change the state: the only place that does."""
        self._state = TRANSITIONS[self._state].get(event, self._state)

    # From outside.

    def start(self, waiting: EventCount) -> None:
        """Begin to post what waits in the store."""
        self._waiting = waiting
        if self._tending is None:
            self._tending = self._clock.callLater(_TENDED, self._tend)
        self._wake(0.0)

    def use(self, settings: WebhookSettings, secrets: Sequence[bytes]) -> None:
        """Obey other settings for the same URL; try at once, also where it was disabled."""
        self.settings, self._secrets = settings, secrets
        self._enter(Event.RELOADED)
        self._probe_at = self._clock.seconds()
        if self._tending is not None:  # it was started
            self._wake(0.0)

    def written(self, number: int, octets: int) -> None:
        """Take note of events that are in the store now."""
        self._waiting += EventCount(number, octets)
        if self._is_over_full:
            self._trim()
        if not self._more:
            self._wake(_GATHERED)

    def stop(self) -> Deferred[None]:
        """Begin no further request; fires when those under way have ended and are written."""
        self._enter(Event.STOP)
        self._queued.clear()
        for timer in (self._alarm, self._tending):
            if timer is not None and timer.active():
                timer.cancel()
        self._alarm = self._tending = None
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        self._write()
        self._report_ended()
        return ended

    def cancel(self) -> None:
        """Give up the requests under way: their events are posted again after the next start."""
        for each in list(self._under_way.values()):
            each.cancel()

    @property
    def status(self) -> WebhookStatus:
        """Its state, for people."""
        return WebhookStatus(
            key=self.key,
            url=self._name,
            state=self._state.name.lower(),
            waiting=self._waiting.number,
            octets=self._waiting.octets,
            posted=self._counts.get("posted", 0),
            failed=self._counts.get("failed", 0),
            dropped=self._counts.get("dropped", 0),
            expired=self._counts.get("expired", 0),
            failures=self._failures,
            last_success=self._last_success,
            failing_since=self._failing_since,
            last_dropped=self._last_dropped,
            error=self._error,
        )

    # Reading.

    def _wake(self, delay: float) -> None:
        """Look for due events in so many seconds, or before."""
        self._more = True
        if self._state is State.STOPPED or self._tending is None:
            return
        alarm = self._alarm
        if alarm is not None and alarm.active():
            if alarm.getTime() <= self._clock.seconds() + delay:
                return
            alarm.cancel()
        self._alarm = self._clock.callLater(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._more = True
        self._step()

    def _step(self) -> None:
        """Begin as many requests as may be made now, and read what they need."""
        if self._state in (State.DISABLED, State.STOPPED):
            return
        room = AT_ONCE - len(self._under_way)
        if self._state is State.FAILING:
            room = 1 - len(self._under_way)
            pause = self._probe_at - self._clock.seconds()
            if room > 0 and pause > 0:
                self._wake(pause)
                return
        while room > 0 and self._queued:
            self._begin(*self._queued.popleft())
            room -= 1
        if self._more and not self._reading and len(self._queued) < _LOW and room >= 0:
            self._reading = True
            reading = Deferred.fromCoroutine(self._read())
            reading.addErrback(self._not_read)

    async def _read(self) -> None:
        self._more = False
        known = dict.fromkeys(
            [
                *(place for place, _ in self._queued),
                *self._under_way,
                *self._changes.places(),
                *self._being_written.places(),
            ]
        )
        now = self._due_time()
        taken = await self._outbox.take(self.key, now, _READ + len(known))
        self._reading = False
        if self._state is State.STOPPED:
            return
        ended_since = dict.fromkeys(
            [*self._under_way, *self._changes.places(), *self._being_written.places()]
        )
        self._queued.extend(
            (place, event)
            for place, event in taken.events
            if place not in known and place not in ended_since
        )
        there = len(self._queued) + len(self._under_way)
        if there > self._waiting.number:  # some are those of a process that is no more
            octets = sum(len(event.body) for _, event in self._queued)
            self._waiting = EventCount(there, max(self._waiting.octets, octets))
        if taken.is_full:
            self._more = True
        if taken.next is not None:
            more = self._more
            self._wake(max(0.0, taken.next - now))
            self._more = more
        # Also where nothing came: events were written, and their alarm rang, meanwhile.
        if self._queued or self._more:
            self._step()

    def _not_read(self, failure: Failure) -> None:
        self._reading = False
        self._log.warn(
            "the events for {url} cannot be read, and are tried again: {error}",
            url=self._name,
            error=printable(failure.getErrorMessage()),
        )
        self._wake(_PAUSE)

    # Posting.

    def _begin(self, place: Place, event: WaitingEvent) -> None:
        was_failing = self._state is State.FAILING
        posting = Deferred.fromCoroutine(
            self._post(self.settings, self._secrets, event.name, event.body)
        )
        self._under_way[place] = posting
        posting.addCallbacks(
            self._taken,
            self._failed,
            callbackArgs=(place, event),
            errbackArgs=(place, event, was_failing),
        ).addErrback(lambda failure: self._log.failure("a webhook", failure))

    def _taken(self, _: None, place: Place, event: WaitingEvent) -> None:
        del self._under_way[place]
        self._changes.ended.append(place)
        self._left(EventCount(1, len(event.body)))
        self._add("posted", 1)
        if self._failures >= SURE:
            self._log.info("the webhook {url} takes events again", url=self._name)
        self._failures = 0
        self._failing_since, self._error = None, ""
        self._last_success = self._wall_time()
        self._enter(Event.TAKEN)
        self._ended_one()

    def _failed(
        self, failure: Failure, place: Place, event: WaitingEvent, was_failing: bool
    ) -> None:
        del self._under_way[place]
        if failure.check(CancelledError) and self._state is State.STOPPED:
            self._report_ended()
            return
        problem = failure.value
        if not isinstance(problem, HTTPSError):
            self._log.failure("an event could not be posted", failure)
        self._error = printable(failure.getErrorMessage())[:_SHOWN]
        self._add("failed", 1)
        if self._failing_since is None:
            self._failing_since = self._wall_time()
        retry_after = problem.retry_after if isinstance(problem, NotTaken) else 0.0
        # Requests that were under way together fail together, and count once.
        if was_failing or self._state is State.READY:
            self._failures += 1
            pause = 0.0
            if self._failures >= SURE:
                pause = self._delay(self._failures - SURE + 1)
            self._probe_at = self._clock.seconds() + max(pause, retry_after)
        self._tell(event)
        delay = max(self._delay(event.attempts + 1), retry_after)
        next_attempt = self._due_time() + delay
        self._changes.postponed.append((place, event.attempts + 1, next_attempt))
        self._wake(delay + _WRITTEN)
        if isinstance(problem, NotTaken) and problem.code == _GONE:
            if self._state is not State.DISABLED:
                self._log.error(
                    "the webhook {url} answers 410, and is disabled until a reload", url=self._name
                )
            self._enter(Event.GONE)
        self._enter(Event.FAILED)
        self._ended_one()

    def _tell(self, event: WaitingEvent) -> None:
        """Log that an event was not taken: one line a minute, with the number of the others."""
        now = self._clock.seconds()
        if self._quiet_until is not None and now < self._quiet_until:
            self._untold += 1
            return
        untold, self._untold = self._untold, 0
        self._quiet_until = now + _QUIET
        self._log.warn(
            "the webhook {url} has not taken the event {event}: attempt={attempts} {error}",
            url=self._name,
            event=event.name,
            attempts=event.attempts + 1,
            error=self._error,
        )
        if untold:
            self._log.warn(
                "the webhook {url} has not taken events: {_attempts} since the last line",
                url=self._name,
                count=untold,
                _attempts=counted(untold, "more attempt"),
            )

    def _due_time(self) -> float:
        """Return the wall time by which events are due: where the clock is set back, it goes on."""
        now = self._clock.seconds()
        wall, at = self._known_time
        self._known_time = max(self._wall_time(), wall + now - at), now
        return self._known_time[0]

    def _delay(self, failures: int) -> float:
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 30), LONGEST_DELAY)
        return delay * (1 + _JITTER * (2 * self._random.random() - 1))

    def _ended_one(self) -> None:
        if len(self._changes) >= _MOST_CHANGES or self._state is State.STOPPED:
            self._write()
        elif self._writing is None:
            self._writing = self._clock.callLater(_WRITTEN, self._write)
        self._step()
        self._report_ended()

    # Writing.

    def _write(self) -> None:
        """Write what was posted and postponed."""
        timer, self._writing = self._writing, None
        if timer is not None and timer.active():
            timer.cancel()
        if not self._changes or self._being_written:
            return
        self._being_written, self._changes = self._changes, Changes()
        Deferred.fromCoroutine(self._outbox.change(self._being_written)).addCallbacks(
            self._were_written, self._not_written
        )

    def _were_written(self, _: None) -> None:
        self._being_written = Changes()
        if self._changes:
            self._write()
        self._report_ended()

    def _not_written(self, failure: Failure) -> None:
        # Events that were posted are posted again after a start, unless this is written before.
        again, self._being_written = self._being_written, Changes()
        self._changes.ended.extend(again.ended)
        self._changes.postponed.extend(again.postponed)
        if self._state is State.STOPPED:
            self._changes = Changes()
            self._report_ended()
        elif self._writing is None:
            self._writing = self._clock.callLater(_PAUSE, self._write)

    def _report_ended(self) -> None:
        if self._state is not State.STOPPED or self._under_way:
            return
        if self._changes or self._being_written:
            return
        ended, self._ended = self._ended, []
        for each in ended:
            each.callback(None)

    # Bounds.

    @property
    def _is_over_full(self) -> bool:
        most = self._most
        return self._waiting.number > most.number or self._waiting.octets > most.octets

    def _left(self, gone: EventCount) -> None:
        # An event may be dropped while it is posted.
        self._waiting = EventCount(
            max(0, self._waiting.number - gone.number), max(0, self._waiting.octets - gone.octets)
        )

    def _add(self, result: str, number: int) -> None:
        self._counts[result] = self._counts.get(result, 0) + number
        self._count(result, number)

    def _trim(self) -> None:
        if not self._trimming and self._state is not State.STOPPED:
            self._trimming = True
            trimming = Deferred.fromCoroutine(self._drop_oldest())
            trimming.addErrback(self._not_trimmed)

    async def _drop_oldest(self) -> None:
        """Drop events until there is room for new ones, a hundredth of all."""
        while self._is_over_full and self._state is not State.STOPPED:
            limit = min(_TRIMMED, max(1, self._most.number // 100))
            if not await self._drop("dropped", limit):
                break
        self._trimming = False

    async def _drop(self, result: str, limit: int, before: float | None = None) -> int:
        dropped = await self._outbox.drop(self.key, limit, before)
        self._left(dropped)
        if dropped.number:
            if self._dropped_at is None or self._clock.seconds() - self._dropped_at > _TENDED:
                self._log.error(
                    "events for the webhook {url} are dropped: {reason}",
                    url=self._name,
                    reason="too many wait" if before is None else "they wait for too long",
                )
            self._dropped_at = self._clock.seconds()
            self._last_dropped = self._wall_time()
            self._add(result, dropped.number)
        return dropped.number

    def _not_trimmed(self, failure: Failure) -> None:
        self._trimming = False
        self._log.warn(
            "the events for {url} cannot be dropped now: {error}",
            url=self._name,
            error=printable(failure.getErrorMessage()),
        )

    def _tend(self) -> None:
        """Drop what is too old; look for events that came by another way."""
        self._tending = self._clock.callLater(_TENDED, self._tend)
        self._wake(0.0)
        if self._waiting.number and not self._trimming:
            self._trimming = True
            Deferred.fromCoroutine(self._drop_old()).addErrback(self._not_trimmed)

    async def _drop_old(self) -> None:
        before = self._wall_time() - self.settings.lifetime
        while await self._drop("expired", _TRIMMED, before) == _TRIMMED:
            pass
        self._trimming = False
        if self._is_over_full:
            self._trim()
