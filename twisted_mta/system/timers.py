"""Timers by the monotonic clock: setting the wall clock neither delays nor hastens them.

Twisted's reactors time by ``time.time``. When the wall clock is set back by an hour, each of their
timers fires an hour late; when it is set ahead, all that is due within that hour fires at once, and
connections that are well and alive have "timed out".

A process of our own has its reactor time by the monotonic clock (`use_monotonic_time`). The reactor
of an application that embeds the mail transfer agent is the application's: it stays as it is, and
our timers are kept beside it (`with_monotonic_time`).
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

from twisted.internet import tcp, unix
from twisted.internet.base import DelayedCall
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python import runtime
from zope.interface import directlyProvides, providedBy

_LOST = 1.0  # seconds after which the reactor is asked once more to call us in its next turn
_IDLE = 5.0  # seconds after which the thread of an alarm ends that is not set
_MANY_CANCELLED = 50  # calls that are kept although they were cancelled, where most are others


monotonic = time.monotonic  # noqa: TID251 - the one place where monotonic time comes from
"""Returns seconds since some moment of the past, by the clock that is never set."""


def use_monotonic_time(reactor: Any) -> None:
    """Have the reactor of a process that is ours time by the monotonic clock.

    Timers that are pending already keep the time that they have left.
    """
    if not _times_by_wall_clock(reactor):
        return
    pending = [(call, call.getTime() - reactor.seconds()) for call in reactor.getDelayedCalls()]
    reactor.seconds = monotonic
    for call, left in pending:
        call.seconds = monotonic
        call.reset(max(0.0, left))


def with_monotonic_time(reactor: Any) -> Any:
    """Return a reactor with monotonic timers: ``reactor``, unless it times by the wall clock.

    The clocks of tests and a reactor that `use_monotonic_time` was called for are returned as they
    are.
    """
    return MonotonicReactor(reactor) if _times_by_wall_clock(reactor) else reactor


def is_posix(reactor: Any) -> bool:
    """Whether ports and connections of Twisted's own can be made on it: not on one of a test."""
    if isinstance(reactor, MonotonicReactor):
        return reactor.is_posix
    return isinstance(reactor, PosixReactorBase)


def _times_by_wall_clock(reactor: Any) -> bool:
    return getattr(reactor, "seconds", None) is runtime.seconds


class Waker(Protocol):
    """Calls the reactor's thread at a time of the monotonic clock."""

    def set(self, at: float | None) -> None:
        """Ring at ``at``, or soon after, instead of at the time set before; None: not at all."""
        ...


class MonotonicReactor:
    """A reactor whose timers, and the timeouts of its connections, are monotonic.

    All else is done by the reactor itself, which goes on timing by the wall clock for others.

    Args:
        reactor: `IReactorTime`, `IReactorFromThreads`, and what else is asked of it.
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
        self._disordered = False  # a call was moved forward, and the heap is none any more
        self._from_threads: deque[Callable[[], object]] = deque()
        self._asked = False  # the reactor is to call `_run` in its next turn
        self._rings_at: float | None = None
        self._waker = (waker or Alarm)(self._ask)
        self._instead: Any = None  # the reactor's own timer, where the waker cannot be set
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
        assert delay >= 0, f"{delay} is not 0 seconds or more"
        at = self.seconds() + delay
        call = DelayedCall(at, callable, args, kw, self._count_out, self._sooner, self.seconds)
        self._new.append(call)
        if not delay and not self._asked:
            self._ask()
        self._wake(at)
        return call

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        """Return the timers that are pending (`IReactorTime`), in no order."""
        return [call for call in (*self._calls, *self._new) if not call.cancelled]

    # IReactorFromThreads.

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        """Call ``callable`` in the reactor's thread, as soon as possible (`IReactorFromThreads`).

        Some of Twisted's reactors make a timer of the call, of no seconds by the wall clock: that
        waits for an hour if the clock is set back by one at that moment. `Alarm` asks once more.
        """
        self._from_threads.append(lambda: callable(*args, **kw))
        if not self._asked:
            self._ask()

    # IReactorTCP and IReactorUNIX: what has timeouts.

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

    # Inside.

    def _ask(self) -> None:
        """Have `_run` called in the reactor's thread; may be called in any."""
        self._asked = True
        self._reactor.callFromThread(self._run)

    def _wake(self, at: float) -> None:
        if self._rings_at is None or at < self._rings_at:
            self._set_waker(at)

    def _set_waker(self, at: float | None) -> None:
        if at is not None and self._asked:  # it comes in the next turn, and sets this anew
            at = max(at, self.seconds() + _LOST)
        self._rings_at = at
        if self._instead is not None and self._instead.active():
            self._instead.cancel()
        try:
            self._waker.set(at)
        except (MemoryError, OSError, RuntimeError):  # no thread or descriptor is left
            # A timer of the reactor's own, by the wall clock, is better than none.
            assert at is not None
            self._instead = self._reactor.callLater(max(0.0, at - self.seconds()), self._run)

    def _count_out(self, call: DelayedCall) -> None:
        self._cancelled += 1

    def _sooner(self, call: DelayedCall) -> None:
        self._disordered = True
        self._wake(call.time)

    def _run(self) -> None:
        """Make the calls that are due, and those from threads."""
        self._asked = False  # first: what comes from a thread behind our back asks anew
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
        except Exception:  # as the reactor does: one call's fault is not that of the others
            self._log.failure("while handling timed call {callable}", callable=callable)


class Alarm:
    """A thread that rings at a time of the monotonic clock, and once a second until then.

    The thread waits in poll(2), whose timeouts are monotonic everywhere; those of Python's locks
    are not. It rings once a second because a ring may be lost, as `callFromThread` of
    `MonotonicReactor` says.

    Args:
        ring: called in a thread.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._lock = Lock()
        self._at: float | None = None
        self._wakes_at = 0.0  # when the thread looks again by itself
        self._woken: int | None = None  # the descriptor that wakes the thread; None: there is none

    def set(self, at: float | None) -> None:
        """Ring at ``at``; None: not at all.

        Raises:
            OSError, RuntimeError: the system has no descriptors, or no thread, for it.
        """
        with self._lock:
            self._at = at
            if at is None:
                return
            if self._woken is None:
                self._start()
            elif at < self._wakes_at:
                with contextlib.suppress(BlockingIOError):  # it is being woken already
                    os.write(self._woken, b"\0")

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
        self._woken = writing

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
                    # As often as otherwise, so that what is set for a second later wakes no thread.
                    self._wakes_at = now + _LOST
                    if now >= idle_since + _IDLE:
                        assert self._woken is not None
                        os.close(self._woken)
                        os.close(reading)
                        self._woken = None
                        return
                left = self._wakes_at - now
            if left > 0 and poll.poll(left * 1000):
                os.read(reading, 4096)
                continue
            with self._lock:
                ringing = self._at is not None
                if self._at is not None:
                    # Until it is set anew, by the reactor's thread in its next turn.
                    self._at = max(self._at, monotonic() + _LOST)
            if ringing:
                self._ring()
