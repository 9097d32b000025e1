"""Whose turn it is, pure: what is read from the store, and which transaction begins next.

Each next hop has a *line*: the transactions that wait for it in memory, and the domains that have
something due for it in the store. Two things are scarce, transactions and places in memory, and
both are dealt out so that nobody can take them all:

* A line has a share of the places, in step with how many transactions it gets at once. A domain
  with 100,000 messages has some dozens in memory, and when places run short, only those that can
  begin at once.
* Lines are of three kinds with places of their own: what is done here, next hops that are known to
  answer, and those that are not known to. Hosts that hang are of the last kind, and however many
  there are, the others do not wait for them. Nor do they get all transactions.
* A suspended next hop has no places, and when its time has come one, for the probe.
* Lines take fair_share, and in a line the domains that share a next hop do.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ...mail.envelope import RecipientNumber
from ...mail.next_hop import NextHop
from ...mail.queue_id import QueueId
from .backoff import Backoff
from .delivery import Delivery
from .next_hop_status import NextHopStatus
from .next_hops import UNLIMITED, NextHopLimits, NextHopState, Suspension

_WINDOW = 300  # places in memory of each kind at least; 4 KiB each, 64 KiB at most
_WAITING = 80  # places of one line beyond what is under way, at most; a lease fills half of them
_LEASE = 200  # messages of one lease at most
_SWEEP = 50  # domains of a suspended next hop whose expired messages are asked for at once
_COMPANIONS = 1000  # domains of one line that may come with what is leased of it
_IDLE = 10_000  # next hops without mail that are remembered; 700 octets each

LimitsOf = Callable[[NextHop], NextHopLimits]
"""What the operator said of a next hop."""


class NextHopQueue:
    """What there is to do for one next hop.

    Attributes:
        hop: what is known of it.
        waiting: what is in memory and not begun.
        ready: (due time, domain) of what is due in the store; a heap.
        held: places in memory that it has.
        coming: places of those for what is being read or accepted.
        acquiring: transactions that wait for the leave of other processes.
        sweep: domains whose expired messages are to be looked for, while it is suspended.
        failed_in: the operator's action, by its number, during or after which nobody was reached.
    """

    __slots__ = (
        "acquiring",
        "coming",
        "failed_in",
        "held",
        "hop",
        "kind",
        "ready",
        "sweep",
        "waiting",
    )

    def __init__(self, hop: NextHopState) -> None:
        self.hop = hop
        self.waiting: deque[Delivery] = deque()
        self.ready: list[tuple[float, str]] = []
        self.held = 0
        self.coming = 0
        self.acquiring = 0
        self.sweep: deque[str] = deque()
        self.failed_in = 0
        self.kind = 2

    @property
    def share(self) -> int:
        """How many places in memory it may have, while there are many."""
        limit = self.hop.limit
        return limit + (min(4 * limit, _WAITING) if self.kind < 2 else limit)

    def room(self, now: float, plenty: bool) -> int:
        """Return how many more places its state allows.

        Args:
            now: by the clock.
            plenty: whether more than for what may begin at once.
        """
        if self.hop.suspension is None:
            return (self.share if plenty else self.hop.limit) - self.held
        return self.hop.allowance(now) - len(self.waiting) - self.coming

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do for it."""
        return not (self.held or self.ready or self.waiting)


class Reading(NamedTuple):
    """Messages that are to be read: as many of a domain as there are places, for a line."""

    line: NextHopQueue
    domain: str
    due: float
    places: int


class FairShare:
    """Deals out places and transactions.

    Attributes:
        held: places in memory that are taken.
        remote: transactions with other hosts under way.
        concurrency: of those at once, at the most.
        lines: by next hop; those in use, and some that were.
    """

    def __init__(self, *, concurrency: int, per_hop: int, limits_of: LimitsOf) -> None:
        self.held = 0
        self.remote = 0
        self.concurrency = concurrency
        self.lines: dict[NextHop, NextHopQueue] = {}
        self._per_hop = per_hop
        self._limits_of = limits_of
        self._kinds = [0, 0, 0]  # places that each kind has: here, known to answer, not known to
        self._unproven = 0  # transactions under way with next hops not known to answer
        self._waiting: dict[
            NextHop, NextHopQueue
        ] = {}  # with something waiting, in the order of turns
        self._reading: tuple[dict[NextHop, NextHopQueue], ...] = (
            {},
            {},
            {},
        )  # with something to read
        self._sweeping: dict[NextHop, NextHopQueue] = {}
        self._placed: dict[str, NextHopQueue] = {}  # domains in `NextHopQueue.ready`
        self._idle: dict[NextHop, None] = {}
        self._probes: list[tuple[float, int, NextHopQueue]] = []  # when suspensions end; a heap
        self._order = 0
        self._action = 0

    # Lines.

    def line(self, next_hop: NextHop) -> NextHopQueue:
        """Return the line at a next hop."""
        line = self.lines.get(next_hop)
        if line is None:
            limits = self._limits(next_hop)
            line = NextHopQueue(NextHopState(next_hop, limits, limits.connections or self._per_hop))
            line.kind = 2 if next_hop.remote else 0
            self.lines[next_hop] = line
        elif next_hop in self._idle:
            del self._idle[next_hop]
        return line

    def limits(self, next_hop: NextHop) -> NextHopLimits:
        """Return what the operator said of a next hop."""
        line = self.lines.get(next_hop)
        return self._limits(next_hop) if line is None else line.hop.limits

    def suspension(self, next_hop: NextHop) -> Suspension | None:
        """Return why nothing is tried at a next hop now, if that is so."""
        line = self.lines.get(next_hop)
        return None if line is None else line.hop.suspension

    def _limits(self, next_hop: NextHop) -> NextHopLimits:
        return self._limits_of(next_hop) if next_hop.remote else UNLIMITED

    def update(self, *, concurrency: int, per_hop: int) -> tuple[list[Delivery], dict[str, float]]:
        """Take in new settings and routes.

        Returns:
            What had not begun: parts that were waiting, whose places they keep until they `leave`,
            and the due times of domains. Either is to be dealt with anew.
        """
        self.concurrency = concurrency
        self._per_hop = per_hop
        domains: dict[str, float] = {}
        waiting: list[Delivery] = []
        for next_hop, line in self.lines.items():
            waiting += self._drop_waiting(line)
            domains.update((domain, due) for due, domain in line.ready)
            line.ready.clear()
            line.sweep.clear()
            line.hop.limits = self._limits(next_hop)
            line.hop.connections = line.hop.limits.connections or per_hop
        for reading in self._reading:
            reading.clear()
        self._sweeping.clear()
        self._placed.clear()
        for line in tuple(self.lines.values()):
            self._consider(line)
        return waiting, domains

    def _room(self, line: NextHopQueue, now: float) -> int:
        return line.room(now, self._kinds[line.kind] < self._quota() // 2)

    def _quota(self) -> int:
        return max(_WINDOW, self.concurrency)

    def _consider(self, line: NextHopQueue) -> None:
        """See to it that a line stands where its state says."""
        next_hop = line.hop.next_hop
        kind = 0 if not next_hop.remote else 1 if line.hop.proven else 2
        if kind != line.kind:
            self._kinds[line.kind] -= line.held
            self._kinds[kind] += line.held
            self._reading[line.kind].pop(next_hop, None)
            line.kind = kind
        if line.ready:
            self._reading[kind].setdefault(next_hop, line)
        elif line.idle and next_hop not in self._idle:
            self._idle[next_hop] = None
            if len(self._idle) > _IDLE:
                oldest = next(iter(self._idle))
                del self._idle[oldest], self.lines[oldest]

    def _hold(self, line: NextHopQueue, places: int) -> None:
        line.held += places
        self.held += places
        self._kinds[line.kind] += places

    # What is in memory.

    def claim(self, parts: Iterable[Delivery], now: float) -> bool:
        """Take places for all of a message, if all of it can begin soon and nothing is before it.

        Args:
            parts: of the message.
            now: by the clock.
        """
        parts = tuple(parts)
        lines: dict[NextHop, int] = {}
        for part in parts:
            lines[part.next_hop] = lines.get(part.next_hop, 0) + 1
        claimed = [(self.line(next_hop), places) for next_hop, places in lines.items()]
        allowed = all(
            not line.ready
            and self._room(line, now) >= min(places, line.share)
            and self._kinds[line.kind] < self._quota()
            for line, places in claimed
        )
        for line, places in claimed:
            if allowed:
                self._hold(line, places)
                line.coming += places
            else:
                self._consider(line)
        return allowed

    def unclaim(self, next_hop: NextHop, places: int = 1) -> None:
        """Give back places of what does not come, or take its own as it comes."""
        line = self.lines[next_hop]
        line.coming -= places
        self._hold(line, -places)
        self._consider(line)

    def arrive(self, part: Delivery, now: float) -> bool:
        """Let a part wait for its turn, in a place of its own.

        Returns:
            Whether it may: where it may not, since nothing is tried there now, it has its place
            until it `leave`s.
        """
        line = self.line(part.next_hop)
        self._hold(line, 1)
        if line.hop.suspension is not None and line.hop.allowance(now) <= len(line.waiting):
            return False
        _insert(line.waiting, part)
        self._waiting.setdefault(part.next_hop, line)
        return True

    def withdraw(
        self, sort: Callable[[Delivery], tuple[Delivery | None, Delivery | None]]
    ) -> list[tuple[Delivery, bool]]:
        """Take out of what waits what is not to begin any more.

        Args:
            sort: says what of a part stays, and what does not.

        Returns:
            What was taken out; and whether it keeps a place until it `leave`s, since nothing of its
            part stays.
        """
        withdrawn: list[tuple[Delivery, bool]] = []
        for next_hop, line in list(self._waiting.items()):
            waiting, line.waiting = line.waiting, deque()
            for part in waiting:
                stays, goes = sort(part)
                if stays is not None:
                    line.waiting.append(stays)
                if goes is not None:
                    withdrawn.append((goes, stays is None))
            if not line.waiting:
                del self._waiting[next_hop]
        return withdrawn

    def leave(self, part: Delivery) -> None:
        """Give back the place of a part."""
        line = self.lines[part.next_hop]
        self._hold(line, -1)
        self._consider(line)

    @property
    def under_way(self) -> int:
        """How many places are taken by what cannot be left lying."""
        return self.held - sum(len(line.waiting) for line in self._waiting.values())

    # What is read.

    def place(self, domain: str, due: float, next_hop: NextHop) -> None:
        """A domain has something due in the store, since ``due``, for a next hop."""
        line = self.line(next_hop)
        heapq.heappush(line.ready, (due, domain))
        self._placed[domain] = line
        self._consider(line)

    def is_placed(self, domain: str) -> bool:
        """Whether it is known already that a domain has something due."""
        return domain in self._placed

    def wants(self, now: float) -> list[Reading]:
        """Take places for what is to be read next, and say what that is.

        Args:
            now: by the clock.
        """
        wants: list[Reading] = []
        left = _LEASE
        for kind, reading in enumerate(self._reading):
            while reading and left > 0:
                # What just came for somebody who has nothing else finds a place all the same.
                room = min(left, self._quota() * 7 // 8 - self._kinds[kind])
                if room <= 0:
                    break
                next_hop, line = next(iter(reading.items()))
                del reading[next_hop]  # until something changes
                room = min(room, self._room(line, now))
                if line.held - line.hop.active > line.share // 2:
                    continue  # there is enough of it; a few at a time would cost more
                for want in self._from_line(line, room):
                    wants.append(want)
                    self._hold(line, want.places)
                    line.coming += want.places
                    left -= want.places
        return wants

    def _from_line(self, line: NextHopQueue, room: int) -> list[Reading]:
        wants: list[Reading] = []
        domains = min(room, len(line.ready))
        for index in range(domains):
            due, domain = heapq.heappop(line.ready)
            del self._placed[domain]
            count = (room + index) // domains
            wants.append(Reading(line, domain, due, count))
        return wants

    def companions(self, readings: Sequence[Reading]) -> tuple[str, ...]:
        """Return domains that share a next hop with what is read: a message may be for both."""
        lines = {id(each.line): each.line for each in readings if each.line.ready}
        return tuple(domain for line in lines.values() for _, domain in line.ready[:_COMPANIONS])

    def sweeps(self) -> list[tuple[NextHopQueue, str]]:
        """Take the domains of a suspended next hop whose expired messages are to be read next."""
        while self._sweeping:
            next_hop, line = next(iter(self._sweeping.items()))
            if line.hop.suspension is None:
                line.sweep.clear()
            domains = [line.sweep.popleft() for _ in range(min(_SWEEP, len(line.sweep)))]
            if not line.sweep:
                del self._sweeping[next_hop]
            if domains:
                return [(line, domain) for domain in domains]
        return []

    def sweep_again(self, line: NextHopQueue, domain: str) -> None:
        """There may be more that has expired."""
        line.sweep.append(domain)
        self._sweeping.setdefault(line.hop.next_hop, line)

    # Transactions.

    def startable(self, now: float, most: int) -> list[NextHopQueue]:
        """Return the lines that a transaction may begin for, one after the other, in their turn.

        A line is in there once for each transaction; `NextHopQueue.acquiring` counts them until
        they are taken.

        Args:
            now: by the clock.
            most: how many at the most.
        """
        chosen: list[NextHopQueue] = []
        room = self.concurrency - self.remote
        strangers = self._strangers() - self._unproven
        progress = True
        while progress:
            progress = False
            for next_hop in list(self._waiting):
                line = self._waiting[next_hop]
                remote = next_hop.remote
                stranger = line.kind == 2
                if (remote and room <= 0) or (stranger and strangers <= 0):
                    continue
                if line.acquiring >= min(len(line.waiting), line.hop.allowance(now)):
                    continue
                chosen.append(line)
                line.acquiring += 1
                del self._waiting[next_hop]
                self._waiting[next_hop] = line  # behind the others
                if len(chosen) == most:
                    return chosen
                room -= remote
                strangers -= stranger
                progress = True
        return chosen

    def _strangers(self) -> int:
        # Three quarters: those that may hang leave room for those that are known to answer.
        return self.concurrency - self.concurrency // 4

    def take(self, line: NextHopQueue, now: float) -> tuple[Delivery, int] | None:
        """Begin with what is first in a line that was `startable`, if that may still be.

        Returns:
            The part, and the number of the attempt.
        """
        line.acquiring -= 1
        next_hop = line.hop.next_hop
        if not line.waiting or line.hop.allowance(now) <= 0:
            return None
        if next_hop.remote and (
            self.remote >= self.concurrency
            or (line.kind == 2 and self._unproven >= self._strangers())
        ):
            return None
        part = line.waiting.popleft()
        if not line.waiting:
            del self._waiting[next_hop]
        self.remote += next_hop.remote
        self._unproven += line.kind == 2
        return part, line.hop.begin()

    def ended(self, line: NextHopQueue, kind: int) -> None:
        """A transaction has ended, and its hop has learnt from it.

        Args:
            line: whose it was.
            kind: what the line was when it began.
        """
        self.remote -= line.hop.next_hop.remote
        self._unproven -= kind == 2
        self._consider(line)

    def suspended(self, line: NextHopQueue) -> list[Delivery]:
        """A next hop has been suspended: return what waited for it.

        It keeps its places until it `leave`s.
        """
        suspension = line.hop.suspension
        assert suspension is not None
        self._order += 1
        heapq.heappush(self._probes, (suspension.until, self._order, line))
        line.sweep = deque(domain for _, domain in line.ready)
        if line.sweep:
            self._sweeping[line.hop.next_hop] = line
        return self._drop_waiting(line)

    def _drop_waiting(self, line: NextHopQueue) -> list[Delivery]:
        waiting = list(line.waiting)
        line.waiting.clear()
        self._waiting.pop(line.hop.next_hop, None)
        return waiting

    def act(self) -> None:
        """An operator's action begins: it may probe each next hop once (`probe`)."""
        self._action += 1

    def failed(self, line: NextHopQueue) -> None:
        """Nobody was reached at a next hop: an action that is under way has had its probe."""
        line.failed_in = self._action

    def probe(self, next_hop: NextHop, now: float) -> bool:
        """End the wait of a suspended next hop: a probe may go now.

        Says whether it waited; and not whether an action has had its probe there already.
        """
        line = self.lines.get(next_hop)
        if line is None or line.failed_in == self._action or not line.hop.hurry(now):
            return False
        self._order += 1
        heapq.heappush(self._probes, (now, self._order, line))
        return True

    def next_probe(self, now: float) -> float | None:
        """Return when the next suspension ends, by the clock; what has ended may be probed."""
        while self._probes:
            until, _, line = self._probes[0]
            if until > now:
                return until
            heapq.heappop(self._probes)
            if line.ready:
                self._consider(line)
        return None

    def suspensions(self) -> Sequence[NextHopState]:
        """Return the next hops that are suspended."""
        return [line.hop for line in self.lines.values() if line.hop.suspension is not None]

    # For who asks.

    def status(self, next_hop: NextHop, now: float, *, default: Backoff) -> NextHopStatus:
        """Return how things stand with a next hop; changes nothing.

        Args:
            next_hop: see there.
            now: by the clock.
            default: when next hops are tried again that nothing was said of.
        """
        line = self.lines.get(next_hop)
        if line is None:
            limits = self._limits(next_hop)
            line = NextHopQueue(NextHopState(next_hop, limits, limits.connections or self._per_hop))
        hop = line.hop
        return NextHopStatus(
            name=hop.name,
            limits=hop.limits,
            backoff=hop.limits.backoff(default),
            suspended=hop.suspended(now),
            active=hop.active,
            allowed=hop.limit,
            connections=hop.connections,
            waiting=len(line.waiting),
            asking=line.acquiring,
            remote=self.remote,
            concurrency=self.concurrency,
        )

    def waits(self, next_hop: NextHop, id: QueueId, number: RecipientNumber) -> bool:
        """Whether a recipient is in memory and waits for its turn at a next hop."""
        line = self.lines.get(next_hop)
        return line is not None and any(
            part.message.id == id
            and any(each.number == number for each in part.message.envelope.recipients)
            for part in line.waiting
        )


def _insert(waiting: deque[Delivery], part: Delivery) -> None:
    """Put a part behind all whose turn is not later; nearly always those are all."""
    at = len(waiting)
    while at and waiting[at - 1].turn > part.turn:
        at -= 1
    if at == len(waiting):
        waiting.append(part)
    else:
        waiting.insert(at, part)
