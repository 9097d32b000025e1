"""Our MTA, and that of ``there.example``, behind one network and one DNS."""

from __future__ import annotations

import os
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.testing import MemoryMTA
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.testing.resolver import FakeResolver

MX = "mx.there.example"


class ThereTestCase(TidyTestCase):
    """We send to ``there.example``, whose MTA is at ``192.0.2.1``.

    Attributes:
        zone: the records of the DNS, besides those of ``there.example``.
    """

    zone = ""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.reactor = MemoryReactor()
        self.resolver = FakeResolver()
        self.resolver.add_zone(f"there.example. MX 10 {MX}.\n{MX}. A 192.0.2.1")
        self.resolver.add_zone(self.zone)

    def started(self, name: str, **settings: Any) -> MemoryMTA:
        """Return a started MTA; those of one name have one queue."""
        directory = os.path.join(self.directory, name)
        return self.enterContext(
            MemoryMTA(directory, reactor=self.reactor, resolver=self.resolver, **settings)
        )

    def started_there(self, name: str = "there", **settings: Any) -> MemoryMTA:
        """Return the MTA of ``there.example``, which takes mail for everyone."""
        there = {"hostname": MX, "local_domains": ("there.example",), "recipients": "any"}
        return self.started(name, **there, **settings)

    def send(self, mta: MemoryMTA, recipient: str = "bob@there.example") -> None:
        mta.submit(b"Subject: x\r\n\r\nx\r\n", sender="ann@ours.example", recipients=[recipient])
        mta.advance(1)

    def arrived(self, there: MemoryMTA) -> int:
        """Return how many messages bob has."""
        return len(there.inbox_of("bob@there.example"))
