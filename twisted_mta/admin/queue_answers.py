"""Answers about one shard of the queue, in plain types, and the merging of those about several.

An answer that takes long is made slice by slice (`queue.operator`), each after the one before is
committed; mail has its turn between them.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict, evolve
from twisted.internet.defer import FirstError, gatherResults
from twisted.python.failure import Failure

from ..agent.agent import Agent
from ..agent.explain.facts import attempt_facts, destination_facts
from ..agent.shard import Shard
from ..mail.address import Mailbox
from ..mail.classification import classify
from ..mail.envelope import Recipient
from ..mail.message import Message
from ..mail.queue_id import QueueId
from ..message.header import fields
from ..queue.ids import time_of
from ..queue.operator.operations import (
    ACTIONS,
    BYS,
    FIRST,
    Browse,
    Group,
    Inspect,
    Inspected,
    Intervene,
    ListedMessage,
    Page,
    ReadSuspended,
    Summarize,
    Summarized,
    Suspended,
)
from ..queue.operator.selection import QueuedRecipient, Selection
from ..queue.operator.suspended import SuspendedDestination, read_destination
from ..queue.operator.transfer import exported
from ..queue.runner import Waiting
from ..queue.schedule.backoff import expiry
from ..queue.store.spool import FileBody

COUNTS = ("messages", "recipients", "busy", "elsewhere", "looked_at")
"""The numbers in the answer about an action (`steer_messages`)."""

_MOST_GROUPS = 10_000  # of one shard
_SLICES = 50  # slices that one list looks at: each has its time limits (`queue.operator`)
_PIECE = 256 * 1024  # octets of bodies that come along with exported messages
_TOGETHER = 64  # messages that are read in one batch of the store
_ENOUGH_RECIPIENTS = 1000  # that were read for one answer
_HEADER = 256 * 1024  # octets of a header section that are shown


async def list_messages(
    agent: Agent, shard: Shard, *, filters: Mapping[str, Any], after: int, limit: int
) -> dict[str, Any]:
    """List messages, the oldest first.

    Args:
        agent: of this process.
        shard: of the queue.
        filters: see `Selection.parse`.
        after: the id behind which the list begins.
        limit: messages at most.

    Returns:
        ``messages``, and the id behind which the ``next`` list begins: None at the end. A list may
        be shorter than the limit although more messages follow.
    """
    selection = Selection.parse(filters, now=agent.wall_time())
    messages: list[ListedMessage] = []
    following: int | None = after
    for _ in range(_SLICES):
        assert following is not None
        page: Page = await shard.commit.perform(Browse(selection, following))
        messages += page.messages
        following = page.next
        if following is None or len(messages) >= limit:
            break
    if len(messages) > limit:
        messages = messages[:limit]
        following = messages[-1].id
    waiting = shard.runner.waiting({each.id for each in messages})
    why = shard.runner.suspended_destination
    return {"messages": [_listed(each, waiting, why) for each in messages], "next": following}


def waiting_recipients(agent: Agent, ids: Sequence[str]) -> list[Sequence[Any]]:
    """Return the recipients of messages that wait in the memory of this process.

    Args:
        agent: of this process.
        ids: of the messages.

    Returns:
        For each the id of its message, its number, and the time that a rate gives, or None.
    """
    wanted = {QueueId.parse(id) for id in ids}
    return [
        (str(id), number, expected_at)
        for shard in agent.shards
        for (id, number), expected_at in shard.runner.waiting(wanted).items()
    ]


def note_waiting(messages: Sequence[Mapping[str, Any]], waiting: Sequence[Sequence[Any]]) -> None:
    """Note in messages that were listed or shown which recipients wait in other processes.

    Args:
        messages: are changed.
        waiting: those of all processes (`waiting_recipients`).
    """
    expected = {(id, number): expected_at for id, number, expected_at in waiting}
    for message in messages:
        for entry in message["recipients"]:
            key = message["id"], entry["number"]
            if entry["in_delivery"] and key in expected:
                entry.update(in_delivery=False, waiting=True, expected_at=expected[key])


def merged_pages(pages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the lists of several shards as one, up to where each shard has been looked through.

    Ids rise with time in all shards. Behind the smallest ``next`` the messages of one shard are not
    known, so that the list ends there.
    """
    horizon = min((each["next"] for each in pages if each["next"] is not None), default=None)
    messages = [message for each in pages for message in each["messages"]]
    messages.sort(key=lambda message: str(message["id"]))
    if horizon is not None:
        last = str(QueueId(horizon))
        messages = [message for message in messages if message["id"] <= last]
    return {"messages": messages, "next": horizon}


async def show_message(
    agent: Agent, shard: Shard, *, id: str, content: bool
) -> dict[str, Any] | None:
    """Return one message; None where the shard does not have it.

    Args:
        agent: of this process.
        shard: of the queue.
        id: of the message.
        content: whether the header section and the transcripts of sessions are part of the answer.
    """
    inspected = await _inspect(shard, id)
    if inspected is None:
        return None
    waiting = shard.runner.waiting((inspected.message.id,))
    shown = _inspected(inspected, waiting, shard.runner.suspended_destination, content)
    if content:
        try:
            shown.update(await agent.file_executor(_header, inspected.message))
        except OSError:
            shown.update(header=None, header_truncated=False)
    return shown


async def read_content(
    agent: Agent, shard: Shard, *, id: str, offset: int, length: int
) -> dict[str, Any] | None:
    """Return a piece of a message's content, base64: our trace fields, then the body.

    Args:
        agent: of this process.
        shard: of the queue.
        id: of the message.
        offset: octets before the piece.
        length: octets of the piece at most.

    Returns:
        ``content``, and the ``size`` of the whole; None where the shard does not have the message.
    """
    inspected = await _inspect(shard, id)
    if inspected is None:
        return None
    message = inspected.message
    content = await agent.file_executor(_piece, message, offset, length)
    return {
        "content": b64encode(content).decode("ascii"),
        "size": len(message.trace) + message.body.size,
    }


async def summarize_messages(
    agent: Agent, shard: Shard, *, by: str, filters: Mapping[str, Any]
) -> dict[str, Any]:
    """Count recipients in groups.

    Args:
        agent: of this process.
        shard: of the queue.
        by: see `operations.By`.
        filters: ``domain``, ``state`` and ``older`` (`Selection.parse`).

    Returns:
        ``groups``: by name the recipients, messages, deferred and held recipients, and the time of
        the oldest message. Groups beyond 10,000 are added up in ``others``.
    """
    if by not in BYS:
        raise ValueError(f"by: found {by!r}, expected one of {', '.join(BYS)}")
    selection = Selection.parse(filters, now=agent.wall_time())
    groups: dict[str, Group] = {}
    others: Group | None = None
    following: int | None = FIRST
    while following is not None:
        part: Summarized = await shard.commit.perform(Summarize(by, selection, following))
        for name, group in part.groups.items():
            if name in groups:
                groups[name] += group
            elif len(groups) < _MOST_GROUPS:
                groups[name] = group
            else:
                others = group if others is None else others + group
        following = part.next
    return {
        "groups": {name: _counted(group) for name, group in groups.items()},
        "others": None if others is None else _counted(others),
    }


def _counted(group: Group) -> list[float]:
    counts = group.recipients, group.messages, group.deferred, group.held
    return [*counts, time_of(group.oldest)]


def merged_groups(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the groups of several shards as one answer."""
    groups: dict[str, list[float]] = {}
    others: list[float] | None = None
    for answer in answers:
        for name, counts in answer["groups"].items():
            groups[name] = added_groups(groups.get(name), counts)
        if answer["others"] is not None:
            others = added_groups(others, answer["others"])
    return {"groups": groups, "others": others}


def added_groups(before: list[float] | None, counts: list[float]) -> list[float]:
    """Return the counts of two groups as those of one."""
    if before is None:
        return counts
    sums = (one + other for one, other in zip(before[:-1], counts[:-1], strict=True))
    return [*sums, min(before[-1], counts[-1])]


async def suspended_destinations(
    agent: Agent, shard: Shard, *, destination: str | None
) -> dict[str, Any]:
    """Return the destinations that the operator has suspended, and how much mail waits for them.

    Args:
        agent: of this process.
        shard: of the queue.
        destination: suspended or not (`read_destination`); None: all that are suspended.

    Returns:
        The ``destinations`` that are suspended, and the numbers of recipients that are ``waiting``,
        by the name of the destination.
    """
    now = agent.wall_time()
    read: Suspended = await shard.commit.perform(ReadSuspended())
    found = [each for each in read.destinations if not each.ends_by(now)]
    names = [each.name for each in found]
    if destination is not None:
        names = [read_destination(destination)]
        found = [each for each in found if each.name in names]
    waiting = await agent.operator_suspensions.waiting(shard, names)
    return {"destinations": list(map(destination_facts, found)), "waiting": dict(waiting)}


def merged_suspended(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the suspended destinations of several shards as one answer."""
    destinations: dict[str, Any] = {}
    waiting: dict[str, int] = {}
    for answer in answers:
        for each in answer["destinations"]:
            destinations.setdefault(each["destination"], each)
        for name, count in answer["waiting"].items():
            waiting[name] = waiting.get(name, 0) + count
    ordered = [each for _, each in sorted(destinations.items())]
    return {"destinations": ordered, "waiting": waiting}


async def suspend_destination(
    agent: Agent, shard: Shard, *, destination: str, seconds: float | None, reason: str, by: str
) -> dict[str, Any]:
    """Write to the store that a destination is suspended (`OperatorSuspensions.suspend`)."""
    suspend = agent.operator_suspensions.suspend
    return destination_facts(
        await suspend(shard, destination, seconds=seconds, reason=reason, by=by)
    )


async def resume_destinations(
    agent: Agent, shard: Shard, *, destination: str | None, by: str
) -> list[str]:
    """Write to the store that a destination, or all, are resumed; return which were suspended."""
    resumed = await agent.operator_suspensions.resume(shard, destination, by=by)
    return [each.name for each in resumed]


async def export_message(agent: Agent, shard: Shard, *, id: str) -> dict[str, Any] | None:
    """Return one message as another queue imports it (`queue.operator.transfer`).

    Args:
        agent: of this process.
        shard: of the queue.
        id: of the message.

    Returns:
        The ``record``; and its ``content``, base64: None where it is long, to be read by itself
        (`read_content`). None where the shard does not have the message.
    """
    inspected = await _inspect(shard, id)
    if inspected is None:
        return None
    exports: list[dict[str, Any]] = await agent.file_executor(_exported, [inspected])
    return exports[0]


async def export_messages(
    agent: Agent, shard: Shard, *, filters: Mapping[str, Any], after: int, limit: int
) -> dict[str, Any]:
    """Return messages as another queue imports them, the oldest first.

    Args:
        agent: of this process.
        shard: of the queue.
        filters: see `Selection.parse`; of each message, the record has the selected recipients.
        after: the id behind which they begin.
        limit: messages at most.

    Returns:
        ``records``: of each what `export_message` returns, with contents of 256 KiB together. And
        the id behind which the ``next`` ones begin: None at the end. They may be fewer than the
        limit although more messages follow.
    """
    selection = Selection.parse(filters, now=agent.wall_time())
    page: Page = await shard.commit.perform(Browse(selection, after, limit))
    following: int | None = page.next
    selected: list[Inspected] = []
    octets = read = done = 0
    while done < len(page.messages) and read < _ENOUGH_RECIPIENTS and octets < _PIECE:
        together = []
        for each in page.messages[done : done + _TOGETHER]:
            octets += each.size if each.size <= _PIECE else 0
            if octets > _PIECE and done:
                break
            together.append(each)
            done += 1
        found = await gatherResults(
            [shard.commit.perform(Inspect(each.id)) for each in together], consumeErrors=True
        ).addErrback(_first_error)
        for each, inspected in zip(together, found, strict=True):
            if inspected is not None:  # else it has been delivered meanwhile
                read += len(inspected.recipients)
                selected.append(_narrowed(inspected, each))
    if done < len(page.messages):
        following = page.messages[done - 1].id
    records = await agent.file_executor(_exported, selected)
    return {"records": records, "next": following}


def _narrowed(inspected: Inspected, listed: ListedMessage) -> Inspected:
    """Return a message with the recipients that were listed."""
    wanted = {each.recipient.number for each in listed.recipients}
    recipients = (each for each in inspected.recipients if each.recipient.number in wanted)
    return evolve(inspected, recipients=tuple(recipients))


def _exported(messages: Sequence[Inspected]) -> list[dict[str, Any]]:
    """Return messages for export, with their contents."""
    return [
        {
            "record": exported(each),
            "content": None
            if each.quarantine or each.message.body.size > _PIECE
            else b64encode(b"".join(each.message.body.chunks())).decode("ascii"),
            "quarantine": each.quarantine,
            "in_delivery": [entry.recipient.number for entry in each.recipients if entry.leased],
            "content_begins": len(each.message.trace),
        }
        for each in messages
    ]


def _first_error(failure: Failure) -> Failure:
    """Return the failure of one of several operations, in the place of theirs together."""
    failure.trap(FirstError)
    error: Any = failure.value
    first: Failure = error.subFailure
    return first


def first_found(answers: Sequence[Any]) -> Any:
    """Return the answer of the shard that has a message; None where no shard has it."""
    return next((answer for answer in answers if answer is not None), None)


async def steer_messages(
    agent: Agent,
    shard: Shard,
    *,
    action: str,
    filters: Mapping[str, Any],
    after: int,
    limit: int | None,
    dry_run: bool,
    by: str,
) -> dict[str, Any]:
    """Apply an operator's action to messages, the oldest first.

    Args:
        agent: of this process.
        shard: of the queue.
        action: see `operations.Action`.
        filters: see `Selection.parse`.
        after: the id behind which it begins.
        limit: recipients to look at, more or less; None: all.
        dry_run: whether nothing is changed.
        by: the operator.

    Returns:
        The number of ``messages`` and ``recipients`` that it was applied to, of recipients among
        them that are ``busy`` (in delivery) and that are ``elsewhere`` (another machine has leased
        them), and of recipients ``looked_at``; and the id behind which the ``next`` call begins:
        None at the end.
    """
    if action not in ACTIONS:
        raise ValueError(f"found action {action!r}, expected one of {', '.join(ACTIONS)}")
    selection = Selection.parse(filters, now=agent.wall_time())
    done = dict.fromkeys(COUNTS, 0)
    following: int | None = after
    while following is not None and (limit is None or done["looked_at"] < limit):
        intervention = Intervene(action, selection, agent.wall_time(), following, dry_run=dry_run)
        page = await shard.runner.intervene(intervention, by=by)
        done["messages"] += len(page.ids)
        done["recipients"] += len(page.more)
        for each in page.messages:
            done["recipients"] += len(each.recipients)
            elsewhere = sum(entry.elsewhere for entry in each.recipients)
            done["elsewhere"] += elsewhere
            done["busy"] += sum(entry.leased for entry in each.recipients) - elsewhere
        done["looked_at"] += page.looked_at
        following = page.next
    return {**done, "next": following}


def added_counts(answers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sums of the numbers in answers about an action."""
    return {name: sum(answer[name] for answer in answers) for name in COUNTS}


async def _inspect(shard: Shard, id: str) -> Inspected | None:
    inspected: Inspected | None = await shard.commit.perform(Inspect(QueueId.parse(id)))
    return inspected


_Why = Callable[[Mailbox], SuspendedDestination | None]
"""Returns the destination of a mailbox that the operator has suspended; None: it is not."""


def _listed(listed: ListedMessage, waiting: Waiting, why: _Why) -> dict[str, Any]:
    return {
        "id": str(listed.id),
        "received_at": time_of(listed.id),
        "reverse_path": None if listed.reverse_path is None else str(listed.reverse_path),
        "size": listed.size,
        "recipients": [_entry(listed.id, each, waiting, why) for each in listed.recipients],
    }


def _entry(id: QueueId, entry: QueuedRecipient, waiting: Waiting, why: _Why) -> dict[str, Any]:
    recipient = entry.recipient
    suspended = why(recipient.mailbox)
    key = id, recipient.number
    waits = entry.leased and key in waiting
    return {
        "number": recipient.number,
        "address": str(recipient.mailbox),
        "original": None if recipient.original is None else str(recipient.original),
        "state": entry.state,
        "in_delivery": entry.leased and not waits and not entry.elsewhere,
        "waiting": waits,
        "elsewhere": entry.elsewhere,
        "expected_at": waiting.get(key) if waits else None,
        "removing": entry.removing,
        "held_at": entry.held,
        "attempts": recipient.attempts,
        "next_attempt": entry.next_attempt,
        "suspended": None if suspended is None else destination_facts(suspended),
        "last": _last(recipient),
    }


def _last(recipient: Recipient) -> dict[str, Any] | None:
    if recipient.last_reply is None:
        return None
    return {
        "reply": str(recipient.last_reply),
        "remote": recipient.last_remote,
        "classification": classify(recipient.last_reply),
    }


def _inspected(inspected: Inspected, waiting: Waiting, why: _Why, content: bool) -> dict[str, Any]:
    message = inspected.message
    envelope = message.envelope
    return {
        "id": str(message.id),
        "received_at": message.received_at,
        "expires_at": expiry(message, None),
        "reverse_path": None if envelope.reverse_path is None else str(envelope.reverse_path),
        "parameters": dict(envelope.parameters),
        "size": message.body.size,
        "quarantine": inspected.quarantine,
        "machine": inspected.machine,
        "assessment": asdict(message.assessment),
        "recipients": [
            {
                **_entry(message.id, entry, waiting, why),
                "parameters": dict(entry.recipient.parameters),
                "leased_to": inspected.leased_to.get(entry.recipient.number, ""),
            }
            for entry in inspected.recipients
        ],
        "attempts": list(_attempts(inspected, content)),
    }


def _attempts(inspected: Inspected, content: bool) -> Iterator[dict[str, Any]]:
    """Yield the recorded attempts, in their order for each recipient."""
    for number, attempts in inspected.attempts.items():
        for each in attempts:
            yield {
                "recipient": number,
                **attempt_facts(each),
                "tls": None if each.tls is None else each.tls.outgoing_description,
                "transcript": each.transcript if content else None,
            }


def _header(message: Message) -> dict[str, Any]:
    """Return the header fields of a message: our trace fields, then those of its body."""
    octets = bytearray(message.trace)
    for chunk in message.body.chunks():
        octets += chunk
        if b"\r\n\r\n" in octets or len(octets) >= _HEADER:
            break
    shown = bytes(octets[:_HEADER])
    return {
        "header": [[name, value] for name, value in fields(shown)],
        "header_truncated": len(octets) > _HEADER and b"\r\n\r\n" not in shown,
    }


def _piece(message: Message, offset: int, length: int) -> bytes:
    trace, body = message.trace, message.body
    piece = trace[offset : offset + length]
    start, left = max(0, offset - len(trace)), length - len(piece)
    if isinstance(body, FileBody):
        with body.open() as file:
            file.seek(start, os.SEEK_CUR)
            # Behind the body there may be the end of another one.
            return piece + file.read(max(0, min(left, body.size - start)))
    return piece + b"".join(body.chunks())[start : start + left]
