"""Selections: which recipients of the queue an operator means.

Filters pick recipients: of a message to two domains, a filter that names a domain picks the
recipients there and no others. A filter on the message (its id, sender or age) picks all its
recipients. Pure: no I/O.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import translate
from functools import lru_cache
from typing import Any, Literal, get_args

from attrs import frozen

from ...mail.address import AddressError, Mailbox, domain_name
from ...mail.envelope import Recipient
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ..ids import first_id

State = Literal["queued", "deferred", "held", "quarantined"]
"""The state of a recipient: not tried yet, tried before, held by the operator, without its body."""

STATES: tuple[State, ...] = get_args(State)

MOST_IDS = 10_000
"""Ids that one selection names at most."""


@frozen
class QueuedRecipient:
    """A recipient as it is in a store.

    Attributes:
        recipient: the recipient.
        next_attempt: wall time; None: it has none, since it is held, removed or quarantined.
        held: since when the operator holds it, wall time; None: it is not held.
        removing: whether the operator removed it while it was leased; it leaves the queue with its
            lease, unless it is delivered.
        leased: whether it is leased to a runner.
        elsewhere: whether that is one of another machine; it waits there, or is in delivery.
    """

    recipient: Recipient
    next_attempt: float | None
    held: float | None = None
    removing: bool = False
    leased: bool = False
    elsewhere: bool = False

    @property
    def state(self) -> State:
        """Its state."""
        if self.held is not None:
            return "held"
        if self.next_attempt is None and not self.removing:
            return "quarantined"
        return "deferred" if self.recipient.attempts else "queued"


@frozen
class Selection:
    """Recipients that match all filters; a filter of None matches every recipient.

    Attributes:
        ids: of messages, in rising order.
        to: a pattern for the recipient, or for the address that the sender wrote where an alias led
            to it. ``*`` matches any characters, ``?`` one; case does not matter.
        sender: a pattern for the reverse-path; the null reverse-path is ``<>``.
        domain: of recipients: ``example.net``, or ``.example.net`` for all domains below it.
        state: of recipients.
        before: messages with a lower id, which arrived before it.
    """

    ids: tuple[QueueId, ...] | None = None
    to: str | None = None
    sender: str | None = None
    domain: str | None = None
    state: State | None = None
    before: QueueId | None = None

    @classmethod
    def parse(cls, filters: Mapping[str, Any], *, now: float) -> Selection:
        """Return the selection of filters that came as JSON.

        Args:
            filters: ``ids``, ``to``, ``from``, ``domain``, ``state``, and ``older`` in seconds.
            now: wall time, for ages.

        Raises:
            ValueError: a filter cannot be read; the message names it.
        """
        for name in filters:
            if name not in _FILTERS:
                raise ValueError(f"found filter {name!r}, expected one of {', '.join(_FILTERS)}")
        ids, state, older = filters.get("ids"), filters.get("state"), filters.get("older")
        if ids is not None and not isinstance(ids, list | tuple):
            raise ValueError(f"ids: found {ids!r}, expected a list of queue ids")
        if ids is not None and len(ids) > MOST_IDS:
            raise ValueError(f"ids: found {len(ids):,}, expected at most {MOST_IDS:,} at once")
        if state is not None and state not in STATES:
            raise ValueError(f"state: found {state!r}, expected one of {', '.join(STATES)}")
        if older is not None and not _is_age(older):
            raise ValueError(f"older: found {older!r}, expected seconds")
        return cls(
            ids=None
            if ids is None
            else tuple(sorted({QueueId.parse(str(id)): None for id in ids})),
            to=_address(filters, "to"),
            sender=_address(filters, "from"),
            domain=_domain(filters),
            state=state,
            before=None if older is None else first_id(now - older),
        )

    def picks_message(self, id: QueueId, reverse_path: Mailbox | None) -> bool:
        """Whether the message matches the filters on messages."""
        return (
            (self.ids is None or _is_among(self.ids, id))
            and (self.before is None or id < self.before)
            and (self.sender is None or _matches(self.sender, str(reverse_path or "<>")))
        )

    def picks_recipient(self, queued: QueuedRecipient) -> bool:
        """Whether the recipient matches the filters on recipients."""
        if self.state is not None and queued.state != self.state:
            return False
        mailbox, original = queued.recipient.mailbox, queued.recipient.original
        domain = self.domain
        if domain is not None and not (
            mailbox.domain.endswith(domain) if domain[:1] == "." else mailbox.domain == domain
        ):
            return False
        return (
            self.to is None
            or _matches(self.to, str(mailbox))
            or (original is not None and _matches(self.to, str(original)))
        )


_OLDEST = 1e10  # seconds, three centuries
_FILTERS = ("ids", "to", "from", "domain", "state", "older")


def _is_age(older: object) -> bool:
    # JSON has numbers that are no age: negative ones, infinities and NaN.
    if isinstance(older, bool) or not isinstance(older, int | float):
        return False
    return 0 <= older <= _OLDEST


def _is_among(ids: Sequence[QueueId], id: QueueId) -> bool:
    place = bisect_left(ids, id)
    return place < len(ids) and ids[place] == id


def _text(filters: Mapping[str, Any], name: str) -> str | None:
    text = filters.get(name)
    if text is not None and (not isinstance(text, str) or not text or len(text) > 1000):
        raise ValueError(f"{name}: expected a text of 1 to 1,000 characters")
    return text


def _address(filters: Mapping[str, Any], name: str) -> str | None:
    """Return a pattern; an address without wildcards is normalized."""
    text = _text(filters, name)
    if text is not None and text != "<>":
        text = text.removeprefix("<").removesuffix(">")
        with suppress(AddressError):
            return str(Mailbox.parse(text))
    return text


def _domain(filters: Mapping[str, Any]) -> str | None:
    text = _text(filters, "domain")
    if text is None or text[:1] == "[":
        return text
    dot, name = ("." if text[:1] == "." else ""), text.removeprefix(".")
    try:
        return dot + domain_name(name)
    except AddressError as error:
        raise ValueError(printable(f"domain: {text}: {error}")) from None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    # The expression of fnmatch never backtracks behind a star that was passed: any user of the
    # page may name a pattern, and none is to keep the queue busy. A bracket stands for itself.
    return re.compile(translate(pattern.replace("[", "[[]")), re.IGNORECASE)


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None
