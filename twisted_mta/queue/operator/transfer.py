"""Messages that one queue exports and another one imports, as JSON objects without their bodies.

What the sender has said (parameters of MAIL and RCPT, such as those of DSNs) and what the queue has
found out (attempts, last replies, holds, the assessment) is kept; transcripts of attempts are not.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Container, Mapping
from typing import Any, cast

from ...mail.address import AddressError, Mailbox
from ...mail.assessment import Assessment
from ...mail.body import Body, MemoryBody
from ...mail.envelope import Envelope, Parameters, Recipient, RecipientNumber
from ...mail.message import Message
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ...mail.reply import Reply
from ..schedule.priority import level
from ..store import assessments
from .operations import Inspected, Restore
from .selection import QueuedRecipient

VERSION = 1
"""Of the format."""

_MOST_RECIPIENTS = 1_000_000
_LATEST = 1e11  # wall time, seconds: the year 5138


def exported(inspected: Inspected) -> dict[str, Any]:
    """Return a message without its body as a JSON object; recipients that are removed are left out.

    ``size`` counts the octets of the body; ``trace`` is base64.
    """
    message = inspected.message
    return {
        "version": VERSION,
        "id": str(message.id),
        "received_at": message.received_at,
        "expires_at": message.expires_at,
        "reverse_path": _written(message.envelope.reverse_path),
        "parameters": dict(message.envelope.parameters),
        "assessment": json.loads(assessments.to_column(message.assessment) or "{}"),
        "recipients": [_exported(each) for each in inspected.recipients if not each.removing],
        "trace": b64encode(message.trace).decode("ascii"),
        "size": message.body.size,
    }


def _exported(queued: QueuedRecipient) -> dict[str, Any]:
    recipient = queued.recipient
    reply = recipient.last_reply
    return {
        "number": recipient.number,
        "address": str(recipient.mailbox),
        "parameters": dict(recipient.parameters),
        "original": _written(recipient.original),
        "reverse_path": _written(recipient.reverse_path),
        "aliases": [str(each) for each in recipient.aliases],
        "attempts": recipient.attempts,
        "warned": recipient.warned,
        "next_attempt": queued.next_attempt,
        "held_at": queued.held,
        "last": None
        if reply is None
        else {
            "code": reply.code,
            "status": reply.status,
            "text": reply.text,
            "remote": recipient.last_remote,
        },
    }


def _written(mailbox: Mailbox | None) -> str | None:
    return None if mailbox is None else str(mailbox)


class Imported:
    """A message of another queue, read from the JSON object that it was exported as.

    Args:
        values: the object, without the body.

    Attributes:
        id: the queue id.
        size: octets of the body.

    Raises:
        ValueError: a member is missing or wrong; the text names it, and what was expected.
    """

    def __init__(self, values: Any) -> None:
        fields = _Fields(values, "the message")
        version = fields.take("version", int)
        if version != VERSION:
            raise ValueError(f"version: found {version}, expected {VERSION}")
        try:
            self.id = QueueId.parse(fields.take("id", str))
        except ValueError as error:
            raise ValueError(f"id: {printable(str(error))}") from None
        self.size = fields.count("size")
        self._received_at = fields.time("received_at")
        self._expires_at = fields.time("expires_at")
        self._reverse_path = fields.mailbox("reverse_path")
        self._parameters = fields.parameters("parameters")
        self._trace = fields.octets("trace")
        if self._trace and not self._trace.endswith(b"\r\n"):
            raise ValueError("trace: expected header fields that end in CR LF")
        self._assessment = _assessment(fields.take("assessment", dict))
        recipients = fields.take("recipients", list)
        if not 0 < len(recipients) <= _MOST_RECIPIENTS:
            raise ValueError(f"recipients: found {len(recipients)}, expected one or more")
        self._recipients = [
            _Recipient(each, f"recipient {place}") for place, each in enumerate(recipients, 1)
        ]
        numbers = [each.recipient.number for each in self._recipients]
        if len(set(numbers)) < len(numbers):
            raise ValueError("recipients: a number stands twice, expected each of them once")
        fields.end()
        try:
            level(self.restore(MemoryBody(b""), 0.0).message)
        except (ValueError, TypeError) as error:
            raise ValueError(f"parameters: {error}") from None

    def is_other_than(self, message: Message) -> bool:
        """Whether a message with the same id in the queue is another message."""
        found = message.envelope.reverse_path, message.body.size, message.received_at
        return found != (self._reverse_path, self.size, self._received_at)

    def numbers(self, known: Container[int] = ()) -> list[int]:
        """Return the numbers of the recipients that are not known."""
        numbers = (each.recipient.number for each in self._recipients)
        return [number for number in numbers if number not in known]

    def restore(
        self, body: Body, now: float, *, again: bool = False, sweep: bool = False
    ) -> Restore:
        """Return the operation that puts it into a queue.

        Args:
            body: the content.
            now: wall time.
            again: see `Restore`.
            sweep: see `Restore`.
        """
        message = Message(
            id=self.id,
            envelope=Envelope(
                self._reverse_path,
                tuple(each.recipient for each in self._recipients),
                self._parameters,
            ),
            trace=self._trace,
            body=body,
            received_at=self._received_at,
            expires_at=self._expires_at,
            assessment=self._assessment,
        )
        return Restore(
            message,
            next_attempts=tuple(
                None if each.held is not None else now if each.due is None else each.due
                for each in self._recipients
            ),
            held=tuple(each.held for each in self._recipients),
            at=now,
            again=again,
            sweep=sweep,
        )


class _Recipient:
    """A recipient of an imported message, with the time of its next attempt, or of its hold."""

    def __init__(self, values: Any, name: str) -> None:
        fields = _Fields(values, name)
        last = fields.take("last", dict, type(None))
        reply, remote = (None, None) if last is None else _reply(last, f"{name}: last")
        mailbox = fields.mailbox("address")
        if mailbox is None:
            raise ValueError(f"{name}: address: found null, expected a mailbox")
        aliases = fields.take("aliases", list)
        self.recipient = Recipient(
            number=RecipientNumber(fields.count("number")),
            mailbox=mailbox,
            parameters=fields.parameters("parameters"),
            attempts=fields.count("attempts"),
            last_reply=reply,
            last_remote=remote,
            original=fields.mailbox("original"),
            reverse_path=fields.mailbox("reverse_path"),
            warned=fields.take("warned", bool),
            aliases=tuple(_mailbox(each, f"{name}: aliases") for each in aliases),
        )
        self.due = fields.time("next_attempt", optional=True)
        self.held = fields.time("held_at", optional=True)
        fields.end()


def _reply(values: Any, name: str) -> tuple[Reply, str | None]:
    fields = _Fields(values, name)
    code = fields.take("code", int)
    if not 200 <= code <= 599:
        raise ValueError(f"{name}: code: found {code}, expected a number from 200 to 599")
    reply = Reply.of(code, fields.take("status", str, type(None)), fields.take("text", str))
    remote = fields.take("remote", str, type(None))
    fields.end()
    return reply, remote


def _assessment(values: Any) -> Assessment:
    fields = _Fields(values, "assessment", missing={"verdicts": [], "quarantine": "", "hold": ""})
    for verdict in fields.take("verdicts", list):
        if not (
            isinstance(verdict, list)
            and len(verdict) == 3
            and all(isinstance(each, str) and each.isprintable() for each in verdict)
        ):
            raise ValueError("assessment: verdicts: expected lists of three printable texts")
    for name in ("quarantine", "hold"):
        if not fields.take(name, str).isprintable():
            raise ValueError(f"assessment: {name}: expected a printable text")
    for name in ("signs", "own"):
        fields.missing[name] = False
        fields.take(name, bool)
    fields.end()
    return assessments.from_column(json.dumps(values))


_KINDS = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class _Fields:
    """The members of a JSON object, taken one by one."""

    def __init__(self, values: Any, name: str, missing: Mapping[str, Any] | None = None) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{name}: found {_found(values)}, expected an object")
        self._values = dict(values)
        self._prefix = "" if name == "the message" else f"{name}: "
        self.missing = dict(missing or {})

    def take(self, name: str, *kinds: type) -> Any:
        """Return a member of one of these types."""
        if name not in self._values and name in self.missing:
            return self.missing[name]
        expected = " or ".join(dict.fromkeys(_KINDS[kind] for kind in kinds))
        if name not in self._values:
            raise ValueError(f"{self._prefix}{name}: found nothing, expected {expected}")
        value = self._values.pop(name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{self._prefix}{name}: found {_found(value)}, expected {expected}")
        if isinstance(value, str) and not _is_text(value):
            raise ValueError(f"{self._prefix}{name}: found half a character, expected a text")
        return value

    def count(self, name: str) -> int:
        """Return a number from 0 to 2**53 - 1."""
        value: int = self.take(name, int)
        if not 0 <= value < 1 << 53:
            raise ValueError(f"{self._prefix}{name}: found {value}, expected 0 or more")
        return value

    def time(self, name: str, *, optional: bool = False) -> Any:
        """Return a wall time; None where it is optional and null."""
        value = self.take(name, int, float, *((type(None),) if optional else ()))
        if value is not None and not (math.isfinite(value) and 0 <= value <= _LATEST):
            raise ValueError(
                f"{self._prefix}{name}: found {value}, expected seconds since the epoch"
            )
        return None if value is None else float(value)

    def mailbox(self, name: str) -> Mailbox | None:
        """Return a mailbox; None where it is null."""
        text = self.take(name, str, type(None))
        return None if text is None else _mailbox(text, self._prefix + name)

    def octets(self, name: str) -> bytes:
        """Return octets of a text in base64."""
        try:
            return b64decode(self.take(name, str).encode("ascii"), validate=True)
        except ValueError as error:
            if str(error).startswith(f"{self._prefix}{name}: "):
                raise
            raise ValueError(f"{self._prefix}{name}: expected base64") from None

    def parameters(self, name: str) -> Parameters:
        """Return ESMTP parameters."""
        values = self.take(name, dict)
        for keyword, value in values.items():
            if not (
                keyword.isascii()
                and keyword == keyword.upper()
                and keyword.isprintable()
                and not isinstance(value, bool)
                and isinstance(value, str | int | None)
                and (not isinstance(value, str) or value.isprintable())
            ):
                raise ValueError(
                    f"{self._prefix}{name}: found {_found(keyword)} with {_found(value)}, expected"
                    " keywords in upper case with a printable text, a number or null"
                )
        return cast(Parameters, values)

    def end(self) -> None:
        """Require that no other member is there."""
        for name in self._values:
            if name not in self.missing:
                raise ValueError(f"{self._prefix}found {_found(name)}, which is no member here")


def _is_text(text: str) -> bool:
    """Whether a text can be written: one with half of a surrogate pair cannot."""
    return not any("\ud800" <= each <= "\udfff" for each in text)


def _mailbox(text: Any, name: str) -> Mailbox:
    try:
        if not isinstance(text, str) or not _is_text(text):
            raise AddressError("not a text")
        if text.lower() == "postmaster":  # it needs no domain (RFC 5321 §4.1.1.3)
            return Mailbox(text, "")
        return Mailbox.parse(text)
    except AddressError as error:
        raise ValueError(f"{name}: found {_found(text)}, expected a mailbox: {error}") from None


def _found(value: Any) -> str:
    """Return a value for an error, printable and not too long."""
    text = printable(json.dumps(value) if isinstance(value, (str, int, float)) else _kind(value))
    return text if len(text) <= 60 else text[:59] + "…"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)
