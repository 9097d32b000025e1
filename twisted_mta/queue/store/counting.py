"""The operator's counts, slice by slice; the database counts, without the interpreter.

The statements are those that SQLite and PostgreSQL have in common.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from ...mail.address import Mailbox
from ...mail.queue_id import QueueId
from ..operator.operations import (
    By,
    Category,
    Group,
    Summarize,
    Summarized,
    Tallied,
    Tally,
    reason,
)
from .narrowing import Dialect, is_exact, narrowed

LAST = 2**63 - 1
"""The highest id."""

Read = Callable[[str, Sequence[Any]], list[Any]]
"""Returns the rows of a statement, with ``?`` for each value."""

_GROUPED = {
    "domain": "domain",
    "sender": "sender_local, sender_domain",
    "reason": "held IS NOT NULL, attempts > 0, last_code, last_status",
}

_TALLY = (
    "SELECT count(*), max(message), attempts > 0, next_attempt IS NOT NULL,"
    " held IS NOT NULL, last_code, last_status, last_remote IS NULL, domain, min(message),"
    # None on hold or quarantined has a next attempt.
    " min(message) FILTER (WHERE next_attempt IS NOT NULL"
    " AND (attempts > 0 OR next_attempt <= ?)) FROM"
    " (SELECT * FROM recipient WHERE message > ? AND message < ?"
    " ORDER BY message, number LIMIT ?) AS slice"
    " GROUP BY 3, 4, 5, 6, 7, 8, 9"
)


def reached(read: Read, after: int, last: int, reach: int) -> tuple[int, int]:
    """Return the message that is ``reach`` recipients away, and how many recipients there are."""
    [(end, count)] = read(
        "SELECT max(message), count(*) FROM (SELECT message FROM recipient"
        " WHERE message > ? AND message < ? ORDER BY message, number LIMIT ?) AS slice",
        (after, last, reach),
    )
    return after if end is None else end, count


def between(read: Read, after: int, end: int) -> int:
    """Return how many recipients there are behind one message, up to another."""
    [(count,)] = read(
        "SELECT count(*) FROM recipient WHERE message > ? AND message <= ?", (after, end)
    )
    return int(count)


def summarize(read: Read, summarize: Summarize, dialect: Dialect) -> Summarized:
    """Count the recipients of a slice in groups.

    Raises:
        ValueError: the selection has other filters than those that the database knows.
    """
    selection = summarize.selection
    if not is_exact(selection):
        raise ValueError("found a filter by id or address, expected domain, state or older")
    condition, values = narrowed(selection, dialect)
    last = LAST if selection.before is None else selection.before
    end, looked_at = reached(read, summarize.after, last, summarize.reach)
    columns = _GROUPED[summarize.by]
    join = " JOIN message ON message.id = recipient.message" if summarize.by == "sender" else ""
    places = ", ".join(str(6 + place) for place in range(columns.count(",") + 1))
    groups: dict[str, Group] = {}
    for recipients, messages, deferred, held, oldest, *key in read(
        "SELECT count(*), count(DISTINCT message), count(*) FILTER (WHERE attempts > 0),"
        f" count(held), min(message), {columns} FROM recipient{join}"
        f" WHERE message > ? AND message <= ? AND {condition} GROUP BY {places}",
        (summarize.after, end, *values),
    ):
        group = Group(recipients, messages, deferred, held, QueueId(oldest))
        name = _name(summarize.by, key)
        groups[name] = groups[name] + group if name in groups else group
    following = QueueId(end) if looked_at == summarize.reach else None
    return Summarized(groups, looked_at, following)


def _name(by: By, key: Sequence[Any]) -> str:
    """Return the name of a group, from the columns that it is made by."""
    if by == "domain":
        return str(key[0])
    if by == "sender":
        return "<>" if key[0] is None else str(Mailbox(key[0], key[1]))
    held, attempts, code, status = key
    return reason(held=bool(held), attempts=attempts, code=code, status=status)


def tally(read: Read, tally: Tally) -> Tallied:
    """Count the recipients of a slice by age, reason and domain."""
    edges = [tally.after, *tally.ages, LAST]
    counts: dict[Category, int] = {}
    domains: dict[str, tuple[dict[Category, int], QueueId]] = {}
    after, left = tally.after, tally.limit
    oldest: int | None = None
    for age in range(bisect_right(tally.ages, tally.after), len(tally.ages) + 1):
        until = edges[age + 1]
        rows = read(_TALLY, (tally.now, after, until, left))
        categories: dict[tuple[Any, ...], Category] = {}
        for count, _, deferred, waiting, held, code, status, ours, domain, first, waits in rows:
            if waits is not None:
                oldest = waits if oldest is None else min(oldest, waits)
            kind = deferred, waiting, held, code, status, ours
            each = categories.get(kind)
            if each is None:
                each = categories[kind] = Category(
                    age, bool(deferred), bool(waiting), bool(held), code, status, bool(ours)
                )
            counts[each] = counts.get(each, 0) + count
            known = domains.get(domain)
            if known is None:
                domains[domain] = {each: count}, QueueId(first)
            else:
                known[0][each] = known[0].get(each, 0) + count
                if first < known[1]:
                    domains[domain] = known[0], QueueId(first)
            left -= count
        if left <= 0:
            after = max(row[1] for row in rows)
            # Further recipients of the last message are not counted: the tally is an estimate.
            return Tallied(counts, tally.limit, QueueId(after), _id(oldest), domains)
        after = max(after, until - 1)
    return Tallied(counts, tally.limit - left, None, _id(oldest), domains)


def _id(number: int | None) -> QueueId | None:
    return None if number is None else QueueId(number)
