"""A report on the lookup of a next hop: its exchangers, and why some of them are not tried.

`exchangers.TargetLocator` decides; the report is made from the same DNS answers, for an operator.
It repeats the DNS lookups, which costs little where answers are cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred

from ..dns import DNSFailure
from ..interfaces import Locate, NoTarget, Resolver
from ..mail.address import literal_address
from ..mail.next_hop import NextHop, Target
from ..mail.reply import Reply
from .exchangers import MOST_HOSTS, is_host_name


@frozen
class ReportedExchanger:
    """An exchanger of a domain.

    Attributes:
        host: its name.
        preference: of its MX record.
        addresses: that are tried, in no order.
        problem: why it is not tried; empty where it is.
    """

    host: str
    preference: int | None
    addresses: tuple[str, ...] = ()
    problem: str = ""


@frozen
class LookupReport:
    """The result of a lookup.

    Attributes:
        targets: in their order; empty where ``failure`` is given.
        exchangers: of a domain, by preference; empty where there is no MX record.
        failure: why there is no target.
    """

    targets: tuple[Target, ...]
    exchangers: tuple[ReportedExchanger, ...] = ()
    failure: Reply | None = None


class LookupReporter:
    """Reports on the lookups of next hops.

    Args:
        locate: looks up the targets.
        resolver: the DNS.
        is_local: whether a domain, or the name of an exchanger, is one of ours.
    """

    def __init__(
        self, locate: Locate, resolver: Resolver, *, is_local: Callable[[str], bool]
    ) -> None:
        self._locate = locate
        self._resolver = resolver
        self._is_local = is_local

    def report(self, next_hop: NextHop) -> Deferred[LookupReport]:
        """Look up the targets of a next hop; a DNS failure is part of the report."""
        return Deferred.fromCoroutine(self._report(next_hop))

    async def _report(self, next_hop: NextHop) -> LookupReport:
        targets: Sequence[Target] = ()
        failure: Reply | None = None
        try:
            targets = await self._locate(next_hop)
        except NoTarget as error:
            failure = error.reply
        records: Sequence[tuple[int, str]] = ()
        domain = next_hop.domain
        if domain and literal_address(domain) is None and domain != "localhost":
            try:
                records = await self._resolver.mail_exchangers(domain)
            except DNSFailure:
                records = ()  # `failure` says why
        exchangers = [
            await self._exchanger(preference, host, targets, place)
            for place, (preference, host) in enumerate(sorted(records))
        ]
        return LookupReport(tuple(targets), tuple(exchangers), failure)

    async def _exchanger(
        self, preference: int, host: str, targets: Sequence[Target], place: int
    ) -> ReportedExchanger:
        addresses = tuple(each.address for each in targets if each.name == host)
        problem = "" if addresses else await self._problem(host, place)
        return ReportedExchanger(host, preference, addresses, problem)

    async def _problem(self, host: str, place: int) -> str:
        """Return why a host has no target."""
        if not host:
            return "null MX: the domain accepts no mail (RFC 7505)"
        if not is_host_name(host):
            return "not a valid name of an exchanger"
        if self._is_local(host):
            return "it is one of ours: only exchangers with a better preference are tried"
        if place >= MOST_HOSTS:
            return f"at most {MOST_HOSTS} hosts are tried"
        try:
            addresses = await self._resolver.addresses(host)
        except DNSFailure as error:
            return str(error)
        if not addresses:
            return "it has no address"
        return "not tried: its preference is not better than ours, or its addresses are unusable"
