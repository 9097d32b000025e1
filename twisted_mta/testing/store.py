"""A queue's store in memory, which keeps the contract and fails on cue (`queue.store.Store`)."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from ..envelope import Message, QueueId, Recipient, RecipientNumber
from ..interfaces import Files
from ..queue.leases import Leases
from ..queue.spool import Spool
from ..queue.store import (
    Accept,
    Census,
    Forget,
    Lease,
    Leased,
    Operation,
    Recovery,
    Settle,
    StoreError,
    Survey,
    Want,
)

Key = tuple[QueueId, RecipientNumber]


@frozen
class _Queued:
    recipient: Recipient
    next_attempt: float


@frozen
class _Failure:
    error: Exception
    durable: bool


class MemoryStore:
    """A store whose disk is a few dictionaries.

    Args:
        spool: where the bodies of large messages are, if there are any.
        files: the disk that they are on.
        disk: another store, whose content this one takes over, as after a restart.

    Attributes:
        messages: what is in the queue.
        failures: (message, recipient, reply) of the records of failures.
        batches: what was asked, whether it was done or not.
        opened: how often it was opened.
    """

    def __init__(
        self,
        *,
        spool: Spool | None = None,
        files: Files | None = None,
        disk: MemoryStore | None = None,
    ) -> None:
        self.messages: dict[QueueId, Message] = {} if disk is None else disk.messages
        self.failures: dict[Key, str] = {} if disk is None else disk.failures
        self.batches: list[Sequence[Operation]] = []
        self.opened = 0
        self._spool = spool
        self._files = files
        self._recipients: dict[Key, _Queued] = {} if disk is None else disk._recipients
        self._leases = Leases()
        self._open = False
        self._failures: deque[_Failure] = deque()
        self._not_to_open: deque[Exception] = deque()

    # For the test.

    def fail_next(self, *errors: Exception, durable: bool = False) -> None:
        """Let the next batches fail, one with each of ``errors``.

        Args:
            errors: what `apply` raises.
            durable: whether the batch has been written all the same, and only the answer is lost.
        """
        self._failures.extend(_Failure(error, durable) for error in errors)

    def fail_to_open(self, *errors: Exception) -> None:
        """Let the next attempts to open it fail, one with each of ``errors``."""
        self._not_to_open.extend(errors)

    def next_attempts(self, id: QueueId) -> dict[RecipientNumber, float]:
        """Return when each recipient of a message is due (wall time)."""
        return {
            number: queued.next_attempt
            for (message, number), queued in self._recipients.items()
            if message == id
        }

    # queue.store.Store

    def open(self) -> Recovery:
        """Open it; leases that were granted before are kept."""
        self.opened += 1
        if self._not_to_open:
            raise self._not_to_open.popleft()
        self._open = True
        return Recovery((), (), self.census())

    def close(self) -> None:
        """Close it."""
        self._open = False

    def census(self) -> Census:
        """Count what there is."""
        return Census(
            messages=len(self.messages),
            recipients=len(self._recipients),
            deferred=sum(1 for each in self._recipients.values() if each.recipient.attempts),
            leased=len(self._leases),
            failures=len(self.failures),
        )

    def apply(self, batch: Sequence[Operation]) -> list[Leased | None]:
        """Do all of ``batch``, or nothing."""
        self.batches.append(tuple(batch))
        if not self._open:
            raise StoreError("the store is closed")
        failure = self._failures.popleft() if self._failures else None
        if failure is not None and not failure.durable:
            raise failure.error
        before = dict(self.messages)
        results = self._do(batch)
        if failure is not None:
            for id in [id for id in self.messages if id not in before]:
                recipients = self.messages[id].envelope.recipients
                self._leases.end(id, [each.number for each in recipients])
            raise failure.error
        gone = [message for id, message in before.items() if id not in self.messages]
        forgotten = [id for each in batch if isinstance(each, Forget) for id in each.ids]
        for id in (*(message.id for message in gone), *forgotten):
            self._unlink(id)
        return results

    # How operations are done.

    def _do(self, batch: Sequence[Operation]) -> list[Leased | None]:
        for each in batch:
            if isinstance(each, Accept):
                self._insert((each.message,), lease=each.lease)
        for each in batch:
            if isinstance(each, Settle):
                self._settle(each)
        for each in batch:
            if isinstance(each, Forget):
                self._remove([key for key in self._recipients if key[0] in each.ids])
        return [
            self._lease(each)
            if isinstance(each, Lease)
            else self._survey(each)
            if isinstance(each, Survey)
            else None
            for each in batch
        ]

    def _insert(self, messages: Iterable[Message], *, lease: bool) -> None:
        for message in messages:
            if message.id in self.messages:
                continue
            self.messages[message.id] = message
            for recipient in message.envelope.recipients:
                key = message.id, recipient.number
                self._recipients[key] = _Queued(recipient, message.received_at)
            if lease:
                list(self._leases.add((message,)))

    def _settle(self, settle: Settle) -> None:
        id = settle.message.id
        before = {each.number: each for each in settle.message.envelope.recipients}
        for deferral in settle.deferred:
            key = id, deferral.outcome.number
            recipient = before[deferral.outcome.number]
            if key in self._recipients and (
                self._recipients[key].recipient.attempts == recipient.attempts
            ):
                tried = evolve(
                    recipient,
                    attempts=recipient.attempts + 1,
                    last_reply=deferral.outcome.reply,
                    last_remote=deferral.outcome.remote,
                )
                self._recipients[key] = _Queued(tried, deferral.next_attempt)
        self._leases.end(id, [each.outcome.number for each in settle.deferred])
        self._leases.end(id, settle.untried)
        for outcome in settle.unreported:
            self.failures.setdefault((id, outcome.number), str(outcome.reply))
        self._insert(settle.notices, lease=settle.lease)
        self._remove([(id, number) for number in settle.done])

    def _remove(self, keys: Iterable[Key]) -> None:
        ids: dict[QueueId, None] = {}
        for key in keys:
            self._leases.end_all((key,))
            self._recipients.pop(key, None)
            ids[key[0]] = None
        for id in ids:
            message = self.messages.get(id)
            if message is not None and not any(
                (id, recipient.number) in self._recipients
                for recipient in message.envelope.recipients
            ):
                del self.messages[id]

    def _survey(self, survey: Survey) -> Leased:
        rest: dict[str, float | None] = {}
        for key, queued in self._recipients.items():
            if queued.next_attempt > survey.latest:
                self._recipients[key] = queued = evolve(queued, next_attempt=survey.now)
            domain = queued.recipient.mailbox.domain
            known = rest.get(domain)
            if known is None or queued.next_attempt < known:
                rest[domain] = queued.next_attempt
        return Leased((), rest)

    def _lease(self, lease: Lease) -> Leased:
        allowed = {want.domain: want for want in lease.wants}
        allowed = {**{domain: Want(domain, 0) for domain in lease.also}, **allowed}
        found: dict[QueueId, list[Recipient]] = {}
        for want in lease.wants:
            ids: dict[QueueId, None] = {}
            for time, key in self._free(want):
                if time > lease.now or (len(ids) == want.limit and key[0] not in ids):
                    break
                ids[key[0]] = None
            found.update((id, []) for id in ids)
        for key, queued in self._recipients.items():
            its = allowed.get(queued.recipient.mailbox.domain)
            if (
                key[0] in found
                and its is not None
                and queued.next_attempt <= lease.now
                and key not in self._leases
                and (its.before is None or key[0] < its.before)
            ):
                found[key[0]].append(queued.recipient)
        messages = tuple(self._part(id, recipients) for id, recipients in sorted(found.items()))
        list(self._leases.add(messages))
        rest = {
            want.domain: next((time for time, _ in self._free(want)), None) for want in lease.wants
        }
        return Leased(messages, rest)

    def _free(self, want: Want) -> list[tuple[float, Key]]:
        """Return what is wanted and not leased, the earliest due first."""
        return sorted(
            (queued.next_attempt, key)
            for key, queued in self._recipients.items()
            if queued.recipient.mailbox.domain == want.domain
            and key not in self._leases
            and (want.before is None or key[0] < want.before)
        )

    def _part(self, id: QueueId, recipients: list[Recipient]) -> Message:
        message = self.messages[id]
        recipients.sort(key=lambda recipient: recipient.number)
        return evolve(message, envelope=evolve(message.envelope, recipients=tuple(recipients)))

    def _unlink(self, id: QueueId) -> None:
        if self._spool is not None and self._files is not None:
            with contextlib.suppress(OSError):
                self._files.unlink(self._spool.path(id))
