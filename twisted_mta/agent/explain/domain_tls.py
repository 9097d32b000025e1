"""The TLS that mail for a domain would have now, and probes of the hosts that it goes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred

from ...config import Config
from ...delivery.candidates import Candidate, candidates
from ...delivery.probe import probe
from ...delivery.relay import Relay
from ...mail.address import Mailbox
from ...mail.next_hop import NextHop
from ...routing.lookup_report import LookupReporter
from ..mailboxes import Mailboxes
from .origin import tls

_MOST_PROBED = 5  # targets of one domain


class DomainTLS:
    """Answers for one process; the DNS and policy hosts are asked, and `probe` connects.

    Args:
        config: returns the settings in force.
        mailboxes: know where mail goes next.
        relay: delivers to other hosts.
        reporter: reports on the lookups of next hops.
    """

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        mailboxes: Mailboxes,
        relay: Relay,
        reporter: LookupReporter,
    ) -> None:
        self._config = config
        self._mailboxes = mailboxes
        self._relay = relay
        self._reporter = reporter

    def facts(self, domain: str) -> Deferred[dict[str, Any]]:
        """Return in JSON where mail for a domain goes, with the TLS that each target must have."""
        return Deferred.fromCoroutine(self._facts(domain, probes=False))

    def probe(self, domain: str) -> Deferred[dict[str, Any]]:
        """Return the same with a probe of each target that a delivery would try first."""
        return Deferred.fromCoroutine(self._facts(domain, probes=True))

    async def _facts(self, domain: str, *, probes: bool) -> dict[str, Any]:
        next_hop = self._mailboxes.route(Mailbox("postmaster", domain))
        facts: dict[str, Any] = {
            "domain": domain,
            "next_hop": str(next_hop),
            "rule": next_hop.rule,
            "failure": None,
            "targets": [],
        }
        if not next_hop.remote or next_hop.delivery:
            return facts
        lookup = await self._reporter.report(next_hop)
        host_terms = self._relay.terms.host_terms(next_hop, domain)
        found = await candidates(self._relay.connections, next_hop, host_terms, lookup.targets)
        facts["failure"] = None if lookup.failure is None else str(lookup.failure)
        facts["targets"] = [self._target(next_hop, domain, each) for each in found]
        if probes:  # all at once: those that are silent take half a minute
            probing = [Deferred.fromCoroutine(self._probed(each)) for each in found[:_MOST_PROBED]]
            for target, probed in zip(facts["targets"], probing, strict=False):
                target["probe"] = await probed
        return facts

    def _target(self, next_hop: NextHop, domain: str, candidate: Candidate) -> dict[str, Any]:
        target = candidate.target
        return {
            "host": target.name,
            "address": target.address,
            "port": target.port,
            "passed_over": candidate.passed_over,
            "tls": tls(self._config(), next_hop, domain, candidate),
        }

    async def _probed(self, candidate: Candidate) -> dict[str, Any]:
        found = await probe(
            self._relay.connections, candidate.target, candidate.terms, candidate.policy
        )
        return {
            "usable": found.usable,
            "verdict": found.verdict,
            "tls": None if found.tls is None else asdict(found.tls),
            "conversation": [str(line) for line in found.conversation],
        }
