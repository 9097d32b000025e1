"""Timers by the monotonic clock, independent of changes of the wall clock.

Twisted's reactors use ``time.time``. If the wall clock is set back by an hour, their timers fire an
hour late; if it is set ahead, all timers of that hour fire at once, and healthy connections time
out.

Our own processes make their reactor use the monotonic clock (`use_monotonic_time`). The reactor of
an application that embeds the mail transfer agent is not changed: our timers are kept beside it
(`with_monotonic_time`).
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from threading import Lock, Thread
from types import MethodType
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from twisted.internet import tcp, unix
from twisted.internet.base import DelayedCall
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python import runtime
from zope.interface import directlyProvides, providedBy

_LOST = 1.0  # seconds after which the reactor is asked again to call us in its next turn
_IDLE = 5.0  # seconds without a time set, after which the thread of an alarm ends
_MANY_CANCELLED = 50  # cancelled calls; more are removed if they are most of all


monotonic = time.monotonic  # noqa: TID251 - the one place where monotonic time comes from
"""Returns seconds of the monotonic clock, since some moment in the past."""


def use_monotonic_time(reactor: Any) -> None:
    """Make the reactor of our own process use the monotonic clock.

    Pending timers keep their remaining time.
    """
    if not _uses_wall_clock(reactor):
        return
    pending = [(call, call.getTime() - reactor.seconds()) for call in reactor.getDelayedCalls()]
    reactor.seconds = monotonic
    for call, left in pending:
        call.seconds = monotonic
        call.reset(max(0.0, left))


def with_monotonic_time(reactor: Any) -> Any:
    """Return a reactor with monotonic timers: ``reactor`` itself unless it uses the wall clock.

    Clocks of tests, and reactors after `use_monotonic_time`, are returned unchanged. Callers share
    the monotonic timers of a reactor, and their thread, as long as one of them has them.
    """
    if not _uses_wall_clock(reactor):
        return reactor
    known = _MONOTONIC.get(reactor)
    monotonic_reactor = None if known is None else known()
    if monotonic_reactor is None:
        monotonic_reactor = MonotonicReactor(reactor)
        _MONOTONIC[reactor] = ref(monotonic_reactor)
    return monotonic_reactor


def is_posix(reactor: Any) -> bool:
    """Whether Twisted's own ports and connections work on a reactor; not on that of a test."""
    if isinstance(reactor, MonotonicReactor):
        return reactor.is_posix
    return isinstance(reactor, PosixReactorBase)


def _uses_wall_clock(reactor: Any) -> bool:
    return getattr(reactor, "seconds", None) is runtime.seconds


_MONOTONIC: WeakKeyDictionary[Any, ref[MonotonicReactor]] = WeakKeyDictionary()
"""The monotonic timers in use, by their reactor."""


class Waker(Protocol):
    """Calls the reactor's thread at a time of the monotonic clock."""

    def set(self, at: float | None) -> None:
        """Ring at ``at`` or soon after, instead of at the time set before; None: not at all."""
        ...


class MonotonicReactor:
    """A reactor whose timers and connection timeouts are monotonic.

    Everything else is passed to the reactor below, which still uses the wall clock for others.

    Args:
        reactor: `IReactorTime`, `IReactorFromThreads`, and all else that is used of it.
        seconds: the monotonic clock.
        waker: calls `_run` when the first timer is due; None: an `Alarm`.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        seconds: Callable[[], float] = monotonic,
        waker: Callable[[Callable[[], object]], Waker] | None = None,
    ) -> None:
        self._reactor = reactor
        self.seconds = seconds
        self._new: list[DelayedCall] = []  # since the last `_run`
        self._calls: list[DelayedCall] = []  # a heap, by time
        self._cancelled = 0  # of all these
        self._disordered = False  # a call was moved forward: the heap is not ordered
        self._from_threads: deque[Callable[[], object]] = deque()
        self._asked = False  # whether the reactor will call `_run` in its next turn
        self._rings_at: float | None = None
        # `callFromThread` of the asyncio reactor makes a timer by the wall clock.
        loop = getattr(reactor, "_asyncioEventloop", None)
        self._call_soon = reactor.callFromThread if loop is None else loop.call_soon_threadsafe
        self._waker = (waker or Alarm)(self._ask)
        self._fallback: Any = None  # a timer of the reactor, if the waker cannot be set
        self.is_posix = isinstance(reactor, PosixReactorBase)
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._reactor, name)
        if isinstance(value, MethodType):  # `addWriter` is called for each write
            self.__dict__[name] = value
        return value

    # IReactorTime.

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Call ``callable`` after ``delay`` seconds (`IReactorTime`)."""
        assert delay >= 0, f"found {delay}, expected 0 seconds or more"
        at = self.seconds() + delay
        call = DelayedCall(at, callable, args, kw, self._count_out, self._sooner, self.seconds)
        self._new.append(call)
        if not delay and not self._asked:
            self._ask()
        self._wake(at)
        return call

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        """Return the pending timers (`IReactorTime`), in any order."""
        return [call for call in (*self._calls, *self._new) if not call.cancelled]

    # IReactorFromThreads.

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        """Call ``callable`` in the reactor's thread, as soon as possible (`IReactorFromThreads`).

        Some of Twisted's reactors use a timer of 0 seconds by the wall clock for it, which waits
        for an hour if the clock is set back by an hour at that moment. `Alarm` asks again.
        """
        self._from_threads.append(lambda: callable(*args, **kw))
        if not self._asked:
            self._ask()

    # IReactorTCP and IReactorUNIX: connections, which have timeouts.

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any:
        """Connect (`IReactorTCP`)."""
        if not self.is_posix:
            return self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
        connector = tcp.Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30.0, checkPID: bool = False
    ) -> Any:
        """Connect (`IReactorUNIX`)."""
        if not self.is_posix:
            return self._reactor.connectUNIX(address, factory, timeout, checkPID)
        connector = unix.Connector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    # Private.

    def _ask(self) -> None:
        """Have `_run` called in the reactor's thread; may be called in any thread."""
        self._asked = True
        self._call_soon(self._run)

    def _wake(self, at: float) -> None:
        if self._rings_at is None or at < self._rings_at:
            self._set_waker(at)

    def _set_waker(self, at: float | None) -> None:
        if (
            at is not None and self._asked
        ):  # `_run` comes in the next turn, and sets the waker again
            at = max(at, self.seconds() + _LOST)
        self._rings_at = at
        if self._fallback is not None and self._fallback.active():
            self._fallback.cancel()
        try:
            self._waker.set(at)
        except (MemoryError, OSError, RuntimeError):  # no thread or descriptor is left
            # A timer by the wall clock is better than none.
            assert at is not None
            self._fallback = self._reactor.callLater(max(0.0, at - self.seconds()), self._run)

    def _count_out(self, call: DelayedCall) -> None:
        self._cancelled += 1

    def _sooner(self, call: DelayedCall) -> None:
        self._disordered = True
        self._wake(call.time)

    def _run(self) -> None:
        """Make the calls that are due, and those from threads."""
        self._asked = False  # reset first: calls from threads from now on ask again
        for _ in range(len(self._from_threads)):
            self._call(self._from_threads.popleft())
        new, self._new = self._new, []
        for call in new:
            if call.cancelled:
                self._cancelled -= 1
            else:
                call.activate_delay()
                heappush(self._calls, call)
        if self._disordered:
            self._disordered = False
            heapify(self._calls)
        now = self.seconds()
        while self._calls and self._calls[0].time <= now:
            call = heappop(self._calls)
            if call.cancelled:
                self._cancelled -= 1
            elif call.delayed_time > 0.0:
                call.activate_delay()
                heappush(self._calls, call)
            else:
                call.called = 1
                self._call(call.func, *call.args, **call.kw)
        if self._cancelled > _MANY_CANCELLED and self._cancelled > len(self._calls) >> 1:
            self._calls = [call for call in self._calls if not call.cancelled]
            heapify(self._calls)
            self._cancelled = sum(bool(call.cancelled) for call in self._new)
        pending = [*self._calls[:1], *self._new]
        self._set_waker(min((call.getTime() for call in pending), default=None))

    def _call(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        try:
            callable(*args, **kw)
        except BaseException:  # as the reactor does: one call that fails does not affect the others
            self._log.failure("while handling timed call {callable}", callable=callable)


class Alarm:
    """A thread that rings at a time of the monotonic clock, and once a second until then.

    The thread waits in poll(2), whose timeouts are monotonic on all systems; those of Python's
    locks are not. It rings once a second because a ring may be lost: see
    `MonotonicReactor.callFromThread`.

    Args:
        ring: called in the thread.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._lock = Lock()
        self._at: float | None = None
        self._wakes_at = 0.0  # when the thread wakes without being woken
        self._waking: int | None = None  # the descriptor that wakes the thread; None: no thread

    def set(self, at: float | None) -> None:
        """Ring at ``at``; None: not at all.

        Raises:
            OSError, RuntimeError: the system has no descriptor, or no thread, left.
        """
        with self._lock:
            self._at = at
            if at is None:
                return
            if self._waking is None:
                self._start()
            elif at < self._wakes_at:
                with contextlib.suppress(BlockingIOError):  # it is being woken
                    os.write(self._waking, b"\0")

    def _start(self) -> None:
        reading, writing = os.pipe()
        try:
            os.set_blocking(reading, False)
            os.set_blocking(writing, False)
            Thread(target=self._watch, args=(reading,), name="timers", daemon=True).start()
        except BaseException:
            os.close(reading)
            os.close(writing)
            raise
        self._waking = writing

    def _watch(self, reading: int) -> None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        idle_since: float | None = None
        while True:
            with self._lock:
                now = monotonic()
                if self._at is not None:
                    idle_since = None
                    self._wakes_at = min(self._at, now + _LOST)
                else:
                    idle_since = now if idle_since is None else idle_since
                    # Once a second, so that setting a later time need not wake the thread.
                    self._wakes_at = now + _LOST
                    if now >= idle_since + _IDLE:
                        assert self._waking is not None
                        os.close(self._waking)
                        os.close(reading)
                        self._waking = None
                        return
                left = self._wakes_at - now
            if left > 0 and poll.poll(left * 1000):
                os.read(reading, 4096)
                continue
            with self._lock:
                ringing = self._at is not None
                if self._at is not None:
                    # Until the reactor's thread sets it again, in its next turn.
                    self._at = max(self._at, monotonic() + _LOST)
            if ringing:
                self._ring()
