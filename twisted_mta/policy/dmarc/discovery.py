"""The DNS tree walk (RFC 9989 §4.10): the policy of a domain, and where its organization ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from ...dns import LookupFailed, NoSuchDomain
from ...interfaces import Resolver
from .record import Record, Request

_MOST_QUERIES = 8  # RFC 9989 §4.10
_LONGEST_NAME = 253  # characters: RFC 1035 §2.3.4


@frozen
class Published:
    """A record, and the domain at which it was found.

    Attributes:
        domain: the policy domain, where the record applies.
        record: what it says.
        text: as it was published.
    """

    domain: str
    record: Record
    text: bytes = b""


@frozen
class Walk:
    """What a tree walk found.

    Attributes:
        start: the domain at which it began.
        found: the records, that of the longest domain first.
        failed: the domain whose query failed, where the walk had to end; empty: it ended by itself.
            Domains above are unknown.
        exists: whether the first domain is known to exist: None: unknown.
        is_partial: whether it ended at a record of the first domain, so that the policy is known,
            and the organization is not.
    """

    start: str
    found: tuple[Published, ...] = ()
    failed: str = ""
    exists: bool | None = None
    is_partial: bool = False

    @property
    def organizational_domain(self) -> str | None:
        """The organizational domain of `start` (RFC 9989 §4.10.2); None: a query failed."""
        assert not self.is_partial
        for each in self.found:
            if each.record.psd == "n":
                return each.domain
            if each.record.psd == "y" and each.domain != self.start:
                return _child_of(each.domain, self.start)
        if self.failed:
            return None
        # "u" everywhere (or "y" at the start itself): the record with the fewest labels.
        return self.found[-1].domain if self.found else self.start

    def covers(self, target: str) -> bool:
        """Whether it has all answers from a target of another walk upward."""
        if not is_below(self.start, target):
            return False
        # More than seven labels are only looked at where a walk starts.
        if target != self.start and target.count(".") >= _MOST_QUERIES - 1:
            return False
        # It ended at a record with "psd", or where a query failed, and knows nothing above.
        end = self.failed or (self.found[-1].domain if self._is_ended else "")
        return not end or is_below(target, end)

    @property
    def _is_ended(self) -> bool:
        return bool(self.found) and self.found[-1].record.psd != "u"

    @property
    def policy(self) -> Policy | Literal["unknown"] | None:
        """The policy that applies to mail of `start` (RFC 9989 §4.10.1).

        None: there is none; ``unknown``: a query failed.
        """
        by_domain = {each.domain: each for each in self.found}
        own = by_domain.get(self.start)
        if own is not None:
            return Policy(own, "p") if own.record.applies else None
        organization = self.organizational_domain
        if organization is None:
            return "unknown"
        above = by_domain.get(organization)
        if above is None and self.found and self.found[-1].record.psd == "y":
            above = self.found[-1]  # the public suffix domain
        if above is None or not above.record.applies:
            return None
        return Policy(above, "sp")


@frozen
class Policy:
    """The policy that applies to an author domain.

    Attributes:
        published: the record, and the policy domain.
        tag: ``p``: the policy domain is the author domain; ``sp``: it is above it.
    """

    published: Published
    tag: Literal["p", "sp"]

    @property
    def depends_on_existence(self) -> bool:
        """Whether the request differs for an author domain that does not exist."""
        return self.tag == "sp" and self.request(exists=True) != self.request(exists=False)

    def request(self, *, exists: bool) -> Request:
        """Return the request, before the test mode lowers it (RFC 9989 §4.7).

        Args:
            exists: whether the author domain exists.
        """
        record = self.published.record
        if self.tag == "p":
            return record.p
        existing = record.sp or record.p
        return existing if exists else record.np or existing


async def walk(
    domain: str, resolver: Resolver, *, known: Walk | None = None, whole: bool = True
) -> Walk:
    """Walk up the DNS from a domain; at most eight queries, one after the other.

    Args:
        domain: a domain name in A-labels; no address literal.
        resolver: the DNS.
        known: another walk, whose answers are not asked for again where the two meet.
        whole: whether it goes on where the domain itself has a record, which is its policy.
    """
    found: list[Published] = []
    exists: bool | None = None
    answered = False
    for target in targets(domain):
        if known is not None and known.covers(target):
            found += (each for each in known.found if is_below(target, each.domain))
            return Walk(domain, tuple(found), known.failed, exists)
        name = f"_dmarc.{target}"
        if len(name) > _LONGEST_NAME:
            continue
        try:
            texts = await resolver.text(name)
        except NoSuchDomain:
            texts = ()
        except LookupFailed:
            if answered and "." not in target:
                # Few top-level domains have a record, and some name servers refuse to ask for it. A
                # record there can change little: the organization begins below it all the same.
                break
            return Walk(domain, tuple(found), target, exists)
        else:
            if target == domain:
                exists = True  # RFC 8020: a name below it does
        answered = True
        # RFC 9989 §4.10, steps 2 and 6: several records at one name are all discarded.
        records = [(record, text) for text in texts if (record := Record.parse(text)) is not None]
        if len(records) == 1:
            found.append(Published(target, *records[0]))
            if found[-1].record.psd != "u":
                break
            if target == domain and not whole:
                return Walk(domain, tuple(found), exists=exists, is_partial=True)
    return Walk(domain, tuple(found), exists=exists)


def targets(domain: str) -> Iterator[str]:
    """Yield the domains whose records a tree walk queries, in order (RFC 9989 §4.10)."""
    yield domain
    labels = domain.split(".")
    # Steps 3 and 4: one label fewer, or seven labels.
    for start in range(max(1, len(labels) - _MOST_QUERIES + 1), len(labels)):
        yield ".".join(labels[start:])


async def exists(domain: str, resolver: Resolver) -> bool | None:
    """Whether a domain exists (RFC 9989 §3.2.13); None: the query failed.

    It exists if the answer to any query is something other than NXDOMAIN.
    """
    try:
        await resolver.text(domain)
    except NoSuchDomain:
        return False
    except LookupFailed:
        return None
    return True


def is_below(domain: str, other: str) -> bool:
    """Whether a domain is another one, or below it."""
    return domain == other or domain.endswith(f".{other}")


def _child_of(above: str, domain: str) -> str:
    """Return the domain one label below ``above`` on the way to ``domain``, which is below it."""
    labels = domain.split(".")
    return ".".join(labels[-(above.count(".") + 2) :])
