"""The connection of one process to the tables of its cluster, in a thread of its own.

It is another one than that of the queue, so that a batch of messages and the limits do not wait for
each other. Every call takes a bounded time, and fails at once for a moment after the database could
not be reached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import psycopg
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ..system.postgresql import PatientConnection
from .away import DatabaseAway
from .schema import Database, NewerTables, scripts, upgrade

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PATIENCE = 3.0  # seconds that a statement may take
_PAUSE = 1.0  # seconds after a failure to connect in which calls fail at once

# Less than those of the queue: clients wait for some calls, and nothing here takes long.
_LIMITS = (
    "SET lock_timeout = 2000",
    "SET statement_timeout = 2500",
    "SET idle_in_transaction_session_timeout = 5000",
    "SET application_name = 'twisted-mta cluster'",
)


class Thread(Protocol):
    """A thread that runs one call after the other (`system.executors.ThreadExecutor`)."""

    def start(self) -> None:
        """Take calls from now on."""
        ...

    def stop(self) -> None:
        """Block until all calls have run."""
        ...

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run a function, and return its result."""
        ...


class ClusterDatabase:
    """The database, for one process.

    Args:
        connect: connects to the database of the queue (`queue.store.postgresql.connection`).
        thread: where it is used.
        reactor: IReactorTime; with IReactorFDSet, notifications of other machines are heard.
        channel: of the notifications that are for this process; empty: none are.
        woken: called in the reactor's thread when there are some, or the connection was lost.
    """

    def __init__(
        self,
        connect: Callable[[], PatientConnection],
        *,
        thread: Thread,
        reactor: Any,
        channel: str = "",
        woken: Callable[[], object] = lambda: None,
    ) -> None:
        self._open = connect
        self._reactor = reactor
        self._channel = channel
        self._woken = woken
        self._thread = thread
        self._connection: PatientConnection | None = None
        self._fails_until = 0.0  # by the clock
        self._why = ""
        self._ear: _Ear | None = None
        self._calls = 0  # under way

    def start(self) -> None:
        """Take calls from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection; blocks until the call under way has ended."""
        self._listen(None)
        self._thread.stop()
        self.close()

    def run(
        self,
        function: Callable[Concatenate[Database, _P], _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> Deferred[_T]:
        """Call a function with the connection, in the thread.

        The function begins and ends its transactions.

        Returns:
            Its result; fails with `DatabaseAway` where the database does.
        """
        return self.executor(self.call, function, *args, **kwargs)

    def executor(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Call a function that uses `call` in the thread (`interfaces.Executor`)."""
        self._listen(None)
        self._calls += 1
        return self._thread(function, *args, **kwargs).addBoth(self._called)

    def _called(self, result: _T | Failure) -> _T | Failure:
        self._calls -= 1
        if not self._calls and self._connection is not None:
            self._listen(self._connection)
        return result

    # In the thread.

    def call(
        self,
        function: Callable[Concatenate[Database, _P], _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call a function with the connection; in the thread.

        Raises:
            DatabaseAway: the database failed.
        """
        try:
            return function(self._connected(), *args, **kwargs)
        except psycopg.Error as error:
            self.close()
            raise DatabaseAway(str(error).strip().replace("\n", " ") or repr(error)) from error

    def _connected(self) -> Database:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self.close()
        now = self._reactor.seconds()
        if now < self._fails_until:
            raise DatabaseAway(self._why)
        try:
            self._connection = self._connect()
        except (psycopg.Error, OSError, NewerTables) as error:
            self.close()
            self._why = str(error).strip().replace("\n", " ")
            self._fails_until = self._reactor.seconds() + _PAUSE
            raise DatabaseAway(self._why) from error
        return self._connection

    def _connect(self) -> PatientConnection:
        connection = self._open()
        connection.patience = _PATIENCE
        try:
            for statement in _LIMITS:
                connection.execute(statement)
            upgrade(connection, scripts())
            # A name says nothing new: what wakes this process is that there is one.
            connection.add_notify_handler(lambda _: None)
            if self._channel:
                connection.execute(f'LISTEN "{self._channel}"')
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connection; in the thread, or when that has ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    # Notifications, in the reactor's thread.

    def _listen(self, connection: PatientConnection | None) -> None:
        """Hear of notifications while no call is under way; None: not any more."""
        ear, self._ear = self._ear, None
        if ear is not None:
            self._reactor.removeReader(ear)
        if connection is None or not self._channel or connection.closed:
            return
        if IReactorFDSet.providedBy(self._reactor):
            self._ear = _Ear(connection.fileno(), self._heard)
            self._reactor.addReader(self._ear)

    def _heard(self) -> None:
        self._listen(None)  # the next call reads it
        self._woken()


@implementer(IReadDescriptor)
class _Ear:
    """The socket of a connection, as the reactor watches it (`IReadDescriptor`)."""

    def __init__(self, descriptor: int, heard: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._heard = heard

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return the name of what reads."""
        return "cluster"

    def doRead(self) -> None:
        """Take note that there is something to read."""
        self._heard()

    def connectionLost(self, reason: Failure) -> None:
        """Take note that the descriptor is of no use any more."""
