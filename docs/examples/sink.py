"""Take all mail by SMTP, print its envelope, and keep nothing: for load tests and development.

    python sink.py [PORT]

It decides on mail without a queue: each message is counted as it streams in, and never whole in
memory.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

from twisted_mta import ESMTPFactory
from twisted_mta.interfaces import Sink
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.decision import Decision
from twisted_mta.mail.envelope import Parameters
from twisted_mta.smtp.server.session import Session


class Counted:
    """The content of one message."""

    def __init__(self, sender: Mailbox | None, recipients: list[Mailbox]) -> None:
        self.sender = sender
        self.recipients = recipients
        self.size = 0

    def write(self, content: bytes) -> None:
        """Count the next octets."""
        self.size += len(content)

    def finish(self) -> Decision:
        """Accept the message."""
        print(f"<{self.sender or ''}>", *map(str, self.recipients), self.size, flush=True)
        return None

    def abort(self) -> None:
        """Forget a message that did not come to its end."""


class TakeAll:
    """Accept each sender and each recipient (`twisted_mta.interfaces.Delivery`)."""

    def __init__(self) -> None:
        self.envelopes: dict[Session, tuple[Mailbox | None, list[Mailbox]]] = {}

    def client(self, session: Session) -> Decision:
        """Accept a client."""
        return None

    def helo(self, session: Session) -> Decision:
        """Accept the client's name."""
        return None

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision:
        """Accept a sender."""
        self.envelopes[session] = (reverse_path, [])
        return None

    def rcpt(self, session: Session, forward_path: Mailbox, parameters: Parameters) -> Decision:
        """Accept a recipient."""
        self.envelopes[session][1].append(forward_path)
        return None

    def open(self, session: Session) -> Sink:
        """Return where the content goes."""
        return Counted(*self.envelopes.pop(session))

    def ended(self, session: Session) -> None:
        """Forget the session."""
        self.envelopes.pop(session, None)


if __name__ == "__main__":
    port = sys.argv[1] if sys.argv[1:] else "2525"
    endpoint = serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1")
    listening = endpoint.listen(ESMTPFactory(TakeAll(), max_connections_per_peer=1000))
    listening.addCallback(lambda port: print("ready", port.getHost().port, flush=True))
    reactor.run()
