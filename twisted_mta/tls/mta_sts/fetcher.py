"""Fetch the policy of a domain by HTTPS (RFC 8461 §3.3).

The policy host has to prove its name before the request is sent: a server that does not gets a TLS
handshake from us, and no more. Redirects are not followed, nothing is cached here, and what a
server may cost is bounded: octets, addresses, seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Literal

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ...interfaces import Resolver
from ...mail.address import AddressError, domain_name
from ...mail.next_hop import Target
from ...mail.printable import printable
from ...system.outbox import start_tls
from ..client import ClientContexts, ClientTLS
from .policy import LARGEST, Policy, PolicyError

PORT = 443
_PATH = "/.well-known/mta-sts.txt"
_PATIENCE = 60.0  # seconds for everything (RFC 8461 §3.3)
_CONNECT = 15.0  # seconds for one address
_MOST_ADDRESSES = 4
_HEADERS = 16_384  # octets of a response besides the policy
_SHOWN = 100  # characters of an error

Trouble = Literal["sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"]
"""The result type of a policy that cannot be had (RFC 8460 §4.3.2.2)."""

Fetch = Callable[[str], "Deferred[Policy]"]
"""Fetch the policy of a domain; fails with `FetchError`."""


@frozen
class FetchError(Exception):
    """The policy of a domain cannot be had.

    Attributes:
        reason: for people, printable.
        trouble: for reports.
    """

    reason: str
    trouble: Trouble = "sts-policy-fetch-error"

    def __str__(self) -> str:
        return self.reason


class Fetcher:
    """Fetches policies; `fetch` is a `Fetch`.

    Args:
        reactor: IReactorTCP, IReactorTime.
        resolver: looks policy hosts up.
        contexts: makes TLS connections, and verifies them.
        tls: returns the settings of those, with ``verify``; their files are loaded.
        port: of policy hosts.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        resolver: Resolver,
        contexts: ClientContexts,
        tls: Callable[[], ClientTLS],
        port: int = PORT,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._contexts = contexts
        self._tls = tls
        self._port = port

    def fetch(self, domain: str) -> Deferred[Policy]:
        """Fetch the policy of ``domain``, within a minute.

        Args:
            domain: in A-labels.

        Returns:
            Fails with `FetchError`; may be canceled.
        """
        fetching = Deferred.fromCoroutine(self._fetch(domain))
        fetched: Deferred[Policy] = Deferred(lambda _: stop())

        def stop() -> None:
            timer.cancel()
            fetched.errback(CancelledError())
            fetching.cancel()

        def give_up() -> None:
            fetched.errback(FetchError(f"no policy within {_PATIENCE:.0f} s"))
            fetching.cancel()

        def ended(result: Policy | Failure) -> None:
            if fetched.called:
                return  # the end of a fetch that was given up
            timer.cancel()
            if isinstance(result, Policy):
                fetched.callback(result)
            elif result.check(FetchError):
                fetched.errback(result)
            else:
                fetched.errback(FetchError(_text(result.value)))

        timer = self._reactor.callLater(_PATIENCE, give_up)
        fetching.addBoth(ended)
        return fetched

    async def _fetch(self, domain: str) -> Policy:
        try:
            host = domain_name(f"mta-sts.{domain}")
        except AddressError:
            raise FetchError("the name of its policy host would be too long") from None
        problem = FetchError(f"{host} has no address")
        addresses: Sequence[str] = await self._resolver.addresses(host)
        for address in addresses[:_MOST_ADDRESSES]:
            target = Target(host, address, self._port)
            gate = _Gate(target, self._contexts, self._tls())
            try:
                return await self._exchange(gate, f"https://{host}{_PATH}")
            except (FetchError, CancelledError):
                raise  # an answer, or the end of our patience
            except Exception as error:  # no connection to this address
                problem = FetchError(f"{target}: {gate.problem or _text(error)}")
            finally:
                gate.close()
        raise problem

    async def _exchange(self, gate: _Gate, url: str) -> Policy:
        # Imported with the first policy: most of what HTTP needs serves nothing else.
        from twisted.web.client import Agent

        agent = Agent.usingEndpointFactory(self._reactor, _Endpoints(self._reactor, gate))
        try:
            response = await agent.request(b"GET", url.encode("ascii"))
            if response.code != 200:
                # RFC 8461 §3.3: redirects must not be followed.
                raise FetchError(f"{gate.target} answers {response.code}, expected 200")
            kinds = response.headers.getRawHeaders("content-type", [])
            if [kind.partition(";")[0].strip().lower() for kind in kinds] != ["text/plain"]:
                found = " and ".join(kinds) or "no type"
                raise FetchError(
                    f"{gate.target} sends {printable(found)[:_SHOWN]}, expected text/plain",
                    "sts-policy-invalid",
                )
            body = _Body(gate)
            response.deliverBody(body)
            octets = await body.whole
        except (FetchError, CancelledError):
            raise
        except Exception as error:
            if gate.refused is not None:
                raise gate.refused from None
            if not gate.is_open:
                raise
            raise FetchError(f"{gate.target}: {gate.problem or _text(error)}") from None
        try:
            return Policy.parse(octets)
        except PolicyError as error:
            raise FetchError(f"{gate.target}: {error}", "sts-policy-invalid") from None


@implementer(IHandshakeListener)
class _Gate(Protocol):
    """A connection to a policy host, which HTTP begins on once the host has proved its name.

    Attributes:
        target: the policy host.
        is_open: whether it has.
        refused: why it has not.
        problem: why we have dropped the connection; empty: we have not.
        complete: whether the server has ended the connection in order.
    """

    transport: Any

    def __init__(self, target: Target, contexts: ClientContexts, tls: ClientTLS) -> None:
        self.target = target
        self.is_open = False
        self.refused: FetchError | None = None
        self.problem = ""
        self.complete = False
        self._contexts = contexts
        self._tls = tls
        self._http: Any = None
        self._octets = 0
        self._opened: Deferred[Any] = Deferred(lambda _: self.close())
        self._closed = False

    def opened(self, factory: Any) -> Deferred[Any]:
        """Return a Deferred that fires with the protocol of ``factory`` once HTTP may begin."""
        self._http = factory
        return self._opened

    def connectionMade(self) -> None:
        """Begin TLS (called by Twisted)."""
        start_tls(self.transport, self._contexts.creator(self.target, self._tls))

    def handshakeCompleted(self) -> None:
        """Let HTTP begin, if the server is verified (called by Twisted)."""
        _, problem = self._contexts.verify(self.transport.getHandle(), self.target, self._tls)
        if self._opened.called:
            return
        if problem is not None:
            self.refused = FetchError(f"{self.target}: {problem}", "sts-webpki-invalid")
            self.close()
            return
        self.is_open = True
        self._http = self._http.buildProtocol(self.transport.getPeer())
        self._http.makeConnection(self.transport)
        self._opened.callback(self._http)

    def dataReceived(self, data: bytes) -> None:
        """Hand octets on to HTTP, as far as there may be so many (called by Twisted)."""
        self._octets += len(data)
        if self._octets > LARGEST + _HEADERS:
            self.drop(f"it sends more than {LARGEST} octets")
        elif self.is_open:
            self._http.dataReceived(data)

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

    def __init__(self, gate: _Gate) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: gate.close())
        self._gate = gate
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep octets (called by Twisted)."""
        self._octets += data
        if len(self._octets) > LARGEST:
            self._gate.drop(f"its policy has more than {LARGEST} octets")

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


def _text(error: BaseException | None) -> str:
    assert error is not None
    reasons = getattr(error, "reasons", None)  # of the errors of twisted.web.client
    if reasons and isinstance(reasons[0], Failure):
        return _text(reasons[0].value)
    return printable(str(error) or type(error).__name__)[:_SHOWN].rstrip(".")
