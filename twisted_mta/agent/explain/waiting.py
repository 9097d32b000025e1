"""The reasons that keep a recipient in the queue now, and the time of its next attempt."""

from __future__ import annotations

from typing import Any

from ...queue.operator.operations import Inspected
from ...queue.operator.selection import QueuedRecipient
from ...queue.operator.suspended import SuspendedDestination
from ...queue.schedule.next_hop_status import NextHopStatus
from .facts import destination_facts, suspension_facts


def waiting_reasons(
    inspected: Inspected,
    entry: QueuedRecipient,
    status: NextHopStatus,
    *,
    waits: bool,
    now: float,
    destination: SuspendedDestination | None = None,
) -> list[dict[str, Any]]:
    """Return the reasons that keep a recipient in the queue now, the strongest first.

    Each has a ``kind``.

    Args:
        inspected: the message.
        entry: the recipient.
        status: of its next hop.
        waits: whether it is leased and waits for a delivery slot.
        now: wall time.
        destination: its destination, where the operator has suspended that.
    """
    reasons: list[dict[str, Any]] = []
    if inspected.quarantine is not None:
        reasons.append({"kind": "quarantine", "why": inspected.quarantine})
    if entry.held is not None:
        reasons.append({"kind": "held", "since": entry.held})
    if entry.removing:
        reasons.append({"kind": "removing"})
    if entry.elsewhere:
        reasons.append({"kind": "elsewhere"})
        return reasons
    if entry.leased and not waits:
        reasons.append({"kind": "delivery"})
        return reasons
    if reasons:
        return reasons
    if destination is not None:
        reasons.append({"kind": "suspended_by_operator", **destination_facts(destination)})
        return reasons
    if entry.next_attempt is not None and entry.next_attempt > now and not entry.leased:
        reasons.append({"kind": "retry", "until": entry.next_attempt})
    if status.suspended is not None:
        reasons.append({"kind": "suspended", **(suspension_facts(status.suspended) or {})})
    elif status.active >= status.allowed:
        reasons.append({"kind": "connections", "active": status.active, "allowed": status.allowed})
    if status.remote >= status.concurrency:
        reasons.append(
            {"kind": "concurrency", "active": status.remote, "allowed": status.concurrency}
        )
    if status.asking or status.next_by_rate is not None:
        rate = status.limits.rate
        reasons.append(
            {
                "kind": "limits",
                "rate": None if rate is None else str(rate),
                "known": status.next_by_rate is not None,
            }
        )
    if not reasons:
        reasons.append({"kind": "turn"})
    return reasons


def next_attempt(
    entry: QueuedRecipient,
    status: NextHopStatus,
    *,
    expected_at: float | None,
    now: float,
    destination: SuspendedDestination | None = None,
) -> float | None:
    """Return the wall time before which a recipient is not tried; None: never, as it is now.

    Args:
        entry: the recipient.
        status: of its next hop.
        expected_at: the time by the rate of its next hop, where it waits for its turn in memory.
        now: wall time.
        destination: its destination, where the operator has suspended that.
    """
    if destination is not None:
        if destination.until is None or entry.next_attempt is None:
            return None
        return max(destination.until, entry.next_attempt)
    if entry.leased:
        return max(now, expected_at or now)
    if entry.next_attempt is None:
        return None
    due = max(now + (status.next_by_rate or 0.0), entry.next_attempt)
    return due if status.suspended is None else max(due, now + status.suspended.seconds)
