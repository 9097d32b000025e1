"""Limits of a process that shares some of them with other machines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey
from ..system.limits import LocalLimits
from .ledger import CreditMessage, Ledger, Upstream
from .limits import WorkerLimits


class MachineLimits:
    """Exact counts of one process, some of which hold over several machines (`interfaces.Limits`).

    Most limits are of this machine alone, and are counted here at once. For the others the process
    is to a ledger what a worker is, and the ledger has an upstream: the same as with workers.

    Args:
        upstream: of the limits that several machines share.
        clock: for the ledger.

    Attributes:
        ledger: grants the credits of those limits.
    """

    def __init__(self, upstream: Upstream, *, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._local = LocalLimits()
        self._messages: deque[tuple[Callable[[CreditMessage], Any], CreditMessage]] = deque()
        self._carrying: IDelayedCall | None = None
        self.ledger = Ledger(send=self._to_process, clock=clock)
        self.ledger.upstream = upstream
        self._shared = WorkerLimits(send=self._to_ledger, clock=clock)

    def take(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one in, if that keeps within ``limit``; return whether it was."""
        if self._upstream.governs(key):
            return self._shared.take(key, limit)
        return self._local.take(key, self._upstream.adjusted(key, limit))

    def wait(self, key: LimitKey, limit: int) -> Literal[True] | Deferred[bool]:
        """Count one in as soon as that keeps within ``limit``; the result is True."""
        if self._upstream.governs(key):
            return self._shared.wait(key, limit)
        return self._local.wait(key, self._upstream.adjusted(key, limit))

    def give_back(self, key: LimitKey) -> None:
        """Count one out."""
        if self._upstream.governs(key):
            self._shared.give_back(key)
        else:
            self._local.give_back(key)

    def failures(self) -> dict[LimitKey, int]:
        """Return how many failed authentications each limit has counted."""
        return failures_of(self._local.counts)

    def close(self) -> None:
        """Cancel all timers."""
        if self._carrying is not None:
            self._carrying.cancel()
            self._carrying = None
        self._shared.close()
        self.ledger.close()

    # Neither side may be called back before it has returned.

    def _to_ledger(self, message: CreditMessage) -> None:
        self._carry(lambda each: self.ledger.receive(0, each), message)

    def _to_process(self, _: object, message: CreditMessage) -> None:
        self._carry(self._shared.receive, message)

    def _carry(self, receive: Callable[[CreditMessage], Any], message: CreditMessage) -> None:
        self._messages.append((receive, message))
        if self._carrying is None:
            self._carrying = self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._carrying = None
        while self._messages:
            receive, message = self._messages.popleft()
            receive(message)


def failures_of(counts: Callable[[], Mapping[LimitKey, int]]) -> dict[LimitKey, int]:
    """Return the counts of failed authentications among all counts of a machine."""
    return {key: count for key, count in counts().items() if key[0] == "auth failures" and count}
