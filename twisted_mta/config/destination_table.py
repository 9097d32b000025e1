"""Finds the destination of a domain or next hop, and completes it with the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs
from attrs import evolve

from ..mail.next_hop import Host
from .destination import VERIFYING, Destination
from .setting import ConfigError, shown

_CACHED = 4096  # answers


class DestinationTable:
    """Finds the destination of a domain or a next hop.

    Args:
        destinations: in any order.
        defaults: the destination of all other domains, complete.
        authorities: see `complete`.

    Raises:
        ConfigError: two destinations have one pattern, or one contradicts the defaults.
    """

    def __init__(
        self,
        destinations: Iterable[Destination],
        defaults: Destination,
        authorities: str | None = None,
    ) -> None:
        self._defaults = defaults
        self._by_pattern: dict[str, Destination] = {}
        for destination in destinations:
            if destination.domain in self._by_pattern:
                raise ConfigError(
                    f"[[destination]] domain = {shown(destination.domain)}: found two; expected one"
                )
            self._by_pattern[destination.domain] = complete(destination, defaults, authorities)
        self._cache: dict[tuple[str, tuple[Host, ...]], Destination] = {}

    def all(self) -> Sequence[Destination]:
        """Return each destination, complete; the last is that of all other domains."""
        return (*self._by_pattern.values(), self._defaults)

    def find(self, domain: str, hosts: tuple[Host, ...] = ()) -> Destination:
        """Return the destination of mail to ``domain`` by one of ``hosts``, complete.

        A pattern that names a host comes first; then the domain itself, the longest ``.suffix``,
        and ``*``.

        Args:
            domain: of the recipient, canonical.
            hosts: of the route, in order; () if the route names none.
        """
        if not self._by_pattern:
            return self._defaults
        destination = self._cache.get((domain, hosts))
        if destination is None:
            if len(self._cache) == _CACHED:
                self._cache.clear()
            destination = self._cache[domain, hosts] = self._find(domain, hosts)
        return destination

    def _find(self, domain: str, hosts: tuple[Host, ...]) -> Destination:
        for pattern in (*_host_patterns(hosts), *_domain_patterns(domain)):
            destination = self._by_pattern.get(pattern)
            if destination is not None:
                return destination
        return self._defaults


def complete(
    destination: Destination, defaults: Destination, authorities: str | None = None
) -> Destination:
    """Return a destination in which each None is replaced by the value of ``defaults``.

    ``authorities`` (a PEM file) is used by destinations that verify certificates.

    Raises:
        ConfigError: its settings contradict the defaults.
    """
    missing = {
        field.name: getattr(defaults, field.name)
        for field in attrs.fields(Destination)
        if getattr(destination, field.name) is None
    }
    low, high = destination.retry_minimum, destination.retry_maximum
    if low is not None and high is None:
        missing["retry_maximum"] = max(low, missing["retry_maximum"])
    elif high is not None and low is None:
        missing["retry_minimum"] = min(high, missing["retry_minimum"])
    level = missing.get("tls") or destination.tls
    missing["authorities"] = destination.authorities
    if level in VERIFYING and destination.authorities is None:
        missing["authorities"] = authorities
    if level == "may" and destination.username is not None:
        missing["tls"] = "encrypt"  # RFC 4954 §4: no credentials over a connection in clear
    return evolve(destination, **missing)


def _host_patterns(hosts: tuple[Host, ...]) -> Iterator[str]:
    for host in hosts:
        yield str(host)
        if ":" in host.name:
            yield f"[IPv6:{host.name}]"
        yield host.name
        yield f"[{host.name}]"  # an IPv4 address may be written as a literal


def _domain_patterns(domain: str) -> Iterator[str]:
    yield domain
    if not domain.startswith("["):
        dot = domain.find(".")
        while dot >= 0:
            yield domain[dot:]  # longest first
            dot = domain.find(".", dot + 1)
    yield "*"
