"""Decide what TLS the connection to one host must have: settings, DANE, MTA-STS, TLS memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..interfaces import Resolver, WallTime
from ..mail.next_hop import NextHop, Target
from ..mail.printable import printable
from ..mail.tls_policy import TLSLevel, TLSPolicy, TLSTerms
from ..mail.tls_result import ResultType
from ..system.coroutines import outcome
from ..tls.memory import TLSMemory
from .dane_policies import DANEPolicies


class HostPolicies:
    """Decides on the TLS with each host (`interfaces.TLSPolicies`).

    Args:
        resolver: the DNS; None: no host publishes a policy.
        memory: the hosts known to do TLS; None: no host is known.
        wall_time: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        memory: TLSMemory | None = None,
        wall_time: WallTime = lambda: 0.0,
    ) -> None:
        self._memory = memory
        self._dane = None if resolver is None else DANEPolicies(resolver, wall_time)

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
        if self._dane is not None and terms.level in ("auto", "dane"):
            by_dane = await self._dane.find(next_hop, target)
        if terms.level == "dane":
            return self._demanded(next_hop, target, by_dane)
        if terms.level == "mta-sts":
            return _missing("MTA-STS", "no policy is published for it")
        if isinstance(by_dane, TLSPolicy):
            return by_dane
        return self._opportunistic(target, terms)

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


def _missing(how: str, reason: str, trouble: ResultType | None = None) -> TLSPolicy:
    """Return the policy for a host that does not publish what the configuration demands."""
    problem = f"{how} is required, and {reason}"
    return TLSPolicy(level="encrypt", problem=problem, trouble=trouble)
