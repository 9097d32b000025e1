"""Fair shares of next hops: which mail is read into memory, and which transaction begins next.

Each next hop has a queue: the deliveries that wait for it in memory, and the domains that have mail
due for it in the store. Two things are scarce, transactions and places in memory, and both are
shared out so that no next hop takes all of them:

* A next hop has a share of the places in proportion to the transactions that it gets at once. A
  domain with 100,000 messages has some dozens in memory; when places run short, only those that can
  begin at once.
* Next hops are of three kinds (`Kind`), each with places of its own. Hosts that hang are of the
  last kind, and however many there are, the others do not wait for them; nor do they get all
  transactions.
* Deliveries of one message share its content. They take one place together, or where they are many
  an eighth of a place each; all such deliveries take half of the places of a kind at most. So a
  message to many next hops is not read back for each of them, and other mail does not wait for it.
  What one of them took, another takes when it leaves: the content stays in memory for the last.
* A suspended next hop has no places; when its suspension is over, it has one, for the probe.
* Next hops take turns, and so do the domains that share a next hop.

A delivery keeps its place from beginning to end: the place is *claimed* when a message is to be
committed, *taken* when it is in the store, and given back when its outcomes are in the store.

Pure: no I/O.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ...mail.next_hop import NextHop
from .backoff import Backoff
from .delivery import WHOLE, Delivery, Place, Share
from .next_hop_queue import LOCAL, PROVEN, UNPROVEN, Kind, NextHopQueue
from .next_hop_status import NextHopStatus
from .next_hops import UNLIMITED, NextHopLimits, NextHopState, Suspension
from .priority import effective_due, level

_WINDOW = 300  # places in memory of each kind at least; 4 KiB each, 64 KiB at most
_LEASE = 200  # messages of one lease at most
_SWEEP = 50  # domains of a suspended next hop whose expired mail is read at once
_SWEEP_INTERVAL = 3600.0  # seconds between two looks for expired mail of a suspended next hop
_COMPANIONS = 1000  # domains of a next hop that may come with mail that is leased for another
_IDLE = 10_000  # next hops without mail that are remembered; 700 octets each

LimitsOf = Callable[[NextHop], NextHopLimits]
"""Returns the limits of a next hop from the configuration."""


# Attributes of an Enum cost a call each, too much for each message.
_NONE, _CLAIMED, _TAKEN = Place.NONE, Place.CLAIMED, Place.TAKEN


class Reading(NamedTuple):
    """Mail of one domain that is to be read from the store, with places claimed for it."""

    queue: NextHopQueue
    domain: str
    due: float
    places: int


class FairShare:
    """Shares out places in memory and transactions.

    Attributes:
        places: places in memory that are claimed or taken.
        remote: transactions under way with other hosts.
        concurrency: transactions with other hosts at most.
        queues: by next hop; those with mail, and some that had mail.
    """

    def __init__(self, *, concurrency: int, per_hop: int, limits_of: LimitsOf) -> None:
        self.places = 0
        self.remote = 0
        self.concurrency = concurrency
        self._quota = _quota(concurrency)  # in `Delivery.weight`
        self.queues: dict[NextHop, NextHopQueue] = {}
        self._per_hop = per_hop
        self._limits_of = limits_of
        self._weight_of_kind = [0] * len(Kind)
        self._unproven = 0  # transactions under way with unproven next hops
        self._waiting: dict[NextHopQueue, None] = {}  # with deliveries waiting, in turn
        # Of each kind, with mail to read, in turn.
        self._readable: tuple[dict[NextHopQueue, None], ...] = tuple({} for _ in Kind)
        self._sweeping: dict[NextHopQueue, None] = {}
        self._due_domains: dict[str, NextHopQueue] = {}  # domains in `NextHopQueue.due`
        self._idle: dict[NextHopQueue, None] = {}
        self._suspension_ends: list[tuple[float, int, NextHopQueue]] = []  # a heap
        self._suspensions = 0  # so far: orders those that end at the same time
        self._interventions = 0  # so far

    # Next hops.

    def queue(self, next_hop: NextHop) -> NextHopQueue:
        """Return the queue of a next hop, which it may share with others."""
        next_hop = next_hop.shared
        queue = self.queues.get(next_hop)
        if queue is None:
            queue = self._new_queue(next_hop)
            self.queues[next_hop] = queue
        else:
            self._idle.pop(queue, None)
        return queue

    def _new_queue(self, next_hop: NextHop) -> NextHopQueue:
        limits = self._limits(next_hop)
        state = NextHopState(next_hop, limits, limits.connections or self._per_hop)
        queue = NextHopQueue(state)
        queue.kind = UNPROVEN if next_hop.limited else LOCAL
        return queue

    def limits(self, next_hop: NextHop) -> NextHopLimits:
        """Return the limits of a next hop."""
        next_hop = next_hop.shared
        queue = self.queues.get(next_hop)
        return self._limits(next_hop) if queue is None else queue.state.limits

    def suspension(self, next_hop: NextHop) -> Suspension | None:
        """Return the suspension of a next hop; None: it is open."""
        queue = self.queues.get(next_hop.shared)
        return None if queue is None else queue.state.suspension

    def _limits(self, next_hop: NextHop) -> NextHopLimits:
        return self._limits_of(next_hop) if next_hop.limited else UNLIMITED

    def update(self, *, concurrency: int, per_hop: int) -> tuple[list[Delivery], dict[str, float]]:
        """Take over new settings and routes.

        Returns:
            The deliveries that were waiting, which keep their places until they `leave`, and the
            due times of domains. The caller routes both again.
        """
        self.concurrency = concurrency
        self._quota = _quota(concurrency)
        self._per_hop = per_hop
        domains: dict[str, float] = {}
        waiting: list[Delivery] = []
        for next_hop, queue in self.queues.items():
            waiting += self._take_all_waiting(queue)
            domains.update((domain, due) for due, domain in queue.due)
            queue.due.clear()
            queue.sweep.clear()
            limits = self._limits(next_hop)
            queue.state.use(limits, limits.connections or per_hop)
        for readable in self._readable:
            readable.clear()
        self._sweeping.clear()
        self._due_domains.clear()
        for next_hop in tuple(self.queues):
            if next_hop in self.queues:  # else it was forgotten just now, as one without mail
                self._sort_in(self.queues[next_hop])
        return waiting, domains

    def regroup(self, queue: NextHopQueue) -> tuple[list[Delivery], dict[str, float]]:
        """Take all mail out of a queue: its next hop shares the limits of others now.

        Returns:
            As `update` does.
        """
        waiting = self._take_all_waiting(queue)
        domains = {domain: due for due, domain in queue.due}
        for domain in domains:
            del self._due_domains[domain]
        queue.due.clear()
        queue.sweep.clear()
        self._readable[queue.kind].pop(queue, None)
        self._sweeping.pop(queue, None)
        self._sort_in(queue)
        return waiting, domains

    def _free_places(self, queue: NextHopQueue, now: float) -> int:
        plenty = self._weight_of_kind[queue.kind] < self._quota // 2
        return queue.free_places(now, plenty=plenty)

    def _sort_in(self, queue: NextHopQueue) -> None:
        """Put a queue where its state says: its kind, and whether it is readable or idle."""
        kind = LOCAL if not queue.limited else PROVEN if queue.state.proven else UNPROVEN
        if kind is not queue.kind:
            self._weight_of_kind[queue.kind] -= queue.weight
            self._weight_of_kind[kind] += queue.weight
            self._readable[queue.kind].pop(queue, None)
            queue.kind = kind
        if queue.due:
            self._readable[kind].setdefault(queue)
        elif queue.is_idle and queue not in self._idle:
            self._idle[queue] = None
            if len(self._idle) > _IDLE:
                oldest = next(iter(self._idle))
                del self._idle[oldest], self.queues[oldest.next_hop]

    def _add_places(self, queue: NextHopQueue, places: int, weight: int) -> None:
        queue.places += places
        queue.weight += weight
        self.places += places
        self._weight_of_kind[queue.kind] += weight

    # The place of a delivery.

    def claim(self, deliveries: Sequence[Delivery], now: float) -> bool:
        """Claim places for all deliveries of a message, which is to be committed.

        Args:
            deliveries: of the message.
            now: by the clock.

        Returns:
            Whether places were claimed: all deliveries can begin soon, and no mail for their next
            hops waits in the store.
        """
        wanted: dict[NextHopQueue, int] = {}
        shared = False
        for delivery in deliveries:
            queue = delivery.queue = self.queue(delivery.next_hop)
            wanted[queue] = wanted.get(queue, 0) + 1
            shared = delivery.share is not None  # of each the same
        for queue, places in wanted.items():
            if not self._has_room(queue, places, now, shared=shared):
                for each in wanted:
                    self._sort_in(each)
                return False
        for delivery in deliveries:
            self._take_place(delivery, delivery.queue)
            delivery.queue.claimed += 1
            delivery.place = _CLAIMED
        return True

    def _take_place(self, delivery: Delivery, queue: NextHopQueue) -> None:
        share = delivery.share
        if share is not None:
            share.queue = queue
        self._add_places(queue, 1, delivery.weight)

    def _has_room(self, queue: NextHopQueue, places: int, now: float, *, shared: bool) -> bool:
        """Whether new mail for a next hop may have so many places, with a shared content or not."""
        most = self._quota // 2 if shared else self._quota
        if queue.due or self._weight_of_kind[queue.kind] >= most:
            return False
        free = self._free_places(queue, now)
        return free >= places or free >= queue.share

    def arrive(self, delivery: Delivery, now: float) -> bool:
        """Let a leased delivery wait for its turn, in the place that it has claimed, or in another.

        Returns:
            Whether it waits. If not, since its next hop is suspended, it keeps its place until it
            `leave`s.
        """
        queue: NextHopQueue | None = delivery.queue
        if queue is not None and delivery.place is _CLAIMED:
            queue.claimed -= 1
        else:
            queue = delivery.queue = self.queue(delivery.next_hop)
            self._take_place(delivery, queue)
        delivery.place = _TAKEN
        parameters = delivery.message.envelope.parameters
        delivery.order = effective_due(now, level(delivery.message)) if parameters else now
        state = queue.state
        if state.suspension is not None and state.allowance(now) <= len(queue.waiting):
            return False
        _insert(queue.waiting, delivery)
        self._waiting.setdefault(queue)
        return True

    def leave(self, delivery: Delivery) -> None:
        """Give back the place of a delivery, if it has one."""
        queue: NextHopQueue | None = delivery.queue
        if queue is None or delivery.place is _NONE:
            return
        if delivery.place is _CLAIMED:
            queue.claimed -= 1
        delivery.place = _NONE
        self._add_places(queue, -1, -delivery.weight)
        if delivery.share is not None:
            self._pass_on(delivery.share)
        self._sort_in(queue)

    def _pass_on(self, share: Share) -> None:
        """Let another delivery take the weight of one that leaves, up to the whole content."""
        share.queue = None
        del share.all[share]
        heir = next((each for each in share.all if each.queue is not None), None)
        if heir is not None:
            more = min(share.weight, WHOLE - heir.weight)
            heir.weight += more
            self._add_places(heir.queue, 0, more)

    def withdraw(
        self, divide: Callable[[Delivery], tuple[Delivery | None, Delivery | None]]
    ) -> list[Delivery]:
        """Take deliveries that are not to begin out of those that wait.

        Args:
            divide: returns what of a delivery may begin, and what may not.

        Returns:
            What may not begin.
        """
        withdrawn: list[Delivery] = []
        for queue in list(self._waiting):
            waiting, queue.waiting = queue.waiting, deque()
            for delivery in waiting:
                stays, goes = divide(delivery)
                if stays is not None:
                    queue.waiting.append(stays)
                if goes is not None:
                    withdrawn.append(goes)
            if not queue.waiting:
                del self._waiting[queue]
        return withdrawn

    @property
    def under_way(self) -> int:
        """Places of mail that does not wait for its turn: a stop has to wait for it."""
        return self.places - sum(len(queue.waiting) for queue in self._waiting)

    @property
    def has_rest(self) -> bool:
        """Whether mail waits for a transaction or a place, or a suspension for its end."""
        return bool(self._waiting or self._due_domains or self._suspension_ends)

    @property
    def has_work(self) -> bool:
        """Whether mail is in memory, or due for a next hop that is not suspended."""
        return bool(self.places) or any(
            queue.state.suspension is None for queue in self._due_domains.values()
        )

    # Reading from the store.

    def add_due(self, domain: str, due: float, next_hop: NextHop) -> None:
        """Note that a domain has mail due in the store, since ``due``, for a next hop."""
        queue = self.queue(next_hop)
        heapq.heappush(queue.due, (due, domain))
        self._due_domains[domain] = queue
        self._sort_in(queue)

    def is_due(self, domain: str) -> bool:
        """Whether it is noted that a domain has mail due in the store."""
        return domain in self._due_domains

    def due_domains(self) -> Sequence[str]:
        """Return the domains of which it is noted that they have mail due in the store."""
        return list(self._due_domains)

    def readings(self, now: float) -> list[Reading]:
        """Return what is to be read from the store next, with places claimed for it.

        Args:
            now: by the clock.
        """
        readings: list[Reading] = []
        left = _LEASE
        # An eighth of the places is left for new mail of next hops without any.
        most = self._quota * 7 // 8
        for kind, readable in enumerate(self._readable):
            if most - self._weight_of_kind[kind] < self._quota // 4:
                continue  # a message to many next hops would be read in many parts
            while readable and left > 0:
                room = min(left, (most - self._weight_of_kind[kind]) // WHOLE)
                if room <= 0:
                    break
                queue = next(iter(readable))
                del readable[queue]  # until something changes
                room = min(room, self._free_places(queue, now))
                if queue.places - queue.state.active > queue.share // 2:
                    continue  # enough of its mail waits; to read a few at a time costs more
                for reading in self._take_due(queue, room):
                    readings.append(reading)
                    self._add_places(queue, reading.places, reading.places * WHOLE)
                    queue.claimed += reading.places
                    left -= reading.places
        return readings

    def _take_due(self, queue: NextHopQueue, room: int) -> list[Reading]:
        readings: list[Reading] = []
        domains = min(room, len(queue.due))
        for index in range(domains):
            due, domain = heapq.heappop(queue.due)
            del self._due_domains[domain]
            places = (room + index) // domains
            readings.append(Reading(queue, domain, due, places))
        return readings

    def release(self, reading: Reading) -> None:
        """Give back the places of a reading; its deliveries `arrive` after that."""
        queue = reading.queue
        queue.claimed -= reading.places
        self._add_places(queue, -reading.places, -reading.places * WHOLE)
        self._sort_in(queue)

    def companions(self, readings: Sequence[Reading]) -> tuple[str, ...]:
        """Return due domains that share a next hop with readings: a message may be for both."""
        queues = {id(each.queue): each.queue for each in readings if each.queue.due}
        return tuple(domain for queue in queues.values() for _, domain in queue.due[:_COMPANIONS])

    def sweeps(self) -> list[tuple[NextHopQueue, str]]:
        """Return domains of a suspended next hop whose expired mail is to be read next."""
        while self._sweeping:
            queue = next(iter(self._sweeping))
            if queue.state.suspension is None:
                queue.sweep.clear()
            domains = [queue.sweep.popleft() for _ in range(min(_SWEEP, len(queue.sweep)))]
            if not queue.sweep:
                del self._sweeping[queue]
            if domains:
                return [(queue, domain) for domain in domains]
        return []

    def sweep_again(self, queue: NextHopQueue, domain: str) -> None:
        """Note that a domain may have more expired mail."""
        queue.sweep.append(domain)
        self._sweeping.setdefault(queue)

    # Transactions.

    def startable(self, now: float, most: int) -> list[NextHopQueue]:
        """Return the queues that transactions may begin for, in turn.

        A queue is in the list once for each transaction. `NextHopQueue.acquiring` counts them until
        they `begin`.

        Args:
            now: by the clock.
            most: transactions at most.
        """
        chosen: list[NextHopQueue] = []
        remote_left = self.concurrency - self.remote
        unproven_left = self._most_unproven() - self._unproven
        progress = True
        while progress:
            progress = False
            for queue in list(self._waiting):
                remote, unproven = queue.limited, queue.kind is UNPROVEN
                if (remote and remote_left <= 0) or (unproven and unproven_left <= 0):
                    continue
                if queue.acquiring >= min(len(queue.waiting), queue.state.allowance(now)):
                    continue
                chosen.append(queue)
                queue.acquiring += 1
                del self._waiting[queue]
                self._waiting[queue] = None  # behind the others
                if len(chosen) == most:
                    return chosen
                if remote:
                    remote_left -= 1
                if unproven:
                    unproven_left -= 1
                progress = True
        return chosen

    def _most_unproven(self) -> int:
        # Three quarters: next hops that may hang leave a quarter to those that are proven.
        return self.concurrency - self.concurrency // 4

    def begin(self, queue: NextHopQueue, now: float) -> tuple[Delivery, int] | None:
        """Begin the first delivery of a queue that was `startable`.

        Returns:
            The delivery, and the number of the attempt; None: it may not begin any more.
        """
        queue.acquiring -= 1
        if not queue.waiting or queue.state.allowance(now) <= 0:
            return None
        unproven = queue.kind is UNPROVEN
        if queue.limited and (
            self.remote >= self.concurrency
            or (unproven and self._unproven >= self._most_unproven())
        ):
            return None
        delivery = queue.waiting.popleft()
        if not queue.waiting:
            del self._waiting[queue]
        if queue.limited:
            self.remote += 1
        if unproven:
            self._unproven += 1
        return delivery, queue.state.begin()

    def ended(self, queue: NextHopQueue, kind: Kind) -> None:
        """Note that a transaction has ended, after the state of the next hop was changed by it.

        Args:
            queue: of the transaction.
            kind: of the queue when the transaction began.
        """
        if queue.limited:
            self.remote -= 1
        if kind is UNPROVEN:
            self._unproven -= 1
        self._sort_in(queue)

    # Suspensions.

    def suspended(self, queue: NextHopQueue) -> list[Delivery]:
        """Note that a next hop was suspended; return the deliveries that waited for it.

        They keep their places until they `leave`.
        """
        suspension = queue.state.suspension
        assert suspension is not None
        self._sweep(queue, suspension, suspension.until - suspension.delay)
        return self._take_all_waiting(queue)

    def _sweep(self, queue: NextHopQueue, suspension: Suspension, now: float) -> None:
        """Have expired mail of a suspended next hop read, now and until its probe."""
        queue.sweep = deque(domain for _, domain in queue.due)
        if queue.sweep:
            self._sweeping[queue] = None
        queue.sweep_at = min(suspension.until, now + _SWEEP_INTERVAL)
        self._schedule_probe(queue, queue.sweep_at)

    def _schedule_probe(self, queue: NextHopQueue, time: float) -> None:
        self._suspensions += 1
        heapq.heappush(self._suspension_ends, (time, self._suspensions, queue))

    def _take_all_waiting(self, queue: NextHopQueue) -> list[Delivery]:
        waiting = list(queue.waiting)
        queue.waiting.clear()
        self._waiting.pop(queue, None)
        return waiting

    def intervention_begins(self) -> None:
        """Note that an operator's intervention begins: it may probe each next hop (`probe`)."""
        self._interventions += 1

    def unreached(self, queue: NextHopQueue) -> None:
        """Note that an attempt did not reach a next hop: an intervention has had its probe."""
        queue.failed_in = self._interventions

    def probe(self, next_hop: NextHop, now: float) -> bool:
        """Let a suspended next hop be probed before its time, once in an intervention.

        Returns:
            Whether this changes anything.
        """
        queue = self.queues.get(next_hop.shared)
        if queue is None or queue.failed_in == self._interventions:
            return False
        if not queue.state.allow_early_probe(now):
            return False
        self._schedule_probe(queue, now)
        return True

    def next_probe(self, now: float) -> float | None:
        """Let next hops be probed whose suspension is over; return when to call this again.

        Args:
            now: by the clock, as is the result; None: no next hop is suspended.
        """
        while self._suspension_ends:
            time, _, queue = self._suspension_ends[0]
            if time > now:
                return time
            heapq.heappop(self._suspension_ends)
            suspension = queue.state.suspension
            # Other times are of an earlier suspension, or of an operator's probe.
            if suspension is not None and time == queue.sweep_at and suspension.until > now:
                self._sweep(queue, suspension, now)
            if queue.due:
                self._sort_in(queue)
        return None

    # For people.

    def suspended_next_hops(self) -> Sequence[NextHopState]:
        """Return the next hops that are suspended."""
        states = (queue.state for queue in self.queues.values())
        return [state for state in states if state.suspension is not None]

    def status(self, next_hop: NextHop, now: float, *, default: Backoff) -> NextHopStatus:
        """Return the status of a next hop, without a change to it.

        Args:
            next_hop: the next hop.
            now: by the clock.
            default: back-off of next hops without one of their own.
        """
        next_hop = next_hop.shared
        queue = self.queues.get(next_hop) or self._new_queue(next_hop)
        state = queue.state
        return NextHopStatus(
            name=state.name,
            limits=state.limits,
            backoff=state.limits.backoff(default),
            suspended=state.suspended(now),
            active=state.active,
            allowed=state.limit,
            connections=state.connections,
            waiting=len(queue.waiting),
            asking=queue.acquiring,
            remote=self.remote,
            concurrency=self.concurrency,
        )

    def waiting(self) -> Iterator[tuple[NextHopQueue, int, Delivery]]:
        """Yield the deliveries that wait in memory, each with its queue and its position there."""
        for queue in self._waiting:
            for position, delivery in enumerate(queue.waiting):
                yield queue, position, delivery


def _quota(concurrency: int) -> int:
    """Return the weight of each kind: of the mail under way, and of what comes next."""
    return max(_WINDOW, 3 * concurrency) * WHOLE


def _insert(waiting: deque[Delivery], delivery: Delivery) -> None:
    """Insert a delivery in order; nearly always it goes behind all others."""
    at = len(waiting)
    while at and waiting[at - 1].order > delivery.order:
        at -= 1
    if at == len(waiting):
        waiting.append(delivery)
    else:
        waiting.insert(at, delivery)
