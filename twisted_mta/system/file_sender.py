"""A file on a connection, sent by the kernel: its octets do not come into this process.

The transport asks for more whenever its own buffer is empty (`IPullProducer`), and then as much of
the file goes to the socket as that takes (sendfile(2)). Where the kernel refuses, the file is read
and written to the transport: a file system may not allow it, and an error of the socket or of the
file is then reported by the one whose error it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from .outbox import has_unsent

# Octets sent in one turn of the reactor. From memory, where most files are, that takes 0.2 ms; a
# cold file is read from the disk for them, and a slow disk ends the turn after one piece.
_TURN = 1_048_576
_PIECE = 262_144  # octets sent at once
_PATIENCE = 0.005  # seconds of a turn after which no other piece is sent
_READ = 65_536  # octets read where the kernel refuses


def takes_files(transport: object) -> bool:
    """Whether `send_file` can be used: on a socket, and not under TLS."""
    is_plain = isinstance(transport, Connection) and not transport.TLS
    return is_plain and hasattr(os, "sendfile")


def send_file(
    transport: Any, file: IO[bytes], size: int, progressed: Callable[[], object]
) -> Deferred[None]:
    """Send an open file behind the octets that the transport has, and close it.

    Args:
        transport: without a producer; see `takes_files`.
        file: at the first octet to send.
        size: octets to send.
        progressed: called whenever the transport takes more.

    Returns:
        A Deferred that fires when the kernel has taken all, or fails with `OSError` if the file
        cannot be read or is shorter. When it is cancelled, or the connection is lost, no more is
        sent; after the latter it does not fire by itself.
    """
    sender = _FileSender(transport, file, size, progressed)
    transport.registerProducer(sender, False)  # calls `resumeProducing`
    return sender.done


@implementer(IPullProducer)
class _FileSender:
    """The producer of one file: see `send_file`."""

    def __init__(
        self, transport: Any, file: IO[bytes], size: int, progressed: Callable[[], object]
    ) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._end())
        self._transport = transport
        self._file = file
        self._offset = file.tell()
        self._end_offset = self._offset + size
        self._progressed = progressed

    def resumeProducing(self) -> None:
        """Send as much as the socket takes, at most 1 MiB."""
        if has_unsent(self._transport):
            return  # it comes first, and the transport calls again
        self._progressed()
        try:
            self._send(min(self._end_offset, self._offset + _TURN))
        except BlockingIOError:
            pass
        except OSError:
            self._read()
        if self._file.closed:
            return
        if self._offset < self._end_offset:
            self._transport.startWriting()  # the transport calls again when the socket takes more
        else:
            self._end()
            self.done.callback(None)

    def stopProducing(self) -> None:
        """Close the file: the connection is lost."""
        self._file.close()

    def _send(self, until: int) -> None:
        socket, file = self._transport.getHandle().fileno(), self._file.fileno()
        seconds = self._transport.reactor.seconds
        latest = seconds() + _PATIENCE
        while self._offset < until:
            sent = os.sendfile(socket, file, self._offset, min(_PIECE, until - self._offset))
            if not sent:
                raise OSError("the file has ended")
            self._offset += sent
            if seconds() > latest:
                break

    def _read(self) -> None:
        try:
            self._file.seek(self._offset)
            octets = self._file.read(min(_READ, self._end_offset - self._offset))
            if not octets:
                raise OSError(
                    f"the file is {self._end_offset - self._offset} octets shorter than it was"
                )
        except OSError as error:
            self._end()
            self.done.errback(error)
            return
        self._offset += len(octets)
        self._transport.write(octets)

    def _end(self) -> None:
        self._file.close()
        self._transport.unregisterProducer()
