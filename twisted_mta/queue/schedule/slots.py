"""Delivery slots: a transaction's part of the limits that hold over all processes of one MTA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, LimitKey, Limits
from .next_hops import NextHopState


class Slot:
    """The slot of one transaction: a count in each of several limits.

    The counts are taken one after the other and given back together. The count that others need
    most is taken last, so that it is not held while the slot waits for another.
    """

    _log = Logger()

    def __init__(
        self,
        limits: Limits,
        wanted: Sequence[tuple[LimitKey, int]],
        *,
        ready: Callable[[Slot], None],
        failed: Callable[[], None],
        waiting: dict[Slot, None],
    ) -> None:
        """Prepare to acquire the slot.

        Args:
            limits: the counts over all processes.
            wanted: the keys of the counts, with their limits.
            ready: called, maybe within `acquire`, when all counts are taken.
            failed: called instead where they cannot be taken; none is taken then.
            waiting: has the slot while it waits for a count.
        """
        self._limits = limits
        self._wanted = wanted
        self._ready = ready
        self._failed = failed
        self._waiting = waiting
        self._taken: list[LimitKey] = []
        self._pending: Deferred[bool] | None = None

    @property
    def waits(self) -> bool:
        """Whether it waits for a count."""
        return self._pending is not None

    def acquire(self) -> None:
        """Take the counts that are not taken yet."""
        for key, limit in self._wanted[len(self._taken) :]:
            try:
                answer = self._limits.wait(key, limit)
            except Exception:
                self._not_granted(Failure())
                return
            if answer is not True:  # `isinstance` of a Deferred takes several times as long
                self._pending = answer
                self._waiting[self] = None
                answer.addCallbacks(self._granted, self._not_granted, callbackArgs=(key,))
                return
            self._taken.append(key)
        self._ready(self)

    def _granted(self, _: bool, key: LimitKey) -> None:
        self._pending = None
        self._waiting.pop(self, None)
        self._taken.append(key)
        self.acquire()

    def _not_granted(self, failure: Failure) -> None:
        self._pending = None
        self._waiting.pop(self, None)
        self.give_back()
        if not failure.check(CancelledError):
            self._log.failure("a delivery slot could not be acquired", failure)
        self._failed()

    def keep(self, key: LimitKey) -> bool:
        """Leave one count out of `give_back`; return whether it was taken."""
        if key not in self._taken:
            return False
        self._taken.remove(key)
        return True

    def give_back(self) -> None:
        """Give back all counts."""
        taken, self._taken = self._taken, []
        for key in reversed(taken):
            self._limits.give_back(key)

    def cancel(self) -> None:
        """Take no more counts: ``failed`` is called, unless all are taken."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()


class Slots:
    """Acquires the slots of transactions.

    A rate is a sliding window: a transaction is counted in it until the period is over.

    Args:
        limits: the counts over all processes; None: there is one process, and no limit to share.
        clock: for periods.
    """

    def __init__(self, limits: Limits | None, *, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._waiting: dict[Slot, None] = {}
        self._periods: dict[IDelayedCall, LimitKey] = {}

    def acquire(
        self,
        state: NextHopState,
        concurrency: int,
        *,
        ready: Callable[[Slot | None], None],
        refused: Callable[[], None],
    ) -> bool:
        """Acquire the slot of a transaction; return whether it waits for that.

        Args:
            state: of its next hop.
            concurrency: transactions with other hosts at most.
            ready: called, maybe at once, with the slot; None: no limit is shared.
            refused: called instead where the limits cannot be asked, or after `stop`.
        """
        limits, next_hop, rate = self._limits, state.next_hop, state.limits.rate
        if limits is None or not next_hop.limited:
            ready(None)
            return False
        wanted: list[tuple[LimitKey, int]] = [(_connections_key(state), state.connections)]
        if rate is not None:
            wanted.append((_rate_key(state), rate.messages))
        wanted.append((("deliveries",), concurrency))
        slot = Slot(limits, wanted, ready=ready, failed=refused, waiting=self._waiting)
        slot.acquire()
        return slot.waits

    def begun(self, slot: Slot, state: NextHopState) -> None:
        """Note that the transaction of a slot begins: it is counted in the rate for a period."""
        rate = state.limits.rate
        if rate is not None and slot.keep(key := _rate_key(state)):
            period: IDelayedCall = self._clock.callLater(rate.period, lambda: self._over(period))
            self._periods[period] = key

    def next_by_rate(self, state: NextHopState, position: int, *, asking: bool) -> float | None:
        """Return when a transaction is expected to begin, by the rate of its next hop.

        The transactions of other processes are not known here. While one waits for a slot, their
        number in a period is taken to stay the same.

        Args:
            state: of the next hop.
            position: transactions that begin there before it.
            asking: whether a transaction there waits for a slot.

        Returns:
            A time by the clock; None: the rate does not delay it.
        """
        rate, key = state.limits.rate, _rate_key(state)
        if rate is None:
            return None
        ends = sorted(timer.getTime() for timer, its in self._periods.items() if its == key)
        in_period = len(ends) if asking else rate.messages
        if not in_period:
            return None
        rounds, place = divmod(position, in_period)
        free = max(0, in_period - len(ends))
        if place >= free:
            return ends[place - free] + rounds * rate.period
        return self._clock.seconds() + rounds * rate.period if rounds else None

    def _over(self, period: IDelayedCall) -> None:
        assert self._limits is not None
        self._limits.give_back(self._periods.pop(period))

    def stop(self) -> None:
        """Acquire no more slots, and give back the counts in rates; no timer is left."""
        for slot in tuple(self._waiting):
            slot.cancel()
        for period in tuple(self._periods):
            period.cancel()
            self._over(period)


def _connections_key(state: NextHopState) -> LimitKey:
    """Return the name of the count of transactions at once.

    A limit that the settings have for this next hop holds for all machines of a cluster together;
    of the default for all next hops each has its share.
    """
    kind = "hop" if state.limits.connections is None else "destination"
    return kind, *state.limit_name


def _rate_key(state: NextHopState) -> LimitKey:
    """Return the name of the count of a rate, with its period in seconds at the end."""
    rate = state.limits.rate
    return "rate", *state.limit_name, "" if rate is None else str(rate.period)
