"""ESMTP extensions (RFC 5321 §2.2), one per file.

An extension announces itself in the reply to EHLO, reads the parameters it adds to MAIL and RCPT,
says how much longer it makes those lines, and obeys the verbs it adds. The session knows none of
them by name, so one more is one more file and one more place in the tuple that the session is
given. One of an application's own is given to `Environment`, and looks like those here:

    class Ticket(OutgoingExtension):
        keyword = "XTICKET"

        def mail(self, transaction, announced):
            number = transaction.message.envelope.parameters.get("XTICKET")
            return () if number is None else (f"XTICKET={number}",)

    TICKET = Extension("XTICKET", mail={"XTICKET": read_number}, mail_octets=20, outgoing=Ticket())

What its readers return is kept with the message and its recipients all the way through the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from ...mail.reply import Reply
from ..command import ParameterReader

if TYPE_CHECKING:
    from ..server.session import Session
    from .outgoing import OutgoingExtension

Obey = Callable[["Session", str], Reply]
"""Obeys a command: gets the session and the argument, returns the reply or raises `CommandError`.

It may be called wherever no content is awaited, before EHLO and inside a transaction too, so it
looks at the session's ``state`` where that matters to it. What it says with 4yz or 5yz is an error.
"""

NOT_OFFERED = Reply.of(503, "5.1", "Not offered here and now")


@frozen
class Extension:
    """An ESMTP extension; those that do more than stand in the list override `announcement`.

    Attributes:
        keyword: its EHLO keyword.
        mail: the readers of the parameters it adds to MAIL, by upper-case keyword.
        rcpt: likewise for RCPT.
        mail_octets: how much longer it allows the MAIL line to be.
        rcpt_octets: likewise for RCPT.
        commands: what obeys the verbs it adds, by upper-case verb; those that the session has
            itself stay the session's, but for `state.REPLACEABLE`. Each is the last of its group
            (RFC 2920 §3.1).
        not_offered: what these verbs get where `announcement` returns None.
        outgoing: its other side, towards next hops, where it comes from outside this package; our
            own stand in `standard.OUTGOING`.
    """

    keyword: str
    mail: Mapping[str, ParameterReader] = field(factory=dict)
    rcpt: Mapping[str, ParameterReader] = field(factory=dict)
    mail_octets: int = 0
    rcpt_octets: int = 0
    commands: Mapping[str, Obey] = field(factory=dict)
    not_offered: Reply = NOT_OFFERED
    outgoing: OutgoingExtension | None = None

    def announcement(self, session: Session) -> str | None:
        """Return the line for the EHLO reply, or None where it is not on offer now."""
        return self.keyword
