"""The queue as an `IMessageDelivery`, for a server of ``twisted.mail``, or an `ESMTPFactory`.

The `Intake` decides on senders and recipients, asks the policies, and writes the trace field;
``eomReceived`` fires after the commit. Our own factories have the intake at once (`deliveries`).

A server of ``twisted.mail`` makes a message of its own for each recipient. All of them are one
message of the queue, unless another delivery or a subclass of the protocol stands in between, which
may give each recipient another content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import ISSLTransport
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import ESMTP, SMTP, Address, SMTPBadRcpt, SMTPServerError, User
from zope.interface import implementer

from ..interfaces import Delivery, Sink
from ..mail.address import AddressError, Mailbox
from ..mail.reply import Reply
from ..smtp.peer import Peer
from ..smtp.server.dialect import one_for_all
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..smtp.server.transaction import Accepted, Transaction
from ..system.coroutines import outcome
from ..tls.handshake import server_facts
from .intake import Intake


class _Origin(Address):
    """The reverse-path of one transaction, as the server hands it back with each recipient."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)  # type: ignore[no-untyped-call]
        self.transaction: _Transaction | None = None  # before the first recipient


class _Transaction:
    """A transaction of a server, in a session of ours.

    Attributes:
        session: in the state of theirs; of this transaction alone.
        refusal: why the sender is refused; None: it is not.
        message: of all recipients together; None before the content.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.refusal: Reply | None = None
        self.message: _Shared | None = None
        self._asked = False  # about the sender
        self._lock = DeferredLock()  # the server may not wait before the next RCPT

    async def accept(self, intake: Intake, recipient: Mailbox) -> Reply | None:
        """Return the reply that refuses a recipient or, before the first, the sender."""
        await self._lock.acquire()
        try:
            if not self._asked:
                self._asked = True
                self.refusal = await _awaited(self._ask_about_sender(intake))
            if self.refusal is not None:
                return self.refusal
            decision: Reply | None = await _awaited(intake.rcpt(self.session, recipient, {}))
            if decision is not None and decision.code >= 400:
                return decision
            assert self.session.transaction is not None
            self.session.transaction.recipients.append(Accepted(recipient, {}))
            return None
        finally:
            self._lock.release()

    def _ask_about_sender(self, intake: Intake) -> Any:
        transaction = self.session.transaction
        assert transaction is not None
        return intake.mail(self.session, transaction.reverse_path, {})


@implementer(IMessageDelivery)
class QueueingDelivery:
    """Queues mail that ``twisted.mail.smtp`` receives.

    Policies are asked about client, greeting and sender together with the first recipient: it is
    only with a recipient that this interface names the connection, and so its TLS and its user.

    Args:
        intake: decides on the mail, and queues it.

    Attributes:
        own_delivery: the same for a factory of our own.
    """

    def __init__(self, intake: Intake) -> None:
        self.own_delivery: Delivery = intake
        self._intake = intake
        self._settings = SessionSettings(hostname=intake.policy.hostname)

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> None:
        """Return no field: the intake writes the trace field once the message has a queue id."""

    def validateFrom(self, helo: tuple[bytes, bytes], origin: Address) -> Address:
        """Accept any valid reverse-path, while there is capacity for a message.

        Raises:
            SMTPServerError: the reverse-path is not valid, or there is no capacity.
        """
        _mailbox(origin)
        _raise_refusal(self._intake.lacks_capacity())
        return _Origin(origin)

    def validateTo(
        self, user: User
    ) -> Callable[[], IMessageSMTP] | Deferred[Callable[[], IMessageSMTP]]:
        """Accept a recipient if the intake and the policies accept it and its sender.

        Raises:
            SMTPBadRcpt: they do not.
            SMTPServerError: the address is not valid.
        """
        return outcome(self._accepted(user))

    async def _accepted(self, user: User) -> Callable[[], IMessageSMTP]:
        mailbox = _mailbox(user.dest)
        if mailbox is None:
            raise SMTPServerError(501, "5.1.3 Bad address: the null path receives no mail")
        origin, shares = user.orig, self._is_next_to(user.protocol)
        transaction = origin.transaction if isinstance(origin, _Origin) and shares else None
        if transaction is None:
            transaction = _Transaction(self._session(user))
            if isinstance(origin, _Origin):
                origin.transaction = transaction
        refusal = await transaction.accept(self._intake, mailbox)
        if refusal is not None:
            raise SMTPBadRcpt(user, refusal.code, _text(refusal))
        return lambda: self._message(transaction)

    def _is_next_to(self, protocol: Any) -> bool:
        """Whether a server passes the same lines to the messages of all recipients."""
        kind = type(protocol)
        return (
            isinstance(protocol, SMTP)
            and protocol.delivery is self
            and kind.validateTo is SMTP.validateTo
            and kind.receivedHeader is SMTP.receivedHeader
        )

    def _message(self, transaction: _Transaction) -> IMessageSMTP:
        if transaction.message is not None:
            return _Follower(transaction.message)
        opened = self._intake.begin(transaction.session)
        if isinstance(opened, Reply):
            raise SMTPServerError(opened.code, _text(opened).encode("ascii"))
        transaction.message = _Shared(opened)
        return _Leader(transaction.message)

    def _session(self, user: User) -> Session:
        """Return a session of ours in the state of theirs."""
        (name, address), protocol = user.helo, user.protocol
        if isinstance(address, bytes):
            address = address.decode("ascii", "replace")
        session = Session(self._settings, peer=Peer(address or None))
        session.helo = (name or b"").decode("utf-8", "replace")
        ours = getattr(protocol, "session", None)
        if isinstance(ours, Session):  # of `ESMTPFactory` or `LMTPFactory`
            session.peer, session.proxy = ours.peer, ours.proxy
            session.local_address = ours.local_address
            session.greeting, session.tls, session.identity = ours.greeting, ours.tls, ours.identity
        else:
            session.greeting = "EHLO" if isinstance(protocol, ESMTP) else "HELO"
            session.identity = _identity(protocol)
            if ISSLTransport.providedBy(getattr(protocol, "transport", None)):
                session.tls = server_facts(protocol.transport.getHandle())
        session.transaction = Transaction(_mailbox(user.orig), {})
        return session


class _Shared:
    """One message of the queue, for the messages of all recipients.

    Args:
        sink: takes the content.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._ended = False
        self._result: Any = None  # a Failure, or None; valid once decided
        self._decided = False
        self._waiting: list[Deferred[None]] = []

    def finish(self) -> Deferred[None]:
        """Return a Deferred that fires after the commit, once for each recipient."""
        result: Deferred[None] = Deferred()
        if self._decided:
            result.callback(self._result)
            return result
        self._waiting.append(result)
        if not self._ended:
            self._ended = True
            decided: Deferred[object] = maybeDeferred(self.sink.finish)
            decided.addCallback(_raise_refusal).addBoth(self._tell)
        return result

    def _tell(self, result: Any) -> None:
        self._decided, self._result = True, result
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)

    def abort(self) -> None:
        """Forget the content, unless it is complete."""
        if not self._ended:
            self._ended = True
            self.sink.abort()


@implementer(IMessageSMTP)
class _Follower:
    """The message of one recipient; the content comes by that of the first."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared

    def lineReceived(self, line: bytes) -> None:
        """Take a line, without its CR LF: the first recipient's message has it."""

    def eomReceived(self) -> Deferred[None]:
        """Fire after the commit; fail with the reply that refuses the message."""
        return self._shared.finish()

    def connectionLost(self) -> None:
        """Forget the content."""
        self._shared.abort()


class _Leader(_Follower):
    """The message of the first recipient."""

    def lineReceived(self, line: bytes) -> None:
        """Take a line, without its CR LF."""
        self._shared.sink.write(line + b"\r\n")


def _identity(protocol: Any) -> str | None:
    """Return the user that a server of ``twisted.mail`` has authenticated; None: there is none."""
    if not getattr(protocol, "authenticated", False):
        return None
    name = getattr(getattr(protocol, "challenger", None), "username", None) or ""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


async def _awaited(decision: Any) -> Any:
    return await decision if isinstance(decision, Deferred) else decision


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
