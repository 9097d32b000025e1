"""Which recipients a runner is at work on: a list in memory, so that it ends with the process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...mail.envelope import RecipientNumber
from ...mail.message import Message
from ...mail.queue_id import QueueId

Key = tuple[int, int]  # of a recipient: message, number


class Leases:
    """Recipients that are leased, and how many of each domain."""

    def __init__(self) -> None:
        self._domains: dict[Key, str] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._domains)

    def __contains__(self, key: Key) -> bool:
        return key in self._domains

    def of(self, domain: str) -> int:
        """Return how many there are of a domain."""
        return self._counts.get(domain, 0)

    def add(self, messages: Iterable[Message]) -> Iterator[Key]:
        """Lease all recipients of ``messages``; yield the keys of those that were not before."""
        for message in messages:
            for recipient in message.envelope.recipients:
                key = message.id, recipient.number
                if key not in self._domains:
                    domain = recipient.mailbox.domain
                    self._domains[key] = domain
                    self._counts[domain] = self._counts.get(domain, 0) + 1
                    yield key

    def end(self, id: QueueId, numbers: Iterable[RecipientNumber]) -> None:
        """End the leases of recipients of one message, where there are any."""
        self.end_all((id, number) for number in numbers)

    def end_all(self, keys: Iterable[Key]) -> None:
        """End the leases of ``keys``, where there are any."""
        for key in keys:
            domain = self._domains.pop(key, None)
            if domain is not None:
                count = self._counts[domain] - 1
                if count:
                    self._counts[domain] = count
                else:
                    del self._counts[domain]
