"""One connection to a next hop: the shell around a `ClientSession`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..envelope import Message, Target
from ..smtp.client import ClientSession
from ..smtp.client_step import (
    Close,
    SendBody,
    StartTLS,
    Step,
    TLSLevel,
    TransactionDone,
    Unusable,
)
from ..smtp.reply import printable
from .tls import ClientContexts

Result = TransactionDone | Unusable
"""What became of a message on a connection."""

SMALL = 65_536
"""Octets of content up to which it is written at once; more goes at the pace of the connection."""


@implementer(IHandshakeListener)
class Connection(Protocol):
    """A connection; one transaction at a time.

    Args:
        session: what to say.
        target: where it leads.
        level: what TLS it must have.
        contexts: what to start TLS with.
        clock: for the one timer, which is moved and never made anew.
        spent: called once, when nothing can be sent on it any more.
        closed: called once, when it is gone; after ``spent``.

    Attributes:
        messages: how many transactions were begun.
    """

    transport: Any  # ITCPTransport, ITLSTransport and IConsumer in one

    def __init__(
        self,
        session: ClientSession,
        *,
        target: Target,
        level: TLSLevel,
        contexts: ClientContexts,
        clock: IReactorTime,
        spent: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self.session = session
        self.target = target
        self.level: TLSLevel = level
        self.messages = 0
        self._contexts = contexts
        self._clock = clock
        self._spent: Callable[[Connection], None] | None = spent
        self._closed = closed
        self._message: Message | None = None
        self._done: Callable[[Connection, Result], None] | None = None
        self._timer: IDelayedCall | None = None
        self._turn = session.turn
        self._producer: BodyProducer | None = None

    # What the relay asks.

    def transact(self, message: Message, done: Callable[[Connection, Result], None]) -> None:
        """Send ``message`` as soon as the session is open; ``done`` is called once."""
        self.messages += 1
        self._done = done
        if self.session.idle:
            self._perform(self.session.transact(message))
        else:
            self._message = message

    def quit(self) -> None:
        """Leave an idle session, and close."""
        self._be_spent()
        self._perform(self.session.quit())

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        self._perform(self.session.connection_lost("we are closing"))
        self.transport.abortConnection()  # it may have been closing in order

    # What Twisted calls.

    def connectionMade(self) -> None:
        """The greeting is due now."""
        self.transport.setTcpNoDelay(True)  # each write is a whole group of commands
        self._timer = self._clock.callLater(self.session.deadline, self._expired)

    def dataReceived(self, data: bytes) -> None:
        """Let the session read."""
        self._perform(self.session.receive(data))

    def handshakeCompleted(self) -> None:
        """Judge what the handshake achieved before anything is said (RFC 3207 §4.1)."""
        facts, objection = self._contexts.judge(
            self.transport.getHandle(),
            self.target,
            self.level,
        )
        self._perform(self.session.handshake_completed(facts, objection))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whatever was under way ends."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._perform(self.session.connection_lost(_why(reason)))
        self._be_spent()
        self._closed(self)

    # How steps are taken.

    def _perform(self, steps: list[Step]) -> None:
        result: Result | None = None
        for step in steps:
            if isinstance(step, TransactionDone | Unusable):
                result = step
            elif isinstance(step, SendBody):
                self._send_body(step)
            elif isinstance(step, StartTLS):
                self._write()
                self.transport.startTLS(self._contexts.creator(self.target, self.level))
            elif isinstance(step, Close):
                self._close(step)
        session = self.session
        if self._message is not None and session.idle:
            message, self._message = self._message, None
            self._perform(session.transact(message))
        self._write()
        if session.turn != self._turn:
            self._turn = session.turn
            self._rearm()
        if result is not None and self._done is not None:
            done, self._done = self._done, None
            self._message = None
            done(self, result)

    def _write(self) -> None:
        octets = self.session.output()
        if octets:
            self.transport.write(octets)

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.reset(self.session.deadline)

    def _expired(self) -> None:
        self._timer = None
        if self.session.idle and self._done is None:
            self._timer = self._clock.callLater(self.session.deadline, self._expired)
            self.quit()
        elif self.session.closed:
            self.transport.abortConnection()  # it had its time to close in order
        else:
            self._perform(self.session.timed_out())

    def _close(self, step: Close) -> None:
        if self._producer is not None:
            self._producer.stopProducing()
            self._producer = None
            self.transport.unregisterProducer()
        self._be_spent()
        if step.abort:
            self.transport.abortConnection()
        else:
            # A peer that never finishes the shutdown of TLS is left behind by the timer.
            self.transport.loseConnection()

    def _be_spent(self) -> None:
        spent, self._spent = self._spent, None
        if spent is not None:
            spent(self)

    # The content.

    def _send_body(self, step: SendBody) -> None:
        pieces = self.session.body()
        if step.size <= SMALL:
            try:
                octets = b"".join(pieces)
            except OSError as error:
                self._perform(self.session.body_failed(printable(str(error))))
            else:
                self.transport.write(octets)
            return
        self._producer = BodyProducer(self, pieces)
        self.transport.registerProducer(self._producer, True)
        self._producer.resumeProducing()

    def body_progressed(self) -> None:
        """A piece was written: the peer has taken those before it (RFC 5321 §4.5.3.2.5)."""
        self._rearm()

    def body_ended(self, error: OSError | None) -> None:
        """The content is written, or cannot be read to its end."""
        self._producer = None
        self.transport.unregisterProducer()
        self._perform(self.session.body_failed(printable(str(error))) if error else [])


@implementer(IPushProducer)
class BodyProducer:
    """Writes a content no faster than the connection takes it."""

    def __init__(self, connection: Connection, pieces: Iterator[bytes]) -> None:
        self._connection = connection
        self._pieces: Iterator[bytes] | None = pieces
        self._paused = True

    def resumeProducing(self) -> None:
        """Write until the transport has enough."""
        if not self._paused:
            return
        self._paused = False
        connection = self._connection
        connection.body_progressed()
        while not self._paused and self._pieces is not None:
            try:
                piece = next(self._pieces, None)
            except OSError as error:
                self._pieces = None
                connection.body_ended(error)
                return
            if piece is None:
                self._pieces = None
                connection.body_ended(None)
                return
            connection.transport.write(piece)

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """Nothing more can be sent."""
        self._pieces = None


def _why(reason: Failure) -> str:
    text = printable(reason.getErrorMessage())
    return text or type(reason.value).__name__
