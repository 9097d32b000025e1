"""How things stand with one next hop, for who asks why something is still here."""

from __future__ import annotations

from attrs import frozen

from .backoff import Backoff
from .next_hops import NextHopLimits, SuspendedNextHop


@frozen(kw_only=True)
class NextHopStatus:
    """What holds the mail for a next hop now, in one process.

    Attributes:
        name: what the next hop is called.
        limits: what the operator said of it.
        backoff: when it is tried again.
        suspended: it is left alone; None: it is not.
        active: transactions with it under way.
        allowed: how many it gets at once now, as it has shown to bear.
        connections: how many it can get at the most.
        waiting: transactions in memory that wait for their turn.
        asking: those of them that wait for a place in what is counted over all processes:
            connections, rate, concurrency.
        remote: transactions with all other hosts under way.
        concurrency: how many of those there may be.
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
