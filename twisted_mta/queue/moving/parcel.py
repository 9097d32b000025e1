"""A message with all that the queue knows of it, as it goes from one store to another.

The columns are those of both stores, so that nothing is read into values and written out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import Factory, define

from ..store.rows import MESSAGE

MESSAGE_COLUMNS = (*MESSAGE.split(", "), "quarantine")
"""The columns of a message in both stores."""

RECIPIENT_COLUMNS = (
    *("message", "number", "level", "attempts", "next_attempt", "held", "warned", "last_code"),
    *("last_status", "last_text", "last_remote", "local_part", "domain", "parameters"),
    *("original_local", "original_domain", "reverse_local", "reverse_domain", "aliases"),
)
"""The columns of a recipient in both stores."""

ATTEMPT_COLUMNS = (
    *("message", "number", "attempt", "ended_at", "next_hop", "code", "status", "text", "remote"),
    *("tls", "uncertain", "unreachable", "conversation"),
)
"""The columns of a past attempt in both stores."""

FAILURE_COLUMNS = (
    *("message", "number", "recipient", "reverse_path", "failed_at", "reply", "remote"),
)
"""The columns of a record of a failure in both stores."""

IMPORTED_COLUMNS = ("message", "number", "imported_at")
"""The columns of a remembered import in both stores."""

EVENT_COLUMNS = ("webhook", "name", "body", "at", "attempts", "next_attempt")
"""The columns in both stores of an event that waits for a webhook."""

RECORDS = {
    "failure": FAILURE_COLUMNS,
    "imported": IMPORTED_COLUMNS,
    "webhook_event": EVENT_COLUMNS,
}
"""The columns of tables whose rows are no part of a message; the first two name a row."""

MESSAGES = 500
"""Messages that go in one transaction."""

OCTETS = 8 << 20
"""Octets of bodies at which a transaction is full."""

RECIPIENTS = 5_000
"""Recipients at which a transaction is full, after a whole message."""

_ATTEMPTS = RECIPIENT_COLUMNS.index("attempts")
_HELD = RECIPIENT_COLUMNS.index("held")
_BODY = MESSAGE_COLUMNS.index("body")
_SIZE = MESSAGE_COLUMNS.index("size")
_QUARANTINE = MESSAGE_COLUMNS.index("quarantine")


@define
class Parcel:
    """One message.

    Attributes:
        message: values of `MESSAGE_COLUMNS`; the body is None where it is large.
        chunks: returns a large body piece by piece.
        recipients: values of `RECIPIENT_COLUMNS`; a peer's text is a str.
        attempts: values of `ATTEMPT_COLUMNS`, the conversation as a key of ``conversations``.
        conversations: transcripts.
    """

    message: Sequence[Any]
    chunks: Callable[[], Iterator[bytes]]
    recipients: list[Sequence[Any]] = Factory(list)
    attempts: list[Sequence[Any]] = Factory(list)
    conversations: dict[int, str] = Factory(dict)

    @property
    def id(self) -> int:
        """The queue id."""
        id: int = self.message[0]
        return id

    @property
    def is_large(self) -> bool:
        """Whether the body is not in the row, and is there."""
        return self.message[_BODY] is None and self.message[_QUARANTINE] is None

    @property
    def size(self) -> int:
        """Octets of the body."""
        size: int = self.message[_SIZE]
        return size

    @property
    def counts(self) -> tuple[int, int, int, int, int, int]:
        """What it adds to `store.counts.Counts`."""
        deferred = sum(1 for each in self.recipients if each[_ATTEMPTS])
        held = sum(1 for each in self.recipients if each[_HELD] is not None)
        quarantined = int(self.message[_QUARANTINE] is not None)
        return 1, len(self.recipients), deferred, quarantined, 0, held


class Unmovable(Exception):
    """A message cannot move; the text says why. It stays where it is."""


class MoveRefused(Exception):
    """Nothing was moved; the text says why, and what to do."""


class InUse(MoveRefused):
    """A program works on the queue that has to rest for the move."""
