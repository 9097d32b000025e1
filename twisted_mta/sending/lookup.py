"""The addresses of a host, from the name resolver of the reactor; and the name of this machine."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Host, Target

_LOCALHOST = ("127.0.0.1", "::1")  # RFC 6761 §6.3: never looked up


def host_name(host: str) -> str:
    """Return the name of a host as it is looked up: in A-labels, or an address without brackets.

    Raises:
        ValueError: it is neither a host name nor an address, nor the path of a UNIX socket.
    """
    name = host
    if host.startswith("[") and host.endswith("]"):
        name = host[1:-1].removeprefix("IPv6:")
    if name.startswith("/") or _is_address(name):
        return name
    try:
        return domain_name(name)
    except ValueError as error:
        raise ValueError(f"host: found {host!r}, expected a name or an address: {error}") from None


async def targets_of(host: Host, reactor: Any) -> Sequence[Target]:
    """Return the addresses of a host, in the order to try them; empty: there are none.

    Args:
        host: with a name from `host_name`.
        reactor: with ``nameResolver``, where the name needs a look-up.
    """
    name, port = host.name, host.port
    if name == "localhost" or name.endswith(".localhost"):
        return [Target(name, address, port) for address in _LOCALHOST]
    if name.startswith("/") or _is_address(name):
        return [Target(name, name, port)]
    lookup = _Lookup()
    reactor.nameResolver.resolveHostName(lookup, name, port)
    addresses = await lookup.addresses
    return [Target(name, address, port) for address in dict.fromkeys(addresses)]


@implementer(IResolutionReceiver)
class _Lookup:
    """Takes the addresses of one look-up."""

    def __init__(self) -> None:
        self.addresses: Deferred[Sequence[str]] = Deferred(lambda _: self._cancel())
        self._found: list[str] = []
        self._resolution: IHostResolution | None = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        self.addresses.callback(self._found)

    def _cancel(self) -> None:
        if self._resolution is not None:
            # Twisted's own resolver, which waits for getaddrinfo in a thread, cannot be canceled.
            with contextlib.suppress(NotImplementedError):
                self._resolution.cancel()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def machine_name() -> str:
    """Return the name of this machine; ``localhost`` where it has no dot. Blocks."""
    name = socket.getfqdn()
    try:
        return domain_name(name) if "." in name else "localhost"
    except AddressError:
        return "localhost"
