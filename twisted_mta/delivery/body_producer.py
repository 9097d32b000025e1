"""Send the content of a message no faster than the connection takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..smtp.client.outgoing import Piece

AnyExecutor = Callable[[Callable[[], Any]], "Deferred[Any]"]
"""Runs a call: an `interfaces.Executor`, or `maybeDeferred` for the caller's own turn."""


_TURN = 131_072
"""Octets that are written in one turn of the reactor: some 4 ms of TLS. A fast peer takes more
without a pause."""


class BodySender(Protocol):
    """The connection that a content is sent on."""

    def send_piece(self, piece: Piece | None) -> Deferred[None] | None:
        """Write a piece of the content; None: the content is complete.

        Returns:
            A Deferred that fires when the connection takes the next piece; None: it does so now.
        """
        ...

    def body_progressed(self) -> None:
        """The connection takes more: the peer has taken what was written before."""
        ...

    def body_ended(self, error: OSError | None) -> None:
        """The content is written, or cannot be read to its end."""
        ...


@implementer(IPushProducer)
class BodyProducer:
    """Reads a content piece by piece while the connection takes more.

    Args:
        sender: the connection.
        content: the pieces.
        executor: runs the reading of each piece, one after the other; None: it is quick, and is
            done in this turn.
        clock: lets other work of the reactor come between the pieces.
    """

    _log = Logger()

    def __init__(
        self,
        sender: BodySender,
        content: Iterator[Piece],
        executor: AnyExecutor | None,
        clock: IReactorTime,
    ) -> None:
        self._sender = sender
        self._content: Iterator[Piece] | None = content  # None: it has ended
        self._executor = executor
        self._clock = clock
        self._written = 0  # octets in this turn
        self._next_turn: IDelayedCall | None = None
        self._paused = True
        self._reading = False  # or a file is being sent
        self._sending: Deferred[None] | None = None  # the last file
        self._looping = False  # within `_read_on`: a piece that is there at once needs no recursion

    def resumeProducing(self) -> None:
        """Send until the transport has enough."""
        if self._paused:
            self._paused = False
            self._sender.body_progressed()
            self._read_on()

    def pauseProducing(self) -> None:
        """Wait: the transport has enough for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """End: the connection is lost."""
        self._content = None
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        if self._sending is not None:
            self._sending.cancel()

    def _read_on(self) -> None:
        if self._looping or self._next_turn is not None:
            return
        self._looping = True
        while not (self._paused or self._reading or self._content is None):
            if self._written >= _TURN:
                self._next_turn = self._clock.callLater(0, self._begin_turn)
                break
            self._reading = True
            if self._executor is None:
                self._read_now(self._content)
            else:
                read = partial(next, self._content, None)
                self._executor(read).addCallback(self._send).addErrback(self._failed)
        self._looping = False

    def _read_now(self, content: Iterator[Piece]) -> None:
        try:
            sending = self._send(next(content, None))
        except Exception:
            self._failed(Failure())
        else:
            if sending is not None:
                sending.addErrback(self._failed)

    def _begin_turn(self) -> None:
        self._next_turn = None
        self._written = 0
        if not self._paused:
            self._sender.body_progressed()
        self._read_on()

    def _send(self, piece: Piece | None) -> Deferred[None] | None:
        if self._content is None:
            return None  # the connection has ended meanwhile
        if isinstance(piece, bytes):
            self._written += len(piece)
        self._sending = self._sender.send_piece(piece)
        if self._sending is not None:
            return self._sending.addCallback(lambda _: self._sent(piece))
        self._sent(piece)
        return None

    def _sent(self, piece: Piece | None) -> None:
        self._reading = False
        if self._content is None:
            return  # likewise
        if piece is None:
            self._content = None
            self._sender.body_ended(None)
        else:
            self._read_on()

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        if self._content is None and failure.check(CancelledError):
            return
        error = failure.value
        if not isinstance(error, OSError):
            self._log.failure("Cannot send a content", failure)
            error = OSError("internal error, see the log")
        if self._content is not None:
            self._content = None
            self._sender.body_ended(error)
