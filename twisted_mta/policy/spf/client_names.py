"""The names of a client in the DNS that have its address (RFC 7208 §5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton

from ...interfaces import Resolver
from .lookups import MOST_NAMES, Lookups, Unanswered
from .macros import domain as domain_name


class ClientNames:
    """Looks up the names of a client, each at most once.

    Args:
        address: of the client.
        resolver: for PTR records, and for the addresses of the names.
        lookups: of the check.
    """

    def __init__(
        self, address: IPv4Address | IPv6Address, resolver: Resolver, lookups: Lookups
    ) -> None:
        self._address = address
        self._resolver = resolver
        self._lookups = lookups
        self._names: Sequence[str] | None = None
        self._confirmed: dict[str, bool] = {}

    @property
    def are_known(self) -> bool:
        """Whether the PTR records were looked up."""
        return self._names is not None

    async def all(self) -> Sequence[str]:
        """Return the names in PTR records: the first ten, in the order in which they came.

        Raises:
            Unanswered: there is no answer.
        """
        if self._names is None:
            found = await self._lookups.ask(self._resolver.pointers(str(self._address)))
            # §4.6.4: more names are ignored.
            names = (domain_name(each) for each in (found or ())[:MOST_NAMES])
            self._names = [name for name in names if name is not None]
        return self._names

    async def is_below(self, domain: str) -> bool:
        """Whether a confirmed name is ``domain``, or ends with it (`ptr`).

        Raises:
            Unanswered: there are no PTR records for now.
        """
        for name in await self.all():
            if _is_below(name, domain) and await self._is_confirmed(name):
                return True
        return False

    async def best(self, domain: str) -> str:
        """Return a confirmed name: ``domain``, or one below it, or any (RFC 7208 §7.3, macro p).

        ``unknown``: there is none, or no answer.
        """
        try:
            names = await self.all()
        except Unanswered:
            return "unknown"
        for name in sorted(names, key=lambda each: (each != domain, not _is_below(each, domain))):
            if await self._is_confirmed(name):
                return name
        return "unknown"

    async def _is_confirmed(self, name: str) -> bool:
        if name not in self._confirmed:
            family = self._address.version
            lookup = self._resolver.family_addresses(name, 4 if family == 4 else 6)
            try:
                found = await self._lookups.ask(lookup)
            except Unanswered:
                found = None  # §5.5: then the next name is looked at
            number = int(self._address)
            self._confirmed[name] = any(number_of(each) == number for each in found or ())
        return self._confirmed[name]


def number_of(address: str) -> int:
    """Return the number of an IP address from the DNS."""
    family = AF_INET6 if ":" in address else AF_INET
    return int.from_bytes(inet_pton(family, address), "big")


def _is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")
