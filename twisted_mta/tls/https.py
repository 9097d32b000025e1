"""Requests by HTTPS to hosts that have proved their names.

A host has to prove its name before the request is sent: a server that does not gets a TLS handshake
from us, and no more. Redirects are not followed, nothing is kept but connections, where that is
asked for, and what a server may cost is bounded: octets, addresses, seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from ipaddress import ip_address
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Resolver
from ..mail.next_hop import Target
from ..mail.printable import printable
from ..system.outbox import start_tls
from .client import ClientContexts, ClientTLS

PORT = 443
PATIENCE = 60.0
"""Seconds for a request with its answer, from the look-up of the host."""

_CONNECT = 15.0  # seconds for one address
_MOST_ADDRESSES = 4
_HEADERS = 16_384  # octets of a response besides its body
_MOST_KEPT = 8  # connections to one host
_KEPT = 4.0  # seconds; shorter than servers keep them: many do for 5
_LONGEST_REST = 5.0  # seconds for an answer that is not read, behind its head
_SHOWN = 100  # characters of an error
_MOST_INTERIM = 10  # responses 1xx before an answer
_INTERIM = re.compile(rb"HTTP/1\.[0-9] 1[0-9][0-9]")
_INTERIM_LENGTH = 12  # octets of what `_INTERIM` matches


@frozen
class HTTPSError(Exception):
    """There is no answer, or not the one that was expected.

    Attributes:
        reason: for people, printable.
    """

    reason: str

    def __str__(self) -> str:
        return self.reason


@frozen
class NotAccepted(HTTPSError):
    """The host has answered in order, and another answer was expected."""

    __str__ = HTTPSError.__str__


@frozen
class Unproved(HTTPSError):
    """The host has not proved its name."""

    __str__ = HTTPSError.__str__


@frozen(kw_only=True)
class Request:
    """A request.

    Attributes:
        method: ``GET``, ``HEAD`` or ``POST``.
        host: the name of the host, in A-labels.
        port: TCP port.
        path: with the query; begins with a slash.
        content: the octets to post; None: there are none.
        content_type: their media type.
        headers: further fields, names with values.
        tls: whether TLS protects it; without, it goes to this machine alone.
        reads_answer: whether the body of the answer is wanted; without it, the head is enough.
    """

    method: str = "GET"
    host: str
    port: int = PORT
    path: str
    content: bytes | None = None
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: bool = True
    reads_answer: bool = True

    @property
    def url(self) -> str:
        """The URL."""
        port = "" if self.tls and self.port == PORT else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}{port}{self.path}"


@frozen
class Head:
    """The beginning of an answer.

    Attributes:
        target: the host that answers.
        code: the status code.
        types: the values of Content-Type; one, usually.
        headers: all fields, by name in lower case; the last of several.
    """

    target: Target
    code: int
    types: Sequence[str]
    headers: Mapping[str, str] = field(factory=dict)


class HTTPSClient:
    """Sends requests.

    Args:
        reactor: IReactorTCP, IReactorTime.
        resolver: looks hosts up.
        contexts: makes TLS connections, and verifies them.
        tls: returns the settings of those, with ``verify``; their files are loaded.
        largest: octets of an answer.
        keeps: whether a connection serves further requests to its host, for some seconds; then
            ``largest`` bounds each answer, of which only the head is read.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        resolver: Resolver,
        contexts: ClientContexts,
        tls: Callable[[], ClientTLS],
        largest: int,
        keeps: bool = False,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._contexts = contexts
        self._tls = tls
        self._largest = largest
        self._keeps = keeps
        self._pool: Any = None  # of kept connections

    def close(self) -> None:
        """Close the connections that are kept and not in use."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.closeCachedConnections()

    def send(
        self,
        request: Request,
        *,
        accept: Callable[[Head], None],
        may_connect: Callable[[str], bool] = lambda address: True,
        patience: float = PATIENCE,
    ) -> Deferred[bytes]:
        """Send a request.

        Args:
            request: what to send.
            accept: raises an `HTTPSError` where the answer is not the expected one.
            may_connect: whether an address of the host may be connected to.
            patience: seconds for the request with its answer.

        Returns:
            Fires with the body of the answer, or b""; fails with `HTTPSError`; may be canceled.
        """
        sending = Deferred.fromCoroutine(self._send(request, accept, may_connect))
        answered: Deferred[bytes] = Deferred(lambda _: stop())
        is_over = False

        def stop() -> None:
            nonlocal is_over
            is_over = True
            if timer.active():
                timer.cancel()
            sending.cancel()

        def give_up() -> None:
            stop()
            answered.errback(HTTPSError(f"no answer within {patience:g} s"))

        def ended(result: bytes | Failure) -> None:
            if is_over:
                return  # the end of a request that was given up
            timer.cancel()
            if isinstance(result, bytes):
                answered.callback(result)
            elif result.check(HTTPSError):
                answered.errback(result)
            else:
                answered.errback(HTTPSError(_text(result.value)))

        timer = self._reactor.callLater(patience, give_up)
        sending.addBoth(ended)
        return answered

    async def _send(
        self,
        request: Request,
        accept: Callable[[Head], None],
        may_connect: Callable[[str], bool],
    ) -> bytes:
        problem = HTTPSError(f"{request.host} has no address")
        addresses: Sequence[str] = (
            [request.host]
            if is_address(request.host)
            else await self._resolver.addresses(request.host)
        )
        if not request.tls:
            addresses = [each for each in addresses if ip_address(each).is_loopback]
        for address in addresses[:_MOST_ADDRESSES]:
            if not may_connect(address):
                problem = HTTPSError(f"{request.host} has the address {address}, of no public host")
                continue
            target = Target(request.host, address, request.port)
            tls = self._tls() if request.tls else None
            gate = _Gate(target, self._contexts, tls, self._largest)
            keeps = False
            try:
                answer = await self._exchange(gate, request, accept)
                keeps = self._keeps
                return answer
            except NotAccepted:
                keeps = self._keeps
                raise
            except (HTTPSError, CancelledError):
                raise  # an answer, or the end of our patience
            except Exception as error:  # no connection to this address
                problem = HTTPSError(f"{target}: {gate.problem or _text(error)}")
            finally:
                if not keeps:
                    gate.close()
        raise problem

    async def _exchange(
        self, gate: _Gate, request: Request, accept: Callable[[Head], None]
    ) -> bytes:
        # Imported with the first request: most of what HTTP needs serves nothing else.
        from twisted.web.client import Agent, FileBodyProducer
        from twisted.web.http_headers import Headers

        agent = Agent.usingEndpointFactory(
            self._reactor, _Endpoints(self._reactor, gate), self._kept_connections()
        )
        headers, producer = Headers(), None
        for name, value in request.headers:
            headers.addRawHeader(name, value)
        if request.content is not None:
            headers.addRawHeader("Content-Type", request.content_type)
            producer = FileBodyProducer(
                BytesIO(request.content), cooperator=Cooperator(scheduler=self._soon)
            )
        try:
            response = await agent.request(
                request.method.encode("ascii"), request.url.encode("ascii"), headers, producer
            )
            types = response.headers.getRawHeaders("content-type", [])
            fields = {
                name.decode("latin-1").lower(): values[-1].decode("latin-1")
                for name, values in response.headers.getAllRawHeaders()
                if values
            }
            if self._keeps:
                response.deliverBody(_Rest(self._reactor))
            accept(Head(gate.target, response.code, types, fields))
            if self._keeps or not request.reads_answer:
                return b""
            body = _Body(gate, self._largest)
            response.deliverBody(body)
            return await body.whole
        except (HTTPSError, CancelledError):
            raise
        except Exception as error:
            if gate.refused is not None:
                raise gate.refused from None
            if not gate.is_open:
                raise
            raise HTTPSError(f"{gate.target}: {gate.problem or _text(error)}") from None

    def _kept_connections(self) -> Any:
        if self._keeps and self._pool is None:
            from twisted.web.client import HTTPConnectionPool

            self._pool = HTTPConnectionPool(self._reactor)
            self._pool.maxPersistentPerHost = _MOST_KEPT
            self._pool.cachedConnectionTimeout = _KEPT
            self._pool.retryAutomatically = False
        return self._pool

    def _soon(self, function: Callable[[], object]) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(0, function)
        return call


@implementer(IHandshakeListener)
class _Gate(Protocol):
    """A connection to a host, which HTTP begins on once the host has proved its name.

    Attributes:
        target: the host.
        is_open: whether it has.
        refused: why it has not.
        problem: why we have dropped the connection; empty: we have not.
        complete: whether the server has ended the connection in order.
    """

    transport: Any

    def __init__(
        self, target: Target, contexts: ClientContexts, tls: ClientTLS | None, largest: int
    ) -> None:
        self.target = target
        self.is_open = False
        self.refused: Unproved | None = None
        self.problem = ""
        self.complete = False
        self._contexts = contexts
        self._tls = tls
        self._largest = largest
        self._http: Any = None
        self._octets = 0
        self._head: bytearray | None = bytearray()  # of an answer; None: it has begun
        self._interim = 0
        self._opened: Deferred[Any] = Deferred(lambda _: self.close())
        self._closed = False

    def opened(self, factory: Any) -> Deferred[Any]:
        """Return a Deferred that fires with the protocol of ``factory`` once HTTP may begin."""
        self._http = factory
        return self._opened

    def connectionMade(self) -> None:
        """Begin TLS (called by Twisted)."""
        if self._tls is None:
            self._open()
            return
        start_tls(self.transport, self._contexts.creator(self.target, self._tls))

    def handshakeCompleted(self) -> None:
        """Let HTTP begin, if the server is verified (called by Twisted)."""
        if self._opened.called or self._tls is None:
            return
        _, problem = self._contexts.verify(self.transport.getHandle(), self.target, self._tls)
        if problem is not None:
            self.refused = Unproved(f"{self.target}: {problem}")
            self.close()
            return
        self._open()

    def _open(self) -> None:
        self.is_open = True
        self._http = self._http.buildProtocol(self.transport.getPeer())
        self._http.makeConnection(self.transport)
        self._opened.callback(self._http)

    def dataReceived(self, data: bytes) -> None:
        """Hand octets on to HTTP, as far as there may be so many (called by Twisted)."""
        room = self._largest + _HEADERS - self._octets
        self._octets += len(data)
        if self.is_open and room > 0:
            # The head decides, whatever has arrived with it.
            kept = data[:room]
            if self._head is not None:
                kept = self._without_interim(self._head, kept)
            if kept:
                self._http.dataReceived(kept)
        if len(data) > room:
            self.drop(f"it sends more than {self._largest} octets")
        elif self.is_open and self._http.state == "QUIESCENT":
            # Of the next answer.
            self._octets = self._interim = 0
            self._head = bytearray()

    def _without_interim(self, head: bytearray, data: bytes) -> bytes:
        """Leave responses 1xx out: nothing here waits for one, and Twisted logs each of them."""
        searched = max(0, len(head) - 3)
        head += data
        while _INTERIM.match(head):
            end = head.find(b"\r\n\r\n", searched)
            if end < 0:
                return b""
            searched = 0
            del head[: end + 4]
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                self.drop(f"it sends more than {_MOST_INTERIM} responses 1xx")
                return b""
        if len(head) < _INTERIM_LENGTH:
            return b""
        self._head = None
        return bytes(head)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the request (called by Twisted)."""
        self._closed = True
        self.complete = reason.check(ConnectionDone) is not None and not self.problem
        if self.is_open:
            self._http.connectionLost(reason)
        elif not self._opened.called:
            self._opened.errback(self.refused or reason)

    def drop(self, problem: str) -> None:
        """Close the connection, since the server does what it must not."""
        self.problem = self.problem or problem
        self.close()

    def close(self) -> None:
        """Close the connection at once, if it is open."""
        if self.transport is not None and not self._closed:
            self.transport.abortConnection()


class _Body(Protocol):
    """The body of a response.

    Attributes:
        whole: fires with its octets.
    """

    def __init__(self, gate: _Gate, largest: int) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: gate.close())
        self._gate = gate
        self._largest = largest
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep octets (called by Twisted)."""
        self._octets += data
        if len(self._octets) > self._largest:
            self._gate.drop(f"its answer has more than {self._largest} octets")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Decide whether the body is complete (called by Twisted)."""
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        if self.whole.called:
            return
        # Without a length the end of TLS is the end of the body, and only that: not a broken
        # connection, which anyone on the way can cause.
        lengthless = reason.check(PotentialDataLoss) and self._gate.complete
        if not self._gate.problem and (reason.check(ResponseDone) or lengthless):
            self.whole.callback(bytes(self._octets))
        else:
            self.whole.errback(reason)


class _Rest(Protocol):
    """The body of a response that is not read, on a connection that is kept."""

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._timer: IDelayedCall = reactor.callLater(_LONGEST_REST, self._give_up)

    def dataReceived(self, data: bytes) -> None:
        """Forget octets (called by Twisted)."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the wait (called by Twisted)."""
        if self._timer.active():
            self._timer.cancel()

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class _Endpoints:
    """The endpoint of one connection, for `Agent` (``IAgentEndpointFactory``)."""

    def __init__(self, reactor: Any, gate: _Gate) -> None:
        self._reactor = reactor
        self._gate = gate

    def endpointForURI(self, uri: object) -> _Endpoints:
        """Return the endpoint."""
        return self

    def connect(self, factory: Factory) -> Deferred[Any]:
        """Connect; the Deferred fires with the protocol of ``factory`` when HTTP may begin."""
        target, opened = self._gate.target, self._gate.opened(factory)
        version = ip_address(target.address.partition("%")[0]).version
        endpoint: Any = TCP6ClientEndpoint if version == 6 else TCP4ClientEndpoint
        connecting = endpoint(self._reactor, target.address, target.port, timeout=_CONNECT).connect(
            _One(self._gate)
        )

        def canceled(_: object) -> None:
            connecting.cancel()
            self._gate.close()

        result: Deferred[Any] = Deferred(canceled)

        def failed(failure: Failure) -> None:
            if not result.called:
                result.errback(failure)

        def made(protocol: Any) -> None:
            if not result.called:
                result.callback(protocol)

        connecting.addCallbacks(lambda _: opened.addCallbacks(made, failed), failed)
        return result


class _One(Factory):
    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._protocol


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _text(error: BaseException | None) -> str:
    assert error is not None
    reasons = getattr(error, "reasons", None)  # of the errors of twisted.web.client
    if reasons and isinstance(reasons[0], Failure):
        return _text(reasons[0].value)
    if len(error.args) == 2 and isinstance(error.args[1], bytes):  # ParseError of twisted.web
        return f"its answer is not HTTP/1.1: {printable(repr(error.args[1]))}"[:_SHOWN]
    return printable(str(error) or type(error).__name__)[:_SHOWN].rstrip(".")
