"""The parent's side of limits over all workers: which worker holds how many credits of each.

Theory of operation. One process counts by itself (`system.limits.LocalLimits`). With several
workers the parent has the `Ledger`, each worker a `limits.WorkerLimits`, and they exchange one-way
messages, each a JSON list, in order in each direction:

==============================  ==================================================================
worker to parent
``ask key limit wanted wait``   a credit for one request, and spare ones if no other worker needs
                                them; with ``wait`` as soon as possible, else now or not at all
``give [[key, count], …]``      credits that are free again
``answer key count``            to ``recall``: the credits that were spare in this worker
parent to worker
``grant key count keep wait``   to the oldest ``ask`` of that kind; ``keep``: see below
``refuse key``                  to the oldest ``ask`` that does not wait
``recall key``                  answer with the spare credits, and keep none from now on
==============================  ==================================================================

A credit is one count, and each is in one place: free in the ledger, or granted to a worker, where
it is in use or spare. The limit is exact because the grants never exceed it.

A credit that a connection gives back stays spare in its worker, for the next connection: steady
load needs no messages. It stays only while the worker *keeps* the key. As soon as a worker asks and
no credit is free, the ledger recalls: every worker that keeps answers with its spare credits, and
from then on returns each credit as it comes free, until a grant says that no worker is in need any
more. So no request is refused because of credits that are not in use, and under lasting pressure no
worker keeps, and none has to be asked twice. Requests that wait are served in their order,
whichever worker they come from; but a worker with less in use than its share of the limit serves
its own next one by itself (`limits.WorkerLimits`): each is sure of its share, without messages.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

from attrs import Factory, define
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey

CreditMessage = list[Any]
"""A message between the ledger and a worker: a verb and its arguments, as JSON can write them."""

_PATIENCE = 1.0  # seconds for a worker to answer; it needs far less than a millisecond


class Holding(enum.Enum):
    """The way in which a worker treats credits of a key that come free."""

    RETURNING = "returns each credit at once"
    KEEPING = "keeps spare credits"
    RECALLED = "was told to keep none; its answer is awaited"
    OVERDUE = "was told to keep none; its answer is overdue, and requests no longer wait for it"


class HoldingEvent(enum.Enum):
    """A message, or a timeout, that changes that."""

    LAST_GRANT = "granted, and no other request waits"
    RECALL = "recalled"
    ANSWER = "answered"
    TIMEOUT = "no answer in time"


TRANSITIONS: Mapping[Holding, Mapping[HoldingEvent, Holding]] = {
    Holding.RETURNING: {
        HoldingEvent.LAST_GRANT: Holding.KEEPING,
        HoldingEvent.ANSWER: Holding.RETURNING,
    },
    Holding.KEEPING: {
        HoldingEvent.LAST_GRANT: Holding.KEEPING,
        HoldingEvent.RECALL: Holding.RECALLED,
        HoldingEvent.ANSWER: Holding.RETURNING,
    },
    Holding.RECALLED: {
        HoldingEvent.ANSWER: Holding.RETURNING,
        HoldingEvent.TIMEOUT: Holding.OVERDUE,
    },
    Holding.OVERDUE: {HoldingEvent.ANSWER: Holding.RETURNING},
}

_ANSWERED = (Holding.RETURNING, Holding.KEEPING)


class Upstream(Protocol):
    """The source of the credits of limits that hold for several machines together."""

    def governs(self, key: LimitKey) -> bool:
        """Whether the credits of a limit come from here."""
        ...

    def adjusted(self, key: LimitKey, limit: int) -> int:
        """Return the limit of this machine, where its credits do not come from here."""
        ...

    def ceiling(self, key: LimitKey, limit: int) -> int:
        """Return how many credits may be granted now, in all."""
        ...

    def note(self, key: LimitKey, limit: int, *, used: int, waiting: int, taking: int) -> bool:
        """Take note of the credits that are granted, and of the requests that are not served.

        It calls `Ledger.serve` later where this changes anything.

        Returns:
            Whether the requests that do not wait (``taking``) are to be refused now.
        """
        ...


class OneMachine:
    """The upstream of a machine that shares no limit with others."""

    def governs(self, key: LimitKey) -> bool:
        """Whether the credits of a limit come from here: none do."""
        return False

    def adjusted(self, key: LimitKey, limit: int) -> int:
        """Return the limit of this machine."""
        return limit

    def ceiling(self, key: LimitKey, limit: int) -> int:
        """Return how many credits may be granted."""
        return limit

    def note(self, key: LimitKey, limit: int, *, used: int, waiting: int, taking: int) -> bool:
        """Do nothing."""
        return True


@define(eq=False)
class _Holder:
    """The credits of one key in one worker."""

    held: int = 0
    state: Holding = Holding.RETURNING
    deadline: IDelayedCall | None = None  # of its answer

    def happened(self, event: HoldingEvent) -> None:
        self.state = TRANSITIONS[self.state][event]


@define(eq=False)
class _Account:
    """All credits of one key."""

    limit: int
    governed: bool = False  # whether its credits come from the upstream
    held: int = 0  # by all holders together
    holders: dict[Hashable, _Holder] = Factory(dict)
    takers: deque[Hashable] = Factory(deque)  # the worker of each request that does not wait
    waiters: deque[Hashable] = Factory(deque)  # the worker of each request that waits


class Ledger:
    """Grants credits to workers, within the limit of each key.

    Workers are named by anything hashable; a successor may have the name of its predecessor.

    Args:
        send: sends a message to a worker. It may not call back into the ledger before it returns.
        clock: for the deadline of a worker's answer.

    Attributes:
        upstream: of limits that hold for several machines.
    """

    def __init__(self, *, send: Callable[[Hashable, CreditMessage], object], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self.upstream: Upstream = OneMachine()
        self._accounts: dict[LimitKey, _Account] = {}

    def receive(self, worker: Hashable, message: CreditMessage) -> None:
        """Take a message from a worker.

        Raises:
            ValueError: the worker gives credits that it does not hold, or the message is none.
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
                raise ValueError(f"not a message of a worker: {message!r}")

    def worker_gone(self, worker: Hashable) -> None:
        """Free all credits of a worker that has died, and forget its requests."""
        for key, account in list(self._accounts.items()):
            holder = account.holders.pop(worker, None)
            if holder is not None:
                account.held -= holder.held
                _stop(holder)
            account.takers = deque(each for each in account.takers if each != worker)
            account.waiters = deque(each for each in account.waiters if each != worker)
            self._serve(key, account)

    def serve(self, key: LimitKey) -> None:
        """Serve the requests for ``key``, of which the upstream may have more credits now."""
        account = self._accounts.get(key)
        if account is not None:
            self._serve(key, account)

    def held(self, key: LimitKey) -> int:
        """Return how many credits of ``key`` are granted: in use, or spare in a worker."""
        account = self._accounts.get(key)
        return 0 if account is None else account.held

    def grants(self) -> dict[LimitKey, int]:
        """Return how many credits are granted of each key that a worker holds or asks for."""
        return {key: account.held for key, account in self._accounts.items()}

    def close(self) -> None:
        """Cancel all timers."""
        for account in self._accounts.values():
            for holder in account.holders.values():
                _stop(holder)

    def _ask(self, worker: Hashable, key: LimitKey, limit: int, wanted: int, wait: bool) -> None:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(limit, self.upstream.governs(key))
        account.limit = limit if account.governed else self.upstream.adjusted(key, limit)
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
            holder.happened(HoldingEvent.ANSWER)
        self._serve(key, account)

    def _serve(self, key: LimitKey, account: _Account, wanted: int = 1) -> None:
        ceiling = account.limit
        if account.governed:
            ceiling = self.upstream.ceiling(key, account.limit)
        while account.held < ceiling and (account.waiters or account.takers):
            self._grant(key, account, wanted, ceiling)
        if account.waiters or account.takers or account.held > ceiling:
            for worker, holder in account.holders.items():
                if holder.held and holder.state is Holding.KEEPING:
                    self._recall(key, worker, holder)
        is_recalling = any(holder.state is Holding.RECALLED for holder in account.holders.values())
        is_final = not account.governed or self._is_final(key, account, is_recalling)
        if account.takers and not is_recalling and is_final:
            for taker in account.takers:
                self._send(taker, ["refuse", key])
            account.takers.clear()
        for worker in [
            worker
            for worker, holder in account.holders.items()
            if not holder.held and holder.state in _ANSWERED
        ]:
            del account.holders[worker]
        if not (account.holders or account.waiters or account.takers):
            del self._accounts[key]

    def _is_final(self, key: LimitKey, account: _Account, is_recalling: bool) -> bool:
        """Tell the upstream; return whether it has no credits for requests that do not wait."""
        return self.upstream.note(
            key,
            account.limit,
            used=account.held,
            waiting=len(account.waiters),
            taking=0 if is_recalling else len(account.takers),
        )

    def _grant(self, key: LimitKey, account: _Account, wanted: int, ceiling: int) -> None:
        wait = bool(account.waiters)  # these go first
        worker = (account.waiters or account.takers).popleft()
        holder = account.holders.setdefault(worker, _Holder())
        last = not account.waiters and not account.takers
        # A worker whose answer is awaited must not be told to keep: the answer would not be true
        # when it comes.
        if last and holder.state in _ANSWERED:
            holder.happened(HoldingEvent.LAST_GRANT)
        keep = holder.state is Holding.KEEPING
        count = min(wanted, ceiling - account.held) if last else 1
        holder.held += count
        account.held += count
        self._send(worker, ["grant", key, count, keep, wait])

    def _recall(self, key: LimitKey, worker: Hashable, holder: _Holder) -> None:
        holder.happened(HoldingEvent.RECALL)
        holder.deadline = self._clock.callLater(_PATIENCE, self._answer_is_overdue, key, holder)
        self._send(worker, ["recall", key])

    def _answer_is_overdue(self, key: LimitKey, holder: _Holder) -> None:
        holder.happened(HoldingEvent.TIMEOUT)
        self._serve(key, self._accounts[key])


def _stop(holder: _Holder) -> None:
    if holder.deadline is not None and holder.deadline.active():
        holder.deadline.cancel()
    holder.deadline = None
