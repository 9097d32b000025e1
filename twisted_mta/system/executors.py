"""Executors: blocking calls in threads of their own, or in the caller's turn of the reactor.

Each is an `interfaces.Executor`: a callable that runs a function and returns a Deferred.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from time import sleep  # noqa: TID251 - in threads that wait for memory
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.threads import deferToThreadPool  # noqa: TID251 - see `PoolExecutor`
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Executor

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MEMORY_RETRY = 0.05  # seconds until a thread without memory tries again to report its end
_AVERAGED_CALLS = 16
_FIRST_DETOUR = 64  # calls that go to the thread before one is tried in the caller's turn again
_LONGEST_DETOUR = 8192


def _nothing() -> None:
    """Do nothing."""


class _Call:
    """A call that a thread makes; storing its result allocates nothing."""

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
        """Call the function, in a thread, and keep its result or what it raised."""
        function, args, kwargs = self._function, self._args, self._kwargs
        # The arguments may be whole messages: release them now, not when the result is picked up.
        self._function, self._args, self._kwargs = _nothing, (), {}
        try:
            self._result = function(*args, **kwargs)
        except BaseException as error:
            self.error = error

    def answer(self) -> None:
        """Fire the Deferred with the result, in the reactor's thread."""
        if self.error is None:
            self.done.callback(self._result)
        else:
            self.done.errback(Failure(self.error))


class ThreadExecutor:
    """Runs calls in threads of its own.

    The reactor's thread pool is not used: a slow disk must not delay name lookups, nor a lookup a
    commit. Nor is Twisted's `ThreadPool`, which hands each call through two queues and wakes the
    reactor for each result: here all results that are ready when the reactor looks are handed back
    in one call (docs/benchmark.rst).

    Every call is answered. An exception of its function is a failure, and so is the end of the
    thread that it runs in; another thread replaces that one. If the system cannot start a thread,
    calls wait for the threads that run, and fail if none does; the next call tries again. A program
    that ends without `stop` does not wait for the threads.

    Args:
        reactor: hands back results in its own thread.
        threads: the most threads; with 1, calls run strictly in the order in which they were made.
        name: of the threads, as debuggers show it.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str) -> None:
        self._reactor = reactor
        self._most = threads
        self._name = name
        self._threads: list[Thread] = []
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._results: deque[_Call] = deque()  # for the reactor to pick up
        self._called = False  # whether the reactor has been asked to pick up results
        self._running = False
        self._open: dict[_Call, None] = {}  # calls whose results have not been handed back

    def start(self) -> None:
        """Accept calls. Threads start as calls need them."""
        self._running = True

    def stop(self) -> None:
        """Block until all calls made so far have run; `start` may follow.

        Their Deferreds fire once the reactor runs again.
        """
        self._running = False
        threads, self._threads = self._threads, []
        for _ in threads:
            self._calls.put(None)
        for thread in threads:
            thread.join()
        # A thread that had ended before leaves its None in the queue, or even calls.
        self._fail_waiting(RuntimeError(f"the threads of {self._name!r} have ended"))
        if self._results and not self._called:
            self._called = True
            self._reactor.callFromThread(self._hand_back)

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run ``function`` in a thread and return its result, or its exception as a failure.

        To be called in the reactor's thread. Fails with `RuntimeError` while the executor is not
        started, and with the system's error if no thread can be started.
        """
        if not self._running:
            return fail(RuntimeError(f"the threads of {self._name!r} are not running"))
        call = _Call(function, args, kwargs)
        self._open[call] = None
        if len(self._threads) < min(len(self._open), self._most):
            try:
                self._start_thread()
            except Exception:  # the system has no thread left: those that run take the call
                if not self._threads:
                    del self._open[call]
                    return fail()
        self._calls.put(call)
        return call.done

    def _start_thread(self) -> None:
        # A daemon: the interpreter does not wait for it at its end, where a program ends without
        # `stop`. A call that is cut off then is no worse than at the death of the process.
        thread = Thread(target=self._work, args=([None],), name=self._name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self, at: list[_Call | None]) -> None:
        """Make calls, in a thread; ``at`` holds the current one."""
        try:
            while True:
                call = at[0] = self._calls.get()
                if call is None:
                    return
                call.run()
                self._results.append(call)
                # A local variable would keep the call alive until the next one.
                call = at[0] = None
                if not self._called:
                    self._called = True
                    self._reactor.callFromThread(self._hand_back)
        except BaseException as error:
            # Not from the function, whose exceptions are results: raised from outside, or for
            # lack of memory in this loop itself.
            while True:
                try:
                    self._reactor.callFromThread(self._ended, current_thread(), at[0], error)
                except MemoryError:
                    sleep(_MEMORY_RETRY)  # without a report, the call would never be answered
                else:
                    return

    def _ended(self, thread: Thread, at: _Call | None, error: BaseException) -> None:
        """Fail the call that a thread was making when it ended, and replace the thread."""
        self._log.failure("a thread of {name} has ended", Failure(error), name=self._name)
        if thread in self._threads:
            self._threads.remove(thread)
        waiting: list[_Call | None] = []
        with suppress(Empty):
            while True:
                waiting.append(self._calls.get_nowait())
        lost = [] if at is None else [at]
        if not self._threads:  # including a call that was taken, and not yet stored in ``at``
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
        """Fail all calls that wait for a thread."""
        with suppress(Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call.error = error
                    self._results.append(call)

    def _hand_back(self) -> None:
        # Reset first: a result that arrives from now on asks again, or is seen below.
        self._called = False
        results = self._results
        try:
            # Only the results of now: those of calls that these results cause would keep the
            # reactor from its other work.
            for _ in range(len(results)):
                call = results.popleft()
                del self._open[call]
                call.answer()
        finally:
            if results and not self._called:
                self._called = True
                self._reactor.callFromThread(self._hand_back)


class NearExecutor:
    """Runs calls in the caller's turn as long as they are quick, else in a thread.

    A thread has to be woken, wakes the reactor in its turn, and both compete for the interpreter:
    up to a fifth of the CPU time of each message (docs/benchmark.rst), on a disk that syncs in
    0.3 ms. Waiting that long for the disk costs less. On a slower disk it costs more, and delays
    all connections. So calls go to the thread once they are slow or fail; one call is tried in the
    caller's turn again now and then, less and less often.

    Args:
        far: runs the calls that are not quick.
        blocked_time: a `real_world.BlockedTime`: only the wait for the disk counts, since the work
            that a call does would take as long in a thread, and so would the wait for a processor.
        quick: seconds that a call may wait, on average, to run in the caller's turn.
    """

    def __init__(
        self, far: Executor, blocked_time: Callable[[], float], *, quick: float = 0.001
    ) -> None:
        self._far = far
        self._blocked_time = blocked_time
        self._quick = quick
        self._average: float | None = 0.0  # seconds that recent calls waited; None: not known
        self._detour = 0  # calls that still go to the thread
        self._next_detour = _FIRST_DETOUR

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run ``function``; return its result, or its exception as a failure."""
        if self._detour:
            self._detour -= 1
            return self._far(function, *args, **kwargs)
        before = self._blocked_time()
        try:
            result = succeed(function(*args, **kwargs))
        except BaseException:
            self._take_detour()
            return fail()
        waited = max(0.0, self._blocked_time() - before)  # descriptors may run out in between
        if self._average is None:
            self._average = waited
        else:
            # One slow call among quick ones, such as a checkpoint, changes little.
            self._average += (waited - self._average) / _AVERAGED_CALLS
        if self._average > self._quick:
            self._take_detour()
        else:
            self._next_detour = max(_FIRST_DETOUR, self._next_detour - 1)
        return result

    def _take_detour(self) -> None:
        self._detour = self._next_detour
        self._next_detour = min(2 * self._next_detour, _LONGEST_DETOUR)
        self._average = None


def inline_executor(
    function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
) -> Deferred[_T]:
    """Run ``function`` in the caller's turn, blocking; the Deferred has fired already."""
    return execute(function, *args, **kwargs)


class PoolExecutor:
    """Runs calls in the thread pool of an application's reactor.

    Args:
        reactor: `IReactorThreads`.
    """

    def __init__(self, reactor: IReactorThreads) -> None:
        self._reactor = reactor

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run ``function`` in a thread and return its result, or its exception as a failure."""
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, function, *args, **kwargs)


def pool_executor(reactor: object) -> Executor:
    """Return an executor in a reactor's thread pool; of one without threads, in the caller's turn.

    The reactor of a test has none.
    """
    return PoolExecutor(reactor) if IReactorThreads.providedBy(reactor) else inline_executor
