"""Room for messages on their way in, shared by all listeners: memory, and free disk.

Both are looked at before a message is taken, so that neither memory nor the disk fills first and is
complained of afterwards (RFC 5321 §4.2.3: 452).
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

_LOOK_AGAIN = 1.0  # seconds: a disk does not fill by what is kept free within one
_TRY_AGAIN = 5.0  # seconds between two trials whether something can be written again

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether the disk, or our quota of it, is used up."""
    return error.errno in _FULL


@frozen
class Shortage:
    """What there is too little of.

    Attributes:
        what: of ``disk`` or ``memory``.
        text: what was found, and what was expected.
    """

    what: str
    text: str


class Room:
    """Says whether there is room, and keeps count of what is in use.

    Args:
        memory: octets that messages on their way in may hold, all together.
        share: octets that one of them holds at most: what is larger goes to a file.
        minimum_free: octets of the disk that are to stay free.
        free: says how many are; may raise OSError.
        clock: see `interfaces`.
        attempt: tries to write a file as large as a message on its way, and leaves nothing of it.

    Attributes:
        minimum_free: as above; may change at any time.
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
        self._memory = memory
        self._share = share
        self.minimum_free = minimum_free
        self._free = free
        self._clock = clock
        self._looked_at: float | None = None
        self._disk_is_full = False
        self._left: int | None = None  # octets that were free when it was looked
        self._attempt = attempt
        self._attempting = False
        self._tried_at = 0.0
        self._failure = ""  # of the last write, although enough seems to be free
        self._said: Reply | None = None

    def refusal(self) -> Reply | None:
        """Return why no message can be taken now, or None."""
        refusal = self._why_not()
        if refusal is not self._said:  # once, and not for every client that comes
            self._said = refusal
            if refusal is None:
                self._log.info("there is room again, and mail is taken")
            else:
                self._log.warn("no mail is taken: {reply}", reply=refusal)
        return refusal

    def _why_not(self) -> Reply | None:
        if self.in_use + self._share > self._memory:
            return NO_MEMORY
        now = self._clock.seconds()
        if self._looked_at is None or now - self._looked_at >= _LOOK_AGAIN:
            self._looked_at = now
            try:
                self._left = self._free()
            except OSError:
                self._left = None  # writing will tell
            self._disk_is_full = self._left is not None and self._left < self.minimum_free
        return NO_DISK if self._disk_is_full else None

    def failed(self, error: str) -> None:
        """A message could not be written, though enough of the disk seemed to be free.

        Quotas, the number of files, and what else the system refuses (a thread, a longer file) are
        nothing that free space tells of. Each message is tried all the same; whether it would work
        is found out by writing once in a while, since a monitor may have sent all clients
        elsewhere.
        """
        self._failure = error
        self._tried_at = self._clock.seconds()

    def shortage(self) -> Shortage | None:
        """Return what there is too little of to take a message now, or None."""
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
                f"{self._left:,} octets of the disk are free, and minimum_free_disk is"
                f" {self.minimum_free:,}",
            )
        if not self._failure:
            return None
        now = self._clock.seconds()
        if self._attempt is not None and not self._attempting and now - self._tried_at > _TRY_AGAIN:
            self._attempting, self._tried_at = True, now
            self._attempt().addCallbacks(self._works, self._works_not)
        return Shortage("disk", f"the queue cannot be written: {self._failure}")

    def _works(self, _: object) -> None:
        self._attempting = False
        self._failure = ""

    def _works_not(self, failure: Failure) -> None:
        self._attempting = False
        error = failure.value
        self._failure = getattr(error, "strerror", None) or str(error) or type(error).__name__

    def enter(self) -> None:
        """Count a message in."""
        self.in_use += self._share

    def leave(self) -> None:
        """Count a message out."""
        self.in_use -= self._share
