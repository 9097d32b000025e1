"""DNS records as a mail transfer agent needs them, each with the authenticated (AD) bit.

The resolver is a stub: it asks the name servers that it is given, by dnspython on the reactor's own
UDP and TCP, without threads. Whether AD may be believed depends on the way to those name servers
(RFC 4035 §4.9.3), and is for the caller to say.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.resolver
from attrs import frozen
from dns._asyncbackend import Backend, DatagramSocket, StreamSocket
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IReactorFDSet, IReactorTCP, IReactorTime, IReadDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .envelope import Host
from .smtp.reply import printable

_T = TypeVar("_T")

# https://www.dnsflagday.net/2020/: what passes every path without fragments.
_PAYLOAD = 1232
_DATAGRAM = 65_535  # octets read at most, should a name server not care
_CACHED = 10_000  # answers; some 2 KiB each
_LONGEST_POSITIVE = 86_400  # seconds; RFC 8767 §4 caps them at days to weeks
_LONGEST_NEGATIVE = 3 * 3600  # RFC 2308 §5
_AT_ONCE = 64  # queries; each has a socket of its own, so that its port is hard to guess
_CHAIN = 8  # aliases followed from one answer to the next; within one, dnspython follows 16
_TRIES = 3  # that fit into the time for a lookup, on one name server that does not answer


class DNSFailure(Exception):
    """A lookup without an answer.

    Attributes:
        domain: what was looked up.
        type: the type of record, ``MX``.
    """

    def __init__(self, domain: str, type: str, reason: str) -> None:
        super().__init__(printable(f"{type} of {domain}: {reason}"))
        self.domain = domain
        self.type = type


class LookupFailed(DNSFailure):
    """No name server gave a usable answer now: timeout, SERVFAIL, refused; tried again later."""


class NoSuchDomain(DNSFailure):
    """NXDOMAIN: neither the name nor any below it exists."""


@frozen
class Records:
    """What a lookup found.

    Attributes:
        records: dnspython's records of the type asked for; empty where the name has none of it.
        authenticated: whether the name server says that it validated them (AD).
    """

    records: tuple[dns.rdata.Rdata, ...]
    authenticated: bool


def system_hosts(path: str = "/etc/hosts") -> dict[str, list[str]]:
    """Return the addresses by lower-case name that a hosts file gives, each in its order.

    A file that cannot be read is one that says nothing.
    """
    hosts: dict[str, list[str]] = {}
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            address, *names = line.partition("#")[0].split() or [""]
            if dns.inet.is_address(address):
                for name in names:
                    addresses = hosts.setdefault(name.lower().removesuffix("."), [])
                    if address not in addresses:
                        addresses.append(address)
    return hosts


class DNSResolver:
    """Looks up records (`interfaces.Resolver`), with a cache that honours their TTL.

    Args:
        reactor: for UDP, TCP and timeouts.
        nameservers: addresses to ask, in this order; None: those of ``/etc/resolv.conf``, and
            127.0.0.1 where that names none.
        timeout: seconds that one lookup may take in all.
        hosts: addresses by name that go before the DNS; None: those of ``/etc/hosts``.

    Raises:
        ValueError: a name server is not an address.
    """

    def __init__(
        self,
        reactor: Any,  # IReactorTime, IReactorTCP and IReactorFDSet; no type says all three
        *,
        nameservers: Sequence[Host] | None = None,
        timeout: float = 15.0,
        hosts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._backend = _Backend(reactor, reactor, reactor)
        self._hosts = system_hosts() if hosts is None else hosts
        self._slots = DeferredSemaphore(_AT_ONCE)
        self._resolver = resolver = _resolver(nameservers)
        resolver.timeout = timeout / _TRIES
        resolver.lifetime = timeout
        resolver.cache = _Cache(_CACHED)
        resolver.flags = dns.flags.RD | dns.flags.AD  # RFC 6840 §5.7: AD here asks for AD there
        resolver.use_edns(0, 0, _PAYLOAD)

    def lookup(self, domain: str, type: str) -> Deferred[Records]:
        """Return the records of one type. A lookup ends in its time, and not by cancelling.

        Args:
            domain: A-labels, without a trailing dot.
            type: its mnemonic: ``MX``, ``TLSA``.

        Raises:
            NoSuchDomain: NXDOMAIN, or not a name that the DNS could hold.
            LookupFailed: no usable answer now.
        """
        return Deferred.fromCoroutine(self._lookup(domain, type))

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records; see `interfaces.Resolver`."""
        return Deferred.fromCoroutine(self._mail_exchangers(domain))

    def addresses(self, host: str) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of ``host`` as text; see `interfaces.Resolver`."""
        return Deferred.fromCoroutine(self._addresses(host))

    async def _mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        try:
            found = await self._lookup(domain, "MX")
        except NoSuchDomain:
            if domain in self._hosts:
                return ()  # it exists here, and its address is its implicit MX
            raise
        return [(record.preference, _text(record.exchange)) for record in found.records]  # type: ignore[attr-defined]

    async def _addresses(self, host: str) -> Sequence[str]:
        if host in self._hosts:
            return self._hosts[host]
        waiting = [self.lookup(host, type) for type in ("AAAA", "A")]
        addresses: list[str] = []
        failures: list[DNSFailure] = []
        for lookup in waiting:
            try:
                found = await lookup
            except DNSFailure as failure:
                failures.append(failure)
            else:
                addresses += [record.address for record in found.records]  # type: ignore[attr-defined]
        if not addresses and failures:
            # A name server that answers NXDOMAIN to the one and nothing to the other is broken,
            # and mail must not be returned for that.
            raise next((one for one in failures if isinstance(one, LookupFailed)), failures[0])
        return addresses

    async def _lookup(self, domain: str, type: str) -> Records:
        try:
            name = dns.name.from_text(f"{domain}.")
        except dns.exception.DNSException:
            raise NoSuchDomain(domain, type, "not a name that the DNS could hold") from None
        authenticated = True
        for _ in range(_CHAIN):
            answer = await self._answer(domain, name, type)
            authenticated = authenticated and bool(answer.response.flags & dns.flags.AD)
            if answer.rrset is not None:
                return Records(tuple(answer.rrset), authenticated)
            if answer.canonical_name == name:
                return Records((), authenticated)
            # RFC 1034 §3.6.2: an alias, and its name server does not say what that leads to.
            name = answer.canonical_name
        raise LookupFailed(domain, type, "a chain of aliases that does not end")

    async def _answer(self, domain: str, name: dns.name.Name, type: str) -> dns.resolver.Answer:
        await self._slots.acquire()
        try:
            answer = await self._resolver.resolve(
                name, type, raise_on_no_answer=False, search=False, backend=self._backend
            )
        except dns.resolver.NXDOMAIN:
            raise NoSuchDomain(domain, type, "no such domain") from None
        except Exception as error:  # a broken answer must not take more with it than its lookup
            raise LookupFailed(domain, type, _reason(error)) from error
        finally:
            self._slots.release()
        if answer.rrset is None and answer.canonical_name == name and _is_referral(answer):
            raise LookupFailed(domain, type, "the name server knows nothing and names others")
        return answer


def _is_referral(answer: dns.resolver.Answer) -> bool:
    """Whether a name server answers with others to ask, as one does that should not be asked.

    RFC 2308 §2.2: it has NS records and no SOA, which a true "no data" has.
    """
    types = [rrset.rdtype for rrset in answer.response.authority]
    return dns.rdatatype.NS in types and dns.rdatatype.SOA not in types


def _reason(error: Exception) -> str:
    """Return what a lookup failed for, in few words."""
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.YXDOMAIN):
        return "a name too long"
    if isinstance(error, dns.message.ChainTooLong):
        return "a chain of aliases that does not end"
    if not isinstance(error, dns.resolver.NoNameservers):
        return "no usable answer"
    reasons: dict[str, None] = {}
    for _, _, _, cause, response in error.kwargs.get("errors") or ():
        if response is not None and response.rcode() != dns.rcode.NOERROR:
            reasons[f"the name server says {dns.rcode.to_text(response.rcode())}"] = None
        elif isinstance(cause, dns.message.ChainTooLong):
            reasons["a chain of aliases that does not end"] = None
        elif isinstance(cause, ConnectionRefusedError):
            reasons["no name server listens there"] = None
        elif isinstance(cause, dns.exception.Timeout):
            reasons["no answer in time"] = None
        elif isinstance(cause, OSError):
            reasons["the name server cannot be reached"] = None
        else:
            reasons["an answer that makes no sense"] = None
    return ", ".join(reasons) or "no usable answer"


def _text(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _resolver(nameservers: Sequence[Host] | None) -> dns.asyncresolver.Resolver:
    if nameservers is None:
        with suppress(dns.resolver.NoResolverConfiguration):
            return dns.asyncresolver.Resolver()
        nameservers = [Host("127.0.0.1", 53)]  # resolv.conf(5): the default
    resolver = dns.asyncresolver.Resolver(configure=False)
    for host in nameservers:
        if not dns.inet.is_address(host.name):
            raise ValueError(f"a name server is given by its address, not as {host.name!r}")
    resolver.nameservers = [
        dns.nameserver.Do53Nameserver(host.name, host.port) for host in nameservers
    ]
    return resolver


class _Cache(dns.resolver.LRUCache):
    """dnspython's cache, but for what it would keep for too long."""

    def put(self, key: Any, value: dns.resolver.Answer) -> None:
        """Keep an answer for its TTL, within reason."""
        result = value.chaining_result
        # RFC 2308 §5: a negative answer without a SOA has no TTL, and is not to be kept.
        if result.answer is None and not any(
            rrset.rdtype == dns.rdatatype.SOA for rrset in value.response.authority
        ):
            return
        longest = _LONGEST_NEGATIVE if result.answer is None else _LONGEST_POSITIVE
        value.expiration -= max(0, result.minimum_ttl - longest)
        super().put(key, value)


async def _within(deferred: Deferred[_T], timeout: float | None, clock: IReactorTime) -> _T:
    """Wait for ``deferred``, ``timeout`` seconds at most.

    Raises:
        dns.exception.Timeout: they are over.
    """

    def late(result: object, seconds: float) -> _T:
        raise dns.exception.Timeout(timeout=seconds)

    if timeout is not None:
        deferred.addTimeout(timeout, clock, onTimeoutCancel=late)
    return await deferred


class _Backend(Backend):
    """What dnspython asks of an event loop, on Twisted's."""

    def __init__(self, clock: IReactorTime, reader: IReactorFDSet, tcp: IReactorTCP) -> None:
        self._clock = clock
        self._reader = reader
        self._tcp = tcp

    def name(self) -> str:
        return "twisted"

    def datagram_connection_required(self) -> bool:
        return True

    async def sleep(self, interval: float) -> None:
        over: Deferred[None] = Deferred()
        self._clock.callLater(interval, over.callback, None)
        await over

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: tuple[str, int] | None = None,
        destination: tuple[str, int] | None = None,
        timeout: float | None = None,
        ssl_context: None = None,
        server_hostname: None = None,
    ) -> _DatagramSocket | _StreamSocket:
        assert destination is not None and source is None and ssl_context is None
        if socktype == socket.SOCK_DGRAM:
            return _DatagramSocket(af, self._clock, self._reader, destination)
        endpoint_class = TCP6ClientEndpoint if af == socket.AF_INET6 else TCP4ClientEndpoint
        stream = _StreamSocket(af, self._clock)
        factory = Factory.forProtocol(lambda: stream.protocol)
        factory.noisy = False
        connecting = endpoint_class(self._tcp, *destination).connect(factory)
        try:
            await _within(connecting, timeout, self._clock)
        except dns.exception.Timeout:
            raise
        except Exception as error:
            raise ConnectionError(str(error)) from error  # dnspython's word is OSError
        return stream


@implementer(IReadDescriptor)
class _DatagramSocket(DatagramSocket):
    """A UDP socket as dnspython uses one, connected to its name server.

    Connected, it learns at once that nobody listens there, and hears from nobody else. Not made by
    ``listenUDP``, which writes four lines to the log about every query.
    """

    def __init__(
        self, family: int, clock: IReactorTime, reader: IReactorFDSet, peer: tuple[str, int]
    ) -> None:
        super().__init__(family, socket.SOCK_DGRAM)
        self._clock = clock
        self._reader = reader
        self._peer = dns.inet.low_level_address_tuple(peer, family)
        self._arrived: deque[bytes | OSError] = deque(maxlen=16)
        self._waiting: Deferred[None] | None = None
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(self._peer)
            reader.addReader(self)
        except OSError:
            self._socket.close()
            raise

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        return self._socket.send(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        if not self._arrived:
            self._waiting = Deferred()
            await _within(self._waiting, timeout, self._clock)
        arrived = self._arrived.popleft()
        if isinstance(arrived, OSError):
            raise arrived
        return arrived, self._peer

    async def close(self) -> None:
        self._reader.removeReader(self)
        self._socket.close()

    # For the reactor.

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "dns"

    def doRead(self) -> None:
        try:
            self._arrive(self._socket.recv(_DATAGRAM))
        except BlockingIOError:
            return
        except OSError as error:
            self._arrive(error)

    def connectionLost(self, reason: Failure) -> None:
        # What epoll makes of a refusal, as long as there is nothing to read.
        self._arrive(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))

    def _arrive(self, what: bytes | OSError) -> None:
        self._arrived.append(what)
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


class _Stream(Protocol):
    """Keeps what came until somebody asks for it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False
        self._waiting: Deferred[None] | None = None
        self.lost: Deferred[None] = Deferred()

    def read(self, size: int) -> bytes:
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content

    def ready(self) -> Deferred[None]:
        """Return when there is something to read, if only the end."""
        waiting = self._waiting = Deferred()
        self._tell()
        return waiting

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = True
        self._tell()
        self.lost.callback(None)

    def _tell(self) -> None:
        if (self._buffer or self._ended) and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if not waiting.called:
                waiting.callback(None)


class _StreamSocket(StreamSocket):
    """A TCP connection as dnspython uses one."""

    def __init__(self, family: int, clock: IReactorTime) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.protocol = _Stream()
        self._clock = clock

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        assert self.protocol.transport is not None
        self.protocol.transport.write(what)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        await _within(self.protocol.ready(), timeout, self._clock)
        return self.protocol.read(size)

    async def close(self) -> None:
        assert self.protocol.transport is not None
        self.protocol.transport.abortConnection()  # type: ignore[attr-defined]
        await self.protocol.lost
