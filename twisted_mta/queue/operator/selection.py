"""What an operator picks of a queue, pure: recipients, by what is said of them and their messages.

A filter is about recipients: of a message to two domains, one that names a domain picks the
recipients there and no others. What is said of the message (its id, its sender, its age) is true of
all its recipients.
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
"""Of a recipient: not tried yet, tried before, held by the operator, or without its body."""

STATES: tuple[State, ...] = get_args(State)

MOST_IDS = 10_000
"""How many ids one selection may name."""


@frozen
class QueuedRecipient:
    """A recipient as it is in a store.

    Attributes:
        recipient: see there.
        next_attempt: wall time; None: never, as things are.
        held: since when the operator holds it, wall time; None: not held.
        removing: the operator removed it while it was at work; it goes when that is over.
        leased: whether a runner is at work on it.
    """

    recipient: Recipient
    next_attempt: float | None
    held: float | None = None
    removing: bool = False
    leased: bool = False

    @property
    def state(self) -> State:
        """See `State`."""
        if self.held is not None:
            return "held"
        if self.next_attempt is None and not self.removing:
            return "quarantined"
        return "deferred" if self.recipient.attempts else "queued"


@frozen
class Selection:
    """Which recipients are meant: those that everything said here is true of.

    Attributes:
        ids: of messages, in rising order; None: any.
        to: a pattern for the recipient, or for what the sender wrote where an alias led there.
            ``*`` and ``?`` stand for any characters and for one; upper and lower case are the same.
        sender: likewise for the reverse-path, which is ``<>`` where it is null.
        domain: of recipients: ``example.net``, or ``.example.net`` for all below it.
        state: see `State`.
        before: only messages whose id is lower: those that came before a moment.
    """

    ids: tuple[QueueId, ...] | None = None
    to: str | None = None
    sender: str | None = None
    domain: str | None = None
    state: State | None = None
    before: QueueId | None = None

    @classmethod
    def parse(cls, said: Mapping[str, Any], *, now: float) -> Selection:
        """Return what filters in JSON mean.

        Args:
            said: ``ids``, ``to``, ``from``, ``domain``, ``state``, and ``older`` in seconds.
            now: wall time that ages are counted from.

        Raises:
            ValueError: a filter cannot be read; which, and why.
        """
        for name in said:
            if name not in _FILTERS:
                raise ValueError(f"no filter {name!r}; there are {', '.join(_FILTERS)}")
        ids, state, older = said.get("ids"), said.get("state"), said.get("older")
        if ids is not None and not isinstance(ids, list | tuple):
            raise ValueError("ids: a list of queue ids")
        if ids is not None and len(ids) > MOST_IDS:
            raise ValueError(f"ids: at most {MOST_IDS:,} at once, not {len(ids):,}")
        if state is not None and state not in STATES:
            raise ValueError(f"state: one of {', '.join(STATES)}, not {state!r}")
        if older is not None and not _is_age(older):
            raise ValueError(f"older: seconds, not {older!r}")
        return cls(
            ids=None
            if ids is None
            else tuple(sorted({QueueId.parse(str(id)): None for id in ids})),
            to=_address(said, "to"),
            sender=_address(said, "from"),
            domain=_domain(said),
            state=state,
            before=None if older is None else first_id(now - older),
        )

    def picks_message(self, id: QueueId, reverse_path: Mailbox | None) -> bool:
        """Whether what is said of the message is true."""
        return (
            (self.ids is None or _is_among(self.ids, id))
            and (self.before is None or id < self.before)
            and (self.sender is None or _matches(self.sender, str(reverse_path or "<>")))
        )

    def picks_recipient(self, entry: QueuedRecipient) -> bool:
        """Whether what is said of the recipient is true."""
        if self.state is not None and entry.state != self.state:
            return False
        mailbox, original = entry.recipient.mailbox, entry.recipient.original
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
    # JSON has numbers that no clock has: below nothing, without end, and none at all.
    if isinstance(older, bool) or not isinstance(older, int | float):
        return False
    return 0 <= older <= _OLDEST


def _is_among(ids: Sequence[QueueId], id: QueueId) -> bool:
    place = bisect_left(ids, id)
    return place < len(ids) and ids[place] == id


def _text(said: Mapping[str, Any], name: str) -> str | None:
    text = said.get(name)
    if text is not None and (not isinstance(text, str) or not text or len(text) > 1000):
        raise ValueError(f"{name}: a text of 1 to 1,000 characters")
    return text


def _address(said: Mapping[str, Any], name: str) -> str | None:
    """Return a pattern; an address without wildcards is brought into its one form."""
    text = _text(said, name)
    if text is not None and text != "<>":
        text = text.removeprefix("<").removesuffix(">")
        with suppress(AddressError):
            return str(Mailbox.parse(text))
    return text


def _domain(said: Mapping[str, Any]) -> str | None:
    text = _text(said, "domain")
    if text is None or text[:1] == "[":
        return text
    dot, name = ("." if text[:1] == "." else ""), text.removeprefix(".")
    try:
        return dot + domain_name(name)
    except AddressError as error:
        raise ValueError(printable(f"domain: {text}: {error}")) from None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    # What fnmatch makes of it never goes back behind a star that was passed: whoever reaches the
    # page may ask, and no pattern is to keep the queue busy. A bracket is one, and begins no class.
    return re.compile(translate(pattern.replace("[", "[[]")), re.IGNORECASE)


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None
