"""Deliveries written for ``twisted.mail.smtp``, unchanged, behind our own protocol.

`IMessageDelivery`, `IMessageDeliveryFactory` and cred portals decide on senders and recipients, and
take the content by lines, once for each recipient. They get values of Twisted's own classes,
`Address` and `User`, filled from *our* parse: with one parser, an application's policy and our
framing cannot read an address in two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.cred.credentials import Anonymous
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.mail.smtp import Address, SMTPBadRcpt, SMTPBadSender, SMTPServerError, User
from twisted.python.failure import Failure

from ..interfaces import Sink
from ..mail.address import Mailbox
from ..mail.decision import ContentDecision, Decision
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from ..smtp.server.dialect import one_for_all
from ..smtp.server.replies import LOCAL_ERROR
from ..smtp.server.session import Session

Helo = tuple[bytes, bytes]
"""The greeting's argument and the client's address, as `IMessageDelivery` gets them."""

NewMessage = Callable[[], IMessageSMTP]
"""Begins the message of one recipient, as ``validateTo`` returns it."""

BINARY_NOT_TAKEN = Reply.of(554, "6.3", "Content is taken by lines here, so not BODY=BINARYMIME")


class ParsedAddress(Address):
    """Twisted's `Address`, filled from our parse; UTF-8 and address literals are allowed.

    ``local`` keeps the quotes that it needs, as in Twisted's own.
    """

    def __init__(self, mailbox: Mailbox | None) -> None:
        # Twisted's own __init__ would parse again.
        written = "" if mailbox is None else str(mailbox)
        self.addrstr = f"<{written}>".encode()
        local_part, _, domain = written.rpartition("@") if "@" in written else (written, "", "")
        self.local = local_part.encode()
        self.domain = domain.encode("ascii")

    def __str__(self) -> str:
        return bytes(self).decode("utf-8")


class ParsedUser(User):
    """Twisted's `User`, filled from our parse.

    Attributes:
        dest: the forward-path.
        helo: see `Helo`.
        protocol: of the connection, with its ``transport``.
        orig: the reverse-path, as ``validateFrom`` returned it.
    """

    def __init__(self, mailbox: Mailbox, helo: Helo, protocol: object, orig: Address) -> None:
        self.dest = ParsedAddress(mailbox)
        self.helo = helo
        self.protocol = protocol
        self.orig = orig

    def __str__(self) -> str:
        return str(self.dest)


class MessageDelivery:
    """Adapts a delivery for ``twisted.mail.smtp`` to `interfaces.Delivery`.

    Each connection has its own, as it has its own avatar of a portal.

    Args:
        provider: an `IMessageDelivery`, an `IMessageDeliveryFactory`, or a portal whose anonymous
            avatars are one of these.
        protocol: the value of ``User.protocol``.
    """

    _log = Logger()

    def __init__(
        self,
        provider: IMessageDelivery | IMessageDeliveryFactory | Portal,
        *,
        protocol: object = None,
    ) -> None:
        self._delivery: Any = None
        self._factory: Any = None
        self._portal: Portal | None = None
        self._logout: Callable[[], object] | None = None
        self._protocol = protocol
        self._origin: Address = ParsedAddress(None)
        self._recipients: list[tuple[ParsedUser, NewMessage]] = []
        if isinstance(provider, Portal):
            self._portal = provider
        else:
            self._use(provider)

    def client(self, session: Session) -> Decision:
        """Accept."""
        return None

    def helo(self, session: Session) -> Decision:
        """Accept."""
        return None

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Ask ``validateFrom`` (`interfaces.Delivery`)."""
        self._recipients = []
        if parameters.get("BODY") == "BINARYMIME":
            # RFC 3030 §3: every octet has to be kept, but `IMessage` cannot tell how the last line
            # ends. `ESMTPFactory` does not offer it by default.
            return BINARY_NOT_TAKEN
        origin = ParsedAddress(reverse_path)

        def validated(result: Address | None) -> Decision:
            if result is None:  # twisted.mail refuses RCPT then
                self._log.error(
                    "a delivery failed: {error}",
                    error=f"validateFrom of {self._delivery!r} returned None, expected the Address"
                    " that is the reverse-path from now on: end it with `return origin`",
                )
                return LOCAL_ERROR
            self._origin = result
            return None

        def validate(_: object) -> Deferred[Address]:
            if self._factory is not None:  # one for each message
                self._delivery = self._factory.getMessageDelivery()
            return maybeDeferred(self._delivery.validateFrom, _helo(session), origin)

        return self._logged_in().addCallback(validate).addCallbacks(validated, self._refusal)

    def rcpt(
        self, session: Session, forward_path: Mailbox, parameters: Parameters
    ) -> Deferred[Decision]:
        """Ask ``validateTo`` (`interfaces.Delivery`)."""
        user = ParsedUser(forward_path, _helo(session), self._protocol, self._origin)
        recipients = self._recipients

        def validated(new_message: NewMessage) -> Decision:
            recipients.append((user, new_message))
            return None

        validating: Deferred[NewMessage] = maybeDeferred(self._delivery.validateTo, user)
        return validating.addCallbacks(validated, self._refusal)

    def open(self, session: Session) -> Sink | Reply:
        """Make an `IMessage` for each recipient (`interfaces.Delivery`)."""
        recipients, self._recipients = self._recipients, []
        sink = _LineSink(
            self._refusal, self._log, per_recipient=session.settings.dialect.per_recipient
        )

        def header(user: ParsedUser) -> bytes:
            field: bytes = self._delivery.receivedHeader(_helo(session), self._origin, [user])
            return field

        for user, new_message in recipients:
            sink.begin(new_message, partial(header, user))
            if sink.refusal is not None and not sink.per_recipient:
                break
        return sink if sink.refusal is None else sink.refusal

    def ended(self, session: Session) -> None:
        """Log out of the portal (`interfaces.Delivery`)."""
        logout, self._logout = self._logout, None
        if logout is not None:
            logout()

    def _use(self, avatar: object) -> None:
        if IMessageDeliveryFactory.providedBy(avatar):
            self._factory = avatar
        elif IMessageDelivery.providedBy(avatar):
            self._delivery = avatar
        else:
            raise TypeError(
                f"found {avatar!r}, expected an object that provides IMessageDelivery or"
                " IMessageDeliveryFactory: declare it with zope.interface.implementer"
            )

    def _logged_in(self) -> Deferred[None]:
        if self._portal is None or self._factory is not None or self._delivery is not None:
            return maybeDeferred(lambda: None)

        def logged_in(result: tuple[object, object, Callable[[], object]]) -> None:
            _, avatar, self._logout = result
            self._use(avatar)

        def refused(failure: Failure) -> NoReturn:
            if failure.check(UnauthorizedLogin, UnhandledCredentials) is None:
                failure.raiseException()
            raise SMTPServerError(550, b"5.7.1 Senders have to authenticate")

        login: Deferred[Any] = self._portal.login(
            Anonymous(), None, IMessageDeliveryFactory, IMessageDelivery
        )
        return login.addCallbacks(logged_in, refused)

    def _refusal(self, failure: Failure) -> Reply:
        """Return the reply that an exception carries; 451 for any other exception."""
        error = failure.value
        if isinstance(error, CancelledError):  # the client is gone, or the decision took too long
            self._log.info("a decision of a delivery was canceled")
            return LOCAL_ERROR
        if not isinstance(error, SMTPServerError):
            self._log.failure("a delivery failed", failure)
            return LOCAL_ERROR
        text = error.resp
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        if not isinstance(error.code, int) or error.code // 100 not in (4, 5):
            self._log.failure("a delivery refused with a code other than 4yz or 5yz", failure)
            return LOCAL_ERROR
        reply = Reply.from_lines(error.code, tuple(text.splitlines()))
        if reply.status is None:  # RFC 2034 §4 requires one; X.1.0 and X.0.0 say nothing more
            about_address = isinstance(error, SMTPBadRcpt | SMTPBadSender)
            reply = Reply.of(reply.code, "1.0" if about_address else "0.0", *reply.lines)
        return reply


class _LineSink:
    """The content of one message, passed by lines to one `IMessage` for each recipient.

    Args:
        refusal: returns the reply for a failure.
        log: for an `IMessage` that fails while it is given up.
        per_recipient: whether each recipient has a reply of its own: if one fails, the others go
            on. Otherwise all are refused, and lose the content.
    """

    def __init__(
        self, refusal: Callable[[Failure], Reply], log: Logger, *, per_recipient: bool
    ) -> None:
        self.per_recipient = per_recipient
        self._refusal_of = refusal
        self._log = log
        self._recipients = 0
        self._messages: dict[int, IMessageSMTP] = {}  # by the index of the recipient
        self._refusals: dict[int, Reply] = {}  # likewise
        self._partial = bytearray()  # the last line, while it is incomplete
        self._begun = False  # whether the first line was passed on

    @property
    def refusal(self) -> Reply | None:
        """Why no recipient takes the content; None if one does."""
        return None if self._messages else one_for_all(list(self._refusals.values()))

    def begin(self, new_message: NewMessage, header: Callable[[], bytes]) -> None:
        """Begin the message of the next recipient, with its Received field."""
        index = self._recipients
        self._recipients += 1
        try:
            message = self._messages[index] = new_message()
            if field := header():
                message.lineReceived(field)
        except Exception:
            self._fail(index, Failure())

    def write(self, content: bytes) -> None:
        """Pass on complete lines, without CR LF (`interfaces.Sink`)."""
        partial = self._partial
        split_crlf = partial.endswith(b"\r") and content.startswith(b"\n")
        partial += content
        if split_crlf or b"\r\n" in content:
            *lines, rest = bytes(partial).split(b"\r\n")
            self._partial = bytearray(rest)
            self._pass_on(lines)

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """End each message; its result decides on its recipient (`interfaces.Sink`)."""
        if self._partial:
            self._pass_on([bytes(self._partial)])
        ended = DeferredList(
            [maybeDeferred(message.eomReceived) for message in self._messages.values()],
            consumeErrors=True,
        )
        return ended.addCallback(self._ended)

    def abort(self) -> None:
        """Give all messages up (`interfaces.Sink`)."""
        messages = list(self._messages.values())
        self._messages.clear()
        _give_up(messages, self._log)

    def _pass_on(self, lines: Sequence[bytes]) -> None:
        if lines and not self._begun:
            self._begun = True
            # As in twisted.mail: a message without header fields gets an empty line, so that the
            # Received field is not read as its text. Without one, a line that begins with white
            # space would continue that field (RFC 5322 §2.2.3).
            if lines[0] and (b":" not in lines[0] or lines[0][:1] in (b" ", b"\t")):
                lines = [b"", *lines]
        for index, message in list(self._messages.items()):
            try:
                for line in lines:
                    message.lineReceived(line)
            except Exception:
                self._fail(index, Failure())
                if not self.per_recipient:
                    return

    def _fail(self, index: int, failure: Failure) -> None:
        self._refusals[index] = self._refusal_of(failure)
        message = self._messages.pop(index, None)
        if message is not None:
            _give_up([message], self._log)
        if not self.per_recipient:
            self.abort()

    def _ended(self, results: Sequence[tuple[bool, object]]) -> ContentDecision:
        for index, (_, result) in zip(self._messages, results, strict=True):
            if isinstance(result, Failure):
                self._refusals[index] = self._refusal_of(result)
        if not self.per_recipient and self._refusals:
            return one_for_all(list(self._refusals.values()))
        return [self._refusals.get(index) for index in range(self._recipients)]


def _give_up(messages: Sequence[IMessageSMTP], log: Logger) -> None:
    for message in messages:
        try:
            message.connectionLost()
        except Exception:
            log.failure("an IMessage failed in connectionLost")


def _helo(session: Session) -> Helo:
    return session.helo.encode(), (session.peer.address or "").encode("ascii")
