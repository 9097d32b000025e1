"""Decide what TLS the connection to one host must have: settings, DANE, MTA-STS, TLS memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..interfaces import Resolver, WallTime
from ..mail.next_hop import NextHop, Target
from ..mail.tls_policy import TLSLevel, TLSPolicy, TLSTerms
from .memory import TLSMemory

_MISSING = {
    "dane": "its TLS has to be verified by DANE, which is not possible: {reason}",
    "mta-sts": "its TLS has to be verified by MTA-STS, which is not possible: {reason}",
}


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
        self._resolver = resolver
        self._memory = memory
        self._wall_time = wall_time

    def policy(
        self, next_hop: NextHop, target: Target, terms: TLSTerms
    ) -> TLSPolicy | Deferred[TLSPolicy]:
        """Return the policy for a host."""
        level = terms.level
        if level in ("none", "encrypt", "verify"):
            return TLSPolicy(level=level)
        if level in ("dane", "mta-sts"):
            problem = _MISSING[level].format(reason="no policy is published for it")
            return TLSPolicy(level="encrypt", problem=problem)
        return self._opportunistic(target, terms)

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
