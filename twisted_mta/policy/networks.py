"""Sets of IP networks, by which listeners decide on clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


class Networks:
    """A set of networks.

    Attributes:
        cover: returns whether the address of a peer, as its socket gives it, is in one of the
            networks; IPv4 mapped into IPv6 counts as IPv4. None (a UNIX socket) is in no network.
            Answers for recent addresses are cached.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self.cover: Callable[[str | None], bool] = lru_cache(maxsize=1024)(self._find)

    def _find(self, address: str | None) -> bool:
        if address is None or not self._networks:
            return False
        parsed = ip_address(address.partition("%")[0])
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)
