"""The queue of a next hop: the mail that waits for it, in memory and in the store."""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from .delivery import Delivery
from .next_hops import NextHopState

_WAITING = 80  # places of a next hop beyond its transactions at most; a lease fills half of them


class Kind(IntEnum):
    """The kinds of next hops, each with places in memory of its own."""

    LOCAL = 0  # Maildirs, and mail that is discarded or refused here
    PROVEN = 1  # reached by the last attempt
    UNPROVEN = 2  # not reached by the last attempt, or not tried yet


LOCAL, PROVEN, UNPROVEN = Kind.LOCAL, Kind.PROVEN, Kind.UNPROVEN
"""The kinds by name: an attribute of an Enum costs a call, too much for each message."""


class NextHopQueue:
    """The mail for one next hop.

    Attributes:
        state: whether the next hop can be reached, and how many transactions it takes.
        next_hop: the next hop.
        limited: whether its transactions are limited in number (`NextHop.limited`).
        kind: its kind.
        waiting: deliveries in memory that have not begun, the most urgent first.
        due: due time and name of the domains that have mail due in the store; a heap.
        places: places in memory that it has.
        weight: of the deliveries in them (`Delivery.weight`).
        claimed: those of them that are claimed for mail that is being committed or read.
        acquiring: transactions that wait for a delivery slot.
        sweep: domains whose expired mail is to be read while the next hop is suspended.
        sweep_at: when that is filled again, or the suspension ends, by the clock.
        failed_in: the number of the operator's intervention that was the latest when an attempt
            failed to reach the next hop.
    """

    __slots__ = (
        "acquiring",
        "claimed",
        "due",
        "failed_in",
        "kind",
        "limited",
        "next_hop",
        "places",
        "state",
        "sweep",
        "sweep_at",
        "waiting",
        "weight",
    )

    def __init__(self, state: NextHopState) -> None:
        self.state = state
        self.next_hop = state.next_hop
        self.limited = state.next_hop.limited
        self.kind = UNPROVEN
        self.waiting: deque[Delivery] = deque()
        self.due: list[tuple[float, str]] = []
        self.places = 0
        self.weight = 0
        self.claimed = 0
        self.acquiring = 0
        self.sweep: deque[str] = deque()
        self.sweep_at = 0.0
        self.failed_in = 0

    @property
    def share(self) -> int:
        """Places in memory that it may have while there are plenty."""
        limit = self.state.limit
        return limit + (limit if self.kind is UNPROVEN else min(4 * limit, _WAITING))

    def free_places(self, now: float, *, plenty: bool) -> int:
        """Return how many more places its state allows.

        Args:
            now: by the clock.
            plenty: whether it may have more places than can begin at once.
        """
        if self.state.suspension is None:
            return (self.share if plenty else self.state.limit) - self.places
        return self.state.allowance(now) - len(self.waiting) - self.claimed

    @property
    def is_idle(self) -> bool:
        """Whether there is no mail for it."""
        return not (self.places or self.due or self.waiting)
