"""One list in the DNS: what is asked, and what its answers mean (RFC 5782)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...config import DNSBL
from ...dns import LookupFailed, NoSuchDomain
from ...interfaces import Clock, Resolver
from ...mail.printable import printable
from ...system.coroutines import started
from ..chain import Count

_T = TypeVar("_T")

NAME = "dnsbl"
"""The name of the policy of all lists, in the log and the counters."""

_PATIENCE = 5.0  # seconds for the answer of a list
_PATIENCE_FOR_TEXT = 2.0  # seconds for its text, which is left out then
_LONGEST_TEXT = 200  # characters of it in a reply
_LONGEST_SUBJECT = 100  # characters
_LONGEST_NAME = 253  # characters: RFC 1035 §2.3.4
_HOUR = 3600.0  # seconds between two lines of the log about one list
_MOST_ANSWERS = 10  # that are shown


@frozen
class Listing:
    """A hit.

    Attributes:
        settings: of the list.
        subject: the address or domain that is listed, printable.
        answers: of the list, in their order.
        text: what the list says about it; may be empty. Printable.
    """

    settings: DNSBL
    subject: str
    answers: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        return f"{self.subject} is listed by {self.settings.name}: {', '.join(self.answers)}"


class Lookup:
    """A look-up that several may wait for.

    Args:
        found: fires with the listing; never fails.

    Attributes:
        settings: of the list.
        done: whether it has ended.
        listing: the hit; None: there is none, or none yet.
    """

    def __init__(self, settings: DNSBL, found: Deferred[Listing | None]) -> None:
        self.settings = settings
        self.done = False
        self.listing: Listing | None = None
        self._waiting: list[Deferred[Listing | None]] = []
        found.addCallback(self._ended)

    def wait(self) -> Deferred[Listing | None]:
        """Return the listing once it is known; canceling this does no harm to others."""
        if self.done:
            return succeed(self.listing)
        waiting: Deferred[Listing | None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _ended(self, listing: Listing | None) -> None:
        self.done, self.listing = True, listing
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(listing)


class Blocklist:
    """Asks one list.

    Its zone stands in no text that leaves it: it may hold a key.

    Args:
        settings: of the list.
        resolver: the DNS, which keeps answers for their time to live.
        clock: for deadlines, and to repeat no line of the log within an hour.
        count: counts queries that failed (``temperror``) or were refused (``permerror``).

    Attributes:
        settings: see the argument.
    """

    _log = Logger()

    def __init__(
        self,
        settings: DNSBL,
        *,
        resolver: Resolver,
        clock: Clock,
        count: Count = lambda policy, result: None,
    ) -> None:
        self.settings = settings
        self._resolver = resolver
        self._clock = clock
        self._count = count
        self._quiet_until: dict[str, float] = {}  # by the kind of line

    def address(self, address: IPv4Address | IPv6Address) -> Lookup:
        """Look up an address (RFC 5782 §2.1, §2.4)."""
        name, _, _ = address.reverse_pointer.rpartition(".")  # arpa
        return self._begin(name.rpartition(".")[0], str(address))

    def domain(self, domain: str) -> Lookup:
        """Look up a domain in A-labels (RFC 5782 §2.3)."""
        return self._begin(domain, domain)

    def _begin(self, labels: str, subject: str) -> Lookup:
        found = started(self._find(labels, printable(subject)[:_LONGEST_SUBJECT]))
        return Lookup(self.settings, found.addErrback(self._failed))

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the look-up in the list {name} failed", failure, name=self.settings.name)

    async def _find(self, labels: str, subject: str) -> Listing | None:
        query = f"{labels}.{self.settings.zone}"
        if len(query) > _LONGEST_NAME:
            return None
        lookup = self._resolver.family_addresses(query, 4)
        try:
            records = await self._within(lookup, _PATIENCE)
        except NoSuchDomain:
            return None
        except (LookupFailed, TimeoutError) as failure:
            self._unanswered(query, failure)
            return None
        # RFC 5782 §2.3: IPv4 in all lists.
        answers = sorted(IPv4Address(each) for each in records)
        for each in answers:
            if self.settings.refuses(each):
                self._refused(each)
        hits = tuple(str(each) for each in answers if self.settings.is_hit(each))
        if not hits:
            return None
        text = "" if self.settings.action == "mark" else await self._text(query)
        return Listing(self.settings, subject, hits[:_MOST_ANSWERS], text)

    async def _text(self, query: str) -> str:
        """Return what the list says about an entry, for people (RFC 5782 §2.1)."""
        try:
            texts = await self._within(self._resolver.text(query), _PATIENCE_FOR_TEXT)
        except (LookupFailed, NoSuchDomain, TimeoutError):
            return ""
        first = min(texts, default=b"")[: 2 * _LONGEST_TEXT]
        return self._without_zone(printable(first.decode("utf-8", "replace")))[:_LONGEST_TEXT]

    def _within(self, lookup: Deferred[Sequence[_T]], seconds: float) -> Deferred[Sequence[_T]]:
        return lookup if lookup.called else lookup.addTimeout(seconds, self._clock)

    def _unanswered(self, query: str, failure: Exception) -> None:
        self._count(NAME, "temperror")
        if self._is_time("unanswered"):
            reason = "no answer in time" if isinstance(failure, TimeoutError) else str(failure)
            self._log.warn(
                "the list {name} does not answer: {error}",
                name=self.settings.name,
                error=self._without_zone(reason),
            )

    def _refused(self, answer: IPv4Address) -> None:
        self._count(NAME, "permerror")
        if self._is_time("refused"):
            self._log.warn(
                "the list {name} refuses our queries: it answers {answer}; nothing is looked up"
                " there until its operator permits our name servers",
                name=self.settings.name,
                answer=str(answer),
            )

    def _is_time(self, kind: str) -> bool:
        now = self._clock.seconds()
        if now < self._quiet_until.get(kind, now):
            return False
        self._quiet_until[kind] = now + _HOUR
        return True

    def _without_zone(self, text: str) -> str:
        """Return a text with the name of the list in place of its zone, in any case."""
        if self.settings.zone == self.settings.name:
            return text
        return re.sub(re.escape(self.settings.zone), self.settings.name, text, flags=re.IGNORECASE)
