"""A selection as a condition in SQL, so that the database passes over recipients by itself.

The condition is true of every recipient that the selection picks, and of few others; `Selection`
decides about those.
"""

from __future__ import annotations

import re

from attrs import frozen

from ..operator.operations import Action
from ..operator.selection import Selection

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

# Characters that are the same in a pattern, in a local part as it is stored, and in LIKE, which
# ignores the case of ASCII letters as patterns do.
_PLAIN = "-A-Za-z0-9.+="
_PATTERN = re.compile(rf"[{_PLAIN}*?]*")
_START = re.compile(rf"[{_PLAIN}]*")
_LIKE = str.maketrans("*?", "%_")


@frozen
class Dialect:
    """Conditions in the SQL of a database, each with one value.

    Attributes:
        everything: true of every recipient; it has no value.
        mark: of a value.
        equal: of a column; true where a text has the value, whatever the case of ASCII letters.
        ends: true where the domain ends with the value, which is ``length`` long.
        like: of a column; true where a text is like the value, whatever the case of ASCII letters,
            or has characters that are not plain: it may be quoted when it is written out.
    """

    everything: str
    mark: str
    equal: str
    ends: str
    like: str


SQLITE = Dialect(
    everything="1",
    mark="?",
    equal="{column} = ? COLLATE NOCASE",
    ends="substr(domain, -{length}) = ?",
    like=f"({{column}} LIKE ? OR {{column}} GLOB '*[^{_PLAIN}_]*')",
)

POSTGRESQL = Dialect(
    everything="true",
    mark="%s",
    equal="lower({column}) = lower(%s)",
    ends="right(domain, {length}) = %s",
    like=f"({{column}} ILIKE %s OR {{column}} ~ '[^{_PLAIN}_]')",
)


def narrowed(
    selection: Selection, dialect: Dialect, action: Action | None = None
) -> tuple[str, list[str]]:
    """Return a condition on rows of ``recipient``, and the values of its parameters."""
    conditions: list[str] = []
    values: list[str] = []
    domain = selection.domain
    if domain is not None:
        conditions.append(
            dialect.ends.format(length=len(domain))
            if domain[:1] == "."
            else f"domain = {dialect.mark}"
        )
        values.append(domain)
    if selection.state is not None:
        conditions.append(_STATES[selection.state])
    if action in _ACTIONS:
        conditions.append(_ACTIONS[action])
    if selection.to is not None:
        mailbox, its_values = _address(selection.to, dialect, "local_part", "domain")
        original, _ = _address(selection.to, dialect, "original_local", "original_domain")
        if mailbox:
            conditions.append(f"({mailbox} OR {original})")
            values += its_values * 2
    if selection.sender is not None:
        sender, its_values = _address(selection.sender, dialect, "sender_local", "sender_domain")
        if selection.sender == "<>":
            sender, its_values = "sender_local IS NULL", []
        if sender:
            conditions.append(
                f"EXISTS (SELECT 1 FROM message WHERE message.id = recipient.message AND {sender})"
            )
            values += its_values
    return " AND ".join(conditions) or dialect.everything, values


def is_exact(selection: Selection) -> bool:
    """Whether the condition is true of the selected recipients only, apart from their age."""
    return selection.ids is None and selection.to is None and selection.sender is None


def _address(pattern: str, dialect: Dialect, local_part: str, domain: str) -> tuple[str, list[str]]:
    """Return a condition on the columns of an address that every match of a pattern meets.

    Returns:
        The condition, and the values of its parameters. The condition is empty where the pattern
        has other characters than ASCII: the database does not know their upper and lower case. A
        local part that is quoted when it is written out always meets the condition.
    """
    if not pattern.isascii():
        return "", []
    conditions: list[str] = []
    values: list[str] = []
    local, at, name = pattern.rpartition("@")
    if at and name and not {"*", "?"} & set(name):
        conditions.append(dialect.equal.format(column=domain))
        values.append(name)
        like = local.translate(_LIKE) if _PATTERN.fullmatch(local) else "%"
    else:
        start = _START.match(pattern)
        like = f"{start[0] if start else ''}%"
    if like != "%":
        conditions.append(dialect.like.format(column=local_part))
        values.append(like)
    text = " AND ".join(conditions)
    return (f"({text})" if text else ""), values
