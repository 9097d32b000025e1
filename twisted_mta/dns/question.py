"""One question to name servers, by UDP and TCP on the reactor.

Name servers are asked one after the other, and again, with pauses between; all that were asked may
answer until the time for the whole is over, so that a slow one is not taken for a dead one. Each is
asked from a socket of its own, which is connected: its port is hard to guess, it hears of a refusal
at once, and it hears nothing from others.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .message import Answer, Garbled, NotOurs, query, rcode_text, read
from .nameserver import NameServer, in_turn

_DATAGRAM = 65_535  # octets read at most, should a name server not care
_MOST_STRANGE = 32  # datagrams that are no answers, until it is asked by TCP, where none can be


class NoAnswer(Exception):
    """No name server gave a usable answer; says why, in words for operators."""


@frozen
class Pace:
    """How long a question may take.

    Attributes:
        timeout: seconds in all.
        pause: seconds until the next name server is asked; twice that the second time around, …
        rounds: how often each is asked at the most.
    """

    timeout: float
    pause: float = 1.0
    rounds: int = 3


class Question:
    """Asks one question.

    Args:
        reactor: IReactorTime, IReactorTCP and IReactorFDSet.
        name: in wire form.
        type: of records.
        nameservers: to be asked, the first one first.
        pace: how long that may take.
        new_id: makes numbers of 16 bits that cannot be guessed.
        answered: called with the answer, or with why there is none, never before `start` returns.
    """

    def __init__(
        self,
        reactor: Any,
        name: bytes,
        type: int,
        nameservers: Sequence[NameServer],
        pace: Pace,
        *,
        new_id: Callable[[], int],
        answered: Callable[[Answer | NoAnswer], None],
    ) -> None:
        self.reactor = reactor
        self.name = name
        self.type = type
        self.clock: IReactorTime = reactor
        self.new_id = new_id
        self._answered = answered
        self._pace = pace
        now = reactor.seconds()
        self._deadline: float = now + pace.timeout
        self._asked = [_Asked(self, each) for each in in_turn(nameservers, now)]
        # All of them have been asked at the middle of the time, at the latest.
        self._pause = min(pace.pause, pace.timeout / 2 / max(1, len(self._asked)))
        self._at = 0
        self._timer: IDelayedCall | None = None
        self._over = False

    def start(self) -> None:
        """Ask."""
        self._timer = self.clock.callLater(0, self._go_on) if not self._send() else self._wait()

    def _wait(self) -> IDelayedCall:
        """Return what goes on when it is time to ask the next one, or to give up."""
        left = self._deadline - self.clock.seconds()
        around, _ = divmod(self._at - 1, len(self._asked))
        pause = self._pause * 2**around
        if self._at >= len(self._asked) * self._pace.rounds or pause >= left:
            return self.clock.callLater(max(0.0, left), self._late)
        return self.clock.callLater(pause, self._go_on)

    def _send(self) -> bool:
        """Ask the next name server that may still answer; return whether there is one."""
        places = len(self._asked) * self._pace.rounds
        while self._at < places:
            asked = self._asked[self._at % len(self._asked)]
            self._at += 1
            if asked.reason is None and asked.send():
                return True
        return False

    def _go_on(self) -> None:
        self._timer = None
        if self._send():
            self._timer = self._wait()
        elif any(each.waits for each in self._asked):
            self._timer = self.clock.callLater(
                max(0.0, self._deadline - self.clock.seconds()), self._late
            )
        else:
            self._give_up()

    def _late(self) -> None:
        self._timer = None
        for asked in self._asked:
            if asked.waits:
                asked.fail("no answer in time")
        self._give_up()

    def _give_up(self) -> None:
        reasons = dict.fromkeys(each.reason for each in self._asked if each.reason)
        self._end(NoAnswer(", ".join(reasons) or "no usable answer"))

    def _end(self, result: Answer | NoAnswer) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for asked in self._asked:
            asked.close()
        self._answered(result)

    def stop(self) -> None:
        """Ask no more."""
        self._end(NoAnswer("asked no more"))

    # From the name servers that were asked.

    @property
    def left(self) -> float:
        """How many seconds there still are."""
        return max(0.001, self._deadline - self.clock.seconds())

    def answer(self, by: _Asked, answer: Answer) -> None:
        """One of them has answered."""
        if self._over:
            return
        now = self.clock.seconds()
        by.nameserver.answered()
        for other in self._asked:
            if other is not by and other.waits_since(now) >= self._pause:
                other.nameserver.was_silent(now)
        self._end(answer)

    def failed(self) -> None:
        """One of them will not answer: ask the next one now, unless another may still answer."""
        if self._over or any(each.waits for each in self._asked):
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        # In a turn of its own: a server that refuses can be what `start` hears at once.
        self._timer = self.clock.callLater(0, self._go_on)


class _Asked:
    """One name server, as far as one question goes."""

    def __init__(self, question: Question, nameserver: NameServer) -> None:
        self.nameserver = nameserver
        self.reason: str | None = None  # for which it will not answer
        self.sent_at: float | None = None
        self._question = question
        self._ids: dict[int, bool] = {}  # of what was sent, and whether that had an OPT record
        self._without_edns = False
        self._spurned = False  # whether it answered something with an OPT record badly
        self._times = 0
        self._strange = 0
        self._socket: _Socket | None = None
        self._connecting: Deferred[_Stream] | None = None
        self._connection: _Stream | None = None

    @property
    def waits(self) -> bool:
        """Whether it was asked and may still answer."""
        return self.reason is None and self.sent_at is not None

    def waits_since(self, now: float) -> float:
        """Return for how many seconds it has been silent; 0 where it was not asked, or failed."""
        return 0.0 if self.reason is not None or self.sent_at is None else now - self.sent_at

    def send(self) -> bool:
        """Ask it, once more; return whether that could be."""
        if self._connecting is not None or self._connection is not None:
            return True  # TCP does that by itself
        now = self._question.clock.seconds()
        if self.sent_at is None:
            self.sent_at = now
        edns = not self._without_edns and self.nameserver.edns(now, self._times)
        self._times += 1
        try:
            if self._socket is None:
                self._socket = _Socket(self._question.reactor, self.nameserver, self)
            self._socket.send(self._query(edns))
        except BlockingIOError:
            return True  # as good as lost on the way
        except OSError as error:
            self.fail(_reason(error))
            return False
        return True

    def _query(self, edns: bool) -> bytes:
        id = self._question.new_id()
        self._ids[id] = edns
        return query(id, self._question.name, self._question.type, edns=edns)

    def _ask_without_edns(self) -> None:
        """It did not like the OPT record: ask at once without (RFC 6891 §7)."""
        self._without_edns = self._spurned = True
        self._ids.clear()
        if self._connection is not None:
            self._connection.send(self._query(edns=False))
        elif not self.send():
            self._question.failed()

    def heard(self, wire: bytes, *, by_tcp: bool = False) -> None:
        """Something came."""
        id = int.from_bytes(wire[:2], "big") if len(wire) > 1 else -1
        edns = self._ids.get(id)
        try:
            if edns is None:
                raise NotOurs("another id")
            answer = read(wire, id, self._question.name, self._question.type)
        except NotOurs:
            if by_tcp:
                self._fail("an answer that makes no sense")
            else:
                self._strange += 1
                if self._strange == _MOST_STRANGE:
                    self._ask_by_tcp()
            return
        except Garbled:
            if edns:
                self._ask_without_edns()
            else:
                self._fail("an answer that makes no sense")
            return
        if edns and answer.lacks_edns:
            self._ask_without_edns()
        elif answer.truncated:
            if by_tcp:
                self._fail("an answer that makes no sense")
            else:
                self._ask_by_tcp()
        elif answer.usable:
            self._learn(edns, answer)
            self._question.answer(self, answer)
        elif answer.refers:
            self._fail("the name server knows nothing and names others")
        else:
            self._fail(f"the name server says {rcode_text(answer.rcode)}")

    def _learn(self, edns: bool, answer: Answer) -> None:
        now = self._question.clock.seconds()
        if answer.knows_edns:
            self.nameserver.knows_edns(now)
        elif not edns and (self._spurned or any(self._ids.values())):
            self.nameserver.lacks_edns(now, silently=not self._spurned)

    def fail(self, reason: str) -> None:
        """It will not answer."""
        self.reason = self.reason or reason
        self.close()

    def _fail(self, reason: str) -> None:
        self.fail(reason)
        self._question.failed()

    def lost(self, error: OSError) -> None:
        """Nothing can be had by UDP."""
        if self.reason is None and self._connecting is None and self._connection is None:
            self._fail(_reason(error))

    # TCP.

    def _ask_by_tcp(self) -> None:
        """Ask again for what a datagram does not hold (RFC 7766)."""
        self._close_socket()
        question, nameserver = self._question, self.nameserver
        endpoint_class = (
            TCP6ClientEndpoint if nameserver.family == socket.AF_INET6 else TCP4ClientEndpoint
        )
        host = nameserver.host
        endpoint = endpoint_class(question.reactor, host.name, host.port, timeout=question.left)
        factory = Factory.forProtocol(lambda: _Stream(self))
        factory.noisy = False
        connecting: Deferred[Any] = endpoint.connect(factory)
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._unconnected)

    def _connected(self, stream: _Stream) -> None:
        self._connecting = None
        if self.reason is not None:
            stream.abort()
            return
        self._connection = stream
        edns = not self._without_edns and self.nameserver.edns(self._question.clock.seconds(), 0)
        stream.send(self._query(edns))

    def _unconnected(self, failure: Failure) -> None:
        self._connecting = None
        if self.reason is None:
            self._fail("an answer too large for UDP, and no TCP")

    def ended(self) -> None:
        """The connection has ended; says nothing where that was our doing."""
        if self._connection is not None:
            self._connection = None
            self._fail("an answer too large for UDP, and none by TCP")

    # The end.

    def close(self) -> None:
        """Leave nothing open."""
        self._close_socket()
        connecting, self._connecting = self._connecting, None
        connection, self._connection = self._connection, None
        self.reason = self.reason or "asked no more"
        if connecting is not None:
            connecting.cancel()
        if connection is not None:
            connection.abort()

    def _close_socket(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "no name server listens there"
    return "the name server cannot be reached"


@implementer(IReadDescriptor)
class _Socket:
    """A UDP socket that is connected to a name server.

    Not made by ``listenUDP``, which writes four lines to the log about every query.
    """

    def __init__(self, reactor: Any, nameserver: NameServer, asked: _Asked) -> None:
        self._reactor = reactor
        self._asked = asked
        self._closed = False
        self._socket = socket.socket(nameserver.family, socket.SOCK_DGRAM)
        self._number = self._socket.fileno()
        try:
            self._socket.setblocking(False)
            self._socket.connect(nameserver.address)
            reactor.addReader(self)
        except OSError:
            self._socket.close()
            raise

    def send(self, what: bytes) -> None:
        """Send a datagram.

        Raises:
            OSError: that cannot be.
        """
        self._socket.send(what)

    def close(self) -> None:
        """Send and hear nothing more."""
        if not self._closed:
            self._closed = True
            self._reactor.removeReader(self)
            self._socket.close()

    # For the reactor.

    def fileno(self) -> int:
        # The same when it is closed, by what was read just now: else the reactor takes that for a
        # descriptor that went away.
        return self._number

    def logPrefix(self) -> str:
        return "dns"

    def doRead(self) -> None:
        try:
            datagram = self._socket.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            self._asked.lost(error)
        else:
            self._asked.heard(datagram)

    def connectionLost(self, reason: Failure) -> None:
        # What epoll makes of a refusal, as long as there is nothing to read.
        self._asked.lost(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))


class _Stream(Protocol):
    """A TCP connection to a name server: messages behind their length (RFC 1035 §4.2.2)."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked
        self._held = bytearray()

    def send(self, message: bytes) -> None:
        """Send a message, its length before it, in one write (RFC 7766 §8)."""
        assert self.transport is not None
        self.transport.write(len(message).to_bytes(2, "big") + message)

    def abort(self) -> None:
        """End at once."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        if len(self._held) < 2:
            return
        end = 2 + int.from_bytes(self._held[:2], "big")
        if len(self._held) >= end:
            message = bytes(self._held[2:end])
            del self._held[:end]
            self._asked.heard(message, by_tcp=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._asked.ended()
