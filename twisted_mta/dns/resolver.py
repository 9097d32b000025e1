"""A caching stub resolver, with the name servers of the configuration or of the system.

The AD bit is believed where the path to the name server is safe (RFC 4035 §4.9.3): it is on
loopback, or the operator trusts it, by ``trust_ad`` or by ``options trust-ad`` in
``/etc/resolv.conf``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, Literal, TypeVar

import dns.entropy
import dns.rdata
import dns.rdatatype
from attrs import evolve, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..mail.dns_answer import Answered
from ..mail.next_hop import Host
from ..mail.tlsa import TLSA
from ..system.coroutines import started
from .cache import Key
from .failure import DNSFailure, LookupFailed, NoSuchDomain
from .hosts_file import Hosts
from .message import (
    AAAA,
    CNAME,
    MX,
    NXDOMAIN,
    PTR,
    TXT,
    A,
    Answer,
    Malformed,
    joined_strings,
    rdata,
    text_name,
    wire_name,
)
from .message import TLSA as TLSA_TYPE
from .nameserver import NameServer
from .queries import Queries
from .query import NoAnswer, Timing
from .resolv_conf import ResolvConf
from .system import SystemFiles

_T = TypeVar("_T")

_MOST_ALIASES = 8  # CNAME chains followed from one answer to the next
_OTHER_FAMILY = 2.0  # seconds that the addresses of one family wait for those of the other
_LONGEST_SEARCH = 2.0  # times the timeout of one lookup
_MOST_ADDRESSES = 64  # of one family of a host; at most half of them are ever tried


@frozen
class Records:
    """The records of one type of a name (an RRset).

    Attributes:
        records: records of dnspython; empty where the name has none of the type.
        authenticated: whether a name server that we trust has validated them (AD).
    """

    records: tuple[dns.rdata.Rdata, ...]
    authenticated: bool


@frozen
class _RRset:
    """The same, with rdata in wire form.

    Attributes:
        records: rdata.
        authenticated: as in `Records`.
        name: in wire form, the end of the aliases.
    """

    records: tuple[bytes, ...]
    authenticated: bool
    name: bytes = b"\0"

    @property
    def end(self) -> str:
        """The end of the aliases, as text."""
        return text_name(self.name)


class _AddressLookup:
    """The lookups of the AAAA and A records of one host.

    Once one family is known, the other is waited for briefly: a name server that does not answer
    AAAA queries does not delay mail over IPv4.
    """

    def __init__(self, lookups: Sequence[Deferred[_RRset]], clock: IReactorTime) -> None:
        self.result: Deferred[Answered[str]] = Deferred(lambda _: self._stop())
        self._clock = clock
        self._results: list[_RRset | Failure | None] = [None for _ in lookups]
        self._timer: IDelayedCall | None = None
        for place, lookup in enumerate(lookups):
            lookup.addBoth(self._ended, place)

    def _ended(self, result: _RRset | Failure, place: int) -> None:
        self._results[place] = result
        if self.result.called:
            return  # too late for this lookup, in time for the cache
        if None not in self._results:
            self._decide()
        elif isinstance(result, _RRset) and result.records:
            self._timer = self._clock.callLater(_OTHER_FAMILY, self._decide)

    def _stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _decide(self) -> None:
        self._stop()
        rrsets = [each for each in self._results if isinstance(each, _RRset)]
        failures = [each for each in self._results if isinstance(each, Failure)]
        addresses = [
            _address(record) for each in rrsets for record in each.records[:_MOST_ADDRESSES]
        ]
        # A family whose lookup failed for now may have addresses: the mail must not bounce. And
        # NXDOMAIN to one family does not count where the other has an answer (RFC 4074 §4.2).
        temporary = [each for each in failures if not each.check(NoSuchDomain)]
        if addresses or not failures:
            self.result.callback(_together(addresses, rrsets))
        elif temporary or not rrsets:
            self.result.errback((temporary or failures)[0])
        else:
            self.result.callback(_together((), rrsets))


def _together(addresses: Sequence[str], rrsets: Sequence[_RRset]) -> Answered[str]:
    """Return the addresses of both families.

    They are secure where both are that have any, and stand at one name.
    """
    found = [each for each in rrsets if each.records] or rrsets
    secure = all(each.authenticated and each.name == found[0].name for each in found)
    return Answered(tuple(addresses), secure, name=found[0].end)


class DNSResolver:
    """Looks up records (`interfaces.Resolver`), with a cache that honors their time to live.

    Args:
        reactor: for UDP, TCP and timeouts.
        nameservers: addresses to query, in this order; None: those of ``/etc/resolv.conf`` at the
            time, 127.0.0.1 where it has none.
        timeout: seconds for one query to all name servers.
        trust_ad: whether the AD bit of name servers that are not on loopback is believed too.
        hosts: addresses by name that precede the DNS; None: those of ``/etc/hosts`` at the time.
        system: the files of the system; None: the real ones.
        new_id: returns unpredictable numbers of 16 bits.

    Raises:
        ValueError: a name server is not an address.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # IReactorTime, IReactorTCP and IReactorFDSet: no type joins the three
        *,
        nameservers: Sequence[Host] | None = None,
        timeout: float = 15.0,
        trust_ad: bool = False,
        hosts: Mapping[str, Sequence[str]] | None = None,
        system: SystemFiles | None = None,
        new_id: Callable[[], int] = dns.entropy.random_16,
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._trust_ad = trust_ad
        self._hosts = hosts
        self._system = system or SystemFiles(reactor)
        self._configured = None if nameservers is None else [*map(NameServer, nameservers)]
        for each in self._configured or ():
            each.trusted |= trust_ad
        self._resolv_conf: ResolvConf | None = None  # in use
        self._queries = Queries(reactor, timing=Timing(timeout), new_id=new_id)

    @property
    def nameservers(self) -> list[Host]:
        """The name servers in use."""
        self._check_system()
        return [each.host for each in self._queries.nameservers]

    def lookup(self, domain: str, type: str) -> Deferred[Records]:
        """Return the records of one type; canceling does not end the query.

        Args:
            domain: A-labels, without a trailing dot.
            type: its mnemonic: ``MX``, ``TLSA``.

        Raises:
            NoSuchDomain: NXDOMAIN for this type, or not a valid domain name.
            LookupFailed: no usable answer now.
        """
        return started(self._records(domain, type))

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records; see `interfaces.Resolver`."""
        return self.exchangers(domain).addCallback(lambda found: list(found.records))

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of ``host`` as text; see `interfaces.Resolver`."""
        looked_up = self._searched_addresses(host) if search else self._addresses(host)
        return started(looked_up).addCallback(lambda found: list(found.records))

    def exchangers(self, domain: str) -> Deferred[Answered[tuple[int, str]]]:
        """Return (preference, host) of all MX records, and whether they are secure."""
        return started(self._exchangers(domain))

    def host(self, name: str, *, search: bool = False) -> Deferred[Answered[str]]:
        """Return the addresses of a host, and whether they are secure."""
        return started(self._host(name, search))

    def tlsa(self, domain: str) -> Deferred[Answered[TLSA]]:
        """Return the TLSA records of a domain; see `interfaces.Resolver`."""
        return started(self._tlsa(domain))

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the TXT records of a domain, the strings of each joined; see `Resolver`."""
        return self._each(domain, "TXT", TXT, joined_strings)

    def pointers(self, address: str) -> Deferred[Sequence[str]]:
        """Return the names of an IP address; see `interfaces.Resolver`."""
        try:
            domain = _reverse_domain(address)
        except ValueError:
            return fail(NoSuchDomain(address, "PTR", "not an IP address"))
        return self._each(domain, "PTR", PTR, text_name)

    def family_addresses(self, host: str, family: Literal[4, 6]) -> Deferred[Sequence[str]]:
        """Return the A or the AAAA records of ``host``; see `interfaces.Resolver`."""
        if family == 4:
            return self._each(host, "A", A, _address)
        return self._each(host, "AAAA", AAAA, _address)

    def reload(self) -> list[str]:
        """Read the files of the system again; return lines that describe changes."""
        before = self._resolv_conf and self._described(self._resolv_conf)
        self._system.reload()
        self._check_system()
        after = self._described(self._system.resolv_conf)
        return [] if before in (None, after) else [f"{after}; before: {before}"]

    def stop(self) -> None:
        """Fail all queries, and leave nothing open; new lookups are possible."""
        self._queries.stop()
        self._system.stop()

    def _described(self, resolv_conf: ResolvConf) -> str:
        """Describe the settings of the system that are in use."""
        if self._configured is None:
            return str(resolv_conf)
        return f"search list of the system: {' '.join(resolv_conf.search) or 'none'}"

    async def _records(self, domain: str, type: str) -> Records:
        number = dns.rdatatype.from_text(type)
        rrset = await self._lookup(domain, type, number)
        try:
            records = tuple(rdata(number, each) for each in rrset.records)
        except Malformed as malformed:
            raise LookupFailed(domain, type, str(malformed)) from malformed
        return Records(records, rrset.authenticated)

    async def _exchangers(self, domain: str) -> Answered[tuple[int, str]]:
        try:
            rrset = await self._lookup(domain, "MX", MX)
        except NoSuchDomain:
            if domain in await self._known_hosts():
                # It is in the hosts file: its address is its implicit MX (RFC 5321 §5.1).
                return Answered(asked=domain, name=domain)
            raise
        records = ((each[0] << 8 | each[1], text_name(each[2:])) for each in rrset.records)
        return Answered(tuple(records), rrset.authenticated, asked=domain, name=rrset.end)

    async def _tlsa(self, domain: str) -> Answered[TLSA]:
        rrset = await self._lookup(domain, "TLSA", TLSA_TYPE)
        records = filter(None, map(TLSA.parse, rrset.records))
        return Answered(tuple(records), rrset.authenticated, asked=domain, name=rrset.end)

    def _each(
        self, domain: str, type: str, number: int, read: Callable[[bytes], _T]
    ) -> Deferred[Sequence[_T]]:
        """Look up records, and read each; an answer in the cache costs no coroutine."""
        try:
            answer = self._cached((wire_name(domain), number))
        except ValueError:
            return fail(NoSuchDomain(domain, type, "not a valid domain name"))
        if answer is None or answer.alias is not None:
            return started(self._each_looked_up(domain, type, number, read))
        if answer.rcode == NXDOMAIN:
            return fail(NoSuchDomain(domain, type, "no such domain"))
        return succeed([read(each) for each in answer.records])

    async def _each_looked_up(
        self, domain: str, type: str, number: int, read: Callable[[bytes], _T]
    ) -> Sequence[_T]:
        rrset = await self._lookup(domain, type, number)
        return [read(each) for each in rrset.records]

    async def _searched_addresses(self, host: str) -> Answered[str]:
        """Return the addresses of a name with the search list applied, see resolv.conf(5)."""
        hosts = await self._known_hosts()
        if host in hosts:
            return Answered(tuple(hosts[host]), asked=host, name=host)
        deadline = self._reactor.seconds() + self._timeout * _LONGEST_SEARCH
        missing: DNSFailure | None = None
        exists = False
        for name in self._system.resolv_conf.candidates(host):
            try:
                # A failure for now ends the search: the next name may be another host.
                addresses = await self._addresses(name)
            except NoSuchDomain as failure:
                missing = missing or failure
            else:
                if addresses.records:
                    return addresses
                exists = True
            if self._reactor.seconds() > deadline:
                raise LookupFailed(host, "A", "searching took too long")
        if missing is not None and not exists:
            raise NoSuchDomain(host, missing.type, "no such domain")
        return Answered(asked=host, name=host)

    async def _known_hosts(self) -> Hosts:
        if self._hosts is not None:
            return self._hosts
        self._system.check()
        await self._system.hosts_read()
        return self._system.hosts

    async def _addresses(self, host: str) -> Answered[str]:
        hosts = await self._known_hosts()
        if host in hosts:
            return Answered(tuple(hosts[host]), asked=host, name=host)
        types = [("AAAA", AAAA), ("A", A)]
        if self._configured is None and self._system.resolv_conf.no_aaaa:
            del types[0]
        lookups = [started(self._lookup(host, *type)) for type in types]
        found = await _AddressLookup(lookups, self._reactor).result
        return evolve(found, asked=text_name(wire_name(host)))

    async def _host(self, name: str, search: bool) -> Answered[str]:
        found = await (self._searched_addresses(name) if search else self._addresses(name))
        asked_secure = found.secure
        if not found.secure and found.records and found.name != found.asked:
            asked_secure = await self._is_secure_alias(found.asked)
        return evolve(found, asked_secure=asked_secure)

    async def _is_secure_alias(self, host: str) -> bool:
        """Whether the CNAME record of a host is secure, though its target is not.

        RFC 7672 §2.2.2: TLSA records may stand below the alias then.
        """
        if not any(each.trusted for each in self._queries.nameservers):
            return False
        try:
            return (await self._lookup(host, "CNAME", CNAME)).authenticated
        except NoSuchDomain:
            return False

    async def _lookup(self, domain: str, type: str, number: int) -> _RRset:
        try:
            name = wire_name(domain)
        except ValueError:
            raise NoSuchDomain(domain, type, "not a valid domain name") from None
        authenticated = True
        seen = [name]
        for _ in range(_MOST_ALIASES):
            try:
                answer = self._cached((name, number))
                if answer is None:
                    answer = await self._answer((name, number))
            except NoAnswer as failure:
                raise LookupFailed(domain, type, str(failure)) from None
            authenticated = authenticated and answer.authenticated
            if answer.rcode == NXDOMAIN:
                raise NoSuchDomain(domain, type, "no such domain")
            if answer.alias is None:
                return _RRset(answer.records, authenticated, answer.name or name)
            # RFC 1034 §3.6.2: a CNAME record whose target is not in the answer.
            name = answer.alias
            if name in seen:
                break
            seen.append(name)
        raise LookupFailed(domain, type, "an endless chain of CNAME records")

    def _cached(self, key: Key) -> Answer | None:
        """Return the answer of the cache, without a coroutine and a Deferred."""
        self._check_system()
        return self._queries.cached(key)

    async def _answer(self, key: Key) -> Answer:
        queries = self._queries
        generation = queries.generation
        try:
            return await queries.answer(key)
        except NoAnswer:
            # The system may have other name servers by now.
            self._system.reread_resolv_conf()
            self._check_system()
            if queries.generation == generation:
                raise
            return await queries.answer(key)

    def _check_system(self) -> None:
        """Use the current settings of the system."""
        self._system.check()
        resolv_conf = self._system.resolv_conf
        if self._resolv_conf is resolv_conf:
            return
        before, self._resolv_conf = self._resolv_conf, resolv_conf
        if before is not None and self._described(before) != self._described(resolv_conf):
            self._log.info(
                "names are looked up anew: {now}; before: {before}",
                now=self._described(resolv_conf),
                before=self._described(before),
            )
        queries = self._queries
        if self._configured is not None:
            queries.nameservers = self._configured
            return
        trust_ad = self._trust_ad or resolv_conf.trust_ad
        known = {each.host: each for each in queries.nameservers}
        queries.nameservers = [
            known.get(host) or NameServer(host) for host in resolv_conf.nameservers
        ]
        for each in queries.nameservers:
            each.trusted = trust_ad or each.is_loopback
        timing = Timing(self._timeout)
        queries.timing = evolve(
            timing,
            pause=resolv_conf.timeout or timing.pause,
            rounds=resolv_conf.attempts or timing.rounds,
        )
        queries.rotate = resolv_conf.rotate
        if before is not None and (before.nameservers, before.trust_ad) != (
            resolv_conf.nameservers,
            resolv_conf.trust_ad,
        ):
            queries.forget()  # another network may have other answers


def _address(octets: bytes) -> str:
    return inet_ntop(AF_INET if len(octets) == 4 else AF_INET6, octets)


def _reverse_domain(address: str) -> str:
    """Return the name of the PTR records of an IP address (RFC 1035 §3.5, RFC 3596 §2.5).

    Raises:
        ValueError: it is not an IP address.
    """
    parsed = ip_address(address.partition("%")[0])  # without the zone of a link-local address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.reverse_pointer
