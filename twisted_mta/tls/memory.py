"""Small durable facts: which hosts TLS was had with (RFC 3207 §6).

Theory of operation. `TLSMemory` is what one process knows, in memory; it is asked and told on the
way of a message, and touches no disk. `TLSJournal` keeps it: in the directory each process has a
file of its own, ``tls-NAME.GENERATION.jsonl``, to which it appends a line for each fact that has
changed, soon after it did, and reads what the others have appended to theirs: once in a while, and
when one of them says that there is something new. No two processes write
one file, so nothing is locked, and what a crash leaves of a last line is skipped.

A file that has grown is begun anew under the next generation, with all that is known; only when
that is safe on the disk is the one before removed. Files are merged by taking the earliest and the
latest of each fact, so it does no harm that one is read twice, or is nobody's any more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, TypeAlias

from attrs import asdict, evolve, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, Files, WallTime, WritableFile

_DAY = 86_400.0
_HOUR = 3_600.0
_LONGEST_NAME = 255


@frozen
class TLSFact:
    """What is known of one host.

    Attributes:
        host: its name, or its address where it has none.
        port: there.
        first: wall time when TLS was had with it first.
        last: and last, to the day.
        missing: wall time when it could not be had although it was had before; None where it has
            been had since, or never failed.
    """

    host: str
    port: int
    first: float
    last: float
    missing: float | None = None

    def merged(self, other: TLSFact) -> TLSFact:
        """Return what two processes know together."""
        later = max(self, other, key=lambda fact: max(fact.last, fact.missing or 0.0))
        return evolve(later, first=min(self.first, other.first), last=max(self.last, other.last))

    def line(self) -> bytes:
        """Return it as a line of a journal."""
        fields = [self.host, self.port, int(self.first), int(self.last)]
        if self.missing is not None:
            fields.append(int(self.missing))
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> TLSFact | None:
        """Return the fact of a line, None where it says none."""
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, list) or len(fields) not in (4, 5):
            return None
        host, *numbers = fields
        if not isinstance(host, str) or not 0 < len(host) <= _LONGEST_NAME:
            return None
        if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
            return None
        port, first, last, *missing = numbers
        return cls(host, port, float(first), float(last), float(missing[0]) if missing else None)


Entry: TypeAlias = Mapping[str, Any]
"""A fact as JSON has it: ``host``, ``port``, ``first``, ``last``, ``missing``."""


class TLSMemory:
    """The hosts that TLS was had with.

    Args:
        wall_time: what time it is.
        most: how many are known at a time; the one that nothing was heard of for longest goes.
        forget_after: seconds after which a host that TLS was not had with again is forgotten.

    Attributes:
        alarms: how many connections went on, or were given up, without TLS that was had before.
        on_change: called when there is a change to take.
    """

    def __init__(
        self, *, wall_time: WallTime, most: int = 100_000, forget_after: float = 90 * _DAY
    ) -> None:
        self.alarms = 0
        self.on_change: Callable[[], object] = lambda: None
        self._wall_time = wall_time
        self._most = most
        self._forget_after = forget_after
        self._facts: dict[tuple[str, int], TLSFact] = {}  # what changed last is last
        self._changed: dict[tuple[str, int], None] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def known(self, host: str, port: int) -> TLSFact | None:
        """Return what is known of a host, None where TLS was not had with it lately."""
        fact = self._facts.get((host, port))
        if fact is None or not self._is_old(fact):
            return fact
        self._forget((host, port))
        return None

    def remember(self, host: str, port: int) -> None:
        """Take note that TLS was had with a host now."""
        now = self._wall_time()
        fact = self.known(host, port)
        if fact is None:
            self._put(TLSFact(host, port, now, now))
        elif fact.missing is not None or now - fact.last >= _DAY:
            self._put(evolve(fact, last=now, missing=None))

    def alarm(self, host: str, port: int) -> None:
        """Take note that TLS could not be had with a host that is `known`."""
        self.alarms += 1
        now = self._wall_time()
        fact = self.known(host, port)
        if fact is not None and (fact.missing is None or now - fact.missing >= _HOUR):
            self._put(evolve(fact, missing=now))

    def merge(self, facts: Iterable[TLSFact]) -> None:
        """Take in what others know."""
        for fact in facts:
            known = self._facts.get((fact.host, fact.port))
            if known is not None:
                fact = known.merged(fact)
                if fact == known:
                    continue
            if not self._is_old(fact):
                self._put(fact, changed=False)

    def entries(self) -> list[Entry]:
        """Return all that is known, as JSON has it, by host and port.

        Each has ``host``, ``port``, ``first``, ``last`` and ``missing`` (wall times in seconds, the
        last may be None).
        """
        facts = (fact for fact in self._facts.values() if not self._is_old(fact))
        return [asdict(fact) for fact in sorted(facts, key=lambda fact: (fact.host, fact.port))]

    def facts(self) -> list[TLSFact]:
        """Return all that is known, what changed last at the end."""
        return list(self._facts.values())

    def take_changes(self) -> list[TLSFact]:
        """Return the facts that changed since this was asked last."""
        changed, self._changed = self._changed, {}
        return [self._facts[key] for key in changed if key in self._facts]

    @property
    def changed(self) -> bool:
        """Whether there are changes to take."""
        return bool(self._changed)

    def _is_old(self, fact: TLSFact) -> bool:
        return self._wall_time() - fact.last > self._forget_after

    def _put(self, fact: TLSFact, *, changed: bool = True) -> None:
        key = fact.host, fact.port
        self._facts.pop(key, None)
        self._facts[key] = fact
        if changed:
            self._changed[key] = None
        if len(self._facts) > self._most:
            self._forget(next(iter(self._facts)))
        if changed:
            self.on_change()

    def _forget(self, key: tuple[str, int]) -> None:
        del self._facts[key]
        self._changed.pop(key, None)


def entries_of(entries: Iterable[Entry], domain: str | None) -> list[Entry]:
    """Return the entries for a host, or for the hosts below a domain; all for None."""
    if domain is None:
        return list(entries)
    name = domain.lower().removeprefix(".").removesuffix(".")
    return [
        entry for entry in entries if entry["host"] == name or entry["host"].endswith(f".{name}")
    ]


def merged_entries(several: Iterable[Iterable[Entry]]) -> list[Entry]:
    """Return what several processes know together, by host and port."""
    facts: dict[tuple[str, int], TLSFact] = {}
    for entry in chain.from_iterable(several):
        fact = TLSFact(**entry)
        known = facts.get((fact.host, fact.port))
        facts[fact.host, fact.port] = fact if known is None else known.merged(fact)
    return [asdict(facts[key]) for key in sorted(facts)]


_SOON = 0.2
"""Seconds from a change until it is written.

Much less than a next hop needs to be met, restarted and met again, and few enough syncs while many
hosts are met for the first time.
"""

_NAME = re.compile(r"tls-([A-Za-z0-9-]+)\.([0-9]{1,9})\.jsonl")


class TLSJournal:
    """Keeps a `TLSMemory` on disk, beside those of other processes.

    Args:
        memory: what is kept.
        directory: where; made if it is not there.
        name: of this process, different from all others that run: letters, digits, hyphens.
        files: the disk.
        executor: where it is written.
        clock: for the interval.
        interval: seconds between two looks at what has changed elsewhere, and here where it could
            not be written before.
        written: called when others would find something new.
    """

    log = Logger()

    def __init__(
        self,
        memory: TLSMemory,
        *,
        directory: str,
        name: str = "0",
        files: Files,
        executor: Executor,
        clock: Clock,
        interval: float = 60.0,
        written: Callable[[], object] = lambda: None,
    ) -> None:
        self._memory = memory
        memory.on_change = self.look_soon
        self._written = written
        self._directory = directory
        self._name = name
        self._files = files
        self._executor = executor
        self._clock = clock
        self._interval = interval
        self._generation = 0
        self._made = False  # its directory: if that goes away, none is made in its place
        self._file: WritableFile | None = None
        self._lines = 0  # in the file
        self._read: dict[str, int] = {}  # octets, by name of another's file
        self._timer: IDelayedCall | None = None
        self._working: Deferred[None] | None = None
        self._stopped = False
        self._soon = False  # to be looked at again, as soon as the look under way is done
        self._failed_before = False

    def load(self) -> None:
        """Read what all processes have kept. Blocks; a file that cannot be read is left out."""
        try:
            self._files.make_directories(self._directory)
            self._made = True
            self._memory.merge(self._news(every=True))
        except OSError as error:
            self.log.warn("what was known of TLS cannot be read: {error}", error=str(error))

    def start(self) -> None:
        """Look at what changes, from now on."""
        self._stopped = False
        self._timer = self._clock.callLater(self._interval, self._look)

    def look_soon(self) -> None:
        """Look at what changes in a moment: something has, here or elsewhere."""
        if self._timer is None:
            self._soon = True
        elif not self._failed_before and self._timer.getTime() - self._clock.seconds() > _SOON:
            self._timer.reset(_SOON)

    def stop(self) -> Deferred[None]:
        """Write what has changed; fires when that is done, whether or not it could be."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        done: Deferred[None] = Deferred()

        def written(_: object) -> None:
            file, self._file = self._file, None
            if file is not None:
                file.close()
            done.callback(None)

        def write(_: object) -> None:
            maybeDeferred(self._write if self._pending else self._nothing).addBoth(written)

        (self._working or self._nothing()).addBoth(write)
        return done

    @staticmethod
    def _nothing() -> Deferred[None]:
        nothing: Deferred[None] = Deferred()
        nothing.callback(None)
        return nothing

    def _look(self) -> None:
        self._timer = None
        self._soon = False
        writing = maybeDeferred(self._write if self._pending else self._nothing)
        working: Deferred[None] = Deferred()
        self._working = working
        writing.addCallback(lambda _: self._executor(self._news))
        writing.addCallbacks(self._memory.merge, self._failed)

        def again(_: object) -> None:
            self._working = None
            if not self._stopped:
                soon = self._soon and not self._failed_before
                self._timer = self._clock.callLater(_SOON if soon else self._interval, self._look)
            working.callback(None)

        writing.addBoth(again)

    @property
    def _pending(self) -> bool:
        return self._memory.changed or self._failed_before

    def _write(self) -> Deferred[None]:
        """Append what changed, or begin a new file with all that is known."""
        changed = self._memory.take_changes()
        anew = self._file is None or self._lines > 2 * len(self._memory) + 1000
        facts = self._memory.facts() if anew else changed
        self._failed_before = False

        def written(_: object) -> None:
            self._written()

        return self._executor(self._append, facts, anew).addCallbacks(written, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._failed_before = True
        # How much of it is good is not known: the next one begins anew.
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        if failure.check(OSError):
            self.log.warn("what is known of TLS cannot be kept: {error}", error=str(failure.value))
        else:  # no memory, no thread
            self.log.failure("what is known of TLS cannot be kept", failure)

    # On the executor.

    def _append(self, facts: list[TLSFact], anew: bool) -> None:
        if anew:
            self._begin()
        assert self._file is not None
        self._file.write(b"".join(fact.line() for fact in facts))
        self._file.sync()
        self._lines += len(facts)
        if anew:
            self._files.sync_directory(self._directory)
            for name, owner, generation in self._journals():
                if owner == self._name and generation < self._generation:
                    self._files.unlink(os.path.join(self._directory, name))

    def _begin(self) -> None:
        old, self._file = self._file, None
        if old is not None:
            old.close()
        if not self._made:
            self._files.make_directories(self._directory)
            self._made = True
        generations = [number for _, owner, number in self._journals() if owner == self._name]
        self._generation = max([*generations, self._generation]) + 1
        name = f"tls-{self._name}.{self._generation}.jsonl"
        self._file = self._files.create(os.path.join(self._directory, name))
        self._lines = 0

    def _journals(self) -> list[tuple[str, str, int]]:
        found = (_NAME.fullmatch(name) for name in self._files.names(self._directory))
        return [(each[0], each[1], int(each[2])) for each in found if each]

    def _news(self, every: bool = False) -> list[TLSFact]:
        """Return what others have written since this was asked last."""
        facts: list[TLSFact] = []
        read: dict[str, int] = {}
        for name, owner, _ in self._journals():
            if owner == self._name and not every:
                continue
            start = self._read.get(name, 0)
            try:
                with self._files.open(os.path.join(self._directory, name)) as opened:
                    opened.seek(start)
                    content = opened.read()
            except FileNotFoundError:
                continue  # begun anew just now
            whole = content[: content.rfind(b"\n") + 1]
            read[name] = start + len(whole)
            facts += filter(None, map(TLSFact.parse, whole.splitlines()))
        self._read = read
        return facts
