"""The suppression list in one process: it learns from outcomes, and refuses recipients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Error as SQLiteError
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...cluster.away import DatabaseAway
from ...config import SuppressionSettings
from ...interfaces import Clock, Executor, WallTime
from ...mail.address import Mailbox, folded
from ...mail.classification import HARD, classify
from ...mail.counted import counted
from ...mail.outcome import Outcome
from ...mail.printable import printable
from ...mail.reply import Reply
from .file import Attempted, Changed, Entry, SuppressionFile, Terms

_MOST = 500  # attempts in one transaction
_MOST_WAITING = 20_000  # attempts that wait for the disk; further ones are not noted
_PAUSE = 5.0  # seconds until the database of a cluster is tried again
_HOUR = 3_600.0  # seconds between two lines of the log about the disk
_LONGEST_REASON = 150  # characters of a reply that the client is told


@frozen
class _Sought:
    """An address that is looked up, and where the answer goes."""

    address: str
    found: Deferred[Entry | None]


class Changing(Protocol):
    """A list that can be changed; its methods block (`file.SuppressionFile`)."""

    def note(self, attempts: Sequence[Attempted], terms: Terms) -> list[Changed]:
        """Take note of attempts; return what has changed on the list."""
        ...

    def add(self, address: str, reason: str, now: float) -> None:
        """Put an address on the list, until it is removed."""
        ...

    def remove(self, address: str, now: float) -> bool:
        """Take an address off the list; return whether it was there."""
        ...


class Suppression:
    """Keeps the addresses that bounce for good, and refuses mail of our users for them.

    It is off without settings: nothing is read or written then.

    Args:
        file: on disk.
        executor: where the file is read.
        clock: to repeat no line of the log within an hour.
        wall_time: of bounces.
        count: counts ``added``, ``removed``, ``delivered`` and ``refused``.
        changing: the list that is changed, where the file is a copy of it; None: the file.
        change_executor: where that is; None: as the file.
    """

    _log = Logger()

    def __init__(
        self,
        file: SuppressionFile,
        *,
        executor: Executor,
        clock: Clock,
        wall_time: WallTime,
        count: Callable[[str], object],
        changing: Changing | None = None,
        change_executor: Executor | None = None,
    ) -> None:
        self._file = file
        self._list: Changing = changing or file
        self._change_executor = change_executor or executor
        self._retrying: IDelayedCall | None = None
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._count = count
        self._terms: Terms | None = None
        self._sought: list[_Sought] = []
        self._is_seeking = False
        self._attempts: list[Attempted] = []
        self._is_writing = False
        self._ended: Deferred[None] | None = None  # fires when nothing waits any more
        self._quiet_until = clock.seconds()

    def use(self, settings: SuppressionSettings | None) -> None:
        """Obey other settings from now on; None: off."""
        self._terms = None
        if settings is not None:
            self._terms = Terms(settings.bounces, settings.within, settings.keep)

    @property
    def is_on(self) -> bool:
        """Whether there is a list."""
        return self._terms is not None

    # Recipients.

    async def refusal(self, mailbox: Mailbox) -> Reply | None:
        """Return the refusal of a recipient on the list; None: it is not there."""
        entry = await self.find(mailbox)
        if entry is None:
            return None
        self._count("refused")
        return _reply(entry)

    def find(self, mailbox: Mailbox) -> Deferred[Entry | None]:
        """Return the entry of an address; None: it has none, or the disk refuses."""
        if not self.is_on:
            return succeed(None)
        found: Deferred[Entry | None] = Deferred(lambda _: None)
        self._sought.append(_Sought(address_of(mailbox), found))
        if not self._is_seeking:
            self._seek()
        return found

    def _seek(self) -> None:
        self._is_seeking = True
        batch, self._sought = self._sought[:_MOST], self._sought[_MOST:]
        done: Deferred[list[Entry | None] | None] = self._executor(
            self._file.find, [each.address for each in batch], self._wall_time()
        )
        done.addErrback(self._disk_refused).addCallback(self._found, batch)

    def _found(self, entries: list[Entry | None] | None, batch: Sequence[_Sought]) -> None:
        self._is_seeking = False
        for each, entry in zip(batch, entries or [None] * len(batch), strict=True):
            if not each.found.called:  # canceled: its client has left
                each.found.callback(entry)
        if self._sought and not self._is_seeking:
            self._seek()

    # Outcomes.

    def note(self, mailbox: Mailbox, outcome: Outcome) -> None:
        """Take note of the outcome of an attempt to send to another host."""
        if self._terms is None or outcome.deferred or outcome.expired:
            return
        classification = classify(outcome.reply)
        if outcome.failed:
            if classification not in HARD:
                return
            if outcome.remote is None and classification != "unknown-domain":
                return  # a reply of our own, not of the receiver or of the DNS
        reply = str(outcome.reply) if outcome.failed else None
        if len(self._attempts) < _MOST_WAITING:
            self._attempts.append(Attempted(address_of(mailbox), self._wall_time(), reply))
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        if self._terms is None:
            self._attempts.clear()
            return
        self._is_writing = True
        batch, self._attempts = self._attempts[:_MOST], self._attempts[_MOST:]
        noted: Deferred[list[Changed]] = self._change_executor(self._list.note, batch, self._terms)
        noted.addCallbacks(self._noted, self._not_noted, errbackArgs=(batch,))

    def _noted(self, changes: list[Changed] | None) -> None:
        self._is_writing = False
        for each in changes or ():
            self._count(each.change)
            self._log_change(each)
        if self._attempts:
            self._write()
        if self._ended is not None and not self._is_writing:
            ended, self._ended = self._ended, None
            ended.callback(None)

    def _not_noted(self, failure: Failure, batch: list[Attempted]) -> None:
        self._disk_refused(failure)
        if failure.check(DatabaseAway) and len(self._attempts) + len(batch) <= _MOST_WAITING:
            # The deliveries of the other machines go on without us: nothing is forgotten.
            self._attempts[:0] = batch
            self._retrying = self._clock.callLater(_PAUSE, self._write_again)
        else:
            self._noted(None)

    def _write_again(self) -> None:
        self._retrying = None
        self._write()

    def stop(self) -> Deferred[None]:
        """Write what waits; fires when that is done."""
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None
            return succeed(None)
        if not self._is_writing:
            return succeed(None)
        self._ended = ended = Deferred[None]()
        return ended

    # The operator.

    async def entries(self, after: str, limit: int) -> list[Entry]:
        """Return entries of the list behind an address, in their order."""
        entries: list[Entry] = await self._executor(
            self._file.page, after, limit, self._wall_time()
        )
        return entries

    async def add(self, mailbox: Mailbox, reason: str, *, by: str) -> str:
        """Put an address on the list until it is removed; return it as it is written there."""
        address = address_of(mailbox)
        await self._change_executor(self._list.add, address, printable(reason), self._wall_time())
        self._count("added")
        self._log.info(
            "the address {recipient} is put on the suppression list by {by}",
            recipient=printable(address),
            by=by,
        )
        return address

    async def remove(self, mailbox: Mailbox, *, by: str) -> bool:
        """Take an address off the list, and forget its bounces; return whether it was there."""
        address = address_of(mailbox)
        was_there: bool = await self._change_executor(self._list.remove, address, self._wall_time())
        if was_there:
            self._count("removed")
            self._log.info(
                "the address {recipient} is taken off the suppression list by {by}",
                recipient=printable(address),
                by=by,
            )
        return was_there

    def _log_change(self, changed: Changed) -> None:
        entry = changed.entry
        if changed.change == "added":
            self._log.info(
                "the address {recipient} comes on the suppression list: it has bounced on {_days},"
                " the last time with {reply}",
                recipient=printable(entry.address),
                count=entry.bounces,
                _days=counted(entry.bounces, "day"),
                reply=entry.reply,
            )
        else:
            self._log.info(
                "the address {recipient} leaves the suppression list: mail was delivered to it",
                recipient=printable(entry.address),
            )

    def _disk_refused(self, failure: Failure) -> None:
        now = self._clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + _HOUR
            if failure.check(OSError, SQLiteError, RuntimeError):
                self._log.warn(
                    "the suppression list cannot be used, and refuses nothing: {error}",
                    error=printable(failure.getErrorMessage()),
                )
            else:
                self._log.failure("the suppression list failed, and refuses nothing", failure)


def address_of(mailbox: Mailbox) -> str:
    """Return an address as the list has it: its local part in lower case."""
    return f"{folded(mailbox.local_part)}@{mailbox.domain}"


def _reply(entry: Entry) -> Reply:
    why = f": {entry.reply[:_LONGEST_REASON]}" if entry.reply else ""
    if not entry.bounces:
        return Reply.of(550, "1.1", f"The address is on the suppression list{why}")
    since = f"since it bounced on {counted(entry.bounces, 'day')}"
    return Reply.of(550, "1.1", f"The address is on the suppression list, {since}{why}")
