"""A delivery that was written for ``twisted.mail.smtp``, unchanged, on this ESMTP server.

    python replace_twisted_mail.py [PORT]

Mail for console@localhost is printed, all other mail is refused. Only the factory is another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import Address, SMTPBadRcpt, User
from zope.interface import implementer

# Before: from twisted.mail.smtp import ESMTP, SMTPFactory
from twisted_mta import ESMTPFactory


@implementer(IMessageSMTP)
class ConsoleMessage:
    """Prints a message when it is complete."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        """Add a line."""
        self.lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        """Print the message."""
        print(b"\n".join(self.lines).decode("utf-8", "replace"), flush=True)
        return succeed(None)

    def connectionLost(self) -> None:
        """Forget a message that did not come to its end."""


@implementer(IMessageDelivery)
class ConsoleDelivery:
    """Takes mail for one mailbox."""

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> bytes:
        """Return the trace field of a message."""
        return b"Received: by the console"

    def validateFrom(self, helo: object, origin: Address) -> Address:
        """Accept each sender."""
        return origin

    def validateTo(self, user: User) -> Callable[[], ConsoleMessage]:
        """Accept one recipient."""
        if (user.dest.local, user.dest.domain) != (b"console", b"localhost"):
            raise SMTPBadRcpt(user)
        return ConsoleMessage


def make_factory() -> ESMTPFactory:
    """Return the factory of the server."""
    # Before: a subclass of SMTPFactory with `protocol = ESMTP`, and a `buildProtocol` that sets
    # `delivery` and `host` on what it returns.
    return ESMTPFactory(ConsoleDelivery(), hostname="localhost")


if __name__ == "__main__":
    port = sys.argv[1] if sys.argv[1:] else "2525"
    endpoint = serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1")
    listening = endpoint.listen(make_factory())
    listening.addCallback(lambda port: print("ready", port.getHost().port, flush=True))
    reactor.run()
