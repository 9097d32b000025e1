"""Deliveries written for ``twisted.mail.smtp``, unchanged, behind our own protocol.

`IMessageDelivery`, `IMessageDeliveryFactory` and cred portals say who may send what to whom, and
take the content by lines, once for each recipient. What they get are values of Twisted's own
classes, `Address` and `User`, filled from *our* parse: there is one parser, so policy in an
application and framing here cannot read an address in two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, cast

from twisted.cred.credentials import Anonymous
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.mail.smtp import Address, SMTPBadRcpt, SMTPBadSender, SMTPServerError, User
from twisted.python.failure import Failure

from ..interfaces import ContentDecision, Decision, Delivery, Sink
from ..mail.address import Mailbox
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from ..smtp.server.dialect import one_for_all
from ..smtp.server.replies import LOCAL_ERROR
from ..smtp.server.session import Session

Helo = tuple[bytes, bytes]
"""The greeting's argument and the client's address, as `IMessageDelivery` gets them."""

NewMessage = Callable[[], IMessageSMTP]

ONLY_LINES = Reply.of(554, "6.3", "Content is taken by lines here, so not BODY=BINARYMIME")
NOBODY_DECIDES = Reply.of(550, "7.1", "Sender not acceptable")


class ParsedAddress(Address):
    """Twisted's `Address`, filled from our parse; UTF-8 and address literals are fine.

    ``local`` keeps the quotes that it needs, as Twisted's does.
    """

    def __init__(self, mailbox: Mailbox | None) -> None:
        # Twisted's own __init__ parses, which has been done.
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
        protocol: the protocol of the connection; its ``transport`` is there.
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
    """What was written for ``twisted.mail.smtp``, as an `interfaces.Delivery`.

    One belongs to one connection, because a portal's avatar does.

    Args:
        provider: an `IMessageDelivery`, an `IMessageDeliveryFactory`, or a portal whose anonymous
            avatars are one of these.
        protocol: what ``User.protocol`` is.
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

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Ask ``validateFrom`` (`interfaces.Delivery`)."""
        self._recipients = []
        if parameters.get("BODY") == "BINARYMIME":
            # RFC 3030 §3: to be kept octet by octet, and `IMessage` cannot say how its last line
            # ends. `ESMTPFactory` does not offer it by itself.
            return ONLY_LINES
        origin = ParsedAddress(reverse_path)

        def validated(result: Address | None) -> Decision:
            # What it returned is the reverse-path from now on, as in twisted.mail.
            self._origin = origin if result is None else result
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
        lines = _Lines(self._refusal, self._log, apart=session.settings.dialect.per_recipient)

        def header(user: ParsedUser) -> bytes:
            field: bytes = self._delivery.receivedHeader(_helo(session), self._origin, [user])
            return field

        for user, new_message in recipients:
            lines.begin(new_message, partial(header, user))
            if lines.refusal is not None and not lines.apart:
                break
        return lines if lines.refusal is None else lines.refusal

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
                f"{avatar!r} provides neither IMessageDelivery nor IMessageDeliveryFactory"
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
        """Return the reply that an error stands for; one that is no reply becomes 451."""
        error = failure.value
        if not isinstance(error, SMTPServerError):
            self._log.failure("a delivery failed", failure)
            return LOCAL_ERROR
        text = error.resp
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        if not isinstance(error.code, int) or error.code // 100 not in (4, 5):
            self._log.failure("a delivery refused with a code that refuses nothing", failure)
            return LOCAL_ERROR
        reply = Reply.from_lines(error.code, tuple(text.splitlines()))
        if reply.status is None:  # RFC 2034 §4: no reply without one; X.1.0, X.0.0: nothing known
            about_address = isinstance(error, SMTPBadRcpt | SMTPBadSender)
            reply = Reply(reply.code, "1.0" if about_address else "0.0", reply.lines)
        return reply


class NoDelivery:
    """Nobody has said who decides (`interfaces.Delivery`): all mail is refused."""

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision:
        """Refuse."""
        return NOBODY_DECIDES

    def rcpt(self, session: Session, forward_path: Mailbox, parameters: Parameters) -> Decision:
        """Refuse."""
        return NOBODY_DECIDES

    def open(self, session: Session) -> Reply:
        """Refuse."""
        return NOBODY_DECIDES

    def ended(self, session: Session) -> None:
        """Forget nothing."""


AnyDelivery = Delivery | IMessageDelivery | IMessageDeliveryFactory | Portal
"""Whatever can say who may send what to whom."""


def delivery_of(provider: AnyDelivery, protocol: object) -> Delivery:
    """Return what decides on the mail of one connection.

    Raises:
        TypeError: ``provider`` cannot decide.
    """
    if isinstance(provider, Portal) or not hasattr(provider, "open"):
        return MessageDelivery(provider, protocol=protocol)
    return cast(Delivery, provider)


class _Lines:
    """The content of one message, handed out by lines to one `IMessage` for each recipient.

    Args:
        refusal: the reply that a failure stands for.
        log: see there.
        apart: whether each recipient has a reply of its own: where one fails, the others go on.
            Else all are refused, and forget what they got.
    """

    def __init__(self, refusal: Callable[[Failure], Reply], log: Logger, *, apart: bool) -> None:
        self.apart = apart
        self._refusal_of = refusal
        self._log = log
        self._recipients = 0
        self._messages: dict[int, IMessageSMTP] = {}  # by the place of the recipient
        self._refusals: dict[int, Reply] = {}  # likewise
        self._partial = bytearray()  # a line, as much of it as has come
        self._begun = False

    @property
    def refusal(self) -> Reply | None:
        """Why nobody takes the content; None where somebody does."""
        return None if self._messages else one_for_all(list(self._refusals.values()))

    def begin(self, new_message: NewMessage, header: Callable[[], bytes]) -> None:
        """Take in the next recipient: what makes its `IMessage`, and what that gets first."""
        place = self._recipients
        self._recipients += 1
        try:
            message = self._messages[place] = new_message()
            if field := header():
                message.lineReceived(field)
        except Exception:
            self._fail(place, Failure())

    def write(self, content: bytes) -> None:
        """Hand out whole lines, without CR LF (`interfaces.Sink`)."""
        partial = self._partial
        halved = partial.endswith(b"\r") and content.startswith(b"\n")
        partial += content
        if halved or b"\r\n" in content:
            *lines, rest = bytes(partial).split(b"\r\n")
            self._partial = bytearray(rest)
            self._hand_out(lines)

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """Say that the message has ended; what each of them says is its recipient's result."""
        if self._partial:
            self._hand_out([bytes(self._partial)])
        ended = DeferredList(
            [maybeDeferred(message.eomReceived) for message in self._messages.values()],
            consumeErrors=True,
        )
        return ended.addCallback(self._ended)

    def abort(self) -> None:
        """Say that the message will not come (`interfaces.Sink`)."""
        messages = list(self._messages.values())
        self._messages.clear()
        _lose(messages, self._log)

    def _hand_out(self, lines: Sequence[bytes]) -> None:
        if lines and not self._begun:
            self._begun = True
            # As twisted.mail has it: a message without header fields gets an empty line, so that
            # what receivedHeader returned is not taken for its text.
            if lines[0] and b":" not in lines[0]:
                lines = [b"", *lines]
        for place, message in list(self._messages.items()):
            try:
                for line in lines:
                    message.lineReceived(line)
            except Exception:
                self._fail(place, Failure())
                if not self.apart:
                    return

    def _fail(self, place: int, failure: Failure) -> None:
        self._refusals[place] = self._refusal_of(failure)
        message = self._messages.pop(place, None)
        if message is not None:
            _lose([message], self._log)
        if not self.apart:
            self.abort()

    def _ended(self, results: Sequence[tuple[bool, object]]) -> ContentDecision:
        for place, (_, result) in zip(self._messages, results, strict=True):
            if isinstance(result, Failure):
                self._refusals[place] = self._refusal_of(result)
        if not self.apart and self._refusals:
            return one_for_all(list(self._refusals.values()))
        return [self._refusals.get(place) for place in range(self._recipients)]


def _lose(messages: Sequence[IMessageSMTP], log: Logger) -> None:
    for message in messages:
        try:
            message.connectionLost()
        except Exception:
            log.failure("a message failed while it was given up")


def _helo(session: Session) -> Helo:
    return session.helo.encode(), (session.peer.address or "").encode("ascii")
