"""The part of a report that people read: which address, what was said, and what happens next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Literal

from ...mail.printable import printable
from ...mail.reply import Reply
from ..date import date_time
from .delivery_status import Action, ReportedRecipient, shown, words

SUBJECTS: Mapping[Action, str] = {
    "failed": "Undelivered mail returned to sender",
    "delayed": "Your mail is delayed and still being tried",
    "delivered": "Your mail has been delivered",
    "relayed": "Your mail has been passed on",
    "expanded": "Your mail has been distributed",
}

Reader = Literal["sender", "operator", "owner"]
"""Who reads it: the sender of the message; the operator, where it has none; or the owner of a list,
of members that do not exist."""

_WIDTH = 72  # characters of a line


def explanation(
    action: Action,
    events: Sequence[ReportedRecipient],
    hostname: str,
    *,
    attached: str,
    reader: Reader,
) -> bytes:
    """Return the text, with CR LF line ends, in UTF-8.

    Args:
        action: what happened to all of these recipients.
        events: at least one.
        hostname: our own name.
        attached: a sentence on what is attached; empty where nothing is.
        reader: see there.
    """
    lines = [f"This is the mail system at {hostname}.", ""]
    lines += wrap(" ".join(filter(None, (_news(action, events, reader), attached))), _WIDTH)
    for event in events:
        lines += ["", *_about(action, event)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _news(action: Action, events: Sequence[ReportedRecipient], reader: Reader) -> str:
    several = len(events) > 1
    addresses = "addresses" if several else "address"
    told = all(event.recipient.is_to_notify("FAILURE") for event in events)
    match action:
        case "failed" if reader == "sender":
            return (
                f"Your message could not be delivered to the {addresses} below. It will not be "
                "tried again: if it still matters, please send it anew, once what is said below "
                "has been put right."
            )
        case "failed" if reader == "owner":
            return (
                "A message for a list that you look after is on its way to other members, and "
                f"cannot be delivered to the {addresses} below. Please take out of the list what "
                "does not exist, or have it made. You are told instead of the sender, as the owner "
                "of the list."
            )
        case "failed":
            return (
                f"A message without a sender, as notices are, could not be delivered to the "
                f"{addresses} below, and there is nobody to return it to. It will not be tried "
                "again. You get this because the operator asked for it (bounce_postmaster)."
            )
        case "delayed":
            date = date_time(int(min(event.until or 0.0 for event in events)))
            outlook = (
                f"If it cannot be delivered until {date}, you will be told."
                if told
                else f"If it cannot be delivered until {date}, it is given up."
            )
            return (
                f"Your message has not reached the {addresses} below yet. You need not do "
                f"anything, nor send it again: it is still being tried. {outlook}"
            )
        case "delivered":
            return (
                f"Your message was delivered to the {addresses} below. Nobody need have read it "
                "yet. You get this because you asked for it."
            )
        case "relayed":
            outlook = " unless it fails there" if told else ""
            return (
                f"Your message for the {addresses} below was passed on to another mail system, "
                "which does not confirm deliveries. So you will hear no more of it"
                f"{outlook}. You get this because you asked for it."
            )
        case "expanded":
            stands = ", each of which stands" if several else ", which stands"
            outlook = " If it cannot be delivered to one of them, you will be told." if told else ""
            return (
                f"Your message was accepted for the {addresses} below{stands} for several "
                f"others, and is on its way to them. You will not be told of each "
                f"delivery.{outlook} You get this because you asked for it."
            )


def _about(action: Action, event: ReportedRecipient) -> Iterator[str]:
    recipient, outcome = event.recipient, event.outcome
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
            who = printable(recipient.last_remote or "this system")
            yield f"    The last answer, from {who}, was:"
            yield from _quoted(last)


def _quoted(reply: Reply) -> list[str]:
    indent = " " * 8
    return wrap(words(reply), _WIDTH, initial_indent=indent, subsequent_indent=indent)
