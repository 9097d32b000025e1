"""The backlog: mail that waits in the store, and is read when there are places in memory for it.

Of a queue of any length, one time for each recipient domain is in memory. A lease names the domains
whose mail it wants, so that mail of domains that are blocked is not even looked at. Domains whose
mail the operator has suspended are set aside, until they are resumed; now and then their expired
mail is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, WallTime
from ...mail.message import Message
from ...mail.next_hop import NextHop
from ..commit import GroupCommit
from ..ids import first_id
from ..store.contract import Lease, Leased, Survey, Want
from .due_times import DueTimes
from .fair_share import FairShare, Reading
from .next_hop_queue import NextHopQueue

_PAUSE = 5.0  # seconds until an operation that the store could not do is tried again
# Seconds; the wall clock may be set ahead meanwhile, and the mail that it passes is due. Looking
# reads nothing from the disk.
_LONGEST_SLEEP = 60.0
_STEP = 30.0  # seconds that the wall clock may fall behind the monotonic one without consequence
_SWEPT = 100  # expired messages that are read at once
_SWEPT_DOMAINS = 50  # suspended domains whose expired mail is read at once
_SWEEP_INTERVAL = 3600.0  # seconds between two looks for expired mail of suspended domains
_ADDED = 100  # due domains that find their next hop in one turn of the reactor: some 4 ms
_PLANNED = 2000  # domains of a survey whose times are noted in one turn: likewise

TakeIn = Callable[[Sequence[Message]], Mapping[str, None]]
"""Takes leased messages into memory; returns the domains whose mail has expired."""


class Limits(Protocol):
    """The settings of a runner that the backlog needs."""

    @property
    def latest(self) -> float:
        """Seconds that a recipient is put off at most."""
        ...

    @property
    def lifetime(self) -> float:
        """Seconds that a message is tried, where its next hop has no lifetime of its own."""
        ...


class Backlog:
    """Reads due mail from the store.

    Args:
        commit: the store.
        fair_share: claims places for the mail.
        clock: for pauses.
        wall_time: for due times.
        next_hop_of: returns the next hop of a domain.
        take_in: takes leased mail into memory; also called without any where something changed.
        is_suspended: whether the operator has suspended a domain, or its next hop.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        commit: GroupCommit,
        fair_share: FairShare,
        clock: Clock,
        wall_time: WallTime,
        next_hop_of: Callable[[str], NextHop],
        take_in: TakeIn,
        is_suspended: Callable[[str, NextHop], bool],
    ) -> None:
        self._commit = commit
        self._fair_share = fair_share
        self._clock = clock
        self._wall_time = wall_time
        self._next_hop_of = next_hop_of
        self._take_in = take_in
        self._is_suspended = is_suspended
        self._suspended: dict[str, float] = {}  # due times of domains that are set aside
        self._sweep: deque[str] = deque()  # suspended domains whose expired mail is to be read
        self._sweep_at: float | None = None  # by the clock; then all of them are
        self._due_times = DueTimes()
        self._reading = False
        self._surveyed = True
        self._paused_until = 0.0  # by the clock
        self._offset = 0.0  # of the wall clock to the monotonic one, the highest so far
        self._set_back = 0.0  # seconds that the wall clock was set back by since the last survey

    @property
    def has_work(self) -> bool:
        """Whether mail is being read, or may be due that was not looked at yet."""
        earliest = self._due_times.earliest()
        due = earliest is not None and earliest <= self._wall_time()
        return self._reading or not self._surveyed or due

    def survey(self) -> None:
        """List all domains of the store with the next `read`."""
        self._surveyed = False
        self._offset = self._wall_time() - self._clock.seconds()

    def plan(self, domain: str, due: float) -> None:
        """Note that mail of a domain waits in the store and is due at ``due`` (wall time)."""
        # Else an earlier time is noted.
        if not self._fair_share.is_due(domain) and domain not in self._suspended:
            self._due_times.add(domain, due)

    def domains(self) -> list[str]:
        """Return the domains whose mail waits in the store."""
        return [*self._due_times, *self._fair_share.due_domains(), *self._suspended]

    def suspended_domains(self) -> Sequence[str]:
        """Return the domains with due mail that are set aside."""
        return list(self._suspended)

    def reconsider(self) -> None:
        """Look again at which domains are suspended: that, or the routes, have changed."""
        suspended, self._suspended = self._suspended, {}
        self._sweep.clear()
        self._sweep_at = None
        for domain, due in suspended.items():
            self.plan(domain, due)

    def note(self, message: Message) -> None:
        """Note that a message is in the store and not leased."""
        if message.assessment.hold:
            return
        for recipient in message.envelope.recipients:
            # No recipient is due before its message is received and released.
            self.plan(recipient.mailbox.domain, message.released_at)

    def read(self, settings: Limits) -> float | None:
        """Read the mail that there are places for, unless some is being read.

        Returns:
            When to call this again, by the clock, if nothing happens before; None: no mail waits.
        """
        now, time = self._clock.seconds(), self._wall_time()
        self._watch_clock(now, time)
        for due, domain in self._due_times.take_due(time, _ADDED):
            next_hop = self._next_hop_of(domain)
            if self._is_suspended(domain, next_hop):
                self._set_aside(domain, due, now)
            else:
                self._fair_share.add_due(domain, due, next_hop)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep = deque(self._suspended)
            self._sweep_at = now + _SWEEP_INTERVAL
        if not self._reading:
            if now < self._paused_until:
                return self._paused_until
            self._begin_reading(now, time, settings)
        earliest = self._due_times.earliest()
        if earliest is None:
            return self._sweep_at
        next_due = now + max(0.0, min(earliest - time, _LONGEST_SLEEP))
        return next_due if self._sweep_at is None else min(next_due, self._sweep_at)

    def _set_aside(self, domain: str, due: float, now: float) -> None:
        """Leave the mail of a suspended domain in the store, but for what has expired."""
        self._suspended[domain] = due
        self._sweep.append(domain)
        if self._sweep_at is None:
            self._sweep_at = now + _SWEEP_INTERVAL

    def _watch_clock(self, now: float, time: float) -> None:
        """Make mail due earlier where the wall clock was set back, by the same time."""
        offset = time - now
        if offset < self._offset - _STEP:
            seconds = self._offset - offset
            self._log.warn("the wall clock was set back by {seconds:.0f} s", seconds=seconds)
            self._set_back += seconds
            self.survey()
        self._offset = max(offset, self._offset)

    def _begin_reading(self, now: float, time: float, settings: Limits) -> None:
        if not self._surveyed:
            self._reading = True
            survey = Survey(time, time + settings.latest, self._set_back)
            self._commit.perform(survey).addCallbacks(
                self._was_surveyed,
                self._not_read,
                callbackArgs=(survey,),
                errbackArgs=((),),
            ).addErrback(self._survey_again)
        elif readings := self._fair_share.readings(now):
            self._reading = True
            maybeDeferred(self._lease, time, readings).addCallbacks(
                self._leased, self._not_read, callbackArgs=(readings,), errbackArgs=(readings,)
            ).addErrback(self._survey_again)
        elif sweeps := self._fair_share.sweeps():
            self._reading = True
            limit = max(1, _SWEPT // len(sweeps))
            wants = tuple(
                Want(domain, limit, first_id(time - _lifetime(queue, settings)))
                for queue, domain in sweeps
            )
            self._commit.perform(Lease(time, wants)).addCallbacks(
                self._swept, self._not_read, callbackArgs=(sweeps,), errbackArgs=((),)
            ).addErrback(self._survey_again)
        elif self._sweep:
            self._reading = True
            few = min(_SWEPT_DOMAINS, len(self._sweep))
            domains = [self._sweep.popleft() for _ in range(few)]
            wants = tuple(
                Want(domain, _SWEPT // few, first_id(time - self._lifetime_of(domain, settings)))
                for domain in domains
            )
            self._commit.perform(Lease(time, wants)).addCallbacks(
                self._swept_suspended, self._not_read, callbackArgs=(domains,), errbackArgs=((),)
            ).addErrback(self._survey_again)

    def _lease(self, time: float, readings: Sequence[Reading]) -> Deferred[Any]:
        wants = tuple(Want(each.domain, each.places) for each in readings)
        return self._commit.perform(Lease(time, wants, self._fair_share.companions(readings)))

    def _was_surveyed(self, surveyed: Leased | None, survey: Survey) -> None:
        assert surveyed is not None
        self._reading = False
        self._set_back -= survey.set_back
        self._surveyed = self._set_back == 0  # else the clock was set back again meanwhile
        self._plan_rest(surveyed)
        self._take_in(())

    def _leased(self, leased: Leased | None, readings: Sequence[Reading]) -> None:
        assert leased is not None
        self._reading = False
        for each in readings:
            self._fair_share.release(each)
        try:
            self._plan_rest(leased)
        finally:  # they are leased, and must not stay so untried
            self._take_in(leased.messages)

    def _swept(self, leased: Leased | None, sweeps: Sequence[tuple[NextHopQueue, str]]) -> None:
        assert leased is not None
        self._reading = False
        expired = self._take_in(leased.messages)
        for queue, domain in sweeps:
            if domain in expired and leased.rest.get(domain) is not None:
                self._fair_share.sweep_again(queue, domain)

    def _swept_suspended(self, leased: Leased | None, domains: Sequence[str]) -> None:
        assert leased is not None
        self._reading = False
        expired = self._take_in(leased.messages)
        self._sweep.extend(
            domain
            for domain in domains
            if domain in expired and domain in self._suspended and leased.rest.get(domain)
        )

    def _lifetime_of(self, domain: str, settings: Limits) -> float:
        lifetime = self._fair_share.limits(self._next_hop_of(domain)).lifetime
        return settings.lifetime if lifetime is None else lifetime

    def _plan_rest(self, leased: Leased) -> None:
        self._plan_some(iter(leased.rest.items()))

    def _plan_some(self, rest: Iterator[tuple[str, float | None]]) -> None:
        """Note the times of domains, of so many in one turn that acceptance has its own between."""
        some = list(islice(rest, _PLANNED))
        for domain, due in some:
            if due is not None:
                self.plan(domain, due)
        if len(some) == _PLANNED:
            self._clock.callLater(0, self._plan_more, rest)

    def _plan_more(self, rest: Iterator[tuple[str, float | None]]) -> None:
        self._plan_some(rest)
        self._take_in(())

    def _not_read(self, failure: Failure, readings: Sequence[Reading]) -> None:
        self._reading = False
        for each in readings:
            self._fair_share.release(each)
            self.plan(each.domain, each.due)
        self._paused_until = self._clock.seconds() + _PAUSE
        self._take_in(())

    def _survey_again(self, failure: Failure) -> None:
        """Recover where the result of an operation was not all taken in."""
        self._log.failure("the queue is to be surveyed again", failure)
        self._surveyed = False
        self._paused_until = self._clock.seconds() + _PAUSE
        self._take_in(())


def _lifetime(queue: NextHopQueue, settings: Limits) -> float:
    lifetime = queue.state.limits.lifetime
    return settings.lifetime if lifetime is None else lifetime
