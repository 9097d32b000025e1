"""The history of an MTA: what it has done in each minute of a day, and in 10 minutes of a week.

The numbers are those of all processes together, as `overview` sums them. They are kept in memory
and in a file in the state directory, which holds some 2,450 rows; a file that cannot be written
costs no mail, and is written again at the next minute.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import asdict, define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Executor, WallTime
from ..system.shared_database import SharedDatabase
from ..telemetry.metrics import Snapshot, table
from .status import Status

MINUTE = 60
_KEPT = {MINUTE: 1440, 10 * MINUTE: 1008}  # slots of each length: a day, and a week
_BUCKETS = len(table.DELIVERY_DELAY.bounds) + 1

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS slot (step INTEGER NOT NULL, at INTEGER NOT NULL,"
    " numbers TEXT NOT NULL, PRIMARY KEY (step, at)) WITHOUT ROWID",
)
_PATIENCE = 5.0  # seconds

Key = tuple[int, int]
"""The length of a slot in seconds, and its beginning: wall time."""


@define
class Slot:
    """The numbers of one slot of time, or of several together.

    Attributes:
        accepted: messages.
        delivered: recipients.
        deferred: attempts that deferred a recipient.
        failed: recipients.
        refused: senders, recipients and messages that were refused.
        queue: the most recipients in the queue.
        delays: delivered recipients by the time from acceptance to delivery
            (`table.DELIVERY_DELAY`).
        minutes: that it is of.
    """

    accepted: int = 0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    refused: int = 0
    queue: int = 0
    delays: list[int] = field(factory=lambda: [0] * _BUCKETS)
    minutes: int = 0

    def add(self, other: Slot) -> None:
        """Add the numbers of another slot."""
        self.accepted += other.accepted
        self.delivered += other.delivered
        self.deferred += other.deferred
        self.failed += other.failed
        self.refused += other.refused
        self.queue = max(self.queue, other.queue)
        self.delays = [mine + more for mine, more in zip(self.delays, other.delays, strict=True)]
        self.minutes += other.minutes

    def delay(self, share: float) -> float | None:
        """Return the seconds within which a share of the deliveries was made; None: of none.

        It is estimated within the bucket of the histogram; beyond its last bound it is that.
        """
        bounds = table.DELIVERY_DELAY.bounds
        wanted = share * sum(self.delays)
        below = 0.0
        if not wanted:
            return None
        for place, count in enumerate(self.delays[:-1]):
            if below + count >= wanted:
                lower = bounds[place - 1] if place else 0.0
                return lower + (bounds[place] - lower) * (wanted - below) / count
            below += count
        return bounds[-1]

    @classmethod
    def read(cls, text: str) -> Slot:
        """Read what `write` wrote.

        Raises:
            ValueError: it has another shape.
        """
        try:
            numbers = json.loads(text)
            delays = [int(count) for count in numbers.pop("delays")]
            if len(delays) != _BUCKETS:
                delays = [0] * _BUCKETS  # other bounds: of another release
            return cls(**{name: int(number) for name, number in numbers.items()}, delays=delays)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a slot: {error!r}") from None

    def write(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self), separators=(",", ":"))


@frozen(kw_only=True)
class Span:
    """A span of time that is shown.

    Attributes:
        name: ``1h``, for addresses.
        title: for people.
        seconds: up to now.
        step: the length of the slots that it is read from; seconds.
        shown: the length of the slots that it is shown as; seconds.
    """

    name: str
    title: str
    seconds: int
    step: int
    shown: int


SPANS: Mapping[str, Span] = {
    each.name: each
    for each in (
        Span(name="1h", title="1 hour", seconds=3600, step=MINUTE, shown=MINUTE),
        Span(name="24h", title="24 hours", seconds=86_400, step=MINUTE, shown=5 * MINUTE),
        Span(name="7d", title="7 days", seconds=7 * 86_400, step=10 * MINUTE, shown=30 * MINUTE),
    )
}
"""The spans by name, the shortest first."""


class HistoryFile:
    """The file; all methods block, and raise `OSError` or `sqlite3.Error` where the disk refuses.

    Args:
        path: of the file, in a directory of its own below the state directory.
    """

    def __init__(self, path: str) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)

    def read(self) -> dict[Key, Slot]:
        """Return all slots; those that cannot be read are left out."""
        self._database.make()
        slots = {}
        with self._database.opened() as database:
            for step, at, text in database.execute("SELECT step, at, numbers FROM slot"):
                try:
                    slots[step, at] = Slot.read(text)
                except ValueError:
                    continue
        return slots

    def write(self, slots: Mapping[Key, str], now: float) -> None:
        """Write slots, and forget those that are over, or of a clock that went ahead."""
        self._database.make()
        rows = [(step, at, text) for (step, at), text in slots.items()]
        with self._database.transaction() as database:
            database.executemany("INSERT OR REPLACE INTO slot VALUES (?, ?, ?)", rows)
            for step, most in _KEPT.items():
                database.execute(
                    "DELETE FROM slot WHERE step = ? AND (at < ? OR at > ?)",
                    (step, now - step * most, now),
                )


class History:
    """Adds up what each status tells more than the one before, and keeps it.

    What was counted since the last status is of the slot in which the next one comes, so that it
    is to be asked for once a minute, or more often.

    Args:
        file: keeps the slots over restarts; None: nothing does.
        run: runs blocking calls in a thread.
        wall_time: the time of day.
    """

    _log = Logger()

    def __init__(self, file: HistoryFile | None, *, run: Executor, wall_time: WallTime) -> None:
        self._file = file
        self._run = run
        self._wall_time = wall_time
        self._slots: dict[Key, Slot] = {}
        self._changed: dict[Key, None] = {}
        self._last = Snapshot()
        self._minute = 0  # in which the last status came
        self._writing: Deferred[None] | None = None
        self._fails = False

    def load(self) -> Deferred[None]:
        """Read the slots of before the start."""
        if self._file is None:
            return succeed(None)

        def loaded(slots: Mapping[Key, Slot]) -> None:
            for key, slot in slots.items():
                if key[0] in _KEPT:
                    if key in self._slots:
                        slot.add(self._slots[key])
                        slot.minutes = min(slot.minutes, key[0] // MINUTE)
                    self._slots[key] = slot
            self._prune()

        return self._run(self._file.read).addCallbacks(loaded, self._failed)

    def take(self, status: Status) -> None:
        """Take a status; once a minute has ended, the slots are written."""
        now = status.now
        minute = int(now // MINUTE)
        more = _difference(status, self._last)
        self._last = status.metrics
        for step in _KEPT:
            key = step, int(now // step) * step
            slot = self._slots.setdefault(key, Slot())
            slot.add(more)
            slot.minutes += minute != self._minute or not slot.minutes
            self._changed[key] = None
        if minute != self._minute:
            self._minute = minute
            self._prune()
            self.flush()

    def flush(self) -> Deferred[None]:
        """Write the slots that have changed; fires when they are written, or cannot be."""
        done: Deferred[None] = Deferred()
        if self._file is None or not self._changed:
            return succeed(None)
        if self._writing is not None:  # what has changed since is written next
            self._writing.addCallback(lambda _: self.flush()).chainDeferred(done)
            return done
        written = {key: self._slots[key].write() for key in self._changed if key in self._slots}
        self._changed.clear()

        def failed(failure: Failure) -> None:
            self._changed.update(dict.fromkeys(written))
            self._failed(failure)

        def ended(_: object) -> None:
            writing, self._writing = self._writing, None
            if writing is not None:
                writing.callback(None)

        def went_well(_: object) -> None:
            self._fails = False

        self._writing = Deferred()
        self._writing.chainDeferred(done)
        wrote = self._run(self._file.write, written, self._wall_time())
        wrote.addCallbacks(went_well, failed).addBoth(ended)
        return done

    def slots(self, span: Span, now: float) -> Sequence[tuple[int, Slot | None]]:
        """Return the slots of a span, each with its beginning; None: the MTA was down.

        The last one is that of now, and is not over.
        """
        last = int(now // span.shown) * span.shown
        first = last - span.seconds + span.shown
        return [
            (at, self._together(span.step, range(at, at + span.shown, span.step)))
            for at in range(first, last + 1, span.shown)
        ]

    def _together(self, step: int, beginnings: Iterable[int]) -> Slot | None:
        found = [slot for at in beginnings if (slot := self._slots.get((step, at)))]
        if len(found) <= 1:
            return found[0] if found else None
        whole = evolve(found[0], delays=list(found[0].delays))
        for slot in found[1:]:
            whole.add(slot)
        return whole

    def _prune(self) -> None:
        now = self._wall_time()
        self._slots = {
            (step, at): slot
            for (step, at), slot in self._slots.items()
            if now - step * _KEPT[step] <= at <= now
        }

    def _failed(self, failure: Failure) -> None:
        """Log the first of several failures in a row."""
        failure.trap(OSError, sqlite3.Error)
        if not self._fails:
            self._fails = True
            self._log.warn(
                "the history of the page cannot be kept: {error}", error=failure.getErrorMessage()
            )


def _difference(status: Status, before: Snapshot) -> Slot:
    """Return what was counted since an earlier snapshot."""
    now = status.metrics

    def more(metric: Any, **labels: str) -> int:
        return max(0, int(now.total(metric, **labels) - before.total(metric, **labels)))

    delays = [
        max(0, count - earlier)
        for count, earlier in zip(_delays(now), _delays(before), strict=True)
    ]
    return Slot(
        accepted=more(table.MESSAGES_ACCEPTED),
        delivered=more(table.OUTCOMES, outcome="delivered"),
        deferred=more(table.OUTCOMES, outcome="deferred"),
        failed=more(table.OUTCOMES, outcome="failed"),
        refused=more(table.REFUSED),
        queue=status.queue.get("recipients", 0),
        delays=delays,
    )


def _delays(snapshot: Snapshot) -> list[int]:
    sums = [0] * _BUCKETS
    for key, distribution in snapshot.distributions.items():
        if key[0] is table.DELIVERY_DELAY:
            sums = [mine + more for mine, more in zip(sums, distribution.counts, strict=True)]
    return sums
