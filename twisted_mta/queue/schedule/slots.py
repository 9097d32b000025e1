"""Places in the limits that hold over all processes of one MTA."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, LimitKey, Limits
from .next_hops import NextHopState


class Slot:
    """The places of one transaction: asked for one after the other, given back together.

    What is the scarcest for others is asked for last, so that it is not held while waiting.
    """

    _log = Logger()

    def __init__(
        self,
        limits: Limits,
        wanted: Iterable[tuple[LimitKey, int]],
        *,
        ready: Callable[[Slot], None],
        failed: Callable[[Slot], None],
    ) -> None:
        """Prepare to ask.

        Args:
            limits: who is asked.
            wanted: keys with their limits.
            ready: called, maybe within `ask`, when all of them are there.
            failed: called instead if they cannot be had; nothing is taken then.
        """
        self._limits = limits
        self._wanted = deque(wanted)
        self._ready = ready
        self._failed = failed
        self._taken: list[LimitKey] = []
        self._pending: Deferred[bool] | None = None

    def ask(self) -> None:
        """Ask for what is still wanted."""
        while self._wanted:
            key, limit = self._wanted[0]
            answer = self._limits.wait(key, limit)
            if isinstance(answer, Deferred):
                self._pending = answer
                answer.addCallbacks(self._granted, self._not_granted)
                return
            self._taken.append(self._wanted.popleft()[0])
        self._ready(self)

    def _granted(self, _: bool) -> None:
        self._pending = None
        self._taken.append(self._wanted.popleft()[0])
        self.ask()

    def _not_granted(self, failure: Failure) -> None:
        self._pending = None
        self.give_back()
        if not failure.check(CancelledError):
            self._log.failure("a limit could not be asked for", failure)
        self._failed(self)

    def keep(self, key: LimitKey) -> bool:
        """Leave one key out of what is given back; says whether it was taken."""
        if key not in self._taken:
            return False
        self._taken.remove(key)
        return True

    def give_back(self) -> None:
        """Give back all that was taken."""
        taken, self._taken = self._taken, []
        for key in reversed(taken):
            self._limits.give_back(key)

    def cancel(self) -> None:
        """Ask no more: `failed` is called, unless all is there already."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()


class Slots:
    """Asks for the places of transactions, and gives them back.

    A rate is a sliding window: its places are given back when its period is over.

    Args:
        limits: who is asked; None: there is nobody to share with.
        clock: for the periods.
    """

    def __init__(self, limits: Limits | None, *, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._asking: dict[Slot, None] = {}
        self._timers: dict[IDelayedCall, LimitKey] = {}

    def acquire(
        self,
        hop: NextHopState,
        concurrency: int,
        *,
        ready: Callable[[Slot | None], None],
        refused: Callable[[], None],
    ) -> None:
        """Ask for what a transaction needs.

        Args:
            hop: where it goes.
            concurrency: transactions with other hosts at once.
            ready: called, maybe at once, when all is there.
            refused: called instead where the limits cannot be asked, or `stop` was called.
        """
        limits, next_hop, rate = self._limits, hop.next_hop, hop.limits.rate
        if limits is None or not next_hop.remote:
            ready(None)
            return
        wanted: list[tuple[LimitKey, int]] = [(("hop", *_name(hop)), hop.connections)]
        if rate is not None:
            wanted.append((_rate_key(hop), rate.messages))
        wanted.append((("deliveries",), concurrency))

        def granted(slot: Slot) -> None:
            self._asking.pop(slot, None)
            ready(slot)

        def failed(slot: Slot) -> None:
            self._asking.pop(slot, None)
            refused()

        slot = Slot(limits, wanted, ready=granted, failed=failed)
        self._asking[slot] = None
        slot.ask()

    def begun(self, slot: Slot, hop: NextHopState) -> None:
        """A transaction begins: its place in the rate is free again a period later."""
        rate, key = hop.limits.rate, _rate_key(hop)
        if rate is not None and slot.keep(key):
            timer: IDelayedCall = self._clock.callLater(rate.period, lambda: self._over(timer))
            self._timers[timer] = key

    def _over(self, timer: IDelayedCall) -> None:
        assert self._limits is not None
        self._limits.give_back(self._timers.pop(timer))

    def stop(self) -> None:
        """Ask for nothing more, and give back the places in rates; no timer is left."""
        for slot in tuple(self._asking):
            slot.cancel()
        for timer in tuple(self._timers):
            timer.cancel()
            self._over(timer)


def _rate_key(hop: NextHopState) -> LimitKey:
    return "rate", *_name(hop)


def _name(hop: NextHopState) -> tuple[str, ...]:
    """Return what it is called in all processes: the same hosts on other terms are another one."""
    next_hop = hop.next_hop
    return (str(next_hop), next_hop.destination) if next_hop.destination else (str(next_hop),)
