"""Which addresses a next hop has, and in which order to try them (RFC 5321 §5, RFC 7505).

All targets of one host stand together, IPv6 first and the two families by turns (RFC 8305 §4): who
connects need not wait out one family before the other has its chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import chain, groupby, islice, zip_longest

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed

from ..dns import DNSFailure, LookupFailed, NoSuchDomain
from ..interfaces import NoTarget, Random, Resolver
from ..mail.address import AddressError, domain_name, literal_address
from ..mail.next_hop import Host, NextHop, Target
from ..mail.reply import Reply

# RFC 6761 §6.3: never asked of the DNS. IPv4 first, because that is where we listen by default.
_LOCALHOST = ("127.0.0.1", "::1")

# A domain can list hosts without end, and have us connect to each. RFC 5321 §5.1 wants at least two
# addresses tried; Postfix stops at five.
MOST_HOSTS = 16
# Mail exchangers of one domain that are looked at, those of the best preference. An answer of the
# DNS has room for 4,000.
_MOST_EXCHANGERS = 256
_MOST_TARGETS = 32


def _no_target(code: int, status: str, text: str) -> NoTarget:
    return NoTarget(Reply.of(code, status, text))


@frozen
class _Found:
    """What a lookup of some hosts brought.

    Attributes:
        targets: of those that have any, by host, in their order.
        failures: why others have none.
    """

    targets: dict[Host, tuple[Target, ...]]
    failures: tuple[DNSFailure, ...]

    @property
    def all(self) -> Sequence[Target]:
        once = dict.fromkeys(chain.from_iterable(self.targets.values()))
        return list(islice(once, _MOST_TARGETS))

    @property
    def lookup_failed(self) -> LookupFailed | None:
        """What may be different next time."""
        return next((each for each in self.failures if isinstance(each, LookupFailed)), None)


class Exchangers:
    """Finds the targets of a next hop (`interfaces.Locate`).

    Args:
        resolver: the DNS.
        random: for the order of mail exchangers of one preference, and of the addresses of one.
        port: where the mail exchangers of a domain listen.
        is_local: whether a domain, or the name of a mail exchanger, is one of ours.
        is_own_address: whether we listen ourselves on that address and port.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        random: Random,
        port: int = 25,
        is_local: Callable[[str], bool],
        is_own_address: Callable[[str, int], bool] = lambda address, port: False,
    ) -> None:
        self._resolver = resolver
        self._random = random
        self._port = port
        self._is_local = is_local
        self._is_own_address = is_own_address

    def locate(self, next_hop: NextHop) -> Deferred[Sequence[Target]]:
        """Return at least one target.

        Raises:
            NoTarget: there is none, now (``4yz``) or at all (``5yz``).
        """
        if next_hop.hosts:
            return Deferred.fromCoroutine(self._of_hosts(next_hop.hosts))
        return Deferred.fromCoroutine(self._of_domain(next_hop.domain))

    async def _of_hosts(self, hosts: Sequence[Host]) -> Sequence[Target]:
        """Return the targets of hosts that a route names: in its order, and never by MX.

        The operator wrote them for this machine, so they are looked up as the system does, in the
        domains of its search list too; what a correspondent wrote is not.
        """
        found = await self._look_up(hosts, search=True)
        if found.targets:
            return found.all
        names = ", ".join(host.name for host in hosts)
        failure = found.lookup_failed
        if failure is not None:
            raise _no_target(451, "4.3", f"No address found for {names}: {failure}")
        # That the operator wrote a name that is not there is no fault of the message.
        raise _no_target(451, "3.5", f"The route leads to no host: {names} has no address")

    async def _of_domain(self, domain: str) -> Sequence[Target]:
        if literal_address(domain) is not None or domain == "localhost":
            return await self._implicit(domain)
        try:
            exchangers = await self._resolver.mail_exchangers(domain)
        except NoSuchDomain:
            # There are name servers, and search proxies before them, that answer NXDOMAIN to a type
            # that they do not know, and have an address (RFC 4074 §4.2): all must agree.
            return await self._implicit(domain, exists=False)
        except DNSFailure as failure:
            raise _no_target(451, "4.3", f"DNS lookup failed: {failure}") from failure
        if not exchangers:
            return await self._implicit(domain)
        # RFC 7505 §3: a null MX stands alone; beside others it says nothing.
        hosts = [exchanger for exchanger in exchangers if exchanger[1]]
        if not hosts:
            raise _no_target(556, "1.10", f"{domain} accepts no mail (null MX)")
        return await self._of_exchangers(domain, hosts)

    async def _of_exchangers(
        self, domain: str, exchangers: Sequence[tuple[int, str]]
    ) -> Sequence[Target]:
        groups = list(self._groups(exchangers))
        # RFC 5321 §5.1: where we are listed ourselves, nobody behind us, or beside us, counts.
        before = _until(self._is_local, groups)
        found = await self._look_up(Host(name, self._port) for group in before for name in group)
        own = {host.name: any(map(self._is_own, some)) for host, some in found.targets.items()}
        before = _until(lambda name: own.get(name, False), before)
        hosts = [Host(name, self._port) for group in before for name in group]
        targets = {host: found.targets[host] for host in hosts if host in found.targets}
        if targets:
            return evolve(found, targets=targets).all
        if before and found.lookup_failed is not None:
            raise _no_target(451, "4.4", f"No mail exchanger of {domain} can be looked up now")
        if len(before) < len(groups):
            raise _loop(domain)
        raise _no_target(550, "4.4", f"No mail exchanger of {domain} has an address")

    async def _implicit(self, domain: str, *, exists: bool = True) -> Sequence[Target]:
        """Return the targets of a domain without MX records: itself (RFC 5321 §5.1).

        Args:
            domain: see there.
            exists: whether the DNS knows it, as far as MX records are concerned.
        """
        found = await self._look_up([Host(domain, self._port)])
        if found.targets:
            if any(map(self._is_own, found.all)):
                raise _loop(domain)
            return found.all
        if found.lookup_failed is not None:
            raise _no_target(451, "4.3", f"DNS lookup failed: {found.lookup_failed}")
        if found.failures and not exists:
            raise _no_target(550, "1.2", f"The domain {domain} does not exist")
        raise _no_target(550, "4.4", f"{domain} has neither a mail exchanger nor an address")

    def _is_own(self, target: Target) -> bool:
        return self._is_own_address(target.address, target.port)

    def _groups(self, exchangers: Iterable[tuple[int, str]]) -> Iterator[list[str]]:
        """Yield the hosts of each preference, at random within it, each host once."""
        seen: dict[str, None] = {}
        best = sorted(exchangers)[:_MOST_EXCHANGERS]
        for _, group in groupby(best, key=lambda exchanger: exchanger[0]):
            equal = [name for _, name in group if name not in seen and is_host_name(name)]
            seen.update(dict.fromkeys(equal))
            if equal:
                equal = list(dict.fromkeys(equal))
                self._random.shuffle(equal)
                yield equal

    async def _look_up(self, hosts: Iterable[Host], *, search: bool = False) -> _Found:
        some = list(islice(hosts, MOST_HOSTS))
        lookups = [self._addresses(host.name, search) for host in some]  # all at once
        try:
            return await self._found(some, lookups)
        finally:
            for lookup in lookups:  # of which some are left if this was canceled
                lookup.addErrback(lambda failure: None)

    async def _found(
        self, some: Sequence[Host], lookups: Sequence[Deferred[Sequence[str]]]
    ) -> _Found:
        targets: dict[Host, tuple[Target, ...]] = {}
        failures: list[DNSFailure] = []
        for host, lookup in zip(some, lookups, strict=True):
            try:
                addresses = await lookup
            except DNSFailure as failure:
                failures.append(failure)
                continue
            name = literal_address(host.name) or host.name
            usable = [Target(name, address, host.port) for address in addresses if _usable(address)]
            if usable:
                targets[host] = tuple(usable)
        return _Found(targets, tuple(failures))

    def _addresses(self, name: str, search: bool) -> Deferred[Sequence[str]]:
        if name.startswith("/"):  # a UNIX socket is its own address
            return succeed([name])
        if name == "localhost" or name.endswith(".localhost"):
            return succeed(_LOCALHOST)
        address = literal_address(name) or name
        if _is_address(address):
            return succeed([address])
        return self._resolver.addresses(name, search=search).addCallback(self._by_turns)

    def _by_turns(self, addresses: Sequence[str]) -> Sequence[str]:
        """Return addresses as they are tried: IPv6 and IPv4 by turns, at random within each."""
        families: tuple[list[str], list[str]] = [], []
        for address in addresses:
            families[":" not in address].append(address)
        for family in families:
            self._random.shuffle(family)
        pairs = chain.from_iterable(zip_longest(*families))
        return [address for address in pairs if address is not None]


def _loop(domain: str) -> NoTarget:
    return _no_target(554, "4.6", f"Mail for {domain} loops back to myself")


def _until(ours: Callable[[str], bool], groups: Sequence[list[str]]) -> Sequence[list[str]]:
    """Return the groups before the first in which there is one of ours."""
    for place, group in enumerate(groups):
        if any(map(ours, group)):
            return groups[:place]
    return groups


def is_host_name(name: str) -> bool:
    """Whether the name of a mail exchanger can be one.

    An address there is a mistake (RFC 5321 §5.1, RFC 1035 §3.3.9), and so is ``localhost``: it
    would be whoever asks.
    """
    try:
        return (
            domain_name(name) == name
            and not name.startswith("[")
            and not _is_address(name)
            and name != "localhost"
            and not name.endswith(".localhost")
        )
    except AddressError:
        return False


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _usable(address: str) -> bool:
    """Whether somebody could be at an address: 0.0.0.0 and groups are nobody's."""
    if address.startswith("/"):
        return True
    parsed = ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast)
