"""Records in text, one a line, as a resolver; and checks of claims against them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.spf.evaluation import Checker, Claim
from twisted_mta.policy.spf.result import Result
from twisted_mta.testing.resolver import FakeResolver

NOW = 1_790_000_000.5


def zone(text: str) -> FakeResolver:
    """Return a resolver of the records in ``text``: ``name TYPE value`` in each line.

    The name of a PTR record is an IP address. The value of a TXT record is the rest of the line;
    ``name FAILS TYPE`` lets queries for that type fail.
    """
    exchangers: dict[str, list[tuple[int, str]]] = {}
    addresses: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    pointers: dict[str, list[str]] = {}
    failing = []
    for line in filter(str.strip, text.splitlines()):
        name, type, value = line.split(None, 2)
        if type == "MX":
            preference, host = value.split()
            exchangers.setdefault(name, []).append((int(preference), host))
        elif type == "A":
            addresses.setdefault(name, []).append(value)
        elif type == "TXT":
            texts.setdefault(name, []).append(value)
        elif type == "PTR":
            pointers.setdefault(name, []).append(value)
        elif type == "FAILS":
            failing.append((name, value))
        else:
            raise ValueError(f"found {line!r}, expected MX, A, TXT, PTR or FAILS")
    resolver = FakeResolver(exchangers, addresses, texts, pointers)
    for name, type in failing:
        resolver.fail(name, types=(type,))
    return resolver


class SPFTestCase(SynchronousTestCase):
    """Checks claims against `records`."""

    records = ""

    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = zone(self.records)

    def checker(self) -> Checker:
        return Checker(
            resolver=self.resolver,
            clock=self.clock,
            wall_time=lambda: NOW,
            hostname="mx.receiver.example",
        )

    def begin(self, address: str, sender: str, *, helo: str = "host.example") -> Deferred[Result]:
        local_part, _, domain = sender.rpartition("@")
        claim = Claim(address=address, domain=domain, local_part=local_part, helo=helo)
        return Deferred.fromCoroutine(self.checker().check(claim))

    def check(self, address: str, sender: str, **options: Any) -> Result:
        checking = self.begin(address, sender, **options)
        while not checking.called and self.clock.getDelayedCalls():
            self.clock.advance(0)
        return self.successResultOf(checking)

    def publish(self, name: str, *texts: bytes | str) -> None:
        self.resolver.texts[name] = texts

    def host(self, name: str, *addresses: str) -> None:
        self.resolver._addresses[name] = addresses

    def word(self, record: str, address: str = "192.0.2.10", sender: str = "") -> str:
        """Return the result of a record of example.com."""
        self.publish("example.com", record)
        return self.check(address, sender or "ann@example.com").result
