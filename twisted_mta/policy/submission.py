"""Submission (RFC 6409): rules for mail of authenticated clients, and the fields added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import getaddresses
from itertools import islice
from typing import Literal

from attrs import frozen

from ..auth.sliding_window import SlidingWindow, hashed_name
from ..mail.address import AddressError, Mailbox
from ..mail.decision import Decision
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..message.date import date_time
from ..message.header import values
from ..smtp.server.session import Session

SENDER_NOT_ALLOWED = Reply.of(550, "7.1", "Not an address that you may send as")
HEADER_SENDER_NOT_ALLOWED = Reply.of(
    550, "7.1", "From or Sender has an address that you may not send as"
)
TOO_MUCH_MAIL = Reply.of(450, "7.1", "Too much mail in an hour, try again later")

_OWN_NAMES = ("from", "sender")
# Of From and Sender, as far as they are read: RFC 5322 §3.6 allows one field each. To parse the
# characters blocks the reactor for 8 ms, and to look up the addresses for some more.
_MOST_FIELDS = 10
_LONGEST_NAMES = 4_096
_MOST_ADDRESSES = 100


@frozen(kw_only=True)
class SubmissionPolicy:
    """The rules of a listener for authenticated clients.

    Attributes:
        own_addresses: where an account is restricted to its own addresses: nowhere, in the
            envelope, or in the header too.
        completes: whether missing Date and Message-ID are added (RFC 6409 §8).
        adds_sender: whether Sender is added if From is not an address of the account (RFC 6409
            §8.1).
        recipients_per_hour: of one account; 0 is any number.
        messages_per_hour: of one account; 0 is any number.
    """

    own_addresses: Literal["off", "envelope", "header"] = "envelope"
    completes: bool = False
    adds_sender: bool = False
    recipients_per_hour: int = 0
    messages_per_hour: int = 0

    @property
    def reads_header(self) -> bool:
        """Whether the header of a message matters."""
        return self.completes or self.adds_sender or self.own_addresses == "header"


@frozen(kw_only=True)
class Submission:
    """Decides on the mail of authenticated clients.

    Attributes:
        may_send_as: returns whether an account may use an address.
        address_of: returns the address of an account for a Sender field; None if it has none.
        sent: counts the recipients and messages of accounts in the last hour.
    """

    may_send_as: Callable[[str, Mailbox], bool]
    address_of: Callable[[str], Mailbox | None]
    sent: SlidingWindow

    def mail(
        self, policy: SubmissionPolicy, session: Session, reverse_path: Mailbox | None
    ) -> Decision:
        """Decide on a reverse-path (RFC 6409 §6.1); the null one is always allowed."""
        identity = session.identity
        if identity is None or reverse_path is None or policy.own_addresses == "off":
            return None
        return None if self.may_send_as(identity, reverse_path) else SENDER_NOT_ALLOWED

    async def count(
        self, policy: SubmissionPolicy, session: Session, what: Literal["recipients", "messages"]
    ) -> Decision:
        """Count one more recipient or message of an account; refuse it beyond the limit."""
        recipients = what == "recipients"
        limit = policy.recipients_per_hour if recipients else policy.messages_per_hour
        if session.identity is None or not limit:
            return None
        key = ("submitted", what, hashed_name(session.identity))
        return None if await self.sent.add(key, limit) else TOO_MUCH_MAIL

    def added(
        self,
        policy: SubmissionPolicy,
        identity: str,
        header: bytes,
        *,
        id: QueueId,
        hostname: str,
        time: float,
    ) -> bytes | Reply:
        """Return the fields to prepend to a message, or the reply that refuses it.

        Args:
            policy: of the listener.
            identity: name of the account.
            header: header section of the message.
            id: its queue id.
            hostname: our name, for a Message-ID.
            time: of reception, seconds since the epoch; for a Date.
        """
        fields = {
            name: list(islice(values(header, name), _MOST_FIELDS + 1))
            for name in (*_OWN_NAMES, "date", "message-id")
        }
        own = all(self._is_own(identity, address) for address in _originators(fields))
        if policy.own_addresses == "header" and not (own and fields["from"]):
            return HEADER_SENDER_NOT_ALLOWED
        added = b""
        if policy.adds_sender and not own and not fields["sender"]:
            sender = self.address_of(identity)
            if sender is not None:
                added += f"Sender: <{sender}>\r\n".encode()
        if policy.completes and not fields["date"]:
            added += f"Date: {date_time(int(time))}\r\n".encode()
        if policy.completes and not fields["message-id"]:
            added += f"Message-ID: <{id}@{hostname}>\r\n".encode()
        return added

    def _is_own(self, identity: str, address: Mailbox | None) -> bool:
        return address is not None and self.may_send_as(identity, address)


def _originators(fields: Mapping[str, Sequence[str]]) -> Iterator[Mailbox | None]:
    """Yield the addresses of From and Sender; None for any that cannot be read."""
    written = [value for name in _OWN_NAMES for value in fields[name]]
    if (
        max(len(fields[name]) for name in _OWN_NAMES) > _MOST_FIELDS
        or sum(map(len, written)) > _LONGEST_NAMES
    ):
        yield None
    else:
        addresses = dict.fromkeys(each for value in written for each in _addresses(value))
        yield from addresses if len(addresses) <= _MOST_ADDRESSES else (None,)


def _addresses(value: str) -> Iterator[Mailbox | None]:
    """Yield the addresses of a field; None for any that cannot be read."""
    try:
        pairs = getaddresses([value])
    except RecursionError:  # hundreds of nested comments or groups
        pairs = []
    if not pairs:
        yield None
    for _, address in pairs:
        try:
            mailbox = Mailbox.parse(address)
        except AddressError:
            yield None
        else:
            yield mailbox if mailbox.domain else None
