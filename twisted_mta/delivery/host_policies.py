"""Decide what TLS the connection to one host must have: settings, DANE, MTA-STS, TLS memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

from attrs import evolve
from twisted.internet.defer import Deferred

from ..interfaces import Resolver, WallTime
from ..mail.next_hop import NextHop, Target
from ..mail.printable import printable
from ..mail.tls_policy import TLSLevel, TLSPolicy, TLSTerms
from ..mail.tls_result import ResultType
from ..system.coroutines import outcome
from ..tls.memory import TLSMemory
from ..tls.mta_sts.found import Find, Found, policy_domain

if TYPE_CHECKING:
    from .dane_policies import DANEPolicies


class HostPolicies:
    """Decides on the TLS with each host (`interfaces.TLSPolicies`).

    Args:
        resolver: the DNS; None: no host publishes a policy.
        memory: the hosts known to do TLS; None: no host is known.
        wall_time: seconds since the epoch.
        mta_sts: finds the MTA-STS policy of a domain; None: no domain has one.
        mta_sts_authorities: returns the path of the PEM file with the authorities of hosts under
            such a policy; None: those of the system.
    """

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        memory: TLSMemory | None = None,
        wall_time: WallTime = lambda: 0.0,
        mta_sts: Find | None = None,
        mta_sts_authorities: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._memory = memory
        self._dane: DANEPolicies | None = None
        if resolver is not None:
            # Here: a program that only sends to a server that it names needs no library for DNS.
            from .dane_policies import DANEPolicies

            self._dane = DANEPolicies(resolver, wall_time)
        self._mta_sts = mta_sts
        self._mta_sts_authorities = mta_sts_authorities

    def policy(
        self, next_hop: NextHop, target: Target, terms: TLSTerms
    ) -> TLSPolicy | Deferred[TLSPolicy]:
        """Return the policy for a host."""
        level = terms.level
        if level in ("none", "encrypt", "verify"):
            return TLSPolicy(level=level)
        if level == "may":
            return self._opportunistic(target, terms)
        return outcome(self._published(next_hop, target, terms))

    async def _published(self, next_hop: NextHop, target: Target, terms: TLSTerms) -> TLSPolicy:
        """Return the policy that a host publishes, or its domain."""
        by_dane: TLSPolicy | str = "it is not looked up"
        if self._dane is not None:
            by_dane = await self._dane.find(next_hop, target)
        if terms.level == "dane":
            return self._demanded(next_hop, target, by_dane)
        is_enough = terms.level == "auto" and _is_whole(by_dane)
        if isinstance(by_dane, TLSPolicy) and (by_dane.problem is not None or is_enough):
            return by_dane  # RFC 8461 §2: never does MTA-STS override DANE
        found = await self._domain_policy(next_hop, target)
        if terms.level == "mta-sts" and not (found is not None and found.is_enforced):
            if found is None:
                return _missing("MTA-STS", "the host belongs to no domain")
            return _noting(found, _missing("MTA-STS", found.missing))
        if isinstance(by_dane, TLSPolicy):
            return by_dane if found is None else self._besides(by_dane, found, target)
        if found is None:
            return self._opportunistic(target, terms)
        if not (found.is_enforced or found.is_tested):
            return _noting(found, self._opportunistic(target, terms))
        return self._under_mta_sts(found, target, terms)

    async def _domain_policy(self, next_hop: NextHop, target: Target) -> Found | None:
        """Return what the domain of a host publishes by MTA-STS; None: it has no domain."""
        domain = policy_domain(next_hop, target)
        return None if domain is None or self._mta_sts is None else await self._mta_sts(domain)

    def _under_mta_sts(self, found: Found, target: Target, terms: TLSTerms) -> TLSPolicy:
        """Return the policy for a host of a domain with MTA-STS (RFC 8461 §5)."""
        policy = self._by_mta_sts(found)
        fault = found.fault(target.name)
        if fault is not None:
            policy = evolve(policy, trouble="validation-failure", trouble_reason=fault)
        if found.is_enforced:
            return evolve(policy, problem=fault)
        without = self._opportunistic(target, terms)
        if without.remembered:
            policy = evolve(policy, source=without.source, since=without.since, remembered=True)
        return evolve(policy, level=without.level, testing=True, fault=fault or "")

    def _besides(self, by_dane: TLSPolicy, found: Found, target: Target) -> TLSPolicy:
        """Return the policy for a host with DANE that is not enough, in a domain with MTA-STS.

        Its TLSA records are not usable; or it was found by MX records that DNSSEC does not prove,
        or MTA-STS is demanded: then both have to be fulfilled.
        """
        if not found.is_enforced:
            return by_dane
        policy = self._by_mta_sts(found)
        if by_dane.level == "dane":
            policy = evolve(
                by_dane,
                source=f"{by_dane.source}; {policy.source}",
                patterns=policy.patterns,
                authorities=policy.authorities,
                unproven_host=False,
            )
        return evolve(policy, problem=found.fault(target.name))

    def _by_mta_sts(self, found: Found) -> TLSPolicy:
        assert found.policy is not None
        return TLSPolicy(
            level="verify",
            source=found.description,
            since=found.since,
            patterns=found.policy.patterns,
            authorities=self._mta_sts_authorities(),
            kind="sts",
            domain=found.domain,
            strings=tuple(found.policy.lines),
        )

    def _demanded(self, next_hop: NextHop, target: Target, found: TLSPolicy | str) -> TLSPolicy:
        """Return the policy for a host that has to be verified by DANE."""
        if isinstance(found, str):
            return _missing("DANE", found, "dane-required")
        if found.problem is not None:
            return found
        if found.level != "dane":
            return _missing("DANE", "none of its TLSA records is usable", "dane-required")
        if not target.secure:
            domain = printable(next_hop.domain or target.name)
            reason = f"DNSSEC does not prove the MX records of {domain}"
            return _missing("DANE", reason, "dane-required")
        return found

    def _opportunistic(self, target: Target, terms: TLSTerms) -> TLSPolicy:
        """Return the policy for a host that publishes none: the least, or what it did before."""
        least: TLSLevel = "may" if terms.least == "none" else terms.least
        if least == "may" and terms.require_memory and self._memory is not None:
            known = self._memory.known(target.name, target.port)
            if known is not None:
                # RFC 3207 §6: a man in the middle can take STARTTLS out of the dialogue.
                return TLSPolicy(
                    level="encrypt", source="TLS memory", since=known.first, remembered=True
                )
        return TLSPolicy(level=least)


def _is_whole(by_dane: TLSPolicy | str) -> bool:
    """Whether DANE proves that a server is the one that the mail is for."""
    if isinstance(by_dane, str):
        return False
    return by_dane.level == "dane" and not by_dane.unproven_host


def _noting(found: Found, policy: TLSPolicy) -> TLSPolicy:
    """Return a policy that also says, for reports, why there is none by MTA-STS."""
    if not found.trouble:
        return policy
    return evolve(
        policy,
        kind="sts",
        domain=found.domain,
        trouble=cast(ResultType, found.trouble),
        trouble_reason=found.problem,
    )


def _missing(
    how: Literal["DANE", "MTA-STS"], reason: str, trouble: ResultType | None = None
) -> TLSPolicy:
    """Return the policy for a host that does not publish what the configuration demands."""
    problem = f"{how} is required, and {reason}"
    level: TLSLevel = "dane" if how == "DANE" else "verify"
    return TLSPolicy(level=level, problem=problem, trouble=trouble)
