"""What is known of a name server, pure."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import dns.inet

from ..mail.next_hop import Host

_WITHOUT_EDNS = 3600.0  # seconds for which it is believed that a server does not know EDNS
_PERHAPS_WITHOUT = 300.0  # the same, where the question with OPT may just have been lost
_WITH_EDNS = 3600.0  # seconds for which it is believed that it does
_SILENT = 60.0  # seconds for which others are asked first


class NameServer:
    """One name server.

    Args:
        host: where it is.

    Attributes:
        family: of its address.

    Raises:
        ValueError: that is not an address.
    """

    def __init__(self, host: Host) -> None:
        if not dns.inet.is_address(host.name):
            raise ValueError(f"a name server is given by its address, not as {host.name!r}")
        self.host = host
        self.family = socket.AF_INET6 if ":" in host.name else socket.AF_INET
        self._without_edns = self._with_edns = self._silent = -1.0

    @cached_property
    def address(self) -> Any:
        """Where it is, as sockets have it.

        Raises:
            OSError: it is beyond an interface that is not there.
        """
        return dns.inet.low_level_address_tuple((self.host.name, self.host.port), self.family)

    def edns(self, now: float, times: int) -> bool:
        """Whether a question goes with an OPT record (RFC 6891 §6.2.2).

        Args:
            now: by the clock.
            times: how often it has been asked, in silence. What silently drops questions with OPT
                is asked without, and one that is only slow, or lossy, no sooner than it need be.
        """
        if now < self._without_edns:
            return False
        return times < (2 if now < self._with_edns else 1)

    def knows_edns(self, now: float) -> None:
        """It has answered with an OPT record."""
        self._with_edns = now + _WITH_EDNS
        self._without_edns = -1.0

    def lacks_edns(self, now: float, *, silently: bool) -> None:
        """It has answered without OPT what it did not answer with."""
        if silently and now < self._with_edns:
            return
        self._with_edns = -1.0
        self._without_edns = now + (_PERHAPS_WITHOUT if silently else _WITHOUT_EDNS)

    def answered(self) -> None:
        """It is there."""
        self._silent = -1.0

    def was_silent(self, now: float) -> None:
        """Another one has answered meanwhile."""
        self._silent = now + _SILENT

    def is_silent(self, now: float) -> bool:
        """Whether others had better be asked first."""
        return now < self._silent


def in_turn(nameservers: Sequence[NameServer], now: float) -> list[NameServer]:
    """Return name servers in the order to ask them: those that were silent last."""
    return sorted(nameservers, key=lambda each: each.is_silent(now))
