"""What the system says of names: ``/etc/resolv.conf`` and ``/etc/hosts``, as they are now.

Both are looked at again when they change: networks come and go by DHCP and VPN, without a word to
programs that run. A look is a stat, and there is one in a second at the most. A hosts file may have
a million lines, so it is read in slices; the old one holds until the new one is read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import dns.inet
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..interfaces import Clock
from ..mail.next_hop import Host

Hosts = Mapping[str, Sequence[str]]
"""Addresses by lower-case name."""

_RESOLV_CONF = "/etc/resolv.conf"
_HOSTS = "/etc/hosts"
_PORT = 53

_LOOK_EVERY = 1.0  # seconds
_MOST_OF_RESOLV_CONF = 64 << 10  # octets
_SLICE = 16 << 10  # characters of a hosts file that are read at once: some 2 ms
_LONGEST_LINE = 8 << 10  # characters; the rest of a longer one is left out
_MOST_NAMES = 250_000  # of a hosts file; 150 octets each
_MOST_OF_A_NAME = 32  # addresses
_FORGOTTEN = 10_000  # names at once

# resolv.conf(5), and the limits that the C library has.
_MOST_NAMESERVERS = 8
_MOST_SEARCHED = 16
_MOST_DOTS = 15
_LONGEST_TIMEOUT = 30
_MOST_ATTEMPTS = 5


@frozen
class Resolution:
    """How the system resolves names, resolv.conf(5).

    Attributes:
        nameservers: that are asked.
        search: domains that a name is looked up in.
        ndots: how many dots a name needs to be looked up as it stands first.
        timeout: seconds until the next name server is asked; None: it does not say.
        attempts: how often all of them are asked; None: it does not say.
        rotate: whether they take turns in being the first.
        no_aaaa: whether AAAA records are not asked for.
    """

    nameservers: tuple[Host, ...] = (Host("127.0.0.1", 53),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float | None = None
    attempts: int | None = None
    rotate: bool = False
    no_aaaa: bool = False

    def __str__(self) -> str:
        """The name servers, and where names are searched for."""
        asked = f"name servers {', '.join(map(str, self.nameservers))}"
        return f"{asked}, search {' '.join(self.search)}" if self.search else asked

    def names(self, name: str) -> list[str]:
        """Return what a name stands for, in the order to look it up."""
        if name.endswith("."):
            return [name.removesuffix(".")]
        searched = [f"{name}.{domain}" for domain in self.search]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


def resolution(text: str, *, hostname: str = "") -> Resolution:
    """Return what a ``resolv.conf`` says; lines that make no sense say nothing.

    Args:
        text: its content.
        hostname: of this machine; names are looked up in its domain, if no other is named.
    """
    nameservers: list[Host] = []
    domain = hostname.partition(".")[2]
    search = [domain] if domain else []
    options: list[str] = []
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if not words:
            continue
        if keyword == "nameserver" and dns.inet.is_address(words[0]):
            nameservers.append(Host(words[0], _PORT))
        elif keyword == "search":
            search = words
        elif keyword == "domain":
            search = words[:1]
        elif keyword == "options":
            options += words
    timeout, attempts = _number(options, "timeout"), _number(options, "attempts")
    ndots = _number(options, "ndots")
    return Resolution(
        tuple(dict.fromkeys(nameservers[:_MOST_NAMESERVERS])) or Resolution().nameservers,
        tuple(filter(None, (each.lower().strip(".") for each in search[:_MOST_SEARCHED]))),
        1 if ndots is None else min(ndots, _MOST_DOTS),
        None if timeout is None else float(min(max(timeout, 1), _LONGEST_TIMEOUT)),
        None if attempts is None else min(max(attempts, 1), _MOST_ATTEMPTS),
        "rotate" in options,
        "no-aaaa" in options,
    )


def _number(options: Sequence[str], name: str) -> int | None:
    """Return the number of an option such as ``ndots:5``; the last one counts."""
    for option in reversed(options):
        key, colon, value = option.partition(":")
        if key == name and colon and value.isascii() and value.isdecimal():
            return int(value[:6])
    return None


def system_resolution(path: str = _RESOLV_CONF) -> Resolution:
    """Return what a ``resolv.conf`` says now; one that cannot be read is empty."""
    text = ""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(_MOST_OF_RESOLV_CONF)
    return resolution(text, hostname=socket.gethostname())


def system_hosts(path: str = _HOSTS) -> dict[str, Sequence[str]]:
    """Return the addresses by lower-case name that a hosts file gives, each in its order.

    A file that cannot be read is one that says nothing. Blocks for as long as it is.
    """
    hosts: dict[str, Sequence[str]] = {}
    for _ in _read_hosts(path, hosts):
        pass
    return hosts


def _read_hosts(path: str, hosts: dict[str, Sequence[str]]) -> Iterator[None]:
    """Fill ``hosts`` in slices."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        entries = _Entries(hosts)
        begun = ""
        while octets := file.read(_SLICE):
            *lines, begun = (begun + octets).split("\n")
            begun = begun[:_LONGEST_LINE]
            for line in lines:
                entries.add(line[:_LONGEST_LINE])
            yield
        entries.add(begun)


class _Entries:
    """Takes in the lines of a hosts file."""

    def __init__(self, hosts: dict[str, Sequence[str]]) -> None:
        self._hosts = hosts
        self._addresses: dict[str, bool] = {}  # whether it is one
        self._same: dict[tuple[str, ...], tuple[str, ...]] = {}  # many names may share an address

    def add(self, line: str) -> None:
        """Take in one line."""
        address, *names = line.partition("#")[0].split() or [""]
        if not names or not self._is_address(address):
            return
        for name in names:
            key = name.lower().removesuffix(".")
            before = self._hosts.get(key, ())
            if address not in before and len(before) < _MOST_OF_A_NAME:
                addresses = (*before, address)
                if before or len(self._hosts) < _MOST_NAMES:
                    self._hosts[key] = self._same.setdefault(addresses, addresses)

    def _is_address(self, text: str) -> bool:
        known = self._addresses.get(text)
        if known is None:
            known = dns.inet.is_address(text)
            if len(self._addresses) < _MOST_NAMES:
                self._addresses[text] = known
        return known


def _forget(hosts: dict[str, Sequence[str]]) -> Iterator[None]:
    """Give the memory of a large hosts file back in slices."""
    while hosts:
        for _ in range(min(len(hosts), _FORGOTTEN)):
            hosts.popitem()
        yield


class _File:
    """A file, and whether it has changed since it was last read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._state: object = ()

    def changed(self) -> bool:
        """Whether it is another one than the last time, or was written to; never raises."""
        try:
            found = os.stat(self.path)
        except OSError:
            state: object = None
        else:
            state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        before, self._state = self._state, state
        return state != before


class SystemNames:
    """What the two files say, read again when they change.

    Args:
        clock: for the time between two looks, and between slices.
        resolv_conf: the one file.
        hosts: the other.

    Attributes:
        resolution: what the one says.
    """

    _log = Logger()

    def __init__(
        self, clock: Clock, *, resolv_conf: str = _RESOLV_CONF, hosts: str = _HOSTS
    ) -> None:
        self._table: dict[str, Sequence[str]] = {}
        self._clock = clock
        self._resolv_conf = _File(resolv_conf)
        self._hosts = _File(hosts)
        self._looked = clock.seconds()
        self._looked_closely = self._looked - _LOOK_EVERY
        self._read_first = False
        self._reading: Iterator[None] | None = None
        self._slice: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._resolv_conf.changed()
        self.resolution = system_resolution(resolv_conf)

    @property
    def hosts(self) -> Hosts:
        """What the hosts file says, as far as it was `read`."""
        return self._table

    def look(self) -> None:
        """See whether a file has changed, unless that was done within the last second."""
        now = self._clock.seconds()
        if now - self._looked < _LOOK_EVERY and self._read_first:
            return
        self._looked = now
        if self._resolv_conf.changed():
            self._resolve_anew()
        if self._hosts.changed():
            self._read()

    def look_closely(self) -> None:
        """Read ``resolv.conf``, whatever its times say, unless that was done just now."""
        now = self._clock.seconds()
        if now - self._looked_closely >= _LOOK_EVERY:
            self._looked_closely = now
            self._resolv_conf.changed()
            self._resolve_anew()

    def read_again(self) -> None:
        """Read ``resolv.conf``, whatever its times say, and the other one if it has changed."""
        self._resolv_conf.changed()
        self._resolve_anew()
        if self._hosts.changed():
            self._read()

    def _resolve_anew(self) -> None:
        found = system_resolution(self._resolv_conf.path)
        if found != self.resolution:
            self.resolution = found

    def stop(self) -> None:
        """Read no more of a large hosts file; the next look begins again."""
        if self._slice is not None and self._slice.active():
            self._slice.cancel()
            self._slice = self._reading = None
            self._hosts = _File(self._hosts.path)

    def read(self) -> Deferred[None]:
        """Return when the hosts file has been read once."""
        waiting: Deferred[None] = Deferred()
        if self._read_first:
            waiting.callback(None)
            return waiting
        self._waiting.append(waiting)
        if self._reading is None:
            self.look()
        return waiting

    def _read(self) -> None:
        """Begin to read the hosts file; a small one is read at once."""
        if self._slice is not None and self._slice.active():
            self._slice.cancel()
        hosts: dict[str, Sequence[str]] = {}
        self._reading = _read_hosts(self._hosts.path, hosts)
        self._go_on(self._reading, hosts)

    def _go_on(self, reading: Iterator[None], hosts: dict[str, Sequence[str]]) -> None:
        self._slice = None
        if not _ends(reading) and not _ends(reading):
            self._slice = self._clock.callLater(0, self._go_on, reading, hosts)
            return
        self._reading = None
        before, self._table = self._table, hosts
        if self._read_first:
            self._log.info(
                "{path} has changed: {names} names",
                path=self._hosts.path,
                names=len(hosts),
            )
        if len(hosts) >= _MOST_NAMES:
            self._log.warn(
                "only the first {names} names of {path} count",
                names=_MOST_NAMES,
                path=self._hosts.path,
            )
        self._read_first = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)
        self._forget(_forget(before))

    def _forget(self, forgetting: Iterator[None]) -> None:
        if not _ends(forgetting):
            self._clock.callLater(0, self._forget, forgetting)


def _ends(slices: Iterator[None]) -> bool:
    """Go on by one slice; return whether that was all."""
    for _ in slices:
        return False
    return True
