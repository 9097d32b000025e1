"""The name resolution of this system: ``/etc/resolv.conf`` and ``/etc/hosts``, read as they change.

DHCP clients and VPNs rewrite both files without a word to running programs. So a stat looks for
changes, once a second at most. A large hosts file is read in slices; the old table holds until the
new one is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..interfaces import Clock
from ..mail.counted import counted
from . import hosts_file, resolv_conf
from .hosts_file import Hosts, empty_hosts, fill_hosts
from .resolv_conf import ResolvConf, read_resolv_conf

_CHECK_EVERY = 1.0  # seconds


class _WatchedFile:
    """A file whose changes are noticed by its stat."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._state: object = ()

    def changed(self) -> bool:
        """Whether it was replaced or written to since the last call; never raises."""
        try:
            status = os.stat(self.path)
        except OSError:
            state: object = None
        else:
            state = (
                *(status.st_dev, status.st_ino, status.st_size),
                *(status.st_mtime_ns, status.st_ctime_ns),
            )
        before, self._state = self._state, state
        return state != before


class SystemFiles:
    """The two files, read again when they change.

    Args:
        clock: for the time between two checks, and between slices.
        resolv_conf_path: the path of ``resolv.conf``.
        hosts_path: the path of the hosts file.

    Attributes:
        resolv_conf: the content of ``resolv.conf``; another object after each change.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        *,
        resolv_conf_path: str = resolv_conf.PATH,
        hosts_path: str = hosts_file.PATH,
    ) -> None:
        self._clock = clock
        self._resolv_conf_file = _WatchedFile(resolv_conf_path)
        self._hosts_file = _WatchedFile(hosts_path)
        self._hosts: dict[str, Sequence[str]] = {}
        self._hosts_complete = False  # read to the end once
        self._checked_at = clock.seconds()
        self._reread_at = self._checked_at - _CHECK_EVERY
        self._reading: Iterator[None] | None = None
        self._slice: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self._resolv_conf_file.changed()
        self.resolv_conf = read_resolv_conf(resolv_conf_path)

    @property
    def hosts(self) -> Hosts:
        """The hosts file as it was last read to its end."""
        return self._hosts

    def check(self) -> None:
        """Read the files that have changed, unless the last check was less than a second ago."""
        now = self._clock.seconds()
        if now - self._checked_at < _CHECK_EVERY and self._hosts_complete:
            return
        self._checked_at = now
        if self._resolv_conf_file.changed():
            self._read_resolv_conf()
        if self._hosts_file.changed():
            self._read_hosts()

    def reread_resolv_conf(self) -> None:
        """Read ``resolv.conf`` even if its stat is unchanged, once a second at most."""
        now = self._clock.seconds()
        if now - self._reread_at >= _CHECK_EVERY:
            self._reread_at = now
            self._resolv_conf_file.changed()
            self._read_resolv_conf()

    def reload(self) -> None:
        """Read ``resolv.conf`` even if its stat is unchanged, and the hosts file if changed."""
        self._resolv_conf_file.changed()
        self._read_resolv_conf()
        if self._hosts_file.changed():
            self._read_hosts()

    def stop(self) -> None:
        """Stop reading a large hosts file; the next check begins again."""
        if self._slice is not None and self._slice.active():
            self._slice.cancel()
            self._slice = self._reading = None
            self._hosts_file = _WatchedFile(self._hosts_file.path)

    def hosts_read(self) -> Deferred[None]:
        """Return a Deferred that fires once the hosts file has been read to its end."""
        waiting: Deferred[None] = Deferred()
        if self._hosts_complete:
            waiting.callback(None)
            return waiting
        self._waiting.append(waiting)
        if self._reading is None:
            self.check()
        return waiting

    def _read_resolv_conf(self) -> None:
        current: ResolvConf = read_resolv_conf(self._resolv_conf_file.path)
        if current != self.resolv_conf:
            self.resolv_conf = current

    def _read_hosts(self) -> None:
        """Begin to read the hosts file; a small one is read at once."""
        if self._slice is not None and self._slice.active():
            self._slice.cancel()
        hosts: dict[str, Sequence[str]] = {}
        self._reading = fill_hosts(hosts, self._hosts_file.path)
        self._read_slice(self._reading, hosts)

    def _read_slice(self, reading: Iterator[None], hosts: dict[str, Sequence[str]]) -> None:
        self._slice = None
        if not _finished(reading) and not _finished(reading):
            self._slice = self._clock.callLater(0, self._read_slice, reading, hosts)
            return
        self._reading = None
        before, self._hosts = self._hosts, hosts
        if self._hosts_complete:
            self._log.info(
                "{path} has changed: {_names}",
                path=self._hosts_file.path,
                names=len(hosts),
                _names=counted(len(hosts), "name"),
            )
        if len(hosts) >= hosts_file.MOST_NAMES:
            self._log.warn(
                "only the first {names} names of {path} count",
                names=hosts_file.MOST_NAMES,
                path=self._hosts_file.path,
            )
        self._hosts_complete = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)
        self._empty(empty_hosts(before))

    def _empty(self, emptying: Iterator[None]) -> None:
        if not _finished(emptying):
            self._clock.callLater(0, self._empty, emptying)


def _finished(slices: Iterator[None]) -> bool:
    """Run one slice; return whether it was the last."""
    for _ in slices:
        return False
    return True
