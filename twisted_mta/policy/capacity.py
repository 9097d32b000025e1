"""Capacity for incoming messages, shared by all listeners of a process: memory, and free disk.

Both are checked before a message is accepted, so mail is deferred with 452 (RFC 5321 §4.2.3) before
memory or the disk is full.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..mail.reply import Reply

NO_MEMORY = Reply.of(452, "3.1", "Too many messages on their way in, try again later")
NO_DISK = Reply.of(452, "3.1", "Insufficient system storage")

_CHECK_INTERVAL = 1.0  # seconds: within one, no disk fills by the octets that are kept free
_ATTEMPT_INTERVAL = 5.0  # seconds between two attempts to write, while writing fails

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether a disk, or our quota of it, is used up."""
    return error.errno in _FULL


@frozen
class Shortage:
    """A resource that is too scarce to take mail.

    Attributes:
        what: ``disk`` or ``memory``.
        text: what was found, and what was expected; for operators.
    """

    what: str
    text: str


class Capacity:
    """Decides whether one more message can be taken, and counts the memory in use.

    Args:
        memory: octets that all incoming messages together may hold.
        share: octets that one of them holds at most; larger content goes to a file.
        minimum_free: octets of the disk that have to stay free.
        free: returns the free octets of the disk; may raise OSError.
        clock: for the intervals between two checks.
        attempt: writes a file as large as the memory share of a message, and removes it; fails if
            that is impossible. None: never tried.

    Attributes:
        in_use: octets of memory that incoming messages hold.
        minimum_free: may change at any time.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        memory: int,
        share: int,
        minimum_free: int,
        free: Callable[[], int],
        clock: Clock,
        attempt: Callable[[], Deferred[Any]] | None = None,
    ) -> None:
        self.in_use = 0
        self.minimum_free = minimum_free
        self._memory = memory
        self._share = share
        self._free = free
        self._clock = clock
        self._checked_at: float | None = None
        self._disk_is_full = False
        self._free_octets: int | None = None  # at the last check; None: it could not be read
        self._attempt = attempt
        self._attempting = False
        self._attempted_at = 0.0
        self._write_fault = ""  # of the last write, although enough of the disk seemed to be free
        self._logged: Reply | None = None

    def refusal(self) -> Reply | None:
        """Return why no message can be taken now; None if one can."""
        refusal = self._refusal()
        if refusal is not self._logged:  # each change once, not every refused client
            self._logged = refusal
            if refusal is None:
                self._log.info("there is room again, and mail is taken")
            else:
                self._log.warn("no mail is taken: {reply}", reply=refusal)
        return refusal

    def _refusal(self) -> Reply | None:
        if self.in_use + self._share > self._memory:
            return NO_MEMORY
        now = self._clock.seconds()
        if self._checked_at is None or now - self._checked_at >= _CHECK_INTERVAL:
            self._checked_at = now
            try:
                self._free_octets = self._free()
            except OSError:
                self._free_octets = None  # then a write fails, and `write_failed` is called
            self._disk_is_full = (
                self._free_octets is not None and self._free_octets < self.minimum_free
            )
        return NO_DISK if self._disk_is_full else None

    def write_failed(self, error: str) -> None:
        """Note that a message could not be written, though enough of the disk seemed to be free.

        Free space does not show a quota, the number of files, or a thread that cannot be started.
        Each further message is tried all the same. `shortage` writes a file once in a while to see
        whether it works again, since a load balancer may have moved all clients to another host.
        """
        self._write_fault = error
        self._attempted_at = self._clock.seconds()

    def shortage(self) -> Shortage | None:
        """Return what is missing to take a message now; None if nothing is."""
        refusal = self.refusal()
        if refusal is NO_MEMORY:
            return Shortage(
                "memory",
                f"messages on their way in hold {self.in_use:,} octets, and message_memory is"
                f" {self._memory:,}",
            )
        if refusal is NO_DISK:
            return Shortage(
                "disk",
                f"{self._free_octets:,} octets of the disk are free, and minimum_free_disk is"
                f" {self.minimum_free:,}",
            )
        if not self._write_fault:
            return None
        now = self._clock.seconds()
        due = now - self._attempted_at > _ATTEMPT_INTERVAL
        if self._attempt is not None and not self._attempting and due:
            self._attempting, self._attempted_at = True, now
            self._attempt().addCallbacks(self._attempt_succeeded, self._attempt_failed)
        return Shortage("disk", f"the queue cannot be written: {self._write_fault}")

    def _attempt_succeeded(self, _: object) -> None:
        self._attempting = False
        self._write_fault = ""

    def _attempt_failed(self, failure: Failure) -> None:
        self._attempting = False
        error = failure.value
        self._write_fault = getattr(error, "strerror", None) or str(error) or type(error).__name__

    def low(self) -> str:
        """Say that the disk is nearly full, though mail is taken; empty: it is not, or is full."""
        free = self._free_octets
        if free is None or self._disk_is_full or free >= 2 * self.minimum_free:
            return ""
        return (
            f"{free:,} octets of the disk are free, and mail is refused below {self.minimum_free:,}"
            " (minimum_free_disk)"
        )

    def reserve(self) -> None:
        """Count the memory of one more message."""
        self.in_use += self._share

    def release(self) -> None:
        """Count the memory of one message as free again."""
        self.in_use -= self._share
