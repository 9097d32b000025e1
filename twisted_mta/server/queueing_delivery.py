"""The queue as an `IMessageDelivery`, for a server of ``twisted.mail``, or an `ESMTPFactory`.

The `Intake` decides on senders and recipients and writes the trace field; ``eomReceived`` fires
after the commit. That protocol makes a message of its own for each recipient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import ESMTP, Address, SMTPBadRcpt, SMTPServerError, User
from zope.interface import implementer

from ..interfaces import Sink
from ..mail.address import AddressError, Mailbox
from ..mail.reply import Reply
from ..smtp.peer import Peer
from ..smtp.server.dialect import one_for_all
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..smtp.server.transaction import Accepted, Transaction
from ..tls.handshake import server_facts
from .intake import Intake


@implementer(IMessageDelivery)
class QueueingDelivery:
    """Queues mail that ``twisted.mail.smtp`` receives.

    Args:
        intake: decides on the mail, and queues it.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._settings = SessionSettings(hostname=intake.policy.hostname)

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> None:
        """Return no field: the intake writes the trace field once the message has a queue id."""

    def validateFrom(self, helo: tuple[bytes, bytes], origin: Address) -> Address:
        """Accept any valid reverse-path, while there is capacity for a message.

        Raises:
            SMTPServerError: the reverse-path is not valid, or there is no capacity.
        """
        reverse_path = _mailbox(origin)
        _raise_refusal(self._intake.mail(self._session(helo, None), reverse_path, {}))
        return origin

    def validateTo(self, user: User) -> Callable[[], IMessageSMTP]:
        """Accept a recipient if the intake does.

        Raises:
            SMTPBadRcpt: the intake refuses it.
            SMTPServerError: the address is not valid.
        """
        session = self._session(user.helo, user.protocol)
        mailbox = _mailbox(user.dest)
        if mailbox is None:
            raise SMTPServerError(501, "5.1.3 Bad address: the null path receives no mail")
        transaction = session.transaction = Transaction(_mailbox(user.orig), {})
        refusal = self._intake.may_send_to(session, mailbox)
        if refusal is not None:
            raise SMTPBadRcpt(user, refusal.code, _text(refusal))
        transaction.recipients.append(Accepted(mailbox, {}))
        return lambda: self._message(session)

    def _message(self, session: Session) -> IMessageSMTP:
        opened = self._intake.begin(session)
        if isinstance(opened, Reply):
            raise SMTPServerError(opened.code, _text(opened).encode("ascii"))
        return _QueuedMessage(opened)

    def _session(self, helo: tuple[bytes | None, Any], protocol: Any) -> Session:
        """Return a session of ours in the state of theirs."""
        name, address = helo
        if isinstance(address, bytes):
            address = address.decode("ascii", "replace")
        session = Session(self._settings, peer=Peer(address or None))
        session.greeting = "EHLO" if isinstance(protocol, ESMTP) else "HELO"
        session.helo = (name or b"").decode("utf-8", "replace")
        ours = getattr(protocol, "session", None)
        if isinstance(ours, Session):  # of `ESMTPFactory` or `LMTPFactory`
            session.greeting, session.tls = ours.greeting, ours.tls
        if getattr(protocol, "startedTLS", False):
            session.tls = server_facts(protocol.transport.getHandle())
        return session


@implementer(IMessageSMTP)
class _QueuedMessage:
    """One message on its way into the queue, by lines."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def lineReceived(self, line: bytes) -> None:
        """Take a line, without its CR LF."""
        self._sink.write(line + b"\r\n")

    def eomReceived(self) -> Deferred[None]:
        """Fire after the commit; fail with the reply that refuses the message."""
        decided: Deferred[object] = maybeDeferred(self._sink.finish)
        return decided.addCallback(_raise_refusal)

    def connectionLost(self) -> None:
        """Forget the content."""
        self._sink.abort()


def _raise_refusal(decision: Any) -> None:
    if isinstance(decision, Sequence):  # under LMTP, of the one recipient of each message
        decision = one_for_all(decision)
    if isinstance(decision, Reply) and decision.code // 100 != 2:
        raise SMTPServerError(decision.code, _text(decision))


def _text(reply: Reply) -> str:
    # Twisted's server takes str to refuse an address, and bytes to refuse content.
    return reply.wire[4:].rstrip().decode("ascii")


def _mailbox(address: Address) -> Mailbox | None:
    written = bytes(address).decode("utf-8", "replace")
    try:
        return Mailbox.parse(written) if written else None
    except AddressError as error:
        raise SMTPServerError(553, f"5.1.3 Bad address: {error}") from None
