"""The real world: the one module that reads the wall clock, draws randomness and starts threads.

Everything else is handed what it needs of these (`twisted_mta.interfaces`), so that a whole MTA can
run in memory, on a clock of its own, from a seed. Only what joins the rooms together asks here.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - the one place where randomness comes from
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from time import sleep  # noqa: TID251 - in threads that wait for memory
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Executor

_P = ParamSpec("_P")
_T = TypeVar("_T")

_NO_MEMORY = 0.05  # seconds between two tries to say that there is none
_OF_LATE = 16  # calls that an average is of
_AWAY_FIRST = 64  # calls that are made elsewhere before one is tried here again
_AWAY_LAST = 8192


def wall_time() -> float:
    """Return seconds since the epoch, as the machine's clock has them (`interfaces.WallTime`)."""
    return time.time()  # noqa: TID251 - the one place where wall time comes from


def monotonic_microseconds() -> int:
    """Return microseconds by the clock that never steps, since some moment of the past."""
    return time.monotonic_ns() // 1000  # systemd compares it with its own


def waited() -> float:
    """Return seconds, since some moment of the past, that this thread was not at work."""
    return time.monotonic() - time.thread_time()  # noqa: TID251 - real work takes real time


def give_way() -> None:
    """Let other processes that are ready to run have the processor; return at once if none is."""
    if hasattr(os, "sched_yield"):  # not everywhere
        os.sched_yield()


def secret_octets(count: int) -> bytes:
    """Return octets that nobody can guess, from the operating system."""
    return os.urandom(count)  # noqa: TID251 - the one place where secrets come from


def system_random() -> random.Random:
    """Return a new source of randomness (`interfaces.Random`), seeded by the operating system.

    Good enough for jitter, shuffling and unique names, and never for a secret: those come from
    `cryptography` and OpenSSL. `random.SystemRandom` would cost a system call for each number.
    """
    return random.Random(os.urandom(32))  # noqa: TID251 - the one place where seeds come from


def nonce() -> str:
    """Return 24 characters from the operating system's randomness (`smtp.sasl.client.Nonce`)."""
    return b64encode(os.urandom(18)).decode("ascii")  # noqa: TID251 - this is the place


def _nothing() -> None:
    """Do nothing."""


class _Call:
    """A call on its way through a thread; what it came to needs no memory of its own."""

    __slots__ = ("_args", "_function", "_kwargs", "_result", "done", "error")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.done: Deferred[Any] = Deferred()
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Call the function, in a thread; what that raises is its result."""
        function, args, kwargs = self._function, self._args, self._kwargs
        # It is not to keep all the mail that it was called with, until its result is picked up.
        self._function, self._args, self._kwargs = _nothing, (), {}
        try:
            self._result = function(*args, **kwargs)
        except BaseException as error:
            self.error = error

    def answer(self) -> None:
        """Say what came of it, in the reactor's thread."""
        if self.error is None:
            self.done.callback(self._result)
        else:
            self.done.errback(Failure(self.error))


class ThreadExecutor:
    """An `interfaces.Executor` on threads of its own.

    Its threads are not the reactor's: a slow disk must not hold up name lookups, nor they a commit.
    They are no `ThreadPool` of Twisted's either, which hands each call through two queues and wakes
    the reactor for each result: here whatever has run by the time the reactor looks is one call
    (docs/benchmark.rst).

    Every call is answered. Whatever its function raises is a failure, and so is the end of the
    thread that it runs in; another thread takes the place of that one. Where the system has no
    thread left, calls wait for those that run, and fail where there is none; the next call tries
    again.

    Args:
        reactor: where results are handed back, in its own thread.
        threads: how many at most; with 1, calls run strictly in the order they were made.
        name: shown by debuggers, so that a stuck thread tells what it is for.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str) -> None:
        self._reactor = reactor
        self._most = threads
        self._name = name
        self._threads: list[Thread] = []
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._results: deque[_Call] = deque()  # for the reactor to pick up
        self._called = False  # the reactor knows that there are some
        self._running = False
        self._open: dict[_Call, None] = {}  # those whose results were not handed back yet

    def start(self) -> None:
        """Take calls from now on. Threads start as calls need them."""
        self._running = True

    def stop(self) -> None:
        """Return when all calls made so far have run; may be started again afterwards.

        Blocks, and their Deferreds fire only once the reactor runs on.
        """
        self._running = False
        threads, self._threads = self._threads, []
        for _ in threads:
            self._calls.put(None)
        for thread in threads:
            thread.join()
        # Where one had ended before, its share of the above is left, or even calls are.
        self._fail_waiting(RuntimeError(f"the threads of {self._name!r} have ended"))
        if self._results and not self._called:
            self._called = True
            self._reactor.callFromThread(self._hand_back)

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run ``function`` in a thread and return its result, or its exception as a failure.

        It is called in the reactor's thread. Fails with `RuntimeError` while the executor is not
        started, and with what the system says where no thread can be started.
        """
        if not self._running:
            return fail(RuntimeError(f"the threads of {self._name!r} are not running"))
        call = _Call(function, args, kwargs)
        self._open[call] = None
        if len(self._threads) < min(len(self._open), self._most):
            try:
                self._start_thread()
            except Exception:  # the system has none left; those that run will do
                if not self._threads:
                    del self._open[call]
                    return fail()
        self._calls.put(call)
        return call.done

    def _start_thread(self) -> None:
        thread = Thread(target=self._work, args=([None],), name=self._name)
        thread.start()
        self._threads.append(thread)

    def _work(self, at: list[_Call | None]) -> None:
        """Make calls, in a thread; ``at`` has the one that it is at."""
        try:
            while True:
                call = at[0] = self._calls.get()
                if call is None:
                    return
                call.run()
                self._results.append(call)
                # Or it would be kept until the next one comes.
                call = at[0] = None
                if not self._called:
                    self._called = True
                    self._reactor.callFromThread(self._hand_back)
        except BaseException as error:
            # Not of what it was to do: from outside, or of its own work, for want of memory.
            while True:
                try:
                    self._reactor.callFromThread(self._ended, current_thread(), at[0], error)
                except MemoryError:
                    sleep(_NO_MEMORY)  # or what waits for it would wait for ever
                else:
                    return

    def _ended(self, thread: Thread, at: _Call | None, error: BaseException) -> None:
        """Answer for what a thread was at when it ended, and see to its successor."""
        self._log.failure("a thread of {name} has ended", Failure(error), name=self._name)
        if thread in self._threads:
            self._threads.remove(thread)
        waiting: list[_Call | None] = []
        with suppress(Empty):
            while True:
                waiting.append(self._calls.get_nowait())
        lost = [] if at is None else [at]
        if not self._threads:  # what it had just taken, and did not come to be at
            lost = [each for each in self._open if each not in waiting]
        for call in lost:
            if call in self._open and call not in self._results:
                call.error = call.error or error
                self._results.append(call)
        for each in waiting:
            self._calls.put(each)
        missing = min(len(waiting), self._most) - len(self._threads)
        try:
            for _ in range(missing if self._running else 0):
                self._start_thread()
        except Exception as failed:
            if not self._threads:
                self._fail_waiting(failed)
        self._hand_back()

    def _fail_waiting(self, error: BaseException) -> None:
        """Answer what waits for a thread, where none can be had."""
        with suppress(Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call.error = error
                    self._results.append(call)

    def _hand_back(self) -> None:
        # First this: a result that comes behind our back is called for once more, or seen below.
        self._called = False
        results = self._results
        try:
            # Not those that come meanwhile, of calls that were made for these: the reactor would
            # have no turn as long as there are some.
            for _ in range(len(results)):
                call = results.popleft()
                del self._open[call]
                call.answer()
        finally:
            if results and not self._called:
                self._called = True
                self._reactor.callFromThread(self._hand_back)


class NearExecutor:
    """An `interfaces.Executor` that stays in the caller's turn for as long as calls are quick.

    A thread has to be woken, wakes the reactor in its turn, and the two of them fight for the
    interpreter in between: up to a fifth of the CPU time of each message (docs/benchmark.rst), on a
    disk that syncs in 0.3 ms. Waiting that long for the disk costs less. On a slower one it costs
    more, and all connections would wait with the one: so calls go to the thread as soon as they are
    slow or fail, and now and then, less and less often, one is tried here again.

    Args:
        far: where calls run that are not quick.
        waited: seconds that this thread has not been at work (`waited`): what a call works it would
            work in a thread as well.
        quick: seconds that a call may wait on average, to be made here.
    """

    def __init__(self, far: Executor, waited: Callable[[], float], *, quick: float = 0.001) -> None:
        self._far = far
        self._waited = waited
        self._quick = quick
        self._average: float | None = 0.0  # seconds that calls waited of late; None: on probation
        self._away = 0  # calls that still go to the thread
        self._next_away = _AWAY_FIRST

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run ``function`` here or there; return its result, or its exception as a failure."""
        if self._away:
            self._away -= 1
            return self._far(function, *args, **kwargs)
        before = self._waited()
        try:
            result = succeed(function(*args, **kwargs))
        except BaseException:
            self._go_away()
            return fail()
        waited = self._waited() - before
        if self._average is None:
            self._average = waited
        else:
            # One slow call among quick ones, such as a checkpoint, is no reason to go.
            self._average += (waited - self._average) / _OF_LATE
        if self._average > self._quick:
            self._go_away()
        else:
            self._next_away = max(_AWAY_FIRST, self._next_away - 1)
        return result

    def _go_away(self) -> None:
        self._away = self._next_away
        self._next_away = min(2 * self._next_away, _AWAY_LAST)
        self._average = None


def inline_executor(
    function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
) -> Deferred[_T]:
    """Run ``function`` in the caller's own turn (`interfaces.Executor`): blocks, and is exact."""
    return execute(function, *args, **kwargs)
