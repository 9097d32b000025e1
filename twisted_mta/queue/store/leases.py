"""Leases: the recipients that a runner delivers now. In memory, so that they end with the process.

A lease outlives the connection to the database: a store that is closed after an error and opened
again keeps its leases.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...mail.message import Message

RecipientKey = tuple[int, int]
"""Queue id and recipient number: what names a recipient in the store."""


class Leases:
    """The leased recipients, with their count for each domain.

    A leased recipient that the operator removes is marked: it leaves the queue when its lease ends,
    unless it was delivered.
    """

    def __init__(self) -> None:
        self._domains: dict[RecipientKey, str] = {}
        self._counts: dict[str, int] = {}
        self._removed: dict[RecipientKey, None] = {}

    def __len__(self) -> int:
        return len(self._domains)

    def __contains__(self, key: RecipientKey) -> bool:
        return key in self._domains

    def of_message(self, id: int) -> bool:
        """Whether a recipient of a message is leased; in the time of a walk over all leases."""
        return any(key[0] == id for key in tuple(self._domains))

    def of(self, domain: str) -> int:
        """Return how many recipients of a domain are leased."""
        return self._counts.get(domain, 0)

    def add(self, messages: Iterable[Message]) -> list[RecipientKey]:
        """Lease all recipients of ``messages``; return those that were not leased before."""
        added: list[RecipientKey] = []
        for message in messages:
            for recipient in message.envelope.recipients:
                key = message.id, recipient.number
                if key not in self._domains:
                    domain = recipient.mailbox.domain
                    self._domains[key] = domain
                    self._counts[domain] = self._counts.get(domain, 0) + 1
                    added.append(key)
        return added

    def end(self, keys: Iterable[RecipientKey]) -> None:
        """End the leases of ``keys``, where there are any."""
        for key in keys:
            domain = self._domains.pop(key, None)
            if domain is not None:
                count = self._counts[domain] - 1
                if count:
                    self._counts[domain] = count
                else:
                    del self._counts[domain]
            if self._removed:
                self._removed.pop(key, None)

    def mark_removed(self, keys: Iterable[RecipientKey]) -> None:
        """Mark leased recipients that the operator removed."""
        self._removed.update(dict.fromkeys(keys))

    def removed_of(self, keys: Iterable[RecipientKey]) -> list[RecipientKey]:
        """Return those of ``keys`` that are marked."""
        return [key for key in keys if key in self._removed] if self._removed else []
