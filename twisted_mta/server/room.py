"""Room for messages on their way in, shared by all listeners: memory, and free disk.

Both are looked at before a message is taken, so that neither memory nor the disk fills first and is
complained of afterwards (RFC 5321 §4.2.3: 452).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ..interfaces import Clock
from ..smtp.reply import Reply

NO_MEMORY = Reply.of(452, "3.1", "Too many messages on their way in, try again later")
NO_DISK = Reply.of(452, "3.1", "Insufficient system storage")

_LOOK_AGAIN = 1.0  # seconds: a disk does not fill by what is kept free within one


class Room:
    """Says whether there is room, and keeps count of what is in use.

    Args:
        memory: octets that messages on their way in may hold, all together.
        share: octets that one of them holds at most: what is larger goes to a file.
        minimum_free: octets of the disk that are to stay free.
        free: says how many are; may raise OSError.
        clock: see `interfaces`.

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
    ) -> None:
        self.in_use = 0
        self._memory = memory
        self._share = share
        self.minimum_free = minimum_free
        self._free = free
        self._clock = clock
        self._looked_at: float | None = None
        self._disk_is_full = False
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
                self._disk_is_full = self._free() < self.minimum_free
            except OSError:
                self._disk_is_full = False  # writing will tell
        return NO_DISK if self._disk_is_full else None

    def enter(self) -> None:
        """Count a message in."""
        self.in_use += self._share

    def leave(self) -> None:
        """Count a message out."""
        self.in_use -= self._share
