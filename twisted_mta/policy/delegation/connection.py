"""Connections to a policy service on Twisted, which serve one request after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ...interfaces import Clock
from ...system.deadline import within
from .answer import AnswerReader, ServiceError

_MOST = 100  # connections at a time; further requests wait: a service may be a process for each
_MOST_IDLE = 8  # connections kept
_LONGEST_IDLE = 60.0  # seconds


class _Unread(ServiceError):
    """The connection was closed before any octet of an answer."""


class Connection(Protocol):
    """A connection to a service.

    Attributes:
        is_open: whether it can serve a request.
        lost: called once, when it is over while it is idle.
    """

    transport: Any

    def __init__(self) -> None:
        self.is_open = False
        self.lost: Callable[[], object] | None = None
        self._reader: AnswerReader | None = None  # None: it is idle
        self._answer: Deferred[str] | None = None

    def connectionMade(self) -> None:
        """Begin to serve."""
        self.is_open = True

    def ask(self, request: bytes) -> Deferred[str]:
        """Send a request; return the action of its answer.

        The Deferred fails with `ServiceError`. The connection is of no use after that, nor after
        the Deferred was canceled.
        """
        if not self.is_open:
            raise _Unread("it closed the connection")
        self._reader = AnswerReader()
        answer = self._answer = Deferred()
        self.transport.write(request)
        return answer

    def dataReceived(self, data: bytes) -> None:
        """Take octets of an answer; without a request, there is none to be had."""
        if self._reader is None:
            self.close()
            return
        try:
            action = self._reader.feed(data)
        except ServiceError as error:
            self.close()
            self._end(Failure(error))
        else:
            if action is not None:
                self._end(action)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let those that wait know."""
        self.is_open = False
        if self._reader is not None:
            if self._reader.begun:
                error = ServiceError("it closed the connection within an answer")
            else:
                error = _Unread("it closed the connection")
            self._end(Failure(error))
        lost, self.lost = self.lost, None
        if lost is not None:
            lost()

    def _end(self, result: str | Failure) -> None:
        answer, self._answer, self._reader = self._answer, None, None
        if answer is not None and not answer.called:
            answer.callback(result)

    def close(self, *, gently: bool = False) -> None:
        """End the connection; gently: a service that waits for a request sees its end."""
        if self.is_open:
            self.is_open = False
            if gently:
                self.transport.loseConnection()
            else:
                self.transport.abortConnection()


class Connections:
    """Asks one service, and keeps connections for later requests.

    Args:
        endpoint: of the service.
        clock: for deadlines.
        timeout: seconds for each answer, with the connection to the service.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, *, clock: Clock, timeout: float) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout = timeout
        self._idle: dict[Connection, Callable[[], object]] = {}
        self._places = DeferredSemaphore(_MOST)
        self._closed = False

    async def ask(self, request: bytes) -> str:
        """Return the action that the service asks for.

        Raises:
            Exception: there is no connection to be had, no answer in time, or a bad one.
        """
        asking = Deferred.fromCoroutine(self._ask_in_turn(request))
        try:
            return await within(asking, self._timeout, self._clock)
        except TimeoutError:
            raise ServiceError(f"no answer within {self._timeout:g} s") from None

    async def _ask_in_turn(self, request: bytes) -> str:
        await self._places.acquire()
        try:
            kept = self._kept()
            if kept is not None:
                try:
                    return await self._ask(kept, request)
                except _Unread:
                    pass  # it was closed while the request was on its way
            made = Factory.forProtocol(Connection)
            made.noisy = False
            connection: Connection = await self._endpoint.connect(made)  # type: ignore[assignment]
            return await self._ask(connection, request)
        finally:
            self._places.release()

    async def _ask(self, connection: Connection, request: bytes) -> str:
        try:
            action = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return action

    def _kept(self) -> Connection | None:
        if not self._idle:
            return None
        connection, stop = self._idle.popitem()
        stop()
        connection.lost = None
        return connection

    def _keep(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= _MOST_IDLE or not connection.is_open:
            connection.close(gently=True)
            return
        timer = self._clock.callLater(_LONGEST_IDLE, self._drop, connection)
        self._idle[connection] = timer.cancel

        def lost() -> None:
            stop = self._idle.pop(connection, None)
            if stop is not None:
                stop()

        connection.lost = lost

    def _drop(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        connection.lost = None
        connection.close(gently=True)

    def close(self) -> None:
        """Close what is idle; what is in use is closed once it has its answer."""
        self._closed = True
        for connection, stop in list(self._idle.items()):
            stop()
            self._drop(connection)
