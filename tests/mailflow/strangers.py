"""Strangers send to a whole MTA: what they hear, and what is found out about their mail."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.config import PolicySettings
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing import MemoryMTA

STRANGER = "192.0.2.7"
MESSAGE = b"From: ann@sender.example\r\nSubject: Hi\r\n\r\nHello.\r\n"
OFF = PolicySettings(spf="off", dkim="off", dmarc="off", arc="off")
TAKEN = ["250 2.1.5", "250 2.0.0"]
"""The codes that a stranger hears whose message for one recipient is taken."""


def field(mail: bytes) -> str:
    """Return the Authentication-Results field of a delivered message, unfolded; empty: none."""
    header = mail.partition(b"\n\n")[0].decode().replace("\n\t", " ").replace("\n ", " ")
    return "\n".join(line for line in header.splitlines() if line.startswith("Authentication-R"))


class StrangersTestCase(TidyTestCase):
    """Strangers send to an MTA, by default for ``us.example``.

    Attributes:
        zone: the records of the DNS.
        settings: of each MTA, besides those that a test gives.
    """

    zone = ""
    settings: ClassVar[dict[str, Any]] = {"local_domains": ("us.example",)}

    def started(self, *, zone: str = "", **settings: Any) -> MemoryMTA:
        """Return a started MTA; ``zone`` has records besides those of the class."""
        mta = MemoryMTA(zone=self.zone, **{**self.settings, **settings})
        mta.zone(zone)
        self.resolver = mta.resolver
        return self.enterContext(mta)

    def write(self, name: str, content: str) -> str:
        """Write a file, or another content of it; return its path."""
        if not hasattr(self, "directory"):
            self.directory = os.path.abspath(self.mktemp())
            os.makedirs(self.directory)
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def replies(
        self,
        mta: MemoryMTA,
        *recipients: str,
        sender: str = "ann@sender.example",
        helo: str = "mx.sender.example",
        source: str = STRANGER,
        content: bytes = MESSAGE,
    ) -> list[str]:
        """Return the replies to each RCPT, and to the content if one was accepted."""
        client = mta.connect(source=source, greet=False)
        client.say(f"EHLO {helo}", f"MAIL FROM:<{sender}>")
        replies = []
        for each in recipients or ("bob@us.example",):
            replies += client.say(f"RCPT TO:<{each}>")
        if any(each.startswith("250") for each in replies):
            client.say("DATA")
            replies += client.send(content + b".\r\n")[-1:]
        return replies

    def codes(self, mta: MemoryMTA, *recipients: str, **how: Any) -> list[str]:
        return [each[:9] for each in self.replies(mta, *recipients, **how)]

    def explained(
        self, mta: MemoryMTA, to: str = "bob@us.example", *, sender: str | None = None
    ) -> Any:
        """Return what ``explain`` says of a stranger's mail."""
        query = AddressQuery(address=to, client=STRANGER, sender=sender)
        explaining: Deferred[Any] = mta.mta.agent.explainer.address(query)
        mta.reactor.settle()
        return self.successResultOf(explaining)

    def counted(self, mta: MemoryMTA, policy: str, result: str) -> float:
        """Return how often a policy has come to a result."""
        metrics = mta.status().metrics
        return metrics.total(table.POLICY_VERDICTS, policy=policy, result=result)
