"""Planted bugs: a simulation that does not find each of them proves nothing about the program.

Each is a context manager that breaks one rule of the program while it is entered. The program
itself has none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from twisted_mta.delivery.maildir import DELIVERED, MaildirDelivery
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.queue.commit import GroupCommit
from twisted_mta.queue.pending import Pending
from twisted_mta.queue.refused_messages import RefusedMessages
from twisted_mta.queue.settlement import Settlement
from twisted_mta.queue.store.contract import Accept, Lease, Leased, Operation, Settle
from twisted_mta.queue.store.sqlite_transaction import SQLiteTransaction
from twisted_mta.smtp.client.outgoing import DotStuffer
from twisted_mta.testing.files import UnsyncedFile, UnsyncedFiles


def _perform(
    instead: Callable[[Callable[[Operation], Deferred[Any]], Operation], Deferred[Any]],
) -> AbstractContextManager[Any]:
    """Change `GroupCommit.perform`."""
    original = GroupCommit.perform

    def perform(self: GroupCommit, operation: Operation) -> Deferred[Any]:
        return instead(lambda each: original(self, each), operation)

    return patch.object(GroupCommit, "perform", perform)


def acknowledged_early() -> AbstractContextManager[Any]:
    """250 goes out before the commit."""

    def perform(original: Callable[[Operation], Deferred[Any]], operation: Operation) -> Any:
        done = original(operation)
        if not isinstance(operation, Accept):
            return done
        done.addErrback(lambda failure: None)
        return succeed(None)

    return _perform(perform)


def settled_early() -> AbstractContextManager[Any]:
    """A local delivery is settled before its file is written."""
    original = MaildirDelivery.deliver

    def deliver(self: MaildirDelivery, next_hop: NextHop, message: Message) -> Any:
        original(self, next_hop, message)
        return succeed(
            [Outcome(recipient.number, DELIVERED) for recipient in message.envelope.recipients]
        )

    return patch.object(MaildirDelivery, "deliver", deliver)


def rename_swallowed() -> AbstractContextManager[Any]:
    """The error of a file that cannot be moved from tmp/ to new/ is not noticed."""
    original = UnsyncedFiles.rename

    def rename(self: UnsyncedFiles, old: str, new: str) -> OSError | None:
        try:
            return original(self, old, new)
        except OSError:
            return None

    return patch.object(UnsyncedFiles, "rename", rename)


def directory_not_synced() -> AbstractContextManager[Any]:
    """The directory new/ of a Maildir is not synced after the move."""
    original = UnsyncedFiles.sync_directory

    def sync_directory(self: UnsyncedFiles, path: str) -> None:
        if not path.endswith("/new"):
            original(self, path)

    return patch.object(UnsyncedFiles, "sync_directory", sync_directory)


def body_not_synced() -> AbstractContextManager[Any]:
    """A body file is not synced before the commit that names it."""
    original = UnsyncedFile.sync

    def sync(self: UnsyncedFile) -> None:
        if "/body/" not in self._path:
            original(self)

    return patch.object(UnsyncedFile, "sync", sync)


def lease_lost() -> AbstractContextManager[Any]:
    """A lease is written into the queue, and outlives the process that had it."""
    original = SQLiteTransaction.lease

    def lease(self: SQLiteTransaction, lease: Lease) -> Leased:
        leased = original(self, lease)
        for message in leased.messages:
            for recipient in message.envelope.recipients:
                self._database.execute(
                    "UPDATE recipient SET next_attempt = NULL WHERE message = ? AND number = ?",
                    (message.id, recipient.number),
                )
        return leased

    return patch.object(SQLiteTransaction, "lease", lease)


def notice_later() -> AbstractContextManager[Any]:
    """A notice is stored in a transaction after the one that settles what it is about."""

    def perform(original: Callable[[Operation], Deferred[Any]], operation: Operation) -> Any:
        if not isinstance(operation, Settle) or not operation.notices:
            return original(operation)
        done = original(evolve(operation, notices=()))

        def store(result: Any) -> Any:
            stored = [original(Accept(each, operation.lease)) for each in operation.notices]
            for each in stored:
                each.addErrback(lambda failure: None)
            return result

        return done.addCallback(store)

    return _perform(perform)


def refusal_retried() -> AbstractContextManager[Any]:
    """A 5yz defers."""
    original = Settlement.settle

    def settle(self: Settlement, delivery: Any, outcomes: Sequence[Outcome], **rest: Any) -> Any:
        softened = [evolve(each, temporary=each.remote is not None) for each in outcomes]
        return original(self, delivery, softened, **rest)

    return patch.object(Settlement, "settle", settle)


def outcome_dropped() -> AbstractContextManager[Any]:
    """An outcome that could not be written at once is not written at all."""
    return patch.object(Pending, "must_be_written", False)


def refused_kept() -> AbstractContextManager[Any]:
    """A message whose commit failed in doubt was refused, and stays in the queue."""
    return patch.object(RefusedMessages, "add_failed", lambda self, batch: None)


def dots_not_doubled() -> AbstractContextManager[Any]:
    """A line of a content that begins with a dot loses it on the way."""
    return patch.object(DotStuffer, "feed", lambda self, chunk: chunk)


BUGS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "acknowledged-early": acknowledged_early,
    "settled-early": settled_early,
    "rename-swallowed": rename_swallowed,
    "directory-not-synced": directory_not_synced,
    "body-not-synced": body_not_synced,
    "lease-lost": lease_lost,
    "notice-later": notice_later,
    "refusal-retried": refusal_retried,
    "outcome-dropped": outcome_dropped,
    "refused-kept": refused_kept,
    "dots-not-doubled": dots_not_doubled,
}
"""The planted bugs, by name."""
