"""Finds the destination of a domain or next hop, and completes it with the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs
from attrs import evolve

from ..mail.next_hop import Host
from .destination import GRANT, SECRETS, VERIFYING, Destination, is_below
from .setting import ConfigError, shown

_CACHED = 4096  # answers

NOT_BY_EXCHANGER = (
    *("tls", "tls_memory", "authorities", "client_certificate", "client_key"),
    *("username", *SECRETS, *GRANT),
)
"""Settings that a destination by ``exchanger`` has not: a forged answer of the DNS, which names
exchangers, must not lower the TLS or obtain a password."""


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
            if destination.name in self._by_pattern:
                key = "domain" if destination.domain else "exchanger"
                value = shown(destination.domain or destination.exchanger)
                raise ConfigError(f"[[destination]] {key} = {value}: found two; expected one")
            self._by_pattern[destination.name] = complete(destination, defaults, authorities)
        self._by_exchanger = self._of_exchangers()
        self._cache: dict[tuple[str, tuple[Host, ...], str], Destination] = {}

    def _of_exchangers(self) -> dict[str, Destination]:
        """Return the destinations by exchanger, the longest suffix first.

        The TLS and the account are those that mail has without the destination.
        """
        others = self._by_pattern.get("*", self._defaults)
        security = {name: getattr(others, name) for name in NOT_BY_EXCHANGER}
        patterns = {
            each.exchanger: each for each in self._by_pattern.values() if each.exchanger is not None
        }
        longest = sorted(patterns, key=lambda each: (-len(each), each))
        for pattern in longest:
            destination = evolve(patterns[pattern], **security)
            patterns[pattern] = self._by_pattern[destination.name] = destination
        return {pattern: patterns[pattern] for pattern in longest}

    def all(self) -> Sequence[Destination]:
        """Return each destination, complete; the last is that of all other domains."""
        return (*self._by_pattern.values(), self._defaults)

    def find(self, domain: str, hosts: tuple[Host, ...] = (), exchanger: str = "") -> Destination:
        """Return the destination of mail to ``domain`` by one of ``hosts``, complete.

        A pattern that names a host comes first; then the domain itself, the longest ``.suffix``,
        the destination of its exchangers, and ``*``.

        Args:
            domain: of the recipient, canonical.
            hosts: of the route, in order; () if the route names none.
            exchanger: the ``exchanger`` of a destination, as `by_exchanger` returns it; empty: none
                has the exchangers of the domain.
        """
        if not self._by_pattern:
            return self._defaults
        key = domain, hosts, exchanger
        destination = self._cache.get(key)
        if destination is None:
            if len(self._cache) == _CACHED:
                self._cache.clear()
            destination = self._cache[key] = self._find(*key)
        return destination

    def by_exchanger(self, host: str) -> str:
        """Return the longest ``exchanger`` that has the name of a host; empty: there is none."""
        found = (each for each in self._by_exchanger if is_below(each, host))
        return next(found, "")

    @property
    def has_exchangers(self) -> bool:
        """Whether any destination is found by the exchangers of a domain."""
        return bool(self._by_exchanger)

    def _find(self, domain: str, hosts: tuple[Host, ...], exchanger: str) -> Destination:
        for pattern in (*_host_patterns(hosts), *_domain_patterns(domain)):
            destination = self._by_pattern.get(pattern)
            if destination is not None:
                return destination
        # A reload may have removed it.
        others = self._by_pattern.get("*", self._defaults)
        return self._by_exchanger.get(exchanger, others)


def complete(
    destination: Destination, defaults: Destination, authorities: str | None = None
) -> Destination:
    """Return a destination in which each None is replaced by the value of ``defaults``.

    ``authorities`` (a PEM file) is used by destinations that verify certificates.

    Raises:
        ConfigError: its settings contradict the defaults.
    """
    if destination.exchanger is not None:
        for name in NOT_BY_EXCHANGER:
            value = getattr(destination, name)
            if value is not None:
                raise ConfigError(
                    f"[[destination]] {destination.name}, {name} = {shown(value)}: not by"
                    " exchanger, since answers of the DNS may be forged; expected in a table with"
                    " domain"
                )
    missing = {
        field.name: getattr(defaults, field.name)
        for field in attrs.fields(Destination)
        if getattr(destination, field.name) is None
    }
    # The one that a destination has itself takes the place of both.
    for one, other in (("source_address", "source_pool"), ("source_pool", "source_address")):
        if getattr(destination, one) is not None:
            missing.pop(other, None)
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
