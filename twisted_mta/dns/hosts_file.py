"""``/etc/hosts``: addresses by name, read in slices, since it may have a million lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import dns.inet

Hosts = Mapping[str, Sequence[str]]
"""Addresses by lower-case name."""

PATH = "/etc/hosts"

MOST_NAMES = 250_000
"""Names of a hosts file that are read: 150 octets each."""

_SLICE = 16 << 10  # characters that are read at once: some 2 ms
_LONGEST_LINE = 8 << 10  # characters; the rest of a longer one is left out
_MOST_OF_A_NAME = 32  # addresses
_EMPTIED_AT_ONCE = 10_000  # names


def read_hosts(path: str = PATH) -> dict[str, Sequence[str]]:
    """Return the addresses by lower-case name, each in the order of the file. Blocks.

    An unreadable file counts as empty.
    """
    hosts: dict[str, Sequence[str]] = {}
    for _ in fill_hosts(hosts, path):
        pass
    return hosts


def fill_hosts(hosts: dict[str, Sequence[str]], path: str) -> Iterator[None]:
    """Read a hosts file into ``hosts``; yields between slices."""
    with suppress(OSError), open(path, encoding="utf-8-sig", errors="replace") as file:
        lines_of_names = _Lines(hosts)
        rest = ""
        while text := file.read(_SLICE):
            *lines, rest = (rest + text).split("\n")
            rest = rest[:_LONGEST_LINE]
            for line in lines:
                lines_of_names.add(line[:_LONGEST_LINE])
            yield
        lines_of_names.add(rest)


def empty_hosts(hosts: dict[str, Sequence[str]]) -> Iterator[None]:
    """Free the memory of a large hosts file; yields between slices."""
    while hosts:
        for _ in range(min(len(hosts), _EMPTIED_AT_ONCE)):
            hosts.popitem()
        yield


class _Lines:
    """Adds the lines of a hosts file to a table."""

    def __init__(self, hosts: dict[str, Sequence[str]]) -> None:
        self._hosts = hosts
        self._is_address: dict[str, bool] = {}
        # Many names may share an address: then they share a tuple.
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, line: str) -> None:
        """Add the names of one line."""
        address, *names = line.partition("#")[0].split() or [""]
        if not names or not self._valid(address):
            return
        for name in names:
            key = name.lower().removesuffix(".")
            before = self._hosts.get(key, ())
            if address not in before and len(before) < _MOST_OF_A_NAME:
                addresses = (*before, address)
                if before or len(self._hosts) < MOST_NAMES:
                    self._hosts[key] = self._shared.setdefault(addresses, addresses)

    def _valid(self, address: str) -> bool:
        known = self._is_address.get(address)
        if known is None:
            known = dns.inet.is_address(address)
            if len(self._is_address) < MOST_NAMES:
                self._is_address[address] = known
        return known
