"""Addresses of connections: the client that a load balancer names, and the text of an address."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen
from twisted.internet.interfaces import IAddress
from zope.interface import implementer


@implementer(IAddress)
@frozen
class ProxiedAddress:
    """The address of a client on whose behalf a load balancer has connected (`IAddress`).

    Attributes:
        host: IP address of the client, as text.
        port: port of the client.
        destination: IP address that the client connected to, as text.
        destination_port: port that the client connected to.
        type: as in Twisted's own addresses.
    """

    host: str
    port: int
    destination: str
    destination_port: int
    type: Literal["TCP"] = "TCP"


def plain_address(address: Any) -> str | None:
    """Return the host of a Twisted address as text; None where it has none (a UNIX socket).

    An IPv4 address that was mapped into IPv6 (RFC 4291 §2.5.5.2), as a socket for both families
    reports it, is returned as IPv4.
    """
    host: str | None = getattr(address, "host", None)
    if host is not None and host.startswith("::ffff:") and "." in host:
        return host.removeprefix("::ffff:")
    return host
