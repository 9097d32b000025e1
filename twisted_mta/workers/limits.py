"""The worker's side of limits over all workers: exact counts by credits of the `ledger`."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Literal

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey
from .ledger import CreditMessage

_MOST_SPARE = 8  # credits asked for at once, where the limit is large
_SPARE_SHARE = 64  # the part of a limit that one worker asks for at once: none below 128
_KEPT = 2.0  # seconds; a credit that was spare for one to two of these goes back
_ALONE_AFTER = 3.0  # seconds of the parent's silence; it sends something each second
_A_MOMENT = 0.1  # seconds


@define(eq=False)
class _Credits:
    """The credits of one key in this worker, and the requests for more."""

    limit: int
    used: int = 0
    spare: int = 0
    loans: int = 0  # of those in use: taken while the parent was silent
    unused: int = 0  # the fewest that were spare since the last look
    keeps: bool = False
    takers: deque[Deferred[bool]] = Factory(deque)  # one for each ask that does not wait
    waiters: dict[Deferred[bool], None] = Factory(dict)
    asked: int = 0  # asks that wait; no fewer than waiters, more where some need none any more
    serving: bool = False  # whether waiters are being served, one after the other


class Parent(enum.Enum):
    """The parent, as a worker sees it."""

    ALIVE = "it sends messages"
    SUSPECTED = "it is silent, or this worker did not run"
    SILENT = "it is silent: this worker takes credits on loan"


class WorkerLimits:
    """Exact counts over all workers (`interfaces.Limits`), by credits that the parent grants.

    A parent that is stopped does not answer. After `_ALONE_AFTER` seconds of its silence the worker
    takes the credits that it needs up to its share, the limit divided by the number of workers.
    Such *loans* are paid back out of later grants, or as they come free.

    A credit that comes free goes to a request that waits in this worker, without a message, as long
    as the worker has fewer in use than its share.

    Args:
        send: sends a message to the ledger. It may not call back before it returns.
        clock: for how long spare credits are kept.

    Attributes:
        workers: among how many a limit is divided into shares; 0: there are none, and no loans.
        alone: whether no other machine has a part in the limits. If one has, all credits that come
            free go back.
    """

    def __init__(self, *, send: Callable[[CreditMessage], object], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self.workers = 0
        self.alone = True
        self._credits: dict[LimitKey, _Credits] = {}
        self._timer: IDelayedCall | None = None
        self._heard = 0.0  # when the parent's last message came, by the clock
        self._parent = Parent.ALIVE
        self._doubt: IDelayedCall | None = None  # looks whether the parent lives

    # `interfaces.Limits`.

    def take(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one in, if that keeps within ``limit``; return whether it was."""
        credits = self._credits_of(key, limit)
        if credits.used >= limit:
            self._forget_unused(key, credits)
            return False
        if self._spend(credits) or (self._parent is Parent.SILENT and self._borrow(credits)):
            return True
        if self._parent is Parent.SILENT:
            self._forget_unused(key, credits)
            return False
        taker: Deferred[bool] = Deferred()
        credits.takers.append(taker)
        self._ask(key, limit, wait=False)
        return taker

    def wait(self, key: LimitKey, limit: int) -> Literal[True] | Deferred[bool]:
        """Count one in as soon as that keeps within ``limit``; the result is True."""
        credits = self._credits_of(key, limit)
        if self._spend(credits) or (self._parent is Parent.SILENT and self._borrow(credits)):
            return True
        waiter: Deferred[bool] = Deferred(lambda waiter: credits.waiters.pop(waiter))
        credits.waiters[waiter] = None
        if credits.asked < len(credits.waiters):
            credits.asked += 1
            self._ask(key, limit, wait=True)
        return waiter

    def give_back(self, key: LimitKey) -> None:
        """Count one out."""
        credits = self._credits[key]
        credits.used -= 1
        if credits.loans:
            credits.loans -= 1
        else:
            credits.spare += 1
        if credits.serving:
            return  # by a waiter that was just served; the next one is next
        credits.serving = True
        self._hand_on(credits)
        if self._parent is Parent.SILENT and credits.waiters:
            self._lend(credits)
        credits.serving = False
        self._settle(key, credits)

    def parent_lives(self) -> None:
        """Note that a message of the parent has come."""
        self._heard = self._clock.seconds()
        self._parent = Parent.ALIVE

    def close(self) -> None:
        """Cancel all timers; `Ledger.worker_gone` frees the credits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    # Messages of the ledger.

    def receive(self, message: CreditMessage) -> None:
        """Take a message from the ledger.

        Raises:
            ValueError: it is not a message of a ledger.
        """
        self.parent_lives()
        match message:
            case ["grant", name, count, keep, wait]:
                self._granted(tuple(name), count, keep, wait)
            case ["refuse", name]:
                self._refused(tuple(name))
            case ["recall", name]:
                self._recalled(tuple(name))
            case _:
                raise ValueError(f"not a message of a ledger: {message!r}")

    def _granted(self, key: LimitKey, count: int, keep: bool, wait: bool) -> None:
        credits = self._credits[key]
        credits.keeps = keep
        credits.spare += count
        asker: Deferred[bool] | None
        if wait:
            credits.asked -= 1
            asker = next(iter(credits.waiters), None)
            if asker is not None:
                del credits.waiters[asker]
        else:
            asker = credits.takers.popleft()
            if asker.called:  # cancelled
                asker = None
        if asker is not None:
            credits.used += 1
            credits.spare -= 1
        paid = min(credits.loans, credits.spare)
        credits.loans -= paid
        credits.spare -= paid
        self._settle(key, credits)
        if asker is not None:
            asker.callback(True)

    def _refused(self, key: LimitKey) -> None:
        credits = self._credits[key]
        taker = credits.takers.popleft()
        self._forget_unused(key, credits)
        if not taker.called:
            taker.callback(False)

    def _recalled(self, key: LimitKey) -> None:
        credits = self._credits.get(key)
        spare = 0
        if credits is not None:
            spare = credits.spare
            credits.spare = credits.unused = 0
            credits.keeps = False
            self._forget_unused(key, credits)
        self._send(["answer", key, spare])

    def _credits_of(self, key: LimitKey, limit: int) -> _Credits:
        credits = self._credits.get(key)
        if credits is None:
            credits = self._credits[key] = _Credits(limit)
        elif limit < credits.limit and credits.spare:
            # They were granted under a limit that is no longer in force.
            self._return(key, credits, credits.spare)
        credits.limit = limit
        return credits

    def _spend(self, credits: _Credits) -> bool:
        if not credits.spare or credits.waiters:
            return False
        self._use_spare(credits)
        return True

    def _use_spare(self, credits: _Credits) -> None:
        credits.used += 1
        credits.spare -= 1
        credits.unused = min(credits.unused, credits.spare)

    def _borrow(self, credits: _Credits) -> bool:
        """Take one without the parent, if that keeps within this worker's share."""
        if not self.workers or credits.used >= max(1, credits.limit // self.workers):
            return False
        credits.used += 1
        credits.loans += 1
        return True

    def _hand_on(self, credits: _Credits) -> None:
        """Serve requests that wait here by credits that came free, as far as the share allows."""
        if not (self.alone and self.workers):
            return
        while credits.spare and credits.waiters and credits.used < credits.limit // self.workers:
            waiter = next(iter(credits.waiters))
            del credits.waiters[waiter]
            self._use_spare(credits)
            waiter.callback(True)

    def _lend(self, credits: _Credits) -> None:
        """Serve requests that wait for the parent, as far as this worker's share goes."""
        while (waiter := next(iter(credits.waiters), None)) and self._borrow(credits):
            del credits.waiters[waiter]
            waiter.callback(True)
        for taker in [each for each in credits.takers if not each.called]:
            taker.callback(self._borrow(credits))

    def _doubt_parent(self) -> None:
        """Decide whether the parent is silent, while a request waits for its answer."""
        self._doubt = None
        waiting = [each for each in self._credits.values() if each.takers or each.waiters]
        if not waiting:
            return
        left = self._heard + _ALONE_AFTER - self._clock.seconds()
        if left > 0:
            self._doubt = self._clock.callLater(left, self._doubt_parent)
            return
        if self._parent is Parent.ALIVE:
            # Perhaps this process did not run: messages that came meanwhile are read first.
            self._parent = Parent.SUSPECTED
            self._doubt = self._clock.callLater(_A_MOMENT, self._doubt_parent)
            return
        self._parent = Parent.SILENT
        for credits in waiting:
            self._lend(credits)
        self._doubt = self._clock.callLater(_ALONE_AFTER, self._doubt_parent)

    def _ask(self, key: LimitKey, limit: int, *, wait: bool) -> None:
        if self._doubt is None and self.workers:
            self._doubt = self._clock.callLater(_ALONE_AFTER, self._doubt_parent)
        wanted = max(1, min(_MOST_SPARE, limit // _SPARE_SHARE))
        self._send(["ask", key, limit, wanted, wait])

    def _settle(self, key: LimitKey, credits: _Credits) -> None:
        """Keep or return spare credits, as the ledger wishes."""
        if credits.spare and not credits.keeps:
            self._return(key, credits, credits.spare)
        elif credits.spare and self._timer is None:
            self._timer = self._clock.callLater(_KEPT, self._return_unused)
        self._forget_unused(key, credits)

    def _return(self, key: LimitKey, credits: _Credits, count: int) -> None:
        credits.spare -= count
        credits.unused = 0
        self._send(["give", [[key, count]]])

    def _return_unused(self) -> None:
        # Credits that were spare all the time since the last look are more than this worker needs.
        self._timer = None
        gifts: list[tuple[LimitKey, int]] = []
        left = False
        for key, credits in list(self._credits.items()):
            if credits.unused:
                gifts.append((key, credits.unused))
                credits.spare -= credits.unused
            credits.unused = credits.spare
            left = left or credits.spare > 0
            self._forget_unused(key, credits)
        if left:
            self._timer = self._clock.callLater(_KEPT, self._return_unused)
        if gifts:
            self._send(["give", gifts])

    def _forget_unused(self, key: LimitKey, credits: _Credits) -> None:
        if not (
            credits.used or credits.spare or credits.takers or credits.waiters or credits.asked
        ):
            self._credits.pop(key, None)
