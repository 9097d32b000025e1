"""Limits: how many of something may be in use at a time, over all processes of one MTA together.

Theory of operation. In one process `LocalLimits` counts. With several workers the parent has the
`Ledger`, each worker a `Purse`, and what goes between them is one-way messages, each a list that
JSON can write, in order in each direction:

==============================  ==================================================================
worker to parent
``ask key limit wanted wait``   a credit for one who asks, and more to spare if nobody needs them;
                                with ``wait`` as soon as may be, else now or not
``give [[key, count], …]``      credits that are free again
``answer key count``            to ``recall``: the credits that were to spare here
parent to worker
``grant key count keep wait``   to the oldest ``ask`` of that kind; ``keep``: see below
``refuse key``                  to the oldest ``ask`` that does not wait
``recall key``                  answer with what is to spare, and keep nothing from now on
==============================  ==================================================================

A credit is one count, and each is in one place: free in the ledger, or granted to a worker, where
it is in use or to spare. That what is granted never exceeds the limit makes the limit exact.

What a connection gives back stays to spare in its worker, for the next one: steady load is not
talked about. It stays only while the worker *keeps* the key. Once somebody asks and nothing is
free, the ledger recalls: every worker that keeps answers with its spares and from then on hands
each credit over as it comes free, until a grant says that nobody is in need any more. So those who
wait are served in their order, whichever worker they are in, and nobody is refused on account of
credits that no one uses. Under lasting pressure no worker keeps, and nobody has to be asked twice.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey

CreditMessage = list[Any]
"""What goes between a purse and the ledger: a verb and its arguments, as JSON can write them."""

_MOST_SPARE = 8  # credits asked for at once, where the limit is large
_SPARE_SHARE = 64  # the part of a limit that one worker asks for at once: none below 128
_KEPT = 2.0  # seconds; a credit that was to spare for one to two of these goes back
_ALONE_AFTER = 3.0  # seconds without a word of the parent, who says one each second
_A_MOMENT = 0.1  # seconds
_PATIENCE = 1.0  # seconds for a worker to answer; it needs far less than a millisecond


@define(eq=False)
class _Count:
    limit: int
    used: int = 0
    waiting: dict[Deferred[bool], None] = Factory(dict)


class LocalLimits:
    """Exact counts within one process (`interfaces.Limits`).

    ``take`` answers at once, and so does ``wait`` where nobody waits already.
    """

    def __init__(self) -> None:
        self._counts: dict[LimitKey, _Count] = {}

    def take(self, key: LimitKey, limit: int) -> bool:
        """Count one more in, if that keeps within ``limit``; says whether it did."""
        count = self._count(key, limit)
        if count.used >= limit:
            self._forget_unused(key, count)
            return False
        count.used += 1
        return True

    def wait(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one more in as soon as that keeps within ``limit``; the result is True."""
        count = self._count(key, limit)
        if count.used < limit:
            count.used += 1
            return True
        waiting: Deferred[bool] = Deferred(lambda waiting: self._cancel(key, waiting))
        count.waiting[waiting] = None
        return waiting

    def give_back(self, key: LimitKey) -> None:
        """Count one out that was counted in."""
        count = self._counts[key]
        count.used -= 1
        self._serve(key, count)

    def _count(self, key: LimitKey, limit: int) -> _Count:
        count = self._counts.get(key)
        if count is not None and limit != count.limit:
            count.limit = limit
            self._serve(key, count)
            count = self._counts.get(key)  # who was served may have given it back already
        if count is None:
            count = self._counts[key] = _Count(limit)
        return count

    def _serve(self, key: LimitKey, count: _Count) -> None:
        while count.waiting and count.used < count.limit:
            waiting = next(iter(count.waiting))
            del count.waiting[waiting]
            count.used += 1
            waiting.callback(True)
        self._forget_unused(key, count)

    def _cancel(self, key: LimitKey, waiting: Deferred[bool]) -> None:
        count = self._counts[key]
        del count.waiting[waiting]
        self._forget_unused(key, count)

    def _forget_unused(self, key: LimitKey, count: _Count) -> None:
        if not count.used and not count.waiting and self._counts.get(key) is count:
            del self._counts[key]


class _Attitude(enum.Enum):
    """What a worker does with credits of a key that come free in it."""

    KEEPS = "they stay to spare"
    RECALLED = "it has been told to keep none, and its answer is awaited"
    SILENT = "the same, and the answer is overdue: nobody waits for it any more"
    HANDS_OVER = "it gives each one back at once"


@define(eq=False)
class _Holder:
    held: int = 0  # credits
    attitude: _Attitude = _Attitude.HANDS_OVER
    deadline: IDelayedCall | None = None  # of its answer


@define(eq=False)
class _Account:
    limit: int
    held: int = 0  # by all holders together
    holders: dict[Hashable, _Holder] = Factory(dict)
    takers: deque[Hashable] = Factory(deque)  # the worker of each who wants it now or not
    waiters: deque[Hashable] = Factory(deque)


class Ledger:
    """The parent's part: which worker holds how many credits of each key.

    Workers are named by anything hashable; one that has gone may come back under its name.

    Args:
        send: sends a message to a worker. It may not call back into the ledger before it returns.
        clock: for the deadline of a worker's answers.
    """

    def __init__(self, *, send: Callable[[Hashable, CreditMessage], object], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._accounts: dict[LimitKey, _Account] = {}

    def receive(self, worker: Hashable, message: CreditMessage) -> None:
        """Take a message from a worker's purse.

        Raises:
            ValueError: the purse gives what it does not hold, or says what is no message.
        """
        match message:
            case ["ask", name, limit, wanted, wait]:
                self._ask(worker, tuple(name), limit, wanted, wait)
            case ["give", gifts]:
                for name, count in gifts:
                    self._give(worker, tuple(name), count)
            case ["answer", name, count]:
                self._give(worker, tuple(name), count, answer=True)
            case _:
                raise ValueError(f"no message of a purse: {message!r}")

    def worker_gone(self, worker: Hashable) -> None:
        """A worker has died: all that it held is free, and nothing more comes from it."""
        for key, account in list(self._accounts.items()):
            holder = account.holders.pop(worker, None)
            if holder is not None:
                account.held -= holder.held
                _stop(holder)
            account.takers = deque(each for each in account.takers if each != worker)
            account.waiters = deque(each for each in account.waiters if each != worker)
            self._serve(key, account)

    def held(self, key: LimitKey) -> int:
        """Return how many credits of ``key`` are granted: in use, or to spare in some worker."""
        account = self._accounts.get(key)
        return 0 if account is None else account.held

    def grants(self) -> dict[LimitKey, int]:
        """Return how many credits of each key are granted, of all that anybody holds or wants."""
        return {key: account.held for key, account in self._accounts.items()}

    def close(self) -> None:
        """Stop: no timer is left."""
        for account in self._accounts.values():
            for holder in account.holders.values():
                _stop(holder)

    def _ask(self, worker: Hashable, key: LimitKey, limit: int, wanted: int, wait: bool) -> None:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(limit)
        account.limit = limit
        (account.waiters if wait else account.takers).append(worker)
        self._serve(key, account, wanted)

    def _give(self, worker: Hashable, key: LimitKey, count: int, *, answer: bool = False) -> None:
        account = self._accounts.get(key)
        holder = None if account is None else account.holders.get(worker)
        if account is None or holder is None or not 0 <= count <= holder.held:
            raise ValueError(f"{worker!r} gives {count} of {key!r}, which it does not hold")
        holder.held -= count
        account.held -= count
        if answer:
            _stop(holder)
            holder.attitude = _Attitude.HANDS_OVER
        self._serve(key, account)

    def _serve(self, key: LimitKey, account: _Account, wanted: int = 1) -> None:
        while account.held < account.limit and (account.waiters or account.takers):
            self._grant(key, account, wanted)
        if account.waiters or account.takers:
            for worker, holder in account.holders.items():
                if holder.held and holder.attitude is _Attitude.KEEPS:
                    self._recall(key, worker, holder)
        if account.takers and not any(
            holder.attitude is _Attitude.RECALLED for holder in account.holders.values()
        ):
            for taker in account.takers:
                self._send(taker, ["refuse", key])
            account.takers.clear()
        for worker in [
            worker
            for worker, holder in account.holders.items()
            if not holder.held and holder.attitude in (_Attitude.KEEPS, _Attitude.HANDS_OVER)
        ]:
            del account.holders[worker]
        if not account.holders and not account.waiters:
            del self._accounts[key]

    def _grant(self, key: LimitKey, account: _Account, wanted: int) -> None:
        wait = bool(account.waiters)  # they came to stay, and go first
        worker = (account.waiters or account.takers).popleft()
        holder = account.holders.setdefault(worker, _Holder())
        # A worker whose answer is awaited must not be told to keep: the answer would not be true
        # when it comes.
        answered = holder.attitude in (_Attitude.KEEPS, _Attitude.HANDS_OVER)
        last = not account.waiters and not account.takers
        if last and answered:
            holder.attitude = _Attitude.KEEPS
        keep = holder.attitude is _Attitude.KEEPS
        count = min(wanted, account.limit - account.held) if last else 1
        holder.held += count
        account.held += count
        self._send(worker, ["grant", key, count, keep, wait])

    def _recall(self, key: LimitKey, worker: Hashable, holder: _Holder) -> None:
        holder.attitude = _Attitude.RECALLED
        holder.deadline = self._clock.callLater(_PATIENCE, self._wait_no_more, key, holder)
        self._send(worker, ["recall", key])

    def _wait_no_more(self, key: LimitKey, holder: _Holder) -> None:
        holder.attitude = _Attitude.SILENT
        self._serve(key, self._accounts[key])


def _stop(holder: _Holder) -> None:
    if holder.deadline is not None and holder.deadline.active():
        holder.deadline.cancel()
    holder.deadline = None


@define(eq=False)
class _Credits:
    limit: int
    used: int = 0
    spare: int = 0
    loans: int = 0  # of those in use: taken while the parent was silent
    unused: int = 0  # the fewest that were to spare since the last look
    keeps: bool = False
    takers: deque[Deferred[bool]] = Factory(deque)  # one for each ask that does not wait
    waiters: dict[Deferred[bool], None] = Factory(dict)
    asked: int = 0  # asks that wait; no fewer than waiters, more where some were cancelled


class Purse:
    """A worker's part: exact counts over all workers (`interfaces.Limits`).

    A parent that is stopped answers nobody. After `_ALONE_AFTER` seconds without a word of it the
    worker takes what it needs up to its share, the limit by the number of workers; such *loans* are
    paid back out of what the parent grants afterwards, or as they come free.

    Args:
        send: sends a message to the ledger. It may not call back into the purse before it returns.
        clock: for how long spare credits are kept.

    Attributes:
        workers: among how many a limit is shared while the parent is silent; 0: there are no loans.
    """

    def __init__(self, *, send: Callable[[CreditMessage], object], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self.workers = 0
        self._credits: dict[LimitKey, _Credits] = {}
        self._timer: IDelayedCall | None = None
        self._heard = 0.0  # by the clock: the parent's last word
        self._alone = self._suspects = False
        self._doubt: IDelayedCall | None = None  # whether the parent lives

    # What rooms ask.

    def take(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one more in, if that keeps within ``limit``; says whether it did."""
        credits = self._credits_of(key, limit)
        if credits.used >= limit:
            self._forget_unused(key, credits)
            return False
        if self._spend(credits) or (self._alone and self._borrow(credits)):
            return True
        if self._alone:
            self._forget_unused(key, credits)
            return False
        taker: Deferred[bool] = Deferred()
        credits.takers.append(taker)
        self._ask(key, limit, wait=False)
        return taker

    def wait(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one more in as soon as that keeps within ``limit``; the result is True."""
        credits = self._credits_of(key, limit)
        if self._spend(credits) or (self._alone and self._borrow(credits)):
            return True
        waiter: Deferred[bool] = Deferred(lambda waiter: credits.waiters.pop(waiter))
        credits.waiters[waiter] = None
        if credits.asked < len(credits.waiters):
            credits.asked += 1
            self._ask(key, limit, wait=True)
        return waiter

    def give_back(self, key: LimitKey) -> None:
        """Count one out that was counted in."""
        credits = self._credits[key]
        credits.used -= 1
        if credits.loans:
            credits.loans -= 1
            self._forget_unused(key, credits)
        else:
            credits.spare += 1
            self._settle(key, credits)
        if self._alone and credits.waiters:
            self._lend(credits)

    def parent_lives(self) -> None:
        """The parent has said something."""
        self._heard = self._clock.seconds()
        self._alone = self._suspects = False

    def close(self) -> None:
        """Stop: no timer is left. What is held is freed by `Ledger.worker_gone`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    # What the ledger says.

    def receive(self, message: CreditMessage) -> None:
        """Take a message from the ledger.

        Raises:
            ValueError: it is none.
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
                raise ValueError(f"no message of a ledger: {message!r}")

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
            # They were granted under a limit that holds no more.
            self._return(key, credits, credits.spare)
        credits.limit = limit
        return credits

    def _spend(self, credits: _Credits) -> bool:
        if not credits.spare or credits.waiters:
            return False
        credits.used += 1
        credits.spare -= 1
        credits.unused = min(credits.unused, credits.spare)
        return True

    def _borrow(self, credits: _Credits) -> bool:
        """Take one without the parent, if that keeps within our share."""
        if not self.workers or credits.used >= max(1, credits.limit // self.workers):
            return False
        credits.used += 1
        credits.loans += 1
        return True

    def _lend(self, credits: _Credits) -> None:
        """Serve those who wait for the parent, as far as our share goes."""
        while (waiter := next(iter(credits.waiters), None)) and self._borrow(credits):
            del credits.waiters[waiter]
            waiter.callback(True)
        for taker in [each for each in credits.takers if not each.called]:
            taker.callback(self._borrow(credits))

    def _doubt_parent(self) -> None:
        """Somebody still waits for the parent's answer: find out whether it says anything."""
        self._doubt = None
        waiting = [each for each in self._credits.values() if each.takers or each.waiters]
        if not waiting:
            return
        left = self._heard + _ALONE_AFTER - self._clock.seconds()
        if left > 0:
            self._doubt = self._clock.callLater(left, self._doubt_parent)
            return
        if not self._suspects:
            # Maybe it was us who did not run: what was said meanwhile is read first.
            self._suspects = True
            self._doubt = self._clock.callLater(_A_MOMENT, self._doubt_parent)
            return
        self._alone = True
        for credits in waiting:
            self._lend(credits)
        self._doubt = self._clock.callLater(_ALONE_AFTER, self._doubt_parent)

    def _ask(self, key: LimitKey, limit: int, *, wait: bool) -> None:
        if self._doubt is None and self.workers:
            self._doubt = self._clock.callLater(_ALONE_AFTER, self._doubt_parent)
        wanted = max(1, min(_MOST_SPARE, limit // _SPARE_SHARE))
        self._send(["ask", key, limit, wanted, wait])

    def _settle(self, key: LimitKey, credits: _Credits) -> None:
        """Do with what is to spare as the ledger wishes."""
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
        # What was to spare all the time since the last look is more than this worker needs.
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
