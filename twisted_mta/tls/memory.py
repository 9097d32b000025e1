"""The TLS memory: which hosts did TLS before, so that its disappearance is noticed (RFC 3207 §6).

A `TLSMemory` is used on the way of each message and touches no disk; `journal.TLSJournal` keeps it
there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, TypeAlias

from attrs import asdict, evolve, frozen

from ..interfaces import WallTime

_DAY = 86_400.0
_HOUR = 3_600.0
_LONGEST_NAME = 255


@frozen
class TLSHost:
    """A host that did TLS; all times in seconds since the epoch.

    Attributes:
        host: its name, or its address where it has none.
        port: of the server there.
        first: when it first did TLS with us.
        last: when it last did, to the day.
        missing: when it last had no TLS although it had it before; None where it has done TLS
            since, or always did.
        forgotten: when the operator had it forgotten; None: never. What was before does not count.
    """

    host: str
    port: int
    first: float
    last: float
    missing: float | None = None
    forgotten: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it has done TLS since it was forgotten."""
        return self.forgotten is None or self.last > self.forgotten

    def merged(self, other: TLSHost) -> TLSHost:
        """Return what this entry and another of the same host record together."""
        forgotten = max((self.forgotten, other.forgotten), key=lambda time: time or 0.0)
        entries = [evolve(each, forgotten=forgotten) for each in (self, other)]
        entries = [each for each in entries if each.counts] or entries
        later = max(entries, key=lambda each: max(each.last, each.missing or 0.0))
        # An entry from before the forgetting may have been merged into a later one already.
        first = max(min(each.first for each in entries), forgotten or 0.0 if later.counts else 0.0)
        return evolve(later, first=first, last=max(each.last for each in entries))

    def line(self) -> bytes:
        """Return the entry as a line of a journal, with its line end."""
        fields = [self.host, self.port, int(self.first), int(self.last)]
        if self.missing is not None or self.forgotten is not None:
            fields.append(None if self.missing is None else int(self.missing))
        if self.forgotten is not None:
            fields.append(int(self.forgotten))
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> TLSHost | None:
        """Return the entry of a line, None where the line holds none."""
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, list) or len(fields) not in (4, 5, 6):
            return None
        forgotten = fields.pop() if len(fields) == 6 else None
        if fields[4:] == [None]:
            fields.pop()
        host, *numbers = fields
        if not isinstance(host, str) or not 0 < len(host) <= _LONGEST_NAME:
            return None
        times = numbers if forgotten is None else [*numbers, forgotten]
        if not all(type(number) is int and 0 <= number < 1 << 40 for number in times):
            return None
        port, first, last, *missing = numbers
        return cls(
            host,
            port,
            float(first),
            float(last),
            float(missing[0]) if missing else None,
            None if forgotten is None else float(forgotten),
        )


TLSEntry: TypeAlias = Mapping[str, Any]
"""A `TLSHost` in JSON: ``host``, ``port``, ``first``, ``last``, ``missing``."""


class TLSMemory:
    """The hosts that are known to do TLS.

    Args:
        wall_time: seconds since the epoch.
        most: entries at the most; beyond, the one that changed longest ago is forgotten.
        forget_after: seconds since its last TLS after which a host is forgotten.

    Attributes:
        alarms: connections without TLS to hosts that had it before: used in clear, or given up.
        on_change: called when there is a change for `take_changes`.
    """

    def __init__(
        self, *, wall_time: WallTime, most: int = 100_000, forget_after: float = 90 * _DAY
    ) -> None:
        self.alarms = 0
        self.on_change: Callable[[], object] = lambda: None
        self._wall_time = wall_time
        self._most = most
        self._forget_after = forget_after
        self._hosts: dict[tuple[str, int], TLSHost] = {}  # the latest change is last
        self._changed: dict[tuple[str, int], None] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def size(self) -> tuple[int, int]:
        """How many hosts are known, and how many can be."""
        return len(self._hosts), self._most

    def known(self, host: str, port: int) -> TLSHost | None:
        """Return the entry of a host, None where it is not known to do TLS."""
        entry = self._hosts.get((host, port))
        if entry is None or not self._is_old(entry):
            return entry if entry is not None and entry.counts else None
        self._drop((host, port))
        return None

    def remember(self, host: str, port: int) -> None:
        """Record that a host does TLS now."""
        now = self._wall_time()
        entry = self.known(host, port)
        if entry is None:
            before = self._hosts.get((host, port))
            forgotten = None if before is None else before.forgotten
            self._put(TLSHost(host, port, now, now, forgotten=forgotten))
        elif entry.missing is not None or now - entry.last >= _DAY:
            self._put(evolve(entry, last=now, missing=None))

    def alarm(self, host: str, port: int) -> None:
        """Record that a host that is `known` has no TLS now."""
        self.alarms += 1
        now = self._wall_time()
        entry = self.known(host, port)
        if entry is not None and (entry.missing is None or now - entry.missing >= _HOUR):
            self._put(evolve(entry, missing=now))

    def forget(self, host: str) -> list[int]:
        """Forget that a host did TLS; return its ports that were known."""
        now = self._wall_time()
        found = [each for each in self._hosts.values() if each.host == host and each.counts]
        for each in found:
            self._put(evolve(each, forgotten=max(now, each.last)))
        return [each.port for each in found if not self._is_old(each)]

    def merge(self, hosts: Iterable[TLSHost]) -> None:
        """Add the entries of other processes; they are no changes for `take_changes`."""
        for host in hosts:
            known = self._hosts.get((host.host, host.port))
            if known is not None:
                host = known.merged(host)
                if host == known:
                    continue
            if not self._is_old(host):
                self._put(host, changed=False)

    def entries(self) -> list[TLSEntry]:
        """Return all hosts in JSON, by host and port."""
        hosts = (each for each in self._hosts.values() if each.counts and not self._is_old(each))
        return [_entry(host) for host in sorted(hosts, key=lambda each: (each.host, each.port))]

    def hosts(self) -> list[TLSHost]:
        """Return all hosts, the latest change last."""
        return list(self._hosts.values())

    def take_changes(self) -> list[TLSHost]:
        """Return the hosts that changed since the last call."""
        changed, self._changed = self._changed, {}
        return [self._hosts[key] for key in changed if key in self._hosts]

    @property
    def changed(self) -> bool:
        """Whether there are changes to take."""
        return bool(self._changed)

    def _is_old(self, host: TLSHost) -> bool:
        return self._wall_time() - host.last > self._forget_after

    def _put(self, host: TLSHost, *, changed: bool = True) -> None:
        key = host.host, host.port
        self._hosts.pop(key, None)
        self._hosts[key] = host
        if changed:
            self._changed[key] = None
        if len(self._hosts) > self._most:
            self._drop(next(iter(self._hosts)))
        if changed:
            self.on_change()

    def _drop(self, key: tuple[str, int]) -> None:
        del self._hosts[key]
        self._changed.pop(key, None)


def entries_below(entries: Iterable[TLSEntry], domain: str | None) -> list[TLSEntry]:
    """Return the entries of a host, or of the hosts below a domain; all for None."""
    if domain is None:
        return list(entries)
    name = domain.lower().removeprefix(".").removesuffix(".")
    return [
        entry for entry in entries if entry["host"] == name or entry["host"].endswith(f".{name}")
    ]


def merged_entries(entries_by_process: Iterable[Iterable[TLSEntry]]) -> list[TLSEntry]:
    """Return the entries of several processes together, by host and port."""
    hosts: dict[tuple[str, int], TLSHost] = {}
    for entry in chain.from_iterable(entries_by_process):
        host = TLSHost(**entry)
        known = hosts.get((host.host, host.port))
        hosts[host.host, host.port] = host if known is None else known.merged(host)
    return [_entry(hosts[key]) for key in sorted(hosts)]


def _entry(host: TLSHost) -> TLSEntry:
    return asdict(host, filter=lambda attribute, _: attribute.name != "forgotten")
