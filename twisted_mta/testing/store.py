"""A store in memory that fails on cue (`queue.store.contract.Store`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from ..mail.envelope import Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.queue_id import QueueId
from ..queue.operator.operations import (
    Action,
    Browse,
    Category,
    CountWaiting,
    FilesHeld,
    FindKnown,
    Group,
    HoldFiles,
    Inspect,
    Inspected,
    Intervene,
    Known,
    ListedMessage,
    Page,
    ReadRetried,
    Removed,
    Restore,
    Resume,
    Retried,
    Summarize,
    Summarized,
    Suspend,
    Suspended,
    Tallied,
    Tally,
    WaitingCounts,
    can,
    reason,
)
from ..queue.operator.selection import QueuedRecipient, Selection
from ..queue.operator.suspended import SuspendedDestination
from ..queue.schedule.priority import effective_due, has_return_time, level
from ..queue.store.contract import (
    FAILURE_LIFE,
    IMPORT_LIFE,
    MOST_FAILURES,
    Accept,
    Census,
    Forget,
    Lease,
    Leased,
    LostBody,
    Operation,
    Overdue,
    Recovery,
    Result,
    SetAside,
    Settle,
    StoreError,
    Survey,
    Want,
    apply_batch,
)
from ..queue.store.leases import Leases
from ..queue.store.spool import FileBody, Spool
from ..queue.store.webhook_events import (
    ChangeEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    TakeEvents,
    TakenEvents,
    WaitingEvent,
)

Key = tuple[QueueId, RecipientNumber]


@frozen
class _Queued:
    recipient: Recipient
    next_attempt: float
    held: float | None = None
    removing: bool = False

    @property
    def waits(self) -> bool:
        return self.held is None and not self.removing


@frozen
class _Failure:
    error: Exception
    durable: bool


class MemoryStore:
    """A store whose disk is a few dictionaries.

    Args:
        spool: the body files of large messages, if there are any.
        disk: another store, whose content this one takes over, as after a restart.

    Attributes:
        messages: the messages in the queue.
        failures: the replies of unreported failures, by message and recipient.
        batches: the batches of all calls, also of those that failed.
        opened: the number of calls of `open`.
    """

    def __init__(
        self,
        *,
        spool: Spool | None = None,
        disk: MemoryStore | None = None,
    ) -> None:
        self.messages: dict[QueueId, Message] = {} if disk is None else disk.messages
        self.failures: dict[Key, str] = {} if disk is None else disk.failures
        self.batches: list[Sequence[Operation]] = []
        self.opened = 0
        self._spool = spool
        self._recipients: dict[Key, _Queued] = {} if disk is None else disk._recipients
        self._failed_at: dict[Key, float] = {} if disk is None else disk._failed_at
        self._imported: dict[Key, float] = {} if disk is None else disk._imported
        self._suspended: dict[str, SuspendedDestination] = {} if disk is None else disk._suspended
        self._events: dict[int, tuple[NewEvent, int, float]] = {} if disk is None else disk._events
        if spool is not None and disk is not None:
            self._read_bodies_anew(spool)
        self._leases = Leases()
        self._open = False
        self._failures: deque[_Failure] = deque()
        self._not_to_open: deque[Exception] = deque()

    # For the test.

    def fail_next(self, *errors: Exception, durable: bool = False) -> None:
        """Make the next batches fail, one with each of ``errors``.

        Args:
            errors: the exceptions of `apply`.
            durable: Whether the batch is written nevertheless, and only its result is lost.
        """
        self._failures.extend(_Failure(error, durable) for error in errors)

    def fail_to_open(self, *errors: Exception) -> None:
        """Make the next attempts to open the store fail, one with each of ``errors``."""
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
        """Open the store; earlier leases stay."""
        self.opened += 1
        if self._not_to_open:
            raise self._not_to_open.popleft()
        self._open = True
        removed: list[Key] = []
        before = list(self.messages.values())
        if self.opened == 1:
            removed = [key for key, queued in self._recipients.items() if queued.removing]
            self._remove(removed)
        ids = tuple(dict.fromkeys(id for id, _ in removed))
        for message in before:
            if message.id not in self.messages:
                self._remove_file(message)
        return Recovery((), (), self.census(), ids, self.read_suspended().destinations)

    def close(self) -> None:
        """Close the store."""
        self._open = False
        if self._spool is not None:
            self._spool.close_files()

    def census(self) -> Census:
        """Count messages and recipients."""
        return Census(
            messages=len(self.messages),
            recipients=len(self._recipients),
            deferred=sum(1 for each in self._recipients.values() if each.recipient.attempts),
            leased=len(self._leases),
            held=sum(1 for each in self._recipients.values() if each.held is not None),
            failures=len(self.failures),
        )

    def apply(self, batch: Sequence[Operation]) -> list[Result]:
        """Apply all of ``batch``, or nothing of it."""
        self.batches.append(tuple(batch))
        if not self._open:
            raise StoreError("the store is closed")
        failure = self._failures.popleft() if self._failures else None
        if failure is not None and not failure.durable:
            raise failure.error
        before = dict(self.messages)
        results = apply_batch(batch, self)
        if failure is not None:
            for id in [id for id in self.messages if id not in before]:
                recipients = self.messages[id].envelope.recipients
                self._leases.end((id, each.number) for each in recipients)
            raise failure.error
        gone = [message for id, message in before.items() if id not in self.messages]
        forgotten = [id for each in batch if isinstance(each, Forget) for id in each.ids]
        settled = {each.message.id: None for each in batch if isinstance(each, Settle)}
        for message in gone:
            self._remove_file(message, reuse=message.id in settled)
        for id in forgotten:
            if self._spool is not None:
                self._spool.remove(self._spool.file_of(id), id)
        return results

    # queue.store.contract.StoreTransaction

    def accept(self, accepts: Sequence[Accept]) -> None:
        """Insert messages."""
        for each in accepts:
            self._insert((each.message,), lease=each.lease)
            self._insert(each.notices, lease=False)
            for outcome in each.unreported:
                self._record(each.message.id, outcome, each.message.received_at)

    def settle(self, settles: Sequence[Settle]) -> Sequence[Removed | None]:
        """Record outcomes."""
        return [self._settle(each) for each in settles]

    def forget(self, forgets: Sequence[Forget]) -> None:
        """Remove messages."""
        for each in forgets:
            self._remove([key for key in self._recipients if key[0] in each.ids])
            self._drop_failures([key for key in self.failures if key[0] in each.ids])

    def _record(self, id: QueueId, outcome: Outcome, at: float) -> None:
        key = id, outcome.number
        self.failures.setdefault(key, str(outcome.reply))
        self._failed_at.setdefault(key, at)
        oldest = sorted(self.failures, key=self._failed_at.__getitem__)
        self._drop_failures(oldest[: max(0, len(oldest) - MOST_FAILURES)])
        self._expire_failures(at)

    def _expire_failures(self, now: float) -> None:
        self._drop_failures([key for key, at in self._failed_at.items() if at < now - FAILURE_LIFE])

    def _drop_failures(self, keys: Iterable[Key]) -> None:
        for key in keys:
            del self.failures[key], self._failed_at[key]

    def _insert(self, messages: Iterable[Message], *, lease: bool) -> None:
        for message in messages:
            if message.id in self.messages:
                continue
            self.messages[message.id] = message
            for recipient in message.envelope.recipients:
                key = message.id, recipient.number
                self._recipients[key] = _Queued(
                    recipient,
                    message.released_at,
                    message.received_at if message.assessment.hold else None,
                )
            if lease:
                self._leases.add((message,))

    def _settle(self, settle: Settle) -> Removed | None:
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
                self._recipients[key] = evolve(
                    self._recipients[key], recipient=tried, next_attempt=deferral.next_attempt
                )
        self._leases.end((id, each.outcome.number) for each in settle.deferred)
        self._leases.end((id, number) for number in settle.untried)
        for outcome in settle.unreported:
            self._record(id, outcome, settle.at)
        for number in settle.warned:
            queued = self._recipients.get((id, number))
            if queued is not None:
                warned = evolve(queued.recipient, warned=True)
                self._recipients[id, number] = evolve(queued, recipient=warned)
        self._insert(settle.notices, lease=settle.lease)
        self._remove([(id, number) for number in settle.done])
        struck = tuple(
            number
            for number in (*settle.untried, *(each.outcome.number for each in settle.deferred))
            if (id, number) in self._recipients and self._recipients[id, number].removing
        )
        self._remove([(id, number) for number in struck])
        return Removed(struck) if struck else None

    # Operators' operations.

    def _queued(self, key: Key) -> QueuedRecipient:
        queued = self._recipients[key]
        return QueuedRecipient(
            queued.recipient,
            queued.next_attempt if queued.waits else None,
            queued.held,
            queued.removing,
            key in self._leases,
        )

    def _slice(
        self, selection: Selection, after: int, limit: int, action: Action | None = None
    ) -> Page:
        listed: list[ListedMessage] = []
        looked_at = 0
        following: QueueId | None = None
        for id in sorted(id for id in self.messages if id > after):
            if looked_at >= limit:
                break
            following = id
            reverse_path = self.messages[id].envelope.reverse_path
            entries = [self._queued(key) for key in sorted(self._recipients) if key[0] == id]
            looked_at += len(entries)
            picked = tuple(
                entry
                for entry in entries
                if selection.picks_message(id, reverse_path)
                and selection.picks_recipient(entry)
                and (action is None or can(action, entry))
            )
            if picked:
                size = 0 if action else self.messages[id].body.size
                listed.append(ListedMessage(id, reverse_path, picked, size))
        return Page(tuple(listed), looked_at, following if looked_at >= limit else None)

    def intervene(self, intervention: Intervene) -> Page:
        """Change recipients."""
        page = self._slice(
            intervention.selection, intervention.after, intervention.limit, intervention.action
        )
        for message in () if intervention.dry_run else page.messages:
            for entry in message.recipients:
                key = message.id, entry.recipient.number
                queued = self._recipients[key]
                if intervention.action == "hold":
                    self._recipients[key] = evolve(queued, held=intervention.now)
                elif intervention.action != "remove":
                    self._recipients[key] = evolve(queued, held=None, next_attempt=intervention.now)
                elif entry.leased:
                    self._recipients[key] = evolve(queued, held=None, removing=True)
                else:
                    self._remove((key,))
        return page

    def browse(self, browse: Browse) -> Page:
        """List recipients."""
        return self._slice(browse.selection, browse.after, browse.limit)

    def inspect(self, inspect: Inspect) -> Inspected | None:
        """Read one message."""
        id = inspect.id
        message = self.messages.get(id)
        if message is None:
            return None
        recipients = tuple(self._queued(key) for key in sorted(self._recipients) if key[0] == id)
        return Inspected(self._part(id, [each.recipient for each in recipients]), recipients)

    def summarize(self, summarize: Summarize) -> Summarized:
        """Count recipients in groups."""
        page = self._slice(summarize.selection, summarize.after, summarize.reach)
        groups: dict[str, Group] = {}
        for listed in page.messages:
            own: dict[str, Group] = {}
            for entry in listed.recipients:
                recipient = entry.recipient
                reply = recipient.last_reply
                name = {
                    "domain": recipient.mailbox.domain,
                    "sender": str(listed.reverse_path or "<>"),
                    "reason": reason(
                        held=entry.held is not None,
                        attempts=recipient.attempts,
                        code=None if reply is None else reply.code,
                        status=None if reply is None else reply.status,
                    ),
                }[summarize.by]
                before = own.get(name, Group(0, 1, 0, 0, listed.id))
                own[name] = Group(
                    before.recipients + 1,
                    1,
                    before.deferred + (recipient.attempts > 0),
                    before.held + (entry.held is not None),
                    listed.id,
                )
            for name, group in own.items():
                groups[name] = groups[name] + group if name in groups else group
        return Summarized(groups, page.looked_at, page.next)

    def find_known(self, find: FindKnown) -> Known:
        """Find recipients of a message that are in the queue, or were imported."""
        message = self.messages.get(find.id)
        keys = [*self._recipients, *(() if find.again else self._imported)]
        numbers = (number for id, number in keys if id == find.id)
        return Known(None if message is None else message.for_recipients(()), frozenset(numbers))

    def restore(self, restore: Restore) -> None:
        """Insert recipients that another queue has exported."""
        message = restore.message
        if restore.sweep:
            old = [key for key, at in self._imported.items() if at < restore.at - IMPORT_LIFE]
            for key in old:
                del self._imported[key]
        known = self.find_known(FindKnown(message.id, restore.again)).numbers
        for recipient, next_attempt, held in zip(
            message.envelope.recipients, restore.next_attempts, restore.held, strict=True
        ):
            if recipient.number in known:
                continue
            key = message.id, recipient.number
            due = restore.at if next_attempt is None else next_attempt
            self._recipients[key] = _Queued(recipient, due, held)
            self._imported[key] = restore.at
            before = self.messages.get(message.id, message.for_recipients(()))
            others = [
                each for each in before.envelope.recipients if each.number != recipient.number
            ]
            self.messages[message.id] = before.for_recipients([*others, recipient])

    def suspend(self, suspend: Suspend) -> Suspended:
        """Suspend a destination."""
        self._suspended[suspend.destination.name] = suspend.destination
        return self.read_suspended()

    def resume(self, resume: Resume) -> Suspended:
        """Resume destinations."""
        names = list(self._suspended) if resume.name is None else [resume.name]
        removed = (self._suspended.pop(name, None) for name in sorted(names))
        return Suspended(tuple(each for each in removed if each is not None))

    def read_suspended(self) -> Suspended:
        """Return the suspended destinations."""
        return Suspended(tuple(each for _, each in sorted(self._suspended.items())))

    def read_retried(self, read: ReadRetried) -> Retried:
        """Return nothing: no other process has this queue."""
        return Retried(())

    def hold_files(self, hold: HoldFiles) -> FilesHeld:
        """Hold nothing: there are no files."""
        return FilesHeld(held=False)

    def tally(self, tally: Tally) -> Tallied:
        """Count recipients."""
        counts: dict[Category, int] = {}
        domains: dict[str, tuple[dict[Category, int], QueueId]] = {}
        oldest: QueueId | None = None
        keys = [key for key in sorted(self._recipients) if key[0] > tally.after]
        for key in keys[: tally.limit]:
            queued, entry = self._recipients[key], self._queued(key)
            reply = queued.recipient.last_reply
            each = Category(
                age=sum(1 for edge in tally.ages if edge <= key[0]),
                deferred=queued.recipient.attempts > 0,
                waiting=entry.next_attempt is not None,
                held=entry.held is not None,
                code=None if reply is None else reply.code,
                status=None if reply is None else reply.status,
                ours=queued.recipient.last_remote is None,
            )
            counts[each] = counts.get(each, 0) + 1
            of_domain, _ = domains.setdefault(queued.recipient.mailbox.domain, ({}, key[0]))
            of_domain[each] = of_domain.get(each, 0) + 1
            due = entry.next_attempt is not None and entry.next_attempt <= tally.now
            if oldest is None and each.waiting and not each.held and (each.deferred or due):
                oldest = key[0]
        looked_at = min(len(keys), tally.limit)
        more = looked_at == tally.limit
        following = keys[looked_at - 1][0] if more else None
        return Tallied(counts, looked_at, following, oldest, domains)

    def set_aside(self, message: SetAside) -> LostBody | None:
        """Do nothing: no body gets lost."""
        return None

    def count_waiting(self, count: CountWaiting) -> WaitingCounts:
        """Count the recipients of domains."""
        by_domain = dict.fromkeys(count.domains, 0)
        for queued in self._recipients.values():
            domain = queued.recipient.mailbox.domain
            if queued.waits and by_domain.get(domain, count.most) < count.most:
                by_domain[domain] += 1
        return WaitingCounts(by_domain)

    # Events for webhooks: by id, with failed attempts and the time of the next one.

    def record_events(self, events: tuple[NewEvent, ...]) -> None:
        """Insert events."""
        for each in events:
            self._events[max(self._events, default=0) + 1] = each, 0, each.at

    def take_events(self, take: TakeEvents) -> TakenEvents:
        """Read due events."""
        own = sorted(
            (next_attempt, id)
            for id, (event, _, next_attempt) in self._events.items()
            if event.webhook == take.webhook
        )
        taken = [id for next_attempt, id in own if next_attempt <= take.now][: take.limit]
        events = []
        for id in taken:
            event, attempts, _ = self._events[id]
            events.append(WaitingEvent(id, event.name, event.body, event.at, attempts))
        later = [time for time, _ in own if time > take.now]
        more = len(taken) == take.limit
        return TakenEvents(tuple(events), None if more else next(iter(later), None))

    def change_events(self, change: ChangeEvents) -> None:
        """Remove and postpone events."""
        for id in change.ended:
            self._events.pop(id, None)
        for each in change.postponed:
            if each.id in self._events:
                self._events[each.id] = (
                    self._events[each.id][0],
                    each.attempts,
                    each.next_attempt,
                )

    def drop_events(self, drop: DropEvents) -> EventCount:
        """Remove the oldest events."""
        dropped = [
            id
            for id, (event, _, _) in sorted(self._events.items())
            if event.webhook == drop.webhook and (drop.before is None or event.at < drop.before)
        ][: drop.limit]
        octets = sum(len(self._events.pop(id)[0].body) for id in dropped)
        return EventCount(len(dropped), octets)

    def count_events(self) -> EventCounts:
        """Count all events."""
        counts: dict[str, EventCount] = {}
        for event, _, _ in self._events.values():
            known = counts.get(event.webhook, EventCount())
            counts[event.webhook] = known + EventCount(1, len(event.body))
        return EventCounts(counts)

    # The runner's operations.

    def _remove(self, keys: Iterable[Key]) -> None:
        ids: dict[QueueId, None] = {}
        for key in keys:
            self._leases.end((key,))
            self._recipients.pop(key, None)
            ids[key[0]] = None
        for id in ids:
            message = self.messages.get(id)
            if message is not None and not any(
                (id, recipient.number) in self._recipients
                for recipient in message.envelope.recipients
            ):
                del self.messages[id]

    def survey(self, survey: Survey) -> Leased:
        """Return the domains that have mail."""
        self._expire_failures(survey.now)
        rest: dict[str, float | None] = {}
        for key, queued in self._recipients.items():
            if not queued.waits:
                continue
            until = self.messages[key[0]].envelope.parameters.get("HOLDUNTIL")
            held = isinstance(until, int) and until >= queued.next_attempt
            if queued.next_attempt > survey.now and not held:
                due = max(survey.now, queued.next_attempt - survey.set_back)
                due = survey.now if due > survey.latest else due
                self._recipients[key] = queued = evolve(queued, next_attempt=due)
            domain = queued.recipient.mailbox.domain
            known = rest.get(domain)
            if known is None or queued.next_attempt < known:
                rest[domain] = queued.next_attempt
        return Leased((), rest)

    def lease(self, lease: Lease) -> Leased:
        """Lease due recipients."""
        allowed = {want.domain: want for want in lease.wants}
        allowed = {**{domain: Want(domain, 0) for domain in lease.also}, **allowed}
        found: dict[QueueId, list[Recipient]] = {}
        for want in lease.wants:
            ids: dict[QueueId, None] = {}
            due = [(time, key) for time, key in self._free(want) if time <= lease.now]
            for _, key in sorted(
                due, key=lambda each: effective_due(each[0], self._level(each[1]))
            ):
                if len(ids) == want.limit and key[0] not in ids:
                    break
                ids[key[0]] = None
            found.update((id, []) for id in ids)
        for key, queued in self._recipients.items():
            wanted = allowed.get(queued.recipient.mailbox.domain)
            if (
                key[0] in found
                and wanted is not None
                and queued.waits
                and queued.next_attempt <= lease.now
                and key not in self._leases
                and self._within(wanted, key)
            ):
                found[key[0]].append(queued.recipient)
        messages = tuple(self._part(id, recipients) for id, recipients in sorted(found.items()))
        self._leases.add(messages)
        rest = {
            want.domain: next((time for time, _ in self._free(want)), None) for want in lease.wants
        }
        return Leased(messages, rest)

    def overdue(self, overdue: Overdue) -> Leased:
        """Lease recipients for a delay notice."""
        found: dict[QueueId, list[Recipient]] = {}
        for key, queued in self._recipients.items():
            if (
                overdue.after < key[0] < overdue.before
                and key not in self._leases
                and not queued.recipient.warned
                and queued.waits
                and self.messages[key[0]].envelope.reverse_path is not None
            ):
                found.setdefault(key[0], []).append(queued.recipient)
        messages = tuple(self._part(id, recipients) for id, recipients in sorted(found.items()))
        self._leases.add(messages)
        return Leased(messages, {})

    def _free(self, want: Want) -> list[tuple[float, Key]]:
        """Return the wanted recipients without a lease, the earliest due first."""
        return sorted(
            (queued.next_attempt, key)
            for key, queued in self._recipients.items()
            if queued.recipient.mailbox.domain == want.domain
            and queued.waits
            and key not in self._leases
            and self._within(want, key)
        )

    def _level(self, key: Key) -> int:
        return level(self.messages[key[0]])

    def _within(self, want: Want, key: Key) -> bool:
        return want.before is None or key[0] < want.before or has_return_time(self._level(key))

    def _part(self, id: QueueId, recipients: list[Recipient]) -> Message:
        recipients.sort(key=lambda recipient: recipient.number)
        return self.messages[id].for_recipients(recipients)

    def _remove_file(self, message: Message, *, reuse: bool = False) -> None:
        if self._spool is not None and isinstance(message.body, FileBody):
            id = message.body.id or message.id
            (self._spool.release if reuse else self._spool.remove)(id, message.id)

    def _read_bodies_anew(self, spool: Spool) -> None:
        """Find the bodies of another process's messages, as rows would name them."""
        for id, message in self.messages.items():
            body = message.body
            if isinstance(body, FileBody):
                self.messages[id] = evolve(message, body=spool.stored(id, body.size, body.id))
