"""Receive mail by SMTP, and save its attachments to a directory as it arrives.

    python save_attachments.py DIRECTORY [DOMAIN [PORT]]

Mail for any address of the domain is taken. It is answered with 250 when all its attachments are on
the disk, and with 451 if that fails: then the sender's server tries again later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import Address, SMTPBadRcpt, SMTPServerError, User
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mta import ESMTPFactory, attachments
from twisted_mta.attachment import TooManyParts

log = Logger()


def save_all(message: IO[bytes], directory: Path) -> list[Path]:
    """Save the attachments of a message; runs in a thread.

    If the disk is full after the first of them, that one is removed: the message comes again.
    """
    saved: list[Path] = []
    try:
        for part in attachments(message):
            saved.append(part.save(directory))
    except BaseException:
        for path in saved:
            path.unlink()
        raise
    finally:
        message.close()
    return saved


@implementer(IMessageSMTP)
class ReceivedMessage:
    """A message on its way into a temporary file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file: IO[bytes] = TemporaryFile()

    def lineReceived(self, line: bytes) -> None:
        """Add a line."""
        self.file.write(line + b"\r\n")

    def eomReceived(self) -> Deferred[None]:
        """Save the attachments; the client gets its reply when the Deferred fires."""
        saving = deferToThread(save_all, self.file, self.directory)
        return saving.addCallbacks(self.saved, self.failed)

    def saved(self, paths: list[Path]) -> None:
        """Log what was saved."""
        log.info("saved {paths}", paths=[str(path) for path in paths])

    def failed(self, failure: Failure) -> None:
        """Refuse a message that cannot be read for good, any other for now."""
        log.failure("not saved", failure)
        if failure.check(TooManyParts):
            raise SMTPServerError(554, b"5.6.0 Too many parts")
        raise SMTPServerError(451, b"4.3.0 Not saved, try again later")

    def connectionLost(self) -> None:
        """Forget a message that did not come to its end."""
        self.file.close()


@implementer(IMessageDelivery)
class SaveAttachments:
    """Take mail for one domain."""

    def __init__(self, directory: Path, domain: str) -> None:
        self.directory = directory
        self.domain = domain.lower().encode("ascii")

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> bytes:
        """Return no Received field: the message is not kept."""
        return b""

    def validateFrom(self, helo: object, origin: Address) -> Address:
        """Take mail from anybody."""
        return origin

    def validateTo(self, user: User) -> Callable[[], ReceivedMessage]:
        """Take mail for the domain."""
        if user.dest.domain.lower() != self.domain:
            raise SMTPBadRcpt(user)
        return lambda: ReceivedMessage(self.directory)


def main(directory: str, domain: str = "localhost", port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    factory = ESMTPFactory(SaveAttachments(Path(directory), domain))
    endpoint = serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1")
    endpoint.listen(factory).addErrback(lambda failure: log.failure("not listening", failure))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
