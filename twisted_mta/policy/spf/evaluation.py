"""The function ``check_host()`` of SPF (RFC 7208 §4): it evaluates the records of a domain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

from attrs import field, frozen

from ...interfaces import Clock, Resolver, WallTime
from ...mail.printable import printable
from .client_names import ClientNames, number_of
from .lookups import MOST_NAMES, LimitExceeded, Lookups, Unanswered
from .macros import domain as domain_name
from .macros import expanded_name, expanded_text, is_explanation, letters
from .record import Malformed, Mechanism, Record, parse, selected
from .result import Result, Word

PATIENCE: Final = 20.0
"""Seconds for a check: the least that RFC 7208 §4.6.4 recommends."""

_LONGEST_EXPLANATION = 400  # characters: a line of a reply has 510, with the name of the domain
_LONGEST_SHOWN = 100  # characters of a stranger's text in a result
_LONGEST_PROBLEM = 300


def _address(text: str) -> IPv4Address | IPv6Address:
    return _parsed(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text.partition("%")[0])  # without the zone of a link-local address
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _local_part(text: str) -> str:
    return text or "postmaster"


@frozen(kw_only=True)
class Claim:
    """What a client claims: that it may send mail for a domain (RFC 7208 §4.1).

    Attributes:
        address: of the client. Given as text; an IPv4 address that is mapped into IPv6 counts as
            IPv4 (§5).
        domain: whose record is evaluated, in lower-case A-labels.
        local_part: of the sender; given empty, it is ``postmaster`` (§4.3).
        helo: the name in the client's greeting, as it came.
    """

    address: IPv4Address | IPv6Address = field(converter=_address)
    domain: str
    local_part: str = field(default="", converter=_local_part)
    helo: str = ""


@frozen(kw_only=True)
class Checker:
    """Checks claims.

    Attributes:
        resolver: for all records.
        clock: for the time that a check may take.
        wall_time: for the macro ``t``.
        hostname: our own name, for the macro ``r``.
        patience: seconds for a check.
    """

    resolver: Resolver
    clock: Clock
    wall_time: WallTime
    hostname: str
    patience: float = PATIENCE

    async def check(self, claim: Claim) -> Result:
        """Return the result for a claim.

        What it costs is bounded, whatever the records say: see `Lookups` and `MOST_TERMS`.
        """
        check = _Check(self, claim)
        try:
            decision = await check.host(claim.domain)
        except _Undecided as problem:
            text = _shown(problem.text, _LONGEST_PROBLEM)
            return Result(problem.word, _shown(problem.domain), problem=text)
        explanation = ""
        if decision.word == "fail" and decision.explanation:
            explanation = await check.explanation(decision.explanation, decision.domain)
        return Result(
            decision.word, _shown(decision.domain), _shown(decision.mechanism), explanation
        )


class _Undecided(Exception):
    """The check ends with ``none``, ``temperror`` or ``permerror``."""

    def __init__(self, word: Word, domain: str, text: str) -> None:
        super().__init__(text)
        self.word = word
        self.domain = domain
        self.text = text


@frozen
class _Decision:
    """The result of a record.

    Attributes:
        word: the result.
        domain: of the record.
        mechanism: that matched; empty: none did.
        explanation: the ``domain-spec`` of ``exp=``; empty: there is none.
    """

    word: Word
    domain: str
    mechanism: str = ""
    explanation: str = ""


class _Check:
    """One check, with all records that it leads to."""

    def __init__(self, checker: Checker, claim: Claim) -> None:
        self._checker = checker
        self._resolver = checker.resolver
        self._claim = claim
        self._family: Literal[4, 6] = 4 if claim.address.version == 4 else 6
        self._address = int(claim.address)
        self._lookups = Lookups(checker.clock, checker.patience)

    @cached_property
    def _names(self) -> ClientNames:
        return ClientNames(self._claim.address, self._resolver, self._lookups)

    async def host(self, domain: str) -> _Decision:
        """Evaluate the record of a domain (RFC 7208 §4.3 to §4.7).

        Raises:
            _Undecided: there is no record, or no result.
        """
        try:
            record = await self._record(domain)
            for mechanism in record.mechanisms:
                matches = self._matches_without_query(mechanism)
                if matches is None:
                    matches = await self._matches(mechanism, domain)
                if matches:
                    return _Decision(mechanism.result, domain, mechanism.text, record.explanation)
            if not record.redirect or self._is_unusable(record.redirect):
                return _Decision("neutral", domain)  # §4.7
            self._lookups.count()
            target = await self._target(record.redirect, domain)
        except LimitExceeded as exceeded:
            raise _Undecided("permerror", domain, f"{domain}: {exceeded}") from None
        except Unanswered as unanswered:
            raise _Undecided("temperror", domain, str(unanswered)) from None
        # §6.1: what the record of another domain says, to the end, its explanation included.
        term = f"redirect={record.redirect}"
        if target is None:
            raise _Undecided("permerror", domain, f"{domain}: {_shown(term)} is no domain name")
        return await self._other(target, f"{domain}: {_shown(term)}")

    async def explanation(self, spec: str, domain: str) -> str:
        """Return the explanation of a domain (RFC 7208 §6.2); empty: there is none.

        Its queries count nowhere, and take no longer than the rest of the check's time.
        """
        try:
            target = await self._target(spec, domain, counts=False)
            texts = await self._lookups.ask(self._resolver.text(target)) if target else None
        except Unanswered:
            return ""
        if texts is None or len(texts) != 1 or not texts[0].isascii():
            return ""
        text = texts[0].decode("ascii")
        if not is_explanation(text):
            return ""
        values = await self._values(letters(text), domain, counts=False)
        expanded = expanded_text(text, values, _LONGEST_EXPLANATION) or ""
        return printable(expanded)[:_LONGEST_EXPLANATION].strip()

    # Records.

    async def _record(self, domain: str) -> Record:
        name = domain_name(domain)
        if name is None or not _is_full(domain):
            # §4.3
            raise _Undecided("none", domain, f"{_shown(domain)!r} is not a full domain name")
        texts = await self._lookups.ask(self._resolver.text(name))
        try:
            text = selected(texts or ())
            if text is None:
                missing = "does not exist" if texts is None else "has no SPF record"
                raise _Undecided("none", domain, f"{domain} {missing}")
            record = parse(text)
        except Malformed as malformed:
            raise _Undecided("permerror", domain, f"{domain}: {malformed}") from None
        if self._lookups.count_work(record.terms):
            await self._lookups.next_turn()
        return record

    async def _other(self, domain: str, term: str) -> _Decision:
        """Evaluate the record of a domain that another record names, and that must have one."""
        try:
            return await self.host(domain)
        except _Undecided as problem:
            if problem.word != "none":
                raise
            # §5.2, §6.1
            raise _Undecided("permerror", problem.domain, f"{term}: {problem.text}") from None

    # Mechanisms (RFC 7208 §5).

    def _matches_without_query(self, mechanism: Mechanism) -> bool | None:
        """Whether a mechanism matches that needs no query; None: it needs one."""
        match mechanism.kind:
            case "all":
                return True
            case "ip4":
                return self._family == 4 and self._shares(mechanism.network, mechanism)
            case "ip6":
                return self._family == 6 and self._shares(mechanism.network, mechanism)
        return None

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        self._lookups.count()
        target = await self._target(mechanism.target, domain) if mechanism.target else domain
        if target is None:
            return False
        match mechanism.kind:
            case "include":
                term = f"{domain}: {_shown(mechanism.text)}"
                return (await self._other(target, term)).word == "pass"
            case "a":
                return await self._matches_a(mechanism, target)
            case "mx":
                return await self._matches_mx(mechanism, target)
            case "exists":
                return await self._matches_exists(target)
        return await self._matches_ptr(target)

    async def _matches_a(self, mechanism: Mechanism, target: str) -> bool:
        found = await self._lookups.ask(self._resolver.family_addresses(target, self._family))
        # A host without AAAA records is not void: owners of hosts with IPv4 alone write `a`, and
        # the result must not depend on how many of them stand before the `ip6` of the client.
        if not found and (found is None or self._family == 4):
            self._lookups.count_void()
        return self._shares_any(found or (), mechanism)

    async def _matches_mx(self, mechanism: Mechanism, target: str) -> bool:
        exchangers = await self._lookups.ask(self._resolver.mail_exchangers(target))
        # §4.6.4 counts terms that find nothing, and so none of the hosts.
        if not exchangers:
            # §5.4: the address of the target does not take the place of missing MX records.
            self._lookups.count_void()
            return False
        if len(exchangers) > MOST_NAMES:
            # §4.6.4; also where one of the first ten matches: their order may differ each time.
            raise LimitExceeded(f"more than {MOST_NAMES} MX records of {target}")
        for _, host in sorted(exchangers):
            name = domain_name(host)
            if name is not None:
                lookup = self._resolver.family_addresses(name, self._family)
                if self._shares_any(await self._lookups.ask(lookup) or (), mechanism):
                    return True
        return False

    async def _matches_exists(self, target: str) -> bool:
        # §5.7: A records, also for a client with IPv6.
        if await self._lookups.ask(self._resolver.family_addresses(target, 4)):
            return True
        self._lookups.count_void()
        return False

    async def _matches_ptr(self, target: str) -> bool:
        try:
            names = await self._names.all()
        except Unanswered:
            return False  # §5.5
        if not names:
            self._lookups.count_void()
        return await self._names.is_below(target)

    def _shares(self, address: int, mechanism: Mechanism) -> bool:
        """Whether an address of the client's family shares the prefix with the client's."""
        if self._family == 4:
            return (address ^ self._address) >> (32 - mechanism.ipv4_length) == 0
        return (address ^ self._address) >> (128 - mechanism.ipv6_length) == 0

    def _shares_any(self, addresses: Sequence[str], mechanism: Mechanism) -> bool:
        return any(self._shares(number_of(each), mechanism) for each in addresses)

    # Macros (RFC 7208 §7).

    async def _target(self, spec: str, domain: str, *, counts: bool = True) -> str | None:
        """Return the name that a ``domain-spec`` stands for; None: nothing has such a name."""
        if "%" not in spec:
            return domain_name(spec)
        if self._is_unusable(spec):
            return None
        return expanded_name(spec, await self._values(letters(spec), domain, counts=counts))

    def _is_unusable(self, spec: str) -> bool:
        """Whether a term never matches since the local-part is not ASCII (RFC 8616 §4)."""
        return not self._claim.local_part.isascii() and not letters(spec).isdisjoint("sl")

    async def _values(self, used: frozenset[str], domain: str, *, counts: bool) -> dict[str, str]:
        claim = self._claim
        dotted = str(claim.address)
        if self._family == 6:
            dotted = ".".join(f"{self._address:032x}")
        values = {
            "s": f"{claim.local_part}@{claim.domain}",
            "l": claim.local_part,
            "o": claim.domain,
            "d": domain,
            "i": dotted,
            "p": "unknown",
            "v": "in-addr" if self._family == 4 else "ip6",
            "h": claim.helo or "unknown",
            "c": str(claim.address),
            "r": self._checker.hostname or "unknown",
            "t": str(int(self._checker.wall_time())),
        }
        if "p" in used:
            if counts and not self._names.are_known:
                self._lookups.count()  # §4.6.4
            values["p"] = await self._names.best(domain)
        return values


def _is_full(domain: str) -> bool:
    """Whether a domain has several labels, and is neither too long nor an IP address."""
    name = domain.removesuffix(".")
    _, dot, last = name.rpartition(".")
    return len(name) <= 253 and dot == "." and not last.isdigit() and not last.endswith("]")


def _shown(text: str, longest: int = _LONGEST_SHOWN) -> str:
    return printable(text if len(text) <= longest else f"{text[:longest]}...")
