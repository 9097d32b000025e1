"""Work that takes long, such as reading a file of 200,000 aliases, in slices.

In a thread it would take as long, and in the meantime keep the interpreter from the reactor at each
system call. So whatever takes long yields where it may be interrupted, and a `Pace` says how it
is gone on with: at once, as at a start, or a little in each turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from hashlib import sha256
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor

_P = ParamSpec("_P")
_T = TypeVar("_T")

Work = Generator[None, None, _T]
"""Work that yields at least once in a millisecond, and returns what came of it."""

_SLICE = 0.002  # seconds of work in a turn
_PAUSE = 0.002  # seconds for all the rest: half of the time, while there is some


class Pace(Protocol):
    """How work is gone on with."""

    def call(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Do what blocks: reads a file."""
        ...

    def work(self, work: Work[_T]) -> Deferred[_T]:
        """Do ``work`` to its end."""
        ...


class AtOnce:
    """All at once, in the caller's turn: every Deferred has fired when it is returned."""

    def call(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Do it now."""
        return execute(function, *args, **kwargs)

    def work(self, work: Work[_T]) -> Deferred[_T]:
        """Do it now."""
        return execute(finished, work)


class Sliced:
    """A slice in each turn of the reactor, and none in every other one.

    Args:
        clock: a reactor. On one whose time stands still, all is done in one slice.
        executor: where what blocks is done.
    """

    def __init__(self, clock: Clock, executor: Executor) -> None:
        self._clock = clock
        self._executor = executor
        self._waiting: dict[Deferred[Any], IDelayedCall] = {}
        self._stopped = False

    def call(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Do it elsewhere."""
        return self._executor(function, *args, **kwargs)

    def work(self, work: Work[_T]) -> Deferred[_T]:
        """Do the first slice now; fails with `CancelledError` where it is stopped."""
        done: Deferred[_T] = Deferred()

        def turn() -> None:
            self._waiting.pop(done, None)
            if self._stopped:
                work.close()
                done.errback(CancelledError("it ends"))
                return
            until = self._clock.seconds() + _SLICE
            try:
                while True:
                    next(work)
                    if self._clock.seconds() >= until:
                        break
            except StopIteration as end:
                done.callback(end.value)
            except BaseException:
                done.errback(Failure())
            else:
                self._waiting[done] = self._clock.callLater(_PAUSE, turn)

        turn()
        return done

    def stop(self) -> None:
        """Go on with nothing; no timer is left."""
        self._stopped = True
        waiting, self._waiting = self._waiting, {}
        for done, timer in waiting.items():
            timer.cancel()
            done.errback(CancelledError("it ends"))


Digests = Mapping[str, str]
"""What files held, by their paths: SHA-256, in hex."""

NOTHING: Digests = {}


@frozen
class Source:
    """What a table was made of.

    Attributes:
        path: of the file; None: there is none, and the table is empty.
        settings: what else decides how it is read.
        digest: of what the file holds.
    """

    path: str | None = None
    settings: Any = None
    digest: str = ""


@define(eq=False)
class Reading(Generic[_T]):
    """A file that was read, and what it came to so far.

    Attributes:
        source: what it is.
        content: what the file holds, until it is parsed; None after that.
        table: what that means; nothing before it is parsed.
    """

    source: Source
    content: bytes | None = field(default=None, repr=False)
    table: _T | None = field(default=None, repr=False)


class Table(Generic[_T]):
    """A table that a file of the operator holds: parsed once, for as long as it holds the same.

    Args:
        empty: where there is no file.
        read: returns what a file holds; blocks.
        parse: makes the table of that, of the path and of the settings.

    Attributes:
        value: the table in force.
    """

    def __init__(
        self,
        empty: Callable[[], _T],
        read: Callable[[str], bytes],
        parse: Callable[[bytes, str, Any], Work[_T]],
    ) -> None:
        self.value = empty()
        self._empty = empty
        self._read = read
        self._parse = parse
        self._source = Source()

    async def read(
        self, path: str | None, settings: Any, pace: Pace, checked: Digests
    ) -> Reading[_T]:
        """Read a file, without any effect yet.

        Args:
            path: of the file; None: there is none.
            settings: what else decides how it is read.
            pace: how.
            checked: what files held that another process has parsed with the same settings, and
                found good. Those are left for `complete`: so not all processes have two tables
                at a time.

        Raises:
            Exception: the file cannot be read, or parsed, as ``read`` and ``parse`` say.
        """
        if path is None:
            return Reading(Source(), table=self._empty())
        content, digest = await pace.call(self._content, path)
        reading: Reading[_T] = Reading(Source(path, settings, digest))
        if reading.source == self._source:
            reading.table = self.value
            return reading
        reading.content = content
        if checked.get(path) != digest:
            await self.complete(reading, pace)
        return reading

    async def complete(self, reading: Reading[_T], pace: Pace) -> _T:
        """Return the table of a file that was read."""
        if reading.content is not None:
            path = reading.source.path or ""
            work = self._parse(reading.content, path, reading.source.settings)
            reading.table = await pace.work(work)
            reading.content = None
        assert reading.table is not None
        return reading.table

    def use(self, reading: Reading[_T]) -> _T:
        """Put a table in force that is complete; return the one of before."""
        before, self.value = self.value, self.value if reading.table is None else reading.table
        self._source = reading.source
        return before

    def _content(self, path: str) -> tuple[bytes, str]:
        content = self._read(path)
        return content, sha256(content).hexdigest()


def digests(*readings: Reading[Any]) -> Digests:
    """Return what files held."""
    return {
        each.source.path: each.source.digest for each in readings if each.source.path is not None
    }


def finished(work: Work[_T]) -> _T:
    """Do ``work`` to its end and return what came of it; raises what it raises."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result


def result_of(done: Deferred[_T]) -> _T:
    """Return what a Deferred has fired with (`AtOnce`), or raise it."""
    results: list[Any] = []
    done.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    fired: _T = result
    return fired
