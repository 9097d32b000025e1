"""What a delivery would do now: which targets it would try, and on which terms."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ..mail.next_hop import NextHop, Target
from ..smtp.client.step import TLSLevel
from ..tls.memory import TLSFact
from .relay import Relay
from .terms import Terms, way_to


@frozen(kw_only=True)
class Prospect:
    """A target of a next hop.

    Attributes:
        target: see there.
        terms: on which a connection to it serves.
        level: what TLS it must have, with what is known of it.
        memory: what is known of its TLS, None: it was not had there lately.
        passed_over: why it would not be tried now; empty: it would.
        idle: whether a connection to it is there, and would serve.
    """

    target: Target
    terms: Terms
    level: TLSLevel
    memory: TLSFact | None = None
    passed_over: str = ""
    idle: bool = False


def prospects(
    relay: Relay, next_hop: NextHop, domain: str, targets: Sequence[Target]
) -> list[Prospect]:
    """Return the targets of a next hop in the order to try them, then those not to be tried.

    Args:
        relay: whose deliveries they are.
        next_hop: see there.
        domain: of the recipient.
        targets: as they were located.
    """
    ways = relay.terms.ways(next_hop, domain)
    order = relay.order(targets)
    rest = [target for target in targets if target not in order]
    # The connection that served the next hop last would serve without any lookup.
    serving = relay.pool.serving(next_hop, ways)
    found = []
    for target in (*order, *rest):
        terms = way_to(target, next_hop, ways)
        passed_over = ""
        if target in rest:
            seconds = relay.shunned_for(target)
            passed_over = (
                f"it could not be connected to just now: left out for {seconds:.0f} s"
                if seconds
                else f"only {relay.settings.targets} addresses are tried at a time"
            )
        idle = relay.pool.has(target, terms)
        if serving is not None and serving.target == target:
            idle = True
        found.append(
            Prospect(
                target=target,
                terms=terms,
                level=relay.level(target, terms),
                memory=relay.known_tls(target),
                passed_over=passed_over,
                idle=idle,
            )
        )
    if serving is not None:
        found.sort(key=lambda each: each.target != serving.target)
    return found
