"""The PROXY protocol, versions 1 and 2: a load balancer names its client before SMTP or TLS begins.

Headers are believed only from balancers in configured networks, and required from those. The SMTP
protocol is built after the header, so greeting, limits, decisions and log know the client from the
beginning.

The format is HAProxy's ``proxy-protocol.txt``, sections 2.1 (text) and 2.2 (binary). Anything else
ends the connection without a reply, since no SMTP client would read one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..mail.printable import printable
from ..policy.networks import Network, Networks
from .addresses import ProxiedAddress
from .protocol import ESMTPProtocol

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST_LINE = 107  # octets with CR LF, section 2.1
_LONGEST_BLOCK = 4096  # octets; section 2.2 allows 65,535, and balancers send a few hundred
_PORT = rb"(?:0|[1-9][0-9]{0,4})"  # section 2.1: no leading zeros
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|(?P<family>TCP4|TCP6) (?P<source>[0-9A-Fa-f.:]+) (?P<destination>[0-9A-Fa-f.:]+)"
    rb" (?P<source_port>" + _PORT + rb") (?P<destination_port>" + _PORT + rb"))\r\n"
)

# Section 2.2: octets of the addresses and ports, by the address family in the 14th octet; TLVs
# follow. For an unspecified family no length is defined.
_ADDRESSES: Mapping[int, int] = {0x1: 12, 0x2: 36, 0x3: 216}
_STREAM = 0x1
_CRC32C = 0x03  # PP2_TYPE_CRC32C, section 2.2.3


class ProxyError(Exception):
    """The octets are not a header of the PROXY protocol; the message says why."""


Header = tuple[ProxiedAddress | None, bytes]
"""The client (None: the balancer itself), and the octets that follow the header."""


def read_header(octets: bytes) -> Header | None:
    """Read a header from the first octets of a connection; None while more octets are needed.

    Raises:
        ProxyError: the octets are not a header, or an invalid one.
    """
    if _SIGNATURE.startswith(octets[: len(_SIGNATURE)]):
        return _read_block(octets) if len(octets) >= 16 else None
    if not b"PROXY ".startswith(octets[:6]):
        raise ProxyError("no header of the PROXY protocol")
    end = octets.find(b"\n", 0, _LONGEST_LINE) + 1
    if not end and len(octets) < _LONGEST_LINE:
        return None
    line = _LINE.fullmatch(octets[:end])
    if not line:
        raise ProxyError("a malformed line of the PROXY protocol")
    rest = octets[end:]
    if line["family"] is None:
        return None, rest
    version = IPv4Address if line["family"] == b"TCP4" else IPv6Address
    source_port, destination_port = int(line["source_port"]), int(line["destination_port"])
    try:
        source, destination = (version(line[key].decode()) for key in ("source", "destination"))
    except ValueError:
        raise ProxyError("an invalid address in a line of the PROXY protocol") from None
    if max(source_port, destination_port) > 65535:
        raise ProxyError("an invalid port in a line of the PROXY protocol")
    return _proxied(source, source_port, destination, destination_port), rest


def _read_block(octets: bytes) -> Header | None:
    version_and_command, family_and_protocol, length = struct.unpack_from("!BBH", octets, 12)
    if version_and_command not in (0x20, 0x21):
        raise ProxyError("an unknown version or command of the PROXY protocol")
    family, protocol = family_and_protocol >> 4, family_and_protocol & 15
    local = version_and_command == 0x20  # a health check of the balancer's own
    if not local and (family > 3 or protocol > 2):
        raise ProxyError("an unknown address family of the PROXY protocol")
    if length > _LONGEST_BLOCK:
        raise ProxyError(f"a header of the PROXY protocol with {length} octets")
    if len(octets) < 16 + length:
        return None
    header, rest = octets[: 16 + length], octets[16 + length :]
    if local or family == 0 or protocol == 0:
        return None, rest  # section 2.2: the addresses are ignored
    if length < _ADDRESSES[family]:
        raise ProxyError("a header of the PROXY protocol that is too short for its addresses")
    _check_sum(header, 16 + _ADDRESSES[family])
    # Section 2.2: a receiver treats what it cannot use as "unspecified": here UNIX sockets, which
    # have no address of a client, and datagrams, which carry no SMTP.
    if family == 3 or protocol != _STREAM:
        return None, rest
    layout = "!4s4sHH" if family == 1 else "!16s16sHH"
    source, destination, source_port, destination_port = struct.unpack_from(layout, header, 16)
    version = IPv4Address if family == 1 else IPv6Address
    return _proxied(version(source), source_port, version(destination), destination_port), rest


def _proxied(
    source: IPv4Address | IPv6Address,
    source_port: int,
    destination: IPv4Address | IPv6Address,
    destination_port: int,
) -> ProxiedAddress | None:
    source, destination = _plain(source), _plain(destination)
    if source.is_unspecified:
        return None  # 0.0.0.0 is no client's address
    return ProxiedAddress(str(source), source_port, str(destination), destination_port)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    # RFC 4291 §2.5.5.2: balancers with sockets for both families write IPv4 in this form.
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _check_sum(header: bytes, position: int) -> None:
    """Verify the checksum among the TLVs from ``position``, if there is one (section 2.2.3)."""
    while position < len(header):
        if position + 3 > len(header):
            raise ProxyError("a truncated TLV of the PROXY protocol")
        type, length = struct.unpack_from("!BH", header, position)
        value = position + 3
        if value + length > len(header):
            raise ProxyError("a TLV of the PROXY protocol that goes beyond the header")
        if type == _CRC32C:
            if length != 4:
                raise ProxyError("a checksum of the PROXY protocol with a wrong length")
            (expected,) = struct.unpack_from("!I", header, value)
            if crc32c(header[:value] + b"\0\0\0\0" + header[value + 4 :]) != expected:
                raise ProxyError("a wrong checksum of the PROXY protocol")
        position = value + length


def crc32c(octets: bytes) -> int:
    """Return CRC-32C (RFC 9260, Appendix A), bit by bit, since headers are short and rare."""
    remainder = 0xFFFFFFFF
    for octet in octets:
        remainder ^= octet
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


class ProxyFactory(Factory):
    """Reads the header of the PROXY protocol in front of another factory.

    Peers outside the networks are connected to that factory at once. It stands outermost, before
    implicit TLS, since the header comes first on a connection.

    Args:
        wrapped: the factory behind; its ``buildProtocol`` gets a `ProxiedAddress`, or the address
            of the balancer where that connects for itself (a health check).
        networks: of balancers, whose headers are believed and required.
        clock: for ``timeout``.
        timeout: seconds for the whole header; section 2 asks for 3 at least.
    """

    noisy = False

    def __init__(
        self,
        wrapped: Factory[Any],
        networks: Iterable[Network],
        *,
        clock: Clock,
        timeout: float = 10.0,
    ) -> None:
        self.wrapped = wrapped
        self.clock = clock
        self.timeout = timeout
        self._balancers = Networks(networks)
        self._awaiting: dict[AwaitingHeader, None] = {}

    def doStart(self) -> None:
        """Start the wrapped factory as well."""
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        """Stop the wrapped factory as well, and close connections without a header."""
        for protocol in list(self._awaiting):
            protocol.abort()
        self.wrapped.doStop()
        super().doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build what awaits the header, or the wrapped protocol for a peer that is no balancer."""
        if not self._balancers.cover(getattr(addr, "host", None)):
            return self.wrapped.buildProtocol(addr)
        return AwaitingHeader(self, addr, self._awaiting)


class AwaitingHeader(Protocol):
    """A connection of a balancer until its header is read; then the wrapped protocol takes it."""

    _log = Logger()
    transport: Any

    def __init__(
        self,
        factory: ProxyFactory,
        balancer: IAddress | None,
        awaiting: dict[AwaitingHeader, None],
    ) -> None:
        self._factory = factory
        self._balancer = balancer
        self._awaiting = awaiting
        self._octets = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the timeout of the header."""
        self._awaiting[self] = None
        self._timer = self._factory.clock.callLater(
            self._factory.timeout, self._refuse, "no header of the PROXY protocol in time"
        )

    def dataReceived(self, data: bytes) -> None:
        """Take a part of the header; at its end, hand the connection over."""
        if self not in self._awaiting:
            return  # refused
        self._octets += data
        try:
            header = read_header(self._octets)
        except ProxyError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._end()
            self._hand_over(*header)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop waiting."""
        # A connection without an octet was a health check of the port.
        if self in self._awaiting and self._octets:
            self._warn("half a header of the PROXY protocol")
        self._end()

    def abort(self) -> None:
        """Abort the connection, without a reply."""
        self._end()
        self.transport.abortConnection()

    def _hand_over(self, proxied: ProxiedAddress | None, rest: bytes) -> None:
        protocol = self._factory.wrapped.buildProtocol(proxied or self._balancer)
        if protocol is None:
            self.transport.abortConnection()
            return
        if rest and isinstance(protocol, ESMTPProtocol):
            protocol.spoke_early = True
        # From here on the connection belongs to the other protocol alone, for STARTTLS too: Twisted
        # puts TLS between a transport and the protocol that it has at that time.
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        if rest:
            protocol.dataReceived(rest)  # under implicit TLS, the client speaks first

    def _refuse(self, reason: str) -> None:
        self._warn(reason)
        self.abort()

    def _warn(self, reason: str) -> None:
        self._log.warn(
            "connection from {balancer} closed: {reason}",
            balancer=printable(str(getattr(self._balancer, "host", self._balancer))),
            reason=reason,
        )

    def _end(self) -> None:
        self._awaiting.pop(self, None)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
