"""The part of a notice that people read: the addresses, the replies, and what happens next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Literal

from ...mail.printable import printable
from ...mail.reply import Reply
from ..date import date_time
from .delivery_status import Action, ReportedRecipient, reply_text, shown

SUBJECTS: Mapping[Action, str] = {
    "failed": "Undelivered mail returned to sender",
    "delayed": "Your mail is delayed and still being tried",
    "delivered": "Your mail has been delivered",
    "relayed": "Your mail has been passed on",
    "expanded": "Your mail has been distributed",
}

Reader = Literal["sender", "operator", "owner"]
"""The reader of a notice: the sender; the operator, if the reverse-path is null; or the owner of a
list, about members that do not exist."""

_WIDTH = 72  # characters of a line


def explanation(
    action: Action,
    recipients: Sequence[ReportedRecipient],
    hostname: str,
    *,
    attached: str,
    reader: Reader,
) -> bytes:
    """Return the text, in UTF-8 with CR LF line ends.

    Args:
        action: the action of all ``recipients``.
        recipients: one or more.
        hostname: our own host name.
        attached: a sentence about the returned message; empty if none is attached.
        reader: the reader.
    """
    lines = [f"This is the mail system at {hostname}.", ""]
    lines += wrap(" ".join(filter(None, (_news(action, recipients, reader), attached))), _WIDTH)
    for recipient in recipients:
        lines += ["", *_about(action, recipient)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _news(action: Action, recipients: Sequence[ReportedRecipient], reader: Reader) -> str:
    several = len(recipients) > 1
    addresses = "addresses" if several else "address"
    notified = all(each.recipient.is_to_notify("FAILURE") for each in recipients)
    match action:
        case "failed" if reader == "sender":
            return (
                f"Your message could not be delivered to the {addresses} below. It will not be "
                "tried again: if it still matters, please solve the problem named below and send "
                "it anew."
            )
        case "failed" if reader == "owner":
            return (
                "A message for a list that you look after is on its way to other members, and "
                f"cannot be delivered to the {addresses} below. Please remove from the list any "
                "address that does not exist, or have it created. You get this instead of the "
                "sender, as the owner of the list."
            )
        case "failed":
            return (
                f"A message without a sender, like a bounce, could not be delivered to the "
                f"{addresses} below, and cannot be returned. It will not be tried again. You get "
                "this because this mail system is configured so (bounce_postmaster)."
            )
        case "delayed":
            date = date_time(int(min(each.until or 0.0 for each in recipients)))
            outlook = (
                f"If it cannot be delivered until {date}, you will be told."
                if notified
                else f"If it cannot be delivered until {date}, it is given up."
            )
            return (
                f"Your message has not reached the {addresses} below yet. You need not do "
                f"anything, nor send it again: it is still being tried. {outlook}"
            )
        case "delivered":
            return (
                f"Your message was delivered to the {addresses} below. This does not mean that it "
                "was read. You get this because you asked for it."
            )
        case "relayed":
            outlook = " unless it fails there" if notified else ""
            return (
                f"Your message for the {addresses} below was passed on to another mail system, "
                "which does not confirm deliveries. So you will hear no more of it"
                f"{outlook}. You get this because you asked for it."
            )
        case "expanded":
            stands = ", each of which stands" if several else ", which stands"
            outlook = (
                " If it cannot be delivered to one of them, you will be told." if notified else ""
            )
            return (
                f"Your message was accepted for the {addresses} below{stands} for several "
                f"others, and is on its way to them. You will not be told of each "
                f"delivery.{outlook} You get this because you asked for it."
            )


def _about(action: Action, reported: ReportedRecipient) -> Iterator[str]:
    recipient, outcome = reported.recipient, reported.outcome
    yield f"<{shown(recipient.mailbox)}>"
    if recipient.original is not None:
        yield f"    to which mail for <{shown(recipient.original)}> is forwarded"
    if action == "expanded":
        return
    if action == "delayed":
        if outcome.remote:
            yield f"    The last answer, from {printable(outcome.remote)}, was:"
        else:
            yield "    The reason:"
    elif outcome.remote:
        yield f"    {printable(outcome.remote)} answered:"
    else:
        yield "    The reason:" if action == "failed" else "    The answer:"
    yield from _quoted(outcome.reply)
    if action == "failed" and not outcome.remote:
        last = recipient.last_reply
        if last is not None and str(last) not in str(outcome.reply):
            peer = printable(recipient.last_remote or "this system")
            yield f"    The last answer, from {peer}, was:"
            yield from _quoted(last)


def _quoted(reply: Reply) -> list[str]:
    indent = " " * 8
    return wrap(reply_text(reply), _WIDTH, initial_indent=indent, subsequent_indent=indent)
