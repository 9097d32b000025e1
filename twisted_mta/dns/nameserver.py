"""A name server: its address, whether it knows EDNS, and whether it was silent lately."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_address
from typing import Any

import dns.inet

from ..mail.next_hop import Host

# Seconds for which a server counts as one without EDNS; less where the query with OPT may just
# have been lost.
_WITHOUT_EDNS = 3600.0
_PERHAPS_WITHOUT_EDNS = 300.0
_WITH_EDNS = 3600.0  # seconds for which a server counts as one with EDNS
_SILENT = 60.0  # seconds for which other servers are queried first


class NameServer:
    """One name server.

    Args:
        host: its address and port.

    Attributes:
        family: of its address.
        trusted: whether its AD bit is believed (RFC 4035 §4.9.3): it is on this machine,
            or the operator says so.

    Raises:
        ValueError: the name of ``host`` is not an address.
    """

    def __init__(self, host: Host) -> None:
        if not dns.inet.is_address(host.name):
            raise ValueError(f"found name server {host.name!r}, expected an IP address")
        self.host = host
        self.family = socket.AF_INET6 if ":" in host.name else socket.AF_INET
        self.trusted = self.is_loopback
        self._without_edns_until = self._with_edns_until = self._silent_until = -1.0

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        return ip_address(self.host.name.partition("%")[0]).is_loopback

    @cached_property
    def address(self) -> Any:
        """The address for a socket.

        Raises:
            OSError: it has the zone of an interface that does not exist.
        """
        return dns.inet.low_level_address_tuple((self.host.name, self.host.port), self.family)

    def uses_edns(self, now: float, sent: int) -> bool:
        """Whether the next query has an OPT record (RFC 6891 §6.2.2).

        A server that silently drops queries with OPT is queried without it soon; one that is only
        slow or lossy, and known to do EDNS, one query later.

        Args:
            now: by the clock.
            sent: the queries that were sent so far without an answer.
        """
        if now < self._without_edns_until:
            return False
        return sent < (2 if now < self._with_edns_until else 1)

    def note_edns(self, now: float) -> None:
        """Record that it answered with an OPT record."""
        self._with_edns_until = now + _WITH_EDNS
        self._without_edns_until = -1.0

    def note_no_edns(self, now: float, *, silently: bool) -> None:
        """Record that it answered without OPT after failing with it.

        Args:
            now: by the clock.
            silently: whether it had not answered the query with OPT at all.
        """
        if silently and now < self._with_edns_until:
            return
        self._with_edns_until = -1.0
        self._without_edns_until = now + (_PERHAPS_WITHOUT_EDNS if silently else _WITHOUT_EDNS)

    def note_answer(self) -> None:
        """Record that it answered."""
        self._silent_until = -1.0

    def note_silence(self, now: float) -> None:
        """Record that it was silent until another one answered."""
        self._silent_until = now + _SILENT

    def is_silent(self, now: float) -> bool:
        """Whether other servers are to be queried first."""
        return now < self._silent_until


def in_query_order(nameservers: Sequence[NameServer], now: float) -> list[NameServer]:
    """Return name servers in the order to query them: silent ones last."""
    return sorted(nameservers, key=lambda each: each.is_silent(now))
