r"""A real listener in a thread, for tests of blocking programs in any language.

::

    with running() as mta:
        sign_up("bob@user.test", host=mta.host, port=mta.port)
        assert "Welcome" in mta.wait_for("bob@user.test").text

The server takes mail for any recipient into memory and relays nothing. Its reactor belongs to its
thread, is not installed, and sets no signal handler, so that it works beside any other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Literal, NoReturn

from attrs import evolve
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from zope.interface import implementer

from ..auth.authenticator import Authenticator
from ..inbox_message import InboxMessage
from ..mail.address import Mailbox
from ..mail.decision import Decision
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from ..server.esmtp_factory import ESMTPFactory
from ..server.factory import MAX_MESSAGE_SIZE
from ..server.protocol import ESMTPProtocol
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..system.timers import monotonic
from .authority import make_server_certificate
from .thread_reactor import ThreadReactor

_HOST = "127.0.0.1"
_AUTH_FAILURES = 100  # of one session
_AUTHENTICATE_FIRST = Reply.of(530, "7.0", "Authentication required")


class RunningMTA:
    """A server that is running; `running` makes one.

    All methods can be called in any thread.

    Attributes:
        host: ``127.0.0.1``.
        port: the number of its port.
        authorities: the path of a PEM file with the authority to trust; empty without TLS.
    """

    authorities = ""

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        tls: Literal["starttls", "implicit"] | None = None,
        port: int = 0,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        if tls not in (None, "starttls", "implicit"):
            raise ValueError(f"tls: found {tls!r}, expected 'starttls', 'implicit' or None")
        self.host = _HOST
        self._inbox = _Inbox(authenticated=users is not None)
        certificate = None if tls is None else make_server_certificate()
        context: Any = certificate  # a connection creator, newer than a `ContextFactory`
        self._factory = _Factory(
            self._inbox,
            hostname="localhost",
            portal=None if users is None else _portal(users),
            auth="any" if tls is None else "tls",
            tls=context,
            implicit_tls=tls == "implicit",
            max_message_size=max_message_size,
            max_connections_per_peer=1000,
        )
        self._reactor = ThreadReactor()
        try:
            listening: Any = self._reactor.listenTCP(  # type: ignore[no-untyped-call]
                port, self._factory, interface=_HOST
            )
        except BaseException:
            self._reactor.close()
            raise
        self._listening = listening
        self.port: int = listening.getHost().port
        if certificate is not None:
            descriptor, self.authorities = tempfile.mkstemp(".pem", "authorities-")
            with open(descriptor, "wb") as file:
                file.write(certificate.authority)
        self._thread: Thread | None = Thread(
            target=self._reactor.run_in_thread, name="twisted-mta running", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> RunningMTA:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def inbox(self) -> list[InboxMessage]:
        """The messages that were accepted so far, in order.

        A message is there before its client hears that it was accepted.
        """
        return self._inbox.messages

    def wait_for(self, recipient: str, timeout: float = 10.0) -> InboxMessage:
        """Return the first message for a recipient that was not yet returned; wait for it.

        Args:
            recipient: an address; case does not matter.
            timeout: seconds to wait.

        Raises:
            TimeoutError: none came; the error tells for whom mail came.
        """
        return self._inbox.wait_for(recipient, timeout)

    def clear(self) -> None:
        """Forget all messages."""
        self._inbox.clear()

    def stop(self) -> None:
        """Close the port and all connections, and end the thread; a second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._reactor.callFromThread(self._close)
        thread.join()
        self._reactor.close()
        if self.authorities:
            os.unlink(self.authorities)

    def _close(self) -> None:
        self._listening.stopListening()
        self._factory.abandon(at_once=True)
        self._reactor.stop()


def running(
    *,
    users: Mapping[str, str] | None = None,
    tls: Literal["starttls", "implicit"] | None = None,
    port: int = 0,
    max_message_size: int = MAX_MESSAGE_SIZE,
) -> RunningMTA:
    """Start a server on a loopback port; a context manager, which stops it at the end.

    Args:
        users: passwords by user name. Then mail is taken from logged-in clients alone; AUTH is
            offered in clear if there is no TLS.
        tls: whether STARTTLS is offered, or connections begin with a handshake; None: no TLS. The
            certificate is for ``localhost`` and ``127.0.0.1``; the file ``authorities`` of the
            server has the authority to trust.
        port: to listen on; 0: one that is free.
        max_message_size: octets.

    Raises:
        twisted.internet.error.CannotListenError: the port is in use.
        ValueError: ``tls`` is none of these.
    """
    return RunningMTA(users=users, tls=tls, port=port, max_message_size=max_message_size)


class _Inbox:
    """Takes all mail (`interfaces.Delivery`) in the reactor's thread; read in other threads."""

    def __init__(self, *, authenticated: bool) -> None:
        self._authenticated = authenticated
        self._changed = Condition()
        self._messages: list[InboxMessage] = []
        self._unseen: list[InboxMessage] = []  # of wait_for

    @property
    def messages(self) -> list[InboxMessage]:
        with self._changed:
            return list(self._messages)

    def add(self, message: InboxMessage) -> None:
        with self._changed:
            self._messages.append(message)
            self._unseen.append(message)
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._messages.clear()
            self._unseen.clear()

    def wait_for(self, recipient: str, timeout: float) -> InboxMessage:
        until = monotonic() + timeout
        with self._changed:
            while (message := self._take(recipient.lower())) is None:
                left = until - monotonic()
                if left <= 0:
                    self._not_found(recipient, timeout)
                self._changed.wait(left)
            return message

    def _take(self, recipient: str) -> InboxMessage | None:
        for message in self._unseen:
            if any(each.lower() == recipient for each in message.to):
                self._unseen.remove(message)
                return message
        return None

    def _not_found(self, recipient: str, timeout: float) -> NoReturn:
        others = dict.fromkeys(each for message in self._messages for each in message.to)
        found = ", ".join(others) or "none"
        raise TimeoutError(
            f"no new message for {recipient} in {timeout:g} s; found mail for: {found}"
        )

    # `interfaces.Delivery`.

    def client(self, session: Session) -> Decision:
        """Accept."""
        return None

    def helo(self, session: Session) -> Decision:
        """Accept."""
        return None

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision:
        """Accept, from users alone if there are any (RFC 4954 §6)."""
        if self._authenticated and session.identity is None:
            return _AUTHENTICATE_FIRST
        return None

    def rcpt(self, session: Session, forward_path: Mailbox, parameters: Parameters) -> Decision:
        """Accept."""
        return None

    def open(self, session: Session) -> _Content:
        """Begin a message."""
        return _Content(self, session)

    def ended(self, session: Session) -> None:
        """Do nothing."""


class _Content:
    """The content of one message (`interfaces.Sink`)."""

    def __init__(self, inbox: _Inbox, session: Session) -> None:
        transaction = session.transaction
        assert transaction is not None
        self._inbox = inbox
        self._pieces: list[bytes] = []
        sender = transaction.reverse_path
        self._sender = "" if sender is None else str(sender)
        self._to = tuple(str(each.mailbox) for each in transaction.recipients)
        self._user = session.identity

    def write(self, content: bytes) -> None:
        """Keep the octets."""
        self._pieces.append(content)

    def finish(self) -> None:
        """Put the message into the inbox."""
        self._inbox.add(InboxMessage(self._sender, self._to, b"".join(self._pieces), self._user))

    def abort(self) -> None:
        """Forget the message."""
        self._pieces.clear()


class _Factory(ESMTPFactory):
    """Recipients can ask for failures, and wrong passwords are refused without a delay."""

    fails_on_cue = True

    def authenticator_for(self, protocol: ESMTPProtocol) -> Authenticator | None:
        """Return what judges AUTH; failures are not counted."""
        authenticator = super().authenticator_for(protocol)
        return None if authenticator is None else evolve(authenticator, throttle=None)

    def settings_for(self, authenticator: Authenticator | None) -> SessionSettings:
        """Return the settings of a session; clients such as smtplib try each mechanism."""
        settings = super().settings_for(authenticator)
        if settings.auth is None:
            return settings
        return evolve(settings, auth=evolve(settings.auth, max_failures=_AUTH_FAILURES))


@implementer(IRealm)
class _Users:
    """The realm: the avatar of a user is the name."""

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        """Return the name of the user."""
        return interfaces[0], avatarId.decode("utf-8"), lambda: None


def _portal(users: Mapping[str, str]) -> Portal:
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    for name, password in users.items():
        checker.addUser(name.encode(), password.encode())
    return Portal(_Users(), [checker])
