"""Keep the TLS memory on disk: one file per process, appended to, and read by the others.

In the directory each process has a file of its own, ``tls-NAME.GENERATION.jsonl``. It appends a
line for each host that has changed, soon after the change, and reads the lines that other
processes have appended to theirs: every minute, and when one of them announces a change. A process
that is alone has no timer while nothing changes. No two processes write one file, so nothing is
locked. A torn last line after a crash is skipped.

A file that has grown is rewritten under the next generation, with all hosts; only when that is
synced is the one before removed. Merging takes the earliest and the latest time of each host, so
reading a line twice, or the file of a process that has gone, does no harm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, Files, WritableFile
from .memory import TLSHost, TLSMemory

_SOON = 0.2
"""Seconds from a change to its write.

Much less than a restart takes between two connections to one host, and few enough syncs while many
hosts are met for the first time.
"""

_NAME = re.compile(r"tls-([A-Za-z0-9-]+)\.([0-9]{1,9})\.jsonl")


class State(StrEnum):
    """A state of a journal."""

    NEW = "new"
    WAITING = "waiting"
    SYNCING = "syncing"
    SYNCING_OUTDATED = "syncing, outdated"
    STOPPED = "stopped"


class Event(StrEnum):
    """An event that changes the state of a journal."""

    START = "start"
    CHANGE = "change"
    TIMER = "timer"
    SYNCED = "synced"
    STOP = "stop"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.NEW: {
        Event.START: State.WAITING,
        Event.CHANGE: State.NEW,
        Event.STOP: State.STOPPED,
    },
    # The timer runs, unless the process is alone and all is written; a change makes it run out
    # soon.
    State.WAITING: {
        Event.CHANGE: State.WAITING,
        Event.TIMER: State.SYNCING,
        Event.STOP: State.STOPPED,
    },
    # The executor writes our changes, then reads those of other processes.
    State.SYNCING: {
        Event.CHANGE: State.SYNCING_OUTDATED,
        Event.SYNCED: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    # The same, and there was a change that it may have missed.
    State.SYNCING_OUTDATED: {
        Event.CHANGE: State.SYNCING_OUTDATED,
        Event.SYNCED: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    State.STOPPED: {
        Event.CHANGE: State.STOPPED,
        Event.SYNCED: State.STOPPED,
        Event.STOP: State.STOPPED,
    },
}


class TLSJournal:
    """Keeps a `TLSMemory` on disk, beside those of other processes.

    Args:
        memory: the hosts to keep.
        directory: of the files of all processes; created if missing.
        name: of this process, unique among those that run: letters, digits, hyphens.
        files: the disk.
        executor: runs reads and writes.
        clock: for the interval.
        interval: seconds between two reads of the other files, and from a failed write to the next.
        alone: whether no other process writes files of its own while this one runs.
        written: called after a write, when other processes have lines to read.
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
        alone: bool = False,
        written: Callable[[], object] = lambda: None,
    ) -> None:
        self._memory = memory
        memory.on_change = self.sync_soon
        self._written = written
        self._directory = directory
        self._name = name
        self._files = files
        self._executor = executor
        self._clock = clock
        self._interval = interval
        self._alone = alone
        self._state = State.NEW
        self._generation = 0
        self._directory_made = False  # once: one that is removed later is not made again
        self._file: WritableFile | None = None
        self._lines = 0  # in our file
        self._octets_read: dict[str, int] = {}  # by name of another process's file
        self._timer: IDelayedCall | None = None
        self._syncing: Deferred[None] | None = None
        self._write_failed = False

    def load(self) -> None:
        """Read the files of all processes. Blocks; an unreadable file is logged and left out."""
        try:
            self._files.make_directories(self._directory)
            self._directory_made = True
            self._memory.merge(self._read_others(own=True))
        except OSError as error:
            self.log.warn("the TLS memory cannot be read: {error}", error=str(error))

    def start(self) -> None:
        """Write changes, and read those of other processes, from now on."""
        self._enter(Event.START)
        self._wait()

    def sync_soon(self) -> None:
        """Write and read within `_SOON`: there is a change, here or in another process."""
        self._enter(Event.CHANGE)
        if self._state is not State.WAITING or self._write_failed:
            return
        if self._timer is None:
            self._timer = self._clock.callLater(_SOON, self._sync)
        elif self._timer.getTime() - self._clock.seconds() > _SOON:
            self._timer.reset(_SOON)

    def stop(self) -> Deferred[None]:
        """Write the last changes; fires when that is done or has failed."""
        self._enter(Event.STOP)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        stopped: Deferred[None] = Deferred()

        def write(_: object) -> None:
            maybeDeferred(self._write_changes).addBoth(close)

        def close(_: object) -> None:
            file, self._file = self._file, None
            if file is not None:
                file.close()
            stopped.callback(None)

        (self._syncing or succeed(None)).addBoth(write)
        return stopped

    def _enter(self, event: Event) -> None:
        self._state = TRANSITIONS[self._state][event]

    def _wait(self) -> None:
        """Set the timer, unless there will be nothing to write or to read when it runs out."""
        if not self._alone or self._write_failed or self._memory.changed:
            self._timer = self._clock.callLater(self._interval, self._sync)

    def _sync(self) -> None:
        self._timer = None
        self._enter(Event.TIMER)
        syncing: Deferred[None] = Deferred()
        self._syncing = syncing

        def synced(_: object) -> None:
            self._syncing = None
            outdated = self._state is State.SYNCING_OUTDATED
            self._enter(Event.SYNCED)
            if self._state is State.WAITING:
                self._wait()
                if outdated:
                    self.sync_soon()
            syncing.callback(None)

        writing = maybeDeferred(self._write_changes)
        writing.addCallback(lambda _: self._executor(self._read_others))
        writing.addCallbacks(self._memory.merge, self._failed)
        writing.addBoth(synced)

    def _write_changes(self) -> Deferred[None]:
        """Append the changes, or begin a new file with all hosts; nothing without changes."""
        if not (self._memory.changed or self._write_failed):
            return succeed(None)
        changes = self._memory.take_changes()
        rewrite = self._file is None or self._lines > 2 * len(self._memory) + 1000
        hosts = self._memory.hosts() if rewrite else changes
        self._write_failed = False

        def written(_: object) -> None:
            self._written()

        return self._executor(self._append, hosts, rewrite).addCallbacks(written, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._write_failed = True
        # The good part of the file is unknown: the next write begins a new one.
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        if failure.check(OSError):
            self.log.warn("the TLS memory cannot be written: {error}", error=str(failure.value))
        else:  # no memory, no thread
            self.log.failure("the TLS memory cannot be written", failure)

    # On the executor.

    def _append(self, hosts: list[TLSHost], rewrite: bool) -> None:
        if rewrite:
            self._begin_file()
        assert self._file is not None
        self._file.write(b"".join(host.line() for host in hosts))
        self._file.sync()
        self._lines += len(hosts)
        if rewrite:
            self._files.sync_directory(self._directory)
            for name, owner, generation in self._names():
                if owner == self._name and generation < self._generation:
                    self._files.unlink(os.path.join(self._directory, name))

    def _begin_file(self) -> None:
        old, self._file = self._file, None
        if old is not None:
            old.close()
        if not self._directory_made:
            self._files.make_directories(self._directory)
            self._directory_made = True
        generations = [number for _, owner, number in self._names() if owner == self._name]
        self._generation = max([*generations, self._generation]) + 1
        name = f"tls-{self._name}.{self._generation}.jsonl"
        self._file = self._files.create(os.path.join(self._directory, name))
        self._lines = 0

    def _names(self) -> list[tuple[str, str, int]]:
        """Return (file name, process name, generation) of each file in the directory."""
        matches = (_NAME.fullmatch(name) for name in self._files.names(self._directory))
        return [(match[0], match[1], int(match[2])) for match in matches if match]

    def _read_others(self, own: bool = False) -> list[TLSHost]:
        """Return the hosts of the lines that other processes wrote since the last call.

        Args:
            own: whether to read the files of this process too.
        """
        hosts: list[TLSHost] = []
        octets_read: dict[str, int] = {}
        for name, owner, _ in self._names():
            if owner == self._name and not own:
                continue
            start = self._octets_read.get(name, 0)
            try:
                with self._files.open(os.path.join(self._directory, name)) as opened:
                    opened.seek(start)
                    content = opened.read()
            except FileNotFoundError:
                continue  # its process has just begun a new one
            lines = content[: content.rfind(b"\n") + 1]
            octets_read[name] = start + len(lines)
            hosts += filter(None, map(TLSHost.parse, lines.splitlines()))
        self._octets_read = octets_read
        return hosts
