"""Networks that peers are in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


class Networks:
    """Says whether an address is in one of several networks, and remembers its answers."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._remembered = lru_cache(maxsize=1024)(self._find)

    def cover(self, address: str | None) -> bool:
        """Whether ``address`` (as a socket gave it) is in one of them; None is in none.

        An IPv4 address mapped into IPv6 is the IPv4 address.
        """
        return address is not None and bool(self._networks) and self._remembered(address)

    def _find(self, address: str) -> bool:
        parsed = ip_address(address.partition("%")[0])
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)
