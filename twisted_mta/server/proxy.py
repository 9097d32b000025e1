"""The PROXY protocol, versions 1 and 2, before anything else is said on a connection.

A load balancer in front of us speaks for its client: who it is stands in a header before the first
octet of SMTP, or of TLS. Only balancers in named networks are believed, and from those the header
has to come. The protocol behind is built when it has come, so the greeting, the limits and the log
know the client from the beginning.

The format is HAProxy's ``proxy-protocol.txt``, sections 2.1 (text) and 2.2 (binary).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal

from attrs import frozen
from twisted.internet.address import IPv4Address as TCP4
from twisted.internet.address import IPv6Address as TCP6
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..smtp.reply import printable

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST_LINE = 107  # octets with CR LF, section 2.1
_LONGEST_BLOCK = 4096  # octets; section 2.2 allows 65,535, and balancers send a few hundred
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|(?P<family>TCP4|TCP6) (?P<source>[0-9A-Fa-f.:]+) (?P<destination>[0-9A-Fa-f.:]+)"
    rb" (?P<source_port>[0-9]{1,5}) (?P<destination_port>[0-9]{1,5}))\r\n"
)
_CRC32C = 0x03  # PP2_TYPE_CRC32C, section 2.2.3


class ProxyError(Exception):
    """What came is not a header of the PROXY protocol; the message says why."""


@frozen
class Proxied:
    """Whom a balancer speaks for.

    Attributes:
        source: address of the client.
        source_port: its port.
        destination: address that it connected to.
        destination_port: the port there.
    """

    source: str
    source_port: int
    destination: str
    destination_port: int


Header = tuple[Proxied | None, bytes]
"""Whom the balancer speaks for (None: for itself), and what came behind the header."""


def read_header(octets: bytes) -> Header | None:
    """Read a header from the beginning of a connection; None while more is needed.

    Raises:
        ProxyError: it is none, or one that cannot be.
    """
    start = octets[: len(_SIGNATURE)]
    if _SIGNATURE.startswith(start):
        return _read_block(octets) if len(octets) >= 16 else None
    if not b"PROXY ".startswith(octets[:6]):
        raise ProxyError("no header of the PROXY protocol")
    end = octets.find(b"\r\n")
    if end < 0 and len(octets) < _LONGEST_LINE:
        return None
    found = _LINE.fullmatch(octets[: end + 2]) if 0 <= end <= _LONGEST_LINE - 2 else None
    if not found:
        raise ProxyError("a malformed line of the PROXY protocol")
    rest = octets[end + 2 :]
    if found["family"] is None:
        return None, rest
    version: type[IPv4Address | IPv6Address]
    version = IPv4Address if found["family"] == b"TCP4" else IPv6Address
    ports = int(found["source_port"]), int(found["destination_port"])
    try:
        source, destination = (version(found[key].decode()) for key in ("source", "destination"))
    except ValueError:
        raise ProxyError("an address that is none, in a line of the PROXY protocol") from None
    if max(ports) > 65535:
        raise ProxyError("a port that is none, in a line of the PROXY protocol")
    return Proxied(str(source), ports[0], str(destination), ports[1]), rest


def _read_block(octets: bytes) -> Header | None:
    version_and_command, family_and_protocol, length = struct.unpack_from("!BBH", octets, 12)
    if version_and_command >> 4 != 2 or version_and_command & 15 > 1:
        raise ProxyError("a version or command of the PROXY protocol that is not known")
    if length > _LONGEST_BLOCK:
        raise ProxyError(f"a header of the PROXY protocol with {length} octets")
    if len(octets) < 16 + length:
        return None
    block, rest = octets[16 : 16 + length], octets[16 + length :]
    if version_and_command & 15 == 0:  # LOCAL: a health check of the balancer's own
        return None, rest
    version: type[IPv4Address | IPv6Address]
    if family_and_protocol == 0x11:
        layout, version = "!4s4sHH", IPv4Address
    elif family_and_protocol == 0x21:
        layout, version = "!16s16sHH", IPv6Address
    elif family_and_protocol in (0x00, 0x31, 0x32):  # unspecified, UNIX: nothing to learn
        return None, rest
    else:
        raise ProxyError("an address family of the PROXY protocol that is not TCP")
    if length < struct.calcsize(layout):
        raise ProxyError("a header of the PROXY protocol that is too short for its addresses")
    source, destination, source_port, destination_port = struct.unpack_from(layout, block)
    _check_sum(octets[: 16 + length], 16 + struct.calcsize(layout))
    return Proxied(
        str(version(source)), source_port, str(version(destination)), destination_port
    ), rest


def _check_sum(header: bytes, position: int) -> None:
    """Compare the checksum, if there is one among the TLVs (section 2.2.3)."""
    while position + 3 <= len(header):
        type, length = struct.unpack_from("!BH", header, position)
        value = position + 3
        if value + length > len(header):
            raise ProxyError("a TLV of the PROXY protocol that goes beyond the header")
        if type == _CRC32C:
            if length != 4:
                raise ProxyError("a checksum of the PROXY protocol that is none")
            (expected,) = struct.unpack_from("!I", header, value)
            if _crc32c(header[:value] + b"\0\0\0\0" + header[value + 4 :]) != expected:
                raise ProxyError("a checksum of the PROXY protocol that is wrong")
        position = value + length


def _crc32c(octets: bytes) -> int:
    """CRC-32C (RFC 9260, Appendix A), bit by bit: headers are short and balancers few."""
    remainder = 0xFFFFFFFF
    for octet in octets:
        remainder ^= octet
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


class ProxyFactory(Factory):
    """Puts the PROXY protocol before another factory, for balancers in some networks.

    Others are connected to the factory behind at once.

    Args:
        wrapped: the factory of the protocol behind; its ``buildProtocol`` gets who the client is.
        networks: whose headers are believed, and required.
        clock: for the deadline.
        timeout: seconds in which the header has to come.
    """

    noisy = False

    def __init__(
        self,
        wrapped: Factory[Any],
        networks: Sequence[IPv4Network | IPv6Network],
        *,
        clock: Clock,
        timeout: float = 30.0,
    ) -> None:
        self.wrapped = wrapped
        self.networks = tuple(networks)
        self.clock = clock
        self.timeout = timeout

    def doStart(self) -> None:
        """Start the factory behind as well."""
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        """Stop the factory behind as well."""
        self.wrapped.doStop()
        super().doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what waits for the header, or the protocol behind where none is believed."""
        host = getattr(addr, "host", None)
        if host is None or not self._believes(host):
            return self.wrapped.buildProtocol(addr)
        return _AwaitingHeader(self, addr)

    def _believes(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


class _AwaitingHeader(Protocol):
    """A connection of a balancer, until its header has come."""

    _log = Logger()
    transport: Any

    def __init__(self, factory: ProxyFactory, balancer: IAddress | None) -> None:
        self._factory = factory
        self._balancer = balancer
        self._octets = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait."""
        self._timer = self._factory.clock.callLater(self._factory.timeout, self._give_up)

    def dataReceived(self, data: bytes) -> None:
        """Take some of the header; after its end, make room for the protocol behind."""
        self._octets += data
        try:
            header = read_header(self._octets)
        except ProxyError as error:
            self._refuse(str(error))
            return
        if header is None:
            return
        self._cancel()
        proxied, rest = header
        address = self._balancer if proxied is None else _address(proxied)
        protocol = self._factory.wrapped.buildProtocol(address)
        if protocol is None:
            self.transport.abortConnection()
            return
        # From here on the connection is the other protocol's alone, for STARTTLS too: Twisted puts
        # TLS between a transport and whatever is its protocol then.
        self.transport.protocol = protocol
        if proxied is not None and hasattr(protocol, "local_address"):
            protocol.local_address = proxied.destination
        protocol.makeConnection(self.transport)
        if rest:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop waiting."""
        self._cancel()

    def _give_up(self) -> None:
        self._refuse("no header of the PROXY protocol in time")

    def _refuse(self, reason: str) -> None:
        self._cancel()
        self._log.warn(
            "connection from {balancer} closed: {reason}",
            balancer=printable(str(getattr(self._balancer, "host", self._balancer))),
            reason=reason,
        )
        self.transport.abortConnection()

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


def _address(proxied: Proxied) -> IAddress:
    kind: Callable[[Literal["TCP"], str, int], IAddress]
    kind = TCP6 if ":" in proxied.source else TCP4
    return kind("TCP", proxied.source, proxied.source_port)
