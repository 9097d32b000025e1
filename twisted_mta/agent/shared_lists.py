"""What an agent shares with those of other machines, beside the queue: lists, and counts."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..cluster.away import DatabaseAway
from ..cluster.database import ClusterDatabase, Thread
from ..delivery.shared_sent_counts import SharedSentCounts
from ..policy.greylist.shared import SharedGreylist
from ..policy.suppression.file import SuppressionFile
from ..policy.suppression.shared import SharedSuppression
from ..queue.store.postgresql.connection import Connecting

_FOLLOW = 2.0  # seconds between two looks at the changes of the suppression list


class SharedLists:
    """The lists in the database of a cluster, for one process.

    Args:
        url: of the database, as libpq reads it.
        thread: where it is used.
        suppression: the copy of the suppression list.
        follows: whether this process keeps that up to date: one of a machine does.
        reactor: IReactorTime.

    Attributes:
        database: the connection.
        suppression: the list that all machines share.
        greylist: what greylisting remembers for all machines.
        sent_counts: of the addresses in source pools.
        is_on: whether the suppression list is in use.
    """

    _log = Logger()

    def __init__(
        self,
        url: str,
        *,
        thread: Thread,
        suppression: SuppressionFile,
        follows: bool,
        reactor: Any,
    ) -> None:
        self.database = ClusterDatabase(
            Connecting(url, reactor.seconds), thread=thread, reactor=reactor
        )
        self.suppression = SharedSuppression(suppression, self.database)
        self.greylist = SharedGreylist(self.database)
        self.sent_counts = SharedSentCounts(self.database)
        self.is_on = False
        self._reactor = reactor
        self._follows = follows
        self._next: IDelayedCall | None = None
        self._is_running = False
        self._is_away = False

    def start(self) -> None:
        """Begin to follow the changes of other machines."""
        self._is_running = True
        self.database.start()
        self._follow()

    def stop(self) -> None:
        """End it; blocks until the call under way has ended."""
        self._is_running = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        self.database.stop()

    def _follow(self) -> None:
        self._next = None
        if self._follows and self.is_on:
            followed = self.database.executor(self.suppression.follow)
            followed.addCallbacks(self._followed, self._not_followed).addCallback(self._again)
        else:
            self._again(None)

    def _again(self, _: None) -> None:
        if self._is_running:
            self._next = self._reactor.callLater(_FOLLOW, self._follow)

    def _followed(self, _: None) -> None:
        self._is_away = False

    def _not_followed(self, failure: Failure) -> None:
        if self._is_away:
            return
        self._is_away = True
        if failure.check(DatabaseAway):
            self._log.warn(
                "the suppression list is as it was: the changes of other machines cannot be read:"
                " {error}",
                error=failure.getErrorMessage(),
            )
        else:
            self._log.failure("the suppression list cannot be kept up to date", failure)
