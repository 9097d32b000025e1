"""A connection to a filter on Twisted, and the connections that are kept for later sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ...interfaces import Clock
from ...system.deadline import within
from .dialogue import Dialogue, State
from .negotiation import OFFER, read_terms
from .packets import Answer, Command, MilterError, PacketReader, Verdict, macros, packet

_MOST_WAITING = 32  # packets read ahead, beyond which the filter has to wait
_AT_A_TIME = 32  # packets that are handled between two turns of the reactor
_SLICE = 0.005  # seconds of modifications, if that is less
_MOST_IDLE = 8  # connections kept
_LONGEST_IDLE = 60.0  # seconds

# Seconds for the first answer on a connection that was kept. Filters of libmilter take no new
# client behind a whole message: they do not answer, and have a connection for each session then.
_PROBE = 1.0

_BEFORE_GREETING = (State.NEGOTIATED, State.CLIENT)


@implementer(IPushProducer)
class Connection(Protocol):
    """A connection to a filter.

    Args:
        clock: for deadlines.
        timeout: seconds for each answer, and for octets that the filter is to take.

    Attributes:
        dialogue: where it stands.
        is_kept: whether an earlier session used it, and the filter has said nothing since.
        lost: called once, when the connection is over while it is idle.
    """

    transport: Any

    def __init__(self, clock: Clock, timeout: float) -> None:
        self.dialogue = Dialogue()
        self.is_kept = False
        self.is_open = False
        self.lost: Callable[[], object] | None = None
        self._clock = clock
        self._timeout = timeout
        self._reader = PacketReader()
        self._packets: deque[tuple[int, bytes]] = deque()
        self._handled = 0
        self._turned = 0.0  # when it last waited
        self._fault: MilterError | None = None
        self._waiting: Deferred[None] | None = None  # for a packet
        self._full: Deferred[None] | None = None  # until octets can be sent

    # From the transport.

    def connectionMade(self) -> None:
        """Begin to heed how fast the filter reads."""
        self.is_open = True
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Take octets of the filter."""
        try:
            for each in self._reader.feed(data):
                self._packets.append(each)
        except MilterError as error:
            self._fault = self._fault or error
        if len(self._packets) > _MOST_WAITING and self.transport is not None:
            self.transport.pauseProducing()
        self._notify()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let those that wait know."""
        self.is_open = False
        self._fault = self._fault or MilterError("the filter closed the connection")
        self._notify()
        self.resumeProducing()
        lost, self.lost = self.lost, None
        if lost is not None:
            lost()

    def pauseProducing(self) -> None:
        """Send nothing until the filter has read more (`IPushProducer`)."""
        if self._full is None:
            self._full = Deferred()

    def resumeProducing(self) -> None:
        """Go on (`IPushProducer`)."""
        full, self._full = self._full, None
        if full is not None:
            full.callback(None)

    def stopProducing(self) -> None:
        """Take note that the connection is over (`IPushProducer`)."""

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    # For a session.

    async def negotiate(self) -> None:
        """Begin the dialogue.

        Raises:
            MilterError: the filter breaks the protocol, or is gone.
            TimeoutError: it does not answer.
        """
        self._send(OFFER)
        code, data = await self._next()
        if code != Command.NEGOTIATE.value[0]:
            raise MilterError(f"found the code {bytes([code])!r}, expected that of a negotiation")
        self.dialogue.step(Command.NEGOTIATE)
        self.dialogue.terms = read_terms(data)

    async def tell(
        self, command: Command, sent: bytes, values: Sequence[tuple[str, bytes]] = ()
    ) -> Answer:
        """Send a command if the filter wants it; return its answer.

        Args:
            command: the command.
            sent: its packet.
            values: of macros, sent before it.

        Raises:
            MilterError: the filter breaks the protocol, or is gone.
            TimeoutError: it does not answer.
        """
        dialogue = self.dialogue
        dialogue.step(command)
        if not dialogue.terms.sees(command):
            return Verdict.CONTINUE
        self._send((macros(command, values) if values else b"") + sent)
        if self._full is not None:
            await within(self._until_sent(), self._timeout, self._clock)
        if self._fault is not None:
            raise self._fault
        if not dialogue.terms.answers(command):
            if self._counted():
                await self.turn()
            return Verdict.CONTINUE
        return await self.answer(command)

    async def answer(self, command: Command) -> Answer:
        """Return the next answer to a command."""
        while True:
            code, data = await self._next()
            read = self.dialogue.read(command, code, data)
            if read is not Verdict.PROGRESS:
                return read

    def note(self, command: Command) -> None:
        """Send a command that has no answer."""
        self.dialogue.step(command)
        self._send(packet(command))

    def _send(self, octets: bytes) -> None:
        if self._packets:
            raise MilterError("found an answer before the command")
        if self._fault is not None:
            raise self._fault
        self.transport.write(octets)

    def _until_sent(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        assert self._full is not None
        self._full.addCallback(lambda _: waiter.callback(None) if not waiter.called else None)
        return waiter

    async def _next(self) -> tuple[int, bytes]:
        has_worked = self._counted() or self._clock.seconds() - self._turned > _SLICE
        if has_worked and self._packets:
            await self.turn()
        while not self._packets:
            if self._fault is not None:
                raise self._fault
            if self.transport is not None and self.is_open:
                self.transport.resumeProducing()
            if self._packets:
                break
            waiting = self._waiting = Deferred()
            timeout = min(self._timeout, _PROBE) if self.is_kept else self._timeout
            await within(waiting, timeout, self._clock)
            self._turned = self._clock.seconds()
        self.is_kept = False
        return self._packets.popleft()

    def _counted(self) -> bool:
        """Count a packet; return whether others are to have their turn now."""
        self._handled += 1
        return self._handled % _AT_A_TIME == 0

    def turn(self) -> Deferred[None]:
        """Return a Deferred that fires once others had their turn."""

        def taken() -> None:
            self._turned = self._clock.seconds()
            turn.callback(None)

        turn: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(0, taken)
        return turn

    def close(self, *, gently: bool = False) -> None:
        """End the connection; gently: once all is sent."""
        transport = self.transport
        if transport is None or not self.is_open:
            return
        transport.unregisterProducer()
        self._full = None
        if gently:
            transport.loseConnection()
        else:
            transport.abortConnection()


class Connections:
    """Opens connections to one filter, and keeps some for later sessions.

    Args:
        endpoint: of the filter.
        clock: for deadlines.
        timeout: seconds to connect, and for each answer.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, *, clock: Clock, timeout: float) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout = timeout
        self._idle: dict[Connection, Callable[[], object]] = {}
        self._closed = False
        self._keeps = True

    async def open(self, *, fresh: bool = False) -> Connection:
        """Return a connection that is negotiated.

        Args:
            fresh: whether it is to be a new one.

        Raises:
            Exception: there is no connection to be had.
        """
        if not fresh and self._idle:
            connection, stop = self._idle.popitem()
            stop()
            connection.lost = None
            connection.is_kept = True
            return connection
        made = Factory.forProtocol(lambda: Connection(self._clock, self._timeout))
        made.noisy = False
        connecting: Deferred[Connection] = self._endpoint.connect(made)  # type: ignore[assignment]
        try:
            connection = await within(connecting, self._timeout, self._clock)
        except TimeoutError:
            raise MilterError("no connection in time") from None
        try:
            await connection.negotiate()
        except BaseException:
            connection.close()
            raise
        return connection

    def distrust(self) -> None:
        """Keep no connection from now on: the filter did not go on with one."""
        self._keeps = False

    def release(self, connection: Connection) -> None:
        """Take back a connection whose session has ended; keep it, if the filter allows that.

        A filter that does not answer CONNECT could take the next client for the one before.
        """
        if not connection.is_open:
            return
        try:
            if connection.dialogue.state not in _BEFORE_GREETING:
                connection.note(Command.ABORT)
            terms = connection.dialogue.terms
            answers = terms.sees(Command.CONNECT) and terms.answers(Command.CONNECT)
            may_stay = self._keeps and not self._closed and answers and terms.version >= 6
            if not may_stay or len(self._idle) >= _MOST_IDLE:
                connection.note(Command.QUIT)
                connection.close(gently=True)
                return
            connection.note(Command.QUIT_KEEP)
        except MilterError:
            connection.close()
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
        with suppress(MilterError):
            connection.note(Command.QUIT)
        connection.close(gently=True)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when its session ends."""
        self._closed = True
        for connection, stop in list(self._idle.items()):
            stop()
            self._drop(connection)
