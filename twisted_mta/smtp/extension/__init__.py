"""ESMTP extensions (RFC 5321 §2.2): the value that describes one; each has a file of its own.

An extension announces itself in the reply to EHLO, reads the parameters that it adds to MAIL and
RCPT, says how much longer it makes those lines, and obeys the verbs that it adds. The session knows
none of them by name, so a new extension is a new file, and a new entry in the tuple that the
session is given. Extensions of an application are given to `service.MailTransferAgent`, and look
the same:

    class Ticket(OutgoingExtension):
        keyword = "XTICKET"

        def mail(self, transaction, announced):
            number = transaction.message.envelope.parameters.get("XTICKET")
            return () if number is None else (f"XTICKET={number}",)

    TICKET = Extension("XTICKET", mail={"XTICKET": read_number}, mail_octets=20, outgoing=Ticket())

The values that its readers return are kept with the message and its recipients, through the queue
and over restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from ...mail.reply import Reply
from ..command import ParameterReader
from .outgoing import OutgoingExtension
from .views import NewClient, SessionView

Obey = Callable[[SessionView, str], Reply | NewClient]
"""Obeys a command: takes the session and the argument; returns the reply, or raises `CommandError`.

It is called before EHLO and inside a transaction too, so where that matters it looks at the
session's ``state``. Replies of 4yz and 5yz are errors; 421 ends the session.
"""

NOT_OFFERED = Reply.of(503, "5.1", "Not offered here and now")


@frozen
class Extension:
    """An ESMTP extension; a subclass overrides `announcement` where that depends on the session.

    Attributes:
        keyword: its EHLO keyword, with parameters if there are any.
        mail: the readers of the parameters that it adds to MAIL, by upper-case keyword.
        rcpt: the same for RCPT.
        mail_octets: by how much it allows the MAIL line to be longer (RFC 5321 §4.5.3.1.4).
        rcpt_octets: the same for RCPT.
        commands: the functions that obey the verbs that it adds, by upper-case verb. Verbs of the
            session stay the session's, except `server.machine.REPLACEABLE`. Each is the last of its
            pipelined group (RFC 2920 §3.1).
        not_offered: the reply to these verbs where `announcement` returns None.
        outgoing: its client side, towards next hops, where the extension is an application's; for
            our own see `standard.OUTGOING`.
    """

    keyword: str
    mail: Mapping[str, ParameterReader] = field(factory=dict)
    rcpt: Mapping[str, ParameterReader] = field(factory=dict)
    mail_octets: int = 0
    rcpt_octets: int = 0
    commands: Mapping[str, Obey] = field(factory=dict)
    not_offered: Reply = NOT_OFFERED
    outgoing: OutgoingExtension | None = None

    def announcement(self, session: SessionView) -> str | None:
        """Return the line of the EHLO reply; None where the extension is not offered now."""
        return self.keyword
