"""One query to several name servers: pauses, retries, EDNS, and the change to TCP.

Name servers are queried one after the other, and again, with pauses in between. Each of them may
answer until the deadline of the query, so that a slow one is not mistaken for a dead one. Each is
queried from a connected socket of its own: the port is hard to guess, a refusal by ICMP is noticed
at once, and datagrams from other addresses never arrive (RFC 5452).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .message import Answer, Malformed, Unrelated, encode_query, parse_answer, rcode_text
from .nameserver import NameServer, in_query_order
from .transport import TCPStream, UDPSocket, connect_tcp

_MOST_UNRELATED = 32  # datagrams before the query goes over TCP, where none can be injected


class NoAnswer(Exception):
    """No name server gave a usable answer; the text says why, for operators."""


@frozen
class Timing:
    """The timing of a query.

    Attributes:
        timeout: seconds for the whole query.
        pause: seconds until the next name server is queried; doubled with each round.
        rounds: queries to each name server at the most.
    """

    timeout: float
    pause: float = 1.0
    rounds: int = 3


class Query:
    """One query for the records of a name, sent to several name servers.

    Args:
        reactor: IReactorTime, IReactorTCP and IReactorFDSet.
        name: in wire form.
        type: of the records.
        nameservers: in the order to query them.
        timing: the pauses and the timeout.
        new_id: returns unpredictable numbers of 16 bits (RFC 5452 §4.3).
        answered: called once with the answer or the failure, never before `start` returns.
    """

    def __init__(
        self,
        reactor: Any,
        name: bytes,
        type: int,
        nameservers: Sequence[NameServer],
        timing: Timing,
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
        self._timing = timing
        now = reactor.seconds()
        self._deadline: float = now + timing.timeout
        self._exchanges = [_Exchange(self, each) for each in in_query_order(nameservers, now)]
        # Half of the timeout is enough to query each of them once.
        self._pause = min(timing.pause, timing.timeout / 2 / max(1, len(self._exchanges)))
        self._next = 0  # the place of the next exchange, counted over all rounds
        self._timer: IDelayedCall | None = None
        self._over = False

    def start(self) -> None:
        """Send the first query."""
        if self._send():
            self._timer = self._wait()
        else:
            self._timer = self.clock.callLater(0, self._send_next)

    def _wait(self) -> IDelayedCall:
        """Return the timer for the next name server, or for the deadline."""
        left = self._deadline - self.clock.seconds()
        completed_rounds = (self._next - 1) // len(self._exchanges)
        pause = self._pause * 2**completed_rounds
        if self._next >= len(self._exchanges) * self._timing.rounds or pause >= left:
            return self.clock.callLater(max(0.0, left), self._timed_out)
        return self.clock.callLater(pause, self._send_next)

    def _send(self) -> bool:
        """Query the next name server that may still answer; return whether there is one."""
        places = len(self._exchanges) * self._timing.rounds
        while self._next < places:
            exchange = self._exchanges[self._next % len(self._exchanges)]
            self._next += 1
            if exchange.failure is None and exchange.send():
                return True
        return False

    def _send_next(self) -> None:
        self._timer = None
        if self._send():
            self._timer = self._wait()
        elif any(each.waits for each in self._exchanges):
            self._timer = self.clock.callLater(
                max(0.0, self._deadline - self.clock.seconds()), self._timed_out
            )
        else:
            self._give_up()

    def _timed_out(self) -> None:
        self._timer = None
        for exchange in self._exchanges:
            if exchange.waits:
                exchange.fail("no answer in time")
        self._give_up()

    def _give_up(self) -> None:
        reasons = dict.fromkeys(each.failure for each in self._exchanges if each.failure)
        self._end(NoAnswer(", ".join(reasons) or "no usable answer"))

    def _end(self, result: Answer | NoAnswer) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for exchange in self._exchanges:
            exchange.close()
        self._answered(result)

    def stop(self) -> None:
        """End the query without an answer."""
        self._end(NoAnswer("the query was stopped"))

    # Called by exchanges.

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return max(0.001, self._deadline - self.clock.seconds())

    def answered(self, by: _Exchange, answer: Answer) -> None:
        """End with the answer of one name server."""
        if self._over:
            return
        now = self.clock.seconds()
        by.nameserver.note_answer()
        if answer.authenticated and not by.nameserver.trusted:
            answer = evolve(answer, authenticated=False)
        for other in self._exchanges:
            if other is not by and other.waits_since(now) >= self._pause:
                other.nameserver.note_silence(now)
        self._end(answer)

    def failed(self) -> None:
        """Query the next name server now, unless another one may still answer."""
        if self._over or any(each.waits for each in self._exchanges):
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        # In a later turn of the reactor: a refusal may arrive within `start`.
        self._timer = self.clock.callLater(0, self._send_next)


class _Exchange:
    """The exchange with one name server for one query."""

    def __init__(self, query: Query, nameserver: NameServer) -> None:
        self.nameserver = nameserver
        self.failure: str | None = None  # why no answer will come
        self.sent_at: float | None = None
        self._query = query
        self._ids: dict[int, bool] = {}  # of the queries sent; whether each had an OPT record
        self._without_edns = False
        self._edns_refused = False  # it answered a query with OPT by an error
        self._sent = 0  # queries over UDP
        self._unrelated = 0  # datagrams
        self._socket: UDPSocket | None = None
        self._connecting: Deferred[TCPStream] | None = None
        self._connection: TCPStream | None = None

    @property
    def waits(self) -> bool:
        """Whether it was queried and may still answer."""
        return self.failure is None and self.sent_at is not None

    def waits_since(self, now: float) -> float:
        """Return for how many seconds it has been silent; 0 where it was not queried, or failed."""
        return 0.0 if self.failure is not None or self.sent_at is None else now - self.sent_at

    def send(self) -> bool:
        """Send the query, again perhaps; return whether that worked."""
        if self._connecting is not None or self._connection is not None:
            return True  # TCP repeats by itself
        now = self._query.clock.seconds()
        if self.sent_at is None:
            self.sent_at = now
        edns = not self._without_edns and self.nameserver.uses_edns(now, self._sent)
        self._sent += 1
        try:
            if self._socket is None:
                self._socket = UDPSocket(self._query.reactor, self.nameserver, self)
            self._socket.send(self._message(edns))
        except BlockingIOError:
            return True  # as if it were lost on the way
        except OSError as error:
            self.fail(_reason(error))
            return False
        return True

    def _message(self, edns: bool) -> bytes:
        id = self._query.new_id()
        self._ids[id] = edns
        return encode_query(id, self._query.name, self._query.type, edns=edns)

    def _repeat_without_edns(self) -> None:
        """Send the query again at once, without an OPT record (RFC 6891 §7)."""
        self._without_edns = self._edns_refused = True
        self._ids.clear()
        if self._connection is not None:
            self._connection.send(self._message(edns=False))
        elif not self.send():
            self._query.failed()

    def received(self, wire: bytes, *, by_tcp: bool = False) -> None:
        """Take in a message of the name server."""
        id = int.from_bytes(wire[:2], "big") if len(wire) > 1 else -1
        edns = self._ids.get(id)
        try:
            if edns is None:
                raise Unrelated("another id")
            answer = parse_answer(wire, id, self._query.name, self._query.type)
        except Unrelated:
            if by_tcp:
                self._fail("a malformed answer")
            else:
                self._unrelated += 1
                if self._unrelated == _MOST_UNRELATED:
                    self._query_by_tcp()
            return
        except Malformed:
            if edns:
                self._repeat_without_edns()
            else:
                self._fail("a malformed answer")
            return
        if edns and answer.may_lack_edns:
            self._repeat_without_edns()
        elif answer.truncated:
            if by_tcp:
                self._fail("a malformed answer")
            else:
                self._query_by_tcp()
        elif answer.usable:
            self._learn(edns, answer)
            self._query.answered(self, answer)
        elif answer.referral:
            self._fail("the name server only refers to other name servers")
        else:
            self._fail(f"the name server answers {rcode_text(answer.rcode)}")

    def _learn(self, edns: bool, answer: Answer) -> None:
        now = self._query.clock.seconds()
        if answer.has_opt:
            self.nameserver.note_edns(now)
        elif not edns and (self._edns_refused or any(self._ids.values())):
            self.nameserver.note_no_edns(now, silently=not self._edns_refused)

    def fail(self, reason: str) -> None:
        """Record that no answer will come, and close."""
        self.failure = self.failure or reason
        self.close()

    def _fail(self, reason: str) -> None:
        self.fail(reason)
        self._query.failed()

    def unreachable(self, error: OSError) -> None:
        """Fail, since UDP does not reach the name server."""
        if self.failure is None and self._connecting is None and self._connection is None:
            self._fail(_reason(error))

    # TCP.

    def _query_by_tcp(self) -> None:
        """Send the query again over TCP (RFC 7766)."""
        self._close_socket()
        connecting = connect_tcp(
            self._query.reactor, self.nameserver, self, timeout=self._query.seconds_left
        )
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._unconnected)

    def _connected(self, stream: TCPStream) -> None:
        self._connecting = None
        if self.failure is not None:
            stream.abort()
            return
        self._connection = stream
        edns = not self._without_edns and self.nameserver.uses_edns(self._query.clock.seconds(), 0)
        stream.send(self._message(edns))

    def _unconnected(self, failure: Failure) -> None:
        self._connecting = None
        if self.failure is None:
            self._fail("the answer needs TCP, and connecting failed")

    def disconnected(self) -> None:
        """Fail, unless this side closed the connection."""
        if self._connection is not None:
            self._connection = None
            self._fail("the answer needs TCP, and the connection was closed")

    # The end.

    def close(self) -> None:
        """Close the socket and the connection."""
        self._close_socket()
        connecting, self._connecting = self._connecting, None
        connection, self._connection = self._connection, None
        self.failure = self.failure or "the query was stopped"
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
        return "no name server listens at its address"
    return "the name server cannot be reached"
