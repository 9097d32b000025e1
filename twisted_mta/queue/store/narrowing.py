"""What the database can pass over by itself of what a selection does not pick.

A condition in SQL that is true of all that is picked, and of little else: `Selection` decides.
"""

from __future__ import annotations

import re

from ..operator.operations import Action
from ..operator.selection import Selection

EVERYTHING = "1"
"""The condition that is true of all."""

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

# Characters that stand for themselves in an address as it is written, in a local chunk as it is
# stored, and in LIKE, which takes upper and lower case of ASCII for the same, as patterns do.
_PLAIN = "-A-Za-z0-9.+="
_PATTERN = re.compile(rf"[{_PLAIN}*?]*")
_START = re.compile(rf"[{_PLAIN}]*")
_LIKE = str.maketrans("*?", "%_")


def narrowed(selection: Selection, action: Action | None = None) -> tuple[str, list[str]]:
    """Return a condition on rows of ``recipient``, and the values of its parameters."""
    conditions: list[str] = []
    values: list[str] = []
    domain = selection.domain
    if domain is not None and domain[:1] == ".":
        conditions.append(f"substr(domain, -{len(domain)}) = ?")
        values.append(domain)
    elif domain is not None:
        conditions.append("domain = ?")
        values.append(domain)
    if selection.state is not None:
        conditions.append(_STATES[selection.state])
    if action in _ACTIONS:
        conditions.append(_ACTIONS[action])
    if selection.to is not None:
        written, those = _address(selection.to, "local_part", "domain")
        original, _ = _address(selection.to, "original_local", "original_domain")
        if written:
            conditions.append(f"({written} OR {original})")
            values += those * 2
    if selection.sender is not None:
        sent, those = _address(selection.sender, "sender_local", "sender_domain")
        if selection.sender == "<>":
            sent, those = "sender_local IS NULL", []
        if sent:
            conditions.append(
                f"EXISTS (SELECT 1 FROM message WHERE message.id = recipient.message AND {sent})"
            )
            values += those
    return " AND ".join(conditions) or EVERYTHING, values


def is_exact(selection: Selection) -> bool:
    """Whether the condition is true of nothing else, age apart."""
    return selection.ids is None and selection.to is None and selection.sender is None


def _address(pattern: str, local_part: str, domain: str) -> tuple[str, list[str]]:
    """Return what is true of the columns of every address that matches a pattern; empty: nothing.

    Only where the pattern is of ASCII: what else is the same in upper and lower case the database
    does not know. A local chunk that is written otherwise than it is stored is not passed over.
    """
    if not pattern.isascii():
        return "", []
    conditions: list[str] = []
    values: list[str] = []
    local, at, name = pattern.rpartition("@")
    if at and name and not {"*", "?"} & set(name):
        conditions.append(f"{domain} = ? COLLATE NOCASE")
        values.append(name)
        like = local.translate(_LIKE) if _PATTERN.fullmatch(local) else "%"
    else:
        start = _START.match(pattern)
        like = f"{start[0] if start else ''}%"
    if like != "%":
        conditions.append(f"({local_part} LIKE ? OR {local_part} GLOB '*[^{_PLAIN}_]*')")
        values.append(like)
    text = " AND ".join(conditions)
    return (f"({text})" if text else ""), values
