"""Keeps the files of a shard's queue as they are, as long as a program copies them."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock
from ..queue.commit import GroupCommit
from ..queue.operator.operations import FilesHeld, HoldAction, HoldFiles

PATIENCE = 60.0
"""Seconds after which a hold ends whose program has not asked for more time."""


class FilesHold:
    """The hold of a shard.

    Args:
        commit: of the shard.
        clock: for the end of a hold that is forgotten.
        is_embedded: whether the queue is in files.
    """

    def __init__(self, commit: GroupCommit, *, clock: Clock, is_embedded: bool) -> None:
        self.is_embedded = is_embedded
        self._commit = commit
        self._clock = clock
        self._timer: IDelayedCall | None = None

    async def begin(self, copy: str) -> bool:
        """Begin to keep the files for a copy; return whether they are kept.

        Raises:
            StoreError: the queue is closed.
        """
        await self._perform("begin", copy)
        return await self.renew(copy)

    async def renew(self, copy: str) -> bool:
        """Return whether the files are still kept; if so, they are for another minute.

        Raises:
            StoreError: the queue is closed.
        """
        held = await self._perform("check", copy)
        if held:
            self.stop()
            self._timer = self._clock.callLater(PATIENCE, self._forgotten, copy)
        return held

    async def end(self, copy: str) -> bool:
        """Keep the files no longer; return whether they were kept up to now.

        Raises:
            StoreError: the queue is closed.
        """
        held = await self._perform("end", copy)
        if held:
            self.stop()
        return held

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    async def _perform(self, action: HoldAction, copy: str) -> bool:
        result: FilesHeld = await self._commit.perform(HoldFiles(action, copy))
        return result.held

    def _forgotten(self, copy: str) -> None:
        # Where the queue is closed meanwhile, nothing is held.
        self._commit.perform(HoldFiles("end", copy)).addErrback(lambda failure: None)
