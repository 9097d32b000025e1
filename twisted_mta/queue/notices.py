"""Notices: which of them the outcomes of a message cause, and to whom they go (RFC 3461 §5.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ..interfaces import Ids
from ..mail.address import Mailbox, is_postmaster
from ..mail.assessment import Assessment
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

_LONGEST_HEADER = 64 * 1024  # octets of a header section that are searched
_RECIPIENT_FIELDS = ("to", "delivered-to", "x-original-to")
_POSTMASTER = re.compile(r"\bpostmaster\b[^@\s,<>]{0,64}@", re.IGNORECASE)

_OURS = Assessment(signs=True)

_MAIL_FROM = "smtp.mailfrom="
"""The beginning of a verdict of SPF on the reverse-path (RFC 8601 §2.7.2)."""

_NEVER: Parameters = {"NOTIFY": "NEVER"}

EXPANDED = Reply.of(250, "0.0", "Expanded to several recipients")

RecipientsOf = Callable[[Mailbox], Sequence[Recipient]]
"""Returns the recipients of a notice to a mailbox, numbered from 0; none: no such mailbox."""


def itself(mailbox: Mailbox) -> Sequence[Recipient]:
    """Return a mailbox as the only recipient (`RecipientsOf`)."""
    return (Recipient(RecipientNumber(0), mailbox),)


@frozen(kw_only=True)
class NoticeSettings:
    """The settings of notices.

    Attributes:
        hostname: of this server, as notices name it.
        domain: of the address in From; empty: the hostname.
        lifetime: seconds that the delivery of a notice is tried.
        delay_warning: seconds after which a delay is reported to the sender; None: never.
        postmaster: gets notices about failed mail that has no sender, such as notices; None: no
            notice is written.
    """

    hostname: str
    domain: str = ""
    lifetime: float = 5 * 24 * 3600.0
    delay_warning: float | None = None
    postmaster: Mailbox | None = None


@frozen
class Written:
    """The notices about one message.

    Attributes:
        messages: the notices.
        actions: the action of each notice (RFC 3464 §2.3.3).
        warned: recipients whose delay a notice reports.
        unreported: failures that no notice reports.
    """

    messages: tuple[Message, ...] = ()
    actions: tuple[Action, ...] = ()
    warned: tuple[RecipientNumber, ...] = ()
    unreported: tuple[Outcome, ...] = ()


NOTHING = Written()


class Notices:
    """Writes notices.

    Args:
        settings: those in force.
        ids: of notices.
        recipients_of: returns the recipients of a notice.

    Attributes:
        settings: those in force; for a reload to replace.
    """

    _log = Logger()

    def __init__(
        self, settings: NoticeSettings, *, ids: Ids, recipients_of: RecipientsOf = itself
    ) -> None:
        self.settings = settings
        self._ids = ids
        self._recipients_of = recipients_of

    def is_delay_due(self, message: Message, recipient: Recipient, now: float) -> bool:
        """Whether the delay of a recipient is to be reported now (RFC 3461 §5.2.5)."""
        if recipient.warned or message.envelope.reverse_path is None:
            return False
        by = DeliverBy.of(message.envelope.parameters)
        if by is not None and not by.returned and now >= by.seconds:
            # RFC 2852 §4: the sender asked for it with BY, unless NOTIFY is NEVER.
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
        """Write one notice for the failures, one for the delays, one for the successes.

        Each is written only where it is wanted, and none to a sender that was probably forged.

        Args:
            message: the message.
            now: wall time.
            failed: its recipients that have failed.
            delayed: its recipients whose delay `is_delay_due`.
            succeeded: its recipients that were delivered.
            success: the action of the notice about them.
            owner: of a mailing list; gets the notice about failures instead of the sender.
        """
        if not (failed or delayed or succeeded):
            return NOTHING
        if _is_of_doubtful_sender(message):
            return Written(
                warned=tuple(each.recipient.number for each in delayed),
                unreported=tuple(each.outcome for each in failed),
            )
        sender = message.envelope.reverse_path
        written: list[tuple[Action, Message]] = []
        unreported = [each.outcome for each in failed]
        warned: tuple[RecipientNumber, ...] = ()
        if failed:
            reader = owner or (None if sender else self.settings.postmaster)
            wanted = self._wanted_failures(message, failed) if reader or sender else []
            notice = self._notice("failed", message, wanted, now, reader)
            if notice is not None:
                written.append(("failed", notice))
                reported = {each.outcome.number: None for each in wanted}
                unreported = [each for each in unreported if each.number not in reported]
        if delayed:
            notice = self._notice("delayed", message, delayed, now)
            if notice is not None:
                written.append(("delayed", notice))
            # Also where the notice cannot be written: the next attempt at it would fail, too.
            warned = tuple(each.recipient.number for each in delayed)
        if succeeded and sender is not None:
            wanted = [each for each in succeeded if each.recipient.is_to_notify("SUCCESS")]
            notice = self._notice(success, message, wanted, now)
            if notice is not None:
                written.append((success, notice))
        return Written(
            messages=tuple(notice for _, notice in written),
            actions=tuple(action for action, _ in written),
            warned=warned,
            unreported=tuple(unreported),
        )

    def expanded(self, message: Message, now: float) -> Written:
        """Write the notice that mailboxes were expanded to several others (RFC 3461 §5.2.7.3)."""
        expanded = [
            ReportedRecipient(recipient, Outcome(recipient.number, EXPANDED), attempted=False)
            for recipient in message.expanded
        ]
        return self.write(message, now, succeeded=expanded, success="expanded")

    def refused(self, message: Message, now: float) -> Written:
        """Write the notices about recipients that were refused (`Message.refused`).

        One goes to the sender, and one to each owner of a mailing list with such members; where the
        message has no sender, to no owner (RFC 5321 §4.5.5).
        """
        failures: dict[Mailbox | None, list[ReportedRecipient]] = {}
        sender = message.envelope.reverse_path
        for each in message.refused:
            owner, recipient = each.owner if sender else None, each.recipient
            if owner is not None:
                recipient = evolve(recipient, parameters={})  # NOTIFY is the sender's wish
            outcome = Outcome(recipient.number, each.reply)
            failures.setdefault(owner, []).append(
                ReportedRecipient(recipient, outcome, attempted=False)
            )
        # The parameters are the sender's wishes, not those of an owner; but RFC 8689 §6.
        kept = _protection(message)
        without_wishes = evolve(message, envelope=evolve(message.envelope, parameters=kept))
        written = [
            self.write(without_wishes if owner else message, now, failed=failed, owner=owner)
            for owner, failed in failures.items()
        ]
        return Written(
            messages=tuple(notice for each in written for notice in each.messages),
            actions=tuple(action for each in written for action in each.actions),
            unreported=tuple(outcome for each in written for outcome in each.unreported),
        )

    def _wanted_failures(
        self, message: Message, failed: Sequence[ReportedRecipient]
    ) -> list[ReportedRecipient]:
        """Return the failures that a notice is to report."""
        if message.envelope.reverse_path is not None:
            return [each for each in failed if each.recipient.is_to_notify("FAILURE")]
        # RFC 5321 §4.5.5: the failure of a notice is not reported to a sender. It is reported to
        # the postmaster, but not if it was for a postmaster, here or elsewhere: two systems would
        # send each other notices without end.
        wanted = [
            each
            for each in failed
            if not (
                is_postmaster(each.recipient.original or each.recipient.mailbox)
                or is_postmaster(each.recipient.mailbox)
                or _is_mail_loop(each.outcome.reply)
            )
        ]
        return [] if not wanted or _is_for_postmaster(message) else wanted

    def _notice(
        self,
        action: Action,
        message: Message,
        reported: Sequence[ReportedRecipient],
        now: float,
        reader: Mailbox | None = None,
    ) -> Message | None:
        """Return a notice; None: nothing is to be reported, or it cannot be written."""
        to = reader or message.envelope.reverse_path
        if to is None or not reported:
            return None
        try:
            return self._write(action, message, reported, now, to, reader)
        except MemoryError:
            raise  # it can be written when there is memory again
        except Exception:
            self._log.failure(
                "no notice could be written about {id}: {action}",
                id=message.id,
                action=action,
            )
            return None

    def _write(
        self,
        action: Action,
        message: Message,
        reported: Sequence[ReportedRecipient],
        now: float,
        to: Mailbox,
        reader: Mailbox | None,
    ) -> Message | None:
        recipients = self._recipients(to)
        if not recipients:
            shown = printable(str(to))
            self._log.info(
                "no notice about {id}: there is no mailbox <{reader}>", reader=shown, id=message.id
            )
            return None
        id = self._ids()
        written = notice(
            action,
            message,
            reported,
            hostname=self.settings.hostname,
            domain=self.settings.domain,
            id=id,
            time=now,
            reader=reader,
            seven_bit=any(each.mailbox.is_ascii for each in recipients),
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
                # RFC 3461 §6.1: no notice is sent about a notice.
                tuple(evolve(each, parameters=_NEVER) for each in recipients),
                {**written.parameters, **_protection(message)},
            ),
            trace=b"",
            body=MemoryBody(written.content),
            received_at=now,
            expires_at=now + self.settings.lifetime,
            assessment=_OURS,
        )

    def _recipients(self, mailbox: Mailbox) -> Sequence[Recipient]:
        """Return the recipients of a notice: those of its aliases, if the mailbox is ours."""
        try:
            return self._recipients_of(mailbox)
        except Exception:
            shown = printable(str(mailbox))
            self._log.failure("the recipients of notices to <{mailbox}> are unknown", mailbox=shown)
            return itself(mailbox)


def _protection(message: Message) -> Parameters:
    """Return the parameters that protect a notice as its message was protected (RFC 8689 §5)."""
    return {"REQUIRETLS": None} if message.envelope.requires_tls else {}


def _is_of_doubtful_sender(message: Message) -> bool:
    """Whether a message belongs among junk, and SPF does not say that its sender has sent it.

    A notice would go to a person whose address was forged. Without a result of SPF the client was
    no stranger, or SPF is off.
    """
    found = message.assessment
    return bool(found.quarantine) and any(
        each.policy == "spf" and each.result != "pass" and each.text.startswith(_MAIL_FROM)
        for each in found.verdicts
    )


def _is_mail_loop(reply: Reply) -> bool:
    """Whether a reply reports a mail loop (RFC 3463 X.4.6).

    Few servers report it by the enhanced code: Postfix replies 5.4.0, others have none.
    """
    return reply.detail == "4.6" or _LOOP.search(reply.text) is not None


def _is_for_postmaster(message: Message) -> bool:
    """Whether the header of a message names a postmaster, wherever aliases led the message.

    A message without sender that does so may be another system's notice to its postmaster.
    """
    header = b""
    try:
        for chunk in message.body.chunks():
            header += chunk
            if b"\r\n\r\n" in header or len(header) >= _LONGEST_HEADER:
                break
    except OSError:
        return False
    return any(
        name.lower() in _RECIPIENT_FIELDS and _POSTMASTER.search(value) is not None
        for name, value in fields(header[:_LONGEST_HEADER])
    )
