"""The targets that a delivery would try now, in their order, each with its terms and its TLS."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from ..mail.next_hop import NextHop, Target
from ..mail.tls_policy import TLSPolicy
from ..tls.memory import TLSHost
from .connections import Connections
from .terms import HostTerms, Terms, terms_for
from .wishes import fitted, refusal


@frozen(kw_only=True)
class Candidate:
    """One target of a next hop, as a delivery would see it now.

    Attributes:
        target: an address and port of a host.
        terms: the terms of a connection to it.
        policy: the TLS that a connection must have.
        memory: the host's entry in the TLS memory, None where it has none.
        passed_over: why a delivery would not try it now; empty where it would.
        idle: whether an idle connection to it would serve.
    """

    target: Target
    terms: Terms
    policy: TLSPolicy
    memory: TLSHost | None = None
    passed_over: str = ""
    idle: bool = False


def candidates(
    connections: Connections, next_hop: NextHop, host_terms: HostTerms, targets: Sequence[Target]
) -> Deferred[list[Candidate]]:
    """Return the targets of a next hop in the order to try them, then those passed over.

    Args:
        connections: of the relay that delivers.
        next_hop: where the mail goes.
        host_terms: the terms with ``next_hop`` for the recipient's domain.
        targets: in the order of the lookup.
    """
    return Deferred.fromCoroutine(_candidates(connections, next_hop, host_terms, targets))


async def _candidates(
    connections: Connections, next_hop: NextHop, host_terms: HostTerms, targets: Sequence[Target]
) -> list[Candidate]:
    tried = connections.order(targets)
    passed_over = [target for target in targets if target not in tried]
    # The connection that served the next hop last is used without any lookup.
    serving = connections.pool.serving(next_hop, host_terms)
    result = []
    host_by_host = [
        (target, terms_for(target, next_hop, host_terms)) for target in (*tried, *passed_over)
    ]
    # All at once: the records of each host may take as long as a lookup may.
    looked_up = [
        connections.policies.policy(next_hop, target, terms) for target, terms in host_by_host
    ]
    for (target, terms), found in zip(host_by_host, looked_up, strict=True):
        policy = fitted(found if isinstance(found, TLSPolicy) else await found, terms)
        reply = refusal(next_hop, target, terms, policy)
        if reply is not None and policy.problem is None:
            policy = evolve(policy, problem=reply.text)
        reason = ""
        if target in passed_over:
            seconds = connections.unreachable.seconds_left(target)
            reason = (
                f"connecting to it failed just now: passed over for {seconds:.0f} s"
                if seconds
                else f"at most {connections.settings.targets} addresses are tried per delivery"
            )
        result.append(
            Candidate(
                target=target,
                terms=terms,
                policy=policy,
                memory=connections.known_tls(target),
                passed_over=reason,
                idle=connections.pool.has(target, terms, policy)
                or (serving is not None and serving.target == target),
            )
        )
    if serving is not None:
        result.sort(key=lambda candidate: candidate.target != serving.target)
    return result
