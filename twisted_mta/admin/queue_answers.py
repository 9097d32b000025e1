"""Answers what an operator asks of one part of the queue, in plain types that go through a pipe.

What is long is done slice by slice (`operator`), each after the one before is committed; what comes
in and goes out meanwhile has its turn between them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from ..interfaces import Executor, WallTime
from ..mail.envelope import Recipient
from ..mail.message import Message
from ..mail.queue_id import QueueId
from ..mail.tls_facts import TLSFacts
from ..message.header import fields
from ..queue.commit import GroupCommit
from ..queue.ids import time_of
from ..queue.operator.operations import (
    ACTIONS,
    Browse,
    Inspect,
    Inspected,
    Intervene,
    ListedMessage,
    Page,
)
from ..queue.operator.selection import QueuedRecipient, Selection
from ..queue.runner import Runner
from ..queue.schedule.backoff import expiry
from ..queue.store.spool import FileBody

_SLICES = 50  # that one question for a list looks at: each has its time limits (`operator`)
_HEADER = 256 * 1024  # octets of a header section that are shown


class QueueAnswers:
    """The questions, by name.

    Args:
        commit: the store.
        runner: what works on it.
        executor: where files are read.
        wall_time: what time it is.
    """

    def __init__(
        self, *, commit: GroupCommit, runner: Runner, executor: Executor, wall_time: WallTime
    ) -> None:
        self._commit = commit
        self._runner = runner
        self._executor = executor
        self._wall_time = wall_time
        self._questions: dict[str, Callable[..., Coroutine[Deferred[Any], Any, Any]]] = {
            "list": self._list,
            "show": self._show,
            "body": self._body,
            "steer": self._steer,
        }

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Answer a question.

        Fails with ValueError where it cannot be read, and with `StoreError`.

        Args:
            name: ``list``, ``show``, ``body`` or ``steer``; see there.
            arguments: of the methods below.
        """
        return Deferred.fromCoroutine(self._questions[name](**arguments))

    async def _list(self, filters: Mapping[str, Any], after: int, limit: int) -> Any:
        """List messages, the oldest first.

        Args:
            filters: see `Selection.parse`.
            after: behind this id.
            limit: messages at most.

        Returns:
            ``messages``, and where ``next`` begins: None behind the last. There may be less than
            the limit, and more to come.
        """
        selection = Selection.parse(filters, now=self._wall_time())
        messages: list[ListedMessage] = []
        following: int | None = after
        for _ in range(_SLICES):
            assert following is not None
            page: Page = await self._commit.perform(Browse(selection, following))
            messages += page.messages
            following = page.next
            if following is None or len(messages) >= limit:
                break
        if len(messages) > limit:
            messages = messages[:limit]
            following = messages[-1].id
        return {"messages": [_listed(each) for each in messages], "next": following}

    async def _show(self, id: str, content: bool) -> Any:
        """Return one message, or None.

        Args:
            id: of the message.
            content: whether the header section is shown, and what was said to next hops.
        """
        inspected: Inspected | None = await self._commit.perform(Inspect(QueueId.parse(id)))
        if inspected is None:
            return None
        shown = _inspected(inspected, content)
        if content:
            try:
                shown.update(await self._executor(_header, inspected.message))
            except OSError:
                shown.update(header=None, header_truncated=False)
        return shown

    async def _body(self, id: str, offset: int, length: int) -> Any:
        """Return a piece of a message as it is kept, base64: our fields, then what came.

        Args:
            id: of the message.
            offset: octets before the piece.
            length: octets that it has, if there are so many.

        Returns:
            ``content``, and the ``size`` of the whole; None: there is no such message.
        """
        inspected: Inspected | None = await self._commit.perform(Inspect(QueueId.parse(id)))
        if inspected is None:
            return None
        message = inspected.message
        content = await self._executor(_piece, message, offset, length)
        return {
            "content": b64encode(content).decode("ascii"),
            "size": len(message.trace) + message.body.size,
        }

    async def _steer(
        self,
        action: str,
        filters: Mapping[str, Any],
        after: int,
        limit: int | None,
        dry_run: bool,
        by: str,
    ) -> Any:
        """Do something to messages, the oldest first.

        Args:
            action: see `operations.Action`.
            filters: see `Selection.parse`.
            after: behind this id.
            limit: recipients to look at, more or less; None: all.
            dry_run: whether to say only what would be done.
            by: who asks.

        Returns:
            How many ``messages`` and ``recipients`` it was done to, how many of them are ``busy``,
            in delivery; how many recipients were ``looked_at``, and where ``next`` begins.
        """
        now = self._wall_time()
        if action not in ACTIONS:
            raise ValueError(f"no action {action!r}; there are {', '.join(ACTIONS)}")
        selection = Selection.parse(filters, now=now)
        done = {"messages": 0, "recipients": 0, "busy": 0, "looked_at": 0}
        following: int | None = after
        while following is not None and (limit is None or done["looked_at"] < limit):
            intervention = Intervene(
                action, selection, self._wall_time(), following, dry_run=dry_run
            )
            page = await self._runner.intervene(intervention, by=by)
            done["messages"] += len(page.ids)
            done["recipients"] += len(page.more)
            for each in page.messages:
                done["recipients"] += len(each.recipients)
                done["busy"] += sum(entry.leased for entry in each.recipients)
            done["looked_at"] += page.looked_at
            following = page.next
        return {**done, "next": following}


def _listed(listed: ListedMessage) -> dict[str, Any]:
    return {
        "id": str(listed.id),
        "received_at": time_of(listed.id),
        "reverse_path": None if listed.reverse_path is None else str(listed.reverse_path),
        "size": listed.size,
        "recipients": [_entry(each) for each in listed.recipients],
    }


def _entry(entry: QueuedRecipient) -> dict[str, Any]:
    recipient = entry.recipient
    return {
        "number": recipient.number,
        "address": str(recipient.mailbox),
        "original": None if recipient.original is None else str(recipient.original),
        "state": entry.state,
        "in_delivery": entry.leased,
        "removing": entry.removing,
        "held_at": entry.held,
        "attempts": recipient.attempts,
        "next_attempt": entry.next_attempt,
        "last": _last(recipient),
    }


def _last(recipient: Recipient) -> dict[str, Any] | None:
    if recipient.last_reply is None:
        return None
    return {"reply": str(recipient.last_reply), "remote": recipient.last_remote}


def _inspected(inspected: Inspected, content: bool) -> dict[str, Any]:
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
        "recipients": [
            {**_entry(entry), "parameters": dict(entry.recipient.parameters)}
            for entry in inspected.recipients
        ],
        "attempts": list(_attempts(inspected, content)),
    }


def _attempts(inspected: Inspected, content: bool) -> Iterator[dict[str, Any]]:
    """Yield the attempts that are remembered, in their order for each recipient."""
    for number, attempts in inspected.attempts.items():
        for each in attempts:
            yield {
                "recipient": number,
                "attempt": each.attempt,
                "ended_at": each.ended_at,
                "next_hop": each.next_hop,
                "reply": str(each.reply),
                "remote": each.remote,
                "tls": _tls(each.tls),
                "uncertain": each.uncertain,
                "unreachable": each.unreachable,
                "transcript": each.transcript if content else None,
            }


def _tls(facts: TLSFacts | None) -> str | None:
    return None if facts is None else facts.description


def _header(message: Message) -> dict[str, Any]:
    """Return the fields of a message: ours, then those that came."""
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
        with body.files.open(body.path) as file:
            file.seek(start)
            return piece + file.read(left)
    return piece + b"".join(body.chunks())[start : start + left]
