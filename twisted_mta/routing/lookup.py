"""How the targets of a next hop were found: which hosts there are, and why some are passed over.

What is decided is `exchangers.Exchangers.locate`'s to say; here it is only told from what the DNS
says, for an operator who asks. That asks the DNS twice, of which the second time costs nothing
where answers are kept.
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
class Exchanger:
    """A host that a next hop may lead to.

    Attributes:
        host: its name.
        preference: of its MX record; None where no such record names it.
        addresses: that are tried, in no order.
        problem: why it is passed over; empty: it is not.
    """

    host: str
    preference: int | None
    addresses: tuple[str, ...] = ()
    problem: str = ""


@frozen
class Account:
    """What a lookup came to.

    Attributes:
        targets: in their order; empty where ``failure`` says why.
        exchangers: of a domain, by preference; empty where there is no MX record.
        failure: why there is no target.
    """

    targets: tuple[Target, ...]
    exchangers: tuple[Exchanger, ...] = ()
    failure: Reply | None = None


class Accountant:
    """Tells how the targets of next hops are found.

    Args:
        locate: finds them.
        resolver: the DNS.
        is_local: whether a domain, or the name of a mail exchanger, is one of ours.
    """

    def __init__(
        self, locate: Locate, resolver: Resolver, *, is_local: Callable[[str], bool]
    ) -> None:
        self._locate = locate
        self._resolver = resolver
        self._is_local = is_local

    def account(self, next_hop: NextHop) -> Deferred[Account]:
        """Look up the targets of a next hop; never fails for what the DNS says."""
        return Deferred.fromCoroutine(self._account(next_hop))

    async def _account(self, next_hop: NextHop) -> Account:
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
                records = ()  # what the failure says
        exchangers = [
            await self._exchanger(preference, host, targets, place)
            for place, (preference, host) in enumerate(sorted(records))
        ]
        return Account(tuple(targets), tuple(exchangers), failure)

    async def _exchanger(
        self, preference: int, host: str, targets: Sequence[Target], place: int
    ) -> Exchanger:
        addresses = tuple(each.address for each in targets if each.name == host)
        problem = "" if addresses else await self._problem(host, place)
        return Exchanger(host, preference, addresses, problem)

    async def _problem(self, host: str, place: int) -> str:
        """Return why a host has no target."""
        if not host:
            return "it says that no mail is taken there (RFC 7505)"
        if not is_host_name(host):
            return "no mail exchanger can have such a name"
        if self._is_local(host):
            return "it is one of ours: neither it nor what is not better is tried"
        if place >= MOST_HOSTS:
            return f"only {MOST_HOSTS} hosts are tried"
        try:
            found = await self._resolver.addresses(host)
        except DNSFailure as error:
            return str(error)
        if not found:
            return "it has no address"
        return "not tried: it is not better than we are, or its addresses are nobody's"
