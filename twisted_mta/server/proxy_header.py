"""The header of the PROXY protocol, versions 1 and 2, read from octets.

The format is HAProxy's ``proxy-protocol.txt``, sections 2.1 (text) and 2.2 (binary).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from .addresses import ProxiedAddress

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
