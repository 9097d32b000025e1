"""A stub resolver: it asks the name servers that it is given, or those of the system.

Whether AD may be believed depends on the way to those name servers (RFC 4035 §4.9.3), and is for
the caller to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any

import dns.entropy
import dns.rdata
import dns.rdatatype
from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..mail.next_hop import Host
from .cache import Cache, Key
from .failure import DNSFailure, LookupFailed, NoSuchDomain
from .message import AAAA, MX, NXDOMAIN, A, Answer, Garbled, rdata, text_name, wire_name
from .nameserver import NameServer
from .question import NoAnswer, Pace, Question
from .system import Hosts, Resolution, SystemNames

_AT_ONCE = 64  # questions; each has a socket of its own for each name server
_CHAIN = 8  # aliases followed from one answer to the next
_OTHER_FAMILY = 2.0  # seconds that the addresses of one family wait for those of the other
_SEARCHED_AT_MOST = 2.0  # times the time of one lookup, that a search may take in all
_MOST_ADDRESSES = 64  # of a host; no more than half of that are ever tried


@frozen
class Records:
    """What a lookup found.

    Attributes:
        records: dnspython's records of the type asked for; empty where the name has none of it.
        authenticated: whether the name server says that it validated them (AD).
    """

    records: tuple[dns.rdata.Rdata, ...]
    authenticated: bool


@frozen
class _Found:
    """The same, with the rdata as it is on the wire."""

    records: tuple[bytes, ...]
    authenticated: bool


class _Families:
    """Waits for the addresses of one host, which are looked up family by family.

    Where one of them is known and the other is not, there is mail to deliver, and no reason to wait
    for long: a name server that does not answer to AAAA does not hold up what goes by IPv4.
    """

    def __init__(self, lookups: Sequence[Deferred[_Found]], clock: IReactorTime) -> None:
        self.result: Deferred[Sequence[str]] = Deferred(lambda _: self._stop())
        self._clock = clock
        self._found: list[_Found | Failure | None] = [None for _ in lookups]
        self._timer: IDelayedCall | None = None
        for place, lookup in enumerate(lookups):
            lookup.addBoth(self._ended, place)

    def _ended(self, found: _Found | Failure, place: int) -> None:
        self._found[place] = found
        if self.result.called:
            return  # it was for the cache
        if None not in self._found:
            self._decide()
        elif isinstance(found, _Found) and found.records:
            self._timer = self._clock.callLater(_OTHER_FAMILY, self._decide)

    def _stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _decide(self) -> None:
        self._stop()
        found = [each for each in self._found if isinstance(each, _Found)]
        failures = [each for each in self._found if isinstance(each, Failure)]
        addresses = [
            _address(record) for each in found for record in each.records[:_MOST_ADDRESSES]
        ]
        # What is not known of one family may be an address: mail must not be returned for that. Nor
        # is a name missing that exists for one of them (RFC 4074 §4.2).
        failed = [each for each in failures if not each.check(NoSuchDomain)]
        if addresses or not failures:
            self.result.callback(addresses)
        elif failed or not found:
            self.result.errback((failed or failures)[0])
        else:
            self.result.callback(())


class _Joined:
    """A question that is being asked, and the lookups that wait for its answer.

    One of them that is canceled leaves the others waiting, and the question goes on.

    Attributes:
        question: what asks.
    """

    def __init__(self) -> None:
        self.question: Question | None = None  # as soon as there is room for it
        self._waiting: dict[Deferred[Answer], None] = {}

    def join(self) -> Deferred[Answer]:
        """Return the answer when it is there."""
        waiting: Deferred[Answer] = Deferred(self._leave)
        self._waiting[waiting] = None
        return waiting

    def _leave(self, waiting: Deferred[Answer]) -> None:
        self._waiting.pop(waiting, None)
        waiting.errback(Failure(CancelledError()))

    def end(self, result: Answer | NoAnswer) -> None:
        """Give the result to all that wait."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if isinstance(result, NoAnswer):
                each.errback(result)
            else:
                each.callback(result)


class DNSResolver:
    """Looks up records (`interfaces.Resolver`), with a cache that honors their TTL.

    Args:
        reactor: for UDP, TCP and timeouts.
        nameservers: addresses to ask, in this order; None: those of ``/etc/resolv.conf`` at the
            time, and 127.0.0.1 where that names none.
        timeout: seconds that one question may take in all.
        hosts: addresses by name that go before the DNS; None: those of ``/etc/hosts`` at the time.
        system: what the system says; None: the real one.
        new_id: makes numbers of 16 bits that cannot be guessed.

    Raises:
        ValueError: a name server is not an address.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # IReactorTime, IReactorTCP and IReactorFDSet; no type says all three
        *,
        nameservers: Sequence[Host] | None = None,
        timeout: float = 15.0,
        hosts: Mapping[str, Sequence[str]] | None = None,
        system: SystemNames | None = None,
        new_id: Callable[[], int] = dns.entropy.random_16,
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._hosts = hosts
        self._new_id = new_id
        self._system = system or SystemNames(reactor)
        self._configured = None if nameservers is None else [*map(NameServer, nameservers)]
        self._resolution: Resolution | None = None  # what the following is made from
        self._nameservers: list[NameServer] = []
        self._pace = Pace(timeout)
        self._generation = 0  # of the name servers
        self._turn = 0
        self._cache = Cache()
        self._asking: dict[Key, _Joined] = {}
        self._running: dict[Question, None] = {}
        self._pending: deque[tuple[Key, _Joined]] = deque()

    @property
    def nameservers(self) -> list[Host]:
        """The name servers that are asked now."""
        self._look()
        return [each.host for each in self._nameservers]

    def lookup(self, domain: str, type: str) -> Deferred[Records]:
        """Return the records of one type. A lookup ends in its time, and not by canceling.

        Args:
            domain: A-labels, without a trailing dot.
            type: its mnemonic: ``MX``, ``TLSA``.

        Raises:
            NoSuchDomain: NXDOMAIN to this type, or not a name that the DNS could hold.
            LookupFailed: no usable answer now.
        """
        return Deferred.fromCoroutine(self._records(domain, type))

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records; see `interfaces.Resolver`."""
        return Deferred.fromCoroutine(self._mail_exchangers(domain))

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of ``host`` as text; see `interfaces.Resolver`."""
        return Deferred.fromCoroutine(self._searched(host) if search else self._addresses(host))

    def look_again(self) -> list[str]:
        """Look at the files of the system now, for a reload; return what changed, in lines."""
        before = self._resolution and self._in_force(self._resolution)
        self._system.read_again()
        self._look()
        after = self._in_force(self._system.resolution)
        return [] if before in (None, after) else [f"{after}; before: {before}"]

    def stop(self) -> None:
        """Leave nothing open: what is being asked fails. It may be asked again."""
        pending, self._pending = self._pending, deque()
        self._asking.clear()
        for _, joined in pending:
            joined.end(NoAnswer("asked no more"))
        for question in tuple(self._running):
            question.stop()
        self._system.stop()

    def _in_force(self, resolution: Resolution) -> str:
        """Return what of that counts here, in words."""
        if self._configured is None:
            return str(resolution)
        return f"search list of the system: {' '.join(resolution.search) or 'none'}"

    async def _records(self, domain: str, type: str) -> Records:
        number = dns.rdatatype.from_text(type)
        found = await self._lookup(domain, type, number)
        try:
            records = tuple(rdata(number, each) for each in found.records)
        except Garbled as wrong:
            raise LookupFailed(domain, type, str(wrong)) from wrong
        return Records(records, found.authenticated)

    async def _mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        try:
            found = await self._lookup(domain, "MX", MX)
        except NoSuchDomain:
            if domain in await self._known_hosts():
                return ()  # it exists here, and its address is its implicit MX
            raise
        return [(each[0] << 8 | each[1], text_name(each[2:])) for each in found.records]

    async def _searched(self, host: str) -> Sequence[str]:
        """Return the addresses of what the system takes a name for: resolv.conf(5), ``search``."""
        hosts = await self._known_hosts()
        if host in hosts:
            return hosts[host]
        deadline = self._reactor.seconds() + self._timeout * _SEARCHED_AT_MOST
        missing: DNSFailure | None = None
        exists = False
        for name in self._system.resolution.names(host):
            try:
                found = await self._addresses(name)
            except NoSuchDomain as failure:
                missing = missing or failure
            else:
                # What cannot be looked up now ends the search: the next name may be another host.
                if found:
                    return found
                exists = True
            if self._reactor.seconds() > deadline:
                raise LookupFailed(host, "A", "the search takes too long")
        if missing is not None and not exists:
            raise NoSuchDomain(host, missing.type, "no such domain")
        return ()

    async def _known_hosts(self) -> Hosts:
        if self._hosts is not None:
            return self._hosts
        self._system.look()
        await self._system.read()
        return self._system.hosts

    async def _addresses(self, host: str) -> Sequence[str]:
        hosts = await self._known_hosts()
        if host in hosts:
            return hosts[host]
        kinds = [("AAAA", AAAA), ("A", A)]
        if self._configured is None and self._system.resolution.no_aaaa:
            del kinds[0]
        lookups = [Deferred.fromCoroutine(self._lookup(host, *kind)) for kind in kinds]
        return await _Families(lookups, self._reactor).result

    async def _lookup(self, domain: str, type: str, number: int) -> _Found:
        try:
            name = wire_name(domain)
        except ValueError:
            raise NoSuchDomain(domain, type, "not a name that the DNS could hold") from None
        authenticated = True
        seen = [name]
        for _ in range(_CHAIN):
            try:
                answer = await self._answer((name, number))
            except NoAnswer as why:
                raise LookupFailed(domain, type, str(why)) from None
            authenticated = authenticated and answer.authenticated
            if answer.rcode == NXDOMAIN:
                raise NoSuchDomain(domain, type, "no such domain")
            if answer.alias is None:
                return _Found(answer.records, authenticated)
            # RFC 1034 §3.6.2: an alias, and its name server does not say what that leads to.
            name = answer.alias
            if name in seen:
                break
            seen.append(name)
        raise LookupFailed(domain, type, "a chain of aliases that does not end")

    async def _answer(self, key: Key) -> Answer:
        self._look()
        generation = self._generation
        try:
            return await self._ask(key)
        except NoAnswer:
            # Maybe there are other name servers meanwhile, and the system names them.
            self._system.look_closely()
            self._look()
            if self._generation == generation:
                raise
            return await self._ask(key)

    def _look(self) -> None:
        """Take note of what the system says now."""
        self._system.look()
        resolution = self._system.resolution
        if self._resolution is resolution:
            return
        before, self._resolution = self._resolution, resolution
        if before is not None and self._in_force(before) != self._in_force(resolution):
            self._log.info(
                "names are looked up anew: {now}; before: {before}",
                now=self._in_force(resolution),
                before=self._in_force(before),
            )
        if self._configured is not None:
            self._nameservers = self._configured
            return
        known = {each.host: each for each in self._nameservers}
        self._nameservers = [known.get(host) or NameServer(host) for host in resolution.nameservers]
        pace = Pace(self._timeout)
        self._pace = evolve(
            pace,
            pause=resolution.timeout or pace.pause,
            rounds=resolution.attempts or pace.rounds,
        )
        if before is not None and before.nameservers != resolution.nameservers:
            # In another network, other things are true.
            self._generation += 1
            self._cache.clear()
            self._asking.clear()

    def _ask(self, key: Key) -> Deferred[Answer]:
        """Return the answer to a question, which is asked once for all that want it at a time."""
        kept = self._cache.get(key, self._reactor.seconds())
        if kept is not None:
            return succeed(kept)
        joined = self._asking.get(key)
        if joined is None:
            joined = self._asking[key] = _Joined()
            self._pending.append((key, joined))
            self._begin()
        return joined.join()

    def _begin(self) -> None:
        while self._pending and len(self._running) < _AT_ONCE:
            key, joined = self._pending.popleft()
            nameservers = self._nameservers
            if self._configured is None and self._system.resolution.rotate:
                self._turn = (self._turn + 1) % len(nameservers)
                nameservers = nameservers[self._turn :] + nameservers[: self._turn]
            question = Question(
                self._reactor,
                *key,
                nameservers,
                self._pace,
                new_id=self._new_id,
                answered=partial(self._answered, key, joined, self._generation),
            )
            joined.question = question
            self._running[question] = None
            try:
                question.start()
            except Exception:  # a mistake of ours: no lookup is to wait for ever
                self._log.failure("a question could not be asked")
                question.stop()

    def _answered(
        self, key: Key, joined: _Joined, generation: int, result: Answer | NoAnswer
    ) -> None:
        assert joined.question is not None
        del self._running[joined.question]
        if self._asking.get(key) is joined:
            del self._asking[key]
        if isinstance(result, Answer) and generation == self._generation:
            self._cache.put(key, result, self._reactor.seconds())
        joined.end(result)
        self._begin()


def _address(octets: bytes) -> str:
    return inet_ntop(AF_INET if len(octets) == 4 else AF_INET6, octets)
