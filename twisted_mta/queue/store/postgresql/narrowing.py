"""A selection as a condition in PostgreSQL (as `store.narrowing` is one in SQLite).

The condition is true of every recipient that the selection picks, and of few others; `Selection`
decides about those.
"""

from __future__ import annotations

from ...operator.operations import Action
from ...operator.selection import Selection
from ..narrowing import is_exact

__all__ = ["EVERYTHING", "is_exact", "narrowed"]

EVERYTHING = "true"
"""The condition that is true of every recipient."""

_STATES = {
    "held": "held IS NOT NULL",
    "quarantined": "held IS NULL AND next_attempt IS NULL AND removing IS NULL",
    "queued": "held IS NULL AND attempts = 0",
    "deferred": "held IS NULL AND attempts > 0",
}
_ACTIONS: dict[Action | None, str] = {
    "release": "held IS NOT NULL",
    "remove": "removing IS NULL",
    "retry": "next_attempt IS NOT NULL",
    "hold": "next_attempt IS NOT NULL",
}


def narrowed(selection: Selection, action: Action | None = None) -> tuple[str, list[str]]:
    """Return a condition on rows of ``recipient``, and the values of its parameters."""
    conditions: list[str] = []
    values: list[str] = []
    domain = selection.domain
    if domain is not None and domain[:1] == ".":
        conditions.append(f"right(domain, {len(domain)}) = %s")
        values.append(domain)
    elif domain is not None:
        conditions.append("domain = %s")
        values.append(domain)
    if selection.state is not None:
        conditions.append(_STATES[selection.state])
    if action in _ACTIONS:
        conditions.append(_ACTIONS[action])
    return " AND ".join(conditions) or EVERYTHING, values
