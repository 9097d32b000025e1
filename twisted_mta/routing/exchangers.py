"""Locate the targets of a next hop: exchangers by preference, and their addresses (RFC 5321 §5).

The targets of one host stand together, IPv6 first, the two families alternating (RFC 8305 §4), so
that connecting need not exhaust one family before it tries the other.
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
from ..mail.dns_answer import Answered
from ..mail.next_hop import Host, NextHop, Target
from ..mail.reply import Reply

# RFC 6761 §6.3: never looked up. IPv4 first: the default listener has an IPv4 address.
_LOCALHOST = ("127.0.0.1", "::1")

# A domain could list exchangers without end, and have us connect to each. RFC 5321 §5.1 requires at
# least two addresses; Postfix stops at five.
MOST_HOSTS = 16
# Exchangers of one domain that are considered, those of the best preference. A DNS answer has room
# for 4,000.
_MOST_EXCHANGERS = 256
_MOST_TARGETS = 32

NoteExchanger = Callable[[str, str], object]
"""Take note of a domain and its most preferred exchanger."""


def _no_target(code: int, status: str, text: str) -> NoTarget:
    return NoTarget(Reply.of(code, status, text))


@frozen
class _HostTargets:
    """The targets of several hosts.

    Attributes:
        targets: by host, in their order; without hosts that have none.
        failures: of the lookups of the other hosts.
    """

    targets: dict[Host, tuple[Target, ...]]
    failures: tuple[DNSFailure, ...]

    @property
    def all(self) -> Sequence[Target]:
        """The targets of all hosts, each once, as many as may be tried."""
        unique = dict.fromkeys(chain.from_iterable(self.targets.values()))
        return list(islice(unique, _MOST_TARGETS))

    @property
    def lookup_failed(self) -> LookupFailed | None:
        """The first temporary failure, None where there is none."""
        return next((each for each in self.failures if isinstance(each, LookupFailed)), None)


class TargetLocator:
    """Locates the targets of next hops (`interfaces.Locate`).

    Args:
        resolver: the DNS.
        random: shuffles exchangers of one preference, and the addresses of one host.
        port: of exchangers.
        is_local: whether a domain, or the name of an exchanger, is one of ours.
        is_own_address: whether a listener of ours has that address and port.
        note_exchanger: called with each domain that is looked up, and its most preferred exchanger
            that has an address: the first by name, among equals; itself, where it has no MX record.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        random: Random,
        port: int = 25,
        is_local: Callable[[str], bool],
        is_own_address: Callable[[str, int], bool] = lambda address, port: False,
        note_exchanger: NoteExchanger = lambda domain, exchanger: None,
    ) -> None:
        self._resolver = resolver
        self._random = random
        self._port = port
        self._is_local = is_local
        self._is_own_address = is_own_address
        self._note_exchanger = note_exchanger

    def locate(self, next_hop: NextHop) -> Deferred[Sequence[Target]]:
        """Return the targets of ``next_hop`` in the order to try them, at least one.

        Raises:
            NoTarget: there is none for now (``4yz``), or none at all (``5yz``).
        """
        if next_hop.hosts:
            return Deferred.fromCoroutine(self._of_hosts(next_hop.hosts))
        return Deferred.fromCoroutine(self._of_domain(next_hop.domain))

    async def _of_hosts(self, hosts: Sequence[Host]) -> Sequence[Target]:
        """Return the targets of the hosts of a route, in its order, never by MX.

        The operator wrote them for this machine, so they are looked up with the search list of the
        system; domains of recipients are not.
        """
        located = await self._look_up(hosts, search=True)
        if located.targets:
            return located.all
        names = ", ".join(host.name for host in hosts)
        failure = located.lookup_failed
        if failure is not None:
            raise _no_target(451, "4.3", f"No address found for {names}: {failure}")
        # A mistake in a route is temporary: the operator can correct it.
        raise _no_target(451, "3.5", f"The route leads to no host: {names} has no address")

    async def _of_domain(self, domain: str) -> Sequence[Target]:
        if literal_address(domain) is not None or domain == "localhost":
            return await self._implicit(domain)
        try:
            exchangers = await self._resolver.exchangers(domain)
        except NoSuchDomain:
            # Some name servers, and search proxies in front of them, answer NXDOMAIN to types that
            # they do not know (RFC 4074 §4.2): the name may still have an address.
            return await self._implicit(domain, exists=False)
        except DNSFailure as failure:
            raise _no_target(451, "4.3", f"DNS lookup failed: {failure}") from failure
        if not exchangers.records:
            self._note_exchanger(domain, domain)
            return await self._implicit(domain, secure=exchangers.secure)
        # RFC 7505 §3: a null MX is the only MX record; among others it is ignored.
        hosts = [exchanger for exchanger in exchangers.records if exchanger[1]]
        if not hosts:
            raise _no_target(556, "1.10", f"{domain} accepts no mail (null MX)")
        targets = await self._of_exchangers(domain, hosts)
        if exchangers.secure:
            # RFC 7672 §3.2.2: the name before and after the aliases of the domain.
            names = tuple(dict.fromkeys((domain, exchangers.name)))
            return [evolve(each, next_hop_names=names) for each in targets]
        return [evolve(each, secure=False) for each in targets]  # RFC 7672 §2.2.1

    async def _of_exchangers(
        self, domain: str, exchangers: Sequence[tuple[int, str]]
    ) -> Sequence[Target]:
        groups = list(self._groups(exchangers))
        # RFC 5321 §5.1: where we are listed, only exchangers with a better preference count.
        better = _until(self._is_local, groups)
        located = await self._look_up(Host(name, self._port) for group in better for name in group)
        own = {
            host.name: any(map(self._is_own, targets)) for host, targets in located.targets.items()
        }
        better = _until(lambda name: own.get(name, False), better)
        hosts = [Host(name, self._port) for group in better for name in group]
        equal = [name for group in better if len(group) > 1 for name in group]
        targets = {
            host: tuple(evolve(each, equal=host.name in equal) for each in located.targets[host])
            for host in hosts
            if host in located.targets
        }
        if targets:
            preferred = next(iter(targets)).name
            best = next(group for group in better if preferred in group)
            self._note_exchanger(domain, min(each.name for each in targets if each.name in best))
            return evolve(located, targets=targets).all
        if better and located.lookup_failed is not None:
            raise _no_target(451, "4.4", f"No mail exchanger of {domain} can be looked up now")
        if len(better) < len(groups):
            raise _loop(domain)
        raise _no_target(550, "4.4", f"No mail exchanger of {domain} has an address")

    async def _implicit(
        self, domain: str, *, exists: bool = True, secure: bool = False
    ) -> Sequence[Target]:
        """Return the targets of a domain without MX records: its own addresses (RFC 5321 §5.1).

        Args:
            domain: without MX records.
            exists: whether the lookup of its MX records had another answer than NXDOMAIN.
            secure: whether DNSSEC proves that there are no MX records.
        """
        located = await self._look_up([Host(domain, self._port)])
        if located.targets:
            if any(map(self._is_own, located.all)):
                raise _loop(domain)
            return [evolve(each, secure=each.secure and secure) for each in located.all]
        if located.lookup_failed is not None:
            raise _no_target(451, "4.3", f"DNS lookup failed: {located.lookup_failed}")
        if located.failures and not exists:
            raise _no_target(550, "1.2", f"The domain {domain} does not exist")
        raise _no_target(550, "4.4", f"{domain} has neither a mail exchanger nor an address")

    def _is_own(self, target: Target) -> bool:
        return self._is_own_address(target.address, target.port)

    def _groups(self, exchangers: Iterable[tuple[int, str]]) -> Iterator[list[str]]:
        """Yield the hosts of each preference, in random order (RFC 5321 §5.1), each host once."""
        seen: dict[str, None] = {}
        best = sorted(exchangers)[:_MOST_EXCHANGERS]
        for _, group in groupby(best, key=lambda exchanger: exchanger[0]):
            equal = [name for _, name in group if name not in seen and is_host_name(name)]
            seen.update(dict.fromkeys(equal))
            if equal:
                equal = list(dict.fromkeys(equal))
                self._random.shuffle(equal)
                yield equal

    async def _look_up(self, hosts: Iterable[Host], *, search: bool = False) -> _HostTargets:
        looked_up = list(islice(hosts, MOST_HOSTS))
        lookups = [self._addresses(host.name, search) for host in looked_up]  # all at once
        try:
            return await self._located(looked_up, lookups)
        finally:
            for lookup in lookups:  # some are left where this was canceled
                lookup.addErrback(lambda failure: None)

    async def _located(
        self, hosts: Sequence[Host], lookups: Sequence[Deferred[Answered[str]]]
    ) -> _HostTargets:
        targets: dict[Host, tuple[Target, ...]] = {}
        failures: list[DNSFailure] = []
        for host, lookup in zip(hosts, lookups, strict=True):
            try:
                found = await lookup
            except DNSFailure as failure:
                failures.append(failure)
                continue
            name = literal_address(host.name) or host.name
            bases = _tlsa_bases(found)
            addresses = self._alternating(found.records) if found.name else found.records
            usable = [
                Target(name, address, host.port, secure=bool(bases), tlsa_bases=bases)
                for address in addresses
                if _usable(address)
            ]
            if usable:
                targets[host] = tuple(usable)
        return _HostTargets(targets, tuple(failures))

    def _addresses(self, name: str, search: bool) -> Deferred[Answered[str]]:
        if name.startswith("/"):  # the path of a UNIX socket is its address
            return succeed(Answered((name,)))
        if name == "localhost" or name.endswith(".localhost"):
            return succeed(Answered(_LOCALHOST))
        address = literal_address(name) or name
        if _is_address(address):
            return succeed(Answered((address,)))
        return self._resolver.host(name, search=search)

    def _alternating(self, addresses: Sequence[str]) -> Sequence[str]:
        """Return IPv6 and IPv4 addresses alternating, each family in random order."""
        families: tuple[list[str], list[str]] = [], []
        for address in addresses:
            families[":" not in address].append(address)
        for family in families:
            self._random.shuffle(family)
        pairs = chain.from_iterable(zip_longest(*families))
        return [address for address in pairs if address is not None]


def _tlsa_bases(found: Answered[str]) -> tuple[str, ...]:
    """Return the names below which TLSA records of a host may stand (RFC 7672 §2.2.2, §2.2.3)."""
    if found.secure:
        return tuple(dict.fromkeys((found.name, found.asked)))
    return (found.asked,) if found.asked_secure else ()


def _loop(domain: str) -> NoTarget:
    return _no_target(554, "4.6", f"Mail for {domain} loops back to myself")


def _until(ours: Callable[[str], bool], groups: Sequence[list[str]]) -> Sequence[list[str]]:
    """Return the groups before the first group with a host of ours."""
    for place, group in enumerate(groups):
        if any(map(ours, group)):
            return groups[:place]
    return groups


def is_host_name(name: str) -> bool:
    """Whether a name of an MX record is the name of a host.

    An address is a mistake (RFC 5321 §5.1, RFC 1035 §3.3.9), and so is ``localhost``, which every
    resolver takes for itself.
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
    """Whether a host can have an address: not 0.0.0.0, ::, or a multicast group."""
    if address.startswith("/"):
        return True
    parsed = ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast)
