"""The credits of limits that this machine has, and when it asks the database for others.

Theory of operation. A limit that holds for all machines is a number of *credits* in the database.
A machine leases some of them (`exchange`), and grants them to its processes as it grants those of
limits of its own (`workers.ledger`). It keeps a credit that comes free for some seconds, so that
steady load needs no transaction.

A machine that has too few credits writes how many it waits for. Each machine that has more than
its fair part then (`fair_parts`) returns the surplus, at once where it is not in use, else as it
comes free; the database wakes both.

The credits are this machine's as long as it renews them (`Standing`). Without the database it goes
on with its *share*: the limit divided by the machines that were last seen alive, at least 1. It
begins with that once the credits of all others have ended too.

Two kinds of limits need no credits. Those of next hops without settings of their own are many and
not promised to anybody: each machine has its share of them. And failures to authenticate are
counted by each machine for itself; it subtracts the counts of the others, as of a moment ago.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

from attrs import define, frozen

from ..interfaces import Clock, LimitKey
from .failures import FailuresElsewhere

LEASE = 15.0
"""Seconds after its last transaction at which the credits of a machine are free, by the database's
clock."""

CERTAIN = 12.0
"""Seconds after the begin of its last transaction for which a machine relies on its credits, by its
own clock: the rest is for transactions with next hops to end."""

_PATIENCE = 1.0  # seconds that a request waits for credits that others have and do not use
_PORTIONS = 8  # of the fair part of a machine: it asks for one of them at a time
_HOUR = 3600.0


class Standing(enum.Enum):
    """What a machine may rely on."""

    JOINING = "it has no credits yet"
    CERTAIN = "its credits are its own"
    DOUBTFUL = "its credits are about to end: it uses no more than its share of them"
    ALONE = "its credits have ended, and it goes on with its share"


class StandingEvent(enum.Enum):
    """A transaction with the database, or none for some time."""

    RENEWED = "renewed"
    IN_DOUBT = "12 s without a transaction"
    ENDED = "15 s without a transaction"


TRANSITIONS: Mapping[Standing, Mapping[StandingEvent, Standing]] = {
    Standing.JOINING: {
        StandingEvent.RENEWED: Standing.CERTAIN,
        StandingEvent.ENDED: Standing.ALONE,
    },
    Standing.CERTAIN: {
        StandingEvent.RENEWED: Standing.CERTAIN,
        StandingEvent.IN_DOUBT: Standing.DOUBTFUL,
    },
    Standing.DOUBTFUL: {
        StandingEvent.RENEWED: Standing.CERTAIN,
        StandingEvent.ENDED: Standing.ALONE,
    },
    Standing.ALONE: {StandingEvent.RENEWED: Standing.CERTAIN},
}


@frozen
class Request:
    """What a machine holds and wants of one limit; the database is told.

    Attributes:
        key: of the limit.
        limit: its credits.
        held: credits that the machine keeps.
        spare: those of them that are not in use.
        wanted: further credits.
        hold: seconds for which its credits count after its end.
        returned: credits that it held before, and does not any more.
    """

    key: LimitKey
    limit: int
    held: int
    spare: int
    wanted: int
    hold: float
    returned: int = 0


@frozen
class Grant:
    """The answer to a `Request`.

    Attributes:
        key: of the limit.
        granted: credits that the machine has from now on, beyond those that it held.
        part: credits that it should have in all; None: no other machine wants any.
        spare_elsewhere: whether others have credits that they do not use.
    """

    key: LimitKey
    granted: int
    part: int | None
    spare_elsewhere: bool


@define(eq=False)
class _Part:
    """The credits of one limit in this machine."""

    limit: int
    hold: float
    granted: int = 0
    used: int = 0
    wanted: int = 0  # by requests that wait; of these `taking` do not wait for long
    taking: int = 0
    asked: int = 0  # credits that the database was asked for the last time
    part: int | None = None  # see `Grant`
    unused: int = 0  # the fewest that were spare since the last beat
    refused: bool = False  # requests that do not wait are to be refused
    patient_until: float | None = None  # they wait for credits of others so long
    dirty: bool = False

    @property
    def spare(self) -> int:
        return max(0, self.granted - self.used)

    @property
    def surplus(self) -> int:
        """Credits that others should have, and that are not in use."""
        return 0 if self.part is None else min(self.spare, max(0, self.granted - self.part))


class Credits:
    """The credits of this machine (`workers.ledger.Upstream`).

    Args:
        clock: for the standing.
        wake: called when the database is to be told something; it may not call back at once.

    Attributes:
        serve: called with a limit that may have more credits now, or refuses what waits.
        machines: how many were last seen alive, this one included.
        standing: see `Standing`.
        failures: to authenticate, that other machines have counted.
        ends: whether this machine is about to leave: what it has used lately counts on.
    """

    def __init__(self, *, clock: Clock, wake: Callable[[], object]) -> None:
        self._clock = clock
        self._wake = wake
        self.serve: Callable[[LimitKey], object] = lambda key: None
        self.machines = 1
        self.standing = Standing.JOINING
        self.ends = False
        self.failures = FailuresElsewhere()
        self._parts: dict[LimitKey, _Part] = {}
        self._renewed = clock.seconds()

    # For the ledger.

    def hold(self, key: LimitKey) -> float | None:
        """Return for how long credits of a limit count after their use; None: it has no credits."""
        match key:
            case ("destination", *_):
                return 0.0
            case ("rate", *_, period):
                return float(period)
            case ("submitted", *_):
                return _HOUR
        return None

    def governs(self, key: LimitKey) -> bool:
        """Whether all machines together have the credits of a limit."""
        return self.hold(key) is not None

    def adjusted(self, key: LimitKey, limit: int) -> int:
        """Return the limit of this machine where it has no credits of it."""
        if key[0] == "hop":
            return self.share(limit)
        if key[0] == "auth failures":
            return max(0, limit - self.failures[key])
        return limit

    def share(self, limit: int) -> int:
        """Return the part of a limit that this machine has without asking."""
        return max(1, limit // self.machines)

    def ceiling(self, key: LimitKey, limit: int) -> int:
        """Return how many credits may be in use now."""
        part = self._parts.get(key)
        granted = 0 if part is None else part.granted
        if part is not None and part.part is not None:
            granted = min(granted, part.part)
        match self._look():
            case Standing.CERTAIN:
                return min(granted, limit)
            case Standing.DOUBTFUL:
                return min(granted, self.share(limit))
            case Standing.ALONE:
                return self.share(limit)
        return 0

    def note(self, key: LimitKey, limit: int, *, used: int, waiting: int, taking: int) -> bool:
        """Take note of the use of a limit.

        Args:
            key: of the limit.
            limit: its credits.
            used: credits in use.
            waiting: requests that wait as long as it takes.
            taking: requests that are refused if there is no credit for them.

        Returns:
            Whether those are to be refused now.
        """
        part = self._parts.get(key)
        if part is None:
            if not used and not waiting and not taking:
                return False
            part = self._parts[key] = _Part(limit, self.hold(key) or 0.0)
        part.limit = limit
        part.used = max(used, part.used) if self.ends and part.hold else used
        part.unused = min(part.unused, part.spare)
        alone = self._look() in (Standing.DOUBTFUL, Standing.ALONE)
        refused, part.refused = bool(taking) and (part.refused or alone), False
        if refused:
            taking = 0
        wanted = waiting + taking
        if bool(wanted) != bool(part.wanted) or taking > part.taking or part.surplus:
            part.dirty = True
            self._wake()
        part.wanted, part.taking = wanted, taking
        if not taking:
            part.patient_until = None
        return refused

    # The standing.

    def _look(self) -> Standing:
        """Return the standing by the clock."""
        silent = self._clock.seconds() - self._renewed
        if silent >= CERTAIN and self.standing is Standing.CERTAIN:
            self.standing = TRANSITIONS[self.standing][StandingEvent.IN_DOUBT]
        if silent >= LEASE and self.standing in (Standing.DOUBTFUL, Standing.JOINING):
            self.standing = TRANSITIONS[self.standing][StandingEvent.ENDED]
        return self.standing

    def look(self) -> None:
        """Go by the clock: without the database, serve requests from the share."""
        before = self.standing
        if self._look() is not before:
            for key in list(self._parts):
                self.serve(key)

    # For the exchange with the database.

    @property
    def has_news(self) -> bool:
        """Whether the database is to be told something."""
        return any(part.dirty for part in self._parts.values())

    def requests(self, *, beat: bool, heard: bool = False, anew: bool = False) -> list[Request]:
        """Return what the database is to be told; what is returned to it is not used from now on.

        Args:
            beat: whether some seconds have passed since the last one: credits that were spare all
                the time are returned, and requests that wait are repeated.
            heard: whether another machine has woken this one: what waits may be served now.
            anew: whether this machine was taken for dead: only what it uses counts.
        """
        requests = []
        if anew:
            for part in self._parts.values():
                part.granted, part.part, part.dirty = part.used, None, True
        for key, part in list(self._parts.items()):
            idle = part.unused if beat and not part.wanted else 0
            if beat:
                part.unused = part.spare
            back = min(part.spare, max(part.surplus, idle))
            waits = (beat or heard) and (
                part.wanted or part.part is not None or part.granted < part.used
            )
            if not (part.dirty or back or waits):
                continue
            part.dirty = False
            part.granted = max(part.granted - back, part.used)
            part.unused = min(part.unused, part.spare)
            part.asked = self._wish(part)
            requests.append(
                Request(key, part.limit, part.granted, part.spare, part.asked, part.hold, back)
            )
        return requests

    def _wish(self, part: _Part) -> int:
        if not part.wanted:
            return 0
        portion = part.limit // (self.machines * _PORTIONS)
        return min(max(part.wanted, portion), max(0, part.limit - part.granted))

    def exchanged(
        self, begun: float, machines: int, grants: Sequence[Grant], wanted: Sequence[LimitKey]
    ) -> None:
        """Take the answers of the database.

        Args:
            begun: when the transaction began, by the clock.
            machines: how many are alive.
            grants: the answers.
            wanted: limits of which other machines want credits.
        """
        self._renewed = begun
        self.standing = TRANSITIONS[self.standing][StandingEvent.RENEWED]
        changed = machines != self.machines
        self.machines = max(1, machines)
        for grant in grants:
            part = self._parts[grant.key]
            part.granted += grant.granted
            part.part = grant.part
            self._judge(part, grant)
        for key in wanted:
            of_others = self._parts.get(key)
            if of_others is not None and of_others.granted and of_others.part is None:
                of_others.dirty = True
        for key in [grant.key for grant in grants] if not changed else list(self._parts):
            self.serve(key)
        for grant in grants:
            part = self._parts[grant.key]
            if part.surplus or (part.wanted and grant.granted and grant.granted == part.asked):
                part.dirty = True
            if not (part.granted or part.used or part.wanted or part.dirty):
                del self._parts[grant.key]

    def failed(self, requests: Sequence[Request]) -> None:
        """Take note that the database could not be told, for certain."""
        for each in requests:
            self._parts[each.key].dirty = True

    def _judge(self, part: _Part, grant: Grant) -> None:
        """Decide whether requests that do not wait are to be refused."""
        if grant.granted or not part.taking:
            part.patient_until = None
            return
        now = self._clock.seconds()
        if part.patient_until is None:
            part.patient_until = now + _PATIENCE
        part.refused = not grant.spare_elsewhere or now >= part.patient_until

    @property
    def impatient_at(self) -> float | None:
        """When a request that waits for credits of others is to be refused, by the clock."""
        parts = self._parts.values()
        return min((each.patient_until for each in parts if each.patient_until), default=None)

    def repeat_impatient(self) -> None:
        """Ask once more for requests whose patience is over."""
        now = self._clock.seconds()
        for part in self._parts.values():
            if part.patient_until is not None and now >= part.patient_until:
                part.dirty = True

    def holdings(self) -> dict[LimitKey, tuple[int, int]]:
        """Return the credits that this machine has and those in use, by limit."""
        return {key: (part.granted, part.used) for key, part in self._parts.items()}
