"""Who is told what, and when: notices for the outcomes of one message (RFC 3461 §5.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ..interfaces import Ids
from ..mail.address import Mailbox, folded
from ..mail.body import MemoryBody
from ..mail.envelope import Envelope, Parameters, Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.reply import Reply
from ..message.dsn.delivery_status import Action, ReportedRecipient
from ..message.dsn.notice import notice
from ..message.header import fields
from ..smtp.extension.deliverby import DeliverBy

_LOOP = re.compile(r"\bloop(?:s|ing)?\b|too many (?:hops|\W{0,9}received)", re.IGNORECASE)

_LOOKED_AT = 64 * 1024  # octets of a header section
_TO = ("to", "delivered-to", "x-original-to")
_POSTMASTER = re.compile(r"\bpostmaster\b[^@\s,<>]{0,64}@", re.IGNORECASE)

_NEVER: Parameters = {"NOTIFY": "NEVER"}

EXPANDED = Reply.of(250, "0.0", "It stands for several others")

RecipientsOf = Callable[[Mailbox], Sequence[Recipient]]
"""Says whom a message of our own goes to that is for a mailbox, numbered from 0; at least one."""


def itself(mailbox: Mailbox) -> Sequence[Recipient]:
    """Return a mailbox as the only recipient (`RecipientsOf`)."""
    return (Recipient(RecipientNumber(0), mailbox),)


@frozen(kw_only=True)
class NoticeSettings:
    """What notices there are.

    Attributes:
        hostname: our name in them.
        lifetime: seconds that one has before it is given up.
        delay_warning: seconds after which a sender is told that mail is delayed; None: never.
        postmaster: who gets the failures of mail that nobody sent, notices first of all; None:
            nobody.
    """

    hostname: str
    lifetime: float = 5 * 24 * 3600.0
    delay_warning: float | None = None
    postmaster: Mailbox | None = None


@frozen
class Written:
    """Notices for one message.

    Attributes:
        messages: to be queued.
        actions: what each says that happened.
        warned: recipients of whose delay one of them tells.
        unreported: failures that none of them tells of.
    """

    messages: tuple[Message, ...] = ()
    actions: tuple[Action, ...] = ()
    warned: tuple[RecipientNumber, ...] = ()
    unreported: tuple[Outcome, ...] = ()


NOTHING = Written()


class Notices:
    """Writes the notices.

    Args:
        settings: see there.
        ids: of notices.
        recipients_of: whom a notice goes to.

    Attributes:
        settings: those in force.
    """

    _log = Logger()

    def __init__(
        self, settings: NoticeSettings, *, ids: Ids, recipients_of: RecipientsOf = itself
    ) -> None:
        self.settings = settings
        self._ids = ids
        self._recipients_of = recipients_of

    def is_delay_due(self, message: Message, recipient: Recipient, now: float) -> bool:
        """Whether the sender is to be told that a recipient is delayed (RFC 3461 §5.2.5)."""
        if recipient.warned or message.envelope.reverse_path is None:
            return False
        by = DeliverBy.of(message.envelope.parameters)
        if by is not None and not by.returned and now >= by.seconds:
            # RFC 2852 §4: it was asked for, for this message, unless it is NEVER.
            return recipient.parameters.get("NOTIFY") != "NEVER"
        after = self.settings.delay_warning
        return (
            after is not None
            and now >= message.released_at + after
            and recipient.is_to_notify("DELAY")
        )

    def write(
        self,
        message: Message,
        now: float,
        *,
        failed: Sequence[ReportedRecipient] = (),
        delayed: Sequence[ReportedRecipient] = (),
        succeeded: Sequence[ReportedRecipient] = (),
        success: Action = "delivered",
        owner: Mailbox | None = None,
    ) -> Written:
        """Write a notice for each kind of event that somebody is to be told of.

        Args:
            message: what they happened to.
            now: wall time.
            failed: recipients that get nothing.
            delayed: those whose delay `is_delay_due`.
            succeeded: those that got it.
            success: what that means.
            owner: of a list, who is told of those that failed instead of the sender.
        """
        if not (failed or delayed or succeeded):
            return NOTHING
        sender = message.envelope.reverse_path
        written: list[tuple[Action, Message]] = []
        unreported = [event.outcome for event in failed]
        warned: tuple[RecipientNumber, ...] = ()
        if failed:
            reader = owner or (None if sender else self.settings.postmaster)
            told = self._told(message, failed) if reader or sender else []
            made = self._made("failed", message, told, now, reader)
            if made is not None:
                written.append(("failed", made))
                reported = {event.outcome.number: None for event in told}
                unreported = [each for each in unreported if each.number not in reported]
        if delayed:
            made = self._made("delayed", message, delayed, now)
            if made is not None:
                written.append(("delayed", made))
            # Also where it cannot be made: it would not be the next time either.
            warned = tuple(event.recipient.number for event in delayed)
        if succeeded and sender is not None:
            told = [event for event in succeeded if event.recipient.is_to_notify("SUCCESS")]
            made = self._made(success, message, told, now)
            if made is not None:
                written.append((success, made))
        return Written(
            messages=tuple(each for _, each in written),
            actions=tuple(action for action, _ in written),
            warned=warned,
            unreported=tuple(unreported),
        )

    def expanded(self, message: Message, now: float) -> Written:
        """Write the notice that mailboxes stand for several others (RFC 3461 §5.2.7.3)."""
        events = [
            ReportedRecipient(recipient, Outcome(recipient.number, EXPANDED), attempted=False)
            for recipient in message.expanded
        ]
        return self.write(message, now, succeeded=events, success="expanded")

    def refused(self, message: Message, now: float) -> Written:
        """Write the notices of recipients that a message was not taken for (`Message.refused`).

        One goes to the sender, and one to each owner of a list who looks after its members; without
        a sender (RFC 5321 §4.5.5) no owner hears of it.
        """
        told: dict[Mailbox | None, list[ReportedRecipient]] = {}
        sender = message.envelope.reverse_path
        for each in message.refused:
            owner, recipient = each.owner if sender else None, each.recipient
            if owner is not None:
                recipient = evolve(recipient, parameters={})  # what the sender asked for
            outcome = Outcome(recipient.number, each.reply)
            told.setdefault(owner, []).append(
                ReportedRecipient(recipient, outcome, attempted=False)
            )
        # What the sender asked for is not what the owner did.
        unasked = evolve(message, envelope=evolve(message.envelope, parameters={}))
        written = [
            self.write(unasked if owner else message, now, failed=events, owner=owner)
            for owner, events in told.items()
        ]
        return Written(
            messages=tuple(each for one in written for each in one.messages),
            actions=tuple(each for one in written for each in one.actions),
            unreported=tuple(each for one in written for each in one.unreported),
        )

    def _told(
        self, message: Message, failed: Sequence[ReportedRecipient]
    ) -> list[ReportedRecipient]:
        """Return the failures that somebody is to be told of."""
        if message.envelope.reverse_path is not None:
            return [event for event in failed if event.recipient.is_to_notify("FAILURE")]
        # RFC 5321 §4.5.5: the failure of a notice is never told to a sender. What the operator gets
        # goes no further, here or elsewhere: two systems would tell each other without end.
        told = [
            event
            for event in failed
            if not (
                _is_postmaster(event.recipient.original or event.recipient.mailbox)
                or _is_postmaster(event.recipient.mailbox)
                or _is_of_a_loop(event.outcome.reply)
            )
        ]
        return [] if not told or _is_for_postmaster(message) else told

    def _made(
        self,
        action: Action,
        message: Message,
        events: Sequence[ReportedRecipient],
        now: float,
        reader: Mailbox | None = None,
    ) -> Message | None:
        to = reader or message.envelope.reverse_path
        if to is None or not events:
            return None
        try:
            return self._message(action, message, events, now, to, reader)
        except MemoryError:
            raise  # it can be made when there is some
        except Exception:
            self._log.failure(
                "no notice could be made of what happened to {id}: {action}",
                id=message.id,
                action=action,
            )
            return None

    def _message(
        self,
        action: Action,
        message: Message,
        events: Sequence[ReportedRecipient],
        now: float,
        to: Mailbox,
        reader: Mailbox | None,
    ) -> Message | None:
        readers = self._readers(to)
        if not readers:
            shown = printable(str(to))
            self._log.info(
                "there is nobody <{reader}> to tell of {id}", reader=shown, id=message.id
            )
            return None
        id = self._ids()
        made = notice(
            action,
            message,
            events,
            hostname=self.settings.hostname,
            id=id,
            time=now,
            reader=reader,
            seven_bit=any(each.mailbox.is_ascii for each in readers),
        )
        self._log.info(
            "{id} is the notice for {message}, {action}, to <{reader}>",
            id=id,
            message=message.id,
            action=action,
            reader=printable(str(to)),
        )
        return Message(
            id=id,
            envelope=Envelope(
                None,
                # RFC 3461 §6.1: of a notice nobody is told anything.
                tuple(evolve(each, parameters=_NEVER) for each in readers),
                made.parameters,
            ),
            trace=b"",
            body=MemoryBody(made.content),
            received_at=now,
            expires_at=now + self.settings.lifetime,
        )

    def _readers(self, mailbox: Mailbox) -> Sequence[Recipient]:
        """Return whom a notice goes to: where the aliases lead, if it is one of our mailboxes.

        Nobody, if it would be a mailbox of ours and there is none of that name.
        """
        try:
            return self._recipients_of(mailbox)
        except Exception:
            shown = printable(str(mailbox))
            self._log.failure("whom notices to <{mailbox}> go to is not known", mailbox=shown)
            return itself(mailbox)


def _is_postmaster(mailbox: Mailbox) -> bool:
    return folded(mailbox.local_part).partition("+")[0] == "postmaster"


def _is_of_a_loop(reply: Reply) -> bool:
    """Whether a message failed because it went round in circles (RFC 3463 X.4.6).

    Few say so by a status: Postfix says 5.4.0, others none.
    """
    return reply.status == "4.6" or _LOOP.search(reply.text) is not None


def _is_for_postmaster(message: Message) -> bool:
    """Whether a message without a sender is for a postmaster, wherever aliases led it since.

    It may be a notice of what this system or another one could not deliver to anybody else.
    """
    header = b""
    try:
        for chunk in message.body.chunks():
            header += chunk
            if b"\r\n\r\n" in header or len(header) >= _LOOKED_AT:
                break
    except OSError:
        return False
    return any(
        name.lower() in _TO and _POSTMASTER.search(value) is not None
        for name, value in fields(header[:_LOOKED_AT])
    )
