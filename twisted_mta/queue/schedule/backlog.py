"""What waits in the store: when it is due, and reading it when there is a place for it.

Of a queue of any length there is one line for each recipient domain in memory. A lease names the
domains that it wants something of, so that those that are blocked are not even looked at.
"""

from __future__ import annotations

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
from .fair_share import FairShare, NextHopQueue, Reading

_PAUSE = 5.0  # seconds until what the store could not do is asked of it again
# Seconds; the wall clock may be set in the meantime, and what it passes is due. Looking costs
# nothing, and brings nothing from the disk.
_LONGEST_SLEEP = 60.0
_STEP = 30.0  # seconds that the wall clock may fall behind the other before anyone minds
_SWEPT = 100  # expired messages that are returned at once
_PLACED = 100  # domains that find their line in one turn of the reactor: some 4 ms
_PLANNED = 2000  # domains that are taken in from a survey in one turn: likewise

Came = Callable[[Sequence[Message]], Mapping[str, None]]
"""Takes in what was leased, and returns the domains of what has expired."""


class Limits(Protocol):
    """What of a runner's settings is needed here."""

    @property
    def latest(self) -> float:
        """Seconds that nothing is put off beyond."""
        ...

    @property
    def lifetime(self) -> float:
        """Seconds that a message is tried, where nothing else was said."""
        ...


class Backlog:
    """Reads what is due.

    Args:
        commit: the store.
        fair_share: says for what there are places.
        clock: for pauses.
        wall_time: when things are due.
        hop_of: says where a domain goes.
        came: see there.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        commit: GroupCommit,
        fair_share: FairShare,
        clock: Clock,
        wall_time: WallTime,
        hop_of: Callable[[str], NextHop],
        came: Came,
    ) -> None:
        self._commit = commit
        self._fair_share = fair_share
        self._clock = clock
        self._wall_time = wall_time
        self._hop_of = hop_of
        self._came = came
        self._due_times = DueTimes()
        self._reading = False
        self._surveyed = True
        self._paused_until = 0.0  # by the clock: nothing is read before
        self._offset = 0.0  # of the wall clock to the other, the highest so far
        self._set_back = 0.0  # seconds that it was set back by since the last survey

    def survey(self) -> None:
        """Ask the store for all that it has, at the next `read`."""
        self._surveyed = False
        self._offset = self._wall_time() - self._clock.seconds()

    def plan(self, domain: str, due: float) -> None:
        """Something of a domain is in the store, not leased, and due at ``due`` (wall time)."""
        if not self._fair_share.is_placed(domain):  # then what is due first is known
            self._due_times.add(domain, due)

    def note(self, message: Message) -> None:
        """A message is in the store and not leased."""
        for recipient in message.envelope.recipients:
            # Nothing of a message is due before it was received, or is released.
            self.plan(recipient.mailbox.domain, message.released_at)

    def read(self, settings: Limits) -> float | None:
        """Read what there are places for, if nothing is being read.

        Returns:
            When to do that again, by the clock, if nothing happens before; None: never.
        """
        now, time = self._clock.seconds(), self._wall_time()
        self._watch_clock(now, time)
        for due, domain in self._due_times.take_due(time, _PLACED):
            self._fair_share.place(domain, due, self._hop_of(domain))
        if not self._reading:
            if now < self._paused_until:
                return self._paused_until
            self._ask(now, time, settings)
        next_time = self._due_times.next_time()
        if next_time is None:
            return None
        return now + max(0.0, min(next_time - time, _LONGEST_SLEEP))

    def _watch_clock(self, now: float, time: float) -> None:
        """Look whether the wall clock was set back: what was put off is not to wait for it."""
        offset = time - now
        if offset < self._offset - _STEP:
            seconds = self._offset - offset
            self._log.warn("the wall clock was set back by {seconds:.0f} s", seconds=seconds)
            self._set_back += seconds
            self.survey()
        self._offset = max(offset, self._offset)

    def _ask(self, now: float, time: float, settings: Limits) -> None:
        if not self._surveyed:
            self._reading = True
            survey = Survey(time, time + settings.latest, self._set_back)
            self._commit.perform(survey).addCallbacks(
                self._was_surveyed,
                self._not_read,
                callbackArgs=(survey,),
                errbackArgs=((),),
            ).addErrback(self._lost_track)
        elif readings := self._fair_share.wants(now):
            self._reading = True
            maybeDeferred(self._lease, time, readings).addCallbacks(
                self._leased, self._not_read, callbackArgs=(readings,), errbackArgs=(readings,)
            ).addErrback(self._lost_track)
        elif sweeps := self._fair_share.sweeps():
            self._reading = True
            each = max(1, _SWEPT // len(sweeps))
            wants = tuple(
                Want(domain, each, first_id(time - _lifetime(line, settings)))
                for line, domain in sweeps
            )
            self._commit.perform(Lease(time, wants)).addCallbacks(
                self._swept, self._not_read, callbackArgs=(sweeps,), errbackArgs=((),)
            ).addErrback(self._lost_track)

    def _lease(self, time: float, readings: Sequence[Reading]) -> Deferred[Any]:
        wants = tuple(Want(each.domain, each.places) for each in readings)
        return self._commit.perform(Lease(time, wants, self._fair_share.companions(readings)))

    def _was_surveyed(self, surveyed: Leased | None, survey: Survey) -> None:
        assert surveyed is not None
        self._reading = False
        self._set_back -= survey.set_back
        self._surveyed = self._set_back == 0  # or the clock was set back once more meanwhile
        self._take_rest(surveyed)
        self._came(())

    def _leased(self, leased: Leased | None, readings: Sequence[Reading]) -> None:
        assert leased is not None
        self._reading = False
        for each in readings:
            self._fair_share.unclaim(each.line.hop.next_hop, each.places)
        try:
            self._take_rest(leased)
        finally:  # they are leased
            self._came(leased.messages)

    def _swept(self, leased: Leased | None, sweeps: Sequence[tuple[NextHopQueue, str]]) -> None:
        assert leased is not None
        self._reading = False
        expired = self._came(leased.messages)
        for line, domain in sweeps:
            if domain in expired and leased.rest.get(domain) is not None:
                self._fair_share.sweep_again(line, domain)

    def _take_rest(self, leased: Leased) -> None:
        self._plan_some(iter(leased.rest.items()))

    def _plan_some(self, rest: Iterator[tuple[str, float | None]]) -> None:
        """Plan domain by domain; a long list goes on in the next turn, and others have theirs."""
        some = list(islice(rest, _PLANNED))
        for domain, due in some:
            if due is not None:
                self.plan(domain, due)
        if len(some) == _PLANNED:
            self._clock.callLater(0, self._plan_more, rest)

    def _plan_more(self, rest: Iterator[tuple[str, float | None]]) -> None:
        self._plan_some(rest)
        self._came(())

    def _not_read(self, failure: Failure, readings: Sequence[Reading]) -> None:
        self._reading = False
        for each in readings:
            self._fair_share.unclaim(each.line.hop.next_hop, each.places)
            self.plan(each.domain, each.due)
        self._paused_until = self._clock.seconds() + _PAUSE
        self._came(())

    def _lost_track(self, failure: Failure) -> None:
        """What there is was not all taken in: find out again."""
        self._log.failure("what is in the queue is to be surveyed again", failure)
        self._surveyed = False
        self._paused_until = self._clock.seconds() + _PAUSE
        self._came(())


def _lifetime(line: NextHopQueue, settings: Limits) -> float:
    lifetime = line.hop.limits.lifetime
    return settings.lifetime if lifetime is None else lifetime
