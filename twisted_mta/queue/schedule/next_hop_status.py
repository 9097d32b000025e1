"""The status of a next hop: what its mail waits for, as ``twisted-mta explain`` shows it."""

from __future__ import annotations

from attrs import frozen

from .backoff import Backoff
from .next_hops import NextHopLimits, SuspendedNextHop


@frozen(kw_only=True)
class NextHopStatus:
    """What one process knows of a next hop now.

    Attributes:
        name: of the next hop.
        limits: the limits from the configuration.
        backoff: between attempts at it.
        suspended: why and for how long it is suspended; None: it is not.
        active: transactions under way with it.
        allowed: transactions that it gets at once now, by what it has shown to bear.
        connections: transactions that it can get at once at most.
        waiting: deliveries in memory that wait for it.
        asking: those of them that wait for a delivery slot: a limit on connections, rate or
            concurrency over all processes.
        remote: transactions under way with all other hosts.
        concurrency: transactions with all other hosts at most.
        next_by_rate: seconds until a message behind all others in memory is expected to begin, by
            the rate; None: the rate does not delay it.
    """

    name: str
    limits: NextHopLimits
    backoff: Backoff
    suspended: SuspendedNextHop | None
    active: int
    allowed: int
    connections: int
    waiting: int
    asking: int
    remote: int
    concurrency: int
    next_by_rate: float | None = None
