"""Attempts, next hops and steps of aliases in plain types, for JSON."""

from __future__ import annotations

from typing import Any

from ...mail.classification import classify
from ...mail.failed_step import failed_step
from ...mail.next_hop import NextHop
from ...queue.operator.suspended import SuspendedDestination
from ...queue.schedule.next_hop_status import NextHopStatus
from ...queue.schedule.next_hops import SuspendedNextHop
from ...queue.store.attempts import PastAttempt
from ...routing.alias_walk import ExpansionStep


def attempt_facts(attempt: PastAttempt) -> dict[str, Any]:
    """Return an attempt in plain types, without the facts of TLS and the transcript."""
    return {
        "attempt": attempt.attempt,
        "ended_at": attempt.ended_at,
        "next_hop": attempt.next_hop,
        "reply": str(attempt.reply),
        "classification": classify(attempt.reply),
        "remote": attempt.remote,
        "uncertain": attempt.uncertain,
        "unreachable": attempt.unreachable,
        "machine": attempt.machine,
    }


def next_hop_facts(status: NextHopStatus) -> dict[str, Any]:
    """Return the state of a next hop in plain types."""
    return {
        "name": status.name,
        "suspended": suspension_facts(status.suspended),
        **{
            name: getattr(status, name)
            for name in (
                *("active", "allowed", "connections", "waiting", "asking"),
                *("remote", "concurrency"),
            )
        },
    }


def suspension_facts(suspended: SuspendedNextHop | None) -> dict[str, Any] | None:
    """Return a suspension in plain types; None where there is none."""
    if suspended is None:
        return None
    return {
        "seconds": suspended.seconds,
        "times": suspended.times,
        "failed": failed_step(suspended.cause),
        "reply": str(suspended.cause.reply),
        "remote": suspended.cause.remote,
    }


def destination_facts(destination: SuspendedDestination) -> dict[str, Any]:
    """Return a destination that the operator has suspended in plain types."""
    return {
        "destination": destination.name,
        "since": destination.since,
        "until": destination.until,
        "reason": destination.reason,
        "by": destination.by,
    }


def step_facts(step: ExpansionStep, next_hop: NextHop) -> dict[str, Any]:
    """Return a step through the aliases, and the next hop of its mailbox, in plain types."""
    return {
        "mailbox": str(step.mailbox),
        "depth": step.depth,
        "finding": step.finding,
        "leads_to": [str(each) for each in step.leads_to],
        "line": step.line,
        "transport": next_hop.transport,
        "next_hop": str(next_hop),
    }
