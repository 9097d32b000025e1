"""Mail of our own besides notices: reports to other domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import Accept, Ids, NewBody, WallTime
from ..mail.address import Mailbox
from ..mail.assessment import Assessment
from ..mail.envelope import (
    NO_PARAMETERS,
    Envelope,
    Parameters,
    Recipient,
    RecipientNumber,
)
from ..mail.message import Message
from ..mail.printable import printable

_NEVER: Parameters = {"NOTIFY": "NEVER"}
_OWN = Assessment(signs=True)


class OwnMail:
    """Puts messages of our own into the queue; they are signed, and no failure is reported.

    Args:
        accept: takes responsibility for a message.
        new_body: begins a body.
        ids: of messages.
        recipients_of: returns the recipients of mail to a mailbox; none: it does not exist.
        wall_time: the time of day.
        lifetime: returns the seconds that the delivery is tried.
        parameters: of MAIL.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        accept: Accept,
        new_body: NewBody,
        ids: Ids,
        recipients_of: Callable[[Mailbox], Sequence[Recipient]],
        wall_time: WallTime,
        lifetime: Callable[[], float],
        parameters: Parameters = NO_PARAMETERS,
    ) -> None:
        self._accept = accept
        self._new_body = new_body
        self._ids = ids
        self._recipients_of = recipients_of
        self._wall_time = wall_time
        self._lifetime = lifetime
        self._parameters = parameters

    def send(self, sender: Mailbox, content: bytes, to: Sequence[Mailbox]) -> Deferred[None]:
        """Send a message.

        Args:
            sender: the reverse-path.
            content: header section and body, the body in ASCII.
            to: the mailboxes; those of ours that do not exist are left out.

        Returns:
            Fires after the commit, or where no mailbox is left; fails with `Refused`, or with
            `OSError`.
        """
        return Deferred.fromCoroutine(self._send(sender, content, to))

    async def _send(self, sender: Mailbox, content: bytes, to: Sequence[Mailbox]) -> None:
        recipients: list[Recipient] = []
        for mailbox in to:
            found = self._recipients_of(mailbox)
            if not found:
                self._log.info(
                    "no report to <{mailbox}>: there is no such mailbox",
                    mailbox=printable(str(mailbox)),
                )
            recipients += found
        if not recipients:
            return
        numbered = tuple(
            evolve(each, number=RecipientNumber(number), parameters=_NEVER)
            for number, each in enumerate(recipients)
        )
        parameters = dict(self._parameters)
        if not content.isascii():
            parameters["SMTPUTF8"] = None
        id, now = self._ids(), self._wall_time()
        writer = self._new_body(id)
        writer.write(content)
        sealed = writer.seal()
        body = await sealed if isinstance(sealed, Deferred) else sealed
        await self._accept(
            Message(
                id=id,
                envelope=Envelope(sender, numbered, parameters),
                trace=b"",
                body=body,
                received_at=now,
                expires_at=now + self._lifetime(),
                assessment=_OWN,
            )
        )
