"""Destinations that the operator has suspended: their mail is accepted, and waits.

A *destination* is a recipient domain; all domains below one, written ``.example.net``; or a next
hop by the name that the log and the status give it. No attempt begins at a suspended destination
until the operator resumes it or its time is over; one that is under way ends by itself. Time goes
on for the mail: its sender is told of the delay, and it is returned at the end of its lifetime.

This is not the suspension of a next hop (`schedule.next_hops`), which failures bring about, and
which ends by a probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from attrs import evolve, frozen

from ...interfaces import WallTime
from ...mail.address import AddressError, domain_name
from ...mail.next_hop import NextHop
from ...mail.printable import printable
from ...mail.reply import Reply
from ..schedule.delivery import Delivery, Place

MOST_SUSPENDED = 1_000
"""Destinations that may be suspended at a time."""

LONGEST_REASON = 300
"""Characters of a reason."""

_LONGEST_NAME = 320  # characters of a destination
_TRANSPORTS = ("smtp:", "smtps:", "lmtp:", "deliver:")


@frozen
class SuspendedDestination:
    """A destination that the operator has suspended.

    Attributes:
        name: a recipient domain in lower case, ``.example.net`` for all domains below one, or the
            name of a next hop.
        since: wall time.
        until: wall time; None: until the operator resumes it.
        reason: in the operator's words; may be empty.
        by: the operator.
    """

    name: str
    since: float
    until: float | None = None
    reason: str = ""
    by: str = ""

    @property
    def is_domain(self) -> bool:
        """Whether it is one recipient domain: neither all below one nor a next hop."""
        return not self.name.startswith((".", *_TRANSPORTS))

    @property
    def reply(self) -> Reply:
        """What the sender of a message is told; the operator's reason is for operators alone."""
        # RFC 3463 §3.4: X.3.2 is a system that does not take messages, as during maintenance.
        name = printable(self.name)
        below = "domains below " if name.startswith(".") else ""
        return Reply.of(
            451,
            "3.2",
            f"Delivery to {below}{name.removeprefix('.')} is suspended by the operator of this MTA",
        )

    def ends_by(self, now: float) -> bool:
        """Whether its time is over (``now`` is wall time)."""
        return self.until is not None and self.until <= now


def read_destination(text: str) -> str:
    """Return the name of a destination that an operator typed.

    Raises:
        ValueError: it is no domain, no ``.domain``, and no name of a next hop; the message is
            printable.
    """
    text = text.strip()
    if len(text) <= _LONGEST_NAME and text.isascii() and text.isprintable():
        # Beside its name the status shows whose settings hold for a next hop.
        name = text.partition(" (mail for ")[0]
        if name.lower().startswith(_TRANSPORTS) and " " not in name:
            scheme, colon, rest = name.partition(":")
            if rest:
                # Hosts are in lower case; the names of deliveries and paths of sockets are not.
                if scheme.lower() != "deliver" and not rest.startswith("/"):
                    rest = rest.lower()
                return f"{scheme.lower()}{colon}{rest}"
    dot, domain = ("." if text.startswith(".") else ""), text.removeprefix(".")
    # An address literal has no domains below it.
    if len(text) <= _LONGEST_NAME and not (dot and domain.startswith("[")):
        with suppress(AddressError):
            return dot + domain_name(domain)
    raise ValueError(
        f"found destination {printable(repr(text[:_LONGEST_NAME]))}, expected a recipient domain"
        " such as example.net, .example.net for all domains below it, or a next hop as twisted-mta"
        " status names it, such as smtp:relay.example.net:25"
    )


def destination_names(domain: str, next_hop: NextHop) -> Iterator[str]:
    """Yield the names of all destinations that mail for a domain has, the most specific first.

    Args:
        domain: of recipients.
        next_hop: that the mail goes to.
    """
    yield domain
    at = domain.find(".")
    while at >= 0:
        yield domain[at:]
        at = domain.find(".", at + 1)
    yield str(next_hop)
    yield str(next_hop.shared)


class SuspendedDestinations:
    """The suspended destinations as one process knows them.

    Args:
        wall_time: for the end of suspensions.
    """

    def __init__(self, wall_time: WallTime) -> None:
        self._wall_time = wall_time
        self._by_name: dict[str, SuspendedDestination] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def replace(self, destinations: Sequence[SuspendedDestination]) -> bool:
        """Take over what the store has; return whether that changes anything."""
        now = self._wall_time()
        by_name = {each.name: each for each in destinations if not each.ends_by(now)}
        if by_name == self._by_name:
            return False
        self._by_name = by_name
        return True

    def in_force(self) -> list[SuspendedDestination]:
        """Return those that are suspended now, by name."""
        now = self._wall_time()
        return [each for _, each in sorted(self._by_name.items()) if not each.ends_by(now)]

    def find(self, domain: str, next_hop: NextHop) -> SuspendedDestination | None:
        """Return why mail for a domain, which goes to a next hop, is not tried; None: it is."""
        if not self._by_name:
            return None
        now = self._wall_time()
        for name in destination_names(domain, next_hop):
            found = self._by_name.get(name)
            if found is not None and not found.ends_by(now):
                return found
        return None

    def expire(self) -> list[SuspendedDestination]:
        """Drop those whose time is over, and return them."""
        if not self._by_name:
            return []
        now = self._wall_time()
        ended = [each for each in self._by_name.values() if each.ends_by(now)]
        if ended:
            self.replace(list(self._by_name.values()))
        return ended

    def next_end(self) -> float | None:
        """Return the wall time at which the next suspension ends by itself; None: none does."""
        if not self._by_name:
            return None
        ends = [each.until for each in self._by_name.values() if each.until is not None]
        return min(ends, default=None)

    def divide(self, delivery: Delivery) -> tuple[Delivery | None, Delivery | None]:
        """Return what of a delivery may begin, and what may not.

        The place of the delivery stays with what may begin, if anything may.
        """
        if not self._by_name:
            return delivery, None
        recipients = delivery.message.envelope.recipients
        found = [self.find(each.mailbox.domain, delivery.next_hop) for each in recipients]
        if not any(found):
            return delivery, None
        if all(found):
            return None, delivery
        pairs = list(zip(recipients, found, strict=True))
        stays = delivery.for_recipients([each for each, why in pairs if why is None])
        goes = delivery.for_recipients([each for each, why in pairs if why is not None])
        return stays, evolve(goes, place=Place.NONE)
