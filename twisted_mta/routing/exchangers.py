"""Which addresses a next hop has, and in which order to try them (RFC 5321 §5, RFC 7505)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from itertools import groupby, islice

from twisted.internet.defer import Deferred

from ..dns import DNSFailure, LookupFailed, NoSuchDomain
from ..envelope import Host, NextHop, Target
from ..interfaces import NoTarget, Random, Resolver
from ..smtp.address import literal_address
from ..smtp.reply import Reply

# RFC 6761 §6.3: never asked of the DNS. IPv4 first, because that is where we listen by default.
_LOCALHOST = ("127.0.0.1", "::1")

# A domain can list hosts without end, and have us connect to each. RFC 5321 §5.1 wants at least two
# addresses tried; Postfix stops at five.
_MOST_HOSTS = 16
_MOST_TARGETS = 32


def _no_target(code: int, status: str, text: str) -> NoTarget:
    return NoTarget(Reply.of(code, status, text))


class Exchangers:
    """Finds the targets of a next hop (`interfaces.Locate`).

    Args:
        resolver: the DNS.
        random: for the order of mail exchangers of one preference.
        port: where the mail exchangers of a domain listen.
        is_local: whether a domain, or the name of a mail exchanger, is one of ours.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        random: Random,
        port: int = 25,
        is_local: Callable[[str], bool],
    ) -> None:
        self._resolver = resolver
        self._random = random
        self._port = port
        self._is_local = is_local

    def locate(self, next_hop: NextHop) -> Deferred[Sequence[Target]]:
        """Return at least one target.

        Raises:
            NoTarget: there is none, now (``4yz``) or at all (``5yz``).
        """
        if next_hop.hosts:
            return Deferred.fromCoroutine(self._of_hosts(next_hop.hosts))
        return Deferred.fromCoroutine(self._of_domain(next_hop.domain))

    async def _of_hosts(self, hosts: Sequence[Host]) -> Sequence[Target]:
        """Return the targets of hosts that a route names: in its order, and never by MX."""
        targets, failures = await self._targets(hosts)
        if targets:
            return targets
        names = ", ".join(host.name for host in hosts)
        if any(isinstance(failure, LookupFailed) for failure in failures):
            raise _no_target(451, "4.3", f"No address found for {names}: {failures[0]}")
        # That the operator wrote a name that is not there is no fault of the message.
        raise _no_target(451, "3.5", f"The route leads to no host: {names} has no address")

    async def _of_domain(self, domain: str) -> Sequence[Target]:
        if literal_address(domain) is not None or domain == "localhost":
            return (await self._targets([Host(domain, self._port)]))[0]
        try:
            exchangers = await self._resolver.mail_exchangers(domain)
        except NoSuchDomain:
            raise _no_target(550, "1.2", f"The domain {domain} does not exist") from None
        except DNSFailure as failure:
            raise _no_target(451, "4.3", f"DNS lookup failed: {failure}") from failure
        if not exchangers:
            return await self._implicit(domain)
        # RFC 7505 §3: a null MX stands alone; beside others it says nothing.
        hosts = [exchanger for exchanger in exchangers if exchanger[1]]
        if not hosts:
            raise _no_target(556, "1.10", f"{domain} accepts no mail (null MX)")
        ordered = self._in_order(hosts)
        if not ordered:
            raise _no_target(554, "4.6", f"Mail for {domain} loops back to myself")
        targets, failures = await self._targets(Host(name, self._port) for name in ordered)
        if targets:
            return targets
        if any(isinstance(failure, LookupFailed) for failure in failures):
            raise _no_target(451, "4.4", f"No mail exchanger of {domain} can be looked up now")
        raise _no_target(550, "4.4", f"No mail exchanger of {domain} has an address")

    async def _implicit(self, domain: str) -> Sequence[Target]:
        """Return the targets of a domain without MX records: itself (RFC 5321 §5.1)."""
        targets, failures = await self._targets([Host(domain, self._port)])
        if targets:
            return targets
        if any(isinstance(failure, LookupFailed) for failure in failures):
            raise _no_target(451, "4.3", f"DNS lookup failed: {failures[0]}")
        if failures:
            raise _no_target(550, "1.2", f"The domain {domain} does not exist")
        raise _no_target(550, "4.4", f"{domain} has neither a mail exchanger nor an address")

    def _in_order(self, exchangers: Iterable[tuple[int, str]]) -> list[str]:
        """Return the hosts to try: by preference, at random within one."""
        names: dict[str, None] = {}
        for _, group in groupby(sorted(exchangers), key=lambda exchanger: exchanger[0]):
            equal = [name for _, name in group]
            # RFC 5321 §5.1: where we are listed ourselves, nobody behind us, or beside us, counts.
            if any(map(self._is_local, equal)):
                break
            self._random.shuffle(equal)
            names.update(dict.fromkeys(equal))
        return list(names)

    async def _targets(
        self, hosts: Iterable[Host]
    ) -> tuple[Sequence[Target], Sequence[DNSFailure]]:
        """Return the targets of all hosts that have any, and why others have none."""
        some = list(islice(hosts, _MOST_HOSTS))
        lookups = [self._addresses(host.name) for host in some]  # all at once
        targets: dict[Target, None] = {}
        failures: list[DNSFailure] = []
        for host, lookup in zip(some, lookups, strict=True):
            try:
                addresses = await lookup
            except DNSFailure as failure:
                failures.append(failure)
                continue
            for address in addresses:
                targets[Target(literal_address(host.name) or host.name, address, host.port)] = None
        return list(islice(targets, _MOST_TARGETS)), failures

    def _addresses(self, name: str) -> Deferred[Sequence[str]]:
        addresses: Sequence[str] = ()
        address = literal_address(name) or name
        if name == "localhost" or name.endswith(".localhost"):
            addresses = _LOCALHOST
        elif _is_address(address):
            addresses = (address,)
        if addresses:
            known: Deferred[Sequence[str]] = Deferred()
            known.callback(addresses)
            return known
        return self._resolver.addresses(name)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
